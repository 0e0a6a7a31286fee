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

    /// A length.
    pub(super) fn draw(&self, random: &mut Xoshiro256PlusPlus) -> Tokens {
        let whole = |value: f64| Tokens(value.round().clamp(1.0, f64::from(u32::MAX)) as u32);
        match self {
            Self::Fixed(tokens) => *tokens,
            // The checks above leave nothing that these constructors refuse.
            Self::Normal { mean, deviation } => Normal::new(*mean, *deviation)
                .map_or(whole(*mean), |normal| whole(normal.sample(random))),
            Self::LogNormal { median, p95 } => {
                let sigma = (p95 / median).ln() / Z95;
                LogNormal::new(median.ln(), sigma)
                    .map_or(whole(*median), |normal| whole(normal.sample(random)))
            }
            Self::Histogram(bars) => {
                let sum: f64 = bars.iter().map(|(_, weight)| weight).sum();
                let mut left = random.random::<f64>() * sum;
                for (tokens, weight) in bars {
                    left -= weight;
                    if left < 0.0 {
                        return *tokens;
                    }
                }
                bars.last().map_or(Tokens(1), |(tokens, _)| *tokens)
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
        let mut drawn: Vec<u32> = (0..40_000).map(|_| length.draw(&mut random).0).collect();
        drawn.sort_unstable();
        assert!((f64::from(drawn[20_000]) / 800.0 - 1.0).abs() < 0.03, "{}", drawn[20_000]);
        assert!((f64::from(drawn[38_000]) / 4000.0 - 1.0).abs() < 0.05, "{}", drawn[38_000]);
        let mean = drawn.iter().map(|&n| f64::from(n)).sum::<f64>() / 40_000.0;
        assert!((mean / length.mean() - 1.0).abs() < 0.03, "{mean} {}", length.mean());
        let bars = Length::Histogram(vec![(Tokens(10), 3.0), (Tokens(90), 1.0)]);
        let long = (0..40_000).filter(|_| bars.draw(&mut random).0 == 90).count();
        assert!((long as f64 / 10_000.0 - 1.0).abs() < 0.05, "{long}");
        assert_eq!(bars.mean(), 30.0);
    }
}
