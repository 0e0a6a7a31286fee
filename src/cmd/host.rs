//! `bench host`: what this machine is and how fast its memory and its arithmetic are.

use std::path::Path;
use std::process::ExitCode;

use crate::catalog::hardware::{Device, Family, Kind};
use crate::catalog::identify::{self, Identified, Seen};
use crate::fit::machine::Machine;
use crate::host::stored::{self, Stored};
use crate::host::{self, Gpu, Host};
use crate::model::cache;
use crate::report::{Report, Section};
use crate::units::{Bytes, GbPerSecond, Tflops};

/// Flags of `bench host`.
#[derive(Debug, clap::Args)]
pub struct HostArgs {
    /// Measure the memory's bandwidth and the arithmetic speed, and keep them: `bench fit` then
    /// takes them for this machine
    #[arg(long)]
    probe: bool,
    /// How often to measure; the median counts
    #[arg(long, value_name = "N", default_value_t = 7, requires = "probe",
        value_parser = clap::value_parser!(u32).range(1..=100))]
    times: u32,
}

/// Runs the subcommand.
pub fn run(args: &HostArgs) -> anyhow::Result<ExitCode> {
    let host = host::describe();
    let cache = cache::dir()?;
    if args.probe {
        let stored = probe(&host, args.times)?;
        stored::write(&cache, &stored)?;
    }
    let stored = stored::read(&cache, &host.label)?;
    super::show(&page(&host, stored.as_ref(), &cache), false)?;
    Ok(ExitCode::SUCCESS)
}

fn probe(host: &Host, times: u32) -> anyhow::Result<Stored> {
    let probes = (0..times)
        .map(|_| host::probe(host.cpu.usable_threads))
        .collect::<anyhow::Result<Vec<_>>>()?;
    Ok(Stored {
        host: host.label.clone(),
        taken: jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        bench_version: env!("CARGO_PKG_VERSION").to_owned(),
        probes,
    })
}

fn page(host: &Host, stored: Option<&Stored>, cache: &Path) -> Report {
    let mut text = vec![
        format!("processor: {}, {} usable threads", host.cpu.model, host.cpu.usable_threads),
        format!("memory: {}", host.memory.total),
    ];
    text.extend(recognised(host));
    match stored.and_then(speeds) {
        Some(speeds) => {
            text.push(speeds);
            text.push(format!("kept in {}", stored::path(cache).display()));
        }
        None => text.push("speed: not measured yet: bench host --probe".to_owned()),
    }
    let section = Section { text, ..Section::default() };
    Report { title: host.label.clone(), sections: vec![section] }
}

/// The stored speeds in a sentence.
fn speeds(stored: &Stored) -> Option<String> {
    let (low, high) = stored.range()?;
    Some(format!(
        "reads {} of memory (from {low} to {high}), {} in 32 bits: the median of {} probes, {}",
        stored.read_bandwidth()?,
        stored.compute()?,
        stored.probes.len(),
        stored.taken
    ))
}

/// What the catalogue calls each GPU, or the chip, of a machine; a line for each.
pub fn recognised(host: &Host) -> Vec<String> {
    let line = |found: Identified| {
        let doubt = found.doubt.map_or_else(String::new, |doubt| format!(" ({doubt})"));
        format!("is '{}' by its {}{doubt}", found.device.id, found.by)
    };
    let mut lines: Vec<String> = host
        .gpus
        .iter()
        .map(|gpu| match identify::gpu(&seen(gpu), host.memory.total) {
            Ok(found) => format!("{}: {}", gpu.name, line(found)),
            Err(why) => format!("{}: {why}", gpu.name),
        })
        .collect();
    if host.gpus.is_empty() {
        let chip = identify::chip(&host.cpu.model, host.cpu.physical_cores);
        lines.extend(chip.map(|found| format!("{}: {}", host.cpu.model, line(found))));
    }
    lines
}

fn seen(gpu: &Gpu) -> Seen<'_> {
    Seen { name: &gpu.name, pci_id: gpu.pci_id.as_deref(), memory: gpu.memory }
}

/// Speeds of a processor, and where they come from.
#[derive(Clone, Debug, PartialEq)]
pub struct Speeds {
    /// Reading from memory.
    pub bandwidth: GbPerSecond,
    /// Arithmetic.
    pub compute: Tflops,
    /// Where they come from.
    pub source: String,
}

/// The speeds of this machine: the stored ones, else those of a probe now.
///
/// Without any (a build without optimisation cannot measure), an error in words.
pub fn this_machines_speeds(host: &Host) -> Result<Speeds, String> {
    let kept = cache::dir().and_then(|cache| stored::read(&cache, &host.label));
    if let Some(stored) = kept.map_err(|e| format!("{e:#}"))?
        && let (Some(bandwidth), Some(compute)) = (stored.read_bandwidth(), stored.compute())
    {
        let (n, taken) = (stored.probes.len(), &stored.taken);
        let source = format!("the median of {n} probes of {taken} (bench host)");
        return Ok(Speeds { bandwidth, compute, source });
    }
    let probe = host::probe(host.cpu.usable_threads).map_err(|e| format!("{e:#}"))?;
    let source = "one probe just now; bench host --probe keeps the median of several".to_owned();
    Ok(Speeds { bandwidth: probe.read_bandwidth, compute: probe.compute, source })
}

/// A described machine as one that models can be placed on: its GPUs or its chip as the catalogue
/// knows them, else its processor at `speeds`.
pub fn machine(host: &Host, speeds: Option<&Speeds>) -> Machine {
    let processor = processor(host, speeds);
    let name = host.label.clone();
    let cards: Vec<Device> = host
        .gpus
        .iter()
        .filter_map(|gpu| {
            let mut device = identify::gpu(&seen(gpu), host.memory.total).ok()?.device.clone();
            // What the driver says here is truer than the catalogue, but for shared memory it
            // says only what the firmware has set aside.
            device.memory = match device.kind {
                Kind::Gpu => gpu.memory.or(device.memory),
                Kind::Unified | Kind::Cpu => shared_memory(host, gpu),
            };
            Some(device)
        })
        .collect();
    if let Some(first) = cards.first() {
        // A processor's own graphics beside cards takes no part.
        let only_cards: Vec<Device> =
            cards.iter().filter(|d| d.kind == Kind::Gpu).cloned().collect();
        return if only_cards.is_empty() {
            Machine { name, devices: vec![first.clone()], host: None }
        } else {
            Machine { name, devices: only_cards, host: Some(processor) }
        };
    }
    let chip = identify::chip(&host.cpu.model, host.cpu.physical_cores)
        .filter(|found| found.device.family.is_apple());
    if let Some(found) = chip {
        let mut device = found.device.clone();
        device.memory = Some(host.memory.total);
        return Machine { name, devices: vec![device], host: None };
    }
    Machine { name, devices: vec![processor], host: None }
}

fn shared_memory(host: &Host, gpu: &Gpu) -> Option<Bytes> {
    Some(Bytes(host.memory.total.0 + gpu.memory.map_or(0, |m| m.0)))
}

fn processor(host: &Host, speeds: Option<&Speeds>) -> Device {
    Device {
        id: "this-machine".to_owned(),
        name: host.cpu.model.clone(),
        vendor: String::new(),
        kind: Kind::Cpu,
        family: Family::Cpu,
        memory: Some(host.memory.total),
        memory_label_gb: None,
        bandwidth: speeds.map(|s| s.bandwidth),
        fp16: speeds.map(|s| s.compute),
        gpu_cores: None,
        power: None,
        idle_power: None,
        list_price: None,
        street_price: None,
        source: speeds.map_or_else(|| "not measured".to_owned(), |s| s.source.clone()),
        notes: String::new(),
    }
}
