//! The token ids of a trial: the same for every engine, new for every trial and request, so that
//! no prompt cache can help.

use rand::{RngExt, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;
use sha2::{Digest, Sha256};

use crate::runner::Request;
use crate::workload::Planned;

/// What all requests of a case have in common.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Shape {
    /// Tokens already in the KV cache.
    pub depth: u32,
    /// Ids are below this.
    pub vocabulary: u32,
}

/// The planned requests of trial `trial`, their tokens from `seed` alone. A further turn repeats the
/// turn before, its answer included; everything else is new.
pub fn requests(seed: u64, trial: u32, plan: &[Planned], shape: Shape) -> Vec<Request> {
    let mut requests: Vec<Request> = Vec::with_capacity(plan.len());
    for (place, planned) in plan.iter().enumerate() {
        let mut source = generator(seed, trial, place as u32);
        let mut ids = |n: u32| -> Vec<u32> {
            (0..n).map(|_| source.random_range(0..shape.vocabulary.max(1))).collect()
        };
        let before = planned.after.and_then(|before| requests.get(before as usize));
        let repeated = planned.repeated_tokens.0 as usize;
        let told = before.map(|turn| turn.prompt.iter().chain(&turn.output)).into_iter().flatten();
        let context = ids(shape.depth);
        let mut prompt: Vec<u32> = told.copied().take(repeated).collect();
        prompt.extend(ids(planned.prompt_tokens.0.saturating_sub(prompt.len() as u32)));
        requests.push(Request {
            context,
            prompt,
            output: ids(planned.new_tokens.0),
            start_ns: planned.start.0,
            after: planned.after,
            think_ns: planned.think.0,
            latest_ns: planned.latest.map(|latest| latest.0),
        });
    }
    requests
}

/// A short hash of the requests' ids, for the record: equal hashes mean the same work.
pub fn token_hash(requests: &[Request]) -> String {
    let mut hash = Sha256::new();
    for request in requests {
        for ids in [&request.context, &request.prompt, &request.output] {
            hash.update((ids.len() as u64).to_le_bytes());
            for id in ids {
                hash.update(id.to_le_bytes());
            }
        }
    }
    hash.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

fn generator(seed: u64, trial: u32, request: u32) -> Xoshiro256PlusPlus {
    let mut hash = Sha256::new();
    hash.update(seed.to_le_bytes());
    hash.update(trial.to_le_bytes());
    hash.update(request.to_le_bytes());
    Xoshiro256PlusPlus::from_seed(hash.finalize().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::units::{Nanos, Tokens};
    use crate::workload::{Limit, Mix, Source};

    const SHAPE: Shape = Shape { depth: 3, vocabulary: 1000 };

    fn plan(turns: u32, requests: u32) -> Vec<Planned> {
        let mix = Mix { turns, context: Tokens(1000), ..Mix::fixed(Tokens(20), Tokens(5)) };
        let source = Source::ClosedLoop { users: 1, think: Nanos(0) };
        mix.asked(source, Limit::Requests(requests)).plan(1).unwrap()
    }

    #[test]
    fn the_same_seed_gives_the_same_work_and_another_trial_gives_other_work() {
        let plan = plan(1, 2);
        let first = requests(7, 0, &plan, SHAPE);
        assert_eq!(first, requests(7, 0, &plan, SHAPE));
        assert_eq!(token_hash(&first), token_hash(&requests(7, 0, &plan, SHAPE)));
        assert_ne!(token_hash(&first), token_hash(&requests(7, 1, &plan, SHAPE)));
        assert_ne!(first[0].prompt, first[1].prompt);
    }

    #[test]
    fn ids_stay_inside_the_vocabulary() {
        for request in requests(1, 0, &plan(1, 4), SHAPE) {
            assert_eq!(request.context.len(), 3);
            assert_eq!(request.output.len(), 5);
            assert!(request.prompt.iter().all(|&id| id < 1000));
        }
    }

    #[test]
    fn a_turn_repeats_the_turns_before_it_and_a_new_conversation_nothing() {
        let requests = requests(1, 0, &plan(3, 4), SHAPE);
        let lengths: Vec<_> = requests.iter().map(|request| request.prompt.len()).collect();
        assert_eq!(lengths, [20, 45, 70, 20]);
        let told = [&requests[0].prompt[..], &requests[0].output[..]].concat();
        assert_eq!(requests[1].prompt[..25], told);
        assert_eq!(requests[2].prompt[..45], requests[1].prompt);
        assert_ne!(requests[3].prompt, requests[0].prompt);
    }
}
