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
use crate::units::{GbPerSecond, Tflops};

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
            text.extend(stored.filter(|s| is_unsteady(s)).map(|_| {
                "the probes differ by more than a quarter: end other programs and measure again"
                    .to_owned()
            }));
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

/// Whether something else used the memory while some of the probes ran.
fn is_unsteady(stored: &Stored) -> bool {
    stored.range().is_some_and(|(low, high)| high.0 > 1.25 * low.0)
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

/// The speeds of this machine: the stored ones, else those that its records hold, else those of a
/// probe now.
///
/// Without any (a build without optimisation cannot measure), an error in words.
pub fn this_machines_speeds(host: &Host, recorded: Option<Speeds>) -> Result<Speeds, String> {
    let kept = cache::dir().and_then(|cache| stored::read(&cache, &host.label));
    if let Some(stored) = kept.map_err(|e| format!("{e:#}"))?
        && let (Some(bandwidth), Some(compute)) = (stored.read_bandwidth(), stored.compute())
    {
        let (n, taken) = (stored.probes.len(), &stored.taken);
        let source = format!("the median of {n} probes of {taken} (bench host)");
        return Ok(Speeds { bandwidth, compute, source });
    }
    if let Some(recorded) = recorded {
        return Ok(recorded);
    }
    let probe = host::probe(host.cpu.usable_threads).map_err(|e| format!("{e:#}"))?;
    let source = "one probe just now; bench host --probe keeps the median of several".to_owned();
    Ok(Speeds { bandwidth: probe.read_bandwidth, compute: probe.compute, source })
}

/// A described machine as one that models can be placed on: its GPUs or its chip as the catalogue
/// knows them, else its processor at `speeds`.
pub fn machine(host: &Host, speeds: Option<&Speeds>) -> Machine {
    let processor = processor(host, speeds);
    let memory = host.memory_within_limits();
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
                Kind::Unified | Kind::Cpu => Some(identify::built_in(&device, memory, gpu.memory)),
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
        device.memory = Some(memory);
        return Machine { name, devices: vec![device], host: None };
    }
    Machine { name, devices: vec![processor], host: None }
}

fn processor(host: &Host, speeds: Option<&Speeds>) -> Device {
    Device {
        id: "this-machine".to_owned(),
        name: host.cpu.model.clone(),
        vendor: String::new(),
        kind: Kind::Cpu,
        family: Family::Cpu,
        memory: Some(host.memory_within_limits()),
        memory_label_gb: None,
        bandwidth: speeds.map(|s| s.bandwidth),
        link: None,
        link_peers: None,
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::Bytes;

    fn card(name: &str, pci_id: &str, gib: f64) -> Gpu {
        Gpu {
            name: name.to_owned(),
            pci_id: Some(pci_id.to_owned()),
            memory: Some(Bytes::from_gib(gib)),
            ..Gpu::default()
        }
    }

    fn host(gpus: Vec<Gpu>) -> Host {
        let mut host = host::describe();
        host.label = "a-machine".to_owned();
        host.cpu.model = "AMD EPYC".to_owned();
        host.memory.total = Bytes::from_gib(64.0);
        host.gpus = gpus;
        host
    }

    fn speeds() -> Speeds {
        Speeds { bandwidth: GbPerSecond(40.0), compute: Tflops(0.2), source: "a test".to_owned() }
    }

    #[test]
    fn cards_are_those_of_the_catalogue_with_the_memory_that_their_driver_states() {
        let gpus = vec![card("x", "10de:2684", 23.5), card("x", "10de:2757", 15.9)];
        let machine = machine(&host(gpus), Some(&speeds()));
        let ids: Vec<&str> = machine.devices.iter().map(|d| d.id.as_str()).collect();
        assert_eq!(ids, ["rtx-4090", "rtx-4090-laptop"]);
        assert_eq!(machine.devices[0].memory, Some(Bytes::from_gib(23.5)));
        assert_eq!(machine.host.unwrap().bandwidth, Some(GbPerSecond(40.0)));
    }

    #[test]
    fn a_gpu_that_shares_memory_has_the_machines() {
        let machine = machine(&host(vec![card("x", "1002:1586", 64.0)]), None);
        assert_eq!(machine.devices[0].id, "strix-halo-395");
        assert_eq!(machine.devices[0].memory, Some(Bytes::from_gib(128.0)));
        assert_eq!(machine.host, None);
    }

    #[test]
    fn a_container_leaves_the_memory_of_its_limit() {
        let mut host = host(Vec::new());
        host.limits.memory = Some(Bytes::from_gib(16.0));
        assert_eq!(machine(&host, None).devices[0].memory, Some(Bytes::from_gib(16.0)));
        host.gpus = vec![card("x", "10de:2684", 23.5)];
        assert_eq!(machine(&host, None).host.unwrap().memory, Some(Bytes::from_gib(16.0)));
        // What the firmware has set aside for the GPU is in no container's count.
        host.gpus = vec![card("x", "1002:1586", 64.0)];
        assert_eq!(machine(&host, None).devices[0].memory, Some(Bytes::from_gib(80.0)));
        host.gpus.clear();
        host.limits.memory = Some(Bytes::from_gib(1e3));
        assert_eq!(machine(&host, None).devices[0].memory, Some(Bytes::from_gib(64.0)));
    }

    #[test]
    fn without_a_gpu_the_processor_has_the_speeds_that_were_measured() {
        let machine = machine(&host(Vec::new()), Some(&speeds()));
        assert_eq!(machine.devices[0].id, "this-machine");
        assert_eq!(machine.devices[0].bandwidth, Some(GbPerSecond(40.0)));
        assert_eq!(machine.devices[0].source, "a test");
    }

    #[test]
    fn an_apple_chip_is_its_row_with_the_memory_that_is_built_in() {
        let mut mac = host(Vec::new());
        mac.cpu.model = "Apple M4 Max".to_owned();
        mac.cpu.physical_cores = Some(16);
        let machine = machine(&mac, None);
        assert_eq!(machine.devices[0].id, "apple-m4-max");
        assert_eq!(machine.devices[0].memory, Some(Bytes::from_gib(64.0)));
    }

    #[test]
    fn the_page_says_what_was_measured_where_and_when_or_how_to() {
        let folder = Path::new("/var/cache/bench");
        let shown = |stored: Option<&Stored>| {
            let page = page(&host(Vec::new()), stored, folder);
            page.sections[0].text.join("\n")
        };
        assert!(shown(None).contains("bench host --probe"));
        let probe = host::Probe {
            read_bandwidth: GbPerSecond(36.1),
            compute: Tflops(0.234),
            threads: 2,
            buffer: Bytes(192 << 20),
            took: crate::units::Nanos(330_000_000),
        };
        let stored = Stored {
            host: "a-machine".to_owned(),
            taken: "2026-11-21T10:00:00Z".to_owned(),
            bench_version: "0.1.0".to_owned(),
            probes: vec![probe],
        };
        let mut slower = probe;
        slower.read_bandwidth = GbPerSecond(20.0);
        let unsteady = Stored { probes: vec![probe, slower], ..stored.clone() };
        assert!(shown(Some(&unsteady)).contains("end other programs"));
        assert!(!shown(Some(&stored)).contains("end other programs"));
        let text = shown(Some(&stored));
        for part in ["reads 36.1 GB/s", "2026-11-21T10:00:00Z", "/var/cache/bench/probe.json"] {
            assert!(text.contains(part), "{text}");
        }
    }
}
