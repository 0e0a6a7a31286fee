//! Answers for a machine that has measured itself.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::units::TokensPerSecond;

use super::answer::{self, Answer, Candidate, Estimate, Question, Verdict};
use super::basis::Basis;
use super::calibrate::{Class, Constants};
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
    /// Its speeds, those that something disturbed left out.
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
        let has_experts = candidate.work.experts.is_some();
        // Dense models say nothing about how experts are picked and gathered.
        let tells =
            |own: &&Constants| !has_experts || own.basis(Class::DecodeExperts) == Basis::Calibrated;
        let Some(own) = self.constants(&question.engine).filter(tells) else {
            return answer::answer(candidate, machine, question, published);
        };
        let mut answer = answer::answer(candidate, machine, question, own);
        if answer.verdict != Verdict::Fits {
            return answer::answer(candidate, machine, question, published);
        }
        if !own.own.as_ref().is_some_and(|own| own.has_packing(candidate.work.packing)) {
            answer.remarks.push(Arc::from(format!(
                "no weights packed as {} were measured with {} here: wider intervals",
                candidate.work.packing.name(),
                question.engine
            )));
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
            answer.remarks.push(Arc::from(format!(
                "{name} measured: {} in {}{marks}",
                point.case_id, point.folder
            )));
        }
        answer.decode = decode.map(estimate).or(answer.decode);
        answer.prefill = prefill.map(estimate).or(answer.prefill);
        if let (Some(prefill), Some(decode)) = (answer.prefill, answer.decode) {
            answer.ttft = Some(answer::first_token(context, prefill, decode));
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
/// of each engine.
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
    let counts = |p: &&Point| {
        let is_current = newest.get(p.engine.as_str()).is_some_and(|(_, v)| *v == p.version);
        !p.is_disturbed() && p.is_on_processor() == on_processor && is_current
    };
    points.iter().filter(counts).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::hardware;
    use crate::catalog::models;
    use crate::fit::constants;
    use crate::fit::measured::{points, tests::record};
    use crate::fit::memory::{Layout, Plan};
    use crate::fit::packed::Packed;
    use crate::model::quant::Quant;
    use crate::record::Record;
    use crate::units::{Bytes, GbPerSecond, Tflops, Tokens};

    fn machine() -> Machine {
        let mut device = hardware::find("cpu-ddr5-5600-2ch", &[]).unwrap().clone();
        device.id = "this-machine".to_owned();
        device.memory = Some(Bytes::from_gib(24.0));
        device.bandwidth = Some(GbPerSecond(40.0));
        device.fp16 = Some(Tflops(0.23));
        Machine { name: "here".to_owned(), devices: vec![device], host: None }
    }

    fn records() -> Vec<Record> {
        let mut all = Vec::new();
        for (prompt, speed) in [(64, 60.0), (768, 40.0)] {
            let mut record = record("llama.cpp", "qwen3-0.6b", "Q4_K_M", prompt);
            record.effective_settings = None;
            record.started = "2026-11-21T10:00:00Z".to_owned();
            record.decode_tok_s_median = Some(speed);
            (record.decode_tok_s_low, record.decode_tok_s_high) = (None, None);
            all.push(record);
        }
        all
    }

    fn own(records: &[Record]) -> Own {
        let all: Vec<Point> = records.iter().flat_map(|r| points(r, "results/x")).collect();
        Own::of(&all, &machine(), constants::embedded())
    }

    fn ask(own: &Own, model: &str, engine: &str, tokens: u32) -> Answer {
        let spec = models::find(model).unwrap();
        let packed = Packed::of(spec, Quant::Q4KM).unwrap();
        let layout = Layout { slot_tokens: Tokens(tokens), ..Layout::default() };
        let candidate = Candidate {
            spec,
            weights: &packed.weights,
            plan: &Plan::new(spec, &layout),
            work: &packed.work,
        };
        let question = Question::new(layout, engine);
        own.answer(&candidate, "Q4_K_M", &machine(), &question, constants::embedded())
    }

    #[test]
    fn a_case_that_was_run_is_answered_by_what_was_measured() {
        let answer = ask(&own(&records()), "qwen3-0.6b", "llama.cpp", 784);
        let (decode, prefill) = (answer.decode.unwrap(), answer.prefill.unwrap());
        assert_eq!((decode.basis, decode.value.0), (Basis::Measured, 40.0));
        assert_eq!((prefill.basis, prefill.value.0), (Basis::Measured, 200.0));
        assert!(decode.low.0 < 40.0 && decode.high.0 > 40.0);
        assert_eq!(answer.ttft.unwrap().basis, Basis::Measured);
        let said = answer.remarks.join("; ");
        assert!(said.contains("decode measured: qwen3-0.6b-Q4_K_M-llama.cpp-p768"), "{said}");
    }

    #[test]
    fn the_newest_of_several_measurements_counts() {
        let mut twice = records();
        let mut later = twice[1].clone();
        later.started = "2026-11-21T11:00:00Z".to_owned();
        later.decode_tok_s_median = Some(50.0);
        twice.insert(0, later);
        let answer = ask(&own(&twice), "qwen3-0.6b", "llama.cpp", 784);
        assert_eq!(answer.decode.unwrap().value.0, 50.0);
    }

    #[test]
    fn other_contexts_and_models_are_calibrated_and_other_engines_predicted() {
        let own = own(&records());
        let basis = |model: &str, engine: &str, tokens: u32| {
            ask(&own, model, engine, tokens).decode.unwrap().basis
        };
        assert_eq!(basis("qwen3-0.6b", "llama.cpp", 8192), Basis::Calibrated);
        assert_eq!(basis("llama-3.2-1b", "llama.cpp", 784), Basis::Calibrated);
        assert_eq!(basis("qwen3-0.6b", "ollama", 784), Basis::Predicted);
        let experts = ask(&own, "qwen3-30b-a3b", "llama.cpp", 784);
        assert_eq!(experts.decode.unwrap().basis, Basis::Predicted);
        assert_eq!(experts.prefill.unwrap().basis, Basis::Predicted);
    }

    #[test]
    fn disturbed_records_and_those_of_older_versions_do_not_count() {
        let mut disturbed = records();
        for record in &mut disturbed {
            record.marks = "busy-cores".to_owned();
        }
        assert!(own(&disturbed).points().is_empty());
        let mut older = records();
        older[0].engine_version = Some("1".to_owned());
        older[1].engine_version = Some("2".to_owned());
        older[1].started = "2026-11-22T10:00:00Z".to_owned();
        assert_eq!(own(&older).points().len(), 2);
    }

    #[test]
    fn without_records_a_machine_is_answered_as_any_other() {
        let answer = ask(&Own::default(), "qwen3-0.6b", "llama.cpp", 784);
        assert_eq!(answer.decode.unwrap().basis, Basis::Predicted);
    }
}
