//! The ways in which the mock misbehaves.

use std::fs::File;
use std::io::{Write, stdout};
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::Context;
use bench::runner::Fault;
use serde::{Deserialize, Serialize};

use crate::fault;
use crate::parameters::Parameters;

/// What goes wrong, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Misbehaviour {
    /// No version receipt: the engine counts as not installed. Only from the environment.
    NoVersion,
    /// A line that is no JSON before the first event. Only from the environment.
    NonsenseHello,
    /// A protocol version of the future. Only from the environment.
    WrongProtocol,
    /// Never says hello. Only from the environment.
    HangOnHello,
    /// The process is killed by a signal while it loads.
    DieOnLoad,
    /// Loading never ends.
    HangOnLoad,
    /// Loading says that memory is not enough.
    Oom,
    /// Loading says that the case cannot be done.
    Unsupported,
    /// Loading fails for another reason.
    FailOnLoad,
    /// The process is killed by a signal in a trial.
    DieInTrial,
    /// The process ends in a trial with exit code 3.
    ExitInTrial,
    /// A trial never ends.
    Hang,
    /// A trial says that memory is not enough.
    OomInTrial,
    /// A trial fails for another reason.
    FailInTrial,
    /// A line that is no JSON on the protocol's stream.
    Nonsense,
    /// A JSON object on the protocol's stream that is no event.
    GarbageEvent,
    /// A line without an end on the protocol's stream.
    EndlessLine,
    /// Text on standard output and standard error, as libraries print it: harmless.
    Chatty,
    /// Everything takes ten times as long.
    Slow,
    /// Half of the tokens that were asked for.
    EarlyEnd,
}

/// The protocol's stream, kept before [`bench::runner::serve::serve`] hides it.
static PROTOCOL_STREAM: OnceLock<File> = OnceLock::new();

/// Keeps a handle of the protocol's stream to write nonsense to.
pub fn keep_protocol_stream() -> anyhow::Result<()> {
    let stream = rustix::io::dup(stdout()).context("cannot copy standard output")?;
    let _ = PROTOCOL_STREAM.set(File::from(stream));
    Ok(())
}

/// What goes wrong before the first event.
pub fn before_hello() -> anyhow::Result<()> {
    match Parameters::from_environment()?.fault {
        Some(Misbehaviour::NonsenseHello) => write_raw(b"Segmentation fault (core dumped)\n"),
        Some(Misbehaviour::HangOnHello) => sleep_for_ever(),
        Some(Misbehaviour::WrongProtocol) => write_raw(
            b"{\"event\":\"hello\",\"protocol\":999,\"engine\":\"mock\",\"version\":\"9\",\"build\":\"\",\
              \"backend\":\"CPU\"}\n",
        ),
        _ => Ok(()),
    }
}

/// What goes wrong while loading.
pub fn on_load(parameters: &Parameters) -> anyhow::Result<()> {
    match parameters.fault {
        Some(Misbehaviour::DieOnLoad) => std::process::abort(),
        Some(Misbehaviour::HangOnLoad) => sleep_for_ever(),
        Some(Misbehaviour::Oom) => {
            Err(fault(Fault::OutOfMemory, "the mock was told not to fit in memory"))
        }
        Some(Misbehaviour::Unsupported) => {
            Err(fault(Fault::Unsupported, "the mock was told not to know this model"))
        }
        Some(Misbehaviour::FailOnLoad) => Err(anyhow::anyhow!("the mock was told to fail")),
        _ => Ok(()),
    }
}

/// What goes wrong at a token of a trial.
pub fn in_trial(misbehaviour: Misbehaviour) -> anyhow::Result<()> {
    match misbehaviour {
        Misbehaviour::DieInTrial => std::process::abort(),
        Misbehaviour::ExitInTrial => std::process::exit(3),
        Misbehaviour::Hang => sleep_for_ever(),
        Misbehaviour::OomInTrial => {
            Err(fault(Fault::OutOfMemory, "the mock was told to run out of memory"))
        }
        Misbehaviour::FailInTrial => Err(anyhow::anyhow!("the mock was told to fail in a trial")),
        Misbehaviour::Nonsense => write_raw(b"warning: 3 tokens dropped\n"),
        Misbehaviour::GarbageEvent => write_raw(b"{\"event\":\"surprise\",\"samples\":42}\n"),
        Misbehaviour::EndlessLine => loop {
            write_raw(&[b'a'; 4096])?;
        },
        Misbehaviour::Chatty => {
            println!("a library says hello on standard output");
            eprintln!("a library says hello on standard error");
            Ok(())
        }
        _ => Ok(()),
    }
}

fn write_raw(bytes: &[u8]) -> anyhow::Result<()> {
    let mut stream = PROTOCOL_STREAM.get().context("the protocol's stream was not kept")?;
    stream.write_all(bytes).and_then(|()| stream.flush()).context("cannot write nonsense")
}

fn sleep_for_ever() -> ! {
    loop {
        std::thread::sleep(Duration::from_secs(3600));
    }
}
