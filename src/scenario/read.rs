//! From a file to a [`Scenario`].

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, bail};
use toml::de::{DeTable, DeValue};

use super::expectation::Expectation;
use super::known::Known;
use super::matrix::{self, Scope};
use super::plan;
use super::problem::{Problem, Problems};
use super::table::{Findings, Section, of_kind};
use super::{InTurn, Limits, Matrix, Scenario, Trials};
use crate::units::{Nanos, Share};

/// The sections, besides the keys before the first of them.
const SECTIONS: &[&str] =
    &["host", "trials", "limits", "settings", "matrix", "servers", "slo", "workload", "prices"];

/// More than any scenario needs; a device or a wrong file would fill the memory.
const MAX_BYTES: u64 = 1 << 20;

impl Scenario {
    /// Reads and checks a file. Errors of its content are [`Problems`], all of them at once.
    pub fn read(path: &Path, known: &Known) -> anyhow::Result<Self> {
        let shown = path.display();
        let about = fs::metadata(path).with_context(|| {
            format!("cannot read scenario '{shown}'; see scenarios/ for those that are shipped")
        })?;
        if !about.is_file() {
            bail!("scenario '{shown}' is not a file; name a .toml file");
        }
        if about.len() > MAX_BYTES {
            bail!("scenario '{shown}' is larger than 1 MiB; name a scenario's .toml file");
        }
        let bytes = fs::read(path).with_context(|| format!("cannot read scenario '{shown}'"))?;
        let text = String::from_utf8(bytes).map_err(|error| {
            let at = error.utf8_error().valid_up_to();
            let line = error.as_bytes()[..at].iter().filter(|byte| **byte == b'\n').count() + 1;
            let message = "not UTF-8; save the file as UTF-8 text".to_owned();
            Problems { path: path.to_owned(), problems: vec![Problem { line, message }] }
        })?;
        Ok(Self::parse(&text, path, known)?)
    }

    /// Checks a scenario's text; `path` is where relative paths start and what errors name.
    pub fn parse(text: &str, path: &Path, known: &Known) -> Result<Self, Problems> {
        let mut findings = Findings::new(text);
        let (root, errors) = DeTable::parse_recoverable(text);
        for error in &errors {
            // What follows a broken line is guesswork, so only broken lines are reported.
            let end = text.trim_end().len();
            let span = error.span().unwrap_or(end..end);
            findings.add(span, format!("not TOML: {}", error.message()));
        }
        if !errors.is_empty() {
            return Err(Problems { path: path.to_owned(), problems: findings.into_problems() });
        }
        let scenario = scenario(root.get_ref(), text, path, known, &mut findings);
        let problems = findings.into_problems();
        match scenario {
            Some(scenario) if problems.is_empty() => Ok(scenario),
            _ => Err(Problems { path: path.to_owned(), problems }),
        }
    }
}

fn scenario(
    root: &DeTable<'_>,
    text: &str,
    path: &Path,
    known: &Known,
    findings: &mut Findings,
) -> Option<Scenario> {
    let top = Section::new("", root, 0..0, SECTIONS, findings);
    let folder = path.parent().unwrap_or(Path::new(""));
    let description = top.text("description", findings).map(str::to_owned);
    let seed = top.whole("seed", 0..=i64::MAX as u64, findings);
    let host = section(&top, "host", "[host]", findings)
        .map(|host| expectation(&host, known, findings))
        .unwrap_or_default();
    let trials = section(&top, "trials", "[trials]", findings)
        .map(|section| trials(&section, findings))
        .unwrap_or_default();
    let limits = section(&top, "limits", "[limits]", findings)
        .map(|section| limits(&section, findings))
        .unwrap_or_default();
    let servers = plan::servers(&top, folder, known, findings);
    let workload = section(&top, "workload", "[workload]", findings)
        .map(|section| plan::workload(&section, folder, known, findings));
    let scope = Scope { known, folder, servers: &servers, workload: workload.as_ref() };
    let matrices = matrix::matrices(&top, &scope, findings);
    let slo =
        section(&top, "slo", "[slo]", findings).and_then(|section| plan::slo(&section, findings));
    for matrix in matrices.iter().flatten() {
        let users = matrix.loads.iter().any(|load| load.concurrency().is_some());
        if matrix.duration.is_some() && users && trials.warm_up == 0 {
            findings.add(
                top.raw("trials").map_or(0..0, |value| value.span()),
                "'seconds' with 'concurrency' learns the engine's pace from a warm-up; set 'warm_up' \
                 to 1 or more, or give 'requests'",
            );
        }
    }
    if let (Some(slo), Some(matrices)) = (&slo, &matrices)
        && slo.search
        && !matrices.iter().any(Matrix::is_searched)
    {
        let span = top.raw("slo").map_or(0..0, |value| value.span());
        findings.add(
            span,
            "'search' has nothing to search with: no [[matrix]] has 'concurrency' or 'rates'; add \
             one of them or remove 'search'",
        );
    }
    let prices = section(&top, "prices", "[prices]", findings)
        .map(|section| plan::prices(&section, known, findings));
    Some(Scenario {
        path: path.to_owned(),
        text: text.to_owned(),
        name: super::stem(path),
        description,
        seed: seed.unwrap_or(1),
        host,
        trials,
        limits,
        matrices: matrices?,
        servers,
        slo,
        workload,
        prices,
    })
}

/// A section of the file, where it is there.
fn section<'t, 'i>(
    top: &Section<'t, 'i>,
    key: &str,
    name: &'static str,
    findings: &mut Findings,
) -> Option<Section<'t, 'i>> {
    let value = top.raw(key)?;
    if let DeValue::Array(_) = value.get_ref() {
        findings.add(value.span(), format!("'{key}' must be one table; write {name}"));
        return None;
    }
    if !value.get_ref().is_table() {
        let kind = of_kind(value.get_ref());
        findings.add(value.span(), format!("'{key}' must be a table, not {kind}; write {name}"));
        return None;
    }
    Section::of_value(name, key, value, &[], findings)
}

fn expectation(host: &Section<'_, '_>, known: &Known, findings: &mut Findings) -> Expectation {
    let device = host.text("device", findings).map(str::to_owned);
    if let (Some(device), Some(devices), Some(field)) =
        (&device, &known.devices, host.get("device"))
    {
        let devices: Vec<&str> = devices.iter().map(String::as_str).collect();
        field.one_of(device, &devices, findings);
    }
    let text = |name, findings: &mut Findings| host.text(name, findings).map(str::to_owned);
    Expectation {
        device,
        cpu: text("cpu", findings),
        cores: host.count("cores", 1, findings),
        gpu: text("gpu", findings),
        gpus: host.count("gpus", 1, findings),
        gpu_memory: host.bytes("gpu_memory", findings),
        memory: host.bytes("memory", findings),
        os: host
            .list("os", "operating systems", findings, |field, value, findings| {
                let os = field.text_of(value, findings)?;
                let known = ["linux", "macos", "windows"];
                field.one_of_at(os, value, &known, findings).then(|| os.to_owned())
            })
            .unwrap_or_default(),
    }
}

fn trials(section: &Section<'_, '_>, findings: &mut Findings) -> Trials {
    let default = Trials::default();
    let given = |name, least, findings: &mut Findings| {
        section.whole(name, least..=100_000, findings).map(|n| n as u32)
    };
    let min = given("min", 1, findings);
    let max = given("max", 1, findings);
    let in_turn = match section.word("in_turn", &["point", "model"], findings) {
        Some("model") => InTurn::Model,
        _ => default.in_turn,
    };
    let trials = Trials {
        in_turn,
        min: min.unwrap_or(default.min),
        max: max.unwrap_or(default.max.max(min.unwrap_or(0))),
        warm_up: given("warm_up", 0, findings).unwrap_or(default.warm_up),
        interval: section.number("interval", 0.001..=0.5, findings).map_or(default.interval, Share),
    };
    if trials.min > trials.max {
        let span = section.get("max").map_or(section.span(), |field| field.value.span());
        let Trials { min, max, .. } = trials;
        findings.add(
            span,
            format!(
                "'max' is {max}, fewer than the {min} trials of 'min'; raise 'max' or lower 'min'"
            ),
        );
    }
    trials
}

fn limits(section: &Section<'_, '_>, findings: &mut Findings) -> Limits {
    let default = Limits::default();
    let seconds = |name, findings: &mut Findings| {
        section.number(name, 0.1..=31_536_000.0, findings).map(Nanos::from_seconds)
    };
    let (case, trial) = (seconds("case_seconds", findings), seconds("trial_seconds", findings));
    if let (Some(case), Some(trial), Some(field)) = (case, trial, section.get("trial_seconds"))
        && trial > case
    {
        findings.add(
            field.value.span(),
            format!(
                "'trial_seconds' is {trial}, longer than the {case} of its case; lower it or raise \
                 'case_seconds'"
            ),
        );
    }
    let case = case.unwrap_or(default.case.max(trial.unwrap_or(default.trial)));
    Limits {
        case,
        trial: trial.unwrap_or(default.trial.min(case)),
        scenario: seconds("scenario_seconds", findings),
        memory: section.bytes("memory", findings),
    }
}

/// The sub-tables of a section whose keys are names, in their order.
pub(super) fn named<'t, 'i>(
    table: &Section<'t, 'i>,
    name: &'static str,
    findings: &mut Findings,
) -> BTreeMap<&'t str, Section<'t, 'i>> {
    table
        .entries()
        .filter_map(|(key, value)| Some((key, Section::of_value(name, key, value, &[], findings)?)))
        .collect()
}
