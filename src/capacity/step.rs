//! How long one step of a serving engine takes: from the sequences that generate, the prompt tokens
//! beside them, and the cache that both read.

use anyhow::{bail, ensure};
use serde::Serialize;

use super::pieces::Piece;

/// A time that rises with a number: straight lines between points, beyond the last one as between
/// the last two.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Curve(Vec<(f64, f64)>);

impl Curve {
    /// Through `points` of (number, seconds).
    pub fn new(mut points: Vec<(f64, f64)>) -> anyhow::Result<Self> {
        ensure!(!points.is_empty(), "a curve needs a point");
        for (number, seconds) in &points {
            if !(number.is_finite() && *number >= 0.0 && seconds.is_finite() && *seconds >= 0.0) {
                bail!("a curve cannot pass through {seconds} s at {number}");
            }
        }
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
        for pair in points.windows(2) {
            ensure!(pair[0].0 < pair[1].0, "a curve has two times at {}", pair[0].0);
        }
        Ok(Self(points))
    }

    /// The same time at every number.
    pub fn flat(seconds: f64) -> Self {
        Self(vec![(0.0, seconds.max(0.0))])
    }

    /// Its points.
    pub fn points(&self) -> &[(f64, f64)] {
        &self.0
    }

    /// The seconds at `number`, never below 0; below the first point as there.
    pub fn at(&self, number: f64) -> f64 {
        let points = &self.0;
        if points.len() == 1 || number <= points[0].0 {
            return points[0].1;
        }
        let next = points.partition_point(|point| point.0 < number).min(points.len() - 1);
        let ((x0, y0), (x1, y1)) = (points[next - 1], points[next]);
        (y0 + (y1 - y0) * (number - x0) / (x1 - x0)).max(0.0)
    }
}

/// The prompt tokens of a step.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct PromptPart {
    /// Tokens that are computed, of all prompts together.
    pub tokens: f64,
    /// Pairs of such a token and a token before it in its prompt: the work of their attention.
    pub pairs: f64,
}

/// The seconds of a step, measured or predicted.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StepTime {
    /// Of a step in which so many sequences generate a token each, without reading their caches.
    #[serde(rename = "decode_s")]
    pub decode: Curve,
    /// More for each token in these sequences' caches.
    #[serde(rename = "cached_token_s")]
    pub cached_token: f64,
    /// Of a step that computes so many tokens of prompts and nothing else.
    #[serde(rename = "prompt_s")]
    pub prompt: Curve,
    /// More for each pair of a prompt token and a token before it.
    #[serde(rename = "pair_s")]
    pub pair: f64,
    /// More in a step with both.
    #[serde(rename = "both_s")]
    pub both: f64,
    /// In a step with both, more for each sequence that generates beside them: its token is
    /// computed as one of theirs, and then it is sampled and sent.
    #[serde(rename = "beside_s")]
    pub beside: f64,
    /// More in the first step after the engine was idle for longer than [`COLD`](super::COLD).
    #[serde(rename = "cold_s")]
    pub cold: f64,
    /// Between a request and the engine, outside of any step: network, HTTP, tokenizer.
    #[serde(rename = "entry_s")]
    pub entry: f64,
}

impl StepTime {
    /// The same time for every step, whatever is in it: the server of queueing theory.
    pub fn constant(seconds: f64) -> Self {
        Self {
            decode: Curve::flat(seconds),
            cached_token: 0.0,
            prompt: Curve::flat(seconds),
            pair: 0.0,
            both: 0.0,
            beside: 0.0,
            cold: 0.0,
            entry: 0.0,
        }
    }

    /// The same with every time `factor` times as long.
    #[must_use]
    pub fn scaled(&self, factor: f64) -> Self {
        let curve = |curve: &Curve| Curve(curve.0.iter().map(|&(n, s)| (n, s * factor)).collect());
        Self {
            decode: curve(&self.decode),
            cached_token: self.cached_token * factor,
            prompt: curve(&self.prompt),
            pair: self.pair * factor,
            both: self.both * factor,
            beside: self.beside * factor,
            cold: self.cold * factor,
            entry: self.entry * factor,
        }
    }

    /// The seconds of a step in which `sequences` with `cached` tokens in all generate, beside
    /// `prompt`.
    pub fn seconds(&self, sequences: u32, cached: f64, prompt: PromptPart) -> f64 {
        let decode = if sequences == 0 {
            0.0
        } else {
            self.decode.at(f64::from(sequences)) + self.cached_token * cached
        };
        if prompt.tokens <= 0.0 {
            return decode;
        }
        let pairs = self.pair * prompt.pairs;
        if sequences == 0 {
            return self.prompt.at(prompt.tokens) + pairs;
        }
        // The weights are read once, for the tokens of both.
        let beside = f64::from(sequences);
        let together = self.prompt.at(prompt.tokens + beside) + pairs;
        let more = self.both + self.beside * beside + self.cached_token * cached;
        // Never faster than generation alone.
        (together + more).max(decode)
    }

    /// The seconds of a step that is computed in `pieces`, in which `sequences` with `cached` tokens
    /// in all generate beside `prompt`. A piece with a token of each sequence takes what it takes to
    /// generate them, one with more what as many prompt tokens take.
    pub fn seconds_in(
        &self,
        pieces: &[Piece],
        sequences: u32,
        cached: f64,
        prompt: PromptPart,
    ) -> f64 {
        let each = pieces.iter().map(|piece| match piece.tokens {
            1 => self.decode.at(f64::from(piece.sequences)),
            tokens => self.prompt.at(f64::from(piece.sequences) * f64::from(tokens)),
        });
        let both = if sequences > 0 && prompt.tokens > 0.0 { self.both } else { 0.0 };
        each.sum::<f64>() + both + self.cached_token * cached + self.pair * prompt.pairs
    }
}

/// Steps of pure generation by the same sequences, whose caches grow by a token each: the sum of
/// their seconds in closed form.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Run {
    /// Of the first step.
    first: f64,
    /// By which each step is longer than the one before.
    growth: f64,
}

impl Run {
    /// Of `sequences`, whose step takes `base` without caches and that hold `cached` tokens.
    pub fn new(base: f64, sequences: u32, cached: f64, cached_token: f64) -> Self {
        Self { first: base + cached_token * cached, growth: cached_token * f64::from(sequences) }
    }

    /// The seconds of the first `steps` steps.
    pub fn seconds(&self, steps: u64) -> f64 {
        let n = steps as f64;
        n * self.first + self.growth * n * (n - 1.0) / 2.0
    }

    /// The steps that have ended, or of which the last is under way, after `seconds`: at least one.
    pub fn steps_by(&self, seconds: f64) -> u64 {
        let estimate = if self.growth <= 0.0 {
            if self.first <= 0.0 { 1.0 } else { seconds / self.first }
        } else {
            // n·first + growth·n(n−1)/2 = seconds
            let half = self.growth / 2.0;
            let linear = self.first - half;
            (-linear + (linear * linear + 4.0 * half * seconds).sqrt()) / (2.0 * half)
        };
        let mut steps = (estimate.ceil() as u64).max(1);
        // Rounding must not put the end of a step before the moment that it covers.
        while steps > 1 && self.seconds(steps - 1) >= seconds {
            steps -= 1;
        }
        while self.seconds(steps) < seconds && self.first + self.growth > 0.0 {
            steps += 1;
        }
        steps
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_curve_is_straight_between_its_points_and_after_them() {
        let curve = Curve::new(vec![(4.0, 0.7), (1.0, 0.1), (2.0, 0.3)]).unwrap();
        for (number, seconds) in [(0.0, 0.1), (1.0, 0.1), (1.5, 0.2), (3.0, 0.5), (6.0, 1.1)] {
            assert!((curve.at(number) - seconds).abs() < 1e-12, "{number}: {}", curve.at(number));
        }
        assert!(Curve::new(vec![(1.0, 1.0), (1.0, 2.0)]).is_err());
        assert!(Curve::new(vec![(1.0, f64::NAN)]).is_err());
        assert!(Curve::new(Vec::new()).is_err());
    }

    #[test]
    fn a_run_of_steps_is_the_sum_of_its_steps() {
        let step = StepTime {
            decode: Curve::new(vec![(1.0, 0.010), (8.0, 0.024)]).unwrap(),
            cached_token: 1e-6,
            ..StepTime::constant(0.0)
        };
        let mut cached = 3000.0;
        let run = Run::new(step.decode.at(4.0), 4, cached, step.cached_token);
        let mut sum = 0.0;
        for steps in 1..=500 {
            sum += step.seconds(4, cached, PromptPart::default());
            cached += 4.0;
            assert!((run.seconds(steps) - sum).abs() < 1e-9 * sum, "{steps}");
            assert_eq!(run.steps_by(sum - 1e-6), steps);
            assert_eq!(run.steps_by(sum + 1e-6), steps + 1);
        }
    }

    #[test]
    fn a_step_of_both_kinds_reads_the_weights_once() {
        let step = StepTime {
            decode: Curve::flat(0.01),
            cached_token: 0.0,
            prompt: Curve::new(vec![(0.0, 0.01), (100.0, 0.03)]).unwrap(),
            pair: 0.0,
            both: 0.002,
            beside: 0.001,
            cold: 0.0,
            entry: 0.0,
        };
        let part = PromptPart { tokens: 100.0, pairs: 0.0 };
        assert_eq!(step.seconds(0, 0.0, part), 0.03);
        assert_eq!(step.seconds(4, 0.0, PromptPart::default()), 0.01);
        // 104 tokens, the two kinds, and 4 tokens that are sent.
        assert!((step.seconds(4, 0.0, part) - (0.0308 + 0.002 + 0.004)).abs() < 1e-12);
        let few = PromptPart { tokens: 1.0, pairs: 0.0 };
        assert!(step.seconds(1, 0.0, few) >= 0.01, "not faster than generation alone");
    }
}
