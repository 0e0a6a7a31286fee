//! The slots of a server: who gets which, what their caches still hold, and which generate.

use std::collections::VecDeque;

use super::asking::Conversation;

/// A further turn gets the slot of its conversation where more than this share of its prompt lies
/// there: llama-server's `--slot-prompt-similarity`.
const SIMILAR: f64 = 0.1;

/// Slots by llama-server's rules: a free one whose cache is like the prompt, else the one that was
/// free for the longest. Of those that were never used the last comes first (each that is as old as
/// the one found so far takes its place). Source: `get_available_slot` in
/// tools/server/server-context.cpp (llama.cpp in
/// llama-cpp-python 0.3.36).
#[derive(Clone, Debug)]
pub struct Slots {
    /// Free ones, the next first.
    free: VecDeque<u32>,
    /// Freed in the step that is ending.
    freed: Vec<u32>,
    /// Whose cache lies in each, and its tokens.
    kept: Vec<Option<(Conversation, u64)>>,
    /// Those that generate, a bit for each.
    generating: Vec<u64>,
}

impl Slots {
    pub fn new(count: u32) -> Self {
        Self {
            free: (0..count).rev().collect(),
            freed: Vec::new(),
            kept: vec![None; count as usize],
            generating: vec![0; count.div_ceil(64) as usize],
        }
    }

    /// A slot for a prompt of so many tokens, of which `repeated` were in the turns before, and how
    /// many of these its cache holds. There must be a free one.
    pub fn take(&mut self, conversation: Conversation, prompt: u32, repeated: u32) -> (u32, u64) {
        let own =
            |slot: &u32| self.kept[*slot as usize].is_some_and(|(whose, _)| whose == conversation);
        let similar = f64::from(repeated) > SIMILAR * f64::from(prompt);
        let place = if similar { self.free.iter().rposition(own) } else { None };
        let slot = self.free.remove(place.unwrap_or(0)).unwrap_or(0);
        let kept = self.kept[slot as usize].take().filter(|(whose, _)| *whose == conversation);
        (slot, kept.map_or(0, |(_, tokens)| tokens.min(u64::from(repeated))))
    }

    /// The slot is free from the end of this step on, with a cache of so many tokens.
    pub fn free(&mut self, slot: u32, conversation: Conversation, tokens: u64) {
        self.kept[slot as usize] = Some((conversation, tokens));
        self.generating[slot as usize / 64] &= !(1 << (slot % 64));
        self.freed.push(slot);
    }

    /// The slot has its first token and is not done.
    pub fn generate(&mut self, slot: u32) {
        self.generating[slot as usize / 64] |= 1 << (slot % 64);
    }

    /// The end of a step: a server looks at its slots in order, so that the lower one is older.
    pub fn end_step(&mut self) {
        self.freed.sort_unstable();
        self.free.extend(self.freed.drain(..));
    }

    /// Those that generate, rising.
    pub fn generating(&self) -> impl Iterator<Item = u32> {
        self.generating.iter().zip(0u32..).flat_map(|(word, place)| {
            let mut word = *word;
            std::iter::from_fn(move || {
                let bit = word.trailing_zeros();
                word &= word.wrapping_sub(1);
                (bit < 64).then_some(place * 64 + bit)
            })
        })
    }

    /// The lengths of runs of neighbouring ones that generate: the pieces of a step without prompts.
    pub fn runs(&self, mut each: impl FnMut(u32)) {
        let mut run = 0;
        for word in &self.generating {
            let (mut word, mut left) = (*word, u64::BITS);
            while left > 0 {
                let ones = word.trailing_ones().min(left);
                run += ones;
                left -= ones;
                if left == 0 {
                    break;
                }
                if run > 0 {
                    each(run);
                    run = 0;
                }
                // Not all are ones, so that fewer than 64 places are shifted out.
                word >>= ones;
                let zeros = word.trailing_zeros().min(left);
                word = word.checked_shr(zeros).unwrap_or(0);
                left -= zeros;
            }
        }
        if run > 0 {
            each(run);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runs(slots: &Slots) -> Vec<u32> {
        let mut runs = Vec::new();
        slots.runs(|run| runs.push(run));
        runs
    }

    #[test]
    fn the_longest_unused_slot_is_taken_and_of_new_ones_the_last() {
        let mut slots = Slots::new(4);
        let taken: Vec<u32> =
            (0..4).map(|conversation| slots.take(conversation, 10, 0).0).collect();
        assert_eq!(taken, [3, 2, 1, 0]);
        slots.free(2, 1, 10);
        slots.end_step();
        // In one step, the lower one first.
        slots.free(3, 0, 10);
        slots.free(1, 2, 10);
        slots.end_step();
        let taken: Vec<u32> =
            (4..7).map(|conversation| slots.take(conversation, 10, 0).0).collect();
        assert_eq!(taken, [2, 1, 3]);
    }

    #[test]
    fn a_further_turn_finds_its_slot_unless_another_took_it() {
        let mut slots = Slots::new(2);
        for conversation in [7, 8] {
            let (slot, found) = slots.take(conversation, 100, 0);
            assert_eq!(found, 0);
            slots.free(slot, conversation, 120);
            slots.end_step();
        }
        // 8 has the one that is newer.
        assert_eq!(slots.take(8, 200, 120), (0, 120));
        slots.free(0, 8, 220);
        slots.end_step();
        // A tenth of the prompt is not enough: the oldest, which is another's.
        assert_eq!(slots.take(8, 2000, 200), (1, 0));
        assert_eq!(slots.take(7, 200, 120), (0, 0));
    }

    #[test]
    fn neighbours_that_generate_are_one_run() {
        let mut slots = Slots::new(200);
        assert!(runs(&slots).is_empty());
        let ones: Vec<u32> = [0, 1, 3, 4].into_iter().chain(62..130).chain([199]).collect();
        for slot in &ones {
            slots.generate(*slot);
        }
        assert_eq!(slots.generating().collect::<Vec<_>>(), ones);
        assert_eq!(runs(&slots), [2, 2, 68, 1]);
        (62..130).for_each(|slot| slots.free(slot, 0, 1));
        assert_eq!(runs(&slots), [2, 2, 1]);
        let mut full = Slots::new(128);
        (0..128).for_each(|slot| full.generate(slot));
        assert_eq!(runs(&full), [128]);
    }
}
