//! The cases of one point, measured side by side: a process for each engine, trials in turn.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::cases::Case;
use crate::host::{self, Probe};
use crate::record::{Outcome, Record, Trial};
use crate::runner::child::{Child, Failure, unexpected};
use crate::runner::protocol::{Event, Job, Sample};
use crate::runner::{Fault, LoadReport, Model, Process, Schedule, Version};
use crate::scenario::{Load, Slo};
use crate::stats::Summary;
use crate::units::{Nanos, significant};
use crate::watch::{IdlePower, Mark, Observed, Watch, join_marks};

use super::check::{check, overloaded, unanswered};
use super::evict::evict;
use super::schedule::{self, Asked};
use super::search::Search;
use super::{energy, load, prompts, summary, weights};

/// How long a runner may take to say hello: an interpreter may have to import its libraries.
const HELLO: Duration = Duration::from_secs(120);

/// How long an engine may go on computing after its trial before the next one starts all the same;
/// the mark of busy cores shows it then.
const SETTLE: Duration = Duration::from_secs(5);

/// Share of a trial's time limit that a probe may be expected to take.
const ROOM: f64 = 0.8;

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

impl Stopping {
    /// Whether the whole run's time is over.
    pub fn is_over(&self) -> bool {
        self.deadline.is_some_and(|deadline| Instant::now() >= deadline)
    }
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
    /// A probe of a search starts: its load.
    Probe(&'a Case, &'a str),
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

impl Running {
    /// Trials whose figures are the row's.
    fn counted(&self) -> u32 {
        self.trials.iter().filter(|trial| summary::counts(trial)).count() as u32
    }
}

/// The state of one case while its point is measured.
struct Lane {
    subject: Subject,
    record: Record,
    absent: BTreeMap<String, String>,
    running: Option<Running>,
    trials: Vec<Trial<Sample>>,
    /// Requests a second of the last trial.
    pace: Option<f64>,
    /// Of a search: the trial whose figures the row shows.
    best: Option<u32>,
    observed: Option<Observed>,
    marks: Vec<Mark>,
    /// The run's time was over before there was enough for a row.
    is_unfinished: bool,
}

/// Measures the subjects of one point with their trials in turn, so that drift hits all alike. A
/// case that the end of the run's time left with too few trials has no row: `--resume` measures it.
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
    // The engines of a search are asked for different loads: they do not take turns.
    let (searches, others): (Vec<_>, Vec<_>) =
        lanes.iter_mut().partition(|lane| lane.subject.case.load.is_search());
    take_trials(others, stopping, &mut progress);
    for lane in searches {
        if lane.running.is_some() {
            lane.search(stopping, &mut progress);
        }
    }
    for lane in &mut lanes {
        lane.stop();
    }
    let after = probe(&lanes).flatten();
    let finished = lanes.into_iter().filter(|lane| !lane.is_unfinished);
    finished.map(|lane| lane.finish((before.as_ref(), after.as_ref()), idle)).collect()
}

fn take_trials(
    mut lanes: Vec<&mut Lane>,
    stopping: &Stopping,
    progress: &mut impl FnMut(Step<'_>),
) {
    if lanes.is_empty() {
        return;
    }
    let turns = lanes.len() > 1;
    for number in 0..stopping.warmup + stopping.max_trials {
        if stopping.is_over() {
            return lanes.iter_mut().for_each(|lane| lane.cut_short(stopping));
        }
        let warmup = number < stopping.warmup;
        for lane in &mut lanes {
            if lane.running.is_some() {
                progress(Step::Trial(&lane.subject.case, number, warmup));
                lane.trial(number, warmup, stopping);
                if turns {
                    lane.settle();
                }
            }
        }
        let counted = (number + 1).saturating_sub(stopping.warmup);
        let mut running = lanes.iter().filter_map(|l| Some((l.running.as_ref()?, l)));
        let precise = |(r, lane): (&Running, &&mut Lane)| {
            is_precise(&lane.record, &r.trials, lane.subject.case.load, stopping.target)
        };
        if counted >= stopping.min_trials && running.all(precise) {
            return;
        }
    }
}

/// Whether both speeds are known as precisely as the scenario asks.
fn is_precise(record: &Record, trials: &[Trial<Sample>], load: Load, target: f64) -> bool {
    let values = summary::trial_values(record, trials, load);
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
        let (pace, best) = (None, None);
        let is_unfinished = false;
        Self {
            subject,
            record,
            absent,
            running,
            trials,
            pace,
            best,
            observed,
            marks,
            is_unfinished,
        }
    }

    /// Whether nothing has gone wrong yet.
    fn is_open(&self) -> bool {
        self.record.reason.is_none()
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
                self.record.peak_vram_bytes = report.device_bytes.map(|b| b.0);
                match &report.process {
                    Process::Own => {}
                    Process::Listener { port, programs } => watch.listener(*port, programs),
                    Process::Elsewhere => watch.blind("the server runs on another machine"),
                }
                watch.loaded();
                let (trials, spent) = (Vec::new(), Duration::ZERO);
                self.running = Some(Running { child, watch, trials, spent });
            }
            Err(failure) => self.fail(&failure),
        }
    }

    /// Ends the trials because the run's time is over.
    fn cut_short(&mut self, stopping: &Stopping) {
        let Some(running) = &self.running else { return };
        if running.counted() < stopping.min_trials {
            self.is_unfinished = true;
        } else {
            self.marks.push(Mark::TimedOut);
        }
    }

    /// The samples of a trial, where a request was answered.
    fn answered(
        &mut self,
        asked: Asked,
        warmup: bool,
        stopping: &Stopping,
    ) -> Result<Vec<Sample>, Failure> {
        let samples = self.attempt(asked, warmup, stopping)?;
        match unanswered(&samples) {
            Some(reason) => Err(Failure::Reported(Fault::Failed, reason)),
            None => Ok(samples),
        }
    }

    /// Runs the requests of one trial and checks what came.
    fn attempt(
        &mut self,
        asked: Asked,
        warmup: bool,
        stopping: &Stopping,
    ) -> Result<Vec<Sample>, Failure> {
        let case = &self.subject.case;
        let requests = schedule::requests(case, asked, self.subject.vocabulary)
            .map_err(|error| Failure::Reported(Fault::Failed, format!("{error:#}")))?;
        if asked.trial == stopping.warmup {
            // With a limit by time engines get as many of the same requests as they can do.
            let first = requests.len().min(case.requests as usize);
            self.record.token_hash = Some(prompts::token_hash(&requests[..first]));
        }
        let schedule = match asked.load {
            Load::Batch(_) => Schedule::Lockstep,
            _ => Schedule::Continuous,
        };
        let wanted: Vec<_> = requests.iter().map(|r| r.output.len()).collect();
        let Some(running) = &mut self.running else {
            return Err(Failure::Died("is not running".to_owned()));
        };
        if warmup {
            running.watch.warm_up_starts();
        } else {
            running.watch.trial_starts();
        }
        let start = Instant::now();
        let limit_ns = Some(stopping.trial_limit.as_nanos() as u64);
        let job = Job::Trial { requests, schedule, limit_ns };
        let answer = running.child.ask(&job, stopping.trial_limit);
        let answered = Instant::now();
        running.spent += answered - start;
        running.watch.trial_ends();
        match answer? {
            Event::Trial { samples, engine_peak_bytes, age_ns } => {
                let started = age_ns.and_then(|ns| answered.checked_sub(Duration::from_nanos(ns)));
                let spans = energy::spans(&samples, case.load);
                if let (Some(started), Some(spans), false) = (started, spans, warmup) {
                    running.watch.meter(asked.trial, started, spans);
                }
                let peak = engine_peak_bytes.map(|bytes| bytes.0).filter(|_| !warmup);
                self.record.engine_peak_bytes = self.record.engine_peak_bytes.max(peak);
                check(samples, &wanted)
            }
            other => Err(unexpected(&other)),
        }
    }

    fn trial(&mut self, number: u32, warmup: bool, stopping: &Stopping) {
        let case = &self.subject.case;
        let (load, requests, pace) = (case.load, case.requests, self.pace);
        let asked = Asked { load, requests, trial: number, pace };
        match self.answered(asked, warmup, stopping) {
            Ok(samples) => {
                let case_id = self.subject.case.id.to_string();
                let trial = Trial::new(case_id, number, warmup, samples);
                self.pace = load::pace(&trial).or(self.pace);
                let Some(running) = &mut self.running else { return };
                running.trials.push(trial);
                let void = running.trials.iter().filter(|trial| !trial.warmup);
                let void: Vec<_> = void.filter_map(summary::void).collect();
                let counted = running.counted();
                let late = running.spent > stopping.case_limit;
                if void.len() as u32 >= stopping.min_trials {
                    let words = format!("{} trials void: {}", void.len(), void[0]);
                    self.fail(&Failure::Reported(Fault::Failed, words));
                    self.stop();
                } else if late {
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

    /// Looks for the highest load that meets the objective. The warm-up keeps all slots busy: its
    /// pace is about the highest rate that the engine can serve.
    fn search(&mut self, stopping: &Stopping, progress: &mut impl FnMut(Step<'_>)) {
        let Some(slo) = self.subject.slo else { return };
        let slots = self.subject.case.slots().max(1);
        let users = Load::Concurrency(slots);
        for number in 0..stopping.warmup.max(1) {
            progress(Step::Trial(&self.subject.case, number, true));
            let requests = users.requests().unwrap_or(slots);
            let asked = Asked { load: users, requests, trial: number, pace: None };
            match self.answered(asked, true, stopping) {
                Ok(samples) => {
                    let trial = Trial::new(self.subject.case.id.to_string(), number, true, samples);
                    self.pace = load::pace(&trial);
                    let void = summary::void(&trial);
                    let Some(running) = &mut self.running else { return };
                    running.trials.push(trial);
                    if let Some(void) = void {
                        self.fail(&Failure::Reported(Fault::Failed, void));
                        return self.stop();
                    }
                }
                Err(failure) => {
                    self.fail(&failure);
                    return self.stop();
                }
            }
        }
        let Some(pace) = self.pace else {
            self.fail(&Failure::Reported(Fault::Failed, "the warm-up has no pace".to_owned()));
            return self.stop();
        };
        if stopping.is_over() {
            self.is_unfinished = true;
            return self.stop();
        }
        let wanted = f64::from(self.subject.case.requests);
        let limit = stopping.trial_limit.as_secs_f64();
        if wanted / pace > limit * ROOM {
            let reason = format!(
                "a probe of {wanted} requests takes {} at this engine's {} requests a second, \
                 longer than limits.trial_seconds; raise it or shorten the requests",
                Nanos::from_seconds(wanted / pace),
                significant(pace, 2),
            );
            self.fail(&Failure::Reported(Fault::Failed, reason));
            self.record.outcome = Outcome::TimedOut;
            return self.stop();
        }
        // Below this rate the probe's own requests come too slowly for its time limit.
        // Conversations start at times that are drawn: their sum may be three standard deviations
        // above its mean, and the last one has its pauses still before it.
        let turns = self.subject.case.mix.as_ref().map_or(1, |mix| mix.turns);
        let pauses = self.subject.case.mix.as_ref().map_or(0.0, |mix| mix.think.seconds());
        let pauses = pauses * f64::from(turns - 1);
        let spread = 1.0 + 3.0 / (wanted / f64::from(turns)).sqrt();
        let lowest = wanted * spread / (limit * ROOM - pauses).max(limit * 0.1);
        let is_rate = self.subject.case.load == Load::MostRate;
        let search = if is_rate {
            Search::rates((0.8 * pace).max(lowest), lowest)
        } else {
            Search::users(slots)
        };
        self.probe(search, &slo, stopping, progress);
        self.stop();
    }

    fn probe(
        &mut self,
        mut search: Search,
        slo: &Slo,
        stopping: &Stopping,
        progress: &mut impl FnMut(Step<'_>),
    ) {
        let first = stopping.warmup.max(1);
        let mut notes = Vec::new();
        while let Some(value) = search.next() {
            let number = first + search.probes().len() as u32;
            let requests = self.subject.case.requests;
            let (load, requests, shown) = if self.subject.case.load == Load::MostRate {
                (Load::Rate(value), requests, format!("{}/s", significant(value, 3)))
            } else {
                let users = value as u32;
                let least = users.saturating_mul(4);
                (Load::Concurrency(users), requests.max(least), format!("{users} users"))
            };
            progress(Step::Probe(&self.subject.case, &shown));
            let asked = Asked { load, requests, trial: number, pace: None };
            let samples = match self.attempt(asked, false, stopping) {
                Ok(samples) => samples,
                Err(failure) => {
                    notes.push(format!("{shown} failed"));
                    self.fail(&failure);
                    break;
                }
            };
            // A server that refuses a load goes on with a lower one; one that is gone does not.
            let gone = unanswered(&samples).filter(|_| !overloaded(&samples));
            let trial = Trial {
                users: load.concurrency(),
                rate_per_s: load.rate(),
                ..Trial::new(self.subject.case.id.to_string(), number, false, samples)
            };
            // Other answers are other work: no load was put to the test.
            if let Some(reason) = gone.or_else(|| summary::void(&trial)) {
                notes.push(format!("{shown} failed"));
                self.fail(&Failure::Reported(Fault::Failed, format!("{shown}: {reason}")));
                let Some(running) = &mut self.running else { break };
                running.trials.push(trial);
                break;
            }
            let met = load::meets(&trial, slo);
            let good = load::good(&trial, slo);
            notes.push(format!("{shown} {good} of {requests}{}", if met { "" } else { " missed" }));
            search.note(value, met);
            let Some(running) = &mut self.running else { break };
            running.trials.push(trial);
            if running.spent > stopping.case_limit || stopping.is_over() {
                self.marks.push(Mark::TimedOut);
                break;
            }
        }
        self.record.slo_probes = Some(notes.join("; "));
        let (met, missed) = (search.met(), search.missed());
        if self.subject.case.load == Load::MostRate {
            (self.record.slo_capacity_per_s, self.record.slo_missed_per_s) = (met, missed);
        } else {
            let whole = |users: f64| users as u32;
            self.record.slo_capacity_users = met.map(whole);
            self.record.slo_missed_users = missed.map(whole);
        }
        if let (None, Some(missed)) = (met, missed) {
            let reason = format!("no load met the objective, down to {}", significant(missed, 3));
            self.absent.insert("slo_capacity".to_owned(), reason);
        }
        self.best = search.best().map(|place| first + place as u32);
    }

    /// Waits until the engine rests: some spin for a second after their last token, on the cores of
    /// whoever comes next.
    fn settle(&self) {
        let Some(running) = &self.running else { return };
        running.watch.settle(SETTLE);
    }

    fn stop(&mut self) {
        if let Some(running) = self.running.take() {
            let backend = self.record.backend.as_deref();
            self.observed = Some(running.watch.finish().of_backend(backend));
            self.trials = running.trials;
            running.child.finish();
        }
    }

    fn finish(mut self, probes: (Option<&Probe>, Option<&Probe>), idle: &IdlePower) -> Measured {
        if self.is_open() {
            self.record.outcome = Outcome::Measured;
        }
        let searched = self.subject.case.load.is_search();
        // Of a search the row shows the load that it found.
        let shown: Vec<_> = match self.best.filter(|_| searched) {
            Some(best) => self.trials.iter().filter(|trial| trial.trial == best).cloned().collect(),
            None if searched => Vec::new(),
            None => self.trials.clone(),
        };
        if let Some(trial) = shown.first().filter(|_| searched) {
            self.record.concurrency = trial.users;
            self.record.rate_per_s = trial.rate_per_s;
        }
        let load = self.subject.case.load;
        summary::fill(&mut self.record, &shown, load, self.subject.bytes_per_token);
        let slo = self.subject.slo.as_ref();
        self.marks.extend(load::fill(&mut self.record, &shown, slo, &mut self.absent));
        if let Some(observed) = &self.observed {
            self.marks.extend(observed.marks());
            summary::fill_observed(&mut self.record, observed, idle, &shown, &mut self.absent);
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
