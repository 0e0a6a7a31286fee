//! A runner program as a child process: started, asked, given up on.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Context;
#[cfg(unix)]
use rustix::process::{Pid, Signal, kill_process_group};

use super::protocol::{Event, Job, PROTOCOL};
use super::{Fault, Version};

/// A line longer than this is nonsense: the logits of 32 positions of a 256k vocabulary fit.
const LONGEST_LINE: u64 = 256 << 20;
/// What is kept of a runner's standard error, for the reason of a failure.
const STDERR_TAIL: usize = 2048;
/// How long a runner may take to end after its input did.
const FAREWELL: Duration = Duration::from_secs(5);

/// Why a runner gave no answer.
#[derive(Debug)]
pub enum Failure {
    /// It said so.
    Reported(Fault, String),
    /// It did not answer in time, and was killed.
    TimedOut(Duration),
    /// It ended: its status in words, and the end of its standard error.
    Died(String),
    /// It wrote something that is no event of the protocol.
    Nonsense(String),
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Reported(_, error) => f.write_str(error),
            Self::TimedOut(limit) => write!(f, "no answer within {} s", limit.as_secs()),
            Self::Died(how) => write!(f, "the runner {how}"),
            Self::Nonsense(what) => write!(f, "the runner broke the protocol: {what}"),
        }
    }
}

/// The groups of the runners that are running, for [`end_with_signals`], which holds it from the
/// signal on: a runner's end that it brings about is no outcome of a case.
static GROUPS: Mutex<Vec<u32>> = Mutex::new(Vec::new());

/// How long servers have to take their workers with them, before all are killed.
const SERVERS_FAREWELL: Duration = Duration::from_secs(3);

/// From here on an interrupt, or the wish of the system that this program end, ends what the
/// runners have started before it ends this program: a server that is asked to end while it starts
/// may never do so, and would stay with its memory.
pub fn end_with_signals() {
    // Only the first call takes effect: the handler is there already.
    let _ = ctrlc::set_handler(|| {
        #[cfg(unix)]
        end_groups();
        #[cfg(not(unix))]
        std::process::exit(INTERRUPTED);
    });
}

/// The group that a runner with this process id leads.
#[cfg(unix)]
fn group(id: u32) -> Option<Pid> {
    i32::try_from(id).ok().and_then(Pid::from_raw)
}

#[cfg(unix)]
fn end_groups() -> ! {
    use rustix::process::{WaitOptions, test_kill_process_group, waitpid};
    let ids = GROUPS.lock().unwrap_or_else(PoisonError::into_inner);
    let groups: Vec<Pid> = ids.iter().filter_map(|id| group(*id)).collect();
    for group in &groups {
        let _ = kill_process_group(*group, Signal::TERM);
    }
    let asked = Instant::now();
    let is_there = |group: &Pid| {
        // The runner itself is ours to bury: it would count as there.
        let _ = waitpid(Some(*group), WaitOptions::NOHANG);
        test_kill_process_group(*group).is_ok()
    };
    while groups.iter().any(is_there) && asked.elapsed() < SERVERS_FAREWELL {
        std::thread::sleep(Duration::from_millis(20));
    }
    for group in &groups {
        let _ = kill_process_group(*group, Signal::KILL);
    }
    // Without giving the lock back: the runs' own thread waits for it.
    std::process::exit(INTERRUPTED);
}

/// The exit status of a program that SIGINT ended, as shells tell it.
const INTERRUPTED: i32 = 130;

/// A running runner. Dropping it kills it.
pub struct Child {
    process: std::process::Child,
    jobs: Option<Sender<Vec<u8>>>,
    events: Receiver<std::io::Result<Vec<u8>>>,
    stderr: Arc<Mutex<VecDeque<u8>>>,
    stderr_reader: Option<JoinHandle<()>>,
    started: Instant,
}

impl Child {
    /// Starts `program`; fails where the system cannot.
    pub fn start(program: &Path, environment: &[(String, String)]) -> anyhow::Result<Self> {
        let started = Instant::now();
        let mut command = Command::new(program);
        command
            // As NVML counts GPUs; CUDA's own order is the fastest first.
            .env("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
            .envs(environment.iter().map(|(k, v)| (k, v)))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        // A group of its own, so that what the runner starts (a server, an interpreter) ends with it.
        #[cfg(unix)]
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let mut groups = GROUPS.lock().unwrap_or_else(PoisonError::into_inner);
        let mut process =
            command.spawn().with_context(|| format!("cannot start '{}'", program.display()))?;
        groups.push(process.id());
        drop(groups);
        let mut stdin = process.stdin.take().context("no standard input")?;
        let stdout = process.stdout.take().context("no standard output")?;
        let mut errors = process.stderr.take().context("no standard error")?;

        // A runner that hangs reads nothing: a job larger than the pipe would block its writer.
        let (jobs, lines) = channel::<Vec<u8>>();
        std::thread::spawn(move || {
            while let Ok(line) = lines.recv() {
                if stdin.write_all(&line).and_then(|()| stdin.flush()).is_err() {
                    return;
                }
            }
        });
        // Bounded: a runner that writes without end waits in its pipe, not in our memory.
        let (sender, events) = sync_channel(4);
        std::thread::spawn(move || {
            let mut stdout = BufReader::new(stdout);
            loop {
                let mut line = Vec::new();
                match stdout.by_ref().take(LONGEST_LINE).read_until(b'\n', &mut line) {
                    Ok(0) => return,
                    Ok(_) => {
                        if sender.send(Ok(line)).is_err() {
                            return;
                        }
                    }
                    Err(error) => {
                        let _ = sender.send(Err(error));
                        return;
                    }
                }
            }
        });
        let stderr = Arc::new(Mutex::new(VecDeque::with_capacity(STDERR_TAIL)));
        let tail = Arc::clone(&stderr);
        let stderr_reader = std::thread::spawn(move || {
            let mut chunk = [0; 4096];
            while let Ok(n @ 1..) = errors.read(&mut chunk) {
                let Ok(mut tail) = tail.lock() else { return };
                tail.extend(&chunk[..n]);
                let excess = tail.len().saturating_sub(STDERR_TAIL);
                tail.drain(..excess);
            }
        });
        let (jobs, stderr_reader) = (Some(jobs), Some(stderr_reader));
        Ok(Self { process, jobs, events, stderr, stderr_reader, started })
    }

    /// The process id, for whoever watches it.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Time since the program was started.
    pub fn age(&self) -> Duration {
        self.started.elapsed()
    }

    /// Waits for the runner's first line.
    pub fn hello(&mut self, limit: Duration) -> Result<(String, Version), Failure> {
        match self.receive(limit)? {
            Event::Hello { protocol: PROTOCOL, engine, version } => Ok((engine, version)),
            Event::Hello { protocol, .. } => Err(Failure::Nonsense(format!(
                "it speaks version {protocol}, not {PROTOCOL}; build it again"
            ))),
            Event::Failed { kind, error } => Err(Failure::Reported(kind, error)),
            other => Err(unexpected(&other)),
        }
    }

    /// Sends a job and waits for its answer; an [`Event::Failed`] becomes [`Failure::Reported`].
    pub fn ask(&mut self, job: &Job, limit: Duration) -> Result<Event, Failure> {
        let mut line = serde_json::to_vec(job).map_err(|e| Failure::Nonsense(e.to_string()))?;
        line.push(b'\n');
        // Where the writer has given up, the runner's end shows below.
        if let Some(jobs) = &self.jobs {
            let _ = jobs.send(line);
        }
        match self.receive(limit)? {
            Event::Failed { kind, error } => Err(Failure::Reported(kind, error)),
            event => Ok(event),
        }
    }

    /// Ends the runner's input and waits for its end; kills it where it does not end.
    pub fn finish(mut self) {
        self.jobs = None;
        self.await_end(FAREWELL);
    }

    fn receive(&mut self, limit: Duration) -> Result<Event, Failure> {
        match self.events.recv_timeout(limit) {
            Ok(Ok(line)) => parse(&line),
            Ok(Err(error)) => Err(Failure::Died(error.to_string())),
            Err(RecvTimeoutError::Timeout) => {
                self.kill();
                Err(Failure::TimedOut(limit))
            }
            Err(RecvTimeoutError::Disconnected) => Err(Failure::Died(self.obituary())),
        }
    }

    /// How the process ended, with the last lines that it wrote to standard error.
    fn obituary(&mut self) -> String {
        self.jobs = None;
        let how = match self.await_end(FAREWELL) {
            Some(status) => ending(status),
            None => "closed its output and was killed".to_owned(),
        };
        if let Some(reader) = self.stderr_reader.take() {
            // A grandchild can hold the pipe open for ever: wait only while it is worth it.
            let patience = Instant::now();
            while !reader.is_finished() && patience.elapsed() < Duration::from_millis(200) {
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        let tail: Vec<u8> =
            self.stderr.lock().map(|t| t.iter().copied().collect()).unwrap_or_default();
        let tail = String::from_utf8_lossy(&tail);
        let last: Vec<_> = tail.lines().rev().filter(|l| !l.trim().is_empty()).take(3).collect();
        if last.is_empty() {
            return how;
        }
        let last: Vec<_> = last.into_iter().rev().collect();
        format!("{how}; its last words: {}", last.join(" / "))
    }

    fn await_end(&mut self, patience: Duration) -> Option<ExitStatus> {
        drop(GROUPS.lock());
        let start = Instant::now();
        while start.elapsed() < patience {
            match self.process.try_wait() {
                Ok(Some(status)) => {
                    // What it has started and left behind would disturb the next measurement.
                    self.kill_group();
                    return Some(status);
                }
                Ok(None) => std::thread::sleep(Duration::from_millis(2)),
                Err(_) => break,
            }
        }
        self.kill();
        None
    }

    fn kill_group(&self) {
        #[cfg(unix)]
        if let Some(group) = group(self.process.id()) {
            let _ = kill_process_group(group, Signal::KILL);
        }
    }

    fn kill(&mut self) {
        self.kill_group();
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.kill();
        // Its number may be another's from now on.
        if let Ok(mut groups) = GROUPS.lock() {
            groups.retain(|id| *id != self.process.id());
        }
    }
}

fn parse(line: &[u8]) -> Result<Event, Failure> {
    if line.len() as u64 >= LONGEST_LINE {
        return Err(Failure::Nonsense(format!("a line longer than {LONGEST_LINE} bytes")));
    }
    serde_json::from_slice(line).map_err(|error| {
        let start: String = String::from_utf8_lossy(line).trim_end().chars().take(120).collect();
        Failure::Nonsense(format!("{error}: '{start}'"))
    })
}

/// An event that answers another question than the one asked.
pub fn unexpected(event: &Event) -> Failure {
    let start: String = format!("{event:?}").chars().take(120).collect();
    Failure::Nonsense(format!("an answer to another question: {start}"))
}

#[cfg(unix)]
fn ending(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt;
    match (status.code(), status.signal()) {
        (_, Some(9)) => "was killed by signal 9 (out of memory?)".to_owned(),
        (_, Some(signal)) => format!("was killed by signal {signal}"),
        (Some(code), _) => format!("ended with exit code {code}"),
        _ => "ended".to_owned(),
    }
}

#[cfg(not(unix))]
fn ending(status: ExitStatus) -> String {
    format!("ended: {status}")
}
