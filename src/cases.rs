//! A scenario's cases: every row that is to be measured, in the order in which it is.

use std::collections::BTreeMap;
use std::fmt;

use sha2::{Digest, Sha256};

use crate::runner::Settings;
use crate::scenario::{Load, Matrix, Point, Problem, Problems, Scenario, Weights};
use crate::units::{Bytes, Nanos, Tokens};

/// A case's name: readable, and ending in a hash of everything that defines the work, so that the
/// same case has the same id in every scenario.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CaseId(pub String);

impl fmt::Display for CaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// One row to be.
#[derive(Clone, Debug, PartialEq)]
pub struct Case {
    /// Its name.
    pub id: CaseId,
    /// The model's catalogue id.
    pub model: String,
    /// The quantisation.
    pub quant: String,
    /// The engine, or the server's name.
    pub engine: String,
    /// Where the weights come from.
    pub weights: Weights,
    /// Tokens of each prompt.
    pub prompt_tokens: Tokens,
    /// Tokens that each request generates.
    pub new_tokens: Tokens,
    /// Tokens already in the KV cache when the clock starts.
    pub depth: Tokens,
    /// How requests come.
    pub load: Load,
    /// Requests in a trial.
    pub requests: u32,
    /// The engine's switches; `slots` and `slot_tokens` are filled in.
    pub settings: Settings,
    /// Seeds weights, prompts and arrivals.
    pub seed: u64,
}

impl Case {
    /// The size of its static batch; 1 where requests come otherwise.
    pub fn batch(&self) -> u32 {
        self.load.batch().unwrap_or(1)
    }

    /// The users of its closed loop.
    pub fn concurrency(&self) -> Option<u32> {
        self.load.concurrency()
    }

    /// Sequences that are held at once.
    pub fn slots(&self) -> u32 {
        self.settings.slots
    }

    /// KV cache of each of them.
    pub fn slot_tokens(&self) -> Tokens {
        Tokens(self.settings.slot_tokens)
    }

    /// Tokens that a trial processes in prompts and generates, context apart.
    pub fn trial_tokens(&self) -> (u64, u64) {
        let requests = u64::from(self.requests);
        (requests * u64::from(self.prompt_tokens.0), requests * u64::from(self.new_tokens.0))
    }

    /// Whether `other` is the same work on another engine: the two may be compared.
    pub fn same_work(&self, other: &Self) -> bool {
        self.work() == other.work()
    }

    /// What is to be done, whichever engine does it.
    fn work(&self) -> String {
        let Self { model, quant, weights, prompt_tokens, new_tokens, depth, .. } = self;
        format!(
            "{model}\n{quant}\n{weights}\n{}\n{}\n{}\n{}\n{}\n{}\n{}",
            prompt_tokens.0,
            new_tokens.0,
            depth.0,
            self.load,
            self.requests,
            self.settings.slots,
            self.seed
        )
    }

    fn name(&self) -> CaseId {
        let mut hash = Sha256::new();
        hash.update(self.work());
        hash.update("\n");
        hash.update(&self.engine);
        // Only what is set: a setting that a later version adds does not rename old cases.
        for (key, value) in set_values(&self.settings) {
            hash.update(format!("\n{key}={value}"));
        }
        let hash = hash.finalize();
        let slug = format!(
            "{}-{}-{}-p{}-n{}-d{}-{}",
            self.model,
            self.quant,
            self.engine,
            self.prompt_tokens.0,
            self.new_tokens.0,
            self.depth.0,
            self.load
        );
        CaseId(format!(
            "{}-{:02x}{:02x}{:02x}{:02x}",
            slug.to_lowercase(),
            hash[0],
            hash[1],
            hash[2],
            hash[3]
        ))
    }
}

/// The settings that are not left to the engine, as `key=value` words.
pub fn settings_text(settings: &Settings) -> String {
    let words: Vec<_> = set_values(settings).iter().map(|(k, v)| format!("{k}={v}")).collect();
    words.join(" ").replace('"', "")
}

/// The settings that are not left to the engine, as text.
fn set_values(settings: &Settings) -> BTreeMap<String, String> {
    let value = serde_json::to_value(settings).unwrap_or_default();
    let fields = value.as_object().cloned().unwrap_or_default();
    fields
        .into_iter()
        .filter(|(_, value)| !value.is_null())
        .map(|(key, value)| (key, value.to_string()))
        .collect()
}

/// All cases of a scenario. The engines of one (model, quantisation, point, load) are adjacent, so
/// that a drift of the machine meets all of them alike. A case that two matrices ask for is an
/// error: measuring it twice under one name would waste time and lose one of the rows.
pub fn expand(scenario: &Scenario) -> Result<Vec<Case>, Problems> {
    let mut cases = Vec::new();
    let mut lines: BTreeMap<CaseId, usize> = BTreeMap::new();
    let mut problems = Vec::new();
    for matrix in &scenario.matrices {
        for case in expand_matrix(matrix, scenario.seed) {
            if let Some(first) = lines.insert(case.id.clone(), matrix.line) {
                let id = &case.id;
                let message = format!(
                    "case '{id}' is already in the [[matrix]] of line {first}; remove one of them"
                );
                problems.push(Problem { line: matrix.line, message });
            } else {
                cases.push(case);
            }
        }
    }
    if problems.is_empty() {
        Ok(cases)
    } else {
        Err(Problems { path: scenario.path.clone(), problems })
    }
}

fn expand_matrix(matrix: &Matrix, seed: u64) -> Vec<Case> {
    let mut cases = Vec::new();
    for model in &matrix.models {
        for quant in &matrix.quants {
            for point in &matrix.points {
                for load in &matrix.loads {
                    for engine in &matrix.engines {
                        cases.push(case(matrix, model, quant, engine, *point, *load, seed));
                    }
                }
            }
        }
    }
    cases
}

fn case(
    matrix: &Matrix,
    model: &str,
    quant: &str,
    engine: &str,
    point: Point,
    load: Load,
    seed: u64,
) -> Case {
    let mut settings = matrix.settings.get(engine).cloned().unwrap_or_default();
    // A batch is its own number of slots and requests.
    let crowd = load.batch().is_none();
    settings.slots = matrix.slots.filter(|_| crowd).or(load.together()).unwrap_or(1);
    settings.slot_tokens = point.context().0;
    let mut case = Case {
        id: CaseId(String::new()),
        model: model.to_owned(),
        quant: quant.to_owned(),
        engine: engine.to_owned(),
        weights: matrix.weights.clone(),
        prompt_tokens: point.prompt_tokens,
        new_tokens: point.new_tokens,
        depth: point.depth,
        load,
        requests: matrix.requests.filter(|_| crowd).or(load.requests()).unwrap_or(1),
        settings,
        seed,
    };
    case.id = case.name();
    case
}

/// What a case is expected to need, before it runs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Expected {
    /// Weights, KV cache and compute buffers together.
    pub memory: Option<Bytes>,
    /// Loading, warm-up and the fewest trials.
    pub time: Option<Nanos>,
}

/// Speeds that a time is worked out from, in tokens per second of the whole batch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ExpectedSpeed {
    /// Loading the weights.
    pub load: Nanos,
    /// Prompt processing.
    pub prefill: f64,
    /// Generation, all sequences together.
    pub decode: f64,
}

/// A case's expected memory and time: `memory` and `speed` come from a model of the machine and
/// answer `None` where they do not know; nothing is guessed in their place.
pub fn expect(
    case: &Case,
    trials: crate::scenario::Trials,
    memory: impl FnOnce(&Case) -> Option<Bytes>,
    speed: impl FnOnce(&Case) -> Option<ExpectedSpeed>,
) -> Expected {
    let time = speed(case).map(|speed| {
        let (prompt, new) = case.trial_tokens();
        // The context is put into the cache before each trial, off the clock of the metrics but
        // not of the person who waits.
        let context = u64::from(case.depth.0) * u64::from(case.slots().min(case.requests));
        let arrivals = case.load.rate().map_or(0.0, |rate| f64::from(case.requests) / rate);
        let work = (prompt + context) as f64 / speed.prefill + new as f64 / speed.decode;
        let repeats = f64::from(trials.warm_up + trials.min);
        Nanos::from_seconds(speed.load.seconds() + repeats * work.max(arrivals))
    });
    Expected { memory: memory(case), time }
}
