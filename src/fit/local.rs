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
    /// What the constants leave unexplained, for each class that was measured.
    noise: BTreeMap<Class, f64>,
}

impl Own {
    /// Whether speeds of this class were measured.
    pub fn has(&self, class: Class) -> bool {
        self.noise.contains_key(&class)
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
        explained.extend(terms.map(|terms| Explained { index, class, terms, tokens }));
    }
    explained
}

/// How most of the weights of a catalogued model are packed.
pub fn packing(model: &str, quant: &str) -> Option<Packing> {
    work(model, quant).map(|work| work.packing)
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
    let weight = (posynomial::NOISE / NOISE).powi(2);
    let observations: Vec<Observation> = explained
        .iter()
        .map(|e| Observation {
            terms: e.terms.clone(),
            seconds: e.tokens / points[e.index].speed,
            weight,
        })
        .collect();
    let mut theta = posynomial::fit(&observations, &priors, &published.theta);
    for (own, prior) in theta.iter_mut().zip(&priors) {
        if prior.deviation <= FIXED {
            *own = prior.mean;
        }
    }
    let mut squares: BTreeMap<Class, Vec<f64>> = BTreeMap::new();
    for (e, o) in explained.iter().zip(&observations) {
        let residual = (posynomial::seconds(&e.terms, &theta) / o.seconds).ln();
        squares.entry(e.class).or_default().push(residual.powi(2));
    }
    let noise = squares.into_iter().map(|(class, all)| {
        let mean = all.iter().sum::<f64>() / all.len() as f64;
        (class, mean.sqrt().max(NOISE))
    });
    let own = Own {
        posterior: Posterior::of(&observations, &priors, &theta),
        noise: noise.collect(),
    };
    Some(Constants { theta, spreads: published.spreads.clone(), own: Some(own) })
}

/// How far a machine's own constant may lie from the published one, as a deviation of the logarithm.
/// What the hardware, the engine's kernels and their build decide is free; what other constants
/// of the same term say already is not.
fn freedom(name: &str) -> f64 {
    match name {
        "step.layer" | "step.attention" | "prompt.matrix" | "prompt.attention" => 1.0,
        "step.cache" | "step.compute" | "prompt.layer" => 0.7,
        "step.unpack" | "step.unpack-k" => 0.5,
        "step.weights" => 0.4,
        "prompt.read" | "prompt.matrix.narrow" | "prompt.matrix.short" => 0.2,
        _ if name.starts_with("step.compute.packing.") => 0.4,
        _ if name.starts_with("prompt.matrix.packing.") => 0.4,
        _ if name.starts_with("step.weights.packing.") => 0.1,
        _ => FIXED,
    }
}
