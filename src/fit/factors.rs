//! The factors that scale the terms of the speed model: their names, and what is believed of each
//! before any measurement.

use std::collections::HashMap;
use std::sync::LazyLock;

use crate::catalog::hardware::Family;

use super::posynomial::Prior;
use super::speed::{Api, ENGINES};
use super::work::Packing;

/// A factor: its name, and what is believed of it before measurements.
#[derive(Clone, Debug, PartialEq)]
pub struct Named {
    /// `term.group.value`.
    pub name: String,
    /// The belief.
    pub prior: Prior,
}

/// Every factor, in the order of θ.
pub fn factors() -> &'static [Named] {
    static ALL: LazyLock<Vec<Named>> = LazyLock::new(list);
    &ALL
}

/// Which of them has this name.
pub fn index(name: &str) -> Option<usize> {
    static INDEX: LazyLock<HashMap<&'static str, usize>> =
        LazyLock::new(|| factors().iter().enumerate().map(|(i, f)| (f.name.as_str(), i)).collect());
    INDEX.get(name).copied()
}

/// Priors: bases from data sheets and first principles (nine tenths to half of the bandwidth is
/// reached, a layer costs tens of microseconds, a third to a half of the arithmetic speed is
/// reached); groups differ from their base by no more than the deviation, mostly.
fn list() -> Vec<Named> {
    let mut all = Vec::new();
    let mut add = |name: &str, mean: f64, deviation: f64| {
        all.push(Named { name: name.to_owned(), prior: Prior { mean, deviation } });
    };
    let devices = || crate::catalog::hardware::all().iter().map(|d| d.id.as_str());
    add("step.weights", (1.0_f64 / 0.8).ln(), 0.3);
    add("step.layer", 7e-5_f64.ln(), 1.0);
    add("step.cache", 2.0_f64.ln(), 0.7);
    add("step.unpack", 1.0_f64.ln(), 1.0);
    add("step.unpack-k", 3.0_f64.ln(), 1.0);
    add("step.batch", 5.0_f64.ln(), 0.7);
    add("step.compute", 1.0_f64.ln(), 0.7);
    add("step.attention", 4.0_f64.ln(), 1.0);
    add("prompt.matrix", (1.0_f64 / 0.4).ln(), 0.5);
    add("prompt.scatter", 20.0_f64.ln(), 1.0);
    add("prompt.attention", 4.0_f64.ln(), 1.0);
    add("prompt.read", (1.0_f64 / 0.75).ln(), 0.1);
    add("prompt.layer", 1e-4_f64.ln(), 1.0);
    for (stem, group, deviation) in [
        ("step.weights", "family", 0.2),
        ("step.layer", "family", 0.3),
        ("prompt.matrix", "family", 0.4),
    ] {
        for family in Family::ALL {
            add(&format!("{stem}.{group}.{}", family.name()), 0.0, deviation);
        }
    }
    for (stem, deviation) in [
        ("step.weights", 0.15),
        ("step.layer", 0.3),
        ("step.cache", 0.4),
        ("step.batch", 0.5),
        ("prompt.matrix", 0.3),
    ] {
        for engine in ENGINES {
            add(&format!("{stem}.engine.{engine}"), 0.0, deviation);
        }
    }
    for (stem, deviation) in [
        ("step.layer", 0.6),
        ("step.cache", 0.5),
        ("prompt.matrix", 0.4),
        ("prompt.attention", 0.4),
    ] {
        for api in Api::ALL {
            add(&format!("{stem}.api.{}", api.name()), 0.0, deviation);
        }
    }
    for (stem, deviation) in [("step.weights", 0.12), ("step.compute", 0.3), ("prompt.matrix", 0.2)]
    {
        for packing in Packing::ALL {
            add(&format!("{stem}.packing.{}", packing.name()), 0.0, deviation);
        }
    }
    for (stem, deviation) in [("step.weights", 0.1), ("prompt.matrix", 0.15)] {
        for device in devices() {
            add(&format!("{stem}.device.{device}"), 0.0, deviation);
        }
    }
    add("step.weights.memory.shared", 0.0, 0.1);
    add("step.weights.memory.own", 0.0, 0.1);
    add("step.weights.experts", 0.0, 0.5);
    add("step.weights.apple-m1", 0.0, 0.1);
    add("step.weights.apple-m1-k", 0.0, 0.3);
    add("step.weights.apple-m4-on", 0.0, 0.1);
    add("step.layer.experts", 0.0, 1.0);
    add("step.layer.linear", 0.0, 1.0);
    add("step.cache.stored-scores", 0.7, 1.0);
    add("prompt.matrix.experts", 0.0, 0.5);
    add("prompt.matrix.short", 0.0, 0.3);
    add("prompt.matrix.narrow", 0.0, 0.3);
    add("prompt.attention.stored-scores", 0.5, 1.0);
    all
}
