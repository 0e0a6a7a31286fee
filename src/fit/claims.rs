//! What articles claim about memory and sizes, and what we compute.

use anyhow::Context;
use serde::Deserialize;

use crate::catalog::hardware;
use crate::catalog::models::{self, ModelSpec};
use crate::model::quant::Quant;
use crate::model::{self, arch};
use crate::units::{Bytes, Share, Tokens, grouped, significant};

use super::memory::{self, Layout};
use super::packed::Packed;
use super::vllm::Checkpoint;

/// The claims, embedded so that the program needs no file beside it.
const ROWS: &str = include_str!("../catalog/claims_fit.csv");

/// A claim and how to check it.
#[derive(Clone, Debug, Deserialize)]
pub struct Claim {
    /// Its number in the list of claims.
    pub id: String,
    /// What is claimed.
    pub claim: String,
    /// The number in it.
    pub value: String,
    /// The number's unit.
    pub unit: String,
    check: String,
    model: String,
    quant: String,
    context: Option<u32>,
    device: String,
    reason: String,
}

/// What came of checking a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finding {
    /// Within 5 %, or true as stated.
    Right,
    /// Within 20 %.
    Roughly,
    /// Neither.
    Wrong,
    /// Nothing to compute.
    NotChecked,
}

impl Finding {
    /// Its word in tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Right => "right",
            Self::Roughly => "roughly",
            Self::Wrong => "wrong",
            Self::NotChecked => "not checked",
        }
    }
}

/// A claim with what we compute for it.
#[derive(Clone, Debug)]
pub struct Checked {
    /// The claim.
    pub claim: Claim,
    /// What we compute, in words; the reason where nothing is computed.
    pub computed: String,
    /// What came of it.
    pub finding: Finding,
}

/// Every claim, checked.
pub fn check_all() -> anyhow::Result<Vec<Checked>> {
    csv::Reader::from_reader(ROWS.as_bytes())
        .deserialize()
        .enumerate()
        .map(|(i, row)| {
            let place = || format!("claims_fit.csv:{}", i + 2);
            let claim: Claim = row.with_context(place)?;
            let (computed, finding) = check(&claim).with_context(place)?;
            Ok(Checked { claim, computed, finding })
        })
        .collect()
}

fn check(claim: &Claim) -> anyhow::Result<(String, Finding)> {
    if claim.check == "none" {
        return Ok((claim.reason.clone(), Finding::NotChecked));
    }
    match claim.check.as_str() {
        "device-memory" => device_memory(claim),
        "share" | "share-most" => share(claim),
        "fits" => fits(claim),
        _ => about_model(claim, models::find(&claim.model)?),
    }
}

fn number(claim: &Claim) -> anyhow::Result<f64> {
    claim.value.parse().with_context(|| format!("'{}' is no number", claim.value))
}

fn near(ours: f64, claimed: f64) -> Finding {
    match (ours / claimed - 1.0).abs() {
        off if off <= 0.05 => Finding::Right,
        off if off <= 0.2 => Finding::Roughly,
        _ => Finding::Wrong,
    }
}

fn about_model(claim: &Claim, spec: &ModelSpec) -> anyhow::Result<(String, Finding)> {
    let claimed = number(claim)?;
    let scale = match claim.unit.as_str() {
        "T" => 1e12,
        "B" | "B params" | "GB" => 1e9,
        "K" | "K tokens" if claim.check == "vocabulary" => 1e3,
        "K" | "K tokens" => 1024.0,
        "M tokens" => 1024.0 * 1024.0,
        _ => 1.0,
    };
    let count = |ours: f64| {
        let text = if ours >= 1e8 {
            format!("{} B", significant(ours / 1e9, 3))
        } else {
            grouped(ours as u64)
        };
        (text, near(ours, claimed * scale))
    };
    let active = || spec.params_active.context("the active parameters are not known");
    let total = || -> anyhow::Result<f64> {
        Ok(spec.params_total.map_or_else(|| arch::parameters(spec), Ok)? as f64)
    };
    Ok(match claim.check.as_str() {
        "parameters" => count(total()?),
        "active" => count(active()? as f64),
        "context" => count(f64::from(spec.context_max)),
        "vocabulary" => count(f64::from(spec.vocab)),
        "experts" => count(f64::from(spec.experts.as_ref().map_or(0, |e| e.total))),
        "window" => count(f64::from(spec.sliding.as_ref().map_or(0, |s| s.window))),
        "active-share-below" => {
            let share = active()? as f64 / total()?;
            let finding = if share <= claimed { Finding::Right } else { Finding::Wrong };
            (format!("{} of all parameters", significant(share, 3)), finding)
        }
        "weights" => {
            let bytes = model::weight_bytes(spec, quant(claim)?)?;
            (bytes.both(), near(bytes.0 as f64, claimed * scale))
        }
        "memory" | "memory-below" => {
            let layout = layout(claim);
            let packed = match Checkpoint::named(&claim.quant) {
                Some(kind) if kind != Checkpoint::Bf16 => kind.packed(spec)?,
                _ => Packed::of(spec, quant(claim)?)?,
            };
            let needed = memory::of_weights(spec, &packed.weights, &layout)?.in_one_place();
            let text = format!("{} with {} tokens of context", needed.both(), layout.slot_tokens);
            let bytes = needed.0 as f64;
            let finding = match claim.check.as_str() {
                "memory-below" if bytes <= claimed * scale => Finding::Right,
                "memory-below" => Finding::Wrong,
                _ => near(bytes, claimed * scale),
            };
            (text, finding)
        }
        "cache" => {
            let cache = memory::cache(spec, &layout(claim));
            // The claim says "a large amount": more than the 4-bit weights of an 8B model.
            let finding = if cache.gib() > 5.0 { Finding::Right } else { Finding::Wrong };
            (format!("{cache} of cache"), finding)
        }
        other => anyhow::bail!("unknown check '{other}'"),
    })
}

fn quant(claim: &Claim) -> anyhow::Result<Quant> {
    claim.quant.parse()
}

fn layout(claim: &Claim) -> Layout {
    Layout { slot_tokens: Tokens(claim.context.unwrap_or(4096)), ..Layout::default() }
}

fn device_memory(claim: &Claim) -> anyhow::Result<(String, Finding)> {
    let device = hardware::find(&claim.device, &[])?;
    let memory = device.memory.context("the memory is not known")?;
    let (usable, why) = device.usable().context("the memory is not known")?;
    let text = format!("{memory} in the system, {usable} for models ({why})");
    let claimed = number(claim)?;
    // Labels are in GB and mean GiB as often.
    let labelled = device.memory_label_gb == Some(claimed);
    Ok((text, if labelled { Finding::Right } else { near(memory.gib(), claimed) }))
}

/// A device's id, or a number of GiB.
fn room(device: &str) -> anyhow::Result<Bytes> {
    if let Ok(gib) = device.parse::<f64>() {
        return Ok(Bytes::from_gib(gib));
    }
    let device = hardware::find(device, &[])?;
    Ok(device.usable().context("the memory is not known")?.0)
}

fn fits(claim: &Claim) -> anyhow::Result<(String, Finding)> {
    let spec = models::find(&claim.model)?;
    let needed = memory::estimate(spec, quant(claim)?, &layout(claim))?.in_one_place();
    let room = room(&claim.device)?;
    let fits = needed <= room;
    let text = format!(
        "{} {} with {} tokens: {needed} against {room}: {}",
        spec.id,
        claim.quant,
        layout(claim).slot_tokens,
        if fits { "fits" } else { "does not fit" }
    );
    // One claim says that something does not fit.
    let denies = claim.claim.contains("cannot");
    Ok((text, if fits == denies { Finding::Wrong } else { Finding::Right }))
}

fn share(claim: &Claim) -> anyhow::Result<(String, Finding)> {
    let room = room(&claim.device)?;
    let (mut fitting, mut all) = (0_u32, 0_u32);
    for spec in models::all() {
        let quant = if spec.arch == models::Arch::GptOss { Quant::Mxfp4 } else { quant(claim)? };
        let Ok(packed) = Packed::of(spec, quant) else { continue };
        let tokens = layout(claim).slot_tokens.0.min(spec.context_max);
        let layout = Layout { slot_tokens: Tokens(tokens), ..Layout::default() };
        let needed = memory::of_weights(spec, &packed.weights, &layout)?.in_one_place();
        all += 1;
        fitting += u32::from(needed <= room);
    }
    let part = f64::from(fitting) / f64::from(all);
    let text = format!("{fitting} of {all} catalogued models ({}) fit {room}", Share(part));
    let finding = match claim.check.as_str() {
        "share-most" if part > 0.5 => Finding::Right,
        "share-most" => Finding::Wrong,
        _ => Finding::NotChecked,
    };
    Ok((text, finding))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_claim_is_checked_or_says_why_not() {
        let checked = check_all().unwrap();
        assert!(checked.len() >= 80, "{}", checked.len());
        for c in &checked {
            assert!(!c.computed.is_empty(), "{}", c.claim.id);
        }
        let found = |id: &str| checked.iter().find(|c| c.claim.id == id).unwrap();
        // "RTX 5090 comfortably runs quantised 70B": about 43 GiB against 31.8.
        assert_eq!(found("S0-84").finding, Finding::Wrong, "{:?}", found("S0-84"));
        assert_eq!(found("S0-35").finding, Finding::Wrong);
        assert_eq!(found("S0-57").finding, Finding::Right);
    }
}
