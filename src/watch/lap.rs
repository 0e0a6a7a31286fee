//! What was used between two moments, and what devices take when nothing is asked of them.

use std::thread;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Watch;
use crate::units::{Joules, Nanos, Share, Watts};

/// What was used between two moments; what cannot be read is `None`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Lap {
    /// The time between them.
    pub time: Nanos,
    /// CPU time of the processes.
    pub tree_cpu: Option<Nanos>,
    /// CPU time of this process, the harness.
    pub harness_cpu: Option<Nanos>,
    /// CPU time that others took on the cores that the processes may use.
    pub other_cpu: Option<Nanos>,
    /// How many those cores are.
    pub cores: Option<u32>,
    /// Pages that the processes read from disk.
    pub major_faults: Option<u64>,
    /// Energy of the processor packages.
    pub package: Option<Joules>,
    /// Energy of each GPU.
    pub gpus: Vec<Option<Joules>>,
}

impl Default for Lap {
    /// No time, and nothing known.
    fn default() -> Self {
        Self {
            time: Nanos(0),
            tree_cpu: None,
            harness_cpu: None,
            other_cpu: None,
            cores: None,
            major_faults: None,
            package: None,
            gpus: Vec::new(),
        }
    }
}

impl Lap {
    /// This lap and another one together; what either cannot tell, the sum cannot.
    pub(super) fn plus(&self, other: &Self) -> Self {
        let nanos = |a: Option<Nanos>, b: Option<Nanos>| Some(Nanos(a?.0 + b?.0));
        let joules = |a: Option<Joules>, b: Option<Joules>| Some(Joules(a?.0 + b?.0));
        let gpus = self.gpus.iter().zip(&other.gpus);
        Self {
            time: Nanos(self.time.0 + other.time.0),
            tree_cpu: nanos(self.tree_cpu, other.tree_cpu),
            harness_cpu: nanos(self.harness_cpu, other.harness_cpu),
            other_cpu: nanos(self.other_cpu, other.other_cpu),
            cores: other.cores,
            major_faults: self.major_faults.zip(other.major_faults).map(|(a, b)| a + b),
            package: joules(self.package, other.package),
            gpus: gpus.map(|(a, b)| joules(*a, *b)).collect(),
        }
    }

    /// CPU time of the harness as a share of all that the cores offered.
    pub fn harness_share(&self) -> Option<Share> {
        let offered = self.time.seconds() * f64::from(self.cores?);
        (offered > 0.0).then_some(Share(self.harness_cpu?.seconds() / offered))
    }

    /// How many cores others kept busy on average.
    pub fn other_cores(&self) -> Option<f64> {
        (self.time.0 > 0).then_some(self.other_cpu?.seconds() / self.time.seconds())
    }
}

/// What the devices take when nothing is asked of them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct IdlePower {
    /// The processor packages.
    pub package: Option<Watts>,
    /// Each GPU.
    pub gpus: Vec<Option<Watts>>,
}

/// Measures idle power for `time`; 5 s and more give steady figures. Measure it before the model is
/// loaded, or after: a GPU that holds a model idles higher.
pub fn idle_power(time: Duration) -> IdlePower {
    let watch = Watch::start_trees(&[]);
    thread::sleep(time);
    let whole = watch.finish().whole;
    let seconds = whole.time.seconds();
    let watts =
        |joules: Option<Joules>| joules.filter(|_| seconds > 0.0).map(|j| Watts(j.0 / seconds));
    IdlePower { package: watts(whole.package), gpus: whole.gpus.into_iter().map(watts).collect() }
}
