//! `bench doctor`: what this machine is, what can be measured on it, and what to put right first.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use crate::host::{self, Host, PowerSource, Probe};
use crate::runner::child::Child;
use crate::runner::{Version, locate};
use crate::scenario::{ENGINES, remedy};
use crate::units::{self, Bytes};
use crate::watch::{Observed, Watch};

/// Flags of `bench doctor`.
#[derive(Debug, clap::Args)]
pub struct DoctorArgs {
    /// Leave out what needs the machine for a moment: the probe of its speed (0.4 s) and the look
    /// at other programs (1 s).
    #[arg(long)]
    quick: bool,
}

/// The version receipt of an engine, or the line to type where it is missing.
#[derive(Clone, Debug, PartialEq)]
pub struct EngineReceipt {
    /// The engine's name.
    pub engine: String,
    /// What would be measured, or why nothing would.
    pub found: Result<Version, String>,
    /// In words why a build for a GPU was passed over.
    pub passed_over: Vec<String>,
}

/// Everything that is shown.
struct Findings {
    host: Host,
    /// The machine while nothing was asked of it.
    idle: Option<Observed>,
    probe: Option<Result<Probe, String>>,
    /// Version and folder of the CUDA compiler.
    toolkit: Option<String>,
    engines: Vec<EngineReceipt>,
    cache: PathBuf,
    cache_free: Option<Bytes>,
    /// An NVIDIA GPU is plugged in, whether or not its driver is there.
    nvidia_card: bool,
    optimised: bool,
}

/// Runs the subcommand.
pub fn run(args: &DoctorArgs) -> anyhow::Result<ExitCode> {
    let host = host::describe();
    let idle = (!args.quick).then(|| {
        let watch = Watch::start_trees(&[]);
        std::thread::sleep(Duration::from_secs(1));
        watch.finish()
    });
    let probe =
        (!args.quick).then(|| host::probe(host.cpu.usable_threads).map_err(|e| format!("{e:#}")));
    let cache = crate::model::cache::dir()?;
    let findings = Findings {
        idle,
        probe,
        toolkit: toolkit(&cache),
        engines: receipts(&super::run::runners_dir()?),
        cache_free: host::free_disk(&cache),
        cache,
        nvidia_card: host::has_nvidia_card(),
        optimised: !cfg!(debug_assertions),
        host,
    };
    std::io::Write::write_all(&mut std::io::stdout().lock(), page(&findings).as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

/// The CUDA compiler that `make cuda` would use: an installed one, or the one that it has fetched
/// beside the model cache.
fn toolkit(cache: &Path) -> Option<String> {
    let variables = ["CUDA_PATH", "CUDA_HOME"].iter().filter_map(std::env::var_os);
    let installed = ["/usr/local/cuda", "/opt/cuda"].map(PathBuf::from);
    let fetched = cache.parent().map(|folder| folder.join("cuda-13.0"));
    variables.map(PathBuf::from).chain(installed).chain(fetched).find_map(|root| {
        let output =
            std::process::Command::new(root.join("bin/nvcc")).arg("--version").output().ok()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let release = text.split("release ").nth(1)?.split(',').next()?.trim().to_owned();
        Some(format!("{release} in {}", root.display()))
    })
}

/// How long a runner may take to say its version: a GPU's driver may have to wake.
const HELLO: Duration = Duration::from_secs(20);

/// Asks each engine's runner for its version; `more` is a folder of runners.
pub fn receipts(more: &Path) -> Vec<EngineReceipt> {
    // Servers are reached by an address, which a scenario knows.
    let engines = ENGINES.iter().filter(|e| !e.server);
    engines
        .map(|e| {
            let found = locate::locate(e.name, more);
            let passed_over = found.as_ref().map_or_else(Vec::new, |f| f.passed_over.clone());
            let found = receipt(e.name, found.map(|f| f.program));
            EngineReceipt { engine: e.name.to_owned(), found, passed_over }
        })
        .collect()
}

fn receipt(engine: &str, program: Option<PathBuf>) -> Result<Version, String> {
    let program = program.ok_or_else(|| format!("missing: {}", remedy(engine)))?;
    let broken = |why: String| format!("does not start ({why}): {}", remedy(engine));
    let mut child = Child::start(&program, &[]).map_err(|e| broken(format!("{e:#}")))?;
    let hello = child.hello(HELLO).map_err(|e| broken(e.to_string()));
    child.finish();
    hello.map(|(_, version)| version)
}

/// Columns of a terminal, and of the names at the left.
const WIDTH: usize = 80;
const NAMES: usize = 14;

/// The page as text.
fn page(findings: &Findings) -> String {
    let mut page = Page::default();
    machine(findings, &mut page);
    page.heading("Engines");
    for receipt in &findings.engines {
        let text = match &receipt.found {
            Ok(v) => format!("{}  {}  {}", v.version, v.backend, v.build),
            Err(missing) => missing.clone(),
        };
        page.line(&receipt.engine, text.trim());
    }
    let warnings = warnings(findings);
    page.heading(if warnings.is_empty() { "Nothing to put right" } else { "To put right" });
    for (what, remedy) in &warnings {
        page.item(&format!("{what}: {remedy}"));
    }
    page.0
}

fn machine(findings: &Findings, page: &mut Page) {
    let Host { label, gpu_absent, power_source, cpu, memory, os, limits, gpus } = &findings.host;
    page.heading(label);
    let cache = cpu.last_level_cache.map(|c| match c.count {
        1 => format!("{} last-level cache", c.size),
        n => format!("{n} × {} last-level cache", c.size),
    });
    let nodes = cpu.memory_nodes.filter(|n| *n > 1).map(|n| format!("{n} memory nodes"));
    page.parts(
        "Processor",
        [
            Some(cpu.model.clone()),
            cpu.physical_cores.map(|n| count(n, "core")),
            Some(count(cpu.logical_cores, "thread")),
            cache,
            nodes,
            (cpu.virtual_machine == Some(true)).then(|| "virtual machine".to_owned()),
        ],
    );
    page.line("Instructions", &cpu.instruction_sets.join(" "));
    page.parts(
        "Memory",
        [
            Some(memory.total.to_string()),
            Some(format!("{} free", host::available_memory())),
            Some(match memory.swap {
                Bytes(0) => "no swap".to_owned(),
                swap => format!("{swap} swap"),
            }),
            memory.page.map(|p| format!("pages of {p}")),
            memory.huge_pages.as_ref().map(|h| format!("huge pages: {h}")),
        ],
    );
    page.parts(
        "System",
        [
            Some(os.name.clone()),
            os.kernel.as_ref().map(|k| format!("kernel {k}")),
            Some(os.architecture.clone()),
        ],
    );
    let source = match power_source {
        Some(PowerSource::NoBattery) => "no battery",
        Some(PowerSource::Mains) => "on mains",
        Some(PowerSource::Battery) => "on battery",
        None => "source unknown",
    };
    let governor = cpu.governor.as_ref().map(|g| format!("governor {g}"));
    let counter = findings.idle.as_ref().map(|idle| match idle.absent.get("package_energy") {
        None => "energy counter of the processor".to_owned(),
        Some(why) => why.clone(),
    });
    page.parts(
        "Power",
        [
            Some(source.to_owned()),
            Some(governor.unwrap_or_else(|| "no governor shown".to_owned())),
            counter,
        ],
    );
    if limits.cpu_cores.is_some() || limits.memory.is_some() {
        page.parts(
            "Container",
            [
                limits.cpu_cores.map(|c| format!("at most {} cores", units::significant(c, 2))),
                limits.memory.map(|m| format!("at most {m}")),
            ],
        );
    }
    for gpu in gpus {
        page.parts(
            "GPU",
            [
                Some(gpu.name.clone()),
                gpu.memory.map(|m| m.both()),
                gpu.driver.as_ref().map(|d| format!("driver {d}")),
                gpu.cuda.as_ref().map(|c| format!("CUDA {c}")),
                gpu.compute_capability.as_ref().map(|c| format!("compute capability {c}")),
                gpu.power_limit.map(|p| format!("limited to {p}")),
                gpu.pcie.as_ref().map(|p| format!("PCIe {p}")),
            ],
        );
    }
    for line in super::host::recognised(&findings.host) {
        page.line("Catalogue", &line);
    }
    if let Some(why) = gpu_absent {
        page.line("GPU", &format!("none: {why}"));
    }
    match &findings.toolkit {
        Some(toolkit) => page.line("CUDA toolkit", toolkit),
        None if gpus.iter().any(|gpu| gpu.cuda.is_some()) => {
            page.line("CUDA toolkit", "none; make cuda fetches one");
        }
        None => {}
    }
    match &findings.probe {
        Some(Ok(probe)) => page.parts(
            "Speed",
            [
                Some(format!("reads {} of memory", probe.read_bandwidth)),
                Some(format!("{} in 32 bits", probe.compute)),
                Some(format!("with {}", count(probe.threads, "thread"))),
            ],
        ),
        Some(Err(why)) => page.line("Speed", &format!("not measured: {why}")),
        None => {}
    }
    let free = units::or_absent(findings.cache_free);
    page.line("Model cache", &format!("{free} free in {}", findings.cache.display()));
}

/// What would spoil measurements here, each with what to do about it.
fn warnings(findings: &Findings) -> Vec<(String, String)> {
    let host = &findings.host;
    let mut warnings = Vec::new();
    let mut warn = |what: String, remedy: &str| warnings.push((what, remedy.to_owned()));
    if !findings.optimised {
        warn("this build is not optimised".to_owned(), "cargo build --release");
    }
    if !host.cpu.unused_instruction_sets.is_empty() && findings.optimised {
        warn(
            format!("this build leaves {} unused", host.cpu.unused_instruction_sets.join(" ")),
            "build it on this machine, inside the repository, so that .cargo/config.toml counts",
        );
    }
    if let Some(governor) = host.cpu.governor.as_ref().filter(|g| *g != "performance") {
        warn(
            format!("the governor '{governor}' lets the clocks wander"),
            "sudo cpupower frequency-set -g performance",
        );
    }
    if host.power_source == Some(PowerSource::Battery) {
        warn("the machine runs on its battery".to_owned(), "plug it in");
    }
    let busy = findings.idle.as_ref().and_then(|idle| idle.whole.other_cores());
    // As in a row's marks.
    if let Some(cores) = busy.filter(|c| *c > 0.1) {
        warn(
            format!("other programs keep {} cores busy", units::significant(cores, 2)),
            "end them before you measure; top shows them",
        );
    }
    if let Some(cores) = host.limits.cpu_cores.filter(|c| *c < f64::from(host.cpu.logical_cores)) {
        warn(
            format!(
                "the container stops programs that use more than {} cores",
                units::significant(cores, 2)
            ),
            "give it whole cores (docker run --cpuset-cpus) instead of a share of time",
        );
    }
    if let (true, true, Some(why)) =
        (findings.nvidia_card, host.gpus.is_empty(), host.gpu_absent.as_ref())
    {
        warn(
            format!("an NVIDIA GPU is plugged in and cannot be used ({why})"),
            "install its driver; nvidia-smi has to list the GPU",
        );
    }
    for receipt in &findings.engines {
        for why in &receipt.passed_over {
            warn(
                format!("{} computes on the CPU ({why})", receipt.engine),
                "update the driver, or build again with make cuda",
            );
        }
    }
    let cuda = host.gpus.iter().find_map(|gpu| gpu.cuda.as_deref());
    let release = findings.toolkit.as_deref().and_then(|toolkit| toolkit.split(' ').next());
    if let Some((driver, release)) = cuda.zip(release).filter(|(d, r)| is_older(d, r)) {
        warn(
            format!("the driver knows CUDA {driver} at most, and the toolkit is {release}"),
            "update the driver, or set CUDA_PATH to an older toolkit",
        );
    }
    let built = |receipt: &EngineReceipt| {
        receipt.found.as_ref().is_ok_and(|v| v.backend.split(' ').any(|d| d != "CPU"))
    };
    if host.gpus.iter().any(|gpu| gpu.cuda.is_some()) && !findings.engines.iter().any(built) {
        warn("no engine here computes on the GPU".to_owned(), "make cuda");
    }
    if let Some(free) = findings.cache_free.filter(|f| *f < Bytes::from_gib(10.0)) {
        warn(
            format!("{free} are free for models"),
            "free some disk, or remove cached models with bench model",
        );
    }
    if let Some(Err(why)) = &findings.probe
        && findings.optimised
    {
        warn("the machine's own speed could not be measured".to_owned(), why);
    }
    warnings
}

/// Whether the version `a`, such as `12.8`, comes before `b`.
fn is_older(a: &str, b: &str) -> bool {
    let numbers =
        |text: &str| text.split('.').map(str::parse::<u32>).collect::<Result<Vec<_>, _>>();
    numbers(a).ok().zip(numbers(b).ok()).is_some_and(|(a, b)| a < b)
}

fn count(n: u32, noun: &str) -> String {
    if n == 1 { format!("1 {noun}") } else { format!("{n} {noun}s") }
}

/// Lines of a terminal, broken between words.
#[derive(Default)]
struct Page(String);

impl Page {
    fn heading(&mut self, text: &str) {
        if !self.0.is_empty() {
            self.0.push('\n');
        }
        self.0.push_str(text);
        self.0.push('\n');
    }

    fn line(&mut self, name: &str, text: &str) {
        self.wrapped(&format!("  {name:NAMES$}"), text);
    }

    fn item(&mut self, text: &str) {
        self.wrapped("  - ", text);
    }

    fn parts<const N: usize>(&mut self, name: &str, parts: [Option<String>; N]) {
        let parts: Vec<String> = parts.into_iter().flatten().collect();
        self.line(name, &parts.join(", "));
    }

    fn wrapped(&mut self, first: &str, text: &str) {
        let indent = first.chars().count();
        let mut column = indent;
        self.0.push_str(first);
        for (i, word) in text.split_whitespace().enumerate() {
            let length = word.chars().count();
            if i > 0 && column + 1 + length > WIDTH {
                self.0.push('\n');
                self.0.push_str(&" ".repeat(indent));
                column = indent;
            } else if i > 0 {
                self.0.push(' ');
                column += 1;
            }
            self.0.push_str(word);
            column += length;
        }
        self.0.push('\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::{GbPerSecond, Nanos, Tflops};
    use crate::watch::Lap;

    fn healthy() -> Findings {
        let mut host = host::describe();
        host.cpu.governor = Some("performance".to_owned());
        host.cpu.unused_instruction_sets = Vec::new();
        host.limits = host::Limits::default();
        host.power_source = Some(PowerSource::NoBattery);
        Findings {
            host,
            idle: None,
            probe: Some(Ok(Probe {
                read_bandwidth: GbPerSecond(36.1),
                compute: Tflops(0.234),
                threads: 2,
                buffer: Bytes(192 << 20),
                took: Nanos(330_000_000),
            })),
            toolkit: None,
            engines: vec![
                EngineReceipt {
                    engine: "candle".to_owned(),
                    found: Ok(Version {
                        version: "0.11.1".to_owned(),
                        build: "avx2 fma avx512f avx512vnni".to_owned(),
                        backend: "CPU".to_owned(),
                    }),
                    passed_over: Vec::new(),
                },
                EngineReceipt {
                    engine: "llama.cpp".to_owned(),
                    found: Err("missing: make llama-cpp".to_owned()),
                    passed_over: Vec::new(),
                },
            ],
            cache: PathBuf::from("/var/cache/bench"),
            cache_free: Some(Bytes::from_gib(120.0)),
            nvidia_card: false,
            optimised: true,
        }
    }

    #[test]
    fn a_healthy_machine_has_nothing_to_put_right() {
        let text = page(&healthy());
        assert!(text.contains("Nothing to put right"), "{text}");
        assert!(text.contains("reads 36.1 GB/s of memory, 0.234 TFLOP/s in 32 bits"), "{text}");
        assert!(text.contains("llama.cpp     missing: make llama-cpp"), "{text}");
        assert!(text.contains("120 GiB free in /var/cache/bench"), "{text}");
    }

    #[test]
    fn a_gpu_without_an_engine_for_it_and_one_that_is_passed_over_are_told() {
        let mut findings = healthy();
        findings.host.gpus = vec![host::Gpu {
            name: "NVIDIA H200".to_owned(),
            uuid: Some("GPU-1".to_owned()),
            memory: None,
            driver: Some("570.10".to_owned()),
            cuda: Some("12.8".to_owned()),
            compute_capability: Some("9.0".to_owned()),
            ..host::Gpu::default()
        }];
        findings.engines[0].passed_over = vec!["bench-candle-cuda: it sees no GPU".to_owned()];
        let text = page(&findings).split_whitespace().collect::<Vec<_>>().join(" ");
        for part in [
            "driver 570.10, CUDA 12.8, compute capability 9.0",
            "CUDA toolkit none; make cuda fetches one",
            "candle computes on the CPU (bench-candle-cuda: it sees no GPU): update the driver",
            "no engine here computes on the GPU: make cuda",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        if let Ok(version) = &mut findings.engines[0].found {
            version.backend = "CPU CUDA".to_owned();
        }
        findings.toolkit = Some("13.0 in /usr/local/cuda".to_owned());
        let text = page(&findings);
        assert!(!text.contains("no engine here"), "{text}");
        assert!(text.contains("13.0 in /usr/local/cuda"), "{text}");
        assert!(text.contains("the driver knows CUDA 12.8 at most, and the toolkit is"), "{text}");
        findings.host.gpus[0].cuda = Some("13.0".to_owned());
        assert!(!page(&findings).contains("at most, and"));
        assert!(is_older("9.2", "12.0") && !is_older("13.1", "13.0") && !is_older("new", "13.0"));
    }

    #[test]
    fn each_trouble_comes_with_its_remedy() {
        let mut findings = healthy();
        findings.host.cpu.governor = Some("powersave".to_owned());
        findings.host.cpu.unused_instruction_sets = vec!["avx512f".to_owned()];
        findings.host.power_source = Some(PowerSource::Battery);
        findings.host.gpus = Vec::new();
        findings.host.gpu_absent = Some("no NVIDIA driver".to_owned());
        findings.nvidia_card = true;
        findings.cache_free = Some(Bytes::from_gib(2.0));
        let whole = Lap {
            time: Nanos(1_000_000_000),
            other_cpu: Some(Nanos(1_500_000_000)),
            ..Lap::default()
        };
        findings.idle = Some(Observed { whole, ..Observed::default() });
        let text = page(&findings);
        for part in [
            "cpupower frequency-set -g performance",
            "leaves avx512f unused",
            "plug it in",
            "nvidia-smi",
            "2.00 GiB are free",
            "keep 1.5 cores busy",
        ] {
            let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
            assert!(words.contains(part), "'{part}' is not in {text}");
        }
    }

    #[test]
    fn the_page_fits_a_terminal_of_80_columns() {
        let mut findings = healthy();
        findings.host.cpu.governor = Some("powersave".to_owned());
        findings.host.gpu_absent = Some("because ".repeat(30));
        for line in page(&findings).lines() {
            assert!(line.chars().count() <= WIDTH, "{line}");
        }
    }

    #[test]
    fn a_gpu_is_named_as_the_catalogue_knows_it_by_its_pci_id() {
        let mut findings = healthy();
        let card = |name: &str, id: &str, gib: f64| host::Gpu {
            name: name.to_owned(),
            pci_id: Some(id.to_owned()),
            memory: Some(Bytes::from_gib(gib)),
            ..host::Gpu::default()
        };
        let name = "NVIDIA GeForce RTX 4090";
        findings.host.gpus = vec![
            card(name, "10de:2684", 23.99),
            card(name, "10de:2757", 15.99),
            card("NVIDIA GeForce GTX 1080", "10de:1b80", 8.0),
        ];
        let text = page(&findings).split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(text.contains("is 'rtx-4090' by its PCI id 10de:2684"), "{text}");
        assert!(text.contains("is 'rtx-4090-laptop' by its PCI id 10de:2757"), "{text}");
        assert!(text.contains("(PCI id 10de:1b80) is not in the catalogue"), "{text}");
    }
}
