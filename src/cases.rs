//! A scenario's matrix as a list of cases with stable ids.
