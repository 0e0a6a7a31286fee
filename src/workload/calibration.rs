//! The requests that tell how long an engine's steps take: prompts alone, growing batches, deep
//! caches, and prompts that come while others generate.

use super::Planned;
use crate::units::{Nanos, Tokens};

/// The shortest prompt is the longest one halved so often.
const HALVINGS: u32 = 6;

/// Tokens that a request generates of which only the prompt matters: enough to see a step of
/// generation behind it.
const FEW: u32 = 4;

/// A generating request has so many tokens for each prompt that comes beside it: the prompt's step,
/// the step in which it ends, one that it waits and one to spare.
const STEPS_BESIDE: u32 = 4;

/// A sweep of prompts of up to `prompt` tokens, answers of up to `new` and 1 to `sequences` at once.
/// Its requests follow each other by their ends alone, so that it is the same work on every engine,
/// however fast that is.
pub fn calibration(prompt: Tokens, new: Tokens, sequences: u32) -> Vec<Planned> {
    let mut sweep = Sweep { requests: Vec::new(), before: None };
    let of = |share: u32| (prompt.0 / share).max(1);
    let new = new.0.max(1);
    // Engines make buffers at their first requests.
    sweep.together(1, of(1), FEW.min(new));
    for halvings in 0..=HALVINGS {
        sweep.together(1, of(1 << halvings), FEW.min(new));
    }
    for halvings in 0..=HALVINGS {
        sweep.together(1, odd(of(1 << halvings)), FEW.min(new));
    }
    for count in batches(sequences) {
        sweep.together(count, of(32), new);
    }
    // The same with long caches, whose reading is then a part of the step that can be seen.
    for count in [sequences.div_ceil(2), sequences] {
        sweep.together(count, of(4), new.div_ceil(2));
    }
    sweep.together(sequences.min(2), of(1), new.div_ceil(2));
    for generating in [1, sequences / 2, sequences.saturating_sub(1)] {
        if generating > 0 && generating < sequences {
            sweep.beside(generating, of(32), new, |i| odd(of(2 << (i % HALVINGS))));
        }
    }
    sweep.requests
}

/// A little less and odd: kernels like round numbers, and people's prompts are none.
fn odd(tokens: u32) -> u32 {
    ((tokens - tokens / 8) | 1).min(tokens)
}

/// Numbers of sequences to try: 1, 2, 3, 4, 6, 8, 12 …, and the most.
fn batches(most: u32) -> Vec<u32> {
    let powers = (0..32).map(|power| 1_u64 << power);
    let mut all: Vec<u64> = powers.flat_map(|n| [n, n * 3 / 2]).collect();
    all.push(u64::from(most));
    all.retain(|n| *n <= u64::from(most));
    all.sort_unstable();
    all.dedup();
    all.into_iter().map(|n| n as u32).collect()
}

struct Sweep {
    requests: Vec<Planned>,
    /// The request that ends last of those so far: the next ones wait for it.
    before: Option<u32>,
}

impl Sweep {
    /// Requests that start together; the last one ends last.
    fn together(&mut self, count: u32, prompt: u32, new: u32) {
        let before = self.before;
        for i in 0..count {
            // An engine may start on the first before it has seen the others.
            let longest = i + 1 == count;
            let new = if longest { new } else { new.saturating_sub(2).max(1) };
            self.before = Some(self.ask(before, prompt, new));
        }
    }

    /// Requests that generate, and a chain of prompts that come beside them one after the other.
    fn beside(&mut self, generating: u32, own: u32, new: u32, prompt: impl Fn(u32) -> u32) {
        let before = self.before;
        self.together(generating, own, new);
        let mut last = before;
        for i in 0..new / STEPS_BESIDE {
            last = Some(self.ask(last, prompt(i), 2));
        }
    }

    fn ask(&mut self, after: Option<u32>, prompt: u32, new: u32) -> u32 {
        self.requests.push(Planned {
            start: Nanos(0),
            after,
            think: Nanos(0),
            latest: None,
            prompt_tokens: Tokens(prompt),
            repeated_tokens: Tokens(0),
            new_tokens: Tokens(new),
        });
        self.requests.len() as u32 - 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sweep_has_every_batch_and_prompts_from_long_to_short() {
        let plan = calibration(Tokens(1024), Tokens(64), 8);
        assert_eq!(batches(8), [1, 2, 3, 4, 6, 8]);
        assert_eq!(batches(5), [1, 2, 3, 4, 5]);
        assert_eq!(batches(1), [1]);
        for prompt in [1024, 897, 512, 449, 256, 225, 128, 113, 64, 57, 32, 29, 16, 15] {
            assert!(plan.iter().any(|p| p.prompt_tokens.0 == prompt), "{prompt}");
        }
        for count in batches(8) {
            let together = |first: &Planned| {
                let same = plan.iter().filter(|p| p.after == first.after && p.new_tokens.0 > 60);
                same.count() as u32 == count
            };
            assert!(plan.iter().any(together), "{count} together");
        }
        assert!(plan.iter().all(|p| p.prompt_tokens.0 <= 1024 && p.new_tokens.0 <= 64));
    }

    #[test]
    fn every_request_waits_for_one_before_it() {
        for sequences in [1, 2, 3, 64] {
            let plan = calibration(Tokens(100), Tokens(9), sequences);
            for (place, request) in plan.iter().enumerate() {
                let before = request.after.map(|before| before as usize);
                assert!(before.is_none_or(|before| before < place), "{place} of {sequences}");
                assert_eq!(before.is_none(), place == 0);
            }
            assert!(plan.len() < 1000);
        }
        let least = calibration(Tokens(2), Tokens(1), 1);
        assert!(least.iter().all(|p| p.prompt_tokens.0 <= 2));
    }
}
