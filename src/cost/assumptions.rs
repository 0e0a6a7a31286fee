//! The inputs of a decision with their ranges, and for each of them who says so.

use std::fmt;

use rust_decimal::Decimal;
use serde::Serialize;

use super::inputs::{Input, Inputs, Range, check_bounds};

/// How a value came about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Basis {
    /// Measured by `bench run`.
    Measured,
    /// Predicted, and corrected by measurements of this machine.
    Calibrated,
    /// Predicted.
    Predicted,
    /// From a price list or a data sheet, with its date.
    Listed,
    /// Stated by the user, in a flag or a scenario.
    Stated,
    /// Assumed by this program, where nobody says anything.
    Assumed,
}

impl fmt::Display for Basis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Measured => "measured",
            Self::Calibrated => "calibrated",
            Self::Predicted => "predicted",
            Self::Listed => "listed",
            Self::Stated => "stated",
            Self::Assumed => "assumed",
        })
    }
}

/// One input with its range.
#[derive(Clone, Debug, PartialEq)]
pub struct Assumption {
    /// Which input.
    pub input: Input,
    /// The least that is plausible.
    pub low: Decimal,
    /// The point value.
    pub likely: Decimal,
    /// The most that is plausible.
    pub high: Decimal,
    /// How the value came about.
    pub basis: Basis,
    /// Who says so, or why.
    pub source: String,
}

/// Everything that a decision rests on. What is put later replaces what was put before.
#[derive(Clone, Debug, PartialEq)]
pub struct Assumptions {
    rows: Vec<Assumption>,
}

/// What is assumed where nobody says anything: (input, low, likely, high, why).
const DEFAULTS: &[(Input, &str, &str, &str, &str)] = &[
    (
        Input::life_years,
        "2",
        "3",
        "5",
        "three years of straight-line depreciation are usual for IT",
    ),
    (
        Input::resale_share,
        "0",
        "0.2",
        "0.4",
        "cards of 2020 sold used in 2026 for half of their list price, most hardware for less",
    ),
    (Input::capital_cost_per_year, "0.03", "0.06", "0.12", "between a deposit and a bank loan"),
    (Input::spare_share, "0", "0.1", "0.3", "some capacity must stay free to keep an SLO"),
    (Input::maintenance_share_per_year, "0", "0.02", "0.05", "fans, disks, a share of failures"),
    (Input::staff_hours_per_month, "0", "1", "4", "updates of drivers, engines and models"),
    (
        Input::staff_usd_per_hour,
        "40",
        "80",
        "120",
        "an engineer at 160,000 USD a year, 2,000 hours",
    ),
    (Input::growth_per_year, "-0.2", "0", "0.5", "nobody knows"),
    (
        Input::api_change_per_year,
        "-0.5",
        "-0.2",
        "0",
        "list prices of comparable models have fallen in most years",
    ),
];

impl Default for Assumptions {
    fn default() -> Self {
        let number = |text: &str| text.parse().expect("a number in the table above");
        let rows = DEFAULTS
            .iter()
            .map(|&(input, low, likely, high, why)| Assumption {
                input,
                low: number(low),
                likely: number(likely),
                high: number(high),
                basis: Basis::Assumed,
                source: why.to_owned(),
            })
            .collect();
        Self { rows }
    }
}

impl Assumptions {
    /// Puts a value with its range.
    ///
    /// # Errors
    /// A value out of the input's bounds, or a range that does not hold it.
    pub fn put(
        &mut self,
        input: Input,
        (low, likely, high): (Decimal, Decimal, Decimal),
        basis: Basis,
        source: impl Into<String>,
    ) -> anyhow::Result<()> {
        for number in [likely, low, high] {
            check_bounds(input, number)?;
        }
        anyhow::ensure!(
            low <= likely && likely <= high,
            "the range {} to {} of '{input}' does not hold its value {}: write LOW..HIGH around it",
            low.normalize(),
            high.normalize(),
            likely.normalize()
        );
        self.rows.retain(|row| row.input != input);
        self.rows.push(Assumption { input, low, likely, high, basis, source: source.into() });
        Ok(())
    }

    /// Puts a value that is certain.
    ///
    /// # Errors
    /// As [`Self::put`].
    pub fn put_point(
        &mut self,
        input: Input,
        value: Decimal,
        basis: Basis,
        source: impl Into<String>,
    ) -> anyhow::Result<()> {
        self.put(input, (value, value, value), basis, source)
    }

    /// Puts a value with a range of `share` of it to both sides, within the input's bounds.
    ///
    /// # Errors
    /// As [`Self::put`].
    pub fn put_about(
        &mut self,
        input: Input,
        value: Decimal,
        share: Decimal,
        basis: Basis,
        source: impl Into<String>,
    ) -> anyhow::Result<()> {
        check_bounds(input, value)?;
        let (least, most) = input.bounds();
        let by = value.abs() * share;
        self.put(input, ((value - by).max(least), value, (value + by).min(most)), basis, source)
    }

    /// Gives another range to a value that is there.
    ///
    /// # Errors
    /// As [`Self::put`], or no such value.
    pub fn put_range(&mut self, input: Input, low: Decimal, high: Decimal) -> anyhow::Result<()> {
        let Some(row) = self.get(input).cloned() else {
            anyhow::bail!("'{input}' has a range and no value: set it with --set {input}=…");
        };
        self.put(input, (low, row.likely, high), row.basis, format!("{}; range stated", row.source))
    }

    /// What is known about an input.
    pub fn get(&self, input: Input) -> Option<&Assumption> {
        self.rows.iter().find(|row| row.input == input)
    }

    /// All, in the order of the table of inputs.
    pub fn rows(&self) -> Vec<&Assumption> {
        Input::ALL.iter().filter_map(|&input| self.get(input)).collect()
    }

    /// The point values.
    pub fn inputs(&self) -> Inputs {
        let mut inputs = Inputs::blank();
        for row in &self.rows {
            inputs.set(row.input, row.likely);
        }
        inputs
    }

    /// The ranges of those that are not certain.
    pub fn ranges(&self) -> Vec<Range> {
        self.rows()
            .into_iter()
            .filter(|row| row.low != row.high)
            .map(|row| Range {
                input: row.input,
                low: row.low,
                high: row.high,
                basis: row.source.clone(),
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_assumption_of_ours_is_within_bounds_and_has_a_reason() {
        let ours = Assumptions::default();
        assert_eq!(ours.rows().len(), DEFAULTS.len());
        let mut again = ours.clone();
        for row in ours.rows() {
            assert!(!row.source.is_empty());
            let range = (row.low, row.likely, row.high);
            again.put(row.input, range, row.basis, row.source.clone()).unwrap();
        }
        assert_eq!(again.ranges(), ours.ranges());
        ours.inputs().check().unwrap();
    }

    #[test]
    fn what_is_put_later_replaces_what_was_there() {
        let mut all = Assumptions::default();
        let four = Decimal::from(4);
        all.put_point(Input::life_years, four, Basis::Stated, "--set").unwrap();
        assert_eq!(all.inputs().life_years, four);
        assert!(all.ranges().iter().all(|range| range.input != Input::life_years));
        assert!(all.put_range(Input::life_years, Decimal::ONE, Decimal::TWO).is_err());
        all.put_range(Input::life_years, Decimal::ONE, Decimal::TEN).unwrap();
        let error = all.put_range(Input::device_usd, Decimal::ONE, Decimal::TWO).unwrap_err();
        assert!(error.to_string().starts_with("'device_usd' has a range and no value"));
    }

    #[test]
    fn a_range_of_a_share_stays_within_the_bounds() {
        let mut all = Assumptions::default();
        let half = Decimal::new(5, 1);
        all.put_about(Input::cached_share, Decimal::new(8, 1), half, Basis::Assumed, "").unwrap();
        let row = all.get(Input::cached_share).unwrap();
        assert_eq!((row.low, row.high), (Decimal::new(4, 1), Decimal::ONE));
    }
}
