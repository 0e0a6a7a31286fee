//! What a workload asks of a machine: which model, room for how many tokens, how many requests at
//! once, and how soon they must be answered.

use anyhow::{Context as _, bail};
use rust_decimal::prelude::ToPrimitive;

use crate::catalog::models::{self, ModelSpec};
use crate::cost::{Assumptions, Preset};
use crate::model::quant::Quant;
use crate::scenario::{Matrix, Scenario, Slo, Workload};
use crate::units::{Nanos, Share, Tokens};

use super::QuestionArgs;
use super::context::Context;

/// Requests at once where nobody says how many: as many as batch work is usually given.
const USUAL_STREAMS: u32 = 64;

/// What is asked of a machine.
#[derive(Debug)]
pub struct Demand {
    /// The model; none where it is not stated, so that nothing can be predicted.
    pub model: Option<&'static ModelSpec>,
    /// Its quantisation, where one is stated.
    pub quant: Option<Quant>,
    /// Tokens of the mean prompt.
    pub prompt_tokens: f64,
    /// Of these, those that no cache answers.
    pub uncached_tokens: f64,
    /// Tokens of the mean answer.
    pub new_tokens: f64,
    /// Tokens that a long request needs room for.
    pub room: Tokens,
    /// Why so many.
    pub room_basis: String,
    /// Requests at once at most.
    pub streams: u32,
    /// Who says so.
    pub streams_basis: String,
    /// The service that is promised.
    pub slo: Option<Slo>,
}

impl Demand {
    /// From the flags, the scenario, and the workload in `all`. A scenario with several models is an
    /// error only where the model `must_be_known`.
    pub fn of(
        args: &QuestionArgs,
        context: &Context,
        all: &Assumptions,
        must_be_known: bool,
    ) -> anyhow::Result<Self> {
        let inputs = all.inputs();
        let float = |value: rust_decimal::Decimal| value.to_f64().unwrap_or(f64::NAN);
        let (prompt, new) = (float(inputs.prompt_tokens), float(inputs.new_tokens));
        let workload = Context::stated_workload(args, context.scenario.as_ref());
        let (model, quant) = match model(args, context.scenario.as_ref()) {
            Err(_) if !must_be_known && args.model.is_none() => (None, None),
            chosen => chosen?,
        };
        let (room, room_basis) = room(args, workload, prompt, new)?;
        let (streams, streams_basis) = streams(args, workload)?;
        Ok(Self {
            model,
            quant,
            prompt_tokens: prompt,
            uncached_tokens: prompt * (1.0 - float(inputs.cached_share)),
            new_tokens: new,
            room,
            room_basis,
            streams,
            streams_basis,
            slo: slo(args, context.scenario.as_ref()),
        })
    }
}

/// The model of the flags, else the one that the scenario loads with several requests at once, else
/// the only one that it measures.
fn model(
    args: &QuestionArgs,
    scenario: Option<&Scenario>,
) -> anyhow::Result<(Option<&'static ModelSpec>, Option<Quant>)> {
    let quant = args.quant.as_ref().map(|word| word.parse()).transpose()?;
    if let Some(word) = &args.model {
        return Ok((Some(models::find(word)?), quant));
    }
    let Some(scenario) = scenario else { return Ok((None, quant)) };
    let many = |m: &&Matrix| m.loads.iter().any(|load| load.together() != Some(1));
    let loaded: Vec<&Matrix> = scenario.matrices.iter().filter(many).collect();
    let chosen = if loaded.is_empty() { scenario.matrices.iter().collect() } else { loaded };
    let mut ids: Vec<&String> = chosen.iter().flat_map(|matrix| &matrix.models).collect();
    ids.sort();
    ids.dedup();
    let [id] = ids.as_slice() else {
        let all: Vec<&str> = ids.iter().map(|id| id.as_str()).collect();
        bail!(
            "'{}' has several models: name one of {} with --model",
            scenario.path.display(),
            all.join(", ")
        );
    };
    // A name that only a server knows is none of the catalogue's.
    Ok((models::find(id).ok(), quant))
}

/// The quantisation to predict where none is stated: the first one that the scenario loads the
/// model with, else 4 bits.
pub fn usual_quant(scenario: Option<&Scenario>, spec: &ModelSpec) -> anyhow::Result<Quant> {
    let matrices = scenario.map_or(&[][..], |s| &s.matrices);
    let of_model = |m: &&Matrix| m.models.contains(&spec.id);
    let word = matrices.iter().rev().find(of_model).and_then(|m| m.quants.first());
    match word {
        Some(word) => word.parse().with_context(|| {
            format!("no speed of '{}' in {word} can be predicted: state --quant", spec.id)
        }),
        // The one quantisation in which some models are published.
        None if crate::model::tensors(spec, Quant::Q4KM).is_err() => Ok(Quant::Mxfp4),
        None => Ok(Quant::Q4KM),
    }
}

fn room(
    args: &QuestionArgs,
    workload: Option<&Workload>,
    prompt: f64,
    new: f64,
) -> anyhow::Result<(Tokens, String)> {
    if let Some(word) = &args.context {
        return Ok((crate::cmd::fit::tokens(word)?, "--context".to_owned()));
    }
    let lengths = workload.and_then(|w| Some((w.prompt_tokens.as_ref()?, w.new_tokens.as_ref()?)));
    let (tokens, basis) = match lengths {
        Some((own, answer)) => {
            let turns = workload.and_then(|w| w.turns).unwrap_or(1);
            let all = f64::from(turns) * (own.long() + answer.long());
            (all, "long prompts and answers of the workload")
        }
        None => (2.0 * (prompt + new), "twice the mean request, assumed; state it with --context"),
    };
    // llama.cpp gives out cells of a cache in pieces of 256.
    let pieces = (tokens / 256.0).ceil().clamp(1.0, f64::from(u32::MAX / 256));
    let tokens = Tokens(pieces as u32 * 256);
    Ok((tokens, basis.to_owned()))
}

fn streams(args: &QuestionArgs, workload: Option<&Workload>) -> anyhow::Result<(u32, String)> {
    if let Some(users) = args.users {
        return Ok((users, "--users".to_owned()));
    }
    if let Some(users) = workload.and_then(|w| w.users) {
        return Ok((users, "the scenario's users".to_owned()));
    }
    let preset = args.workload.as_ref().or_else(|| workload.and_then(|w| w.preset.as_ref()));
    Ok(match preset.map(|name| Preset::find(name)).transpose()?.and_then(|p| p.users) {
        Some(users) => (users, "the workload's users".to_owned()),
        None => (USUAL_STREAMS, "assumed; state it with --users".to_owned()),
    })
}

fn slo(args: &QuestionArgs, scenario: Option<&Scenario>) -> Option<Slo> {
    let of_scenario = scenario.and_then(|s| s.slo);
    if args.ttft_ms.is_none() && args.tpot_ms.is_none() {
        return of_scenario;
    }
    let time = |ms: Option<f64>| ms.map(|ms| Nanos::from_seconds(ms / 1e3));
    Some(Slo {
        ttft: time(args.ttft_ms),
        tpot: time(args.tpot_ms),
        e2e: None,
        attainment: of_scenario.map_or(Share(0.95), |slo| slo.attainment),
        search: false,
    })
}

/// `time to first token 1.0 s, 50 ms a token`.
pub fn words(slo: &Slo) -> String {
    let part = |name: &str, limit: Option<Nanos>| limit.map(|time| format!("{name} {time}"));
    let parts = [part("TTFT", slo.ttft), part("TPOT", slo.tpot), part("end to end", slo.e2e)];
    parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}
