//! The cases of one point, measured side by side: a process for each engine, trials in turn.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::cases::Case;
use crate::host::{self, Probe};
use crate::record::{Outcome, Record, Trial};
use crate::runner::child::{Child, Failure, unexpected};
use crate::runner::protocol::{Event, Job, Sample};
use crate::runner::{Fault, LoadReport, Model, Schedule, Version};
use crate::scenario::{Arrivals, Load, Slo};
use crate::stats::Summary;
use crate::watch::{IdlePower, Mark, Observed, Watch, join_marks};

use super::prompts::{self, Shape};
use super::{load, summary, weights};

/// How long a runner may take to say hello: an interpreter may have to import its libraries.
const HELLO: Duration = Duration::from_secs(120);

/// When to stop.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Stopping {
    /// Trials that are not counted.
    pub warmup: u32,
    /// Fewest counted trials.
    pub min_trials: u32,
    /// Most counted trials.
    pub max_trials: u32,
    /// Half of the 95 % interval of the median, as a share of the median, that is precise enough.
    pub target: f64,
    /// Longest time for loading, and for one trial.
    pub trial_limit: Duration,
    /// Longest time for all trials of a point, for each of its cases.
    pub case_limit: Duration,
    /// When the whole run has to be over.
    pub deadline: Option<Instant>,
}

/// One case with what was found out before it starts.
#[derive(Debug)]
pub struct Subject {
    /// The case.
    pub case: Case,
    /// Its runner, or where it would be installed from.
    pub program: Result<PathBuf, String>,
    /// Environment variables for the runner.
    pub environment: Vec<(String, String)>,
    /// The weights, or why there are none.
    pub model: Result<PathBuf, String>,
    /// Token ids are below this.
    pub vocabulary: u32,
    /// What stands in the row whatever happens.
    pub row: Record,
    /// Bytes that one token of generation reads, where the shape is known.
    pub bytes_per_token: Option<u64>,
    /// The objective that requests have to meet.
    pub slo: Option<Slo>,
    /// How requests of a rate come.
    pub arrivals: Option<Arrivals>,
    /// Whether to time a load from a cold page cache first.
    pub cold_load: bool,
}

/// A step of the measurement, for whoever shows progress.
#[derive(Debug)]
pub enum Step<'a> {
    /// The engine loads its model.
    Loading(&'a Case),
    /// A trial starts: its number, and whether it only warms up.
    Trial(&'a Case, u32, bool),
}

/// A case's row and its raw arrivals.
pub type Measured = (Record, Vec<Trial<Sample>>);

/// A runner that has loaded its model.
struct Running {
    child: Child,
    watch: Watch,
    trials: Vec<Trial<Sample>>,
    spent: Duration,
}

/// The state of one case while its point is measured.
struct Lane {
    subject: Subject,
    record: Record,
    absent: BTreeMap<String, String>,
    running: Option<Running>,
    trials: Vec<Trial<Sample>>,
    observed: Option<Observed>,
    marks: Vec<Mark>,
}

/// Measures the subjects of one point with their trials in turn, so that drift hits all alike.
pub fn measure(
    subjects: Vec<Subject>,
    stopping: &Stopping,
    threads: u32,
    idle: &IdlePower,
    mut progress: impl FnMut(Step<'_>),
) -> Vec<Measured> {
    let mut lanes: Vec<_> = subjects.into_iter().map(Lane::new).collect();
    // A cold load needs the machine for itself, and the file mapped by nobody.
    for lane in &mut lanes {
        if lane.subject.cold_load && lane.is_open() {
            progress(Step::Loading(&lane.subject.case));
            lane.load_cold(stopping);
        }
    }
    let probe = |lanes: &[Lane]| {
        // Half a second that tells nothing where nothing is measured.
        lanes.iter().any(|l| l.is_open() || !l.trials.is_empty()).then(|| host::probe(threads).ok())
    };
    let before = probe(&lanes).flatten();
    for lane in &mut lanes {
        if lane.is_open() {
            progress(Step::Loading(&lane.subject.case));
            lane.start(stopping);
        }
    }
    take_trials(&mut lanes, stopping, &mut progress);
    for lane in &mut lanes {
        lane.stop();
    }
    let after = probe(&lanes).flatten();
    lanes.into_iter().map(|lane| lane.finish((before.as_ref(), after.as_ref()), idle)).collect()
}

fn take_trials(lanes: &mut [Lane], stopping: &Stopping, progress: &mut impl FnMut(Step<'_>)) {
    for number in 0..stopping.warmup + stopping.max_trials {
        let warmup = number < stopping.warmup;
        for lane in lanes.iter_mut() {
            if lane.running.is_some() {
                progress(Step::Trial(&lane.subject.case, number, warmup));
                lane.trial(number, warmup, stopping);
            }
        }
        let counted = (number + 1).saturating_sub(stopping.warmup);
        let mut running = lanes.iter().filter_map(|l| l.running.as_ref());
        if counted >= stopping.min_trials && running.all(|r| is_precise(&r.trials, stopping.target))
        {
            return;
        }
        if stopping.deadline.is_some_and(|d| Instant::now() >= d) {
            return;
        }
    }
}

/// Whether both speeds are known as precisely as the scenario asks.
fn is_precise(trials: &[Trial<Sample>], target: f64) -> bool {
    let values = summary::trial_values(trials);
    let wide = |values: Vec<f64>| {
        // A case of one new token has no decode speed to be precise about.
        !values.is_empty()
            && Summary::of(&values)
                .and_then(|s| s.relative_half_width())
                .is_none_or(|half| half > target)
    };
    !wide(values.iter().filter_map(|v| v.decode_tok_s).collect())
        && !wide(values.iter().filter_map(|v| v.prefill_tok_s).collect())
}

impl Lane {
    fn new(subject: Subject) -> Self {
        let mut record = subject.row.clone();
        match (&subject.program, &subject.model) {
            _ if record.reason.is_some() => {}
            (Err(reason), _) => {
                record.outcome = Outcome::NotInstalled;
                record.reason = Some(reason.clone());
            }
            (_, Err(reason)) => record.reason = Some(reason.clone()),
            _ => {}
        }
        let (absent, trials) = (BTreeMap::new(), Vec::new());
        let (running, observed, marks) = (None, None, Vec::new());
        Self { subject, record, absent, running, trials, observed, marks }
    }

    /// Whether nothing has gone wrong yet.
    fn is_open(&self) -> bool {
        self.record.reason.is_none()
    }

    fn shape(&self) -> Shape {
        Shape {
            depth: self.subject.case.depth.0,
            prompt_tokens: self.subject.case.prompt_tokens.0,
            new_tokens: self.subject.case.new_tokens.0,
            vocabulary: self.subject.vocabulary,
        }
    }

    fn fail(&mut self, failure: &Failure) {
        self.record.outcome = match failure {
            Failure::Reported(Fault::OutOfMemory, _) => Outcome::OutOfMemory,
            Failure::Reported(Fault::Unsupported, _) => Outcome::Unsupported,
            Failure::Reported(Fault::NotInstalled, _) => Outcome::NotInstalled,
            Failure::Reported(Fault::Failed, _) => Outcome::Failed,
            Failure::TimedOut(_) => Outcome::TimedOut,
            Failure::Died(_) | Failure::Nonsense(_) => Outcome::Crashed,
        };
        self.record.reason = Some(failure.to_string());
    }

    /// Starts the runner and loads the model.
    fn launch(&mut self, limit: Duration) -> Result<(Child, Watch, u64, LoadReport), Failure> {
        let (Ok(program), Ok(path)) = (&self.subject.program, &self.subject.model) else {
            return Err(Failure::Died("was never started".to_owned()));
        };
        let mut child = Child::start(program, &self.subject.environment)
            .map_err(|e| Failure::Died(format!("{e:#}")))?;
        let (_, Version { version, build, backend }) = child.hello(HELLO)?;
        self.record.engine_version = Some(version);
        self.record.engine_build = Some(build);
        self.record.backend = Some(backend);
        // From before the load: what the GPU holds now is the baseline.
        let watch = Watch::start(child.id());
        let settings = self.subject.case.settings.clone();
        let job = Job::Load { model: Model { path: path.clone() }, settings };
        match child.ask(&job, limit)? {
            Event::Loaded { load_ns, report } => Ok((child, watch, load_ns, report)),
            other => Err(unexpected(&other)),
        }
    }

    fn load_cold(&mut self, stopping: &Stopping) {
        let Ok(path) = self.subject.model.clone() else { return };
        if let Err(reason) = evict(&path) {
            self.absent.insert("load_cold_ns".to_owned(), reason);
            return;
        }
        // A failure shows again, and is told, when the case itself loads.
        if let Ok((child, _, load_ns, _)) = self.launch(stopping.trial_limit) {
            self.record.load_cold_ns = Some(load_ns);
            child.finish();
        }
    }

    fn start(&mut self, stopping: &Stopping) {
        match self.launch(stopping.trial_limit) {
            Ok((child, watch, load_ns, report)) => {
                self.record.load_warm_ns = Some(load_ns);
                self.record.start_to_ready_ns = Some(child.age().as_nanos() as u64);
                self.record.weights_bytes = report.weights_bytes.map(|b| b.0);
                self.record.kv_bytes = report.kv_bytes.map(|b| b.0);
                self.record.compute_bytes = report.compute_bytes.map(|b| b.0);
                if let Some(bits) = report.bits_per_weight {
                    self.record.bits_per_weight = Some(bits);
                    let kv_type = report.effective.get("kv_type").map(String::as_str);
                    let bytes = weights::bytes_per_token_at(&self.subject.case, bits, kv_type);
                    self.subject.bytes_per_token = bytes.map(|b| b.0);
                }
                let effective: Vec<_> =
                    report.effective.iter().map(|(k, v)| format!("{k}={v}")).collect();
                self.record.effective_settings = Some(effective.join(" "));
                watch.loaded();
                let (trials, spent) = (Vec::new(), Duration::ZERO);
                self.running = Some(Running { child, watch, trials, spent });
            }
            Err(failure) => self.fail(&failure),
        }
    }

    fn trial(&mut self, number: u32, warmup: bool, stopping: &Stopping) {
        let case = &self.subject.case;
        let mut requests = prompts::requests(case.seed, number, case.requests, self.shape());
        let starts = case.seed.wrapping_add(u64::from(number));
        let arrivals = self.subject.arrivals;
        if let Err(error) = load::set_starts(&mut requests, case.load, arrivals, starts) {
            let failure = Failure::Reported(Fault::Failed, format!("{error:#}"));
            self.fail(&failure);
            self.stop();
            return;
        }
        if number == stopping.warmup {
            self.record.token_hash = Some(prompts::token_hash(&requests));
        }
        let schedule = match case.load {
            Load::Batch(_) => Schedule::Lockstep,
            Load::Concurrency(_) | Load::Rate(_) => Schedule::Continuous,
        };
        let wanted: Vec<_> = requests.iter().map(|r| r.output.len()).collect();
        let Some(running) = &mut self.running else { return };
        if warmup {
            running.watch.warm_up_starts();
        } else {
            running.watch.trial_starts();
        }
        let start = Instant::now();
        let answer = running.child.ask(&Job::Trial { requests, schedule }, stopping.trial_limit);
        running.spent += start.elapsed();
        running.watch.trial_ends();
        let out_of_time = running.spent > stopping.case_limit;
        let answer = answer.and_then(|event| match event {
            Event::Trial { samples, engine_peak_bytes } => {
                let peak = engine_peak_bytes.map(|bytes| bytes.0).filter(|_| !warmup);
                self.record.engine_peak_bytes = self.record.engine_peak_bytes.max(peak);
                check(&samples, &wanted).map(|()| samples)
            }
            other => Err(unexpected(&other)),
        });
        match answer {
            Ok(samples) => {
                let case_id = case.id.to_string();
                running.trials.push(Trial { case_id, trial: number, warmup, samples });
                let counted = running.trials.iter().filter(|t| !t.warmup).count() as u32;
                if out_of_time {
                    if counted < stopping.min_trials {
                        self.fail(&Failure::TimedOut(stopping.case_limit));
                    }
                    self.marks.push(Mark::TimedOut);
                    self.stop();
                }
            }
            Err(failure) => {
                self.fail(&failure);
                self.stop();
            }
        }
    }

    fn stop(&mut self) {
        if let Some(running) = self.running.take() {
            self.observed = Some(running.watch.finish());
            self.trials = running.trials;
            running.child.finish();
        }
    }

    fn finish(mut self, probes: (Option<&Probe>, Option<&Probe>), idle: &IdlePower) -> Measured {
        if self.is_open() {
            self.record.outcome = Outcome::Measured;
        }
        summary::fill(&mut self.record, &self.trials, self.subject.bytes_per_token);
        let slo = self.subject.slo.as_ref();
        self.marks.extend(load::fill(&mut self.record, &self.trials, slo, &mut self.absent));
        if let Some(observed) = &self.observed {
            self.marks.extend(observed.marks());
            summary::fill_observed(&mut self.record, observed, idle, &mut self.absent);
        }
        self.marks.extend(summary::fill_probes(&mut self.record, probes, &mut self.absent));
        self.marks.sort_unstable();
        self.marks.dedup();
        self.record.marks = join_marks(&self.marks);
        let absent: Vec<_> = self.absent.iter().map(|(k, v)| format!("{k}: {v}")).collect();
        self.record.absent = (!absent.is_empty()).then(|| absent.join("; "));
        (self.record, self.trials)
    }
}

/// A trial counts only where every request got all its tokens, at times that can be.
fn check(samples: &[Sample], wanted: &[usize]) -> Result<(), Failure> {
    if samples.len() != wanted.len() {
        let text = format!("{} samples for {} requests", samples.len(), wanted.len());
        return Err(Failure::Nonsense(text));
    }
    for (i, (sample, &wanted)) in samples.iter().zip(wanted).enumerate() {
        if let Some(error) = sample.served.as_ref().and_then(|served| served.error.as_ref()) {
            return Err(Failure::Reported(Fault::Failed, format!("request {i}: {}", error.reason)));
        }
        let got = sample.token_ns.len();
        if got != wanted {
            return Err(Failure::Nonsense(format!("request {i} has {got} tokens, not {wanted}")));
        }
        if !sample.token_ns.is_sorted()
            || sample.token_ns.first().is_some_and(|&t| t < sample.sent_ns)
        {
            return Err(Failure::Nonsense(format!("request {i} has tokens that run backwards")));
        }
    }
    Ok(())
}

/// Drops the file, or the folder's files, from the page cache; only the kernel's word for it is had.
#[cfg(target_os = "linux")]
fn evict(path: &Path) -> Result<(), String> {
    use rustix::fs::{Advice, fadvise};
    if path.is_dir() {
        let files = std::fs::read_dir(path).map_err(|e| format!("cannot read the weights: {e}"))?;
        let paths = files.filter_map(|file| Some(file.ok()?.path()));
        return paths.filter(|path| path.is_file()).try_for_each(|path| evict(&path));
    }
    let file = std::fs::File::open(path).map_err(|e| format!("cannot open the weights: {e}"))?;
    // Dirty pages stay: a file that was just written has to reach the disk first.
    file.sync_all().map_err(|e| format!("cannot sync the weights: {e}"))?;
    fadvise(&file, 0, None, Advice::DontNeed)
        .map_err(|e| format!("cannot drop the page cache: {e}"))
}

#[cfg(not(target_os = "linux"))]
fn evict(_: &Path) -> Result<(), String> {
    Err("only Linux can drop one file from the page cache".to_owned())
}
