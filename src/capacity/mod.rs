//! How many devices for N users under an SLO.

pub use crate::workload;
