//! Engines whose steps were measured: the sweeps in folders of results.

use anyhow::{bail, ensure};

use crate::cmd::step_times::{self, MeasuredSteps};
use crate::fit::basis::Basis;
use crate::fit::machine::Machine;
use crate::record::Record;
use crate::units::{ABSENT, Share, grouped};
use crate::workload::Mix;

use super::engines::{Choice, EngineArgs, EngineName, Machinery, Room};

/// The engines in the results that the flags name, each a machine of its own.
pub fn choose(args: &EngineArgs, mix: &Mix) -> anyhow::Result<Choice> {
    let own = super::super::own::catalog(args.catalog.as_deref())?;
    let machine = match args.device.as_slice() {
        [] => None,
        [word] => Some(Machine::parse(word, &own.devices)?),
        _ => bail!("--results are of one machine; name that one alone with --device"),
    };
    let mut sweeps: Vec<MeasuredSteps> = Vec::new();
    for folder in &args.results {
        sweeps.extend(step_times::of_sweeps(folder)?);
    }
    let all: Vec<String> = sweeps.iter().map(|steps| words(row(steps))).collect();
    sweeps.retain(|steps| is_wanted(args, row(steps)));
    let Some(first) = sweeps.first() else {
        bail!(
            "no step times of what is asked in these results{}; measure them with a [[matrix]] \
             that has 'calibrate = true', as in: bench run scenarios/capacity.toml",
            if all.is_empty() { String::new() } else { format!(": they have {}", all.join("; ")) }
        );
    };
    let (model, quant) = (row(first).model.clone(), row(first).quant.clone());
    let other = sweeps.iter().map(row).find(|r| r.model != model || r.quant != quant);
    if let Some(other) = other {
        bail!(
            "the results have several models: name one with --model and --quant: {model} {quant} or \
             {} {}",
            other.model,
            other.quant
        );
    }
    let host = &row(first).host;
    ensure!(
        sweeps.iter().all(|steps| row(steps).host == *host),
        "the results are of several machines; give those of one"
    );
    let machines = sweeps.iter().map(|steps| machinery(args, steps, machine.as_ref(), mix));
    Ok(Choice { machines: machines.collect(), left_out: Vec::new(), model, quant })
}

/// The first of its rows; there is always one.
fn row(steps: &MeasuredSteps) -> &Record {
    &steps.from[0]
}

fn words(record: &Record) -> String {
    format!("{} {} with {}", record.model, record.quant, record.engine)
}

fn is_wanted(args: &EngineArgs, record: &Record) -> bool {
    let is = |flag: &Option<String>, value: &str| {
        flag.as_ref().is_none_or(|flag| flag.eq_ignore_ascii_case(value))
    };
    is(&args.model, &record.model)
        && is(&args.quant, &record.quant)
        && args.engine.is_none_or(|engine| engine == engine_of(record))
}

/// The scheduler of a measured engine.
fn engine_of(record: &Record) -> EngineName {
    match record.engine.to_lowercase() {
        name if name.contains("vllm") => EngineName::Vllm,
        name if name.contains("ollama") => EngineName::Ollama,
        name if name.contains("candle") => EngineName::Candle,
        name if name.contains("mlx") => EngineName::Mlx,
        _ => EngineName::LlamaServer,
    }
}

fn machinery(
    args: &EngineArgs,
    steps: &MeasuredSteps,
    machine: Option<&Machine>,
    mix: &Mix,
) -> Machinery {
    let record = row(steps);
    let kind = engine_of(record);
    let (fit, room) = (&steps.fit, steps.room);
    let sequences = args.parallel.unwrap_or(room.sequences);
    let slots = Room::Slots { slots: sequences, tokens: mix.context };
    let cache = cache_tokens(record);
    let room = match kind {
        EngineName::Vllm => Room::Pool {
            tokens: cache.unwrap_or(u64::from(sequences) * u64::from(mix.context.0)),
            sequences,
            step_tokens: room.step_tokens,
        },
        _ => slots,
    };
    let mut engine = steps.as_seen(kind.with(fit.step.clone(), room));
    engine.name.clone_from(&record.engine);
    let machine_name = machine.map_or_else(|| record.host.clone(), |m| m.name.clone());
    let p95 = fit.error_p95.map_or(ABSENT.to_owned(), |p95| Share(p95).to_string());
    let mut sources = vec![format!(
        "Steps of {} on {}: fitted to {} measured steps in {}; of steps held back the time is off by \
         {} in the median and {p95} at the 95th percentile.",
        words(record),
        record.host,
        grouped(fit.steps as u64),
        steps.folder.display(),
        Share(fit.error_median),
    )];
    if fit.other_error_median.is_some() {
        sources.push(format!("Its requests say their slots: {}.", fit.batches.words()));
    }
    let (prompt, _) = mix.mean();
    if sequences > fit.sequences || prompt.0 > fit.prompt_tokens {
        sources.push(format!(
            "Beyond {} sequences or {} prompt tokens, which were measured, steps are extrapolated.",
            fit.sequences,
            grouped(u64::from(fit.prompt_tokens))
        ));
    }
    if kind == EngineName::Vllm {
        sources.push(match cache {
            Some(tokens) => format!("vLLM's cache held {} tokens, as it said.", grouped(tokens)),
            None => {
                "The size of vLLM's cache was not recorded: room for every sequence is assumed."
                    .to_owned()
            }
        });
    }
    Machinery {
        name: format!("{machine_name}, {}", record.engine),
        machine: machine.cloned(),
        ends: [fit.step.clone(), fit.step.clone()],
        options: vec![engine],
        basis: Basis::Measured,
        sources,
        is_here: false,
    }
}

/// Tokens that the server's cache held, where it said so.
fn cache_tokens(record: &Record) -> Option<u64> {
    let settings = record.effective_settings.as_deref()?;
    let said = |key: &str| {
        let word = settings.split_whitespace().find_map(|word| word.strip_prefix(key));
        word?.strip_prefix('=')?.parse::<u64>().ok()
    };
    said("cache_blocks")?.checked_mul(said("block_tokens")?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cache_of_a_server_is_its_blocks_times_their_size() {
        let of = |settings: &str| {
            let effective_settings = Some(settings.to_owned());
            cache_tokens(&Record { effective_settings, ..Record::default() })
        };
        assert_eq!(of("block_tokens=16 cache_blocks=1000 model=x"), Some(16_000));
        assert_eq!(of("block_tokens=16"), None);
        assert_eq!(of("block_tokens=16 cache_blocks=None"), None);
    }
}
