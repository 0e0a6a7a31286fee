//! Marks: what speaks against a row's figures. The row stays, with its marks.

use std::fmt;
use std::str::FromStr;

use anyhow::bail;
use serde::{Deserialize, Serialize};

/// A reason to doubt a row. Its spelling stands in `records.csv` and does not change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mark {
    /// A GPU's hardware slowed its clocks.
    ClockThrottled,
    /// A processor or a GPU slowed its clocks because it was hot.
    ThermalThrottled,
    /// A GPU slowed its clocks to stay within its power limit.
    PowerLimited,
    /// The machine ran on its battery.
    OnBattery,
    /// The CPU's governor was another than `performance`.
    Governor,
    /// Other processes, or other virtual machines, computed on our cores.
    BusyCores,
    /// The probe changed by more than 3 % between before and after.
    ProbeDrift,
    /// The process swapped.
    Swap,
    /// The harness itself took more than 1 % of the CPU time there was.
    HarnessCpu,
    /// A client started requests later than scheduled by more than 2 % of the metric.
    ClientLag,
    /// Pages of the mapped weights were read from disk inside a timed region.
    PagesNotResident,
    /// A server's own clock and the client's differ by more than 3 %.
    ServerClock,
    /// A server is more than 3 % from the same engine in process, and no queue explains it.
    InProcess,
    /// Some requests failed.
    FailedRequests,
    /// A time limit ended a trial.
    TimedOut,
    /// Another benchmark measured it, by its own definitions.
    Foreign,
    /// The figures are means, as the source states no median.
    MeanNotMedian,
}

impl Mark {
    /// All marks.
    pub const ALL: [Self; 17] = [
        Self::ClockThrottled,
        Self::ThermalThrottled,
        Self::PowerLimited,
        Self::OnBattery,
        Self::Governor,
        Self::BusyCores,
        Self::ProbeDrift,
        Self::Swap,
        Self::HarnessCpu,
        Self::ClientLag,
        Self::PagesNotResident,
        Self::ServerClock,
        Self::InProcess,
        Self::FailedRequests,
        Self::TimedOut,
        Self::Foreign,
        Self::MeanNotMedian,
    ];

    /// Its spelling.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ClockThrottled => "clock-throttled",
            Self::ThermalThrottled => "thermal-throttled",
            Self::PowerLimited => "power-limited",
            Self::OnBattery => "on-battery",
            Self::Governor => "governor",
            Self::BusyCores => "busy-cores",
            Self::ProbeDrift => "probe-drift",
            Self::Swap => "swap",
            Self::HarnessCpu => "harness-cpu",
            Self::ClientLag => "client-lag",
            Self::PagesNotResident => "pages-not-resident",
            Self::ServerClock => "server-clock",
            Self::InProcess => "in-process",
            Self::FailedRequests => "failed-requests",
            Self::TimedOut => "timed-out",
            Self::Foreign => "foreign",
            Self::MeanNotMedian => "mean-not-median",
        }
    }

    /// What it means, for a report's legend.
    pub fn meaning(self) -> &'static str {
        match self {
            Self::ClockThrottled => "the GPU's hardware slowed its clocks",
            Self::ThermalThrottled => "the processor or the GPU was hot and slowed its clocks",
            Self::PowerLimited => "the GPU slowed its clocks to stay within its power limit",
            Self::OnBattery => "the machine ran on its battery",
            Self::Governor => "the CPU's governor was another than 'performance'",
            Self::BusyCores => "other programs computed on the same cores",
            Self::ProbeDrift => "the machine's own speed changed by more than 3 % meanwhile",
            Self::Swap => "the engine's memory was swapped",
            Self::HarnessCpu => "the harness took more than 1 % of the CPU time",
            Self::ClientLag => "requests started later than scheduled",
            Self::PagesNotResident => "weights were read from disk while the clock ran",
            Self::ServerClock => "the server's own clock and the client's differ by more than 3 %",
            Self::InProcess => {
                "the server is more than 3 % from the same engine in process, and no queue explains it"
            }
            Self::FailedRequests => {
                "some requests failed, or ended early and voided their trial; the figures are of the others"
            }
            Self::TimedOut => "a time limit ended a trial",
            Self::Foreign => "another benchmark measured it, by its own definitions",
            Self::MeanNotMedian => "the figures are means, as the source states no median",
        }
    }
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Mark {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        match Self::ALL.into_iter().find(|m| m.as_str() == text) {
            Some(mark) => Ok(mark),
            None => bail!("'{text}' is not a mark; the marks are listed in results/README.md"),
        }
    }
}

/// Marks in one cell: in the order of [`Mark::ALL`], each once, a space between them.
pub fn join_marks(marks: &[Mark]) -> String {
    let mut marks = marks.to_vec();
    marks.sort();
    marks.dedup();
    marks.iter().map(|m| m.as_str()).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_spelt_alike_everywhere() {
        for mark in Mark::ALL {
            assert_eq!(mark.as_str().parse::<Mark>().expect("a mark"), mark);
            let json = serde_json::to_string(&mark).expect("JSON");
            assert_eq!(json, format!("\"{mark}\""));
        }
        assert!("hot".parse::<Mark>().is_err());
    }

    #[test]
    fn a_cell_holds_each_mark_once_and_in_order() {
        let marks = [Mark::Swap, Mark::OnBattery, Mark::Swap];
        assert_eq!(join_marks(&marks), "on-battery swap");
        assert_eq!(join_marks(&[]), "");
    }
}
