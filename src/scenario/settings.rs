//! `[settings]`: the switches of the engines, for all of them and for one.

use std::collections::{BTreeMap, BTreeSet};

use super::engines::Engine;
use super::matrix::{MOST, Scope};
use super::table::{Field, Findings, Section, Value, of_kind};
use super::{Server, keys};
use crate::runner::Settings;
use crate::units::Nanos;

/// A table of settings, with tables for single engines in it.
pub(super) struct SettingsTable<'t, 'i> {
    /// For all engines.
    all: Section<'t, 'i>,
    /// For one.
    single: BTreeMap<&'t str, Section<'t, 'i>>,
    /// As it is written: `settings` or `matrix.settings`.
    shown: &'static str,
}

pub(super) fn settings_table<'t, 'i>(
    shown: &'static str,
    value: &'t Value<'i>,
    scope: &Scope<'_>,
    findings: &mut Findings,
) -> Option<SettingsTable<'t, 'i>> {
    if !value.get_ref().is_table() {
        let kind = of_kind(value.get_ref());
        findings.add(
            value.span(),
            format!("'settings' must be a table, not {kind}; for example '{{ threads = 8 }}'"),
        );
        return None;
    }
    let names = scope.engine_names();
    let all = Section::of_value("[settings]", "settings", value, &names, findings)?;
    let mut single = BTreeMap::new();
    for (key, value) in all.entries().filter(|(key, _)| names.contains(key)) {
        if let Some(section) = Section::of_value("[settings]", key, value, &[], findings) {
            single.insert(key, section);
        }
    }
    Some(SettingsTable { all, single, shown })
}

/// Reports tables for engines that nothing measures.
pub(super) fn unused(
    table: &SettingsTable<'_, '_>,
    engines: &[&str],
    reason: &str,
    findings: &mut Findings,
) {
    for (name, section) in &table.single {
        if !engines.contains(name) {
            let shown = quoted(table.shown, name);
            findings
                .add(section.span(), format!("{reason} '{name}'; remove [{shown}] or measure it"));
        }
    }
}

/// Each engine's settings: the scenario's, then the matrix's, each first those for all engines.
/// Beside each table stand the engines that it is for.
pub(super) fn settings_of(
    engines: &[String],
    layers: &[(&SettingsTable<'_, '_>, &[&str])],
    scope: &Scope<'_>,
    findings: &mut Findings,
) -> BTreeMap<String, Settings> {
    let mut all = BTreeMap::new();
    for name in engines {
        let Some(engine) = scope.engine(name) else { continue };
        let server = scope.servers.get(name);
        let mut settings = Settings { options: options(server), ..Settings::default() };
        // Whoever started a server has chosen its settings.
        let attached = server.is_some_and(|server| server.url.is_some());
        for (table, scoped) in layers {
            let others = |setting: &str| {
                let takes = |name: &&&str| {
                    scope.engine(name).is_some_and(|e| e.settings.contains(&setting))
                };
                let tables = scoped.iter().filter(takes);
                let tables: BTreeSet<String> =
                    tables.map(|name| format!("[{}]", quoted(table.shown, name))).collect();
                if tables.is_empty() {
                    return "remove it".to_owned();
                }
                format!("move it to {}", tables.into_iter().collect::<Vec<_>>().join(" and "))
            };
            // Tables for all engines hold for a server as far as it is started with such settings.
            let skips =
                |setting: &str| engine.server && (attached || !engine.settings.contains(&setting));
            apply(&table.all, name, engine, &mut settings, findings, &skips, &others);
            let Some(section) = table.single.get(name.as_str()) else { continue };
            if attached {
                findings.add(
                    section.span(),
                    format!(
                        "[servers.{name}] has a 'url': what runs there has its own settings; \
                             remove [{}]",
                        quoted(table.shown, name)
                    ),
                );
                continue;
            }
            apply(section, name, engine, &mut settings, findings, &|_| false, &|_| match (
                engine.server,
                engine.settings,
            ) {
                (true, []) => {
                    format!("a server takes its switches from [servers.{name}] args")
                }
                (_, has) => format!("it has {}", has.join(", ")),
            });
        }
        all.insert(name.clone(), settings);
    }
    all
}

/// What a server's runner is told beside the settings.
fn options(server: Option<&Server>) -> BTreeMap<String, String> {
    let Some(server) = server else { return BTreeMap::new() };
    let seconds = |time: Option<Nanos>| time.map(|time| time.seconds().to_string());
    let args = (!server.args.is_empty()).then(|| serde_json::json!(server.args).to_string());
    let early_end = server.early_end.then(|| "allowed".to_owned());
    [
        ("url", server.url.clone()),
        ("model", server.model.clone()),
        ("key_env", server.api_key_env.clone()),
        ("program", server.program.clone()),
        ("args", args),
        ("ready_seconds", seconds(server.ready)),
        ("silence_seconds", seconds(server.silence)),
        ("early_end", early_end),
    ]
    .into_iter()
    .filter_map(|(name, value)| Some((name.to_owned(), value?)))
    .collect()
}

fn apply(
    section: &Section<'_, '_>,
    name: &str,
    engine: &Engine,
    settings: &mut Settings,
    findings: &mut Findings,
    skips: &dyn Fn(&str) -> bool,
    remedy: &dyn Fn(&str) -> String,
) {
    for key in keys::of("[settings]") {
        let Some(field) = section.get(key.name) else { continue };
        if skips(key.name) {
            continue;
        }
        if !engine.settings.contains(&key.name) {
            let remedy = remedy(key.name);
            let message = format!("engine '{name}' has no setting '{}'; {remedy}", key.name);
            findings.add(field.value.span(), message);
            continue;
        }
        let count = |least: u32, most: u32, findings: &mut Findings| {
            field.count_of(field.value, least, most, findings)
        };
        match key.name {
            "threads" => set(&mut settings.threads, count(1, 4096, findings)),
            "gpu_layers" => set(&mut settings.gpu_layers, count(0, 100_000, findings)),
            "batch_tokens" => set(&mut settings.batch_tokens, count(1, MOST, findings)),
            "micro_batch" => set(&mut settings.micro_batch, count(1, MOST, findings)),
            "flash_attention" => {
                set(&mut settings.flash_attention, section.flag(key.name, findings));
            }
            "mmap" => set(&mut settings.mmap, section.flag(key.name, findings)),
            "kv_type" => {
                let kv_type = section.word(key.name, engine.kv_types, findings);
                set(&mut settings.kv_type, kv_type.map(str::to_owned));
            }
            "split_mode" => {
                let mode = section.word(key.name, &["none", "layer", "row"], findings);
                set(&mut settings.split_mode, mode.map(str::to_owned));
            }
            "dtype" => {
                let dtype = section.word(key.name, &["float16", "bfloat16", "float32"], findings);
                set(&mut settings.dtype, dtype.map(str::to_owned));
            }
            "group_size" => set(&mut settings.group_size, count(1, 4096, findings)),
            "tensor_split" => set(&mut settings.tensor_split, shares(&field, findings)),
            // A test sets every key, so that none is forgotten here.
            _ => {}
        }
        if let (Some(micro), Some(batch)) = (settings.micro_batch, settings.batch_tokens)
            && micro > batch
        {
            let message = format!(
                "'micro_batch' of {micro} is more than 'batch_tokens' of {batch}; lower it to \
                 {batch} or less"
            );
            findings.add(field.value.span(), message);
        }
    }
}

/// Shares of GPUs; the same share may come twice, unlike in other lists.
fn shares(field: &Field<'_, '_>, findings: &mut Findings) -> Option<Vec<f32>> {
    let Some(array) = field.value.get_ref().as_array().filter(|array| !array.is_empty()) else {
        field.wrong_type(field.value, "a list of numbers", findings);
        return None;
    };
    let shares: Option<Vec<f32>> = array
        .iter()
        .map(|value| field.number_of(value, 0.0..=1e6, findings).map(|share| share as f32))
        .collect();
    let shares = shares?;
    if shares.iter().sum::<f32>() <= 0.0 {
        field.impossible(field.value, "a list with a share above 0", "all zero", findings);
        return None;
    }
    Some(shares)
}

fn set<T>(place: &mut Option<T>, value: Option<T>) {
    if value.is_some() {
        *place = value;
    }
}

/// A dotted key, with quotes where TOML wants them.
fn quoted(table: &str, name: &str) -> String {
    if name.contains('.') { format!("{table}.\"{name}\"") } else { format!("{table}.{name}") }
}
