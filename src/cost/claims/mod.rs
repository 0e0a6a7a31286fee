//! What articles claim about the cost of local models, worked out with this model and this catalogue.

mod firm;
mod machines;
mod person;

use jiff::civil::Date;
use serde::Serialize;

use crate::units::significant;
use machines::Prices;

/// What our figure says about a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Our figure agrees.
    Holds,
    /// It agrees under the assumptions that stand beside it, and not otherwise.
    Partly,
    /// Our figure does not agree.
    Fails,
    /// Nothing that we have can tell; what is unknown.
    Unchecked(&'static str),
}

impl Serialize for Verdict {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Holds => f.pad("holds"),
            Self::Partly => f.pad("holds partly"),
            Self::Fails => f.pad("does not hold"),
            Self::Unchecked(unknown) => write!(f, "cannot be checked: {unknown}"),
        }
    }
}

/// A claim with our figure.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Claim {
    /// Its number in the list of claims.
    pub id: &'static str,
    /// What is claimed.
    pub claim: &'static str,
    /// What we find.
    pub figure: String,
    /// Under which assumptions.
    pub assumptions: String,
    /// What that says about the claim.
    pub verdict: Verdict,
}

/// All claims about cost, worked out with the prices that hold on `today`.
///
/// # Errors
/// A price that the catalogue no longer has.
pub fn claims(today: Date) -> anyhow::Result<Vec<Claim>> {
    let prices = Prices { today };
    let mut all = firm::efficiency(&prices)?;
    all.extend(firm::break_even_of_volume(&prices)?);
    all.extend(person::one_laptop(&prices)?);
    all.extend(person::agents(&prices)?);
    all.extend(person::people()?);
    all.sort_by_key(|claim| claim.id);
    Ok(all)
}

fn number(value: f64) -> String {
    significant(value, 2)
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::civil::date;

    #[test]
    fn every_claim_about_cost_is_worked_out() {
        let all = claims(date(2026, 11, 21)).unwrap();
        let ids: Vec<_> = all.iter().map(|claim| claim.id).collect();
        assert_eq!(
            ids,
            [
                "S0-68", "S0-69", "S0-70", "S0-71", "S0-72", "S0-73", "S0-81", "S1-40", "S2-04",
                "S2-05", "S2-06", "S2-08", "S3-01", "S3-02", "S3-03", "S3-04", "S3-08", "S3-09",
                "S3-10", "S3-11", "S3-12", "S3-13", "S3-16",
            ]
        );
        for claim in &all {
            assert!(!claim.figure.is_empty() && !claim.assumptions.is_empty(), "{}", claim.id);
            assert!(!claim.figure.contains("NaN") && !claim.figure.contains("inf"), "{}", claim.id);
        }
        let figure = |id| &all.iter().find(|claim| claim.id == id).unwrap().figure;
        // 1,500 / 480 and 1,500 / 460.
        assert!(figure("S3-10").starts_with("3.12 to 3.26 months"), "{}", figure("S3-10"));
        // 20 / 0.1872 kWh over 730.5 h.
        assert!(figure("S3-11").starts_with("146 W"), "{}", figure("S3-11"));
        assert!(figure("S2-05").starts_with("$3,000.00 as prompts, $6,000.00 at 3:1, $15,000.00"));
    }
}
