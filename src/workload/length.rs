//! How long prompts and answers are: distributions of numbers of tokens.

use std::fmt;

use anyhow::bail;
use rand::RngExt;
use rand_distr::{Distribution, LogNormal, Normal};
use rand_xoshiro::Xoshiro256PlusPlus;
use serde::Serialize;

use crate::units::Tokens;

/// The 95th percentile of the standard normal distribution.
const Z95: f64 = 1.644_853_626_951_472_2;

/// How long prompts or answers are.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Length {
    /// Always the same.
    Fixed(Tokens),
    /// Normally distributed, cut at one token.
    Normal {
        /// Its mean.
        mean: f64,
        /// Its standard deviation.
        deviation: f64,
    },
    /// Log-normally distributed: most are short, a few are very long.
    LogNormal {
        /// Half are shorter.
        median: f64,
        /// One in twenty is longer.
        p95: f64,
    },
    /// Lengths with their weights.
    Histogram(Vec<(Tokens, f64)>),
}

impl Length {
    /// Whether lengths can be drawn from it.
    pub fn check(&self) -> anyhow::Result<()> {
        match self {
            Self::Fixed(tokens) if tokens.0 == 0 => bail!("a length of 0 tokens"),
            Self::Normal { mean, deviation } if !(*mean >= 1.0 && *deviation >= 0.0) => {
                bail!("a normal length needs a mean of at least 1 and a deviation of at least 0")
            }
            Self::LogNormal { median, p95 } if !(*median >= 1.0 && p95 >= median) => {
                bail!("a log-normal length needs a median of at least 1 and a p95 not below it")
            }
            Self::Histogram(bars) => {
                let sum: f64 = bars.iter().map(|(_, weight)| weight).sum();
                let bad = |(tokens, weight): &(Tokens, f64)| tokens.0 == 0 || *weight < 0.0;
                if bars.iter().any(bad) || !(sum > 0.0 && sum.is_finite()) {
                    bail!("a histogram needs lengths above 0 and weights of which one is above 0")
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// The length that one request in twenty exceeds, or the longest.
    pub fn long(&self) -> f64 {
        match self {
            Self::Fixed(tokens) => f64::from(tokens.0),
            Self::Normal { mean, deviation } => mean + Z95 * deviation,
            Self::LogNormal { p95, .. } => *p95,
            Self::Histogram(bars) => {
                bars.iter().map(|(tokens, _)| f64::from(tokens.0)).fold(0.0, f64::max)
            }
        }
    }

    /// Ready to draw from again and again.
    pub(super) fn sampler(&self) -> Sampler {
        match self {
            Self::Fixed(tokens) => Sampler::Fixed(*tokens),
            // The checks above leave nothing that these constructors refuse.
            Self::Normal { mean, deviation } => {
                Normal::new(*mean, *deviation).map_or(Sampler::Fixed(whole(*mean)), Sampler::Normal)
            }
            Self::LogNormal { median, p95 } => {
                let sigma = (p95 / median).ln() / Z95;
                LogNormal::new(median.ln(), sigma)
                    .map_or(Sampler::Fixed(whole(*median)), Sampler::LogNormal)
            }
            Self::Histogram(bars) => {
                let mut sum = 0.0;
                let bars = bars.iter().map(|(tokens, weight)| {
                    sum += weight;
                    (*tokens, sum)
                });
                Sampler::Histogram(bars.collect())
            }
        }
    }

    /// The same, `factor` times as long.
    pub fn scaled(&self, factor: f64) -> Self {
        let longer = |tokens: &Tokens| {
            Tokens((f64::from(tokens.0) * factor).round().clamp(1.0, f64::from(u32::MAX)) as u32)
        };
        match self {
            Self::Fixed(tokens) => Self::Fixed(longer(tokens)),
            Self::Normal { mean, deviation } => {
                Self::Normal { mean: mean * factor, deviation: deviation * factor }
            }
            Self::LogNormal { median, p95 } => {
                Self::LogNormal { median: median * factor, p95: p95 * factor }
            }
            Self::Histogram(bars) => {
                Self::Histogram(bars.iter().map(|(tokens, w)| (longer(tokens), *w)).collect())
            }
        }
    }

    /// The expected length.
    pub fn mean(&self) -> f64 {
        match self {
            Self::Fixed(tokens) => f64::from(tokens.0),
            Self::Normal { mean, .. } => *mean,
            Self::LogNormal { median, p95 } => {
                let sigma = (p95 / median).ln() / Z95;
                median * (sigma * sigma / 2.0).exp()
            }
            Self::Histogram(bars) => {
                let sum: f64 = bars.iter().map(|(_, weight)| weight).sum();
                bars.iter().map(|(tokens, weight)| f64::from(tokens.0) * weight).sum::<f64>() / sum
            }
        }
    }
}

/// A distribution of lengths with all worked out that does not change from draw to draw.
#[derive(Clone, Debug)]
pub(super) enum Sampler {
    Fixed(Tokens),
    Normal(Normal<f64>),
    LogNormal(LogNormal<f64>),
    /// Lengths with the sums of the weights up to each.
    Histogram(Vec<(Tokens, f64)>),
}

impl Sampler {
    /// A length.
    pub(super) fn draw(&self, random: &mut Xoshiro256PlusPlus) -> Tokens {
        match self {
            Self::Fixed(tokens) => *tokens,
            Self::Normal(normal) => whole(normal.sample(random)),
            Self::LogNormal(normal) => whole(normal.sample(random)),
            Self::Histogram(bars) => {
                let sum = bars.last().map_or(0.0, |bar| bar.1);
                let at = random.random::<f64>() * sum;
                let place = bars.partition_point(|bar| bar.1 <= at).min(bars.len() - 1);
                bars[place].0
            }
        }
    }
}

/// At least one token.
fn whole(value: f64) -> Tokens {
    Tokens(value.round().clamp(1.0, f64::from(u32::MAX)) as u32)
}

/// In words, in tokens: `80 (p95 800)`.
impl fmt::Display for Length {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed(tokens) => write!(f, "{}", tokens.0),
            Self::Normal { mean, deviation } => write!(f, "{mean} ± {deviation}"),
            Self::LogNormal { median, p95 } => write!(f, "{median} (p95 {p95})"),
            Self::Histogram(bars) => {
                write!(f, "of {} lengths, mean {:.0}", bars.len(), self.mean())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    #[test]
    fn lengths_have_the_quantiles_that_they_were_given() {
        let mut random = Xoshiro256PlusPlus::seed_from_u64(1);
        let length = Length::LogNormal { median: 800.0, p95: 4000.0 };
        let mut drawn: Vec<u32> = {
            let sampler = length.sampler();
            (0..40_000).map(|_| sampler.draw(&mut random).0).collect()
        };
        drawn.sort_unstable();
        assert!((f64::from(drawn[20_000]) / 800.0 - 1.0).abs() < 0.03, "{}", drawn[20_000]);
        assert!((f64::from(drawn[38_000]) / 4000.0 - 1.0).abs() < 0.05, "{}", drawn[38_000]);
        let mean = drawn.iter().map(|&n| f64::from(n)).sum::<f64>() / 40_000.0;
        assert!((mean / length.mean() - 1.0).abs() < 0.03, "{mean} {}", length.mean());
        let bars = Length::Histogram(vec![(Tokens(10), 3.0), (Tokens(90), 1.0)]);
        let sampler = bars.sampler();
        let long = (0..40_000).filter(|_| sampler.draw(&mut random).0 == 90).count();
        assert!((long as f64 / 10_000.0 - 1.0).abs() < 0.05, "{long}");
        assert_eq!(bars.mean(), 30.0);
    }
}
