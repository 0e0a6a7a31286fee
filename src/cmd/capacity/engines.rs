//! Which machines and engines could serve, with the times of their steps: predicted by `fit`,
//! calibrated by this machine's own records, or fitted to results.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, bail, ensure};

use crate::capacity::{Engine, Predicted, StepTime, predict, predict_serving};
use crate::catalog::hardware::{self, Device, Kind};
use crate::catalog::models::{self, ModelSpec};
use crate::cmd::cost::machine_word;
use crate::cmd::here::Here;
use crate::fit::answer::{self, Answer, Candidate, Question, Verdict};
use crate::fit::basis::Basis;
use crate::fit::constants;
use crate::fit::machine::Machine;
use crate::fit::memory::{Layout, Plan};
use crate::fit::packed::Packed;
use crate::fit::site::Site;
use crate::fit::vllm::{self, Checkpoint};
use crate::fit::work;
use crate::model::quant::Quant;
use crate::scenario::Scenario;
use crate::units::Tokens;
use crate::workload::Mix;

use super::measured;

/// Slots that are tried where nobody says how many.
const MOST_SLOTS: u32 = 64;
/// The word for this machine among devices.
const HERE: &str = "here";

/// What could serve.
#[derive(Clone, Debug, clap::Args)]
pub struct EngineArgs {
    /// The model (`bench models`)
    #[arg(long, short, value_name = "MODEL")]
    pub model: Option<String>,
    /// Its quantisation: Q4_K_M where it is left out; with vLLM BF16, FP8, AWQ, GPTQ or GPTQ-8bit
    #[arg(long, short, value_name = "QUANT")]
    pub quant: Option<String>,
    /// Machines, as `rtx-5090,2x rtx-3090` (two cards for one model); `here` is this one, and `all`
    /// those with a price, also where it is left out
    #[arg(long, short, value_name = "MACHINE", value_delimiter = ',')]
    pub device: Vec<String>,
    /// The engine: llama-server where it is left out, or all that --results have
    #[arg(long, value_enum)]
    pub engine: Option<EngineName>,
    /// Sequences at once on each device (llama-server --parallel, OLLAMA_NUM_PARALLEL, vLLM
    /// --max-num-seqs); llama-server: as many as need the fewest devices, Ollama: 1
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub parallel: Option<u32>,
    /// llama-server is started with --kv-unified: one cache for all slots, so that each batch is
    /// computed whole and not in pieces
    #[arg(long, conflicts_with = "results")]
    pub kv_unified: bool,
    /// Results of this model and engine on one machine, folders that `bench run` made: steps are
    /// then measured ones, and --device says what the machine costs
    #[arg(long, value_name = "DIR", value_delimiter = ',')]
    pub results: Vec<PathBuf>,
    /// Your own devices and prices, a TOML file
    #[arg(long, value_name = "FILE")]
    pub catalog: Option<PathBuf>,
}

/// An engine whose scheduler is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum EngineName {
    /// llama.cpp's server, with slots.
    LlamaServer,
    /// Ollama, with slots and a queue.
    Ollama,
    /// vLLM, continuous batching over a paged cache.
    Vllm,
    /// candle, one request after the other.
    Candle,
    /// MLX, one request after the other.
    Mlx,
}

impl EngineArgs {
    fn is_of(&self, model: &str) -> bool {
        self.model.as_deref().is_some_and(|word| word.eq_ignore_ascii_case(model))
    }

    fn engine(&self) -> EngineName {
        self.engine.unwrap_or(EngineName::LlamaServer)
    }

    /// The same with what the scenario says of the machine and the model, where no flag does.
    pub fn with(&self, scenario: Option<&Scenario>) -> anyhow::Result<Self> {
        let mut args = self.clone();
        let Some(scenario) = scenario else { return Ok(args) };
        if args.device.is_empty() {
            args.device.extend(machine_word(scenario));
        }
        let mut models: Vec<&String> =
            scenario.matrices.iter().flat_map(|matrix| &matrix.models).collect();
        models.sort();
        models.dedup();
        if args.model.is_none() {
            let [model] = models.as_slice() else {
                let names: Vec<&str> = models.iter().map(|name| name.as_str()).collect();
                bail!(
                    "'{}' has several models: name one of {} with --model",
                    scenario.path.display(),
                    names.join(", ")
                );
            };
            args.model = Some((*model).clone());
        }
        if args.quant.is_none() && args.engine() != EngineName::Vllm {
            let of = scenario.matrices.iter().find(|m| m.models.iter().any(|id| args.is_of(id)));
            args.quant = of.and_then(|matrix| matrix.quants.first()).cloned();
        }
        Ok(args)
    }
}

impl EngineName {
    /// As `fit` calls what computes.
    fn of_fit(self) -> &'static str {
        match self {
            Self::LlamaServer => "llama.cpp",
            Self::Ollama => "ollama",
            Self::Vllm => vllm::ENGINE,
            Self::Candle => "candle",
            Self::Mlx => "mlx",
        }
    }

    /// As people call it.
    pub fn shown(self) -> &'static str {
        match self {
            Self::LlamaServer => "llama-server",
            Self::Ollama => "Ollama",
            Self::Vllm => "vLLM",
            Self::Candle => "candle",
            Self::Mlx => "MLX",
        }
    }

    fn takes_several(self) -> bool {
        matches!(self, Self::LlamaServer | Self::Ollama | Self::Vllm)
    }

    /// The engine with these steps.
    pub fn with(self, step: StepTime, room: Room) -> Engine {
        match (self, room) {
            (Self::Vllm, Room::Pool { tokens, sequences, step_tokens }) => {
                Engine { sequences, step_tokens, ..Engine::vllm(step, tokens) }
            }
            (Self::Ollama, Room::Slots { slots, tokens }) => Engine::ollama(step, slots, tokens),
            (Self::Candle | Self::Mlx, Room::Slots { tokens, .. }) => {
                Engine::one_at_a_time(self.shown(), step, tokens)
            }
            (_, Room::Slots { slots, tokens }) => Engine::llama_server(step, slots, tokens),
            (_, Room::Pool { tokens, sequences, step_tokens }) => {
                let name = self.shown().to_owned();
                Engine { name, sequences, step_tokens, ..Engine::vllm(step, tokens) }
            }
        }
    }
}

/// Room for caches.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Room {
    /// As many slots, each with room for so many tokens.
    Slots { slots: u32, tokens: Tokens },
    /// vLLM's pool and the limits of its steps.
    Pool { tokens: u64, sequences: u32, step_tokens: u32 },
}

/// A machine that could serve.
#[derive(Clone, Debug)]
pub struct Machinery {
    /// As tables call it.
    pub name: String,
    /// What it costs and draws, where that is known.
    pub machine: Option<Machine>,
    /// The engine with each number of slots that fits, the fewest first.
    pub options: Vec<Engine>,
    /// Its steps at the slow end of their interval, and at the fast end.
    pub ends: [StepTime; 2],
    /// On what the steps rest.
    pub basis: Basis,
    /// Where they come from, in sentences.
    pub sources: Vec<String>,
    /// Whether it is this machine, whatever it is called.
    pub is_here: bool,
}

/// What could serve, and what could not with the reason.
pub struct Choice {
    pub machines: Vec<Machinery>,
    pub left_out: Vec<(String, String)>,
    pub model: String,
    pub quant: String,
}

/// A model in one packing.
struct Weights {
    spec: ModelSpec,
    quant: String,
    packed: Packed,
}

impl Weights {
    fn of(args: &EngineArgs, own: &[ModelSpec]) -> anyhow::Result<Self> {
        let word = args.model.as_deref().context(
            "which model? Name it with --model (`bench models`), or a scenario that has one",
        )?;
        let spec = models::find_with(word, own)?.clone();
        if args.engine() == EngineName::Vllm {
            let word = args.quant.as_deref().unwrap_or("BF16");
            let kind = Checkpoint::named(word).with_context(|| {
                let known = Checkpoint::ALL.map(Checkpoint::name).join(", ");
                format!("vLLM's checkpoints are {known}, and '{word}' is none of them")
            })?;
            let packed = kind.packed(&spec)?;
            return Ok(Self { spec, quant: kind.name().to_owned(), packed });
        }
        let quant = match &args.quant {
            Some(word) => word.parse()?,
            // The one quantisation in which some models are published.
            None if crate::model::tensors(&spec, Quant::Q4KM).is_err() => Quant::Mxfp4,
            None => Quant::Q4KM,
        };
        let packed = Packed::of(&spec, quant)
            .with_context(|| format!("cannot predict '{}' in {quant}", spec.id))?;
        Ok(Self { spec, quant: quant.to_string(), packed })
    }
}

/// What could serve requests of `mix`. Devices that cannot are left out with their reason; where
/// they are named, that is told beside the answer.
pub fn choose(args: &EngineArgs, mix: &Mix) -> anyhow::Result<Choice> {
    if let (Some(parallel), false) = (args.parallel, args.engine().takes_several()) {
        ensure!(
            parallel == 1,
            "{} computes one request after the other; leave --parallel out",
            args.engine().shown()
        );
    }
    ensure!(
        !args.kv_unified || args.engine() == EngineName::LlamaServer,
        "--kv-unified is llama-server's; leave it out"
    );
    if !args.results.is_empty() {
        return measured::choose(args, mix);
    }
    let own = super::super::own::catalog(args.catalog.as_deref())?;
    let weights = Weights::of(args, &own.models)?;
    ensure!(
        mix.context.0 <= weights.spec.context_max,
        "requests need a context of {} tokens and {} was made for {}; state a shorter --context or \
         another --model",
        mix.context,
        weights.spec.id,
        Tokens(weights.spec.context_max)
    );
    let words = words(&args.device, &own.devices);
    let is_all = words.len() > 1 && args.device.iter().all(|word| word == "all");
    let mut choice = Choice {
        machines: Vec::new(),
        left_out: Vec::new(),
        model: weights.spec.id.clone(),
        quant: weights.quant.clone(),
    };
    for word in words {
        let (machine, here) = if word == HERE {
            let here = Here::look(&[])?;
            (here.machine.clone(), Some(here))
        } else {
            (Machine::parse(&word, &own.devices)?, None)
        };
        match one(args, &weights, mix, &machine, here.as_ref()) {
            Ok(machinery) => choice.machines.push(machinery),
            // Of all devices, those without MLX are no news.
            Err(_) if is_all && args.engine() == EngineName::Mlx && !is_apple(&machine) => {}
            Err(error) => choice.left_out.push((machine.name, format!("{error:#}"))),
        }
    }
    Ok(choice)
}

fn words(devices: &[String], own: &[Device]) -> Vec<String> {
    if !devices.is_empty() && devices.iter().all(|word| word != "all") {
        return devices.to_vec();
    }
    let named = devices.iter().filter(|word| *word != "all").cloned();
    named.chain(hardware::priced(own).map(|device| device.id.clone())).collect()
}

fn is_apple(machine: &Machine) -> bool {
    machine.devices.iter().all(|device| device.family.is_apple())
}

fn one(
    args: &EngineArgs,
    weights: &Weights,
    mix: &Mix,
    machine: &Machine,
    here: Option<&Here>,
) -> anyhow::Result<Machinery> {
    let engine = args.engine();
    ensure!(
        engine != EngineName::Mlx || is_apple(machine),
        "MLX runs on Apple's chips; name another --engine"
    );
    ensure!(
        engine != EngineName::Vllm || machine.devices.iter().all(|d| d.kind == Kind::Gpu),
        "vLLM's memory is told for cards alone"
    );
    let ask = |slots: u32, tokens: Tokens| -> Answer {
        let layout = Layout { slots, slot_tokens: tokens, ..Layout::default() };
        let plan = Plan::new(&weights.spec, &layout);
        let Packed { weights: packed, work } = &weights.packed;
        let candidate = Candidate { spec: &weights.spec, weights: packed, plan: &plan, work };
        let question = Question::new(layout, engine.of_fit());
        let published = constants::embedded();
        match here {
            Some(here) => {
                here.own.answer(&candidate, &weights.quant, machine, &question, published)
            }
            None => answer::answer(&candidate, machine, &question, published),
        }
    };
    if engine == EngineName::Candle {
        let known = here.is_some_and(|here| here.own.constants("candle").is_some());
        ensure!(
            known,
            "nobody published how fast candle is: measure it with `bench run` and give the folder \
             with --results"
        );
    }
    let (rooms, single) = rooms(args, weights, mix, machine, &ask)?;
    let sequences = rooms.iter().map(Room::sequences).max().unwrap_or(1);
    let (prompt, answer) = mix.mean();
    let cached = Tokens(prompt.0.saturating_add(answer.0 / 2));
    let longest = Tokens(weights.spec.context_max);
    // What this machine has shown of itself says more than what was published.
    let shown = here.is_some_and(|here| here.own.constants(engine.of_fit()).is_some());
    let question = Question::new(Layout::default(), engine.of_fit());
    let site = Site::new(machine, &question, constants::embedded());
    let Predicted { steps: [slow, likely, fast], basis, remarks } =
        match site.serving.as_ref().filter(|_| !shown) {
            Some(serving) => {
                let value_bytes = work::value_bytes(question.layout.kv_type);
                let work = &weights.packed.work;
                let mut predicted = predict_serving(sequences, cached, value_bytes, serving, work)?;
                predicted.remarks.insert(0, Arc::clone(&site.vllm_remark));
                predicted
            }
            None => predict(sequences, cached, longest, ask)?,
        };
    let with = |room: Room| {
        let with = engine.with(likely.clone(), room);
        if args.kv_unified { with.unified() } else { with }
    };
    let options = rooms.into_iter().map(with).collect();
    let mut sources = vec![format!(
        "Steps on {}: fit, {} {} with {}; range: four of five measurements. Network and tokenizer \
         are not in it.",
        machine.name,
        weights.spec.id,
        weights.quant,
        engine.shown()
    )];
    sources.extend(here.iter().flat_map(|here| here.notes.clone()));
    if engine == EngineName::LlamaServer && sequences > 1 {
        let words = if args.kv_unified {
            "llama-server with --kv-unified: whole batches."
        } else {
            "llama-server as --parallel alone starts it: batches in pieces, since slots have caches \
             of their own and only neighbouring ones are computed together. A piece takes what a \
             whole batch of its size takes, of which fit's speeds of several streams are. \
             --kv-unified simulates one cache for all slots."
        };
        sources.push(words.to_owned());
    }
    sources.extend(single);
    sources.extend(remarks.iter().map(|remark| format!("{}: {remark}.", machine.name)));
    Ok(Machinery {
        name: machine.name.clone(),
        machine: Some(machine.clone()),
        options,
        ends: [slow, fast],
        basis,
        sources,
        is_here: here.is_some(),
    })
}

impl Room {
    fn sequences(&self) -> u32 {
        match self {
            Self::Slots { slots, .. } => *slots,
            Self::Pool { sequences, .. } => *sequences,
        }
    }
}

/// The rooms that fit on a machine, the smallest first, and why there are no more.
fn rooms(
    args: &EngineArgs,
    weights: &Weights,
    mix: &Mix,
    machine: &Machine,
    ask: &dyn Fn(u32, Tokens) -> Answer,
) -> anyhow::Result<(Vec<Room>, Option<String>)> {
    let context = mix.context;
    let cannot = |answer: &Answer, slots: u32| {
        let each = if slots == 1 { String::new() } else { format!(" in each of {slots} slots") };
        let model = format!("{} {}", weights.spec.id, weights.quant);
        match &answer.verdict {
            Verdict::Fits => None,
            Verdict::Unknown(reason) => {
                Some(format!("it cannot be said to hold {model}: {reason}"))
            }
            _ => Some(format!(
                "{model} with {context} tokens of context{each} needs {}{}",
                answer.needed,
                answer
                    .usable
                    .map_or_else(String::new, |(bytes, _)| format!(", and {bytes} are usable"))
            )),
        }
    };
    if args.engine() == EngineName::Vllm {
        let answer = ask(1, context);
        if let Some(reason) = cannot(&answer, 1) {
            bail!(reason);
        }
        let pool = answer.pool.context("there is no room for a cache beside the weights")?;
        let limits = vllm::Limits::of(machine);
        let sequences = args.parallel.unwrap_or(limits.requests as u32);
        let step_tokens = limits.batch_tokens as u32;
        return Ok((vec![Room::Pool { tokens: pool.tokens, sequences, step_tokens }], None));
    }
    let slots: Vec<u32> = match (args.parallel, args.engine()) {
        (Some(slots), _) => vec![slots],
        (None, EngineName::LlamaServer) => std::iter::successors(Some(1), |n| Some(n * 2))
            .take_while(|n| *n <= MOST_SLOTS)
            .collect(),
        (None, _) => vec![1],
    };
    let mut rooms = Vec::new();
    for slots in slots {
        let answer = ask(slots, context);
        if let Some(reason) = cannot(&answer, slots) {
            if rooms.is_empty() {
                bail!(reason);
            }
            break;
        }
        rooms.push(Room::Slots { slots, tokens: context });
    }
    // A device of which nothing tells how it gains from several sequences still serves one after
    // the other.
    let mut single = None;
    if args.parallel.is_none() && rooms.len() > 1 {
        let answer = ask(2, context);
        if answer.system.is_none() {
            rooms.truncate(1);
            let why = answer.remarks.last().map_or_else(String::new, |why| format!(": {why}"));
            single = Some(format!("{}: one request at a time{why}.", machine.name));
        }
    }
    Ok((rooms, single))
}
