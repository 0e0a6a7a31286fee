//! Records joined by case; ratios with intervals.
