//! The program `bench`: parse, dispatch, print the chain of errors, exit code.

use std::io;
use std::process::ExitCode;

use bench::cli::Cli;
use bench::cmd;
use clap::Parser;

/// Wrong usage or input, as with clap's own errors; 1 is a failed case or a regression.
const WRONG_INPUT: u8 = 2;

fn main() -> ExitCode {
    match cmd::dispatch(&Cli::parse().command) {
        Ok(code) => code,
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(WRONG_INPUT)
        }
    }
}

/// The reader of our output went away: `bench … | head` is no error.
fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe)
    })
}
