//! Requests as people and programs make them: when each should start, how long its prompt and its
//! answer are. The same plan is simulated and sent to engines; it is data before anything runs.

mod calibration;
mod draw;
mod length;
mod presets;
mod trace;

use anyhow::{Context, bail};
use serde::Serialize;

use crate::units::{Nanos, Tokens};

pub use calibration::calibration;
pub use draw::{Draw, Talk, Turn};
pub use length::Length;
pub use presets::{PRESETS, Preset};
pub use trace::read_trace;

/// Before a pause in a mix's words.
const PAUSES: &str = ", think ";

/// Whether users pause between requests of the mix of these [words](Mix::words).
pub fn has_pauses(words: &str) -> bool {
    words.contains(PAUSES)
}

/// Requests that are drawn for their means.
const DRAWN: u32 = 4000;
/// The most requests of one plan: a limit by time at an absurd rate must end too.
const MOST: usize = 10_000_000;

/// How the distances between requests of an open loop are distributed.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Arrivals {
    /// All the same.
    Constant,
    /// Independent of each other.
    Poisson,
    /// In bursts.
    Gamma {
        /// Standard deviation of a distance relative to its mean; 1 is Poisson.
        variation: f64,
    },
}

impl Arrivals {
    /// Whether distances can be drawn from it.
    pub fn check(self) -> anyhow::Result<()> {
        match self {
            Self::Gamma { variation } if !(variation > 0.0 && variation.is_finite()) => {
                bail!("gamma arrivals need a variation above 0")
            }
            _ => Ok(()),
        }
    }
}

/// Who asks.
#[derive(Clone, Debug, PartialEq)]
pub enum Source {
    /// Users, each of whom asks again after the answer and a pause.
    ClosedLoop {
        /// How many.
        users: u32,
        /// The pause.
        think: Nanos,
    },
    /// Requests that come however long the answers take.
    OpenLoop {
        /// Requests a second on average; with several turns, conversations a second.
        per_second: f64,
        /// How they come.
        arrivals: Arrivals,
        /// The pause before a further turn.
        think: Nanos,
    },
    /// Requests as somebody recorded them; lengths and limits come with them.
    Trace(Vec<Recorded>),
}

/// Where a plan ends.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Limit {
    /// After so many requests.
    Requests(u32),
    /// No request starts later.
    Time(Nanos),
}

/// A request of a trace.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Recorded {
    /// After the trace's start.
    pub start: Nanos,
    /// Its prompt.
    pub prompt_tokens: Tokens,
    /// Its answer.
    pub new_tokens: Tokens,
}

/// What is asked.
#[derive(Clone, Debug, PartialEq)]
pub struct Workload {
    /// Who asks.
    pub source: Source,
    /// How long a person's part of a prompt is.
    pub prompt: Length,
    /// How long answers are.
    pub answer: Length,
    /// Requests of a conversation, each with all before in its prompt.
    pub turns: u32,
    /// The longest prompt with its answer; conversations start anew before they pass it.
    pub context: Tokens,
    /// Where it ends.
    pub limit: Limit,
}

/// What the requests of a use look like, whoever asks and how often.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Mix {
    /// How long a person's part of a prompt is.
    pub prompt: Length,
    /// How long answers are.
    pub answer: Length,
    /// Requests of a conversation, each with all before in its prompt.
    pub turns: u32,
    /// The pause before a further request of the same user.
    #[serde(rename = "think_ns")]
    pub think: Nanos,
    /// The longest prompt with its answer.
    pub context: Tokens,
    /// Requests as they were recorded, in place of the lengths above.
    pub trace: Vec<Recorded>,
}

impl Mix {
    /// Single requests that are all alike.
    pub fn fixed(prompt: Tokens, answer: Tokens) -> Self {
        Self {
            prompt: Length::Fixed(prompt),
            answer: Length::Fixed(answer),
            turns: 1,
            think: Nanos(0),
            context: Tokens(prompt.0.saturating_add(answer.0)),
            trace: Vec::new(),
        }
    }

    /// The mean prompt, of a conversation the mean over its turns, and the mean answer; before the
    /// cut at the context.
    pub fn mean(&self) -> (Tokens, Tokens) {
        let whole = |mean: f64| Tokens(mean.round().clamp(1.0, f64::from(self.context.0)) as u32);
        if !self.trace.is_empty() {
            let count = self.trace.len() as f64;
            let mean = |of: fn(&Recorded) -> Tokens| {
                whole(self.trace.iter().map(|row| f64::from(of(row).0)).sum::<f64>() / count)
            };
            return (mean(|row| row.prompt_tokens), mean(|row| row.new_tokens));
        }
        let (own, answer) = (self.prompt.mean(), self.answer.mean());
        let before = f64::from(self.turns - 1) / 2.0 * (own + answer);
        (whole(own + before), whole(answer))
    }

    /// Means over requests as they are drawn, whole conversations of one user after the other, or
    /// over all of the trace.
    pub fn drawn(&self, seed: u64) -> anyhow::Result<Drawn> {
        let mut sum = Drawn::default();
        let mut count = 0.0;
        let mut note = |prompt: Tokens, repeated: Tokens, answer: Tokens| {
            let (prompt, answer) = (f64::from(prompt.0), f64::from(answer.0));
            count += 1.0;
            sum.prompt += prompt;
            sum.repeated += f64::from(repeated.0);
            sum.answer += answer;
            sum.read += (answer - 1.0).max(0.0) * prompt;
        };
        if self.trace.is_empty() {
            let mut draw = self.draw(seed)?;
            let mut talk = None;
            for _ in 0..DRAWN.div_ceil(self.turns) * self.turns {
                let (turn, next) = draw.turn(talk);
                note(turn.prompt_tokens, turn.repeated_tokens, turn.new_tokens);
                talk = Some(next);
            }
        }
        for row in &self.trace {
            note(row.prompt_tokens, Tokens(0), row.new_tokens);
        }
        Ok(Drawn {
            prompt: sum.prompt / count,
            repeated: sum.repeated / count,
            answer: sum.answer / count,
            read: sum.read / count,
        })
    }

    /// Its requests as `source` asks them until `limit`.
    pub fn asked(&self, source: Source, limit: Limit) -> Workload {
        let Self { prompt, answer, turns, context, .. } = self.clone();
        Workload { source, prompt, answer, turns, context, limit }
    }

    /// Draws its requests one by one; an error where they cannot be drawn.
    pub fn draw(&self, seed: u64) -> anyhow::Result<Draw> {
        check(&self.prompt, &self.answer, self.turns, self.context)?;
        Ok(Draw::new(&self.prompt, &self.answer, self.turns, self.context, seed))
    }

    /// In words, for a row: `prompts 80 (p95 800), answers 250 (p95 900), 4 turns, think 30 s`.
    pub fn words(&self) -> String {
        let mut words = if self.trace.is_empty() {
            format!("prompts {}, answers {}", self.prompt, self.answer)
        } else {
            format!("trace of {} requests", self.trace.len())
        };
        if self.turns > 1 {
            words.push_str(&format!(", {} turns", self.turns));
        }
        if self.think.0 > 0 {
            words.push_str(&format!("{PAUSES}{}", self.think));
        }
        words.push_str(&format!(", context {}", self.context.0));
        words
    }
}

/// Means over drawn requests, in tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Drawn {
    /// Of a prompt, with the conversation before.
    pub prompt: f64,
    /// Of these, what the turn before already had in its prompt or answer.
    pub repeated: f64,
    /// Of an answer.
    pub answer: f64,
    /// Read again from the cache of the prompt, by all tokens of the answer after the first.
    pub read: f64,
}

/// A request to be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Planned {
    /// Not before this, after the plan's start.
    pub start: Nanos,
    /// The request, by its place in the plan, that must have ended before.
    pub after: Option<u32>,
    /// The pause between that end and this start.
    pub think: Nanos,
    /// Left out where it could not start by then.
    pub latest: Option<Nanos>,
    /// Its prompt, with the conversation before.
    pub prompt_tokens: Tokens,
    /// Of these, tokens that the turn before already had in its prompt or answer.
    pub repeated_tokens: Tokens,
    /// Its answer.
    pub new_tokens: Tokens,
}

impl Workload {
    /// The requests, from `seed` alone.
    pub fn plan(&self, seed: u64) -> anyhow::Result<Vec<Planned>> {
        self.check()?;
        let mut plan = Plan {
            workload: self,
            draw: Draw::new(&self.prompt, &self.answer, self.turns, self.context, seed),
            requests: Vec::new(),
        };
        match &self.source {
            Source::Trace(recorded) => plan.replay(recorded),
            Source::ClosedLoop { users, think } => plan.closed(*users, *think),
            Source::OpenLoop { per_second, arrivals, think } => {
                plan.open(*per_second, *arrivals, *think)
            }
        }
        Ok(plan.requests)
    }

    fn check(&self) -> anyhow::Result<()> {
        check(&self.prompt, &self.answer, self.turns, self.context)?;
        match &self.source {
            Source::ClosedLoop { users: 0, .. } => bail!("a closed loop needs a user"),
            Source::ClosedLoop { .. } if matches!(self.limit, Limit::Time(_)) => {
                // How many requests fit is not known before: the plan has room for fast engines.
                Ok(())
            }
            Source::OpenLoop { per_second, arrivals, .. } => {
                if !(*per_second > 0.0 && per_second.is_finite()) {
                    bail!("an open loop needs a rate above 0");
                }
                arrivals.check()
            }
            _ => Ok(()),
        }
    }
}

fn check(prompt: &Length, answer: &Length, turns: u32, context: Tokens) -> anyhow::Result<()> {
    prompt.check().context("prompts")?;
    answer.check().context("answers")?;
    if turns == 0 || context.0 < 2 {
        bail!("a conversation needs at least one turn and a context of two tokens");
    }
    Ok(())
}

struct Plan<'a> {
    workload: &'a Workload,
    draw: Draw,
    requests: Vec<Planned>,
}

impl Plan<'_> {
    /// The most requests and the latest start.
    fn bounds(&self) -> (usize, Option<Nanos>) {
        match self.workload.limit {
            Limit::Requests(most) => ((most as usize).min(MOST), None),
            Limit::Time(latest) => (MOST, Some(latest)),
        }
    }

    fn replay(&mut self, recorded: &[Recorded]) {
        let (most, latest) = self.bounds();
        let start = recorded.iter().map(|row| row.start.0).min().unwrap_or(0);
        let mut rows = recorded.to_vec();
        rows.sort_by_key(|row| row.start);
        for row in rows.into_iter().take(most) {
            let at = Nanos(row.start.0 - start);
            if latest.is_some_and(|latest| at > latest) {
                break;
            }
            self.requests.push(Planned {
                start: at,
                after: None,
                think: Nanos(0),
                latest,
                prompt_tokens: row.prompt_tokens,
                repeated_tokens: Tokens(0),
                new_tokens: row.new_tokens,
            });
        }
    }

    /// Each user is a chain of requests, so that none waits for another user.
    fn closed(&mut self, users: u32, think: Nanos) {
        let (most, latest) = self.bounds();
        // With a limit by time: as many as 1,000 answers a second for each user.
        let most = latest.map_or(most, |latest| {
            let each = (latest.seconds() * 1000.0).ceil().max(1.0) as usize;
            each.saturating_mul(users as usize).min(100_000)
        });
        let mut last: Vec<Option<Conversation>> = vec![None; users as usize];
        'all: loop {
            for user in &mut last {
                if self.requests.len() >= most {
                    break 'all;
                }
                let before = *user;
                let (planned, talk) = self.turn(before);
                self.requests.push(Planned {
                    after: before.map(|talk| talk.last),
                    think: if before.is_some() { think } else { Nanos(0) },
                    latest,
                    ..planned
                });
                *user = Some(talk);
            }
        }
    }

    fn open(&mut self, per_second: f64, arrivals: Arrivals, think: Nanos) {
        let (most, latest) = self.bounds();
        let mut at = 0.0;
        while self.requests.len() < most {
            at += self.draw.distance(arrivals) / per_second;
            let start = Nanos::from_seconds(at);
            if latest.is_some_and(|latest| start > latest) {
                break;
            }
            let mut talk: Option<Conversation> = None;
            for _ in 0..self.workload.turns {
                if self.requests.len() >= most {
                    break;
                }
                let (planned, next) = self.turn(talk);
                self.requests.push(Planned {
                    start,
                    after: talk.map(|talk| talk.last),
                    think: if talk.is_some() { think } else { Nanos(0) },
                    latest,
                    ..planned
                });
                talk = Some(next);
            }
        }
    }

    /// The next request of a conversation, or the first of a new one.
    fn turn(&mut self, before: Option<Conversation>) -> (Planned, Conversation) {
        let (turn, talk) = self.draw.turn(before.map(|conversation| conversation.talk));
        let planned = Planned {
            start: Nanos(0),
            after: None,
            think: Nanos(0),
            latest: None,
            prompt_tokens: turn.prompt_tokens,
            repeated_tokens: turn.repeated_tokens,
            new_tokens: turn.new_tokens,
        };
        (planned, Conversation { talk, last: self.requests.len() as u32 })
    }
}

/// A conversation so far, with the place of its last request in the plan.
#[derive(Clone, Copy, Debug)]
struct Conversation {
    talk: Talk,
    last: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn workload(source: Source, limit: Limit) -> Workload {
        Workload {
            source,
            prompt: Length::Fixed(Tokens(100)),
            answer: Length::Fixed(Tokens(50)),
            turns: 1,
            context: Tokens(100_000),
            limit,
        }
    }

    fn open(arrivals: Arrivals, requests: u32) -> Vec<Planned> {
        let source = Source::OpenLoop { per_second: 20.0, arrivals, think: Nanos(0) };
        workload(source, Limit::Requests(requests)).plan(7).unwrap()
    }

    /// Mean and coefficient of variation of the distances between starts, in seconds.
    fn distances(plan: &[Planned]) -> (f64, f64) {
        let gaps: Vec<f64> =
            plan.windows(2).map(|pair| (pair[1].start.0 - pair[0].start.0) as f64 / 1e9).collect();
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let variance = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
        (mean, variance.sqrt() / mean)
    }

    #[test]
    fn arrivals_have_their_rate_and_their_variation() {
        for (arrivals, expected) in [
            (Arrivals::Constant, 0.0),
            (Arrivals::Poisson, 1.0),
            (Arrivals::Gamma { variation: 2.5 }, 2.5),
            (Arrivals::Gamma { variation: 0.3 }, 0.3),
        ] {
            let (mean, variation) = distances(&open(arrivals, 50_000));
            assert!((mean * 20.0 - 1.0).abs() < 0.04, "{arrivals:?}: mean {mean}");
            assert!((variation - expected).abs() < 0.06 * (1.0 + expected), "{variation}");
        }
    }

    #[test]
    fn a_user_of_a_closed_loop_is_a_chain() {
        let source = Source::ClosedLoop { users: 3, think: Nanos(5) };
        let plan = workload(source, Limit::Requests(8)).plan(1).unwrap();
        let after: Vec<_> = plan.iter().map(|request| request.after).collect();
        assert_eq!(after, [None, None, None, Some(0), Some(1), Some(2), Some(3), Some(4)]);
        assert_eq!((plan[0].think, plan[3].think), (Nanos(0), Nanos(5)));
    }

    #[test]
    fn a_turn_has_all_turns_before_in_its_prompt() {
        let source =
            Source::OpenLoop { per_second: 1.0, arrivals: Arrivals::Constant, think: Nanos(9) };
        let plan = Workload { turns: 3, ..workload(source, Limit::Requests(6)) }.plan(1).unwrap();
        let prompts: Vec<_> = plan.iter().map(|request| request.prompt_tokens.0).collect();
        assert_eq!(prompts, [100, 250, 400, 100, 250, 400]);
        assert_eq!(plan[2].repeated_tokens, Tokens(300));
        assert_eq!((plan[2].after, plan[3].after), (Some(1), None));
    }

    #[test]
    fn a_conversation_never_outgrows_its_context() {
        let source = Source::ClosedLoop { users: 2, think: Nanos(0) };
        let plan = Workload {
            turns: 50,
            context: Tokens(1000),
            prompt: Length::LogNormal { median: 200.0, p95: 3000.0 },
            ..workload(source, Limit::Requests(500))
        };
        for request in plan.plan(3).unwrap() {
            assert!(request.prompt_tokens.0 + request.new_tokens.0 <= 1000, "{request:?}");
            assert!(request.prompt_tokens.0 >= 1 && request.new_tokens.0 >= 1);
            assert!(request.repeated_tokens.0 < request.prompt_tokens.0);
        }
    }

    #[test]
    fn a_mix_tells_its_means_and_itself_in_words() {
        let mix = Mix {
            turns: 3,
            think: Nanos(2_000_000_000),
            context: Tokens(1000),
            ..Mix::fixed(Tokens(100), Tokens(50))
        };
        // Prompts of 100, 250 and 400 tokens.
        assert_eq!(mix.mean(), (Tokens(250), Tokens(50)));
        let words = "prompts 100, answers 50, 3 turns, think 2.00 s, context 1000";
        assert_eq!(mix.words(), words);
        let recorded = |prompt, new| Recorded {
            start: Nanos(0),
            prompt_tokens: Tokens(prompt),
            new_tokens: Tokens(new),
        };
        let trace = Mix { trace: vec![recorded(10, 2), recorded(30, 4)], ..mix };
        assert_eq!(trace.mean(), (Tokens(20), Tokens(3)));
    }

    #[test]
    fn a_limit_by_time_is_the_latest_start() {
        let limit = Limit::Time(Nanos(2_000_000_000));
        let source =
            Source::OpenLoop { per_second: 10.0, arrivals: Arrivals::Constant, think: Nanos(0) };
        let plan = workload(source, limit).plan(1).unwrap();
        assert!((19..=20).contains(&plan.len()), "{}", plan.len());
        assert!(plan.iter().all(|request| request.latest == Some(Nanos(2_000_000_000))));
    }

    #[test]
    fn the_same_seed_gives_the_same_plan() {
        assert_eq!(open(Arrivals::Poisson, 100), open(Arrivals::Poisson, 100));
    }
}
