//! Published measurements as observations, and why some of them cannot be used.

use std::collections::BTreeMap;

use crate::catalog::published::{Published, PublishedModel};
use crate::catalog::{hardware, models};
use crate::model::quant::Quant;

use super::posynomial::{self, Observation, Term};
use super::speed::{self, Api, Place, Usage};
use super::work::Work;

/// What was measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Quantity {
    /// Tokens generated a second.
    Decode,
    /// Tokens of a prompt processed a second.
    Prefill,
}

/// One measured speed with the terms that should explain it.
#[derive(Clone, Debug)]
pub struct Evidence {
    /// Which line of the rows given, from 0.
    pub row: usize,
    /// What was measured.
    pub quantity: Quantity,
    /// The device's id.
    pub device: String,
    /// Through what the engine drove it.
    pub api: Api,
    /// Whether the model has experts.
    pub has_experts: bool,
    /// Streams at once.
    pub streams: f64,
    /// Tokens a second (of all streams).
    pub measured: f64,
    /// Tokens a second that the memory's bandwidth allows at most (decode alone).
    pub ceiling: Option<f64>,
    /// The terms of the time, and the time.
    pub terms: Vec<Term>,
    tokens: f64,
    place: String,
}

impl Evidence {
    /// The predicted speed.
    pub fn speed(&self, theta: &[f64]) -> f64 {
        self.tokens / posynomial::seconds(&self.terms, theta)
    }

    /// As an observation that counts `weight`.
    pub fn observation(&self, weight: f64) -> Observation {
        Observation { terms: self.terms.clone(), seconds: self.tokens / self.measured, weight }
    }
}

/// A row that cannot be used.
#[derive(Clone, Debug, PartialEq)]
pub struct SetAside {
    /// Which line of the rows given, from 0.
    pub row: usize,
    /// What of it.
    pub quantity: Quantity,
    /// Why.
    pub reason: String,
}

/// Sorts `rows` into evidence and what cannot be used.
pub fn gather(
    rows: &[Published],
    shapes: &[PublishedModel],
) -> anyhow::Result<(Vec<Evidence>, Vec<SetAside>)> {
    let mut works = BTreeMap::new();
    let (mut evidence, mut aside) = (Vec::new(), Vec::new());
    for (row, published) in rows.iter().enumerate() {
        for quantity in [Quantity::Decode, Quantity::Prefill] {
            let measured = match quantity {
                Quantity::Decode => published.decode_tok_s,
                Quantity::Prefill => published.prefill_tok_s,
            };
            let Some(measured) = measured else { continue };
            match one(row, published, quantity, measured, shapes, &mut works)? {
                Ok(found) => evidence.push(found),
                Err(reason) => aside.push(SetAside { row, quantity, reason }),
            }
        }
    }
    keep_fastest(rows, &mut evidence, &mut aside);
    Ok((evidence, aside))
}

type Works = BTreeMap<(String, String), Option<Work>>;

/// One row's evidence, or why there is none.
fn one(
    row: usize,
    published: &Published,
    quantity: Quantity,
    measured: f64,
    shapes: &[PublishedModel],
    works: &mut Works,
) -> anyhow::Result<Result<Evidence, String>> {
    let not = |reason: &str| Ok(Err(reason.to_owned()));
    if !published.aside.is_empty() {
        return not(&published.aside);
    }
    if published.gpus != 1 {
        return not("several devices");
    }
    if published.engine == "vllm" {
        return not("vLLM: a server's total, whose prompts run at the same time");
    }
    if published.quant.is_empty() {
        return not("the quantisation is not stated or has no known layout");
    }
    if published.model_id.is_empty() {
        return not("the model's shape is not known");
    }
    let streams = published.streams.unwrap_or(1.0);
    if published.scope != "single_stream" && quantity == Quantity::Prefill {
        return not("prompts of several streams");
    }
    let key = (published.model_id.clone(), published.quant.clone());
    if !works.contains_key(&key) {
        works.insert(key.clone(), work(&key.0, &key.1, shapes)?);
    }
    let Some(mut work) = works[&key].clone() else {
        return not("the model's tensors are not known");
    };
    if let Some(gib) = published.file_gib.filter(|_| published.quant_label != published.quant) {
        work = work.scaled_to(gib * 1024_f64.powi(3));
    }
    let device = hardware::find(&published.device, &[])?;
    let (Some(mut place), Some(memory)) = (Place::whole(device, &published.engine), device.memory)
    else {
        return not("the device's bandwidth or memory is not known");
    };
    if let Some(api) = Api::named(&published.api) {
        place.api = api;
    }
    variant(&mut place, device.gpu_cores, published.gpu_cores);
    if work.file_bytes > 0.98 * memory.0 as f64 {
        return not("the weights do not fit into the device: partly on the CPU");
    }
    let usage = Usage {
        cached: match quantity {
            Quantity::Decode => published.kv_tokens.unwrap_or(published.depth),
            Quantity::Prefill => published.depth,
        },
        streams,
        prompt: published.prompt_tokens.unwrap_or(512.0),
        micro_batch: published.micro_batch.unwrap_or(512.0),
        flash_attention: published.flash_attention != "off",
        ..Usage::default()
    };
    let bytes = work.dense_bytes
        + work.touched_expert_bytes(streams)
        + streams * work.cache_read(usage.cached, usage.value_bytes);
    let ceiling = (quantity == Quantity::Decode).then_some(streams * place.bandwidth / bytes);
    if ceiling.is_some_and(|c| measured > c) {
        return not("faster than the memory's bandwidth allows");
    }
    let (terms, tokens) = match quantity {
        Quantity::Decode => (Some(speed::step_terms(&work, &usage, &place)), streams),
        Quantity::Prefill => (speed::prompt_terms(&work, &usage, &place), usage.prompt),
    };
    let Some(terms) = terms else {
        return not("the device's arithmetic speed is not known");
    };
    Ok(Ok(Evidence {
        row,
        quantity,
        device: published.device.clone(),
        api: place.api,
        has_experts: work.experts.is_some(),
        streams,
        measured,
        ceiling,
        terms,
        tokens,
        place: format!("{}/{}/{:?}", published.device_name, published.engine, place.api),
    }))
}

fn work(model: &str, quant: &str, shapes: &[PublishedModel]) -> anyhow::Result<Option<Work>> {
    let flat = quant == "MLX-4bit";
    let quant: Quant = if flat { Quant::Q4_0 } else { quant.parse()? };
    let work = match shapes.iter().find(|s| s.id == model) {
        Some(shape) => Work::of_published(shape, quant).map(Some)?,
        None => {
            let spec = models::find(model)?;
            // MXFP4 is for mixtures of experts, and some tensors are not known.
            Work::of(spec, quant).ok()
        }
    };
    Ok(work.map(|w| if flat { w.at_bits(4.5) } else { w }))
}

/// Chips that are sold with several counts of GPU cores: arithmetic scales with them, and two of
/// them have less bandwidth with fewer (`hardware.csv` has those as rows of their own).
fn variant(place: &mut Place, full: Option<u32>, cores: Option<u32>) {
    let (Some(full), Some(cores)) = (full, cores) else { return };
    place.fp16 = place.fp16.map(|f| f * f64::from(cores) / f64::from(full));
    let smaller = match (place.device.as_str(), cores) {
        ("apple-m3-max", 30) => "apple-m3-max-30",
        ("apple-m4-max", 32) => "apple-m4-max-32",
        ("apple-m5-max", 32) => "apple-m5-max-32",
        _ => return,
    };
    if let Some(bandwidth) = hardware::find(smaller, &[]).ok().and_then(|d| d.bandwidth) {
        place.bandwidth = bandwidth.0 * 1e9;
    }
}

/// Of several measurements of one case by one source only the fastest counts: what slowed the
/// others (other programs, a cold start) is not stated.
fn keep_fastest(rows: &[Published], evidence: &mut Vec<Evidence>, aside: &mut Vec<SetAside>) {
    let case = |e: &Evidence| {
        let r = &rows[e.row];
        let source = r.source.split(" @").next().unwrap_or_default();
        let origin = source.split('/').take(2).collect::<Vec<_>>().join("/");
        format!(
            "{:?} {} {} {} {} {} {} {} {}",
            e.quantity,
            e.place,
            r.model,
            r.quant_label,
            r.test,
            r.flash_attention,
            e.streams,
            r.depth,
            origin
        )
    };
    let mut best: BTreeMap<String, (f64, usize)> = BTreeMap::new();
    for e in evidence.iter() {
        let entry = best.entry(case(e)).or_insert((e.measured, e.row));
        if e.measured > entry.0 {
            *entry = (e.measured, e.row);
        }
    }
    evidence.retain(|e| {
        let keep = best[&case(e)].1 == e.row;
        if !keep {
            let reason = "a slower repetition of another row".to_owned();
            aside.push(SetAside { row: e.row, quantity: e.quantity, reason });
        }
        keep
    });
}
