//! Does it fit, how fast, with what interval.
