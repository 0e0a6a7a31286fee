//! Many answers at once: every model in every quantisation at every context on every machine.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::catalog::models::ModelSpec;
use crate::units::Tokens;

use super::answer::{Answer, Candidate, Pairing};
use super::memory::{Layout, Plan};
use super::packed::Packed;
use super::site::Site;

/// One answer of the table.
pub struct Row<'a> {
    /// The model.
    pub spec: &'a ModelSpec,
    /// Its quantisation.
    pub quant: &'a str,
    /// Tokens in each slot.
    pub context: Tokens,
    /// Which of the sites.
    pub site: usize,
    /// The same, to be asked again.
    pub candidate: &'a Candidate<'a>,
    /// What came of it.
    pub answer: Answer,
}

/// What is asked of every model.
pub struct Questions<'a> {
    /// How it is loaded; the context is one of `contexts`.
    pub layout: Layout,
    /// Tokens in each slot; those beyond what a model was made for are left out.
    pub contexts: &'a [Tokens],
    /// Where.
    pub sites: &'a [Site<'a>],
}

/// A model's quantisations, by name.
pub type Packings = Vec<(String, Packed)>;

/// What `keep` makes of the answers, in the order of the models, their quantisations, contexts and
/// sites. The models are shared out to the processor's threads.
pub fn answers<T: Send>(
    specs: &[&ModelSpec],
    packings: impl Fn(&ModelSpec) -> Packings + Sync,
    questions: &Questions<'_>,
    keep: impl Fn(Row<'_>) -> Option<T> + Sync,
) -> Vec<T> {
    let next = AtomicUsize::new(0);
    let found: Mutex<Vec<(usize, Vec<T>)>> = Mutex::new(Vec::new());
    let work = || {
        let mut mine = Vec::new();
        loop {
            let i = next.fetch_add(1, Ordering::Relaxed);
            let Some(&spec) = specs.get(i) else { break };
            mine.push((i, of_model(spec, packings(spec), questions, &keep)));
        }
        found.lock().expect("no thread panics while it holds the lock").extend(mine);
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(specs.len());
    std::thread::scope(|scope| {
        for _ in 1..threads {
            scope.spawn(work);
        }
        work();
    });
    let mut found = found.into_inner().expect("no thread panicked");
    found.sort_by_key(|(i, _)| *i);
    found.into_iter().flat_map(|(_, kept)| kept).collect()
}

fn of_model<T>(
    spec: &ModelSpec,
    packings: Packings,
    questions: &Questions<'_>,
    keep: impl Fn(Row<'_>) -> Option<T>,
) -> Vec<T> {
    let plan = Plan::new(spec, &questions.layout);
    let mut kept = Vec::new();
    for (quant, packed) in &packings {
        let (weights, work) = (&packed.weights, &packed.work);
        let candidate = Candidate { spec, weights, plan: &plan, work };
        let pairings: Vec<Pairing<'_>> = questions
            .sites
            .iter()
            .map(|site| Pairing::new(&candidate, site, &questions.layout))
            .collect();
        for &context in questions.contexts.iter().filter(|c| c.0 <= spec.context_max) {
            for (site, pairing) in pairings.iter().enumerate() {
                let answer = pairing.at(context);
                let candidate = &candidate;
                kept.extend(keep(Row { spec, quant, context, site, candidate, answer }));
            }
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::models;
    use crate::fit::answer::{self, Question};
    use crate::fit::constants;
    use crate::fit::machine::Machine;
    use crate::fit::packed::Blueprint;
    use crate::model::quant::Quant;

    #[test]
    fn a_table_gives_the_answers_of_single_questions_in_order() {
        let machines =
            ["rtx-4090", "2x rtx-3090", "apple-m1", "rtx-3060-12gb", "cpu-ddr5-5600-2ch"]
                .map(|m| Machine::parse(m, &[]).unwrap());
        let layout = Layout { slots: 2, ..Layout::default() };
        let question = Question::new(layout, "llama.cpp");
        let sites = machines.each_ref().map(|m| Site::new(m, &question, constants::embedded()));
        let specs = ["qwen3-30b-a3b", "llama-3.1-70b", "gemma-4-e2b", "qwen3-0.6b"]
            .map(|id| models::find(id).unwrap());
        let contexts = [Tokens(300), Tokens(8192), Tokens(131_072)];
        let quants = [Quant::Q4KM, Quant::Q8_0];
        let packings = |spec: &ModelSpec| {
            let each = Blueprint::new(spec).unwrap().each(&quants);
            each.into_iter().map(|(q, p)| (q.to_string(), p.unwrap())).collect()
        };
        let questions = Questions { layout, contexts: &contexts, sites: &sites };
        let rows = answers(&specs, packings, &questions, |row| {
            Some((row.spec.id.clone(), row.quant.to_owned(), row.context, row.site, row.answer))
        });
        let mut expected = Vec::new();
        for spec in specs {
            for quant in quants {
                for context in contexts.into_iter().filter(|c| c.0 <= spec.context_max) {
                    for (site, machine) in machines.iter().enumerate() {
                        let layout = Layout { slot_tokens: context, ..layout };
                        let question = Question::new(layout, "llama.cpp");
                        let answer = answer::ask(machine, spec, quant, &question).unwrap();
                        expected.push((spec.id.clone(), quant.to_string(), context, site, answer));
                    }
                }
            }
        }
        assert_eq!(rows.len(), expected.len());
        for (row, wanted) in rows.iter().zip(&expected) {
            assert_eq!(row, wanted);
        }
    }
}
