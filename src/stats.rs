//! Median, MAD, percentiles and bootstrap intervals.
