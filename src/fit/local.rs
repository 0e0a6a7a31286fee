//! A machine's own constants: what its measurements of a few models say about all others.

use std::collections::BTreeMap;

use crate::catalog::models;
use crate::model::quant::Quant;

use super::calibrate::{Class, Constants, Spread};
use super::evidence::Quantity;
use super::file;
use super::measured::Point;
use super::posynomial::{self, Observation, Posterior, Prior, Term};
use super::speed::{self, Place};
use super::work::{Packing, Work};

/// How well a careful measurement on one machine repeats, at best.
pub const NOISE: f64 = 0.06;
/// The deviation of what stays as published.
const FIXED: f64 = 1e-4;
/// The quantile of the normal distribution that leaves a tenth above it.
const TENTH: f64 = 1.2816;

/// What a machine's own measurements have added to the published ones.
#[derive(Clone, Debug, PartialEq)]
pub struct Own {
    /// How uncertain the constants still are.
    posterior: Posterior,
    /// How the weights were packed that were measured.
    packings: Vec<Packing>,
    /// What the constants leave unexplained, for each class that was measured.
    noise: BTreeMap<Class, f64>,
}

impl Own {
    /// Whether speeds of this class were measured.
    pub fn has(&self, class: Class) -> bool {
        self.noise.contains_key(&class)
    }

    /// Whether weights packed so were measured.
    pub fn has_packing(&self, packing: Packing) -> bool {
        self.packings.contains(&packing)
    }

    /// How far measurements may lie from a prediction: the wider, the less the measurements say
    /// about these very `terms`.
    pub fn spread(&self, class: Class, terms: &[Term], theta: &[f64]) -> Option<Spread> {
        let noise = self.noise.get(&class)?;
        let half = TENTH * (self.posterior.variance(terms, theta) + noise.powi(2)).sqrt();
        Some(Spread { low: -half, high: half })
    }
}

/// One point with the terms that should explain it.
#[derive(Clone, Debug)]
pub struct Explained {
    /// Which of the points given.
    pub index: usize,
    /// The kind of speed.
    pub class: Class,
    /// How most of the weights are packed.
    pub packing: Packing,
    /// The terms of its time.
    pub terms: Vec<Term>,
    /// Tokens in that time.
    pub tokens: f64,
}

/// The terms of each point at `place`; points of models or quantisations that the catalogue does
/// not know are left out.
pub fn explain(points: &[&Point], place: &Place) -> Vec<Explained> {
    let mut works: BTreeMap<(&str, &str), Option<Work>> = BTreeMap::new();
    let mut explained = Vec::new();
    for (index, point) in points.iter().enumerate() {
        let work = works
            .entry((&point.model, &point.quant))
            .or_insert_with(|| work(&point.model, &point.quant));
        let Some(work) = work else { continue };
        let (terms, tokens) = match point.quantity {
            Quantity::Decode => (Some(speed::step_terms(work, &point.usage, place)), 1.0),
            Quantity::Prefill => {
                (speed::prompt_terms(work, &point.usage, place), point.usage.prompt)
            }
        };
        let class = match (point.quantity, &work.experts) {
            (Quantity::Prefill, _) => Class::Prefill,
            (Quantity::Decode, None) => Class::DecodeDense,
            (Quantity::Decode, Some(_)) => Class::DecodeExperts,
        };
        let packing = work.packing;
        explained.extend(terms.map(|terms| Explained { index, class, packing, terms, tokens }));
    }
    explained
}

fn work(model: &str, quant: &str) -> Option<Work> {
    let quant: Quant = quant.parse().ok()?;
    let spec = models::find(model).ok()?;
    let tensors = crate::model::tensors(spec, quant).ok()?;
    // What its recipe falls back to where rows do not divide into blocks has a speed of its own.
    Some(Work::of_tensors(spec, &tensors, file::packing(&tensors)))
}

/// The constants of one engine at `place` from its `points` there and from `published` ones, which
/// are what is believed before; `None` where no point tells a speed of generation.
pub fn calibrate(points: &[&Point], place: &Place, published: &Constants) -> Option<Constants> {
    let explained = explain(points, place);
    if explained.iter().all(|e| e.class == Class::Prefill) {
        return None;
    }
    let priors: Vec<Prior> = speed::factors()
        .iter()
        .zip(&published.theta)
        .map(|(factor, &mean)| Prior { mean, deviation: freedom(&factor.name) })
        .collect();
    let mut noise: BTreeMap<Class, f64> = explained.iter().map(|e| (e.class, NOISE)).collect();
    let mut theta = published.theta.clone();
    let mut posterior = None;
    // Once with the noise that is hoped for, once with that which the first fit finds.
    for _ in 0..2 {
        let observations: Vec<Observation> = explained
            .iter()
            .map(|e| Observation {
                terms: e.terms.clone(),
                seconds: e.tokens / points[e.index].speed,
                weight: (posynomial::NOISE / noise[&e.class]).powi(2),
            })
            .collect();
        theta = posynomial::fit(&observations, &priors, &theta);
        for (own, prior) in theta.iter_mut().zip(&priors) {
            if prior.deviation <= FIXED {
                *own = prior.mean;
            }
        }
        let found = Posterior::of(&observations, &priors, &theta);
        noise = unexplained(&explained, &observations, &theta, &found, &noise);
        posterior = Some(found);
    }
    let packings = explained.iter().map(|e| e.packing).collect();
    let own = Own { posterior: posterior?, packings, noise };
    Some(Constants {
        theta,
        spreads: published.spreads.clone(),
        pace: published.pace,
        pace_spread: published.pace_spread,
        own: Some(own),
    })
}

/// The root mean square of what each class's constants leave unexplained; each constant that the
/// measurements decide takes one of them away. Never below [`NOISE`].
fn unexplained(
    explained: &[Explained],
    observations: &[Observation],
    theta: &[f64],
    posterior: &Posterior,
    noise: &BTreeMap<Class, f64>,
) -> BTreeMap<Class, f64> {
    let of_class = |(&class, assumed): (&Class, &f64)| {
        let (mut squares, mut free) = (0.0, 0.0);
        for (e, o) in explained.iter().zip(observations).filter(|(e, _)| e.class == class) {
            squares += (posynomial::seconds(&e.terms, theta) / o.seconds).ln().powi(2);
            free += 1.0 - posterior.variance(&e.terms, theta) / assumed.powi(2);
        }
        (class, (squares / f64::max(free, 1.0)).sqrt().max(NOISE))
    };
    noise.iter().map(of_class).collect()
}

/// How far a machine's own constant may lie from the published one, as a deviation of the logarithm.
/// What the hardware, the engine's kernels and their build decide is free; what other constants
/// of the same term say already is not.
fn freedom(name: &str) -> f64 {
    match name {
        "step.layer" | "step.attention" | "prompt.matrix" | "prompt.attention" => 1.0,
        "step.cache" | "step.compute" | "prompt.layer" => 0.7,
        // An engine may have no fast kernel at all for a way of packing.
        _ if name.starts_with("prompt.matrix.packing.") => 0.8,
        "step.unpack" | "step.unpack-k" => 0.5,
        "step.weights" => 0.4,
        "prompt.read" | "prompt.matrix.narrow" | "prompt.matrix.short" => 0.2,
        _ if name.starts_with("step.compute.packing.") => 0.4,
        _ if name.starts_with("step.weights.packing.") => 0.1,
        _ => FIXED,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::hardware::{Device, Family, Kind};
    use crate::fit::basis::Basis;
    use crate::fit::constants;
    use crate::fit::measured::points;
    use crate::record::{Outcome, Record};
    use crate::units::{Bytes, GbPerSecond, Tflops};

    fn place() -> Place {
        let mut device: Device =
            crate::catalog::hardware::find("cpu-ddr5-5600-2ch", &[]).unwrap().clone();
        assert_eq!((device.kind, device.family), (Kind::Cpu, Family::Cpu));
        device.id = "this-machine".to_owned();
        device.memory = Some(Bytes::from_gib(24.0));
        device.bandwidth = Some(GbPerSecond(40.0));
        device.fp16 = Some(Tflops(0.23));
        Place::whole(&device, "an engine").unwrap()
    }

    /// What a machine would measure whose constants are the published ones but for two: layers
    /// cost four times as much, and prompts run three times as fast.
    fn truth() -> Constants {
        let mut truth = constants::embedded().clone();
        for (factor, theta) in speed::factors().iter().zip(&mut truth.theta) {
            match factor.name.as_str() {
                "step.layer" => *theta += 4.0_f64.ln(),
                "prompt.matrix" => *theta -= 3.0_f64.ln(),
                _ => {}
            }
        }
        truth
    }

    fn measure(model: &str, quant: &str, prompt: u32) -> Vec<Point> {
        let record = Record {
            case_id: format!("{model}-{quant}-{prompt}"),
            engine: "an engine".to_owned(),
            model: model.to_owned(),
            quant: quant.to_owned(),
            prompt_tokens: prompt,
            new_tokens: 32,
            batch: 1,
            outcome: Outcome::Measured,
            backend: Some("CPU".to_owned()),
            decode_tok_s_median: Some(1.0),
            prefill_tok_s_median: Some(1.0),
            ..Record::default()
        };
        let mut found = points(&record, "x");
        let speeds: Vec<f64> = explain(&found.iter().collect::<Vec<_>>(), &place())
            .iter()
            .map(|e| e.tokens / posynomial::seconds(&e.terms, &truth().theta))
            .collect();
        for (point, speed) in found.iter_mut().zip(speeds) {
            point.speed = speed;
        }
        found
    }

    fn calibrated() -> Constants {
        let mut seen = Vec::new();
        for model in ["qwen3-0.6b", "llama-3.2-1b"] {
            for quant in ["Q4_K_M", "Q8_0"] {
                seen.extend([64, 768].into_iter().flat_map(|n| measure(model, quant, n)));
            }
        }
        let seen: Vec<&Point> = seen.iter().collect();
        calibrate(&seen, &place(), constants::embedded()).unwrap()
    }

    #[test]
    fn two_models_tell_the_constants_that_a_third_is_predicted_by() {
        let (own, published) = (calibrated(), constants::embedded());
        for model in ["llama-3.2-3b", "tinyllama-1.1b"] {
            let held_out = measure(model, "Q4_K_M", 256);
            for e in explain(&held_out.iter().collect::<Vec<_>>(), &place()) {
                let measured = held_out[e.index].speed;
                let error = |c: &Constants| {
                    (e.tokens / posynomial::seconds(&e.terms, &c.theta) / measured - 1.0).abs()
                };
                assert!(error(&own) < 0.05, "{model} {:?}: {}", e.class, error(&own));
                assert!(error(published) > 2.0 * error(&own), "{model} {:?}", e.class);
                assert_eq!(own.basis(e.class), Basis::Calibrated);
                let (narrow, wide) =
                    (own.spread(e.class, &e.terms), published.spread(e.class, &e.terms));
                assert!(narrow.high - narrow.low < wide.high - wide.low, "{model} {:?}", e.class);
            }
        }
    }

    #[test]
    fn what_was_not_measured_keeps_a_wide_interval() {
        let own = calibrated();
        let width = |quant: &str, prompt: u32| {
            let point = measure("llama-3.2-3b", quant, prompt);
            let e = explain(&point.iter().collect::<Vec<_>>(), &place()).remove(1);
            assert_eq!(e.class, Class::Prefill);
            let spread = own.spread(e.class, &e.terms);
            spread.high - spread.low
        };
        assert!(width("Q6_K", 256) > 3.0 * width("Q4_K_M", 256));
        assert!(width("Q4_K_M", 32_768) > 1.2 * width("Q4_K_M", 256));
    }

    #[test]
    fn mixtures_of_experts_stay_predicted_where_none_was_measured() {
        assert_eq!(calibrated().basis(Class::DecodeExperts), Basis::Predicted);
        let own = calibrated().own.unwrap();
        assert!(own.has_packing(Packing::Q8) && !own.has_packing(Packing::F16));
    }

    #[test]
    fn prompts_alone_calibrate_nothing() {
        let points: Vec<Point> = measure("qwen3-0.6b", "Q8_0", 64)
            .into_iter()
            .filter(|p| p.quantity == Quantity::Prefill)
            .collect();
        let points: Vec<&Point> = points.iter().collect();
        assert_eq!(calibrate(&points, &place(), constants::embedded()), None);
    }
}
