//! The requests that tell how long an engine's steps take: prompts alone, growing batches, deep
//! caches, and prompts that come while others generate.

use super::Planned;
use crate::units::{Nanos, Tokens};

/// The shortest prompt is the longest one halved so often.
const HALVINGS: u32 = 6;

/// Prompts between one length and its half.
const PER_HALVING: u32 = 6;

/// A pause in which an engine becomes idle as between a few users' requests.
const PAUSE: Nanos = Nanos(1_000_000_000);

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
    let mut sweep = Sweep { requests: Vec::new(), before: None, pause: Nanos(0) };
    let of = |share: u32| (prompt.0 / share).max(1);
    let new = new.0.max(1);
    // Engines make buffers at their first requests.
    sweep.together(1, FEW.min(new), |_| of(1));
    for i in 0..=HALVINGS * PER_HALVING {
        let share = (f64::from(i) / f64::from(PER_HALVING)).exp2();
        let tokens = (f64::from(prompt.0) / share).round().max(1.0) as u32;
        // Of neighbouring lengths one comes at once and one after a pause: an engine that was idle
        // takes longer to begin.
        sweep.pause = if i % 2 == 1 { PAUSE } else { Nanos(0) };
        sweep.together(1, FEW.min(new), |_| if i == 0 { tokens } else { uneven(tokens, i) });
    }
    sweep.pause = Nanos(0);
    for count in batches(sequences) {
        sweep.together(count, new, |i| uneven(of(32), i));
    }
    // The same with long caches, whose reading is then a part of the step that can be seen.
    for count in [sequences.div_ceil(2), sequences] {
        sweep.together(count, new.div_ceil(2), |i| uneven(of(4), i));
    }
    sweep.together(sequences.min(2), new.div_ceil(2), |i| uneven(of(1), i));
    for generating in [1, sequences / 2, sequences.saturating_sub(1)] {
        if generating > 0 && generating < sequences {
            sweep.beside(generating, of(32), new, |i| uneven(of(2 << (i % HALVINGS)), i));
        }
    }
    sweep.requests
}

/// A little less, with another remainder for each `i`: kernels take the tokens of a prompt in blocks, of
/// 16 on many processors, and what is left in smaller ones or singly, which takes longer. People's
/// prompts end anywhere in a block, and lengths that are all round, or all one more, would not tell.
fn uneven(tokens: u32, i: u32) -> u32 {
    let block = match tokens {
        0..8 => return tokens,
        8..32 => 4,
        _ => 16,
    };
    // 7 is odd: every remainder of these blocks comes in its turn.
    let remainder = 7 * i % block;
    tokens - (tokens + block - remainder) % block
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
    /// And so long after its end.
    pause: Nanos,
}

impl Sweep {
    /// Requests that start together; the last one ends last.
    fn together(&mut self, count: u32, new: u32, prompt: impl Fn(u32) -> u32) {
        let before = self.before;
        for i in 0..count {
            // An engine may start on the first before it has seen the others.
            let longest = i + 1 == count;
            let new = if longest { new } else { new.saturating_sub(2).max(1) };
            self.before = Some(self.ask(before, prompt(i), new));
        }
    }

    /// Requests that generate, and a chain of prompts that come beside them one after the other.
    fn beside(&mut self, generating: u32, own: u32, new: u32, prompt: impl Fn(u32) -> u32) {
        let before = self.before;
        self.together(generating, new, |i| uneven(own, i));
        let mut last = before;
        for i in 0..new / STEPS_BESIDE {
            last = Some(self.ask(last, prompt(i), 2));
        }
    }

    fn ask(&mut self, after: Option<u32>, prompt: u32, new: u32) -> u32 {
        self.requests.push(Planned {
            start: Nanos(0),
            after,
            think: if after.is_some() { self.pause } else { Nanos(0) },
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
        let alone: Vec<u32> = plan[..38].iter().map(|p| p.prompt_tokens.0).collect();
        assert_eq!(alone[..8], [1024, 1024, 903, 798, 709, 636, 563, 506]);
        assert_eq!(alone[37], 16);
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
    fn prompts_end_anywhere_in_a_block() {
        let long: Vec<u32> = (1..=16).map(|i| uneven(300, i)).collect();
        let mut remainders: Vec<u32> = long.iter().map(|tokens| tokens % 16).collect();
        remainders.sort_unstable();
        assert_eq!(remainders, (0..16).collect::<Vec<_>>());
        assert!(long.iter().all(|tokens| (285..=300).contains(tokens)), "{long:?}");
        let short: Vec<u32> = (1..=4).map(|i| uneven(20, i)).collect();
        assert_eq!(short, [19, 18, 17, 20]);
        assert_eq!((uneven(0, 3), uneven(7, 3), uneven(8, 1)), (0, 7, 7));
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
