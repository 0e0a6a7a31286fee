//! The factors of vLLM's steps from published loads, and how wrong they are about loads of a shape
//! that they have not seen.

use anyhow::Context;

use crate::catalog::serving::Load;
use crate::catalog::{hardware, models};
use crate::stats;

use super::calibrate::{self, Accuracy, COVERAGE, Spread};
use super::posynomial::{self, Prior};
use super::serving::{Card, FACTORS, Factor, Pace, Round, Step};
use super::vllm::{Checkpoint, Limits};
use super::work::Work;

/// What a published load tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum What {
    /// The time of a step in which all users generate: the median of the gaps between tokens.
    Step,
    /// The time of all prompts and answers: the tokens a second.
    Round,
    /// The time to the first token of a user alone.
    First,
}

impl What {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Step, Self::Round, Self::First];

    /// Its words in tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Step => "gap between tokens, median",
            Self::Round => "tok/s of all users",
            Self::First => "time to the first token, one user, p99",
        }
    }
}

/// A time that a load tells.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Which of the loads.
    pub row: usize,
    /// What of it.
    pub what: What,
    /// The lengths of its requests.
    pub shape: String,
    /// How its weights are stored.
    pub checkpoint: String,
    /// How long it took.
    pub seconds: f64,
    card: Card,
    work: Work,
    round: Round,
}

impl Seen {
    /// How long it takes with these factors.
    pub fn expected(&self, pace: &Pace) -> f64 {
        let round = &self.round;
        let cached = round.prompt + round.answer / 2.0;
        match self.what {
            What::Step => {
                let step = Step { sequences: round.users, cached, ..Step::default() };
                self.card.step(&self.work, pace, &step)
            }
            What::Round => self.card.round(&self.work, pace, round),
            What::First => {
                pace.entry() + self.card.prompt(&self.work, pace, round.prompt, round.most)
            }
        }
    }

    /// A 99th percentile is not what is likely.
    fn weight(&self) -> f64 {
        if self.what == What::First { 0.25 } else { 1.0 }
    }

    fn residual(&self, pace: &Pace) -> f64 {
        self.weight().sqrt() * (self.expected(pace) / self.seconds).ln() / SCATTER
    }
}

/// What a form of so few factors leaves unexplained, against which the priors are weighed.
const SCATTER: f64 = 0.05;

/// The card and the work of a load.
pub fn place(load: &Load) -> anyhow::Result<(Card, Work)> {
    let device = hardware::find(&load.device, &[])?;
    let card = Card::of(device).with_context(|| format!("the speed of '{}'", device.id))?;
    let packed = Checkpoint::parse(&load.checkpoint)?.packed(models::find(&load.model_id)?)?;
    Ok((card, packed.work))
}

/// The times that `loads` tell; those whose caches the pool does not hold at once tell none, as
/// their requests wait, and are put out and computed again.
pub fn gather(loads: &[Load]) -> anyhow::Result<Vec<Seen>> {
    let mut found = Vec::new();
    for (row, load) in loads.iter().enumerate() {
        let tokens = u64::from(load.users) * u64::from(load.prompt_tokens + load.new_tokens);
        if load.cache_tokens.is_none_or(|room| tokens > room) {
            continue;
        }
        let (card, work) = place(load)?;
        let limits = Limits::of_device(hardware::find(&load.device, &[])?);
        let users = f64::from(load.users);
        let round = Round {
            users,
            prompt: f64::from(load.prompt_tokens),
            answer: f64::from(load.new_tokens),
            most: limits.batch_tokens as f64,
        };
        let mut push = |what, seconds| {
            found.push(Seen {
                row,
                what,
                shape: load.shape(),
                checkpoint: load.checkpoint.clone(),
                seconds,
                card,
                work: work.clone(),
                round,
            });
        };
        push(What::Step, load.itl_median_ms / 1e3);
        push(What::Round, users * round.answer / load.output_tok_s);
        if let (1, Some(ttft)) = (load.users, load.ttft_p99_ms) {
            push(What::First, ttft / 1e3);
        }
    }
    Ok(found)
}

/// What is believed of a factor before any load: nine tenths of the bandwidth are reached, a half
/// to three quarters of the arithmetic speed, a layer's kernels take tens of microseconds, and what
/// a sequence costs is no more than ten.
fn prior(factor: Factor) -> Prior {
    let (mean, deviation) = match factor {
        Factor::Layer => (5e-5, 1.0),
        Factor::Sequence => (1e-5, 1.0),
        Factor::Weights => (1.1, 0.2),
        Factor::Cache => (1.1, 0.5),
        Factor::Matrix => (1.4, 0.5),
        Factor::MatrixFp8 => (1.6, 0.5),
        Factor::Attention => (2.0, 1.0),
        Factor::Entry => (8e-3, 1.0),
    };
    Prior { mean: f64::ln(mean), deviation }
}

/// The factors that explain `seen` best, by damped Gauss–Newton on logarithms of times.
pub fn fit(seen: &[&Seen]) -> Pace {
    let priors = Factor::ALL.map(prior);
    let mut pace = Pace(priors.map(|p| p.mean));
    let residuals = |pace: &Pace| -> Vec<f64> {
        let belief = priors.iter().zip(&pace.0).map(|(p, theta)| (theta - p.mean) / p.deviation);
        seen.iter().map(|s| s.residual(pace)).chain(belief).collect()
    };
    let cost = |r: &[f64]| r.iter().map(|r| r * r).sum::<f64>();
    let (mut now, mut damping) = (residuals(&pace), 1e-3);
    for _ in 0..200 {
        let slopes: Vec<Vec<f64>> = (0..FACTORS)
            .map(|i| {
                const NUDGE: f64 = 1e-5;
                let mut near = pace;
                near.0[i] += NUDGE;
                residuals(&near).iter().zip(&now).map(|(a, b)| (a - b) / NUDGE).collect()
            })
            .collect();
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        let normal: Vec<Vec<f64>> =
            (0..FACTORS).map(|i| (0..=i).map(|j| dot(&slopes[i], &slopes[j])).collect()).collect();
        let gradient: Vec<f64> = slopes.iter().map(|slope| dot(slope, &now)).collect();
        let step = posynomial::solve_damped(&normal, &gradient, damping);
        let mut next = pace;
        next.0.iter_mut().zip(&step).for_each(|(theta, step)| *theta -= step);
        let then = residuals(&next);
        let gain = cost(&now) - cost(&then);
        if gain > 0.0 {
            let done = gain < 1e-9 * cost(&now);
            (pace, now) = (next, then);
            damping = (damping * 0.3).max(1e-9);
            if done {
                break;
            }
        } else {
            damping *= 10.0;
            if damping > 1e9 {
                break;
            }
        }
    }
    pace
}

/// What is held out together.
pub type Group = fn(&Seen) -> &str;
/// Loads with requests of the same lengths.
pub const SHAPE: Group = |seen| &seen.shape;
/// Loads of weights stored alike.
pub const CHECKPOINT: Group = |seen| &seen.checkpoint;

/// The time of each of `seen` with the factors of all that `group` puts elsewhere.
pub fn held_out(seen: &[Seen], group: Group) -> Vec<f64> {
    let mut names: Vec<&str> = seen.iter().map(group).collect();
    names.sort_unstable();
    names.dedup();
    let mut times = vec![0.0; seen.len()];
    for name in names {
        let others: Vec<&Seen> = seen.iter().filter(|s| group(s) != name).collect();
        let pace = fit(&others);
        for (time, s) in times.iter_mut().zip(seen).filter(|(_, s)| group(s) == name) {
            *time = s.expected(&pace);
        }
    }
    times
}

/// The ends of ln(measured / predicted speed) that hold `COVERAGE` of the `errors`.
pub fn spread(mut errors: Vec<f64>) -> Spread {
    errors.sort_by(f64::total_cmp);
    let alike: Vec<(f64, f64)> = errors.into_iter().map(|e| (e, 1.0)).collect();
    let tail = (1.0 - COVERAGE) / 2.0;
    Spread { low: calibrate::quantile(&alike, tail), high: calibrate::quantile(&alike, 1.0 - tail) }
}

/// ln(measured / predicted speed) of each of `seen`, whose times were predicted as `times`.
pub fn errors(seen: &[Seen], times: &[f64]) -> Vec<f64> {
    seen.iter().zip(times).map(|(s, time)| (time / s.seconds).ln()).collect()
}

/// How wrong the times were, of those that `chosen` accepts; `None` where there are none.
pub fn accuracy(
    seen: &[Seen],
    times: &[f64],
    spread: Spread,
    chosen: impl Fn(&Seen) -> bool,
) -> Option<Accuracy> {
    let picked: Vec<(&Seen, f64)> =
        seen.iter().zip(times.iter().copied()).filter(|(s, _)| chosen(s)).collect();
    let errors: Vec<f64> = picked.iter().map(|(s, time)| s.seconds / time - 1.0).collect();
    let sizes: Vec<f64> = errors.iter().map(|e| e.abs()).collect();
    let share = |n: usize| n as f64 / picked.len() as f64;
    let inside = |(s, time): &&(&Seen, f64)| {
        let (low, high) = spread.around(1.0 / time, None);
        (low..=high).contains(&(1.0 / s.seconds))
    };
    Some(Accuracy {
        rows: picked.len(),
        devices: 1,
        median_error: stats::median(&sizes)?,
        within_20: share(sizes.iter().filter(|e| **e <= 0.2).count()),
        bias: stats::median(&errors)?,
        coverage: share(picked.iter().filter(inside).count()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::serving;

    /// The gate: predictions for a shape or a checkpoint that was held out stay as good as they are.
    #[test]
    fn what_was_held_out_is_foretold() {
        let loads = serving::all().unwrap();
        let seen = gather(&loads).unwrap();
        for (group, most) in [(SHAPE, 0.04), (CHECKPOINT, 0.08)] {
            let times = held_out(&seen, group);
            let spread = spread(errors(&seen, &times));
            for what in What::ALL {
                let found = accuracy(&seen, &times, spread, |s| s.what == what).unwrap();
                let most = if what == What::First { 0.25 } else { most };
                assert!(found.median_error <= most, "{what:?}: {found:?}");
            }
        }
    }

    #[test]
    fn what_waits_for_the_cache_tells_no_time() {
        let loads = serving::all().unwrap();
        let seen = gather(&loads).unwrap();
        let fits = |row: usize| {
            let load: &Load = &loads[row];
            u64::from(load.users * (load.prompt_tokens + load.new_tokens))
                <= load.cache_tokens.unwrap()
        };
        assert!(seen.iter().all(|s| fits(s.row)));
        assert!(seen.len() > 90 && (0..loads.len()).any(|row| !fits(row)), "{}", seen.len());
    }
}
