//! How many devices for N users under an SLO.

pub mod workload;
