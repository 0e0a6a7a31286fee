//! The two arithmetics of the model: exact decimals for every figure that is printed as money, and
//! binary floats for the random draws, so that both go through the same formulas.

use std::ops::{Add, AddAssign, Div, Mul, Neg, Sub};

use rust_decimal::Decimal;
use rust_decimal::prelude::ToPrimitive;

/// What the formulas of ownership need of a number.
pub trait Number:
    Copy
    + PartialOrd
    + Add<Output = Self>
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Div<Output = Self>
    + Neg<Output = Self>
    + AddAssign
{
    /// This decimal, as near as the arithmetic can.
    fn of(value: Decimal) -> Self;
    /// This whole number.
    fn whole(value: u32) -> Self;
    /// The smallest count that is not below this number.
    fn count(self) -> u32;
    /// The nearest whole number, at least 0.
    fn nearest(self) -> u32;
    /// This number for a statistic or a chart.
    fn float(self) -> f64;
}

impl Number for Decimal {
    fn of(value: Decimal) -> Self {
        value
    }

    fn whole(value: u32) -> Self {
        value.into()
    }

    fn count(self) -> u32 {
        self.ceil().to_u32().unwrap_or(if self > Self::ZERO { u32::MAX } else { 0 })
    }

    fn nearest(self) -> u32 {
        self.round().to_u32().unwrap_or(if self > Self::ZERO { u32::MAX } else { 0 })
    }

    fn float(self) -> f64 {
        self.to_f64().unwrap_or(f64::NAN)
    }
}

impl Number for f64 {
    fn of(value: Decimal) -> Self {
        value.to_f64().unwrap_or(f64::NAN)
    }

    fn whole(value: u32) -> Self {
        value.into()
    }

    fn count(self) -> u32 {
        // 3.0000000001 devices are three: the last digits are the arithmetic's, not the load's.
        (self - 1e-9 * self.abs().max(1.0)).ceil() as u32
    }

    fn nearest(self) -> u32 {
        self.round() as u32
    }

    fn float(self) -> f64 {
        self
    }
}
