//! The fitted constants as a file: names and numbers, made by `bench calibrate`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::LazyLock;

use anyhow::{Context, bail};

use super::calibrate::{Class, Constants, Spread};
use super::serving::{FACTORS, Factor, Pace};
use super::speed;

/// The constants that `bench calibrate` found, embedded.
const EMBEDDED: &str = include_str!("constants.csv");

/// The embedded constants.
pub fn embedded() -> &'static Constants {
    static CONSTANTS: LazyLock<Constants> = LazyLock::new(|| {
        read(EMBEDDED).expect("the embedded constants.csv is checked by a test of this module")
    });
    &CONSTANTS
}

/// The constants as the text of `constants.csv`: only what differs from its prior.
pub fn write(constants: &Constants) -> String {
    let mut text = String::from("name,value\n");
    for (factor, theta) in speed::factors().iter().zip(&constants.theta) {
        if (theta - factor.prior.mean).abs() > 5e-5 {
            let _ = writeln!(text, "{},{theta:.4}", factor.name);
        }
    }
    for (factor, theta) in Factor::ALL.iter().zip(&constants.pace.0) {
        let _ = writeln!(text, "{},{theta:.4}", factor.name());
    }
    let _ = writeln!(text, "spread.vllm.low,{:.4}", constants.pace_spread.low);
    let _ = writeln!(text, "spread.vllm.high,{:.4}", constants.pace_spread.high);
    for (class, spread) in &constants.spreads {
        let _ = writeln!(text, "spread.{}.low,{:.4}", class.key(), spread.low);
        let _ = writeln!(text, "spread.{}.high,{:.4}", class.key(), spread.high);
    }
    text
}

/// From the text of a `constants.csv`.
pub fn read(text: &str) -> anyhow::Result<Constants> {
    let mut values: BTreeMap<&str, f64> = BTreeMap::new();
    for (i, line) in text.lines().enumerate().skip(1) {
        let place = || format!("constants.csv:{}", i + 1);
        let (name, value) = line.split_once(',').with_context(place)?;
        values.insert(name, value.parse().with_context(place)?);
    }
    let factors = speed::factors();
    let theta =
        factors.iter().map(|f| values.remove(f.name.as_str()).unwrap_or(f.prior.mean)).collect();
    let mut take =
        |name: &str| values.remove(name).with_context(|| format!("constants.csv has no '{name}'"));
    let mut spread = |of: &str| -> anyhow::Result<Spread> {
        let (low, high) = (format!("spread.{of}.low"), format!("spread.{of}.high"));
        Ok(Spread { low: take(&low)?, high: take(&high)? })
    };
    let pace_spread = spread("vllm")?;
    let spreads = Class::ALL
        .into_iter()
        .map(|class| Ok((class, spread(class.key())?)))
        .collect::<anyhow::Result<_>>()?;
    let mut pace = Pace([0.0; FACTORS]);
    for (theta, factor) in pace.0.iter_mut().zip(Factor::ALL) {
        *theta = take(factor.name())?;
    }
    if let Some(name) = values.keys().next() {
        bail!("constants.csv: unknown constant '{name}'; make the file anew: `bench calibrate`");
    }
    Ok(Constants { theta, spreads, pace, pace_spread, own: None })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_embedded_constants_survive_writing_and_reading() {
        let constants = embedded();
        assert_eq!(&read(&write(constants)).unwrap(), constants);
    }

    #[test]
    fn a_constant_that_nothing_uses_is_refused() {
        let text = format!("{}step.colour,1\n", write(embedded()));
        assert!(read(&text).unwrap_err().to_string().contains("unknown constant 'step.colour'"));
    }
}
