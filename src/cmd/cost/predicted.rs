//! How fast a machine would serve the workload, and whether it holds the model, as `fit` predicts.

use std::sync::Arc;

use anyhow::{Context as _, ensure};

use crate::catalog::models::ModelSpec;
use crate::fit::answer::{self, Answer, Candidate, Estimate, Question, Verdict};
use crate::fit::constants;
use crate::fit::machine::Machine;
use crate::fit::memory::{Layout, Plan};
use crate::fit::packed::Packed;
use crate::model::quant::Quant;
use crate::scenario::Slo;
use crate::units::{Nanos, Tokens, TokensPerSecond};

use super::QuestionArgs;
use super::demand::{self, Demand};
use super::speed::{Pace, Speed};

/// A model in one quantisation, ready to be asked about.
pub struct Predictor<'a> {
    spec: &'a ModelSpec,
    quant: Quant,
    packed: Packed,
    engine: &'a str,
}

impl<'a> Predictor<'a> {
    /// For one model.
    pub fn new(args: &'a QuestionArgs, spec: &'a ModelSpec, quant: Quant) -> anyhow::Result<Self> {
        ensure!(
            crate::fit::speed::ENGINES.contains(&args.engine.as_str()),
            "unknown engine '{}'; predictions are for {}",
            args.engine,
            crate::fit::speed::ENGINES.join(", ")
        );
        let packed = Packed::of(spec, quant)
            .with_context(|| format!("cannot predict '{}' in {quant}", spec.id))?;
        Ok(Self { spec, quant, packed, engine: &args.engine })
    }

    fn ask(&self, machine: &Machine, tokens: f64, slots: u32) -> Answer {
        let tokens = tokens.round().clamp(1.0, f64::from(self.spec.context_max)) as u32;
        let layout = Layout { slots, slot_tokens: Tokens(tokens), ..Layout::default() };
        let plan = Plan::new(self.spec, &layout);
        let Packed { weights, work } = &self.packed;
        let candidate = Candidate { spec: self.spec, weights, plan: &plan, work };
        let question = Question::new(layout, self.engine);
        answer::answer(&candidate, machine, &question, constants::embedded())
    }

    /// Why the machine does not hold the model with so many requests of the demand's room.
    pub fn cannot_hold(&self, machine: &Machine, demand: &Demand, slots: u32) -> Option<String> {
        let model = format!("{} {}", self.spec.id, self.quant);
        if demand.room.0 > self.spec.context_max {
            return Some(format!(
                "cannot serve the workload with {model}: requests need {} tokens of context ({}), \
                 and the model was made for {}",
                demand.room,
                demand.room_basis,
                Tokens(self.spec.context_max)
            ));
        }
        let answer = self.ask(machine, f64::from(demand.room.0), slots);
        let users = if slots == 1 { String::new() } else { format!(" for each of {slots} users") };
        let room = format!("{} tokens of context{users} ({})", demand.room, demand.room_basis);
        match answer.verdict {
            Verdict::Fits => None,
            Verdict::Unknown(reason) => {
                Some(format!("cannot be said to hold {model} with {room}: {reason}"))
            }
            Verdict::ExpertsOnCpu { .. } | Verdict::Partly { .. } | Verdict::DoesNotFit { .. } => {
                let has = answer.usable.map_or_else(String::new, |(bytes, why)| {
                    format!(", and has {bytes} for it ({why})")
                });
                Some(format!("cannot hold {model} with {room}: it needs {}{has}", answer.needed))
            }
        }
    }

    /// The pace with the most requests at once that fit and meet the SLO, and with fewer.
    pub fn speed(&self, machine: &Machine, demand: &Demand) -> anyhow::Result<Speed> {
        if let Some(reason) = self.cannot_hold(machine, demand, 1) {
            return Ok(Speed::Cannot(reason));
        }
        let prefill = self.ask(machine, demand.prompt_tokens, 1);
        let mut remarks = prefill.remarks.clone();
        let prefill = prefill.prefill.with_context(|| self.unknown(machine, &remarks))?;
        let depth = demand.prompt_tokens + demand.new_tokens / 2.0;
        let mut paces: Vec<Pace> = Vec::new();
        let mut limit = demand.streams_basis.clone();
        let mut first_miss = None;
        for streams in steps(demand.streams) {
            if self.cannot_hold(machine, demand, streams).is_some() {
                limit = format!("there is no room for {streams} of {} tokens each", demand.room);
                break;
            }
            let answer = self.ask(machine, depth, streams);
            let Some(together) = (if streams == 1 { answer.decode } else { answer.system }) else {
                limit = answer.remarks.last().map_or_else(String::new, ToString::to_string);
                break;
            };
            if let Some(miss) = demand.slo.and_then(|slo| {
                misses(&slo, demand, prefill.value, together.value, f64::from(streams))
            }) {
                limit = miss.clone();
                first_miss = first_miss.or(Some(miss));
                break;
            }
            for remark in answer.remarks {
                if !remarks.contains(&remark) {
                    remarks.push(remark);
                }
            }
            paces.push(pace(streams, together, prefill));
        }
        let Some(best) = paces.last() else {
            return match first_miss {
                Some(miss) => Ok(Speed::Cannot(format!("misses the SLO: {miss}"))),
                None => Err(anyhow::anyhow!(self.unknown(machine, &remarks))),
            };
        };
        let mut source = format!(
            "fit: {} {} on {}, {}, {} at once",
            self.spec.id,
            self.quant,
            machine.name,
            self.engine,
            if best.streams == 1 {
                "1 request".to_owned()
            } else {
                format!("{} requests", best.streams)
            },
        );
        source.push_str(&format!(" ({limit}); range: four of five measurements"));
        for remark in remarks {
            source.push_str(&format!("; {remark}"));
        }
        Ok(Speed::Predicted { paces, source })
    }

    fn unknown(&self, machine: &Machine, remarks: &[Arc<str>]) -> String {
        format!(
            "the speed of {} {} on {} cannot be predicted{}: state it with --tok-s",
            self.spec.id,
            self.quant,
            machine.name,
            remarks.first().map_or_else(String::new, |why| format!(" ({why})"))
        )
    }
}

/// 1, 2, 4 … and `most`.
fn steps(most: u32) -> Vec<u32> {
    // More slots than llama.cpp has sequences cannot be asked for.
    let most = most.clamp(1, 256);
    let mut steps: Vec<u32> =
        std::iter::successors(Some(1u32), |n| n.checked_mul(2)).take_while(|&n| n < most).collect();
    steps.push(most);
    steps
}

fn pace(
    streams: u32,
    together: Estimate<TokensPerSecond>,
    prefill: Estimate<TokensPerSecond>,
) -> Pace {
    Pace {
        streams,
        tok_s: [together.low.0, together.value.0, together.high.0],
        prompt_s_per_mtok: [1e6 / prefill.high.0, 1e6 / prefill.value.0, 1e6 / prefill.low.0],
    }
}

/// Which limit a mean request misses when so many are always at work. Its answer waits for the
/// prompts of the others, which the device reads between two tokens.
fn misses(
    slo: &Slo,
    demand: &Demand,
    prefill: TokensPerSecond,
    together: TokensPerSecond,
    streams: f64,
) -> Option<String> {
    let prompt = demand.uncached_tokens / prefill.0;
    let others = (streams - 1.0) * prompt / demand.new_tokens.max(1.0);
    let each = streams / together.0 + others;
    let ttft = prompt + each;
    let limits = [
        ("TTFT", slo.ttft, ttft),
        ("TPOT", slo.tpot, each),
        ("end to end", slo.e2e, ttft + each * (demand.new_tokens - 1.0).max(0.0)),
    ];
    limits.into_iter().find_map(|(name, limit, seconds)| {
        let limit = limit.filter(|limit| seconds > limit.seconds())?;
        let time = Nanos::from_seconds(seconds);
        Some(format!("with {streams} at once, {name} is {time}, and the SLO has {limit}"))
    })
}

/// The sentence about the SLO that predictions keep.
pub fn slo_note(slo: &Slo) -> String {
    format!(
        "SLO: {}; predicted for the mean request, whether {} of them meet it is for a load test.",
        demand::words(slo),
        slo.attainment
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_steps_end_with_what_is_asked() {
        assert_eq!(steps(1), [1]);
        assert_eq!(steps(25), [1, 2, 4, 8, 16, 25]);
        assert_eq!(steps(32), [1, 2, 4, 8, 16, 32]);
        assert_eq!(steps(0), [1]);
        assert_eq!(steps(100_000).last(), Some(&256));
    }
}
