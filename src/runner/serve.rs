//! The main loop of a runner program: jobs in, events out, nothing written while a trial runs.

use std::io::{self, BufRead, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};

use super::protocol::{Event, Job, PROTOCOL};
use super::{Fault, Runner, TokenSink};

/// Serves the engine `R` on standard input and output until the input ends. What libraries print
/// goes to standard error, so that the protocol cannot be broken by a stray line.
pub fn serve<R: Runner>() -> ExitCode {
    // A runner must not outlive the harness: it would disturb the next measurement.
    #[cfg(target_os = "linux")]
    let _ = rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL));
    match claim_stdout().and_then(|out| run::<R>(io::stdin().lock(), out)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{}: {error:#}", R::NAME);
            ExitCode::FAILURE
        }
    }
}

/// A private handle of standard output; file descriptor 1 then points to standard error.
fn claim_stdout() -> anyhow::Result<std::fs::File> {
    let private = rustix::io::dup(io::stdout()).context("cannot copy standard output")?;
    rustix::stdio::dup2_stdout(io::stderr()).context("cannot redirect standard output")?;
    Ok(std::fs::File::from(private))
}

fn run<R: Runner>(jobs: impl BufRead, mut out: impl Write) -> anyhow::Result<()> {
    let version = match R::version() {
        Ok(version) => version,
        // The reason is an answer, not a crash: a server that is missing or refuses connections.
        Err(error) => return send(&mut out, &failed(&error)),
    };
    let engine = R::name();
    send(&mut out, &Event::Hello { protocol: PROTOCOL, engine, version })?;
    let mut engine: Option<R> = None;
    for line in jobs.lines() {
        let line = line.context("cannot read a job")?;
        let received = Instant::now();
        let event = serde_json::from_str(&line)
            .with_context(|| format!("this is no job of protocol {PROTOCOL}"))
            .and_then(|job| handle(&mut engine, job, received))
            .unwrap_or_else(|error| failed(&error));
        send(&mut out, &event)?;
    }
    Ok(())
}

fn failed(error: &anyhow::Error) -> Event {
    Event::Failed {
        kind: error.downcast_ref::<Fault>().copied().unwrap_or(Fault::Failed),
        error: format!("{error:#}"),
    }
}

fn handle<R: Runner>(engine: &mut Option<R>, job: Job, received: Instant) -> anyhow::Result<Event> {
    if let Job::Load { model, settings } = job {
        *engine = None;
        let start = Instant::now();
        let loaded = R::load(&model, &settings)?;
        let load_ns = start.elapsed().as_nanos() as u64;
        let report = loaded.report();
        *engine = Some(loaded);
        return Ok(Event::Loaded { load_ns, report });
    }
    let engine = engine.as_mut().ok_or_else(|| anyhow!("no model is loaded"))?;
    match job {
        Job::Load { .. } => unreachable!("handled above"),
        Job::Logits { tokens } => Ok(Event::Logits { logits: engine.logits(&tokens)? }),
        Job::Trial { requests, schedule, limit_ns } => {
            if let Some(empty) =
                requests.iter().position(|r| r.prompt.is_empty() || r.output.is_empty())
            {
                return Err(anyhow!("request {empty} has no prompt or no output tokens"));
            }
            let limit = limit_ns.map(Duration::from_nanos);
            engine.give_up_at(limit.and_then(|limit| received.checked_add(limit)));
            engine.prepare(&requests)?;
            let epoch = Instant::now();
            let mut sinks: Vec<_> =
                requests.iter().map(|r| TokenSink::new(epoch, r.output.len())).collect();
            engine.generate(&requests, schedule, &mut sinks)?;
            let samples =
                sinks.into_iter().zip(&requests).map(|(sink, r)| sink.into_sample(r)).collect();
            let age_ns = Some(epoch.elapsed().as_nanos() as u64);
            Ok(Event::Trial { samples, engine_peak_bytes: None, age_ns })
        }
    }
}

fn send(out: &mut impl Write, event: &Event) -> anyhow::Result<()> {
    let mut line = serde_json::to_vec(event).context("cannot encode an event")?;
    line.push(b'\n');
    out.write_all(&line).and_then(|()| out.flush()).context("cannot send an event")
}
