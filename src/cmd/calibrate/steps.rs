//! How well step times foretell loads that had no part in them: each row of a folder under load,
//! simulated with the requests that it really had.

use std::ops::Deref;
use std::path::{Path, PathBuf};

use crate::capacity::{
    COLD, Demand, Engine, Fleet, Outcome, Routing, Span, Times, Who, pace as pace_of, simulate,
    workload,
};
use crate::cases;
use crate::cmd::step_times::{self, MeasuredSteps};
use crate::metrics::{Arrivals, Limits};
use crate::record::{Folder, Record, Trial};
use crate::report::{Section, Table};
use crate::run;
use crate::runner::protocol::Sample;
use crate::scenario::{Scenario, Slo};
use crate::stats;
use crate::units::{ABSENT, Nanos, Share, Tokens, or_absent, significant};
use workload::{Mix, Recorded};

/// Requests that are simulated for a share.
const SIMULATED: u64 = 20_000;
/// Users beyond which no search goes.
const MOST_USERS: u32 = 512;

/// What the medians and the 95th percentiles have to keep to.
const CLOSE: [f64; 2] = [0.10, 0.20];

/// Every folder's step times, and how well they foretell its other rows.
pub fn sections(folders: &[PathBuf]) -> anyhow::Result<Vec<Section>> {
    let mut sections = Vec::new();
    let mut loads = Table::new(&[
        "run",
        "engine",
        "load",
        ">sweep off by",
        ">steps took",
        ">close",
        ">in its interval",
        ">at its pace",
        "marks",
    ]);
    let mut sweeps = Vec::new();
    for folder in folders {
        sweeps.extend(step_times::of_sweeps(folder)?);
    }
    for steps in &sweeps {
        sections.push(step_section(steps));
        for folder in folders {
            // Loads are judged by the sweep beside them; without one, by the last of the engine in the
            // folders before.
            let same = |other: &&MeasuredSteps| other.is_of(&steps.from[0]);
            let place = |folder: &PathBuf| folders.iter().position(|other| other == folder);
            let before = |other: &&MeasuredSteps| place(&other.folder) <= place(folder);
            let judge = sweeps.iter().rfind(|other| same(other) && before(other));
            let judge = judge.or(sweeps.iter().rfind(same));
            if judge.is_some_and(|judge| std::ptr::eq(judge, steps)) {
                sections.extend(judged(folder, steps, &mut loads)?);
                sections.extend(searched(folder, steps)?);
            }
        }
    }
    anyhow::ensure!(
        !sections.is_empty(),
        "no sweep for step times in these folders; measure one with a [[matrix]] that has \
         'calibrate = true', as in: bench run scenarios/capacity.toml"
    );
    if loads.rows.len() > 1 {
        sections.insert(0, overview(loads));
    }
    Ok(sections)
}

fn overview(loads: Table) -> Section {
    let notes = vec![
        "sweep off by: the median error of steps of the sweep that were held back. steps took: those \
         of the load, of their expected times, all together and each at most twice. close: figures of \
         the load that were foretold within the limits. in its interval: those within the interval of \
         the measured percentile, which tells how exactly so many requests give it. at its pace: close \
         ones with step times that are longer or shorter by what the steps of each trial took; no \
         prediction, but it tells an error of the simulation from a machine that was slower or faster \
         than in its sweep."
            .to_owned(),
    ];
    Section { heading: "All loads".into(), table: Some(loads), notes, ..Section::default() }
}

fn title(record: &Record) -> String {
    format!("{}, {} {}, {}", record.engine, record.model, record.quant, record.host)
}

/// The step times themselves.
fn step_section(steps: &MeasuredSteps) -> Section {
    let step = &steps.fit.step;
    let time = |seconds: f64| Nanos::from_seconds(seconds).to_string();
    let mut table = Table::new(&["a step of", ">takes"]);
    for (sequences, seconds) in step.decode.points() {
        let words = format!("{sequences} generating, no cache");
        table.rows.push(vec![words, time(*seconds)]);
    }
    table.rows.push(vec!["each 1,000 cached tokens".into(), time(step.cached_token * 1000.0)]);
    for (tokens, seconds) in step.prompt.points() {
        table.rows.push(vec![format!("{tokens} prompt tokens"), time(*seconds)]);
    }
    let pairs = time(step.pair * 1e6);
    table.rows.push(vec!["each million pairs of a prompt token and one before".into(), pairs]);
    table.rows.push(vec!["both kinds in one step, more".into(), time(step.both)]);
    table.rows.push(vec!["each one generating beside prompts".into(), time(step.beside)]);
    if step.cold > 0.0 {
        let pause = Nanos::from_seconds(COLD);
        table
            .rows
            .push(vec![format!("the first after {pause} without work, more"), time(step.cold)]);
    }
    table.rows.push(vec!["the way to the engine and back".into(), time(step.entry)]);
    let fit = &steps.fit;
    let p95 = fit.error_p95.map_or(ABSENT.to_owned(), |p95| Share(p95).to_string());
    let mut notes = vec![
        format!(
            "Least squares over {} steps, up to {} sequences and {} prompt tokens at once. Steps that \
             were held back: median error {}, 95 % within {p95}.",
            fit.steps,
            fit.sequences,
            fit.prompt_tokens,
            Share(fit.error_median),
        ),
        format!("Marks of the sweep: {}.", marks(&steps.from[0])),
    ];
    if let Some(other) = fit.other_error_median {
        notes.insert(
            1,
            format!(
                "How it computes the sequences of a step, from the slots of its requests: {}. \
                 Computed the other way, the steps that were held back have a median error of {}.",
                fit.batches.words(),
                Share(other)
            ),
        );
    }
    let heading = format!("{}: step times from {}", title(&steps.from[0]), name(&steps.folder));
    Section { heading, table: Some(table), notes, ..Section::default() }
}

/// A folder's own name.
fn name(folder: &Path) -> String {
    folder.file_name().unwrap_or(folder.as_os_str()).to_string_lossy().into_owned()
}

fn marks(record: &Record) -> &str {
    if record.marks.is_empty() { "none" } else { &record.marks }
}

/// The rows under a load, measured beside simulated.
fn judged(
    folder: &Path,
    steps: &MeasuredSteps,
    loads: &mut Table,
) -> anyhow::Result<Option<Section>> {
    let named = name(folder);
    let folder = Folder::open(folder)?;
    let trials: Vec<Trial<Sample>> = folder.read_trials()?;
    let heads = ["load", "figure", ">measured", ">its interval", ">simulated", ">error", "close"];
    let mut table = Table::new(&heads);
    let mut notes = Vec::new();
    for record in folder.records() {
        let open = record.rate_per_s.is_some() || record.load.as_deref() == Some("trace");
        if !open || record.slo_probes.is_some() || !steps.is_of(record) {
            continue;
        }
        let of = |trial: &&Trial<Sample>| !trial.warmup && trial.case_id == record.case_id;
        let its: Vec<&Trial<Sample>> = trials.iter().filter(of).collect();
        if its.is_empty() {
            continue;
        }
        let mut measured = Took::default();
        its.iter().for_each(|trial| measured.note(trial));
        let engine = steps.engine(Tokens(u32::MAX));
        let simulated = Took::simulated(its.iter().map(|trial| (*trial, engine.clone())))?;
        let load = crate::report::load::load(record);
        let (figures, inside) = compared(&measured, &simulated);
        let close = how_many_close(&figures);
        let inside = format!("{inside} of {}", figures.len());
        for row in figures {
            let mut cells = vec![load.clone()];
            cells.extend(row);
            table.rows.push(cells);
        }
        let seen: Vec<_> = its.iter().map(|trial| step_times::seen(trial, record.depth)).collect();
        let pace = pace_of(&steps.fit.step, steps.fit.batches, &seen, steps.room);
        let at_its_pace = Took::simulated(its.iter().zip(&seen).map(|(trial, seen)| {
            let own = std::slice::from_ref(seen);
            let pace = pace_of(&steps.fit.step, steps.fit.batches, own, steps.room);
            let step = engine.step.scaled(pace.map_or(1.0, |pace| pace.all));
            (*trial, Engine { step, ..engine.clone() })
        }))?;
        let at_its_pace = how_many_close(&compared(&measured, &at_its_pace).0);
        loads.rows.push(vec![
            named.clone(),
            record.engine.clone(),
            load.clone(),
            Share(steps.fit.error_median).to_string(),
            or_absent(pace.map(|pace| Share(pace.all))),
            close,
            inside,
            at_its_pace,
            marks(record).to_owned(),
        ]);
        let pace = pace.map_or(String::new(), |pace| {
            format!(
                "; steps took {} of their expected times in all, {} in the median, and hung for {}",
                Share(pace.all),
                Share(pace.median),
                Nanos::from_seconds(pace.hung)
            )
        });
        notes.push(format!(
            "{load}: {} requests; marks: {}; the engine computed in {} of the simulated time{pace}.",
            its.iter().map(|trial| trial.samples.len()).sum::<usize>(),
            marks(record),
            Share(simulated.busy),
        ));
    }
    if notes.is_empty() {
        return Ok(None);
    }
    notes.push(format!("Close: {} figures.", how_many_close(&table.rows)));
    notes.push(format!(
        "Loads that had no part in the step times, simulated with the arrivals and lengths of the \
         measured requests. Close are medians within {}, 95th percentiles within {}. Its interval: of \
         the measured percentile, by the requests that there are (95 %, of its rank).",
        Share(CLOSE[0]),
        Share(CLOSE[1])
    ));
    let heading = format!("{}: loads of {named}", title(&steps.from[0]));
    Ok(Some(Section { heading, is_part: true, table: Some(table), notes, ..Section::default() }))
}

/// The highest numbers of users that met an objective, searched on the engine and simulated.
fn searched(folder: &Path, steps: &MeasuredSteps) -> anyhow::Result<Option<Section>> {
    let records = Folder::open(folder)?;
    let of = |r: &&Record| r.load.as_deref() == Some("slo-users") && steps.is_of(r);
    let searches: Vec<&Record> = records.records().iter().filter(of).collect();
    if searches.is_empty() {
        return Ok(None);
    }
    let scenario = Scenario::read(&folder.join("scenario.toml"), &super::super::known())?;
    let cases = cases::expand(&scenario)?;
    let mut table = Table::new(&["users", ">met", ">missed", ">simulated", "close"]);
    let mut notes = Vec::new();
    for record in searches {
        let case = cases.iter().find(|case| case.id.0 == record.case_id);
        let (Some(case), Some(slo)) = (case, scenario.slo) else { continue };
        let fixed = || Mix::fixed(case.prompt_tokens, case.new_tokens);
        let mix = case.mix.clone().unwrap_or_else(fixed);
        let engine = steps.engine(Tokens(u32::MAX));
        let users = most_users(&engine, &mix, &slo, case.requests)?;
        let shown = |users: Option<u32>| users.map_or(ABSENT.to_owned(), |users| users.to_string());
        let close = record.slo_capacity_users.map(|met| {
            let apart = f64::from(met.abs_diff(users));
            apart <= (0.1 * f64::from(met)).max(1.0)
        });
        table.rows.push(vec![
            record.workload.clone().unwrap_or_default(),
            shown(record.slo_capacity_users),
            shown(record.slo_missed_users),
            users.to_string(),
            close.map_or(ABSENT, |close| if close { "yes" } else { "no" }).to_owned(),
        ]);
        notes.push(format!(
            "Objective: {}. Probes: {}. Marks: {}.",
            record.slo.as_deref().unwrap_or(ABSENT),
            record.slo_probes.as_deref().unwrap_or(ABSENT),
            marks(record)
        ));
    }
    notes.push(
        "met, missed: the most users that met the objective on the engine, and the fewest that \
         missed it. simulated: the most whose share of requests that keep it, in as many requests \
         as a probe had, has its lower bound there too. Close is one user or 10 % off."
            .to_owned(),
    );
    let heading = format!("{}: users under an objective", title(&steps.from[0]));
    Ok(Some(Section { heading, is_part: true, table: Some(table), notes, ..Section::default() }))
}

/// The most users that meet the objective by the measure of a probe of `bench run`.
fn most_users(engine: &Engine, mix: &Mix, slo: &Slo, requests: u32) -> anyhow::Result<u32> {
    let fleet = Fleet { engines: vec![engine.clone()], routing: Routing::RoundRobin };
    let span = Span { run_up: 200, requests: SIMULATED, time: None, day_second: 0.0, bins: 0 };
    for users in 1..=MOST_USERS {
        let demand = Demand {
            mix: mix.clone(),
            who: Who::Users { users },
            pauses: workload::Arrivals::Constant,
            profile: None,
        };
        let outcome = simulate(&fleet, &demand, &run::load::limits(slo), &span, 1)?;
        let asked = u64::from(requests.max(users.saturating_mul(4)));
        let met = (outcome.attainment().unwrap_or(0.0) * asked as f64).round() as u64;
        if stats::wilson(met, asked).is_none_or(|share| share.low < slo.attainment.0) {
            return Ok(users - 1);
        }
    }
    Ok(MOST_USERS)
}

/// Times of requests, measured or simulated.
#[derive(Default)]
struct Took {
    ttft: Times,
    tpot: Times,
    e2e: Times,
    /// The mean share of the time in which the engine computed, where that was simulated.
    busy: f64,
}

impl Took {
    /// Takes in what was measured in a trial.
    fn note(&mut self, trial: &Trial<Sample>) {
        for sample in trial.samples.iter().filter(|sample| sample.error().is_none()) {
            let arrivals = Arrivals {
                intended_ns: sample.intended_ns,
                sent_ns: sample.sent_ns,
                prompt_tokens: sample.prompt_tokens,
                token_ns: &sample.token_ns,
            };
            self.ttft.extend(arrivals.ttft());
            self.tpot.extend(arrivals.tpot_ns().map(|ns| Nanos(ns as u64)));
            self.e2e.extend(arrivals.end_to_end());
        }
    }

    /// The requests of trials, each on its engine.
    fn simulated<'a>(
        trials: impl ExactSizeIterator<Item = (&'a Trial<Sample>, Engine)>,
    ) -> anyhow::Result<Self> {
        let (mut all, count) = (Self::default(), trials.len());
        for (trial, engine) in trials {
            let outcome = replay(trial, &engine)?;
            all.ttft.merge(&outcome.ttft);
            all.tpot.merge(&outcome.tpot);
            all.e2e.merge(&outcome.e2e);
            all.busy += outcome.busy / count as f64;
        }
        Ok(all)
    }
}

/// What the simulation makes of the trial's own requests.
fn replay(trial: &Trial<Sample>, engine: &Engine) -> anyhow::Result<Outcome> {
    let whole = trial.samples.iter().filter(|sample| sample.error().is_none());
    let trace: Vec<Recorded> = whole
        .map(|sample| Recorded {
            start: Nanos(sample.sent_ns),
            prompt_tokens: Tokens(sample.prompt_tokens),
            new_tokens: Tokens(sample.token_ns.len() as u32),
        })
        .collect();
    let requests = trace.len() as u64;
    let mix = Mix { trace, ..Mix::fixed(Tokens(1), Tokens(1)) };
    let demand = Demand {
        mix,
        who: Who::Trace { speed: 1.0 },
        pauses: workload::Arrivals::Constant,
        profile: None,
    };
    let fleet = Fleet { engines: vec![engine.clone()], routing: Routing::RoundRobin };
    let span = Span { run_up: 0, requests, time: None, day_second: 0.0, bins: 0 };
    simulate(&fleet, &demand, &Limits::default(), &span, 1)
}

/// Where a percentile lies with 95 % confidence: the times at both ends of the interval of its rank.
fn interval(times: &Times, percentile: f64) -> Option<[Nanos; 2]> {
    let all = times.count();
    let ranks = stats::wilson((percentile / 100.0 * all as f64).round() as u64, all)?;
    Some([times.percentile(ranks.low * 100.0)?, times.percentile(ranks.high * 100.0)?])
}

/// Figure, measured, its interval, simulated, relative error, and whether it is close enough; and how
/// many are in the interval.
fn compared(measured: &Took, simulated: &Took) -> (Vec<Vec<String>>, usize) {
    let figures = [
        ("TTFT", &measured.ttft, &simulated.ttft),
        ("TPOT", &measured.tpot, &simulated.tpot),
        ("E2E", &measured.e2e, &simulated.e2e),
    ];
    let (mut rows, mut inside) = (Vec::new(), 0);
    for (name, measured, simulated) in figures {
        for (percentile, close) in [50.0, 95.0].into_iter().zip(CLOSE) {
            let (Some(was), Some(is)) =
                (measured.percentile(percentile), simulated.percentile(percentile))
            else {
                continue;
            };
            let error = is.seconds() / was.seconds() - 1.0;
            let interval = interval(measured, percentile);
            inside += usize::from(interval.is_some_and(|[low, high]| low <= is && is <= high));
            rows.push(vec![
                format!("{name} P{percentile}"),
                was.to_string(),
                or_absent(interval.map(|[low, high]| format!("{low} to {high}"))),
                is.to_string(),
                format!(
                    "{}{} %",
                    if error < 0.0 { "" } else { "+" },
                    significant(error * 100.0, 2)
                ),
                if error.abs() <= close { "yes" } else { "no" }.to_owned(),
            ]);
        }
    }
    (rows, inside)
}

/// How many rows say at their end that they are close, of how many.
fn how_many_close<T: Deref<Target = str>>(rows: &[Vec<T>]) -> String {
    let close = rows.iter().filter(|row| row.last().is_some_and(|cell| **cell == *"yes"));
    format!("{} of {}", close.count(), rows.len())
}
