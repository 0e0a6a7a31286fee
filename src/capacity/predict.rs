//! Step times where nothing was measured: from what `fit` says about a model on a machine, with one
//! and with several sequences, short and long caches, short and long prompts.

use std::sync::Arc;

use anyhow::{Context, bail};

use super::step::{Curve, StepTime};
use crate::fit::answer::{Answer, Estimate, Verdict};
use crate::fit::basis::Basis;
use crate::fit::serving::{Serving, Step};
use crate::fit::work::Work;
use crate::units::{Tokens, TokensPerSecond};

/// Lengths of prompts that are asked about.
const PROMPTS: [u32; 8] = [16, 64, 256, 512, 1024, 2048, 4096, 8192];
/// A cache that is short, in tokens.
const SHORT: u32 = 256;

/// Step times with the interval that holds four of five measurements.
#[derive(Clone, Debug, PartialEq)]
pub struct Predicted {
    /// At the slow end, as is likely, at the fast end.
    pub steps: [StepTime; 3],
    /// On what they rest: on the weakest of their parts.
    pub basis: Basis,
    /// What `fit` says of them.
    pub remarks: Vec<Arc<str>>,
}

/// The ends of an estimate in the order of [`Predicted::steps`].
type End = fn(&Estimate<TokensPerSecond>) -> f64;
const ENDS: [End; 3] = [|e| e.low.0, |e| e.value.0, |e| e.high.0];

/// Step times of up to `sequences` at once whose caches hold about `cached` tokens each; `ask` is
/// what `fit` answers for so many slots with so many tokens each. A model was made for at most
/// `longest` tokens.
pub fn predict(
    sequences: u32,
    cached: Tokens,
    longest: Tokens,
    ask: impl Fn(u32, Tokens) -> Answer,
) -> anyhow::Result<Predicted> {
    let mut remarks: Vec<Arc<str>> = Vec::new();
    let mut basis = Basis::Measured;
    let mut note = |answer: &Answer, estimate: &Estimate<TokensPerSecond>| {
        basis = basis.min(estimate.basis);
        for remark in &answer.remarks {
            if !remarks.contains(remark) {
                remarks.push(Arc::clone(remark));
            }
        }
    };
    let long = Tokens(cached.0.max(2 * SHORT).min(longest.0.max(2)));
    let short = Tokens(SHORT.min(long.0 / 2));
    let mut steps: Vec<(u32, [Estimate<TokensPerSecond>; 2])> = Vec::new();
    for slots in counts(sequences) {
        let mut both = Vec::with_capacity(2);
        for tokens in [short, long] {
            let answer = ask(slots, tokens);
            let speed = if slots == 1 { answer.decode } else { answer.system };
            let Some(speed) = speed else {
                let why = answer.remarks.last().map_or("its speed is not known", |why| &**why);
                bail!("{why}; measure it with `bench run` and give the folder with --results");
            };
            note(&answer, &speed);
            both.push(speed);
        }
        steps.push((slots, [both[0], both[1]]));
    }
    let mut prompts: Vec<(u32, Estimate<TokensPerSecond>)> = Vec::new();
    for tokens in std::iter::once(1).chain(PROMPTS).filter(|n| *n <= longest.0) {
        let answer = ask(1, Tokens(tokens));
        if !prompts.is_empty() && answer.verdict != Verdict::Fits {
            // Layers that move to the processor say nothing of prompts that do fit.
            break;
        }
        let speed = answer.prefill.with_context(|| {
            let why = answer.remarks.last().map_or("nothing tells it", |why| &**why);
            format!("the speed of prompts is not known: {why}")
        })?;
        note(&answer, &speed);
        prompts.push((tokens, speed));
    }
    let steps = [
        step_time(&steps, (short, long), &prompts, ENDS[0])?,
        step_time(&steps, (short, long), &prompts, ENDS[1])?,
        step_time(&steps, (short, long), &prompts, ENDS[2])?,
    ];
    Ok(Predicted { steps, basis, remarks })
}

/// Step times of vLLM on a card, whose parts `fit` knows one by one: of up to `sequences` at once
/// whose caches hold about `cached` tokens of `value_bytes` each value.
pub fn predict_serving(
    sequences: u32,
    cached: Tokens,
    value_bytes: f64,
    serving: &Serving,
    work: &Work,
) -> anyhow::Result<Predicted> {
    let tokens = f64::from(cached.0.max(1));
    let cached_token = serving.cached_token(work, tokens, value_bytes);
    let decode = counts(sequences).into_iter().map(|count| {
        let sequences = f64::from(count);
        let load = Step { sequences, cached: tokens, value_bytes, ..Step::default() };
        let whole = serving.step(work, &load);
        (sequences, whole - sequences * tokens * cached_token)
    });
    let most = serving.most();
    let lengths = std::iter::once(1).chain(PROMPTS).map(f64::from).filter(|n| *n < most);
    let prompt = lengths
        .chain(std::iter::once(most))
        .map(|prompt| (prompt, serving.step(work, &Step { prompt, ..Step::default() })));
    let likely = StepTime {
        decode: Curve::new(decode.collect())?,
        cached_token,
        prompt: Curve::new(prompt.collect())?,
        pair: serving.pair(work, tokens),
        both: 0.0,
        beside: serving.sequence(work),
        // The way to the engine is not a part of its steps.
        cold: 0.0,
        entry: 0.0,
    };
    let spread = serving.spread(work);
    let [slow, fast] = [spread.low, spread.high].map(|end| likely.scaled((-end).exp()));
    Ok(Predicted {
        steps: [slow, likely, fast],
        basis: Basis::Predicted,
        remarks: vec![serving.remark(work)],
    })
}

/// 1, 2, 4 … and `most`.
fn counts(most: u32) -> Vec<u32> {
    let mut counts: Vec<u32> =
        std::iter::successors(Some(1u32), |n| n.checked_mul(2)).take_while(|&n| n < most).collect();
    counts.push(most.max(1));
    counts
}

fn step_time(
    steps: &[(u32, [Estimate<TokensPerSecond>; 2])],
    (short, long): (Tokens, Tokens),
    prompts: &[(u32, Estimate<TokensPerSecond>)],
    end: End,
) -> anyhow::Result<StepTime> {
    let apart = f64::from(long.0 - short.0);
    let step = |slots: u32, speed: &Estimate<TokensPerSecond>| f64::from(slots) / end(speed);
    // Under load most steps have many sequences: these tell what a cached token costs.
    let (most, both) = steps.last().context("a step of no sequence")?;
    let slope = (step(*most, &both[1]) - step(*most, &both[0])) / (f64::from(*most) * apart);
    let cached_token = slope.max(0.0);
    let mut decode: Vec<(f64, f64)> = Vec::with_capacity(steps.len());
    for (slots, both) in steps {
        let cached = cached_token * f64::from(*slots) * f64::from(long.0);
        let without = (step(*slots, &both[1]) - cached).max(0.0);
        // More sequences are no less work.
        let before = decode.last().map_or(0.0, |point| point.1);
        decode.push((f64::from(*slots), without.max(before)));
    }
    let alone =
        |(tokens, speed): &(u32, Estimate<TokensPerSecond>)| f64::from(*tokens) / end(speed);
    // Over full micro-batches a prompt takes a·n + pair·n²/2: a long one and one of a quarter tell
    // the second part.
    let pair = match prompts {
        [.., quarter, _, longest] if longest.0 == 4 * quarter.0 => {
            let (t, n) = (alone(longest) - 4.0 * alone(quarter), f64::from(quarter.0));
            (t / (6.0 * n * n)).max(0.0)
        }
        _ => 0.0,
    };
    let mut prompt: Vec<(f64, f64)> = Vec::with_capacity(prompts.len());
    for one in prompts {
        let n = f64::from(one.0);
        let before = prompt.last().map_or(0.0, |point| point.1);
        prompt.push((n, (alone(one) - pair * n * (n - 1.0) / 2.0).max(before)));
    }
    Ok(StepTime {
        decode: Curve::new(decode)?,
        cached_token,
        prompt: Curve::new(prompt)?,
        pair,
        // `fit` knows of no cost of a step but that of its tokens.
        both: 0.0,
        beside: 0.0,
        cold: 0.0,
        entry: 0.0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capacity::PromptPart;
    use crate::catalog::models;
    use crate::fit::answer::{self, Question};
    use crate::fit::machine::Machine;
    use crate::fit::memory::Layout;
    use crate::model::quant::Quant;

    fn asked(device: &str, slots: u32, tokens: Tokens) -> Answer {
        asked_of(&Machine::parse(device, &[]).unwrap(), slots, tokens)
    }

    fn asked_of(machine: &Machine, slots: u32, tokens: Tokens) -> Answer {
        let layout = Layout { slots, slot_tokens: tokens, ..Layout::default() };
        let question = Question::new(layout, "llama.cpp");
        let spec = models::find("llama-3.1-8b").unwrap();
        answer::ask(machine, spec, Quant::Q4KM, &question).unwrap()
    }

    #[test]
    fn a_predicted_step_is_what_fit_says_at_every_number_of_sequences() {
        let (cached, longest) = (Tokens(2048), Tokens(131_072));
        let ask = |slots, tokens| asked("rtx-4090", slots, tokens);
        let predicted = predict(16, cached, longest, ask).unwrap();
        assert_eq!(predicted.basis, Basis::Predicted);
        let [slow, likely, fast] = &predicted.steps;
        for slots in [1, 4, 16] {
            let answer = asked("rtx-4090", slots, cached);
            let speed = if slots == 1 { answer.decode } else { answer.system }.unwrap();
            let all = f64::from(slots) * f64::from(cached.0);
            let seconds = |step: &StepTime| step.seconds(slots, all, PromptPart::default());
            let wanted = f64::from(slots) / speed.value.0;
            assert!((seconds(likely) / wanted - 1.0).abs() < 0.02, "{slots}: {wanted}");
            assert!(seconds(slow) > seconds(likely) && seconds(likely) > seconds(fast));
        }
        for tokens in [512, 1024, 4096] {
            let n = f64::from(tokens);
            let part = PromptPart { tokens: n, pairs: n * (n - 1.0) / 2.0 };
            let wanted = n / asked("rtx-4090", 1, Tokens(tokens)).prefill.unwrap().value.0;
            assert!((likely.seconds(0, 0.0, part) / wanted - 1.0).abs() < 0.02, "{tokens}");
        }
    }

    #[test]
    fn a_speed_that_nothing_tells_is_an_error_with_the_way_out() {
        let ask = |slots, tokens| Answer { system: None, ..asked("rtx-4090", slots, tokens) };
        let error = predict(4, Tokens(2048), Tokens(8192), ask).unwrap_err().to_string();
        assert!(error.contains("--results"), "{error}");
        let one = predict(1, Tokens(2048), Tokens(8192), |s, t| asked("rtx-4090", s, t));
        assert!(one.is_ok());
        // A model of a short context.
        let short = predict(4, Tokens(200), Tokens(256), |s, t| asked("rtx-4090", s, t));
        assert!(short.is_ok());
    }

    #[test]
    fn prompts_that_do_not_fit_say_nothing_of_those_that_do() {
        let mut card = Machine::parse("rtx-4090", &[]).unwrap();
        card.devices[0].memory = Some(crate::units::Bytes::from_gib(6.0));
        let fits = |tokens: &u32| asked_of(&card, 1, Tokens(*tokens)).verdict == Verdict::Fits;
        let most = PROMPTS.into_iter().filter(fits).max().unwrap();
        assert!((1024..8192).contains(&most), "{most}");
        let steps = |longest| {
            let ask = |slots, tokens| asked_of(&card, slots, tokens);
            let predicted = predict(1, Tokens(512), Tokens(longest), ask);
            predicted.unwrap().steps[1].clone()
        };
        assert_eq!(steps(131_072), steps(most));
    }
}
