//! The pieces into which llama.cpp cuts a batch where every slot has a cache of its own.

use serde::Serialize;

/// llama.cpp's `--ubatch-size` where nobody sets it.
pub const MICRO_BATCH: u32 = 512;

/// How an engine computes the sequences of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Batches {
    /// All at once: the weights are read once.
    Whole,
    /// As [`pieces`] says: the weights are read for each piece.
    Pieces,
}

impl Batches {
    /// As sentences call it.
    pub fn words(self) -> &'static str {
        match self {
            Self::Whole => "whole batches",
            Self::Pieces => "batches in pieces: slots with caches of their own",
        }
    }
}

/// What is computed at once: the same number of tokens of each of some sequences.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Sequences in it.
    pub sequences: u32,
    /// Tokens of each.
    pub tokens: u32,
}

/// The pieces of a step in which the slots of `generating` have a token each, and those of
/// `prompts` so many; both rise, and no slot is in them twice. A piece has at most `micro_batch`
/// tokens.
///
/// llama.cpp goes through the tokens that are left, those of `generating` first. Each whose slot is
/// the one after the last that it took joins the piece, and all give as many tokens as the one with
/// the fewest has. Source: `split_equal` (sequential) in src/llama-batch.cpp, `init_batch` in
/// src/llama-kv-cache.cpp and `pre_decode` in tools/server/server-context.cpp (llama.cpp in
/// llama-cpp-python 0.3.36).
pub fn pieces(
    generating: impl IntoIterator<Item = u32>,
    prompts: impl IntoIterator<Item = (u32, u32)>,
    micro_batch: u32,
) -> Vec<Piece> {
    let generating = generating.into_iter().map(|slot| (slot, 1));
    let mut left: Vec<(u32, u32)> =
        generating.chain(prompts).filter(|(_, tokens)| *tokens > 0).collect();
    let mut found = Vec::new();
    let mut together: Vec<usize> = Vec::new();
    while let Some(&(first, _)) = left.first() {
        together.clear();
        let mut next = first;
        let mut tokens = u32::MAX;
        for (i, (slot, own)) in left.iter().enumerate() {
            if *slot == next && together.len() < micro_batch.max(1) as usize {
                together.push(i);
                next += 1;
                tokens = tokens.min(*own);
            }
        }
        let sequences = together.len() as u32;
        let tokens = tokens.min((micro_batch / sequences).max(1));
        for i in &together {
            left[*i].1 -= tokens;
        }
        left.retain(|(_, tokens)| *tokens > 0);
        found.push(Piece { sequences, tokens });
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pieces as (sequences, tokens of each).
    fn cut(generating: &[u32], prompts: &[(u32, u32)]) -> Vec<(u32, u32)> {
        let pieces = pieces(generating.iter().copied(), prompts.iter().copied(), MICRO_BATCH);
        pieces.iter().map(|piece| (piece.sequences, piece.tokens)).collect()
    }

    #[test]
    fn neighbouring_slots_generate_together() {
        assert_eq!(cut(&[0, 1, 3, 4], &[]), [(2, 1), (2, 1)]);
        assert_eq!(cut(&[0, 2, 4, 6], &[]), [(1, 1); 4]);
        assert_eq!(cut(&[2, 3, 4, 5, 6, 7], &[]), [(6, 1)]);
        assert!(cut(&[], &[]).is_empty());
    }

    #[test]
    fn a_prompt_joins_with_one_token_and_the_rest_is_a_piece() {
        assert_eq!(cut(&[0, 1, 2, 3, 4, 5, 6], &[(7, 100)]), [(8, 1), (1, 99)]);
        // The scan goes on behind 2, so that 3 and 4 are too late for this piece.
        assert_eq!(cut(&[0, 1, 3, 4], &[(2, 100)]), [(3, 1), (2, 1), (1, 99)]);
        // 0 comes after 1 and 2 in the batch, 3 follows them.
        assert_eq!(cut(&[1, 2], &[(0, 10), (3, 20)]), [(3, 1), (1, 10), (1, 19)]);
        assert_eq!(cut(&[5], &[(2, 10)]), [(1, 1), (1, 10)]);
    }

    #[test]
    fn neighbouring_prompts_go_together_as_far_as_the_shortest() {
        assert_eq!(cut(&[], &[(0, 100), (1, 60)]), [(2, 60), (1, 40)]);
        assert_eq!(cut(&[], &[(0, 100), (2, 60)]), [(1, 100), (1, 60)]);
        assert_eq!(cut(&[], &[(4, 5), (5, 9), (6, 7)]), [(3, 5), (2, 2), (1, 2)]);
    }

    #[test]
    fn a_piece_has_no_more_tokens_than_the_micro_batch() {
        assert_eq!(cut(&[], &[(3, 1300)]), [(1, 512), (1, 512), (1, 276)]);
        // 170 of each of three are 510; 512 are not divided by three.
        assert_eq!(cut(&[], &[(0, 200), (1, 200), (2, 200)]), [(3, 170), (3, 30)]);
        let narrow = pieces(0..5, [], 2);
        let narrow: Vec<u32> = narrow.iter().map(|piece| piece.sequences).collect();
        assert_eq!(narrow, [2, 2, 1]);
    }
}
