//! Median, MAD, percentiles and intervals for few and skewed values: nothing here is a mean, and
//! what too few values cannot bear is `None`.

use serde::{Deserialize, Serialize};

/// The confidence that every interval here states.
pub const CONFIDENCE: f64 = 0.95;

/// Fewest trials from which a median gets an interval: the range of 4 values covers the median only
/// 7 times in 8.
pub const MIN_TRIALS: usize = 5;

/// Paired trials from which the signed-rank interval is used; fewer cannot exclude anything at 95 %
/// (5 pairs) or only by unanimity (6 and 7 pairs).
const SIGNED_RANK_FROM: usize = 8;

/// Largest rank sum whose exact null distribution is computed (50 trials against 50); above it the
/// normal approximation is exact to a rank.
const EXACT_UP_TO: usize = 2_500;

/// The 97.5 % point of the normal distribution.
const Z: f64 = 1.959_963_984_540_054;

/// An interval that holds the true value with [`CONFIDENCE`].
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// Its lower end.
    pub low: f64,
    /// Its upper end.
    pub high: f64,
}

impl Interval {
    /// Whether `value` lies in it, its ends included.
    pub fn contains(self, value: f64) -> bool {
        self.low <= value && value <= self.high
    }

    /// Half of its width as a share of `centre`: the "± 1.2 %" of a table. `None` where `centre` is 0.
    pub fn relative_half_width(self, centre: f64) -> Option<f64> {
        (centre != 0.0).then(|| (self.high - self.low) / 2.0 / centre.abs())
    }

    fn map(self, f: impl Fn(f64) -> f64) -> Self {
        Self { low: f(self.low), high: f(self.high) }
    }
}

/// A value with its interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Estimate {
    /// The point estimate.
    pub value: f64,
    /// Where the true value lies.
    pub interval: Interval,
}

/// What a record keeps of one metric's trials.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Number of trials.
    pub trials: usize,
    /// Their median.
    pub median: f64,
    /// Their median absolute deviation, unscaled; `None` of a single trial.
    pub mad: Option<f64>,
    /// The 95 % interval of the median; `None` below [`MIN_TRIALS`].
    pub interval: Option<Interval>,
    /// The smallest trial.
    pub smallest: f64,
    /// The largest trial.
    pub largest: f64,
}

impl Summary {
    /// The summary of `values`; `None` where there are none or one is not a finite number.
    pub fn of(values: &[f64]) -> Option<Self> {
        let sorted = sorted(values)?;
        Some(Self {
            trials: sorted.len(),
            median: middle(&sorted),
            mad: if sorted.len() > 1 { mad(values) } else { None },
            interval: median_interval(values),
            smallest: sorted[0],
            largest: sorted[sorted.len() - 1],
        })
    }

    /// Half of the interval's width as a share of the median: what a run repeats trials to reduce.
    pub fn relative_half_width(&self) -> Option<f64> {
        self.interval?.relative_half_width(self.median)
    }
}

/// The middle value, or the midpoint of the two middle ones.
pub fn median(values: &[f64]) -> Option<f64> {
    sorted(values).map(|s| middle(&s))
}

/// The median absolute deviation from the median, unscaled.
pub fn mad(values: &[f64]) -> Option<f64> {
    let centre = median(values)?;
    median(&values.iter().map(|v| (v - centre).abs()).collect::<Vec<_>>())
}

/// Fewest values that bear the `percent`-th percentile: so many that one is expected beyond it
/// (p99: 100, p95: 20, p90: 10), and 1 for the median and below.
pub fn values_needed(percent: f64) -> usize {
    if percent <= 50.0 { 1 } else { (100.0 / (100.0 - percent)).round() as usize }
}

/// The `percent`-th percentile, linear between the two nearest values; `None` where
/// [`values_needed`] are not there.
pub fn percentile(values: &[f64], percent: f64) -> Option<f64> {
    let sorted = sorted(values)?;
    if !(0.0..100.0).contains(&percent) || sorted.len() < values_needed(percent) {
        return None;
    }
    let position = percent / 100.0 * (sorted.len() - 1) as f64;
    let below = position.floor() as usize;
    let above = (below + 1).min(sorted.len() - 1);
    Some(sorted[below] + (position - below as f64) * (sorted[above] - sorted[below]))
}

/// The 95 % interval of the median, from order statistics interpolated after Hettmansperger and
/// Sheather (1986).
///
/// Not the bootstrap: the 2.5 % and 97.5 % points of resampled medians cover the true one only 87 to
/// 95 times in 100 at 5 to 10 trials (7 trials are the worst), whatever the distribution. These need
/// no random numbers, assume nothing of the distribution and keep 94 to 96; the tests simulate both.
/// 5 trials can bear 93.75 % at most: their whole range. `None` below [`MIN_TRIALS`].
pub fn median_interval(values: &[f64]) -> Option<Interval> {
    let s = sorted(values)?;
    let n = s.len();
    if n < MIN_TRIALS {
        return None;
    }
    // The range from the d-th smallest to the d-th largest misses the median with 2·P(B < d).
    let mut depth = 1;
    let mut below = 0.5_f64.powi(n as i32); // P(B < depth)
    let mut term = below; // P(B = depth - 1)
    let coverage = |below: f64| 1.0 - 2.0 * below;
    let (wide, narrow) = if n > 1000 {
        // 0.5^n leaves the range of f64; the normal approximation is exact to a rank here.
        depth = ((n as f64 - Z * (n as f64).sqrt()) / 2.0).floor() as usize;
        (CONFIDENCE, CONFIDENCE)
    } else {
        loop {
            let next = term * (n - depth + 1) as f64 / depth as f64;
            if depth + 1 > n / 2 || coverage(below + next) < CONFIDENCE {
                break (coverage(below), coverage(below + next));
            }
            below += next;
            term = next;
            depth += 1;
        }
    };
    let share = if wide <= CONFIDENCE || wide == narrow {
        0.0
    } else {
        let i = (wide - CONFIDENCE) / (wide - narrow);
        (n - depth) as f64 * i / (depth as f64 + (n as f64 - 2.0 * depth as f64) * i)
    };
    Some(Interval {
        low: s[depth - 1] + share * (s[depth] - s[depth - 1]),
        high: s[n - depth] - share * (s[n - depth] - s[n - depth - 1]),
    })
}

/// The Wilson 95 % interval of a share; `None` without trials.
pub fn wilson(successes: u64, trials: u64) -> Option<Interval> {
    if trials == 0 || successes > trials {
        return None;
    }
    let n = trials as f64;
    let share = successes as f64 / n;
    let denominator = 1.0 + Z * Z / n;
    let centre = (share + Z * Z / (2.0 * n)) / denominator;
    let half = Z * (share * (1.0 - share) / n + Z * Z / (4.0 * n * n)).sqrt() / denominator;
    // At 0 and 1 the ends are exact; rounding would put them beside.
    let low = if successes == 0 { 0.0 } else { centre - half };
    let high = if successes == trials { 1.0 } else { centre + half };
    Some(Interval { low, high })
}

/// The ratio candidate / baseline of trials that ran in pairs (interleaved): trial `i` of the one
/// beside trial `i` of the other, so that what drifts over minutes cancels.
///
/// The estimate is the Hodges–Lehmann centre of the log ratios. The interval is Wilcoxon's
/// signed-rank interval from 8 pairs on: exact whatever the noise looks like, and one bad trial
/// does not widen it. With 5 to 7 pairs, where that cannot exclude a thing or only by unanimity, it
/// is Student's: without a difference, interleaved log ratios are symmetric about 0, and on
/// symmetric noise with heavy tails Student's interval errs on the wide side (Efron 1969).
/// `None` below [`MIN_TRIALS`] pairs, at unequal numbers, or where a value is not positive.
pub fn paired_ratio(baseline: &[f64], candidate: &[f64]) -> Option<Estimate> {
    if baseline.len() != candidate.len() || baseline.len() < MIN_TRIALS {
        return None;
    }
    let (base, cand) = (logs(baseline)?, logs(candidate)?);
    let differences: Vec<f64> = cand.iter().zip(&base).map(|(c, b)| c - b).collect();
    let n = differences.len();
    let mut walsh = Vec::with_capacity(n * (n + 1) / 2);
    for (i, a) in differences.iter().enumerate() {
        walsh.extend(differences[i..].iter().map(|b| (a + b) / 2.0));
    }
    walsh.sort_by(f64::total_cmp);
    let value = middle(&walsh);
    let interval = if n < SIGNED_RANK_FROM {
        student_interval(&differences)
    } else {
        let cut = signed_rank_cut(n)?;
        Interval { low: walsh[cut], high: walsh[walsh.len() - 1 - cut] }
    };
    Some(Estimate { value: value.exp(), interval: interval.map(f64::exp) })
}

/// The ratio candidate / baseline of two sets of trials that did not run in pairs: Hodges–Lehmann's
/// estimate of the shift of the logs with the interval of the Mann–Whitney test, exact whatever the
/// noise looks like. `None` where the two sets are too small to exclude anything at 95 % (4 against
/// 4 can), or where a value is not positive.
pub fn unpaired_ratio(baseline: &[f64], candidate: &[f64]) -> Option<Estimate> {
    let (base, cand) = (logs(baseline)?, logs(candidate)?);
    let mut shifts: Vec<f64> = cand.iter().flat_map(|c| base.iter().map(move |b| c - b)).collect();
    shifts.sort_by(f64::total_cmp);
    let cut = mann_whitney_cut(base.len(), cand.len())?;
    let interval = Interval { low: shifts[cut], high: shifts[shifts.len() - 1 - cut] };
    Some(Estimate { value: middle(&shifts).exp(), interval: interval.map(f64::exp) })
}

/// The smallest relative difference that a comparison with this interval would have found nine
/// times in ten: its half width on the log scale, stretched from the power of one half that a
/// difference as large as the half width has to nine tenths, (1.96 + 1.28) / 1.96.
pub fn smallest_detectable(ratio: Interval) -> Option<f64> {
    if !(ratio.low > 0.0 && ratio.high.is_finite()) {
        return None;
    }
    const POWER_90: f64 = 1.281_551_565_544_600_4;
    let half = (ratio.high / ratio.low).ln() / 2.0;
    Some((half * (Z + POWER_90) / Z).exp_m1())
}

fn sorted(values: &[f64]) -> Option<Vec<f64>> {
    if values.is_empty() || values.iter().any(|v| !v.is_finite()) {
        return None;
    }
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    Some(sorted)
}

fn middle(sorted: &[f64]) -> f64 {
    let half = sorted.len() / 2;
    if sorted.len().is_multiple_of(2) {
        // Not (a + b) / 2, which overflows near the end of the range.
        sorted[half - 1] + (sorted[half] - sorted[half - 1]) / 2.0
    } else {
        sorted[half]
    }
}

fn logs(values: &[f64]) -> Option<Vec<f64>> {
    let usable = !values.is_empty() && values.iter().all(|v| *v > 0.0 && v.is_finite());
    usable.then(|| values.iter().map(|v| v.ln()).collect())
}

fn student_interval(differences: &[f64]) -> Interval {
    let n = differences.len() as f64;
    let centre = differences.iter().sum::<f64>() / n;
    let variance = differences.iter().map(|d| (d - centre).powi(2)).sum::<f64>() / (n - 1.0);
    // The 97.5 % points of Student's t with 4, 5 and 6 degrees of freedom.
    let t = match differences.len() {
        5 => 2.776_445,
        6 => 2.570_582,
        _ => 2.446_912,
    };
    let half = t * (variance / n).sqrt();
    Interval { low: centre - half, high: centre + half }
}

/// The largest rank sum c with P(W ≤ c) ≤ 2.5 % under the signed-rank test's null hypothesis.
fn signed_rank_cut(n: usize) -> Option<usize> {
    let largest = n * (n + 1) / 2;
    if largest > EXACT_UP_TO {
        let sd = (largest as f64 * (2 * n + 1) as f64 / 12.0).sqrt();
        return Some((largest as f64 / 2.0 - Z * sd - 1.0).floor() as usize);
    }
    let mut probability = vec![0.0; largest + 1];
    probability[0] = 1.0;
    for rank in 1..=n {
        for sum in (0..=largest).rev() {
            let with = if sum >= rank { probability[sum - rank] } else { 0.0 };
            probability[sum] = (probability[sum] + with) / 2.0;
        }
    }
    last_within_tail(&probability)
}

/// The largest U with P(U ≤ c) ≤ 2.5 % under the Mann–Whitney test's null hypothesis.
fn mann_whitney_cut(n: usize, m: usize) -> Option<usize> {
    let largest = n * m;
    if largest > EXACT_UP_TO {
        let sd = (largest as f64 * (n + m + 1) as f64 / 12.0).sqrt();
        return Some((largest as f64 / 2.0 - Z * sd - 1.0).floor() as usize);
    }
    let (n, m) = (n.min(m), n.max(m));
    // counts[j][u]: the ways in which j of the items so far belong to the first set and exceed u of
    // the second.
    let mut counts = vec![vec![0.0_f64; largest + 1]; n + 1];
    counts[0][0] = 1.0;
    for item in 0..n + m {
        for taken in (1..=n.min(item + 1)).rev() {
            // Taking this item counts the items before it that were left to the other set.
            let Some(before) = (item + 1).checked_sub(taken).filter(|b| *b <= m) else { continue };
            let (lower, upper) = counts.split_at_mut(taken);
            for u in (before..=largest).rev() {
                upper[0][u] += lower[taken - 1][u - before];
            }
        }
    }
    let total: f64 = counts[n].iter().sum();
    let probability: Vec<f64> = counts[n].iter().map(|c| c / total).collect();
    last_within_tail(&probability)
}

fn last_within_tail(probability: &[f64]) -> Option<usize> {
    let tail = (1.0 - CONFIDENCE) / 2.0;
    let mut sum = 0.0;
    let beyond = probability.iter().position(|p| {
        sum += p;
        sum > tail + 1e-12
    });
    beyond.unwrap_or(0).checked_sub(1)
}

#[cfg(test)]
mod tests {
    use rand::{RngExt, SeedableRng};
    use rand_xoshiro::Xoshiro256PlusPlus;

    use super::*;

    fn normal(rng: &mut Xoshiro256PlusPlus) -> f64 {
        // Box and Muller (1958).
        let (u, v): (f64, f64) = (rng.random(), rng.random());
        (-2.0 * (1.0 - u).ln()).sqrt() * (2.0 * std::f64::consts::PI * v).cos()
    }

    fn close(a: Option<f64>, b: f64) {
        let a = a.expect("a value");
        assert!((a - b).abs() < 1e-4 * b.abs().max(1e-9), "{a} is not {b}");
    }

    #[test]
    fn the_median_and_the_mad_have_known_answers() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), Some(2.5));
        assert_eq!(mad(&[1.0, 2.0, 3.0]), Some(1.0));
        assert_eq!(mad(&[1.0, 1.0, 2.0, 2.0, 4.0, 6.0, 9.0]), Some(1.0));
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[1.0, f64::NAN]), None);
    }

    #[test]
    fn percentiles_are_empty_where_too_few_values_bear_them() {
        let values: Vec<f64> = (1..=101).map(f64::from).collect();
        assert_eq!(percentile(&values, 99.0), Some(100.0));
        assert_eq!(percentile(&values, 95.0), Some(96.0));
        assert_eq!(percentile(&values, 50.0), Some(51.0));
        assert_eq!(percentile(&values[..99], 99.0), None);
        assert!(percentile(&values[..100], 99.0).is_some());
        assert_eq!(percentile(&values[..19], 95.0), None);
        assert!(percentile(&values[..20], 95.0).is_some());
        assert_eq!(percentile(&values[..1], 50.0), Some(1.0));
        assert_eq!((percentile(&values, 99.9), values_needed(99.9)), (None, 1000));
        assert_eq!(percentile(&values, 100.0), None);
    }

    #[test]
    fn a_summary_of_one_trial_states_no_spread() {
        let one = Summary::of(&[7.0]).expect("a summary");
        assert_eq!((one.median, one.mad, one.interval), (7.0, None, None));
        assert_eq!(Summary::of(&[]), None);
    }

    #[test]
    fn five_trials_bear_their_range_and_four_bear_nothing() {
        let interval = median_interval(&[3.0, 1.0, 2.0, 5.0, 4.0]).expect("an interval");
        assert_eq!(interval, Interval { low: 1.0, high: 5.0 });
        assert_eq!(median_interval(&[1.0, 2.0, 3.0, 4.0]), None);
        close(interval.relative_half_width(3.0), 2.0 / 3.0);
    }

    #[test]
    fn the_interval_of_ten_trials_lies_between_its_order_statistics() {
        // Depth 2 covers 97.85 %, depth 3 89.06 %: I = 0.3244, share 8·I / (2 + 6·I) = 0.6576.
        let values: Vec<f64> = (1..=10).map(f64::from).collect();
        let interval = median_interval(&values).expect("an interval");
        assert!((interval.low - 2.6576).abs() < 5e-4, "{interval:?}");
        assert!((interval.high - 8.3424).abs() < 5e-4, "{interval:?}");
    }

    #[test]
    fn the_interval_of_very_many_trials_exists_and_is_narrow() {
        let values: Vec<f64> = (0..5001).map(f64::from).collect();
        let interval = median_interval(&values).expect("an interval");
        assert!(interval.contains(2500.0));
        // 1.96·√n ranks.
        assert!((interval.high - interval.low - 138.6).abs() < 3.0, "{interval:?}");
    }

    #[test]
    fn the_median_s_interval_keeps_its_coverage_where_the_bootstrap_does_not() {
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(1);
        let mut worst_bootstrap: f64 = 1.0;
        for trials in 5..=10 {
            for skewed in [false, true] {
                let (mut held, mut bootstrap_held) = (0, 0);
                for _ in 0..2000 {
                    let values: Vec<f64> = (0..trials)
                        .map(|_| normal(&mut rng))
                        .map(|v| if skewed { v.exp() } else { v })
                        .collect();
                    let truth = if skewed { 1.0 } else { 0.0 };
                    let interval = median_interval(&values).expect("an interval");
                    held += usize::from(interval.contains(truth));
                    if trials == 7 {
                        let mut medians: Vec<f64> = (0..200)
                            .map(|_| {
                                let draw: Vec<f64> = (0..trials)
                                    .map(|_| values[rng.random_range(0..trials)])
                                    .collect();
                                median(&draw).expect("a median")
                            })
                            .collect();
                        medians.sort_by(f64::total_cmp);
                        let bootstrap = Interval { low: medians[4], high: medians[195] };
                        bootstrap_held += usize::from(bootstrap.contains(truth));
                    }
                }
                let coverage = held as f64 / 2000.0;
                let least = if trials == 5 { 0.92 } else { 0.93 };
                assert!(coverage >= least, "{coverage} at {trials} trials, skewed: {skewed}");
                if trials == 7 {
                    worst_bootstrap = worst_bootstrap.min(bootstrap_held as f64 / 2000.0);
                }
            }
        }
        assert!(worst_bootstrap < 0.91, "the bootstrap covers {worst_bootstrap}: use it again?");
    }

    #[test]
    fn wilson_has_its_published_answers() {
        // Newcombe (1998), table I: 81/263, 15/148, 0/20, 1/29.
        for (successes, trials, low, high) in [
            (81, 263, 0.2553, 0.3662),
            (15, 148, 0.0624, 0.1605),
            (0, 20, 0.0, 0.1611),
            (1, 29, 0.0061, 0.1718),
        ] {
            let interval = wilson(successes, trials).expect("an interval");
            assert!((interval.low - low).abs() < 5e-5, "{interval:?}");
            assert!((interval.high - high).abs() < 5e-5, "{interval:?}");
        }
        assert_eq!(wilson(0, 0), None);
        assert_eq!(wilson(20, 20).map(|i| i.high), Some(1.0));
    }

    #[test]
    fn the_rank_tests_have_their_tabulated_critical_values() {
        // Two-sided 5 %, Wilcoxon (1945) and Mann and Whitney (1947) as tabulated since.
        for (pairs, cut) in [(6, 0), (7, 2), (8, 3), (9, 5), (10, 8), (20, 52), (30, 137)] {
            assert_eq!(signed_rank_cut(pairs), Some(cut), "{pairs} pairs");
        }
        assert_eq!(signed_rank_cut(5), None);
        for (n, m, cut) in
            [(4, 4, 0), (5, 5, 2), (5, 7, 5), (7, 5, 5), (8, 8, 13), (10, 10, 23), (20, 20, 127)]
        {
            assert_eq!(mann_whitney_cut(n, m), Some(cut), "{n} against {m}");
        }
        assert_eq!(mann_whitney_cut(3, 3), None);
    }

    #[test]
    fn the_normal_approximation_joins_the_exact_distribution() {
        let exact = |n: usize| signed_rank_cut(n).expect("a cut") as f64;
        // 70 pairs are exact, 71 approximate: the step between them is like those beside it.
        let step = exact(71) - exact(70);
        let before = exact(70) - exact(69);
        assert!((step - before).abs() <= 2.0, "{step} after {before}");
        let joint = mann_whitney_cut(50, 51).expect("a cut") as f64
            - mann_whitney_cut(50, 50).expect("a cut") as f64;
        assert!((15.0..=25.0).contains(&joint), "{joint}");
    }

    #[test]
    fn a_paired_ratio_cancels_a_drift_that_an_unpaired_one_takes_for_noise() {
        let baseline: Vec<f64> = (0..10).map(|i| 100.0 * 1.05_f64.powi(i)).collect();
        let noise = [0.001, -0.002, 0.003, -0.001, 0.002, 0.001, -0.003, 0.002, -0.001, 0.001];
        let candidate: Vec<f64> =
            baseline.iter().zip(noise).map(|(b, e)| b * 1.02 * (1.0 + e)).collect();
        let paired = paired_ratio(&baseline, &candidate).expect("an estimate");
        let unpaired = unpaired_ratio(&baseline, &candidate).expect("an estimate");
        assert!((paired.value - 1.02).abs() < 0.002, "{paired:?}");
        assert!(!paired.interval.contains(1.0) && unpaired.interval.contains(1.0));
    }

    #[test]
    fn a_ratio_of_nothing_or_of_zero_is_absent() {
        assert_eq!(paired_ratio(&[1.0; 4], &[1.0; 4]), None);
        assert_eq!(paired_ratio(&[1.0; 6], &[1.0; 5]), None);
        assert_eq!(unpaired_ratio(&[], &[1.0; 5]), None);
        assert_eq!(unpaired_ratio(&[0.0, 1.0, 1.0, 1.0, 1.0], &[1.0; 5]), None);
    }

    #[test]
    fn the_ratio_s_point_estimate_lies_in_its_interval_even_beside_an_outlier() {
        let mut candidate = vec![1.0, 1.001, 0.999, 1.002, 1.0, 0.998];
        candidate[5] = 9.0;
        let ratio = paired_ratio(&[1.0; 6], &candidate).expect("an estimate");
        assert!(ratio.interval.contains(ratio.value), "{ratio:?}");
    }
}
