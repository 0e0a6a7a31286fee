//! The subcommands; the flags of each stand in its own file of `cmd`.

use clap::{Parser, Subcommand};

use crate::cmd;

/// Measure, predict and decide: what a machine does with local language models.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100, arg_required_else_help = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Measure the cases of a scenario on this machine.
    Run(cmd::run::RunArgs),
    /// Print the tables of results, or put them into a document.
    Report(cmd::report::ReportArgs),
    /// Show what this machine is, what can be measured on it, and what to put right first.
    Doctor(cmd::doctor::DoctorArgs),
    /// Show what this machine is called and how fast its memory is; measure it.
    Host(cmd::host::HostArgs),
    /// Say which models fit on which machines, and how fast they are there.
    Fit(cmd::fit::FitArgs),
    /// List and search the devices of the catalogue.
    Devices(cmd::devices::DevicesArgs),
    /// List and search the models of the catalogue.
    Models(cmd::models::ModelsArgs),
    /// Rank the devices within a budget by what they run fast enough.
    Recommend(cmd::recommend::RecommendArgs),
    /// Fit the constants of the speed model anew and say how wrong it is.
    Calibrate(cmd::calibrate::CalibrateArgs),
    /// Say how many machines serve so many users in time, with what headroom, for how much.
    Capacity(Box<cmd::capacity::CapacityArgs>),
    /// Work out what owning a machine costs, and when it pays back against cloud APIs.
    Cost(Box<cmd::cost::CostArgs>),
    /// List prices of APIs, rented GPUs and electricity with their age; add your own.
    Prices(cmd::prices::PricesArgs),
    /// Install an engine that is not built with this program.
    Setup(cmd::setup::SetupArgs),
    /// Measure the client of servers against a server with exactly known timing.
    Selfcheck(cmd::selfcheck::SelfcheckArgs),
    /// Be a server with exactly known timing, to try clients against.
    MockServer(cmd::mock_server::MockServerArgs),
    /// List, make, download and remove model files.
    Model(cmd::model::ModelArgs),
    /// Say whether two sets of results, or two engines in one, differ.
    Compare(cmd::compare::CompareArgs),
    /// Recompute every figure of results from their samples.
    Verify(cmd::verify::VerifyArgs),
    /// Take over the results of another benchmark.
    Import(cmd::import::ImportArgs),
    /// Write results as llama-bench JSON or as an SQLite file.
    Export(cmd::export::ExportArgs),
    /// Print the completions of a shell.
    Completions(cmd::completions::CompletionsArgs),
    /// Write the manual pages.
    Man(cmd::man::ManArgs),
}
