//! `bench setup`: installs the runners that are not built with this program.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::runner::Version;
use crate::runner::install::{Package, Step};

/// The runner of MLX, so that an installed `bench` needs no source tree.
const MLX: Package = Package {
    engine: "mlx",
    module: "bench_mlx",
    python: (3, 10),
    files: &[
        ("pyproject.toml", include_str!("../../runners/mlx/pyproject.toml")),
        ("bench_mlx/__init__.py", include_str!("../../runners/mlx/bench_mlx/__init__.py")),
        ("bench_mlx/__main__.py", include_str!("../../runners/mlx/bench_mlx/__main__.py")),
        ("bench_mlx/engine.py", include_str!("../../runners/mlx/bench_mlx/engine.py")),
        ("bench_mlx/protocol.py", include_str!("../../runners/mlx/bench_mlx/protocol.py")),
        ("bench_mlx/queue.py", include_str!("../../runners/mlx/bench_mlx/queue.py")),
    ],
};

/// Flags of `bench setup`.
#[derive(Args, Debug)]
pub struct SetupArgs {
    /// The engine to install.
    engine: Installable,
    /// The Python to make its environment with, instead of the first one that is new enough.
    #[arg(long, value_name = "PROGRAM")]
    python: Option<PathBuf>,
}

/// Engines that are installed.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Installable {
    /// Apple's engine, from PyPI into a virtual environment of its own: on Metal on a Mac, on the
    /// CPU on Linux. About 350 MB; no other Python is changed.
    Mlx,
}

/// Runs `bench setup`.
pub fn run(args: &SetupArgs) -> anyhow::Result<ExitCode> {
    let package = match args.engine {
        Installable::Mlx => MLX,
    };
    let runners = super::run::runners_dir()?;
    let folder = package.home(&runners);
    if let Some(version) = package.installed(&runners) {
        println!("{} is installed already in {}", receipt(&package, &version), folder.display());
        return Ok(ExitCode::SUCCESS);
    }
    let shown = Shown::new();
    let version =
        package.install(&runners, args.python.as_deref(), &mut |step| shown.step(&step))?;
    shown.0.finish_and_clear();
    println!("{} is installed in {}", receipt(&package, &version), folder.display());
    Ok(ExitCode::SUCCESS)
}

fn receipt(package: &Package, version: &Version) -> String {
    format!("{} {} ({}, {})", package.engine, version.version, version.backend, version.build)
}

/// What is going on, in one line of a terminal, or a line for each step in a log.
struct Shown(ProgressBar);

impl Shown {
    fn new() -> Self {
        let target = match std::io::stderr().is_terminal() {
            true => ProgressDrawTarget::stderr(),
            false => ProgressDrawTarget::hidden(),
        };
        let style = ProgressStyle::with_template("{spinner} {elapsed} {wide_msg}")
            .unwrap_or_else(|_| ProgressStyle::default_spinner());
        let bar = ProgressBar::with_draw_target(None, target).with_style(style);
        bar.enable_steady_tick(Duration::from_millis(200));
        Self(bar)
    }

    fn step(&self, step: &Step<'_>) {
        let (text, first) = match step {
            Step::Environment(python) => {
                (format!("making a virtual environment with {}", python.display()), true)
            }
            Step::Libraries("starting") => ("installing the libraries from PyPI".to_owned(), true),
            Step::Libraries(line) => (format!("installing: {line}"), false),
            Step::Checking => ("starting it for the first time".to_owned(), true),
        };
        if self.0.is_hidden() && first {
            eprintln!("{text}");
        }
        self.0.set_message(text);
    }
}
