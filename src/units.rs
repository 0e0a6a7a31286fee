//! Quantities with their units, and the only place where a number becomes text for a person.

use std::fmt;

use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};

/// What stands where there is no value: in tables, never in files (there the cell is empty).
pub const ABSENT: &str = "—";

const KIB: f64 = 1024.0;
const MIB: f64 = 1024.0 * KIB;
const GIB: f64 = 1024.0 * MIB;

macro_rules! quantity {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, PartialOrd, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub $inner);
    };
}

/// A size in bytes, shown in binary units (GiB).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Bytes(pub u64);

/// A number of tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Tokens(pub u32);

/// A duration or an instant on the monotonic clock, in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Nanos(pub u64);

quantity!(
    /// A speed of prompt processing or generation, in tokens per second.
    TokensPerSecond(f64)
);
quantity!(
    /// Memory bandwidth in 10^9 bytes per second, as vendors state it.
    GbPerSecond(f64)
);
quantity!(
    /// Arithmetic speed in 10^12 floating-point operations per second.
    Tflops(f64)
);
quantity!(
    /// Electric power in watts.
    Watts(f64)
);
quantity!(
    /// Energy in joules.
    Joules(f64)
);
quantity!(
    /// A share of one, shown in per cent.
    Share(f64)
);

/// An exact amount of US dollars.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Usd(pub Decimal);

quantity!(
    /// Electric energy in kilowatt-hours.
    KilowattHours(f64)
);
quantity!(
    /// A mass in kilograms, here of carbon dioxide equivalents.
    Kilograms(f64)
);
quantity!(
    /// A span of calendar months, whole or not.
    Months(f64)
);

macro_rules! price {
    ($(#[$doc:meta])* $name:ident, $per:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub Decimal);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&format!("{}{}", price_text(self.0), $per))
            }
        }
    };
}

price!(
    /// US dollars for a million tokens.
    UsdPerMtok,
    "/Mtok"
);
price!(
    /// US dollars for a kilowatt-hour.
    UsdPerKwh,
    "/kWh"
);
price!(
    /// US dollars for an hour, of a GPU or of a person.
    UsdPerHour,
    "/h"
);

impl UsdPerMtok {
    /// To four significant digits, for prices that are worked out and not listed.
    pub fn rounded(self) -> Self {
        Self(self.0.round_sf(4).unwrap_or(self.0))
    }
}

impl std::ops::Add for Usd {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self(self.0 + other.0)
    }
}
impl std::ops::Sub for Usd {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        Self(self.0 - other.0)
    }
}
impl std::ops::Mul<Decimal> for Usd {
    type Output = Self;
    fn mul(self, times: Decimal) -> Self {
        Self(self.0 * times)
    }
}
impl std::ops::Div<Decimal> for Usd {
    type Output = Self;
    fn div(self, by: Decimal) -> Self {
        Self(self.0 / by)
    }
}
impl std::iter::Sum for Usd {
    fn sum<I: Iterator<Item = Self>>(amounts: I) -> Self {
        Self(amounts.map(|amount| amount.0).sum())
    }
}

impl Bytes {
    /// `gib` GiB, rounded down to a whole byte.
    pub fn from_gib(gib: f64) -> Self {
        Self((gib * GIB) as u64)
    }

    /// This size in GiB (2^30 bytes).
    pub fn gib(self) -> f64 {
        self.0 as f64 / GIB
    }

    /// A size as people write it: `20 GiB`, `24 GB`, `512 MiB`.
    fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let unit_at = text.find(|c: char| c.is_ascii_alphabetic())?;
        let (number, unit) = text.split_at(unit_at);
        let factor = match unit {
            "B" => 1.0,
            "kB" => 1e3,
            "MB" => 1e6,
            "GB" => 1e9,
            "TB" => 1e12,
            "KiB" => KIB,
            "MiB" => MIB,
            "GiB" => GIB,
            "TiB" => 1024.0 * GIB,
            _ => return None,
        };
        let bytes = number.trim().parse::<f64>().ok()? * factor;
        (bytes.is_finite() && (1.0..1e18).contains(&bytes)).then_some(Self(bytes as u64))
    }

    /// Both ways of counting, where a vendor's label is in GB: `39.6 GiB (42.5 GB)`.
    pub fn both(self) -> String {
        format!("{self} ({} GB)", significant(self.0 as f64 / 1e9, 3))
    }
}

impl std::str::FromStr for Bytes {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        Self::parse(text).ok_or_else(|| {
            anyhow::anyhow!(
                "no size '{text}'; write a number with its unit, such as 20 GiB or 24 GB"
            )
        })
    }
}

impl Nanos {
    /// This duration in seconds.
    pub fn seconds(self) -> f64 {
        self.0 as f64 / 1e9
    }

    /// `seconds` as nanoseconds; negative values become zero.
    pub fn from_seconds(seconds: f64) -> Self {
        Self((seconds * 1e9).max(0.0) as u64)
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = self.0 as f64;
        let text = match bytes {
            b if b >= GIB => format!("{} GiB", significant(b / GIB, 3)),
            b if b >= MIB => format!("{} MiB", significant(b / MIB, 3)),
            b if b >= KIB => format!("{} KiB", significant(b / KIB, 3)),
            _ => format!("{} B", self.0),
        };
        f.pad(&text)
    }
}

impl fmt::Display for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&grouped(u64::from(self.0)))
    }
}

impl fmt::Display for Nanos {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.seconds();
        let text = match seconds {
            s if s >= 3600.0 => {
                format!("{} h {:02} min", (s / 3600.0) as u64, (s / 60.0) as u64 % 60)
            }
            s if s >= 60.0 => format!("{} min {:02} s", (s / 60.0) as u64, s as u64 % 60),
            // What would be rounded to a thousand of the smaller unit is one of the larger.
            s if s >= 0.9995 => format!("{} s", significant(s.max(1.0), 3)),
            s if s >= 0.9995e-3 => format!("{} ms", significant((s * 1e3).max(1.0), 3)),
            s if s >= 1e-6 => format!("{} µs", significant(s * 1e6, 3)),
            _ => format!("{} ns", self.0),
        };
        f.pad(&text)
    }
}

macro_rules! display_with_unit {
    ($($name:ident => $unit:literal),* $(,)?) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&format!("{} {}", significant(self.0, 3), $unit))
            }
        }
    )*};
}
display_with_unit!(
    TokensPerSecond => "tok/s",
    GbPerSecond => "GB/s",
    Tflops => "TFLOP/s",
    Watts => "W",
    Joules => "J",
    KilowattHours => "kWh",
    Kilograms => "kg",
    Months => "months",
);

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{} %", significant(self.0 * 100.0, 2)))
    }
}

/// A unit price with all its stated digits, and at least two decimals: `$0.003625`, `$2.50`.
fn price_text(price: Decimal) -> String {
    let price = price.round_dp(6).normalize();
    let places = price.scale().max(2) as usize;
    let sign = if price.is_sign_negative() && !price.is_zero() { "-" } else { "" };
    format!("{sign}${:.places$}", price.abs())
}

impl fmt::Display for Usd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Prices per token are far below a cent; sums of money are shown to the cent.
        let places = if self.0.abs() < Decimal::ONE && !self.0.is_zero() { 4 } else { 2 };
        let rounded = self.0.round_dp(places);
        let text = format!("{:.*}", if places == 4 { 4 } else { 2 }, rounded.abs());
        let (whole, cents) = text.split_once('.').unwrap_or((&text, "00"));
        let whole = whole.parse::<u64>().map_or_else(|_| whole.to_owned(), grouped);
        let sign = if rounded.is_sign_negative() && !rounded.is_zero() { "-" } else { "" };
        f.pad(&format!("{sign}${whole}.{cents}"))
    }
}

/// An optional quantity for a table: the value with its unit, or [`ABSENT`].
pub fn or_absent<T: fmt::Display>(value: Option<T>) -> String {
    value.map_or_else(|| ABSENT.to_owned(), |v| v.to_string())
}

/// A value with half of its interval's width, in per cent of it: `53.1 ± 1.2 %`.
pub fn with_interval(value: f64, interval: Option<(f64, f64)>) -> String {
    let text = significant(value, 3);
    match interval {
        Some((low, high)) if value != 0.0 => {
            format!("{text} ± {:.1} %", (high - low) / 2.0 / value.abs() * 100.0)
        }
        _ => text,
    }
}

/// A value with the ends of its interval: `53.1 [52.4, 53.7]`.
pub fn with_ends(value: f64, interval: Option<(f64, f64)>) -> String {
    let text = significant(value, 3);
    match interval {
        Some((low, high)) => format!("{text} [{}, {}]", significant(low, 3), significant(high, 3)),
        None => text,
    }
}

/// A whole number with thousands apart: `128,256`.
pub fn grouped(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `value` with at least `digits` significant digits and never an exponent: `1234`, `12.3`, `0.0123`.
pub fn significant(value: f64, digits: usize) -> String {
    if !value.is_finite() {
        return ABSENT.to_owned();
    }
    if value == 0.0 {
        return "0".to_owned();
    }
    let magnitude = value.abs().log10().floor() as i32;
    let decimals = (digits as i32 - 1 - magnitude).clamp(0, 9) as usize;
    // Rounding can carry into a new digit: 9.996 is "10.0", not "10.00".
    let text = format!("{value:.decimals$}");
    let carried = text.trim_start_matches('-').split('.').next().map_or(0, str::len) as i32
        > (magnitude + 1).max(1);
    if carried && decimals > 0 { format!("{value:.*}", decimals - 1) } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_shown_in_binary_units() {
        assert_eq!(Bytes(42_520_000_000).to_string(), "39.6 GiB");
        assert_eq!(Bytes(42_520_000_000).both(), "39.6 GiB (42.5 GB)");
        assert_eq!(Bytes(1536).to_string(), "1.50 KiB");
        assert_eq!(Bytes(7).to_string(), "7 B");
    }

    #[test]
    fn a_size_wants_its_unit() {
        assert_eq!("20 GiB".parse::<Bytes>().unwrap(), Bytes::from_gib(20.0));
        assert_eq!("1.5kB".parse::<Bytes>().unwrap(), Bytes(1500));
        for wrong in ["20", "20 gb", "GiB", "-1 GiB", "inf GB", "0 GB", "1e30 GB"] {
            let error = wrong.parse::<Bytes>().unwrap_err().to_string();
            assert!(error.starts_with(&format!("no size '{wrong}'")), "{error}");
        }
    }

    #[test]
    fn significant_digits_survive_a_carry() {
        assert_eq!(significant(9.996, 3), "10.0");
        assert_eq!(significant(0.012_345, 3), "0.0123");
        assert_eq!(significant(1234.5, 3), "1234");
        assert_eq!(significant(f64::NAN, 3), ABSENT);
    }

    #[test]
    fn durations_choose_their_unit() {
        assert_eq!(Nanos(1_500_000).to_string(), "1.50 ms");
        assert_eq!(Nanos(999_668_331).to_string(), "1.00 s");
        assert_eq!(Nanos(90_000_000_000).to_string(), "1 min 30 s");
        assert_eq!(Nanos(7_260_000_000_000).to_string(), "2 h 01 min");
    }

    #[test]
    fn unit_prices_keep_the_digits_that_their_list_states() {
        assert_eq!(UsdPerMtok(Decimal::new(3625, 6)).to_string(), "$0.003625/Mtok");
        assert_eq!(UsdPerMtok(Decimal::new(25, 1)).to_string(), "$2.50/Mtok");
        assert_eq!(UsdPerKwh(Decimal::new(1872, 4)).to_string(), "$0.1872/kWh");
        assert_eq!(UsdPerHour(Decimal::from(60)).to_string(), "$60.00/h");
    }

    #[test]
    fn money_is_shown_to_the_cent_and_tiny_prices_to_four_places() {
        assert_eq!(Usd(Decimal::new(123_456_789, 2)).to_string(), "$1,234,567.89");
        assert_eq!(Usd(Decimal::new(-5, 0)).to_string(), "-$5.00");
        assert_eq!(Usd(Decimal::new(435, 4)).to_string(), "$0.0435");
    }
}
