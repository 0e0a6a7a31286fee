//! Published loads of one model on several cards, which had no part in the factors, beside what the
//! simulation gives for them.

use anyhow::Context;
use serde::Deserialize;

use super::loads::Loop;
use crate::capacity::{Outcome, in_parallel};
use crate::catalog::{self, models};
use crate::fit::answer::{self, Candidate, Question};
use crate::fit::constants;
use crate::fit::machine::Machine;
use crate::fit::memory::{Layout, Plan};
use crate::fit::serving::{Serving, TOGETHER, TOGETHER_EXPERTS};
use crate::fit::vllm::{self, Checkpoint, Limits};
use crate::report::{Section, Table};
use crate::units::{Tokens, or_absent, significant};

/// Closed loops, or as many requests at once as there are users.
const LOADS: &str = include_str!("together.csv");

/// One of them, of which one figure is told.
#[derive(Debug, Deserialize)]
struct Load {
    cards: u32,
    device: String,
    model: String,
    checkpoint: String,
    prompt_tokens: u32,
    new_tokens: u32,
    users: u32,
    requests: u32,
    /// Of all users.
    output_tok_s: Option<f64>,
    tpot_ms: Option<f64>,
    /// Of all requests.
    seconds: Option<f64>,
    version: String,
    source: String,
}

/// What was measured over what is predicted.
struct Judged {
    /// Over the speed that the factors of one H100 give.
    factors: f64,
    /// Over the speed at the slow end, as is likely, at the fast end.
    ends: [f64; 3],
}

impl Judged {
    /// Whether the interval of a prediction holds it; ratios are told to two digits.
    fn is_inside(&self) -> bool {
        let [slow, _, fast] = self.ends;
        slow >= 0.99 && fast <= 1.01
    }
}

impl Load {
    fn all() -> anyhow::Result<Vec<Self>> {
        catalog::rows("together.csv", LOADS)
    }

    fn judged(&self) -> anyhow::Result<Judged> {
        let machine = Machine::parse(&format!("{}x {}", self.cards, self.device), &[])?;
        let constants = constants::embedded();
        let serving = Serving::of(&machine.devices, constants.pace, constants.pace_spread)
            .with_context(|| format!("the speed of '{}'", machine.name))?;
        let spec = models::find(&self.model)?;
        let packed = Checkpoint::parse(&self.checkpoint)?.packed(spec)?;
        let slot_tokens = Tokens(self.prompt_tokens + self.new_tokens);
        let layout = Layout { slot_tokens, ..Layout::default() };
        let plan = Plan::new(spec, &layout);
        let candidate =
            Candidate { spec, weights: &packed.weights, plan: &plan, work: &packed.work };
        let question = Question::new(layout, vllm::ENGINE);
        let pool = answer::answer(&candidate, &machine, &question, constants).pool;
        let limits = Limits::of(&machine);
        let run = Loop {
            users: self.users,
            // One round of all would have no time between two answers.
            requests: self.requests.max(4 * self.users),
            prompt: self.prompt_tokens,
            answer: self.new_tokens,
            room: pool.context("there is no room for a cache")?.tokens,
            sequences: limits.requests as u32,
            step_tokens: limits.batch_tokens as u32,
        };
        let outcomes = run.run(&serving, &packed.work)?;
        let over = |outcome: &Outcome| -> anyhow::Result<f64> {
            let tokens = f64::from(self.requests) * f64::from(self.new_tokens);
            let told = self.output_tok_s.or_else(|| Some(tokens / self.seconds?));
            Ok(match (told, self.tpot_ms) {
                (Some(speed), _) => speed / outcome.system_tok_s().context("a load of no time")?,
                (None, Some(ms)) => {
                    let simulated = outcome.tpot.percentile(50.0).context("no further token")?;
                    simulated.seconds() * 1e3 / ms
                }
                (None, None) => anyhow::bail!("a load without a figure"),
            })
        };
        let [slow, likely, fast] = &outcomes;
        let ends = [over(slow)?, over(likely)?, over(fast)?];
        Ok(Judged { factors: ends[1] * serving.elsewhere(&packed.work), ends })
    }

    /// Whether the version has the engine core that is the only one today (V1, since 0.8).
    fn is_present(&self) -> bool {
        !["0.6", "0.7"].iter().any(|old| self.version.starts_with(old))
    }
}

/// The loads and what was predicted of them.
fn judged() -> anyhow::Result<Vec<(Load, Judged)>> {
    let loads = Load::all()?;
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let judged = in_parallel(loads.len(), threads, |i| loads[i].judged());
    let judged: Vec<Judged> = judged.into_iter().collect::<anyhow::Result<_>>()?;
    Ok(loads.into_iter().zip(judged).collect())
}

/// What the loads say of predictions for several cards.
pub fn section() -> anyhow::Result<Section> {
    let mut table = Table::new(&[
        "cards",
        "model",
        "weights",
        ">prompt",
        ">answer",
        ">users",
        "vLLM",
        ">measured / factors",
        ">measured / predicted",
        "inside",
        "source",
    ]);
    let judged = judged()?;
    for (load, found) in &judged {
        let is_said = !load.version.is_empty();
        let inside = match (load.is_present(), found.is_inside()) {
            (true, true) => "yes",
            (true, false) => "no",
            (false, true) => "yes (V0)",
            (false, false) => "no (V0)",
        };
        table.rows.push(vec![
            format!("{}x {}", load.cards, load.device),
            load.model.clone(),
            load.checkpoint.clone(),
            load.prompt_tokens.to_string(),
            load.new_tokens.to_string(),
            load.users.to_string(),
            or_absent(is_said.then_some(&load.version)),
            significant(found.factors, 2),
            significant(found.ends[1], 2),
            inside.to_owned(),
            load.source.clone(),
        ]);
    }
    Ok(Section {
        heading: "vLLM on several cards".to_owned(),
        is_part: true,
        text: vec![format!(
            "One model on several cards, each layer shared by all of them (tensor parallelism): each card \
             has its part of the weights, the caches and the arithmetic, and twice a layer all add up \
             what they have, over the cards' links or PCIe 4.0 x16. No load had a part in the factors. \
             Predicted is {} of what they give for dense models, from {} to {}, and {} for mixtures of \
             experts, from {} to {}: middle, slowest and fastest of the loads by engines since V1 \
             (0.8), where each machine and model counts once in the middle; so the interval says how \
             far loads were off and is no test of itself. V0 marks older engines. The loads: closed \
             loops, or all requests at once; lengths are means where the source varied them.",
            TOGETHER.middle,
            TOGETHER.low,
            TOGETHER.high,
            TOGETHER_EXPERTS.middle,
            TOGETHER_EXPERTS.low,
            TOGETHER_EXPERTS.high,
        )],
        table: Some(table),
        ..Section::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats;

    impl Load {
        fn has_experts(&self) -> bool {
            models::find(&self.model).unwrap().experts.is_some()
        }
    }

    /// Speeds over the factors', by machine, model and checkpoint.
    fn groups(experts: bool) -> Vec<Vec<f64>> {
        let judged = judged().unwrap();
        let present: Vec<_> = judged
            .iter()
            .filter(|(load, _)| load.is_present() && load.has_experts() == experts)
            .collect();
        let key = |load: &Load| {
            (load.cards, load.device.clone(), load.model.clone(), load.checkpoint.clone())
        };
        let mut groups = std::collections::BTreeMap::<_, Vec<f64>>::new();
        for (load, found) in present {
            groups.entry(key(load)).or_default().push(found.factors);
        }
        groups.into_values().collect()
    }

    #[test]
    fn the_interval_of_several_cards_is_that_of_the_published_loads() {
        for (experts, carried) in [(false, TOGETHER), (true, TOGETHER_EXPERTS)] {
            let groups = groups(experts);
            let medians: Vec<f64> = groups.iter().map(|g| stats::median(g).unwrap()).collect();
            let all = groups.concat();
            let low = all.iter().copied().fold(f64::INFINITY, f64::min);
            let high = all.iter().copied().fold(0.0, f64::max);
            let found = [stats::median(&medians).unwrap(), low, high];
            let told = [carried.middle, carried.low, carried.high];
            let near = found.iter().zip(&told).all(|(a, b)| (a - b).abs() <= 0.01);
            assert!(near, "experts {experts}: {found:?}, told {told:?}");
        }
    }
}
