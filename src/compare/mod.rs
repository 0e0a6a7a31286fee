//! Two sets of trials of one case → their ratio, its interval, and a verdict.

mod lines;
mod obstacle;
mod runs;

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::stats::{self, Interval};

pub use lines::{Line, Metric, Subject, Terms, Values, compare_by_case, compare_by_engine};
pub use obstacle::{Condition, obstacle};
pub use runs::{as_one, took_turns};

/// How the two sets of trials were run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Pairing {
    /// In turns: trial `i` of the one beside trial `i` of the other.
    Interleaved,
    /// One set after the other, or on another day.
    Apart,
}

/// Which way a metric is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Better {
    /// More is better: a speed.
    Higher,
    /// Less is better: a time, a size.
    Lower,
}

/// What a comparison concludes about the candidate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// Better than the baseline; of times and speeds, faster.
    Faster,
    /// Worse than the baseline.
    Slower,
    /// The interval holds 1: nothing larger than the smallest detectable difference is there.
    NoDifferenceSeen,
    /// Too few usable trials to tell.
    TooFewTrials,
    /// The two did not do the same work under the same conditions, or one has no figures.
    NotComparable,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Faster => "faster",
            Self::Slower => "slower",
            Self::NoDifferenceSeen => "no difference seen",
            Self::TooFewTrials => "too few trials",
            Self::NotComparable => "not comparable",
        })
    }
}

/// The comparison of a candidate with a baseline.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// Candidate / baseline; `None` where a value is missing or not positive.
    pub ratio: Option<f64>,
    /// The ratio's 95 % interval; `None` where too few trials bear one.
    pub interval: Option<Interval>,
    /// The conclusion.
    pub verdict: Verdict,
    /// The smallest relative difference that would have been found nine times in ten.
    pub smallest_detectable: Option<f64>,
    /// How the trials were compared: [`Pairing::Apart`] too where pairs were incomplete.
    pub pairing: Pairing,
    /// Trials of the baseline.
    pub baseline_trials: usize,
    /// Trials of the candidate.
    pub candidate_trials: usize,
}

/// Compares the trial values of one metric. Trials that ran in turns are compared in pairs where
/// their numbers are equal, else as two sets: a trial that failed leaves its partner without one.
pub fn compare(
    baseline: &[f64],
    candidate: &[f64],
    pairing: Pairing,
    better: Better,
) -> Comparison {
    let paired = pairing == Pairing::Interleaved && baseline.len() == candidate.len();
    let estimate = if paired {
        stats::paired_ratio(baseline, candidate)
    } else {
        stats::unpaired_ratio(baseline, candidate)
    };
    let interval = estimate.map(|e| e.interval);
    let verdict = match interval {
        None => Verdict::TooFewTrials,
        Some(i) if i.contains(1.0) => Verdict::NoDifferenceSeen,
        Some(i) if (i.low > 1.0) == (better == Better::Higher) => Verdict::Faster,
        Some(_) => Verdict::Slower,
    };
    Comparison {
        ratio: estimate.map(|e| e.value).or_else(|| ratio_of_medians(baseline, candidate)),
        interval,
        verdict,
        smallest_detectable: interval.and_then(stats::smallest_detectable),
        pairing: if paired { Pairing::Interleaved } else { Pairing::Apart },
        baseline_trials: baseline.len(),
        candidate_trials: candidate.len(),
    }
}

/// The values of the trials that both have, in their order: a trial that one of them lost leaves the
/// other's without a partner.
pub fn pairs(baseline: &[(u32, f64)], candidate: &[(u32, f64)]) -> (Vec<f64>, Vec<f64>) {
    let partner = |trial: u32| candidate.iter().find(|(number, _)| *number == trial);
    baseline.iter().filter_map(|(trial, value)| Some((*value, partner(*trial)?.1))).unzip()
}

/// Items of two lists that share a key, in the baseline's order, and the keys that only one has.
#[derive(Clone, Debug, PartialEq)]
pub struct Joined<'a, K, T> {
    /// Key, baseline item, candidate item.
    pub both: Vec<(K, &'a T, &'a T)>,
    /// Keys that the candidate lacks.
    pub only_baseline: Vec<K>,
    /// Keys that the baseline lacks.
    pub only_candidate: Vec<K>,
}

/// Joins two lists by `key`; of several items with one key the last counts, as a resumed run
/// appends.
pub fn join<'a, K: Clone + Ord, T>(
    baseline: &'a [T],
    candidate: &'a [T],
    key: impl Fn(&T) -> K,
) -> Joined<'a, K, T> {
    use std::collections::BTreeMap;
    let candidates: BTreeMap<K, &T> = candidate.iter().map(|item| (key(item), item)).collect();
    let baselines: BTreeMap<K, &T> = baseline.iter().map(|item| (key(item), item)).collect();
    let mut joined =
        Joined { both: Vec::new(), only_baseline: Vec::new(), only_candidate: Vec::new() };
    let mut seen = std::collections::BTreeSet::new();
    for k in baseline.iter().map(&key) {
        if !seen.insert(k.clone()) {
            continue;
        }
        match candidates.get(&k) {
            Some(c) => joined.both.push((k.clone(), baselines[&k], c)),
            None => joined.only_baseline.push(k),
        }
    }
    for k in candidate.iter().map(&key) {
        if seen.insert(k.clone()) {
            joined.only_candidate.push(k);
        }
    }
    joined
}

fn ratio_of_medians(baseline: &[f64], candidate: &[f64]) -> Option<f64> {
    let (b, c) = (stats::median(baseline)?, stats::median(candidate)?);
    (b > 0.0 && c > 0.0).then(|| c / b)
}

#[cfg(test)]
mod tests {
    use rand::{RngExt, SeedableRng};
    use rand_xoshiro::Xoshiro256PlusPlus;

    use super::*;

    const DRAWS: usize = 1000;

    /// How trials scatter around their true value.
    #[derive(Clone, Copy, Debug)]
    enum Noise {
        Normal,
        /// Laplace: heavy tails.
        Heavy,
        /// One trial in ten is slower by some 20 %: another process, a page fault storm.
        Spikes,
        /// Exponential: never faster than the floor.
        Skewed,
    }

    const NOISES: [Noise; 4] = [Noise::Normal, Noise::Heavy, Noise::Spikes, Noise::Skewed];

    fn draw(rng: &mut Xoshiro256PlusPlus, noise: Noise, size: f64) -> f64 {
        let (u, v): (f64, f64) = (rng.random(), rng.random());
        let normal = (-2.0 * (1.0 - u).ln()).sqrt() * (2.0 * std::f64::consts::PI * v).cos();
        let exponential = -(1.0 - u).ln();
        size * match noise {
            Noise::Normal => normal,
            Noise::Heavy => exponential / 2.0_f64.sqrt() * if v < 0.5 { -1.0 } else { 1.0 },
            Noise::Spikes => normal - if rng.random_bool(0.1) { 20.0 } else { 0.0 },
            Noise::Skewed => -exponential,
        }
    }

    /// Speeds of a baseline and of a candidate whose true ratio is `ratio`, with a drift that both
    /// share.
    fn trials(
        rng: &mut Xoshiro256PlusPlus,
        n: usize,
        noise: Noise,
        ratio: f64,
        drift: f64,
    ) -> (Vec<f64>, Vec<f64>) {
        let mut speeds = |ratio: f64| -> Vec<f64> {
            (0..n)
                .map(|i| 100.0 * ratio * (draw(rng, noise, 0.01) + drift * i as f64).exp())
                .collect()
        };
        (speeds(1.0), speeds(ratio))
    }

    fn share_called(
        seed: u64,
        n: usize,
        noise: Noise,
        pairing: Pairing,
        ratio: f64,
        drift: f64,
    ) -> f64 {
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(seed);
        let called = (0..DRAWS)
            .filter(|_| {
                let (a, b) = trials(&mut rng, n, noise, ratio, drift);
                let verdict = compare(&a, &b, pairing, Better::Higher).verdict;
                match ratio {
                    1.0 => verdict != Verdict::NoDifferenceSeen,
                    r if r < 1.0 => verdict == Verdict::Slower,
                    _ => verdict == Verdict::Faster,
                }
            })
            .count();
        called as f64 / DRAWS as f64
    }

    #[test]
    fn the_same_program_is_called_different_in_at_most_five_per_cent() {
        let (mut total, mut runs) = (0.0, 0.0);
        for pairing in [Pairing::Interleaved, Pairing::Apart] {
            for noise in NOISES {
                for n in 5..=10 {
                    let share = share_called(n as u64, n, noise, pairing, 1.0, 0.0);
                    // 1,000 draws of a true 5 % reach 6.5 % once in 50 tries.
                    assert!(share <= 0.065, "{share} of {n} trials, {noise:?}, {pairing:?}");
                    (total, runs) = (total + share, runs + 1.0);
                }
            }
        }
        let mean = total / runs;
        assert!(mean <= 0.05, "{mean} over all");
        assert!(mean >= 0.01, "{mean} over all: so strict that it finds little");
    }

    #[test]
    fn a_slow_down_of_three_per_cent_is_found_in_nine_cases_of_ten() {
        for pairing in [Pairing::Interleaved, Pairing::Apart] {
            for n in 5..=10 {
                let share = share_called(n as u64, n, Noise::Normal, pairing, 0.97, 0.0);
                assert!(share >= 0.9, "{share} of {n} trials, {pairing:?}");
            }
        }
    }

    #[test]
    fn interleaving_finds_it_under_a_drift_too() {
        // 3 % a trial: a laptop that heats up.
        let together = share_called(1, 6, Noise::Normal, Pairing::Interleaved, 0.97, -0.03);
        let apart = share_called(1, 6, Noise::Normal, Pairing::Apart, 0.97, -0.03);
        assert!(together >= 0.9, "{together}");
        assert!(apart < 0.5, "{apart}");
    }

    #[test]
    fn a_difference_of_the_smallest_detectable_size_is_found_nine_times_in_ten() {
        for (pairing, n) in [
            (Pairing::Interleaved, 5),
            (Pairing::Interleaved, 10),
            (Pairing::Apart, 6),
            (Pairing::Apart, 10),
        ] {
            let mut rng = Xoshiro256PlusPlus::seed_from_u64(7);
            let sizes: Vec<f64> = (0..DRAWS)
                .map(|_| {
                    let (a, b) = trials(&mut rng, n, Noise::Normal, 1.0, 0.0);
                    let comparison = compare(&a, &b, pairing, Better::Higher);
                    comparison.smallest_detectable.expect("a size")
                })
                .collect();
            let size = stats::median(&sizes).expect("a median");
            let share = share_called(8, n, Noise::Normal, pairing, 1.0 + size, 0.0);
            assert!((0.8..=0.99).contains(&share), "{share} at {size}, {n} trials, {pairing:?}");
        }
    }

    #[test]
    fn a_verdict_knows_which_way_is_better() {
        let slow = [100.0, 101.0, 99.0, 100.5, 99.5];
        let fast = [110.0, 111.0, 109.0, 110.5, 109.5];
        let verdict = |a: &[f64], b: &[f64], better| compare(a, b, Pairing::Apart, better).verdict;
        assert_eq!(verdict(&slow, &fast, Better::Higher), Verdict::Faster);
        assert_eq!(verdict(&fast, &slow, Better::Higher), Verdict::Slower);
        assert_eq!(verdict(&slow, &fast, Better::Lower), Verdict::Slower);
        assert_eq!(verdict(&slow, &slow, Better::Higher), Verdict::NoDifferenceSeen);
    }

    #[test]
    fn three_trials_have_a_ratio_and_no_verdict() {
        let few = compare(&[1.0, 1.0, 1.0], &[2.0, 2.0, 2.0], Pairing::Apart, Better::Higher);
        assert_eq!((few.ratio, few.interval), (Some(2.0), None));
        assert_eq!(few.verdict, Verdict::TooFewTrials);
    }

    #[test]
    fn trials_are_paired_by_their_numbers() {
        let baseline = [(1, 10.0), (2, 20.0), (4, 40.0)];
        let candidate = [(2, 21.0), (3, 31.0), (4, 41.0)];
        assert_eq!(pairs(&baseline, &candidate), (vec![20.0, 40.0], vec![21.0, 41.0]));
    }

    #[test]
    fn a_lost_trial_breaks_the_pairs_and_not_the_comparison() {
        let a = [100.0, 101.0, 99.0, 100.5, 99.5];
        let b = [90.0, 91.0, 89.0, 90.5];
        let comparison = compare(&a, &b, Pairing::Interleaved, Better::Higher);
        assert_eq!(comparison.pairing, Pairing::Apart);
        assert_eq!(comparison.verdict, Verdict::Slower);
    }

    #[test]
    fn a_join_keeps_the_baseline_s_order_and_says_what_is_missing() {
        let baseline = [("b", 1), ("a", 2), ("x", 3)];
        let candidate = [("a", 4), ("b", 5), ("y", 6), ("a", 7)];
        let joined = join(&baseline, &candidate, |item| item.0);
        assert_eq!(joined.both, vec![("b", &("b", 1), &("b", 5)), ("a", &("a", 2), &("a", 7))]);
        assert_eq!(joined.only_baseline, vec!["x"]);
        assert_eq!(joined.only_candidate, vec!["y"]);
    }
}
