//! Drawing requests one by one: the lengths of a conversation's turns, and the times between
//! requests of an open loop.

use rand::{RngExt, SeedableRng};
use rand_distr::{Distribution, Exp1, Gamma};
use rand_xoshiro::Xoshiro256PlusPlus;

use super::length::Sampler;
use super::{Arrivals, Length};
use crate::units::{Nanos, Tokens};

/// A conversation so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Talk {
    /// Requests that it had.
    pub turns: u32,
    /// Tokens of all prompts and answers.
    pub tokens: u32,
}

/// A request of a conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turn {
    /// Its prompt, with the conversation before.
    pub prompt_tokens: Tokens,
    /// Of these, tokens that the turn before already had in its prompt or answer.
    pub repeated_tokens: Tokens,
    /// Its answer.
    pub new_tokens: Tokens,
}

/// Draws requests of a mix; the same ones for the same seed.
#[derive(Clone, Debug)]
pub struct Draw {
    prompt: Sampler,
    answer: Sampler,
    turns: u32,
    context: u32,
    random: Xoshiro256PlusPlus,
}

impl Draw {
    /// Of conversations with prompts and answers whose lengths were checked.
    pub(super) fn new(
        prompt: &Length,
        answer: &Length,
        turns: u32,
        context: Tokens,
        seed: u64,
    ) -> Self {
        Self {
            prompt: prompt.sampler(),
            answer: answer.sampler(),
            turns,
            context: context.0,
            random: Xoshiro256PlusPlus::seed_from_u64(seed),
        }
    }

    /// The next request of a conversation, or the first of a new one where it is over.
    pub fn turn(&mut self, before: Option<Talk>) -> (Turn, Talk) {
        let context = self.context;
        let new_tokens = self.answer.draw(&mut self.random).0.min(context - 1);
        let own = self.prompt.draw(&mut self.random).0;
        let before = before.filter(|talk| {
            talk.turns < self.turns && talk.tokens.saturating_add(own) <= context - new_tokens
        });
        let repeated = before.map_or(0, |talk| talk.tokens);
        let prompt = repeated.saturating_add(own).min(context - new_tokens);
        let turn = Turn {
            prompt_tokens: Tokens(prompt),
            repeated_tokens: Tokens(repeated),
            new_tokens: Tokens(new_tokens),
        };
        let turns = before.map_or(0, |talk| talk.turns) + 1;
        (turn, Talk { turns, tokens: prompt + new_tokens })
    }

    /// From one request to the next, in units of the mean.
    pub fn distance(&mut self, arrivals: Arrivals) -> f64 {
        match arrivals {
            Arrivals::Constant => 1.0,
            Arrivals::Poisson => Exp1.sample(&mut self.random),
            Arrivals::Gamma { variation } => {
                // Shape 1 / variation² and scale variation² have mean 1 and this variation.
                let shape = 1.0 / (variation * variation);
                Gamma::new(shape, 1.0 / shape).map_or(1.0, |gamma| gamma.sample(&mut self.random))
            }
        }
    }

    /// One of so many, all alike.
    pub fn one_of(&mut self, count: usize) -> usize {
        self.random.random_range(0..count.max(1))
    }

    /// A moment within `span`, all alike.
    pub fn moment(&mut self, span: Nanos) -> Nanos {
        Nanos((self.random.random::<f64>() * span.0 as f64) as u64)
    }
}
