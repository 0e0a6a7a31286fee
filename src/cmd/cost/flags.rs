//! The flags --set and --range.

use anyhow::Context as _;
use rust_decimal::Decimal;

use crate::cost::{Assumptions, Basis, Input};

use super::QuestionArgs;

/// The flags --set, in their order.
pub fn set(all: &mut Assumptions, args: &QuestionArgs) -> anyhow::Result<()> {
    for set in &args.set {
        let (input, value) = pair("--set", set, "VALUE")?;
        let value = decimal("--set", set, value)?;
        all.put_point(input, value, Basis::Stated, "--set")?;
    }
    Ok(())
}

/// The flags --range, in their order.
pub fn ranges(all: &mut Assumptions, args: &QuestionArgs) -> anyhow::Result<()> {
    for range in &args.range {
        let (input, value) = pair("--range", range, "LOW..HIGH")?;
        let (low, high) = value
            .split_once("..")
            .with_context(|| format!("--range {range}: write INPUT=LOW..HIGH"))?;
        all.put_range(input, decimal("--range", range, low)?, decimal("--range", range, high)?)?;
    }
    Ok(())
}

fn pair<'a>(flag: &str, text: &'a str, form: &str) -> anyhow::Result<(Input, &'a str)> {
    let (key, value) =
        text.split_once('=').with_context(|| format!("{flag} {text}: write INPUT={form}"))?;
    let input = key.parse().with_context(|| format!("{flag} {text}"))?;
    Ok((input, value.trim()))
}

fn decimal(flag: &str, text: &str, number: &str) -> anyhow::Result<Decimal> {
    let number = number.trim();
    number.parse().ok().with_context(|| {
        format!("{flag} {text}: '{number}' is no number; write it without its unit")
    })
}
