//! A scenario's cases: every row that is to be measured, in the order in which it is.

use std::collections::BTreeMap;
use std::fmt;

use sha2::{Digest, Sha256};

use crate::runner::Settings;
use crate::scenario::{InTurn, Load, Matrix, Point, Problem, Problems, Scenario, Weights};
use crate::stats;
use crate::units::{Bytes, Nanos, Tokens};
use crate::workload::{self, Arrivals, Limit, Mix, Planned, Source, Workload};

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
    /// Requests in a trial; with a duration in the first one, which tells the pace.
    pub requests: u32,
    /// How long requests of a trial start, instead of their number.
    pub duration: Option<Nanos>,
    /// Requests that differ; `prompt_tokens` and `new_tokens` are then their means.
    pub mix: Option<Mix>,
    /// How requests of a rate come.
    pub arrivals: Arrivals,
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
        if self.load == Load::Calibration {
            let plan = self.calibration();
            let sum = |of: fn(&Planned) -> Tokens| plan.iter().map(|p| u64::from(of(p).0)).sum();
            return (sum(|p| p.prompt_tokens), sum(|p| p.new_tokens));
        }
        let requests = u64::from(self.requests);
        (requests * u64::from(self.prompt_tokens.0), requests * u64::from(self.new_tokens.0))
    }

    /// Whether `other` is the same work on another engine: the two may be compared.
    pub fn same_work(&self, other: &Self) -> bool {
        self.work() == other.work()
    }

    /// Whether its trials and those of `other`, which follows it, take turns.
    pub fn takes_turns(&self, other: &Self, in_turn: InTurn) -> bool {
        let same_model = self.model == other.model && self.quant == other.quant;
        self.same_work(other) || (in_turn == InTurn::Model && same_model)
    }

    /// What is to be done, whichever engine does it.
    fn work(&self) -> String {
        let Self { model, quant, weights, prompt_tokens, new_tokens, depth, .. } = self;
        let mut work = format!(
            "{model}\n{quant}\n{weights}\n{}\n{}\n{}\n{}\n{}\n{}\n{}",
            prompt_tokens.0,
            new_tokens.0,
            depth.0,
            self.load,
            self.requests,
            self.settings.slots,
            self.seed
        );
        // Only where it is said: what is new does not rename old cases.
        if let Some(duration) = self.duration {
            work.push_str(&format!("\n{} ns", duration.0));
        }
        if let Some(mix) = &self.mix {
            work.push_str(&format!("\n{}", serde_json::to_string(mix).unwrap_or_default()));
        }
        let open = matches!(self.load, Load::Rate(_) | Load::MostRate);
        if open && self.arrivals != Arrivals::Poisson {
            work.push_str(&format!("\n{:?}", self.arrivals));
        }
        work
    }

    /// The requests of a closed loop of `users`.
    pub fn closed(&self, users: u32, limit: Limit) -> Workload {
        let mix = self.requests_as();
        let think = mix.think;
        mix.asked(Source::ClosedLoop { users, think }, limit)
    }

    /// The requests of an open loop of `rate` requests a second.
    pub fn open(&self, rate: f64, limit: Limit) -> Workload {
        let mix = self.requests_as();
        // A plan counts conversations, a rate requests.
        let per_second = rate / f64::from(mix.turns);
        let (arrivals, think) = (self.arrivals, mix.think);
        mix.asked(Source::OpenLoop { per_second, arrivals, think }, limit)
    }

    /// The requests of its trace.
    pub fn replayed(&self, limit: Limit) -> Workload {
        let mix = self.requests_as();
        let trace = mix.trace.clone();
        mix.asked(Source::Trace(trace), limit)
    }

    /// The requests of a sweep for step times.
    pub fn calibration(&self) -> Vec<Planned> {
        workload::calibration(self.prompt_tokens, self.new_tokens, self.settings.slots)
    }

    fn requests_as(&self) -> Mix {
        let fixed = || Mix::fixed(self.prompt_tokens, self.new_tokens);
        self.mix.clone().unwrap_or_else(fixed)
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

/// The settings that are not left to the engine, for a row: `kv_type=f16 threads=2`. Slots are the
/// load's, not a setting.
pub fn settings_text(settings: &Settings) -> String {
    let apart = ["slots", "slot_tokens"];
    let values = set_values(settings).into_iter().filter(|(key, _)| !apart.contains(&key.as_str()));
    let words: Vec<_> =
        values.map(|(key, value)| format!("{key}={}", value.trim_matches('"'))).collect();
    words.join(" ")
}

/// The settings that are not left to the engine, as JSON.
fn set_values(settings: &Settings) -> BTreeMap<String, String> {
    let value = serde_json::to_value(settings).unwrap_or_default();
    let mut fields = value.as_object().cloned().unwrap_or_default();
    // Of a server's options only those that change its work: not where it is, nor how long we wait.
    fields.remove("options");
    let work = ["args", "early_end", "model"];
    let options = settings.options.iter().filter(|(key, _)| work.contains(&key.as_str()));
    fields
        .into_iter()
        .filter(|(_, value)| !value.is_null())
        .map(|(key, value)| (key, value.to_string()))
        .chain(options.map(|(key, value)| (key.clone(), value.clone())))
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
        for case in expand_matrix(matrix, scenario) {
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

fn expand_matrix(matrix: &Matrix, scenario: &Scenario) -> Vec<Case> {
    let mut cases = Vec::new();
    let mut loads = matrix.loads.clone();
    if scenario.slo.is_some_and(|slo| slo.search) && matrix.is_searched() {
        loads.extend([Load::MostRate, Load::MostUsers]);
    }
    for model in &matrix.models {
        for quant in &matrix.quants {
            for point in &matrix.points {
                for load in &loads {
                    for engine in &matrix.engines {
                        cases.push(case(scenario, matrix, [model, quant, engine], *point, *load));
                    }
                }
            }
        }
    }
    cases
}

fn case(
    scenario: &Scenario,
    matrix: &Matrix,
    [model, quant, engine]: [&str; 3],
    point: Point,
    load: Load,
) -> Case {
    let mut settings = matrix.settings.get(engine).cloned().unwrap_or_default();
    // A batch is its own number of slots and requests.
    let crowd = load.batch().is_none();
    let most_users = || matrix.loads.iter().filter_map(|load| load.concurrency()).max();
    let together = load.together().or_else(|| most_users().filter(|_| load.is_search()));
    settings.slots = matrix.slots.filter(|_| crowd).or(together).unwrap_or(1);
    settings.slot_tokens = matrix.mix.as_ref().map_or(point.context(), |mix| mix.context).0;
    let duration = matrix.duration.filter(|_| crowd && !load.is_search());
    let planned = match (load, duration) {
        (Load::Rate(rate), Some(time)) => Some((rate * time.seconds()).ceil().max(1.0) as u32),
        (Load::Calibration, _) => {
            let (prompt, new) = (point.prompt_tokens, point.new_tokens);
            Some(workload::calibration(prompt, new, settings.slots).len() as u32)
        }
        (Load::Trace, _) => matrix.mix.as_ref().map(|mix| mix.trace.len() as u32),
        _ => load.requests(),
    };
    let mut requests = matrix.requests.filter(|_| crowd).or(planned).unwrap_or(1);
    if let Some(slo) = scenario.slo.filter(|_| load.is_search()) {
        requests = requests.max(requests_of_probe(slo.attainment.0));
    }
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
        requests,
        duration,
        mix: matrix.mix.clone(),
        arrivals: scenario.workload.as_ref().and_then(|w| w.arrivals).unwrap_or(Arrivals::Poisson),
        settings,
        seed: scenario.seed,
    };
    case.id = case.name();
    case
}

/// The fewest requests whose lower Wilson bound reaches `attainment` with one of them missing it: a
/// probe of fewer could hardly be passed.
fn requests_of_probe(attainment: f64) -> u32 {
    let reaches = |n: &u32| {
        let met = u64::from(*n - 1);
        stats::wilson(met, u64::from(*n)).is_some_and(|share| share.low >= attainment)
    };
    (1..200_000).find(reaches).unwrap_or(200_000)
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
        let arrivals = case.duration.map_or(arrivals, Nanos::seconds);
        let work = (prompt + context) as f64 / speed.prefill + new as f64 / speed.decode;
        // A search that starts near its end takes about as many probes.
        let repeats = if case.load.is_search() { 8 } else { trials.warm_up + trials.min };
        let repeats = f64::from(repeats);
        Nanos::from_seconds(speed.load.seconds() + repeats * work.max(arrivals))
    });
    Expected { memory: memory(case), time }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::scenario::{Known, Trials};

    fn scenario(text: &str) -> Scenario {
        let known = Known::here();
        Scenario::parse(text, Path::new("s.toml"), &known).unwrap()
    }

    const POINT: &str = "points = [{ prompt_tokens = 512, new_tokens = 64 }]\n";

    fn matrix(models: &str, engines: &str, more: &str) -> String {
        format!(
            "[[matrix]]\nmodels = [{models}]\nquants = [\"Q4_K_M\"]\nengines = [{engines}]\n\
             {POINT}{more}"
        )
    }

    fn one(more: &str) -> Case {
        let text = matrix("\"qwen3-0.6b\"", "\"llama.cpp\"", more);
        expand(&scenario(&text)).unwrap().remove(0)
    }

    #[test]
    fn the_quickstart_has_these_cases_in_this_order() {
        let cases = expand(&scenario(include_str!("../scenarios/quickstart.toml"))).unwrap();
        let ids: Vec<_> = cases.iter().map(|case| case.id.0.as_str()).collect();
        // An id that changes makes old results strangers: change the list only with a reason.
        assert_eq!(
            ids,
            [
                "qwen3-0.6b-q4_k_m-candle-p512-n64-d0-b1-9797b1cd",
                "qwen3-0.6b-q4_k_m-llama.cpp-p512-n64-d0-b1-d46c5ded",
                "qwen3-0.6b-q8_0-candle-p512-n64-d0-b1-33e47f59",
                "qwen3-0.6b-q8_0-llama.cpp-p512-n64-d0-b1-31a18bfb",
                "qwen3-0.6b-q4_k_m-candle-p64-n32-d0-b8-88b6427d",
                "qwen3-0.6b-q4_k_m-llama.cpp-p64-n32-d0-b8-14da3cfe",
            ]
        );
    }

    #[test]
    fn every_shipped_scenario_is_valid_and_has_cases() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios");
        let mut names = Vec::new();
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_none_or(|ending| ending != "toml") {
                continue;
            }
            let scenario = Scenario::read(&path, &Known::here()).unwrap();
            assert!(!expand(&scenario).unwrap().is_empty());
            assert!(scenario.description.is_some(), "{} has no description", scenario.name);
            names.push(scenario.name);
        }
        names.sort();
        let readme = include_str!("../scenarios/README.md");
        for name in &names {
            assert!(readme.contains(&format!("| [{name}.toml]({name}.toml) |")), "{name}");
        }
        assert!(names.len() >= 8, "{names:?}");
    }

    #[test]
    fn the_engines_of_one_work_are_adjacent() {
        let text = matrix(
            "\"qwen3-0.6b\", \"qwen3-8b\"",
            "\"candle\", \"llama.cpp\", \"mock\"",
            "batch = [1, 2]\nconcurrency = [4]\n",
        );
        let cases = expand(&scenario(&text)).unwrap();
        assert_eq!(cases.len(), 18);
        for point in cases.chunks(3) {
            assert!(point.iter().all(|case| case.same_work(&point[0])));
            let engines: Vec<_> = point.iter().map(|case| case.engine.as_str()).collect();
            assert_eq!(engines, ["candle", "llama.cpp", "mock"]);
        }
        assert_eq!(cases.chunk_by(Case::same_work).count(), 6);
    }

    #[test]
    fn a_sweep_and_the_loads_of_its_model_take_turns_where_that_is_asked() {
        let matrix = |quant: &str, more: &str| {
            format!(
                "[[matrix]]\nmodels = [\"qwen3-0.6b\"]\nquants = [\"{quant}\"]\nengines = [\"mock\"]\n\
                 points = [{{ prompt_tokens = 512, new_tokens = 64 }}]\nslots = 4\n{more}\n"
            )
        };
        let all = [
            matrix("Q4_K_M", "calibrate = true"),
            matrix("Q4_K_M", "rates = [1.0, 2.0]\nrequests = 32"),
            matrix("Q8_0", "rates = [1.0]\nrequests = 32"),
        ];
        let cases = expand(&scenario(&all.concat())).unwrap();
        let turns = |in_turn| -> Vec<usize> {
            cases.chunk_by(|a, b| a.takes_turns(b, in_turn)).map(<[Case]>::len).collect()
        };
        assert_eq!(turns(InTurn::Model), [3, 1]);
        assert_eq!(turns(InTurn::Point), [1, 1, 1, 1]);
    }

    #[test]
    fn an_id_depends_on_the_work_alone() {
        let id = one("").id;
        let other_scenario = format!(
            "description = \"other\"\n[trials]\nmin = 9\n[limits]\ncase_seconds = 9\n\
             trial_seconds = 1\n{}",
            matrix("\"qwen3-8b\", \"qwen3-0.6b\"", "\"candle\", \"llama.cpp\"", "")
        );
        let cases = expand(&scenario(&other_scenario)).unwrap();
        assert!(cases.iter().any(|case| case.id == id));

        let mut seen = vec![id];
        for change in [
            "batch = [2]\n",
            "concurrency = [1]\n",
            "concurrency = [2]\n",
            "concurrency = [2]\nslots = 1\n",
            "concurrency = [2]\nrequests = 9\n",
            "rates = [2.0]\nslots = 2\nrequests = 9\n",
            "settings = { threads = 2 }\n",
            "settings = { threads = 3 }\n",
            "weights = \"hub:o/r/f.gguf\"\n",
        ] {
            let case = one(change);
            assert!(!seen.contains(&case.id), "{change} does not change {}", case.id);
            seen.push(case.id);
        }
        let text = format!("seed = 2\n{}", matrix("\"qwen3-0.6b\"", "\"llama.cpp\"", ""));
        assert!(!seen.contains(&expand(&scenario(&text)).unwrap()[0].id));
    }

    #[test]
    fn a_servers_address_is_not_part_of_an_id_but_its_arguments_are() {
        let id = |server: &str| {
            let text = matrix("\"qwen3-8b\"", "\"vllm\"", &format!("[servers.vllm]\n{server}\n"));
            expand(&scenario(&text)).unwrap().remove(0).id
        };
        let plain = id("");
        assert_eq!(plain, id("url = \"http://127.0.0.1:1\"\napi_key_env = \"KEY\""));
        assert_eq!(plain, id("ready_seconds = 9\nprogram = \"/opt/vllm\""));
        assert_ne!(plain, id("args = [\"--enforce-eager\"]"));
        assert_ne!(plain, id("early_end = \"allowed\""));
    }

    #[test]
    fn a_case_has_room_for_what_its_load_brings_together() {
        let single = one("");
        assert_eq!((single.slots(), single.slot_tokens(), single.requests), (1, Tokens(576), 1));
        let batch = one("batch = [8]\n");
        assert_eq!((batch.slots(), batch.batch(), batch.requests), (8, 8, 8));
        assert_eq!(batch.trial_tokens(), (4096, 512));
        let users = one("concurrency = [8]\n");
        assert_eq!((users.slots(), users.batch(), users.requests), (8, 1, 32));
        assert_eq!(users.concurrency(), Some(8));
        let queue = one("concurrency = [8]\nslots = 2\nrequests = 40\n");
        assert_eq!((queue.slots(), queue.requests), (2, 40));
        // Slots and requests of the users do not leak into the batch beside them.
        let beside = one("batch = [4]\nconcurrency = [8]\nslots = 2\nrequests = 40\n");
        assert_eq!((beside.slots(), beside.requests), (4, 4));
    }

    #[test]
    fn a_sweep_for_step_times_is_one_case_of_each_engine() {
        let text = matrix("\"qwen3-0.6b\"", "\"candle\", \"vllm\"", "calibrate = true\n");
        let cases = expand(&scenario(&text)).unwrap();
        assert_eq!(cases.len(), 2);
        let case = &cases[0];
        assert!(case.id.0.starts_with("qwen3-0.6b-q4_k_m-candle-p512-n64-d0-calibration-"));
        assert_eq!((case.slots(), case.slot_tokens()), (8, Tokens(576)));
        let plan = case.calibration();
        assert_eq!(plan.len(), case.requests as usize);
        let prompts: u64 = plan.iter().map(|p| u64::from(p.prompt_tokens.0)).sum();
        assert_eq!(case.trial_tokens().0, prompts);
        let four = matrix("\"qwen3-0.6b\"", "\"candle\"", "calibrate = true\nslots = 4\n");
        assert_ne!(expand(&scenario(&four)).unwrap()[0].id, case.id);
    }

    #[test]
    fn a_case_that_two_matrices_ask_for_is_an_error() {
        let one = matrix("\"qwen3-0.6b\"", "\"candle\", \"llama.cpp\"", "");
        let other = matrix("\"qwen3-0.6b\", \"qwen3-8b\"", "\"candle\"", "");
        let problems = expand(&scenario(&format!("{one}{other}"))).unwrap_err().to_string();
        assert!(problems.starts_with("s.toml:6: case 'qwen3-0.6b-q4_k_m-candle-p512-n64-d0-b1-"));
        assert!(problems.ends_with("' is already in the [[matrix]] of line 1; remove one of them"));
        assert_eq!(problems.lines().count(), 1);
    }

    #[test]
    fn settings_are_shown_as_words() {
        let case = one("settings = { threads = 2, kv_type = \"q8_0\", mmap = false }\n");
        assert_eq!(settings_text(&case.settings), "kv_type=q8_0 mmap=false threads=2");
        assert_eq!(settings_text(&one("").settings), "");
    }

    #[test]
    fn the_expected_time_counts_every_token_of_every_trial() {
        let case = one("batch = [8]\n");
        let trials = Trials { min: 5, warm_up: 1, ..Trials::default() };
        let speed =
            ExpectedSpeed { load: Nanos::from_seconds(2.0), prefill: 4096.0, decode: 256.0 };
        let expected = expect(&case, trials, |_| Some(Bytes(7)), |_| Some(speed));
        // 2 s of loading, and 6 times 1 s of prompts and 2 s of generation.
        assert_eq!(expected.time, Some(Nanos::from_seconds(20.0)));
        assert_eq!(expected.memory, Some(Bytes(7)));
        let unknown = expect(&case, trials, |_| None, |_| None);
        assert_eq!(unknown, Expected { memory: None, time: None });
    }
}
