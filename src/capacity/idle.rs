//! Paged caches of conversations that may go on: kept until their room is needed, the longest unused
//! first out.

use std::collections::{HashMap, VecDeque};

use super::asking::Asker;

/// Caches that nobody computes with.
#[derive(Clone, Debug, Default)]
pub struct Idle {
    held: HashMap<Asker, (u64, u64)>,
    /// In the order in which they became idle; those taken since are still in it.
    order: VecDeque<(Asker, u64)>,
    stamp: u64,
    tokens: u64,
}

impl Idle {
    /// Their tokens together.
    pub fn tokens(&self) -> u64 {
        self.tokens
    }

    /// Keeps the cache of `asker`.
    pub fn keep(&mut self, asker: Asker, tokens: u64) {
        self.take(asker);
        self.stamp += 1;
        self.held.insert(asker, (tokens, self.stamp));
        self.order.push_back((asker, self.stamp));
        self.tokens += tokens;
        // What was taken would otherwise pile up behind one that is never needed.
        if self.order.len() > 2 * self.held.len() + 16 {
            let held = &self.held;
            self.order.retain(|(asker, stamp)| held.get(asker).is_some_and(|h| h.1 == *stamp));
        }
    }

    /// The tokens of the cache of `asker`, without taking it.
    pub fn of(&self, asker: Asker) -> u64 {
        self.held.get(&asker).map_or(0, |(tokens, _)| *tokens)
    }

    /// Takes the cache of `asker` for use; its tokens.
    pub fn take(&mut self, asker: Asker) -> u64 {
        let tokens = self.held.remove(&asker).map_or(0, |(tokens, _)| tokens);
        self.tokens -= tokens;
        tokens
    }

    /// Gives up the longest unused; its tokens.
    pub fn evict(&mut self) -> Option<u64> {
        while let Some((asker, stamp)) = self.order.pop_front() {
            if self.held.get(&asker).is_some_and(|held| held.1 == stamp) {
                return Some(self.take(asker));
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_unused_goes_first() {
        let mut idle = Idle::default();
        for (asker, tokens) in [(1, 10), (2, 20), (1, 15), (3, 30)] {
            idle.keep(asker, tokens);
        }
        assert_eq!((idle.tokens(), idle.of(1)), (65, 15));
        assert_eq!(idle.evict(), Some(20));
        assert_eq!(idle.take(3), 30);
        assert_eq!(idle.evict(), Some(15));
        assert_eq!((idle.evict(), idle.tokens()), (None, 0));
    }

    #[test]
    fn what_is_taken_leaves_nothing_behind() {
        let mut idle = Idle::default();
        idle.keep(0, 1);
        for asker in 1..10_000 {
            idle.keep(asker, 1);
            idle.take(asker);
        }
        assert!(idle.order.len() < 64, "{}", idle.order.len());
    }
}
