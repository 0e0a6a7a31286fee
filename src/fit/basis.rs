//! On what a number rests.

use std::fmt;

/// On what a number rests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Basis {
    /// Data sheets and measurements that others published.
    #[default]
    Predicted,
    /// Measurements of other models on this very machine.
    Calibrated,
    /// A measurement of this very case on this very machine.
    Measured,
}

impl Basis {
    /// Its word in tables and files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Predicted => "predicted",
            Self::Calibrated => "calibrated",
            Self::Measured => "measured",
        }
    }
}

impl fmt::Display for Basis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}
