//! `[[matrix]]`: what is measured.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::DeValue;

use super::engines::Engine;
use super::known::Known;
use super::settings::{SettingsTable, settings_of, settings_table, unused};
use super::table::{Field, Findings, Section};
use super::{Load, Matrix, Point, Server, Weights, Workload, mix};
use crate::units::{Nanos, Tokens};

/// What the checks of a matrix look things up in.
pub(super) struct Scope<'a> {
    pub known: &'a Known,
    pub folder: &'a Path,
    pub servers: &'a BTreeMap<String, Server>,
    pub workload: Option<&'a Workload>,
}

/// The most tokens, sequences or requests that a scenario may ask for; far beyond any machine, and
/// their products still fit their types.
pub(super) const MOST: u32 = 1 << 24;

/// Sequences of a sweep for step times where the scenario does not say.
const CALIBRATED_SLOTS: u32 = 8;

impl Scope<'_> {
    /// The names that `engines` may use.
    pub fn engine_names(&self) -> Vec<&str> {
        let known = self.known.engines.iter().map(|engine| engine.name);
        let servers = self.servers.keys().map(String::as_str);
        let mut names: Vec<&str> = known.collect();
        names.extend(servers.filter(|name| !self.known.engines.iter().any(|e| e.name == *name)));
        names
    }

    /// What is known of an engine; a named server is what its kind is.
    pub fn engine(&self, name: &str) -> Option<&Engine> {
        let kind = self.servers.get(name).map_or(name, |server| &server.kind);
        self.known.engines.iter().find(|engine| engine.name == kind)
    }
}

/// All matrices; `None` where something in them is wrong.
pub(super) fn matrices(
    top: &Section<'_, '_>,
    scope: &Scope<'_>,
    findings: &mut Findings,
) -> Option<Vec<Matrix>> {
    let Some(value) = top.raw("matrix") else {
        findings.add(
            0..0,
            "no [[matrix]], so nothing would run; add one with models, quants, engines and points",
        );
        return None;
    };
    let Some(array) = value
        .get_ref()
        .as_array()
        .filter(|array| !array.is_empty() && array.iter().all(|entry| entry.get_ref().is_table()))
    else {
        let message = match value.get_ref() {
            DeValue::Table(_) => "[matrix] is one table; write [[matrix]], in double brackets",
            DeValue::Array(a) if a.is_empty() => "'matrix' is empty, so nothing would run",
            _ => "'matrix' must be a list of tables; write [[matrix]]",
        };
        findings.add(value.span(), message);
        return None;
    };
    let general = top.raw("settings").and_then(|v| settings_table("settings", v, scope, findings));
    let measured: Vec<&str> = array.iter().flat_map(|entry| engines_of(entry.get_ref())).collect();
    let mut matrices = Vec::new();
    for entry in array.iter() {
        let Some(section) = Section::of_value("[[matrix]]", "matrix", entry, &[], findings) else {
            continue;
        };
        matrices.extend(matrix(&section, general.as_ref(), &measured, scope, findings));
    }
    if let Some(general) = &general {
        unused(general, &measured, "no [[matrix]] measures", findings);
    }
    (matrices.len() == array.len()).then_some(matrices)
}

/// The engines that a matrix names, right or wrong.
fn engines_of<'t>(matrix: &'t DeValue<'_>) -> impl Iterator<Item = &'t str> {
    let engines = matrix.get("engines").and_then(|engines| engines.get_ref().as_array());
    engines.into_iter().flat_map(|list| list.iter()).filter_map(|name| name.get_ref().as_str())
}

fn matrix(
    section: &Section<'_, '_>,
    general: Option<&SettingsTable<'_, '_>>,
    measured: &[&str],
    scope: &Scope<'_>,
    findings: &mut Findings,
) -> Option<Matrix> {
    let known = scope.known;
    let model_ids: Vec<&str> = known.models.iter().map(|model| model.id.as_str()).collect();
    let quant_names: Vec<&str> =
        known.quants.iter().chain(&known.file_quants).map(String::as_str).collect();
    let models = words(section, "models", "model", &model_ids, findings);
    let quants = words(section, "quants", "quantisation", &quant_names, findings);
    let engines = words(section, "engines", "engine", &scope.engine_names(), findings);
    let weights = weights(section, scope, &models, &quants, findings);
    let points = section.need("points", findings);
    let mixed = points.as_ref().and_then(|field| field.value.get_ref().as_str()).is_some();
    let mix = points.as_ref().filter(|_| mixed).map(|field| mix::of_field(field, scope, findings));
    let mix = mix.map_or(Some(None), |mix| mix.map(Some));
    let points = match &mix {
        Some(Some(mix)) => Some(vec![mix::mean(mix)]),
        _ if mixed => None,
        _ => points.and_then(|field| self::points(&field, findings)),
    };
    let traced = mix.iter().flatten().any(|mix| !mix.trace.is_empty());
    let calibrates = section.flag("calibrate", findings).unwrap_or(false);
    let loads = if calibrates {
        calibration_load(section, mixed, findings)
    } else if traced {
        trace_load(section, findings)
    } else {
        loads(section, findings)
    };
    if matches!(mix, Some(Some(_))) && !traced && !calibrates {
        check_no_batch(section, loads.as_deref(), findings);
    }
    let slots = crowd(section, "slots", loads.as_deref(), findings);
    let slots = if calibrates { slots.or(Some(CALIBRATED_SLOTS)) } else { slots };
    let loose = !calibrates;
    let requests = loose.then(|| crowd(section, "requests", loads.as_deref(), findings)).flatten();
    let duration = loose.then(|| duration(section, loads.as_deref(), findings)).flatten();
    let own = section.get("settings");
    let own = own.and_then(|f| settings_table("matrix.settings", f.value, scope, findings));
    let settings = engines.as_deref().map(|engines| {
        let names: Vec<&str> = engines.iter().map(String::as_str).collect();
        if let Some(own) = &own {
            unused(own, &names, "this [[matrix]] does not measure", findings);
        }
        let general = general.map(|table| (table, measured));
        let layers: Vec<_> =
            general.into_iter().chain(own.as_ref().map(|t| (t, &names[..]))).collect();
        settings_of(engines, &layers, scope, findings)
    });
    if weights == Some(Weights::Synthetic) {
        check_synthetic(section, known, findings);
    }
    let (models, points, loads, mix) = (models?, points?, loads?, mix?);
    let contexts = match &mix {
        Some(mix) => vec![mix.context.0],
        None => points.iter().map(|point| point.context().0).collect(),
    };
    check_contexts(section, &models, &contexts, &loads, slots, known, findings);
    check_depths(section, &points, &loads, findings);
    let matrix = Matrix {
        line: findings.line(section.span().start),
        models,
        quants: quants?,
        engines: engines?,
        weights: weights?,
        points,
        loads,
        slots,
        requests,
        duration,
        mix,
        settings: settings?,
    };
    Some(matrix)
}

/// A list of words that must be known.
fn words(
    section: &Section<'_, '_>,
    key: &str,
    what: &str,
    known: &[&str],
    findings: &mut Findings,
) -> Option<Vec<String>> {
    let field = section.need(key, findings)?;
    field.list_of("names", findings, |field, value, findings| {
        let word = field.text_of(value, findings)?;
        if known.contains(&word) {
            return Some(word.to_owned());
        }
        let remedy = super::nearest(word, known.iter().copied()).map_or_else(
            || match key {
                "models" => "'bench models' lists them".to_owned(),
                _ => format!("use one of {}", known.join(", ")),
            },
            |meant| format!("did you mean '{meant}'?"),
        );
        findings.add(value.span(), format!("unknown {what} '{word}'; {remedy}"));
        None
    })
}

fn weights(
    section: &Section<'_, '_>,
    scope: &Scope<'_>,
    models: &Option<Vec<String>>,
    quants: &Option<Vec<String>>,
    findings: &mut Findings,
) -> Option<Weights> {
    let Some(field) = section.get("weights") else {
        return Some(Weights::Synthetic);
    };
    let text = field.text_of(field.value, findings)?;
    let span = field.value.span();
    let weights = match text.strip_prefix("hub:") {
        _ if text == "synthetic" => return Some(Weights::Synthetic),
        Some(rest) => {
            let parts: Vec<&str> = rest.splitn(3, '/').collect();
            let [owner, repo, file] = parts[..] else {
                let remedy = "write hub:owner/repo/file.gguf";
                findings.add(span, format!("'weights' names no file in '{text}'; {remedy}"));
                return None;
            };
            let step = file.split('/').any(|part| part.is_empty() || part == "..");
            if owner.is_empty() || repo.is_empty() || step || !file.ends_with(".gguf") {
                let remedy = "write hub:owner/repo/file.gguf";
                findings.add(span, format!("'weights' names no GGUF file in '{text}'; {remedy}"));
                return None;
            }
            Weights::Hub { repo: format!("{owner}/{repo}"), file: file.to_owned() }
        }
        None if text.ends_with(".gguf") || text.contains(['/', '\\']) => {
            if !scope.folder.join(text).exists() {
                let remedy = "paths start at the scenario's folder";
                findings.add(span, format!("'weights': no file '{text}'; {remedy}"));
                return None;
            }
            Weights::File(PathBuf::from(text))
        }
        None => {
            let remedy = super::nearest(text, ["synthetic"]).map_or_else(
                || "use synthetic, a path to a .gguf file or hub:owner/repo/file.gguf".to_owned(),
                |meant| format!("did you mean '{meant}'?"),
            );
            findings.add(span, format!("unknown weights '{text}'; {remedy}"));
            return None;
        }
    };
    for (key, list) in [("models", models), ("quants", quants)] {
        let Some(n) = list.as_ref().map(Vec::len).filter(|n| *n > 1) else { continue };
        findings.add(
            span.clone(),
            format!(
                "'weights' is one file, but '{key}' has {n} entries; give each its own [[matrix]]"
            ),
        );
        return None;
    }
    Some(weights)
}

/// Reports what synthetic weights cannot be made for.
fn check_synthetic(section: &Section<'_, '_>, known: &Known, findings: &mut Findings) {
    let values = |key| {
        let list = section.get(key).and_then(|field| field.value.get_ref().as_array());
        list.into_iter().flat_map(|list| list.iter())
    };
    let remedy = "name a real file in 'weights'";
    for value in values("models") {
        let model = known.models.iter().find(|m| value.get_ref().as_str() == Some(m.id.as_str()));
        if let Some((id, why)) = model.and_then(|m| Some((&m.id, m.not_synthetic.as_ref()?))) {
            let message = format!("no synthetic weights of '{id}': {why}; {remedy}");
            findings.add(value.span(), message);
        }
    }
    for value in values("quants") {
        let quant = value.get_ref().as_str().unwrap_or_default();
        if known.file_quants.iter().any(|name| name == quant) {
            let made = known.quants.join(", ");
            let message =
                format!("no synthetic weights in '{quant}'; {remedy}, or use one of {made}");
            findings.add(value.span(), message);
        }
    }
}

fn points(field: &Field<'_, '_>, findings: &mut Findings) -> Option<Vec<Point>> {
    field.list_of("tables", findings, |field, value, findings| {
        if !value.get_ref().is_table() {
            field.wrong_type(value, "a list of tables", findings);
            return None;
        }
        let section = Section::of_value("points", "points", value, &[], findings)?;
        let mut tokens = |name: &str, least: u32| {
            let field = section.get(name)?;
            field.count_of(field.value, least, MOST, findings)
        };
        let (prompt, new, depth) =
            (tokens("prompt_tokens", 1), tokens("new_tokens", 1), tokens("depth", 0));
        let point = |prompt, new, depth| Point {
            prompt_tokens: Tokens(prompt),
            new_tokens: Tokens(new),
            depth: Tokens(depth),
        };
        section.need("prompt_tokens", findings)?;
        section.need("new_tokens", findings)?;
        let depth = if section.has("depth") { depth? } else { 0 };
        Some(point(prompt?, new?, depth))
    })
}

fn loads(section: &Section<'_, '_>, findings: &mut Findings) -> Option<Vec<Load>> {
    let mut loads = Vec::new();
    let mut whole = true;
    for (name, load) in
        [("batch", Load::Batch as fn(u32) -> Load), ("concurrency", Load::Concurrency)]
    {
        if !section.has(name) {
            continue;
        }
        let counts = section.list(name, "whole numbers", findings, |field, value, findings| {
            field.count_of(value, 1, MOST, findings)
        });
        whole &= counts.is_some();
        loads.extend(counts.unwrap_or_default().into_iter().map(load));
    }
    if section.has("rates") {
        let rates = section.list("rates", "numbers", findings, |field, value, findings| {
            field.number_of(value, 1e-6..=1e6, findings)
        });
        whole &= rates.is_some();
        loads.extend(rates.unwrap_or_default().into_iter().map(Load::Rate));
    }
    if loads.is_empty() && whole {
        loads.push(Load::Batch(1));
    }
    whole.then_some(loads)
}

/// `slots` or `requests`: numbers that only `concurrency` and `rates` have a use for.
fn crowd(
    section: &Section<'_, '_>,
    name: &str,
    loads: Option<&[Load]>,
    findings: &mut Findings,
) -> Option<u32> {
    let Some(field) = section.get(name) else {
        let open = section.has("rates") || loads == Some(&[Load::Trace]);
        // A trace has a number of requests, and a duration takes its place.
        let given = name == "requests" && (section.has("seconds") || !section.has("rates"));
        if open && !given {
            section.need(name, findings);
        }
        return None;
    };
    let number = field.count_of(field.value, 1, MOST, findings)?;
    let loads = loads?;
    let span = field.value.span();
    if !loads.iter().any(|load| load.batch().is_none()) {
        findings.add(
            span,
            format!("'{name}' has no use here: it belongs to 'concurrency' or 'rates'; remove it"),
        );
        return None;
    }
    let most = loads.iter().filter_map(|load| load.concurrency()).max();
    if let Some(most) = most.filter(|most| name == "requests" && number < *most) {
        findings.add(
            span,
            format!("'requests' is {number}, fewer than {most} users; raise it to {most} or more"),
        );
        return None;
    }
    Some(number)
}

/// A trace comes at its own times: it is the only load.
fn trace_load(section: &Section<'_, '_>, findings: &mut Findings) -> Option<Vec<Load>> {
    let mut alone = true;
    for name in ["batch", "concurrency", "rates"] {
        if let Some(field) = section.get(name) {
            let message =
                format!("'{name}' with a trace, which has its own times; remove '{name}'");
            findings.add(field.value.span(), message);
            alone = false;
        }
    }
    alone.then(|| vec![Load::Trace])
}

/// A sweep is its own load and its own requests; a point says how long they get.
fn calibration_load(
    section: &Section<'_, '_>,
    mixed: bool,
    findings: &mut Findings,
) -> Option<Vec<Load>> {
    let mut alone = true;
    for name in ["batch", "concurrency", "rates", "requests", "seconds"] {
        if let Some(field) = section.get(name) {
            let message = format!(
                "'{name}' with 'calibrate', which makes its own requests; put it in a [[matrix]] \
                 of its own"
            );
            findings.add(field.value.span(), message);
            alone = false;
        }
    }
    if let Some(field) = section.get("points").filter(|_| mixed) {
        findings.add(
            field.value.span(),
            "a sweep of 'calibrate' makes its own requests; name the longest prompt and answer, \
             as in points = [{ prompt_tokens = 1024, new_tokens = 64 }]",
        );
        alone = false;
    }
    alone.then(|| vec![Load::Calibration])
}

/// Reports a static batch of requests that are not alike.
fn check_no_batch(section: &Section<'_, '_>, loads: Option<&[Load]>, findings: &mut Findings) {
    if loads.is_some_and(|loads| loads.iter().any(|load| load.batch().is_some())) {
        let span = section.get("batch").map_or(section.span(), |field| field.value.span());
        findings.add(
            span,
            "a static batch wants requests that are all alike; use 'concurrency' or 'rates' with \
             points = \"workload\"",
        );
    }
}

/// How long requests of a trial start.
fn duration(
    section: &Section<'_, '_>,
    loads: Option<&[Load]>,
    findings: &mut Findings,
) -> Option<Nanos> {
    let field = section.get("seconds")?;
    let seconds = field.number_of(field.value, 0.1..=86_400.0, findings)?;
    let span = field.value.span();
    if section.has("requests") {
        findings.add(
            span,
            "'seconds' and 'requests' exclude each other; remove one of them".to_owned(),
        );
        return None;
    }
    if !loads?.iter().any(|load| load.batch().is_none()) {
        findings.add(
            span,
            "'seconds' has no use here: it belongs to 'concurrency' or 'rates'; remove it",
        );
        return None;
    }
    Some(Nanos::from_seconds(seconds))
}

/// Where each point stands in the file; one span for points that are a word.
fn spans(section: &Section<'_, '_>) -> Vec<std::ops::Range<usize>> {
    let Some(field) = section.get("points") else { return Vec::new() };
    match field.value.get_ref().as_array() {
        Some(array) => array.iter().map(Spanned::span).collect(),
        None => vec![field.value.span()],
    }
}

/// What contexts, loads and models together make impossible.
fn check_contexts(
    section: &Section<'_, '_>,
    models: &[String],
    contexts: &[u32],
    loads: &[Load],
    slots: Option<u32>,
    known: &Known,
    findings: &mut Findings,
) {
    for (&context, span) in contexts.iter().zip(spans(section)) {
        for model in known.models.iter().filter(|model| models.contains(&model.id)) {
            if let Some(max) = model.context_max.filter(|max| context > *max) {
                findings.add(
                    span.clone(),
                    format!(
                        "a context of {context} tokens (depth + prompt + new) is beyond the {max} \
                         of '{}'; shorten the point or leave the model out",
                        model.id
                    ),
                );
            }
        }
        for load in loads {
            let held = slots.filter(|_| load.batch().is_none()).or(load.together()).unwrap_or(1);
            if u64::from(held) * u64::from(context) > i32::MAX as u64 {
                findings.add(
                    span.clone(),
                    format!(
                        "{held} sequences of {context} tokens are more than a KV cache can count; \
                         lower one of them"
                    ),
                );
            }
        }
    }
}

/// Reports depths under loads that cannot keep them.
fn check_depths(
    section: &Section<'_, '_>,
    points: &[Point],
    loads: &[Load],
    findings: &mut Findings,
) {
    for (point, span) in points.iter().zip(spans(section)) {
        if point.depth.0 > 0 && loads.iter().any(|load| load.batch().is_none()) {
            findings.add(
                span,
                format!(
                    "'depth' of {} with 'concurrency' or 'rates': later requests start with an \
                     empty cache; put the point in a [[matrix]] with 'batch'",
                    point.depth.0
                ),
            );
        }
    }
}
