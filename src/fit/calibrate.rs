//! The constants of the speed model from published measurements, and how wrong it is about devices
//! that it has not seen.

use std::collections::BTreeMap;

use super::basis::Basis;
use super::evidence::{Evidence, Quantity};
use super::local::Own;
use super::loops::{self, Seen};
use super::posynomial::{self, Observation, Term};
use super::serving::Pace;
use super::speed;
use crate::catalog::hardware::Family;

/// No device counts more than this many measurements, however many were published for it.
const DEVICE_WEIGHT: f64 = 12.0;
/// The share of measurements that an interval should hold.
pub const COVERAGE: f64 = 0.8;

/// The factors that explain all of `evidence` best.
pub fn fit(evidence: &[&Evidence], start: Option<&[f64]>) -> Vec<f64> {
    let mut counts: BTreeMap<(Quantity, &str), f64> = BTreeMap::new();
    for e in evidence {
        *counts.entry((e.quantity, &e.device)).or_default() += 1.0;
    }
    let observations: Vec<Observation> = evidence
        .iter()
        .map(|e| {
            let count = counts[&(e.quantity, e.device.as_str())];
            e.observation((DEVICE_WEIGHT / count).min(1.0))
        })
        .collect();
    let priors: Vec<_> = speed::factors().iter().map(|f| f.prior).collect();
    let means: Vec<f64> = priors.iter().map(|p| p.mean).collect();
    posynomial::fit(&observations, &priors, start.unwrap_or(&means))
}

/// A prediction for a device that the factors were fitted without.
#[derive(Clone, Debug, PartialEq)]
pub struct HeldOut {
    /// Which of the evidence.
    pub index: usize,
    /// Predicted tokens a second.
    pub predicted: f64,
    /// The interval's ends.
    pub low: f64,
    /// The interval's ends.
    pub high: f64,
}

/// Predicts every device's measurements from those of all other devices.
pub fn leave_one_device_out(evidence: &[Evidence]) -> Vec<HeldOut> {
    let all: Vec<&Evidence> = evidence.iter().collect();
    let start = fit(&all, None);
    let mut devices: Vec<&str> = evidence.iter().map(|e| e.device.as_str()).collect();
    devices.sort_unstable();
    devices.dedup();
    let mut predicted = vec![0.0; evidence.len()];
    for device in &devices {
        let seen: Vec<&Evidence> = all.iter().copied().filter(|e| e.device != *device).collect();
        let theta = fit(&seen, Some(&start));
        for (i, e) in evidence.iter().enumerate().filter(|(_, e)| e.device == *device) {
            predicted[i] = bounded(e.speed(&theta), e.ceiling);
        }
    }
    evidence
        .iter()
        .enumerate()
        .map(|(index, e)| {
            // The interval comes from the other devices' errors, as it would for a new device.
            let spread = Spread::of(evidence, &predicted, Class::of(e), Some(&e.device));
            let (low, high) = spread.around(predicted[index], e.ceiling);
            HeldOut { index, predicted: predicted[index], low, high }
        })
        .collect()
}

/// No prediction exceeds what the bandwidth allows.
fn bounded(speed: f64, ceiling: Option<f64>) -> f64 {
    ceiling.map_or(speed, |c| speed.min(c))
}

/// Predictions whose errors are alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// Generation by a model without experts.
    DecodeDense,
    /// Generation by a mixture of experts.
    DecodeExperts,
    /// Generation for several streams at once.
    DecodeStreams,
    /// Prompts.
    Prefill,
}

impl Class {
    /// Every class.
    pub const ALL: [Self; 4] =
        [Self::DecodeDense, Self::DecodeExperts, Self::DecodeStreams, Self::Prefill];

    /// That of a measurement.
    pub fn of(e: &Evidence) -> Self {
        match e.quantity {
            Quantity::Prefill => Self::Prefill,
            Quantity::Decode if e.streams > 1.0 => Self::DecodeStreams,
            Quantity::Decode if e.has_experts => Self::DecodeExperts,
            Quantity::Decode => Self::DecodeDense,
        }
    }

    /// The share of errors beyond each end of an interval. Errors of one device go together, so a
    /// new device leaves the quantiles of the others more often than they say; the prompts' tail
    /// is shorter to make up for it, decode's is not needed to be.
    fn tail(self) -> f64 {
        let part = (1.0 - COVERAGE) / 2.0;
        if self == Self::Prefill { 0.75 * part } else { part }
    }

    /// Its word in files.
    pub fn key(self) -> &'static str {
        match self {
            Self::DecodeDense => "decode-dense",
            Self::DecodeExperts => "decode-experts",
            Self::DecodeStreams => "decode-streams",
            Self::Prefill => "prefill",
        }
    }

    /// Its word in tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::DecodeDense => "decode, dense",
            Self::DecodeExperts => "decode, experts",
            Self::DecodeStreams => "decode, several streams",
            Self::Prefill => "prefill",
        }
    }
}

/// How far measurements lie from predictions: ends of ln(measured / predicted).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// The lower end.
    pub low: f64,
    /// The upper end.
    pub high: f64,
}

impl Spread {
    /// The weighted quantiles of the class's errors, without those of `except`; where that leaves
    /// nothing, those of single streams through mixtures of experts, the widest of the others.
    fn of(evidence: &[Evidence], predicted: &[f64], class: Class, except: Option<&str>) -> Self {
        let others = |e: &Evidence| Some(e.device.as_str()) != except;
        let class = if evidence.iter().any(|e| Class::of(e) == class && others(e)) {
            class
        } else {
            Class::DecodeExperts
        };
        let chosen: Vec<usize> = (0..evidence.len())
            .filter(|&i| Class::of(&evidence[i]) == class)
            .filter(|&i| Some(evidence[i].device.as_str()) != except)
            .collect();
        let mut counts: BTreeMap<&str, f64> = BTreeMap::new();
        for &i in &chosen {
            *counts.entry(&evidence[i].device).or_default() += 1.0;
        }
        let mut errors: Vec<(f64, f64)> = chosen
            .iter()
            .map(|&i| {
                let e = &evidence[i];
                let weight = (DEVICE_WEIGHT / counts[e.device.as_str()]).min(1.0);
                ((e.measured / predicted[i]).ln(), weight)
            })
            .collect();
        errors.sort_by(|a, b| a.0.total_cmp(&b.0));
        let tail = class.tail();
        Self { low: quantile(&errors, tail), high: quantile(&errors, 1.0 - tail) }
    }

    /// The interval around a prediction, within what the bandwidth allows.
    pub fn around(self, predicted: f64, ceiling: Option<f64>) -> (f64, f64) {
        // An interval holds its own prediction, also where all others were too high.
        let low = predicted * self.low.min(-0.03).exp();
        let high = predicted * self.high.max(0.03).exp();
        (low, bounded(high, ceiling))
    }
}

/// The value below which a share `part` of the weight lies; `values` are sorted.
pub(super) fn quantile(values: &[(f64, f64)], part: f64) -> f64 {
    let total: f64 = values.iter().map(|v| v.1).sum();
    let mut below = 0.0;
    for &(value, weight) in values {
        below += weight;
        if below >= part * total {
            return value;
        }
    }
    values.last().map_or(0.0, |v| v.0)
}

/// How wrong predictions were.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Accuracy {
    /// Measurements.
    pub rows: usize,
    /// Devices.
    pub devices: usize,
    /// Median of |predicted / measured − 1|.
    pub median_error: f64,
    /// The share within ±20 %.
    pub within_20: f64,
    /// Median of predicted / measured − 1.
    pub bias: f64,
    /// The share of measurements inside their interval.
    pub coverage: f64,
}

impl Accuracy {
    /// Over those measurements that `chosen` accepts; `None` where there are none.
    pub fn over(
        evidence: &[Evidence],
        held_out: &[HeldOut],
        chosen: impl Fn(&Evidence) -> bool,
    ) -> Option<Self> {
        let picked: Vec<(&Evidence, &HeldOut)> =
            held_out.iter().map(|h| (&evidence[h.index], h)).filter(|(e, _)| chosen(e)).collect();
        let mut errors: Vec<f64> =
            picked.iter().map(|(e, h)| h.predicted / e.measured - 1.0).collect();
        let mut devices: Vec<&str> = picked.iter().map(|(e, _)| e.device.as_str()).collect();
        devices.sort_unstable();
        devices.dedup();
        let share = |n: usize| n as f64 / picked.len() as f64;
        let bias = middle(&mut errors)?;
        let mut sizes: Vec<f64> = errors.iter().map(|e| e.abs()).collect();
        Some(Self {
            rows: picked.len(),
            devices: devices.len(),
            median_error: middle(&mut sizes)?,
            within_20: share(sizes.iter().filter(|e| **e <= 0.2).count()),
            bias,
            coverage: share(
                picked.iter().filter(|(e, h)| (h.low..=h.high).contains(&e.measured)).count(),
            ),
        })
    }
}

fn middle(values: &mut [f64]) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    crate::stats::median(values)
}

/// The fitted factors and the spreads of their errors.
#[derive(Clone, Debug, PartialEq)]
pub struct Constants {
    /// One for each of `speed::factors()`.
    pub theta: Vec<f64>,
    /// One for each class.
    pub spreads: BTreeMap<Class, Spread>,
    /// Those of vLLM's steps.
    pub pace: Pace,
    /// Their spread over loads of a shape that was held out.
    pub pace_spread: Spread,
    /// What a machine's own measurements have added; `None`: the published ones alone.
    pub own: Option<Own>,
}

impl Constants {
    /// From all of `evidence` and what loads of vLLM have shown, with the spreads of the held-out
    /// predictions.
    pub fn of(evidence: &[Evidence], held_out: &[HeldOut], seen: &[Seen]) -> Self {
        let all: Vec<&Evidence> = evidence.iter().collect();
        let predicted: Vec<f64> = held_out.iter().map(|h| h.predicted).collect();
        let spread = |class| Spread::of(evidence, &predicted, class, None);
        Self {
            theta: fit(&all, None),
            spreads: Class::ALL.into_iter().map(|c| (c, spread(c))).collect(),
            pace: loops::fit(&seen.iter().collect::<Vec<_>>()),
            pace_spread: loops::spread(loops::errors(seen, &loops::held_out(seen, loops::SHAPE))),
            own: None,
        }
    }

    /// On what a prediction of this class rests.
    pub fn basis(&self, class: Class) -> Basis {
        match &self.own {
            Some(own) if own.has(class) => Basis::Calibrated,
            _ => Basis::Predicted,
        }
    }

    /// How far measurements may lie from the prediction that `terms` make.
    pub fn spread(&self, class: Class, terms: &[Term]) -> Spread {
        let own = self.own.as_ref().and_then(|own| own.spread(class, terms, &self.theta));
        own.unwrap_or_else(|| self.spreads[&class])
    }

    /// Whether measurements of this family were fitted.
    pub fn has_seen(&self, family: Family) -> bool {
        let name = format!("step.weights.family.{}", family.name());
        speed::factors()
            .iter()
            .zip(&self.theta)
            .any(|(f, theta)| f.name == name && *theta != f.prior.mean)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::{published, serving};
    use crate::fit::serving::Factor;
    use crate::fit::{constants, evidence};

    /// The gate: a change that makes predictions for unseen devices worse than required fails here,
    /// and so does one that forgets to make the constants anew.
    #[test]
    fn predictions_for_unseen_devices_are_as_good_as_required() {
        let rows = published::all().unwrap();
        let shapes = published::models().unwrap();
        let (found, _) = evidence::gather(&rows, &shapes).unwrap();
        let held_out = leave_one_device_out(&found);
        let of = |quantity| {
            let single = move |e: &Evidence| e.quantity == quantity && e.streams == 1.0;
            Accuracy::over(&found, &held_out, single).unwrap()
        };
        let decode = of(Quantity::Decode);
        assert!(decode.rows >= 300 && decode.devices >= 30, "{decode:?}");
        assert!(decode.median_error <= 0.09, "{decode:?}");
        assert!(decode.within_20 >= 0.88, "{decode:?}");
        assert!((0.75..=0.85).contains(&decode.coverage), "{decode:?}");
        let prefill = of(Quantity::Prefill);
        assert!(prefill.rows >= 180 && prefill.devices >= 30, "{prefill:?}");
        assert!(prefill.median_error <= 0.15, "{prefill:?}");
        assert!((0.75..=0.85).contains(&prefill.coverage), "{prefill:?}");

        let seen = loops::gather(&serving::all().unwrap()).unwrap();
        let fresh = Constants::of(&found, &held_out, &seen);
        let embedded = constants::embedded();
        for (factor, (a, b)) in Factor::ALL.iter().zip(fresh.pace.0.iter().zip(embedded.pace.0)) {
            assert!((a - b).abs() < 0.01, "{}: {a}, embedded {b}", factor.name());
        }
        for ((factor, a), b) in speed::factors().iter().zip(&fresh.theta).zip(&embedded.theta) {
            assert!((a - b).abs() < 0.01, "{}: {a}, embedded {b}: `bench calibrate`", factor.name);
        }
    }

    #[test]
    fn quantiles_count_weights() {
        let values = [(1.0, 1.0), (2.0, 1.0), (3.0, 8.0)];
        assert_eq!(quantile(&values, 0.1), 1.0);
        assert_eq!(quantile(&values, 0.5), 3.0);
    }
}
