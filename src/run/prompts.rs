//! The token ids of a trial: the same for every engine, new for every trial and request, so that
//! no prompt cache can help.

use rand::{RngExt, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;
use sha2::{Digest, Sha256};

use crate::runner::Request;

/// What one request of a point looks like.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Shape {
    /// Tokens already in the KV cache.
    pub depth: u32,
    /// Tokens of the prompt.
    pub prompt_tokens: u32,
    /// Tokens to generate.
    pub new_tokens: u32,
    /// Ids are below this.
    pub vocabulary: u32,
}

/// `count` requests of trial `trial`, from `seed` alone.
pub fn requests(seed: u64, trial: u32, count: u32, shape: Shape) -> Vec<Request> {
    (0..count)
        .map(|request| {
            let mut source = generator(seed, trial, request);
            let mut ids = |n: u32| -> Vec<u32> {
                (0..n).map(|_| source.random_range(0..shape.vocabulary.max(1))).collect()
            };
            Request {
                context: ids(shape.depth),
                prompt: ids(shape.prompt_tokens),
                output: ids(shape.new_tokens),
                ..Request::default()
            }
        })
        .collect()
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

    const SHAPE: Shape = Shape { depth: 3, prompt_tokens: 20, new_tokens: 5, vocabulary: 1000 };

    #[test]
    fn the_same_seed_gives_the_same_work_and_another_trial_gives_other_work() {
        let first = requests(7, 0, 2, SHAPE);
        assert_eq!(first, requests(7, 0, 2, SHAPE));
        assert_eq!(token_hash(&first), token_hash(&requests(7, 0, 2, SHAPE)));
        assert_ne!(token_hash(&first), token_hash(&requests(7, 1, 2, SHAPE)));
        assert_ne!(first[0].prompt, first[1].prompt);
    }

    #[test]
    fn ids_stay_inside_the_vocabulary() {
        for request in requests(1, 0, 4, SHAPE) {
            assert_eq!(request.context.len(), 3);
            assert_eq!(request.output.len(), 5);
            assert!(request.prompt.iter().all(|&id| id < 1000));
        }
    }
}
