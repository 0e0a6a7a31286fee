//! Answers for a machine that has measured itself.

use std::collections::BTreeMap;

use crate::units::{Nanos, TokensPerSecond};

use super::answer::{self, Answer, Candidate, Estimate, Question, Verdict};
use super::basis::Basis;
use super::calibrate::Constants;
use super::evidence::Quantity;
use super::local::{self, NOISE};
use super::machine::Machine;
use super::measured::Point;
use super::speed::Place;
use crate::catalog::hardware::Family;

/// A case counts as measured where its context differs from the one asked for by no more.
const CONTEXT_TOLERANCE: f64 = 0.05;

/// What a machine has shown of itself.
#[derive(Clone, Debug, Default)]
pub struct Own {
    /// Its speeds, those that something disturbed left out, the newest of each case.
    points: Vec<Point>,
    /// The constants of each engine that they tell.
    constants: BTreeMap<String, Constants>,
}

impl Own {
    /// From all points of `machine`; `published` is what is believed without them.
    pub fn of(points: &[Point], machine: &Machine, published: &Constants) -> Self {
        let points = usable(points, machine);
        let mut engines: Vec<&str> = points.iter().map(|p| p.engine.as_str()).collect();
        engines.sort_unstable();
        engines.dedup();
        let constants = engines
            .into_iter()
            .filter_map(|engine| {
                let of_engine: Vec<&Point> = points.iter().filter(|p| p.engine == engine).collect();
                let place = Place::whole(machine.devices.first()?, engine)?;
                let own = local::calibrate(&of_engine, &place, published)?;
                Some((engine.to_owned(), own))
            })
            .collect();
        Self { points, constants }
    }

    /// The speeds that count.
    pub fn points(&self) -> &[Point] {
        &self.points
    }

    /// The constants of `engine` on this machine, where it has shown any.
    pub fn constants(&self, engine: &str) -> Option<&Constants> {
        self.constants.get(engine)
    }

    /// As [`answer::answer`], with what was measured in place of what is predicted, and with the
    /// machine's own constants where the whole model lies where they were measured.
    pub fn answer(
        &self,
        candidate: &Candidate<'_>,
        quant: &str,
        machine: &Machine,
        question: &Question,
        published: &Constants,
    ) -> Answer {
        let Some(own) = self.constants(&question.engine) else {
            return answer::answer(candidate, machine, question, published);
        };
        let mut answer = answer::answer(candidate, machine, question, own);
        if answer.verdict != Verdict::Fits {
            return answer::answer(candidate, machine, question, published);
        }
        if question.layout.slots == 1 {
            self.put_measured(&mut answer, &candidate.spec.id, quant, question);
        }
        answer
    }

    fn put_measured(&self, answer: &mut Answer, model: &str, quant: &str, question: &Question) {
        let layout = &question.layout;
        let context = f64::from(layout.slot_tokens.0);
        let near = |tokens: f64| (tokens / context - 1.0).abs() <= CONTEXT_TOLERANCE;
        let newest = |quantity: Quantity| {
            let same = self.points.iter().filter(|p| {
                let tokens = match quantity {
                    Quantity::Decode => p.usage.cached,
                    Quantity::Prefill if p.usage.cached > 0.0 => return false,
                    Quantity::Prefill => p.usage.prompt,
                };
                p.quantity == quantity
                    && (p.engine.as_str(), p.model.as_str(), p.quant.as_str())
                        == (question.engine.as_str(), model, quant)
                    && p.kv_type == layout.kv_type
                    && p.usage.flash_attention == layout.flash_attention
                    && near(tokens)
            });
            same.max_by(|a, b| a.started.cmp(&b.started))
        };
        let (decode, prefill) = (newest(Quantity::Decode), newest(Quantity::Prefill));
        if decode.is_none() && prefill.is_none() {
            return;
        }
        for (name, point) in [("decode", decode), ("prefill", prefill)] {
            let Some(point) = point else { continue };
            let marks = match point.marks.as_str() {
                "" => String::new(),
                marks => format!(", marked {marks}"),
            };
            answer.remarks.push(format!(
                "{name} measured: {} in {}{marks}",
                point.case_id, point.folder
            ));
        }
        answer.decode = decode.map(estimate).or(answer.decode);
        answer.prefill = prefill.map(estimate).or(answer.prefill);
        if let (Some(prefill), Some(decode)) = (answer.prefill, answer.decode) {
            let wait = |prefill: TokensPerSecond, decode: TokensPerSecond| {
                Nanos::from_seconds(context / prefill.0 + 1.0 / decode.0)
            };
            answer.ttft = Some(Estimate {
                value: wait(prefill.value, decode.value),
                low: wait(prefill.high, decode.high),
                high: wait(prefill.low, decode.low),
                basis: prefill.basis.min(decode.basis),
            });
        }
    }
}

/// The measured speed; without an interval of its own that which a careful measurement has.
fn estimate(point: &Point) -> Estimate<TokensPerSecond> {
    let (low, high) =
        point.interval.unwrap_or((point.speed * (-NOISE).exp(), point.speed * NOISE.exp()));
    Estimate {
        value: TokensPerSecond(point.speed),
        low: TokensPerSecond(low),
        high: TokensPerSecond(high),
        basis: Basis::Measured,
    }
}

/// The points that were measured undisturbed on the machine's one device, with the newest version
/// of each engine; of several of one case the newest.
fn usable(points: &[Point], machine: &Machine) -> Vec<Point> {
    let [device] = machine.devices.as_slice() else { return Vec::new() };
    let on_processor = device.family == Family::Cpu;
    let mut newest: BTreeMap<&str, (&str, &str)> = BTreeMap::new();
    for p in points {
        let entry = newest.entry(&p.engine).or_insert((&p.started, &p.version));
        if p.started.as_str() > entry.0 {
            *entry = (&p.started, &p.version);
        }
    }
    let mut cases: BTreeMap<(&str, Quantity), &Point> = BTreeMap::new();
    for p in points {
        let is_current = newest.get(p.engine.as_str()).is_some_and(|(_, v)| *v == p.version);
        if p.is_disturbed() || p.is_on_processor() != on_processor || !is_current {
            continue;
        }
        let kept = cases.entry((&p.case_id, p.quantity)).or_insert(p);
        if p.started > kept.started {
            *kept = p;
        }
    }
    cases.into_values().cloned().collect()
}
