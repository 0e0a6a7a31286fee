//! `bench fit`: which models fit on which machines, and how fast they are there.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail, ensure};

use crate::catalog::hardware::Device;
use crate::catalog::models::{self, ModelSpec};
use crate::fit::answer::{Answer, Question, Verdict};
use crate::fit::file;
use crate::fit::machine::Machine;
use crate::fit::memory::{self, Layout};
use crate::fit::packed::{Blueprint, Packed};
use crate::fit::site::Site;
use crate::fit::speed::ENGINES;
use crate::fit::table::{self, Packings, Questions, Row};
use crate::fit::vllm::{self, Checkpoint};
use crate::fit::{claims, constants};
use crate::model::gguf::Header;
use crate::model::quant::{Quant, TensorType};
use crate::report::markdown::Markdown;
use crate::report::{Render, Report, Section, Table};
use crate::units::Tokens;

use super::here::Here;
use super::run::Format;
use print::Line;

mod print;

/// Flags of `bench fit`.
#[derive(Debug, clap::Args)]
pub struct FitArgs {
    /// A machine: `rtx-5090`, `2x rtx-5090`, `rtx-4090 + rtx-3060-12gb`, or `all`; this machine
    /// where it is left out
    #[arg(long, short, value_name = "MACHINE", value_delimiter = ',')]
    device: Vec<String>,
    /// A model of the catalogue, or `all`
    #[arg(long, short, value_name = "MODEL", value_delimiter = ',', default_value = "all")]
    model: Vec<String>,
    /// A model file, of which only the header is read
    #[arg(long, value_name = "FILE", conflicts_with_all = ["model", "quant"])]
    gguf: Option<PathBuf>,
    /// Quantisations, or `all`: Q4_K_M where it is left out; with vLLM BF16, FP8, AWQ, GPTQ or
    /// GPTQ-8bit
    #[arg(long, short, value_name = "QUANT", value_delimiter = ',')]
    quant: Vec<String>,
    /// Tokens that each user has room for: `8k,32k,128k`
    #[arg(long, short, value_name = "TOKENS", value_delimiter = ',', default_value = "8k")]
    context: Vec<String>,
    /// Users at once, each with a slot of its own
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=256))]
    users: u32,
    /// Type of cached keys and values: f16, q8_0, q4_0 …; with vLLM bf16 or fp8
    #[arg(long, value_name = "TYPE", default_value = "f16")]
    kv_type: String,
    /// The engine: llama.cpp, llamafile, ollama, mlx or vllm
    #[arg(long, value_name = "ENGINE", default_value = "llama.cpp")]
    engine: String,
    /// The share of a card's memory that vLLM takes: its own default where it is left out
    #[arg(long, value_name = "SHARE")]
    gpu_memory_utilization: Option<f64>,
    /// Results of this machine to calibrate by: folders that `bench run` made; all of this machine
    /// in results/ where it is left out, `none` for none
    #[arg(long, value_name = "DIR", value_delimiter = ',', conflicts_with = "device")]
    records: Vec<PathBuf>,
    /// Your own devices, models and prices, a TOML file (README.md); else BENCH_CATALOG, else
    /// catalog.toml in the configuration folder
    #[arg(long, value_name = "FILE")]
    catalog: Option<PathBuf>,
    /// Leave out what generates more slowly for each user
    #[arg(long, value_name = "TOK/S")]
    min_tok_s: Option<f64>,
    /// Leave out what does not fit completely
    #[arg(long)]
    fitting: bool,
    /// Check what articles claim about sizes and memory instead, as Markdown
    #[arg(long)]
    claims: bool,
    /// How to write the table
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
}

/// Runs the subcommand.
pub fn run(args: &FitArgs) -> anyhow::Result<ExitCode> {
    if args.claims {
        return print_claims();
    }
    let here = args.device.is_empty().then(|| Here::look(&args.records)).transpose()?;
    let shown = here.as_ref().map(|here| &here.own);
    ensure!(
        ENGINES.contains(&args.engine.as_str())
            || shown.is_some_and(|own| own.constants(&args.engine).is_some()),
        "unknown engine '{}'; predictions are for {}, and on this machine for those that \
         `bench run` has measured",
        args.engine,
        ENGINES.join(", ")
    );
    let is_vllm = args.engine == vllm::ENGINE;
    let utilization = args.gpu_memory_utilization;
    ensure!(
        utilization.is_none() || is_vllm,
        "--gpu-memory-utilization is vLLM's; add --engine vllm"
    );
    let utilization = utilization.unwrap_or(vllm::UTILIZATION);
    ensure!(
        utilization > 0.0 && utilization <= 1.0,
        "--gpu-memory-utilization {utilization} is no share; write 0.9"
    );
    let contexts: Vec<Tokens> =
        args.context.iter().map(|c| tokens(c)).collect::<anyhow::Result<_>>()?;
    let own = super::own::catalog(args.catalog.as_deref())?;
    let machines = match &here {
        Some(here) => vec![here.machine.clone()],
        None => machines(&args.device, &own.devices)?,
    };
    if is_vllm {
        let other = machines.iter().find(|m| !m.has_own_memory());
        if let Some(machine) = other.filter(|_| !args.device.iter().any(|d| d == "all")) {
            bail!("vLLM's memory is told for cards alone, and '{}' is none", machine.name);
        }
    }
    let machines: Vec<Machine> =
        machines.into_iter().filter(|m| !is_vllm || m.has_own_memory()).collect();
    let layout = Layout {
        slots: args.users,
        kv_type: kv_type(&args.kv_type, is_vllm)?,
        ..Layout::default()
    };
    let question = Question { layout, engine: args.engine.clone(), utilization };
    let sites: Vec<Site<'_>> =
        machines.iter().map(|m| Site::new(m, &question, constants::embedded())).collect();
    let questions = Questions { layout, contexts: &contexts, sites: &sites };
    let keep = |row: Row<'_>| {
        let machine = &machines[row.site];
        let answer = match shown {
            Some(own) => {
                let layout = Layout { slot_tokens: row.context, ..layout };
                let question = Question { layout, ..question.clone() };
                let published = constants::embedded();
                own.answer(row.candidate, row.quant, machine, &question, published)
            }
            None => row.answer,
        };
        is_wanted(&answer, args).then(|| Line {
            machine: machine.name.clone(),
            model: row.spec.id.clone(),
            quant: row.quant.to_owned(),
            context: row.context,
            users: args.users,
            answer,
        })
    };
    let (specs, lines);
    if let Some(path) = &args.gguf {
        ensure!(!is_vllm, "vLLM reads GGUF files only in part; leave --engine or --gguf out");
        let (spec, quant, packed) = of_file(path)?;
        lines =
            table::answers(&[&spec], |_| vec![(quant.clone(), packed.clone())], &questions, keep);
        specs = vec![spec];
    } else {
        let known = models(&args.model, &own.models)?;
        let quants = Quants::of(&args.quant, is_vllm)?;
        let single = known.len() == 1;
        for spec in &known {
            // What cannot be told of one model is an error; of all, a line beside the table.
            let failed: Vec<String> = quants.reasons(spec);
            match failed.first() {
                Some(reason) if single && quants.len() == 1 => bail!("{reason}"),
                _ => failed.iter().for_each(|reason| eprintln!("left out: {reason}")),
            }
        }
        lines = table::answers(&known, |spec| quants.packings(spec), &questions, keep);
        specs = known.into_iter().cloned().collect();
    }
    if lines.is_empty() {
        eprintln!("{}", why_nothing(args, &specs, &contexts));
    } else {
        contexts.iter().filter_map(|c| too_long(&specs, *c)).for_each(|line| eprintln!("{line}"));
    }
    let notes = here.as_ref().map_or(&[][..], |here| &here.notes);
    print::print(&lines, notes, args.format)?;
    Ok(ExitCode::SUCCESS)
}

/// The models that were made for shorter contexts, where there are any.
fn too_long(specs: &[ModelSpec], context: Tokens) -> Option<String> {
    let shorter = specs.iter().filter(|s| s.context_max < context.0);
    let names: Vec<String> =
        shorter.map(|s| format!("{} ({})", s.id, Tokens(s.context_max))).collect();
    let names = names.join(", ");
    (!names.is_empty()).then(|| format!("left out: made for less than {context} tokens: {names}"))
}

/// Why no line is left.
fn why_nothing(args: &FitArgs, specs: &[ModelSpec], contexts: &[Tokens]) -> String {
    let longest = specs.iter().map(|s| s.context_max).max().unwrap_or(0);
    if contexts.iter().all(|c| c.0 > longest) {
        let most = Tokens(longest);
        return format!(
            "nothing to tell: the models were made for at most {most} tokens; ask for a shorter --context"
        );
    }
    match args.min_tok_s {
        Some(_) => "nothing is as fast; try a shorter --context or a lower --min-tok-s".to_owned(),
        None => "nothing fits; try a shorter --context, another --quant or no --fitting".to_owned(),
    }
}

fn print_claims() -> anyhow::Result<ExitCode> {
    Markdown.render(&claims_report()?, &mut std::io::stdout().lock())?;
    Ok(ExitCode::SUCCESS)
}

fn claims_report() -> anyhow::Result<Report> {
    let mut table = Table::new(&["claim", "", ">value", "unit", "we compute", "verdict"]);
    for checked in claims::check_all()? {
        let claim = checked.claim;
        table.rows.push(vec![
            claim.id,
            claim.claim,
            claim.value,
            claim.unit,
            checked.computed,
            checked.finding.name().to_owned(),
        ]);
    }
    let text = "Numbers that articles about local models state, and what this program computes for \
                them: right within 5 %, roughly within 20 %. Made by `bench fit --claims`.";
    let section = Section {
        heading: "Sizes and memory".to_owned(),
        text: vec![text.to_owned()],
        table: Some(table),
        ..Section::default()
    };
    Ok(Report { title: "Claims".to_owned(), sections: vec![section] })
}

fn is_wanted(answer: &Answer, args: &FitArgs) -> bool {
    let each = answer.decode_each(args.users);
    let fast = args.min_tok_s.is_none_or(|least| each.is_some_and(|e| e.value.0 >= least));
    fast && (!args.fitting || answer.verdict == Verdict::Fits)
}

/// `8k` is 8,192 tokens.
pub fn tokens(text: &str) -> anyhow::Result<Tokens> {
    let lower = text.trim().to_lowercase();
    let (digits, unit) = match lower.strip_suffix('k') {
        Some(digits) => (digits, 1024),
        None => match lower.strip_suffix('m') {
            Some(digits) => (digits, 1024 * 1024),
            None => (lower.as_str(), 1),
        },
    };
    let number: u32 = digits
        .parse()
        .with_context(|| format!("'{text}' is no number of tokens; write 8192 or 8k"))?;
    match number.checked_mul(unit) {
        Some(tokens) if tokens > 0 => Ok(Tokens(tokens)),
        _ => bail!("'{text}' is no number of tokens that a context can have; write 8192 or 8k"),
    }
}

fn kv_type(word: &str, is_vllm: bool) -> anyhow::Result<TensorType> {
    if is_vllm {
        return Ok(match word.to_lowercase().as_str() {
            "f16" | "bf16" | "auto" => TensorType::BF16,
            // One byte for each value, as FP8 has; ggml knows no FP8.
            "fp8" => TensorType::I8,
            _ => bail!("unknown KV type '{word}'; vLLM's are bf16 and fp8"),
        });
    }
    Ok(match word.to_lowercase().as_str() {
        "f32" => TensorType::F32,
        "f16" => TensorType::F16,
        "bf16" => TensorType::BF16,
        "q8_0" => TensorType::Q8_0,
        "q5_1" => TensorType::Q5_1,
        "q5_0" => TensorType::Q5_0,
        "q4_1" => TensorType::Q4_1,
        "q4_0" => TensorType::Q4_0,
        "iq4_nl" => TensorType::Iq4Nl,
        _ => bail!("unknown KV type '{word}'; use f16, q8_0, q4_0, f32, bf16, q5_0, q5_1 or q4_1"),
    })
}

fn machines(words: &[String], own: &[Device]) -> anyhow::Result<Vec<Machine>> {
    if words.iter().any(|w| w == "all") {
        let known = crate::catalog::hardware::all();
        let known = known.iter().filter(|d| own.iter().all(|o| o.id != d.id));
        return own.iter().chain(known).map(|d| Machine::parse(&d.id, own)).collect();
    }
    words.iter().map(|w| Machine::parse(w, own)).collect()
}

/// The shape, the packing's name and the weights of a file.
fn of_file(path: &Path) -> anyhow::Result<(ModelSpec, String, Packed)> {
    let header = Header::read(path)?;
    let spec = file::spec(&header).with_context(|| path.display().to_string())?;
    let tensors = file::tensors(&header);
    let packing = file::packing(&tensors);
    let quant = file::quant(&header).map_or_else(|| packing.name().to_owned(), |q| q.to_string());
    let packed = Packed::of_tensors(&spec, &tensors, packing);
    Ok((spec, quant, packed))
}

fn models<'a>(words: &[String], own: &'a [ModelSpec]) -> anyhow::Result<Vec<&'a ModelSpec>> {
    if words.iter().any(|w| w == "all") {
        return Ok(models::all_with(own).collect());
    }
    words.iter().map(|w| models::find_with(w, own)).collect()
}

/// The quantisations that are asked for: files' of llama.cpp, or checkpoints of vLLM.
enum Quants {
    Files(Vec<Quant>),
    Checkpoints(Vec<Checkpoint>),
}

impl Quants {
    fn of(words: &[String], is_vllm: bool) -> anyhow::Result<Self> {
        let every = words.iter().any(|w| w == "all");
        Ok(match (is_vllm, every) {
            (true, true) => Self::Checkpoints(Checkpoint::ALL.to_vec()),
            (true, false) if words.is_empty() => Self::Checkpoints(vec![Checkpoint::Bf16]),
            (true, false) => {
                let named = |w: &String| {
                    Checkpoint::named(w).with_context(|| {
                        format!(
                            "vLLM's checkpoints are {}, and '{w}' is none of them",
                            Checkpoint::ALL.map(Checkpoint::name).join(", ")
                        )
                    })
                };
                Self::Checkpoints(words.iter().map(named).collect::<anyhow::Result<_>>()?)
            }
            (false, true) => Self::Files(Quant::ALL.to_vec()),
            (false, false) if words.is_empty() => Self::Files(vec![Quant::Q4KM]),
            (false, false) => {
                Self::Files(words.iter().map(|w| w.parse()).collect::<anyhow::Result<_>>()?)
            }
        })
    }

    fn len(&self) -> usize {
        match self {
            Self::Files(quants) => quants.len(),
            Self::Checkpoints(kinds) => kinds.len(),
        }
    }

    fn each(&self, spec: &ModelSpec) -> Vec<(String, anyhow::Result<Packed>)> {
        match self {
            Self::Files(quants) => {
                let blueprint = memory::ensure_known(spec).and_then(|()| Blueprint::new(spec));
                match blueprint {
                    Ok(blueprint) => blueprint
                        .each(quants)
                        .into_iter()
                        .map(|(quant, packed)| (quant.to_string(), packed))
                        .collect(),
                    Err(error) => vec![(String::new(), Err(error))],
                }
            }
            Self::Checkpoints(kinds) => {
                kinds.iter().map(|kind| (kind.name().to_owned(), kind.packed(spec))).collect()
            }
        }
    }

    fn packings(&self, spec: &ModelSpec) -> Packings {
        let each = self.each(spec).into_iter();
        each.filter_map(|(name, packed)| Some((name, packed.ok()?))).collect()
    }

    /// Why some of them cannot be told; that only mixtures of experts have MXFP4 is no news.
    fn reasons(&self, spec: &ModelSpec) -> Vec<String> {
        let quiet = self.len() > 1;
        let own = match self {
            Self::Files(quants) if quiet => {
                let rest = quants.iter().copied().filter(|q| *q != Quant::Mxfp4).collect();
                &Self::Files(rest)
            }
            _ => self,
        };
        // One is enough to know whether the model can be told of.
        let first = match own {
            Self::Files(quants) => Self::Files(quants.iter().take(1).copied().collect()),
            Self::Checkpoints(kinds) => Self::Checkpoints(kinds[..1].to_vec()),
        };
        first.each(spec).into_iter().filter_map(|(_, p)| Some(format!("{:#}", p.err()?))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contexts_are_read_with_their_unit() {
        assert_eq!(tokens("8k").unwrap(), Tokens(8192));
        assert_eq!(tokens("128K").unwrap(), Tokens(131_072));
        assert_eq!(tokens("1000").unwrap(), Tokens(1000));
        for bad in ["", "0", "k", "-1", "99999999m", "8kk"] {
            assert!(tokens(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_committed_claims_are_what_the_program_says() {
        let mut made = Vec::new();
        Markdown.render(&claims_report().unwrap(), &mut made).unwrap();
        let made = String::from_utf8(made).unwrap();
        let committed = include_str!("../../reports/claims.md");
        for line in made.lines() {
            assert!(committed.contains(line), "remake it with bench fit --claims: {line}");
        }
    }

    #[derive(Debug, clap::Parser)]
    struct Flags {
        #[command(flatten)]
        fit: FitArgs,
    }

    fn args(words: &[&str]) -> Result<FitArgs, clap::Error> {
        let words = ["fit"].iter().chain(words);
        <Flags as clap::Parser>::try_parse_from(words).map(|flags| flags.fit)
    }

    #[test]
    fn a_file_names_its_model_and_its_quantisation_itself() {
        assert!(args(&["--gguf", "m.gguf"]).is_ok());
        assert!(args(&["--gguf", "m.gguf", "--quant", "Q8_0"]).is_err());
        assert!(args(&["--gguf", "m.gguf", "--model", "qwen3-8b"]).is_err());
    }

    #[test]
    fn the_least_speed_is_that_of_each_user() {
        let layout = Layout { slots: 8, slot_tokens: Tokens(8192), ..Layout::default() };
        let machine = Machine::parse("rtx-4090", &[]).unwrap();
        let spec = models::find("llama-3.1-8b").unwrap();
        let question = Question::new(layout, "llama.cpp");
        let answer = crate::fit::answer::ask(&machine, spec, Quant::Q4KM, &question).unwrap();
        let (alone, each) = (answer.decode.unwrap().value.0, answer.system.unwrap().value.0 / 8.0);
        let wanted = |users: &str, least: f64| {
            let least = least.to_string();
            is_wanted(&answer, &args(&["--users", users, "--min-tok-s", &least]).unwrap())
        };
        assert!(each < alone);
        assert!(wanted("1", 0.9 * alone) && !wanted("8", 0.9 * alone));
        assert!(wanted("8", 0.9 * each) && !wanted("8", 1.1 * each));
    }

    #[test]
    fn what_was_made_for_shorter_contexts_is_named() {
        let specs = ["llama-2-7b", "llama-3.1-8b"].map(|id| models::find(id).unwrap().clone());
        assert_eq!(too_long(&specs, Tokens(4096)), None);
        let line = too_long(&specs, Tokens(8192)).unwrap();
        assert_eq!(line, "left out: made for less than 8,192 tokens: llama-2-7b (4,096)");
    }

    #[test]
    fn ones_own_model_replaces_the_catalogued_one_of_its_id() {
        let mut own = models::find("qwen3-8b").unwrap().clone();
        own.layers = 40;
        let own = [own];
        let all = super::models(&["all".to_owned()], &own).unwrap();
        assert_eq!(all.len(), models::all().len());
        let of_id: Vec<u32> = all.iter().filter(|s| s.id == "qwen3-8b").map(|s| s.layers).collect();
        assert_eq!(of_id, [40]);
    }

    #[test]
    fn vllm_takes_checkpoints_and_llama_cpp_takes_files() {
        let named = |words: &[&str], is_vllm| {
            let words: Vec<String> = words.iter().map(|w| (*w).to_owned()).collect();
            Quants::of(&words, is_vllm).map(|q| q.len())
        };
        assert_eq!(named(&[], false).unwrap(), 1);
        assert_eq!(named(&["all"], false).unwrap(), 11);
        assert_eq!(named(&["fp8", "awq"], true).unwrap(), 2);
        assert!(named(&["Q4_K_M"], true).err().unwrap().to_string().contains("BF16, FP8"));
        assert!(named(&["Q4_KM"], false).is_err());
    }
}
