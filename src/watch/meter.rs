//! Energy between two moments, from a counter that moves in steps.

use serde::{Deserialize, Serialize};

use crate::units::Joules;

/// Energy between two moments, and what the steps of its counter leave open.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Metered {
    /// With the power between two steps taken as even.
    pub likely: Joules,
    /// At least: the whole steps that lie between the moments.
    pub least: Joules,
    /// At most: all steps that touch the time between them.
    pub most: Joules,
}

impl Metered {
    /// Of two times, or two devices, together.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            likely: Joules(self.likely.0 + other.likely.0),
            least: Joules(self.least.0 + other.least.0),
            most: Joules(self.most.0 + other.most.0),
        }
    }

    /// How far the figure may be off, up or down.
    pub fn open(&self) -> Joules {
        let (up, down) = (self.most.0 - self.likely.0, self.likely.0 - self.least.0);
        Joules(up.max(down))
    }
}

/// A reading at which the counter had moved. It moved after `after_ns` and by `by_ns`.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Step {
    after_ns: u64,
    by_ns: u64,
    joules: f64,
}

impl Step {
    fn middle(&self) -> f64 {
        f64::midpoint(self.after_ns as f64, self.by_ns as f64)
    }
}

/// The steps of a counter, in nanoseconds since any start.
#[derive(Clone, Debug, Default)]
pub struct Steps {
    steps: Vec<Step>,
    read_ns: u64,
}

impl Steps {
    /// Takes a reading.
    pub fn read(&mut self, at_ns: u64, joules: Joules) {
        let after_ns = if self.steps.is_empty() { at_ns } else { self.read_ns };
        self.read_ns = at_ns;
        if self.steps.last().is_none_or(|last| last.joules < joules.0) {
            self.steps.push(Step { after_ns, by_ns: at_ns, joules: joules.0 });
        }
    }

    /// Whether the counter has shown nothing.
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// Forgets what no window after this moment needs.
    pub fn forget(&mut self, before_ns: u64) {
        let known = self.steps.iter().rposition(|step| step.by_ns <= before_ns);
        self.steps.drain(..known.unwrap_or(0));
    }

    /// Whether the counter has moved since: no reading to come changes what [`Self::between`] says.
    pub fn passed(&self, at_ns: u64) -> bool {
        self.steps.last().is_some_and(|step| step.after_ns >= at_ns)
    }

    /// The energy between two moments; `None` where the counter moved on neither side of them.
    pub fn between(&self, from_ns: u64, to_ns: u64) -> Option<Metered> {
        let before = |at_ns| self.steps.iter().rev().find(|step| step.by_ns <= at_ns);
        let behind = |at_ns| self.steps.iter().find(|step| step.after_ns >= at_ns);
        let (before_from, behind_from) = (before(from_ns)?, behind(from_ns)?);
        let (before_to, behind_to) = (before(to_ns)?, behind(to_ns)?);
        Some(Metered {
            likely: Joules(self.at(to_ns)? - self.at(from_ns)?),
            least: Joules((before_to.joules - behind_from.joules).max(0.0)),
            most: Joules(behind_to.joules - before_from.joules),
        })
    }

    /// The counter at a moment, as if it moved evenly.
    fn at(&self, at_ns: u64) -> Option<f64> {
        let at = at_ns as f64;
        let pair = self.steps.windows(2).find(|pair| pair[1].middle() >= at)?;
        let (from, to) = (pair[0].middle(), pair[1].middle());
        let share = if to > from { ((at - from) / (to - from)).clamp(0.0, 1.0) } else { 1.0 };
        Some(pair[0].joules + share * (pair[1].joules - pair[0].joules))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    /// A counter of a device that takes `watts(t)`, which moves every `step` ms and is read every
    /// `read` ms, for `length` ms.
    fn counter(step: u64, read: u64, length: u64, watts: impl Fn(u64) -> f64) -> Steps {
        let mut steps = Steps::default();
        let (mut joules, mut shown) = (0.0, 0.0);
        for ms in 0..=length {
            joules += watts(ms) / 1e3;
            if ms % step == 0 {
                shown = joules;
            }
            // Readings and steps are out of phase, as they are on a card.
            if ms % read == 3 {
                steps.read(ms * MS, Joules(shown));
            }
        }
        steps
    }

    #[test]
    fn energy_between_two_moments_is_that_of_the_power_within_what_is_left_open() {
        // 100 W at rest, 600 W in the prompt (1 to 3 s), 400 W while generating (3 to 8 s).
        let steps = counter(100, 20, 9000, |ms| match ms {
            1000..3000 => 600.0,
            3000..8000 => 400.0,
            _ => 100.0,
        });
        for (from, to, truth) in [(1000, 3000, 1200.0), (3000, 8000, 2000.0), (1000, 8000, 3200.0)]
        {
            let found = steps.between(from * MS, to * MS).expect("a figure");
            assert!(found.least.0 <= truth && truth <= found.most.0, "{found:?} for {truth}");
            assert!((found.likely.0 - truth).abs() <= 30.0, "{found:?} for {truth}");
            // Two steps of 100 ms and two readings of 20 ms at 600 W at the most.
            assert!(found.open().0 <= 0.24 * 600.0, "{found:?} for {truth}");
        }
    }

    #[test]
    fn a_window_shorter_than_a_step_is_left_open_altogether() {
        let steps =
            counter(100, 20, 3000, |ms| if (1010..1050).contains(&ms) { 700.0 } else { 80.0 });
        let found = steps.between(1010 * MS, 1050 * MS).expect("bounds");
        assert_eq!(found.least, Joules(0.0));
        assert!(found.most.0 > 28.0 && found.open().0 > 0.5 * found.likely.0, "{found:?}");
    }

    #[test]
    fn what_the_counter_has_not_shown_yet_is_no_figure() {
        let mut steps = counter(100, 20, 1000, |_| 100.0);
        assert_eq!(steps.between(500 * MS, 1000 * MS), None);
        assert!(!steps.passed(1000 * MS));
        steps.read(1090 * MS, Joules(110.0));
        steps.read(1190 * MS, Joules(120.0));
        assert!(steps.passed(1000 * MS));
        assert!(steps.between(500 * MS, 1000 * MS).is_some());
        assert_eq!(Steps::default().between(0, MS), None);
    }

    #[test]
    fn what_is_forgotten_changes_no_later_window() {
        let mut steps = counter(50, 20, 4000, |ms| ms as f64);
        let before = steps.between(2000 * MS, 3500 * MS);
        steps.forget(2000 * MS);
        assert_eq!(steps.between(2000 * MS, 3500 * MS), before);
        assert!(steps.steps.len() < 45, "{}", steps.steps.len());
    }
}
