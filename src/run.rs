//! A case to its record: child, time limits, trials, statistics, resume.
