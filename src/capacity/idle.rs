//! Paged caches of conversations that may go on: kept until their room is needed, the longest unused
//! first out.

use std::collections::{HashMap, VecDeque};

use super::asking::Conversation;

/// Caches that nobody computes with.
#[derive(Clone, Debug, Default)]
pub struct Idle {
    held: HashMap<Conversation, (u64, u64)>,
    /// In the order in which they became idle; those taken since are still in it.
    order: VecDeque<(Conversation, u64)>,
    stamp: u64,
    tokens: u64,
}

impl Idle {
    /// Their tokens together.
    pub fn tokens(&self) -> u64 {
        self.tokens
    }

    /// Keeps the cache of `conversation`.
    pub fn keep(&mut self, conversation: Conversation, tokens: u64) {
        self.take(conversation);
        self.stamp += 1;
        self.held.insert(conversation, (tokens, self.stamp));
        self.order.push_back((conversation, self.stamp));
        self.tokens += tokens;
        // What was taken would otherwise pile up behind one that is never needed.
        if self.order.len() > 2 * self.held.len() + 16 {
            let held = &self.held;
            self.order.retain(|(conversation, stamp)| {
                held.get(conversation).is_some_and(|h| h.1 == *stamp)
            });
        }
    }

    /// The tokens of the cache of `conversation`, without taking it.
    pub fn of(&self, conversation: Conversation) -> u64 {
        self.held.get(&conversation).map_or(0, |(tokens, _)| *tokens)
    }

    /// Takes the cache of `conversation` for use; its tokens.
    pub fn take(&mut self, conversation: Conversation) -> u64 {
        let tokens = self.held.remove(&conversation).map_or(0, |(tokens, _)| tokens);
        self.tokens -= tokens;
        tokens
    }

    /// Gives up the longest unused; its tokens.
    pub fn evict(&mut self) -> Option<u64> {
        while let Some((conversation, stamp)) = self.order.pop_front() {
            if self.held.get(&conversation).is_some_and(|held| held.1 == stamp) {
                return Some(self.take(conversation));
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
        for (conversation, tokens) in [(1, 10), (2, 20), (1, 15), (3, 30)] {
            idle.keep(conversation, tokens);
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
        for conversation in 1..10_000 {
            idle.keep(conversation, 1);
            idle.take(conversation);
        }
        assert!(idle.order.len() < 64, "{}", idle.order.len());
    }
}
