//! `[servers]`, `[slo]`, `[workload]`, `[prices]`: what load tests, capacity and cost start from.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use rust_decimal::Decimal;

use super::known::Known;
use super::read::named;
use super::table::{Field, Findings, Section, Value};
use super::{Arrivals, Length, Prices, Recorded, Server, Slo, Workload};
use crate::units::{Nanos, Share, Tokens, Usd};
use crate::workload::read_trace;

/// The longest prompt or answer, in tokens.
const LONGEST: u32 = 1 << 24;
/// More dollars than anything here costs.
const MOST_USD: Decimal = Decimal::from_parts(1_000_000_000, 0, 0, false, 0);
const MANY: Decimal = Decimal::from_parts(1_000_000, 0, 0, false, 0);
const TEN: Decimal = Decimal::from_parts(10, 0, 0, false, 0);
const MINUS_ONE: Decimal = Decimal::NEGATIVE_ONE;
const TINY: Decimal = Decimal::from_parts(1, 0, 0, false, 3);

pub(super) fn servers(
    top: &Section<'_, '_>,
    folder: &Path,
    known: &Known,
    findings: &mut Findings,
) -> BTreeMap<String, Server> {
    let kinds: Vec<&str> =
        known.engines.iter().filter(|engine| engine.server).map(|engine| engine.name).collect();
    let Some(value) = top.raw("servers") else { return BTreeMap::new() };
    let Some(table) = value.get_ref().as_table() else {
        findings.add(value.span(), "'servers' must be tables; write [servers.NAME]");
        return BTreeMap::new();
    };
    let all: Vec<&str> = table.keys().map(|key| key.get_ref().as_ref()).collect();
    let section = Section::new("[servers]", table, value.span(), &all, findings);
    let mut servers = BTreeMap::new();
    for (name, section) in named(&section, "[servers.NAME]", findings) {
        if let Some(server) = server(name, &section, folder, known, &kinds, findings) {
            servers.insert(name.to_owned(), server);
        }
    }
    servers
}

fn server(
    name: &str,
    section: &Section<'_, '_>,
    folder: &Path,
    known: &Known,
    kinds: &[&str],
    findings: &mut Findings,
) -> Option<Server> {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-._".contains(c);
    if !name.chars().all(plain) {
        findings.add(
            section.span(),
            format!("server name '{name}' would not do in file names; use a-z, 0-9, '-', '.', '_'"),
        );
    }
    if known.engines.iter().any(|engine| engine.name == name && !engine.server) {
        findings.add(
            section.span(),
            format!("'{name}' is an engine that runs in process; give the server another name"),
        );
        return None;
    }
    let kind = match section.word("kind", kinds, findings) {
        Some(kind) => kind,
        None if section.has("kind") => return None,
        None if kinds.contains(&name) => name,
        None => {
            let remedy = format!("add 'kind', one of {}", kinds.join(", "));
            findings.add(section.span(), format!("no server is called '{name}'; {remedy}"));
            return None;
        }
    };
    let url = section.text("url", findings);
    if let (Some(url), Some(field)) = (url, section.get("url")) {
        let rest = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"));
        let host = rest.map(|rest| rest.split('/').next().unwrap_or(""));
        match host {
            None | Some("") => findings.add(
                field.value.span(),
                format!("'url' is no http:// or https:// address: '{url}'; write it in full"),
            ),
            // The address itself is not repeated: it may hold a password.
            Some(host) if host.contains('@') => findings.add(
                field.value.span(),
                "'url' holds a user name or password; take it out and use 'api_key_env'",
            ),
            Some(_) => {}
        }
    }
    let key = section.text("api_key_env", findings);
    if let (Some(key), Some(field)) = (key, section.get("api_key_env")) {
        let name = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
        if !key.chars().all(name) || key.starts_with(|c: char| c.is_ascii_digit()) {
            // Not repeated: it may be the key.
            findings.add(
                field.value.span(),
                "'api_key_env' must be the name of an environment variable, such as \
                 OPENAI_API_KEY; a key itself is never written in a file",
            );
        }
    }
    let args = section.get("args").and_then(|field| {
        let array = field.value.get_ref().as_array();
        if array.is_none() {
            field.wrong_type(field.value, "a list of texts", findings);
        }
        // A list of arguments may be empty and may repeat itself.
        array?.iter().map(|v| field.text_of(v, findings).map(str::to_owned)).collect()
    });
    let seconds = |name, findings: &mut Findings| {
        section.number(name, 0.1..=86_400.0, findings).map(Nanos::from_seconds)
    };
    if section.has("url") {
        for name in ["program", "args"] {
            if let Some(field) = section.get(name) {
                let message = format!(
                    "'{name}' is for a server that is started, not for one with a 'url'; \
                             remove one of them"
                );
                findings.add(field.value.span(), message);
            }
        }
    }
    Some(Server {
        kind: kind.to_owned(),
        url: url.map(str::to_owned),
        model: section.text("model", findings).map(str::to_owned),
        api_key_env: key.map(str::to_owned),
        args: args.unwrap_or_default(),
        program: section.text("program", findings).map(str::to_owned),
        ready: seconds("ready_seconds", findings),
        silence: seconds("silence_seconds", findings),
        early_end: section.word("early_end", &["void", "allowed"], findings) == Some("allowed"),
        descriptor: file(section, "descriptor", folder, findings),
    })
}

/// A file that must exist.
fn file(
    section: &Section<'_, '_>,
    name: &str,
    folder: &Path,
    findings: &mut Findings,
) -> Option<PathBuf> {
    let field = section.get(name)?;
    let path = field.text_of(field.value, findings)?;
    if !folder.join(path).is_file() {
        let remedy = "paths start at the scenario's folder";
        findings.add(field.value.span(), format!("'{name}': no file '{path}'; {remedy}"));
        return None;
    }
    Some(PathBuf::from(path))
}

/// The requests of a trace.
fn recorded(
    section: &Section<'_, '_>,
    path: &Path,
    folder: &Path,
    findings: &mut Findings,
) -> Vec<Recorded> {
    let text = std::fs::read_to_string(folder.join(path)).map_err(anyhow::Error::from);
    text.and_then(|text| read_trace(&text)).unwrap_or_else(|error| {
        let span = section.get("trace").map_or(section.span(), |field| field.value.span());
        findings.add(span, format!("'{}': {error:#}", path.display()));
        Vec::new()
    })
}

pub(super) fn slo(section: &Section<'_, '_>, findings: &mut Findings) -> Option<Slo> {
    let mut limit = |name: &str| {
        let ms = section.number(name, 0.001..=1e9, findings)?;
        Some(Nanos((ms * 1e6) as u64))
    };
    let (ttft, tpot, e2e) = (limit("ttft_ms"), limit("tpot_ms"), limit("e2e_ms"));
    if !["ttft_ms", "tpot_ms", "e2e_ms"].iter().any(|name| section.has(name)) {
        findings.add(
            section.span(),
            "[slo] has no limit, so everything would meet it; add 'ttft_ms', 'tpot_ms' or 'e2e_ms'",
        );
        return None;
    }
    Some(Slo {
        ttft,
        tpot,
        e2e,
        attainment: Share(section.number("attainment", 0.5..=0.9999, findings).unwrap_or(0.95)),
        search: section.flag("search", findings).unwrap_or(false),
    })
}

pub(super) fn workload(
    section: &Section<'_, '_>,
    folder: &Path,
    known: &Known,
    findings: &mut Findings,
) -> Workload {
    let preset = section.text("preset", findings);
    if let (Some(preset), Some(presets), Some(field)) =
        (preset, &known.presets, section.get("preset"))
    {
        let presets: Vec<&str> = presets.iter().map(String::as_str).collect();
        field.one_of(preset, &presets, findings);
    }
    if !section.has("preset") && !section.has("trace") {
        for name in ["prompt_tokens", "new_tokens"] {
            if !section.has(name) {
                findings.add(
                    section.span(),
                    format!("[workload] has no '{name}'; add it, or a 'preset' or a 'trace'"),
                );
            }
        }
    }
    exclusive(section, "tokens_per_day", "requests_per_day", findings);
    exclusive(section, "trace", "arrivals", findings);
    exclusive(section, "trace", "turns", findings);
    let trace = file(section, "trace", folder, findings);
    Workload {
        preset: preset.map(str::to_owned),
        users: section.whole("users", 1..=10_000_000, findings).map(|n| n as u32),
        requests_per_day: section.estimate("requests_per_day", TINY..=MOST_USD, findings),
        tokens_per_day: section.estimate(
            "tokens_per_day",
            Decimal::ONE..=MOST_USD * MANY,
            findings,
        ),
        prompt_tokens: length(section, "prompt_tokens", findings),
        new_tokens: length(section, "new_tokens", findings),
        cached_share: section.number("cached_share", 0.0..=1.0, findings).map(Share),
        turns: section.whole("turns", 1..=10_000, findings).map(|n| n as u32),
        think: section.number("think_seconds", 0.0..=86_400.0, findings).map(Nanos::from_seconds),
        arrivals: arrivals(section, findings),
        recorded: trace
            .as_ref()
            .map(|path| recorded(section, path, folder, findings))
            .unwrap_or_default(),
        trace,
        context: section.count("context_tokens", 2, findings).map(Tokens),
        working_days_per_month: section
            .estimate("working_days_per_month", TINY..=Decimal::from(31), findings)
            .and_then(|days| certain(section, "working_days_per_month", days, findings)),
        peak_factor: section.estimate("peak_factor", Decimal::ONE..=MANY, findings),
        growth_per_year: section.estimate("growth_per_year", MINUS_ONE..=MANY, findings),
    }
}

/// Reports two keys that say the same thing in two ways.
fn exclusive(section: &Section<'_, '_>, one: &str, other: &str, findings: &mut Findings) {
    if let (Some(one_field), Some(_)) = (section.get(one), section.get(other)) {
        findings.add(
            one_field.value.span(),
            format!("'{one}' and '{other}' exclude each other; remove one of them"),
        );
    }
}

fn certain(
    section: &Section<'_, '_>,
    name: &str,
    estimate: super::Estimate,
    findings: &mut Findings,
) -> Option<Decimal> {
    if estimate.low == estimate.high {
        return Some(estimate.likely);
    }
    if let Some(field) = section.get(name) {
        field.wrong_type(field.value, "a number", findings);
    }
    None
}

fn arrivals(section: &Section<'_, '_>, findings: &mut Findings) -> Option<Arrivals> {
    let variation = section.number("variation", 0.01..=100.0, findings);
    let kinds = ["constant", "poisson", "gamma"];
    let kind = section.word("arrivals", &kinds, findings);
    match (kind, section.get("variation")) {
        (Some("gamma"), None) => {
            let span = section.get("arrivals").map_or(section.span(), |field| field.value.span());
            findings.add(span, "'arrivals' of gamma wants 'variation'; add 'variation = 2.0'");
            None
        }
        (Some("gamma"), Some(_)) => Some(Arrivals::Gamma { variation: variation? }),
        (_, Some(field)) => {
            findings.add(
                field.value.span(),
                "'variation' belongs to arrivals = \"gamma\"; add that or remove it",
            );
            None
        }
        (Some("constant"), None) => Some(Arrivals::Constant),
        (Some(_), None) => Some(Arrivals::Poisson),
        (None, None) => None,
    }
}

fn length(section: &Section<'_, '_>, name: &str, findings: &mut Findings) -> Option<Length> {
    let field = section.get(name)?;
    let Some(table) = field.value.get_ref().as_table() else {
        let tokens = field.count_of(field.value, 1, LONGEST, findings)?;
        return Some(Length::Fixed(Tokens(tokens)));
    };
    let span = field.value.span();
    let section = Section::new("lengths", table, span.clone(), &[], findings);
    let mut tokens = |name: &str| section.number(name, 1.0..=f64::from(LONGEST), findings);
    let (mean, deviation) = (tokens("mean"), tokens("deviation"));
    let (median, p95) = (tokens("median"), tokens("p95"));
    let given: Vec<&str> = ["mean", "deviation", "median", "p95", "histogram"]
        .into_iter()
        .filter(|name| section.has(name))
        .collect();
    match given[..] {
        ["mean", "deviation"] => Some(Length::Normal { mean: mean?, deviation: deviation? }),
        ["median", "p95"] => {
            let (median, p95) = (median?, p95?);
            if p95 <= median {
                findings.add(
                    span,
                    format!(
                        "'{name}' has a p95 of {p95}, not above its median of {median}; raise it"
                    ),
                );
                return None;
            }
            Some(Length::LogNormal { median, p95 })
        }
        ["histogram"] => {
            let bins = section.list("histogram", "pairs", findings, bin)?;
            Some(Length::Histogram(bins))
        }
        _ => {
            findings.add(
                span,
                format!(
                    "'{name}' is no distribution; write a number, {{ mean, deviation }}, \
                     {{ median, p95 }} or {{ histogram }}"
                ),
            );
            None
        }
    }
}

/// A length in tokens and its weight.
fn bin(field: &Field<'_, '_>, value: &Value<'_>, findings: &mut Findings) -> Option<(Tokens, f64)> {
    let pair = value.get_ref().as_array().map(|pair| pair.iter().collect::<Vec<_>>());
    let Some([length, weight]) = pair.as_deref() else {
        field.wrong_type(value, "a list of pairs", findings);
        return None;
    };
    let length = field.count_of(length, 1, LONGEST, findings);
    let weight = field.number_of(weight, 1e-9..=1e9, findings);
    Some((Tokens(length?), weight?))
}

pub(super) fn prices(section: &Section<'_, '_>, known: &Known, findings: &mut Findings) -> Prices {
    let (zero, one) = (Decimal::ZERO, Decimal::ONE);
    exclusive(section, "electricity_usd_per_kwh", "tariff", findings);
    let tariff = section.text("tariff", findings);
    if let (Some(tariff), Some(tariffs), Some(field)) =
        (tariff, &known.tariffs, section.get("tariff"))
    {
        let tariffs: Vec<&str> = tariffs.iter().map(String::as_str).collect();
        field.one_of(tariff, &tariffs, findings);
    }
    let against = section.list("against", "names", findings, |field, value, findings| {
        let name = field.text_of(value, findings)?;
        if let Some(models) = &known.api_models {
            let models: Vec<&str> = models.iter().map(String::as_str).collect();
            field.one_of_at(name, value, &models, findings).then(|| name.to_owned())
        } else if name.contains('/') {
            Some(name.to_owned())
        } else {
            field.impossible(value, "provider/model", &format!("'{name}'"), findings);
            None
        }
    });
    let api_usd_per_month = section
        .estimate("api_usd_per_month", zero..=MOST_USD, findings)
        .and_then(|usd| certain(section, "api_usd_per_month", usd, findings));
    let mut usd = |name: &str| section.estimate(name, zero..=MOST_USD, findings);
    let device_usd = usd("device_usd");
    let rest_usd = usd("rest_usd");
    let electricity_usd_per_kwh = usd("electricity_usd_per_kwh");
    let rack_usd_per_month = usd("rack_usd_per_month");
    let staff_usd_per_hour = usd("staff_usd_per_hour");
    let rent_usd_per_gpu_hour = usd("rent_usd_per_gpu_hour");
    let mut share = |name: &str| section.estimate(name, zero..=one, findings);
    let resale_share = share("resale_share");
    let maintenance_share_per_year = share("maintenance_share_per_year");
    let capital_cost_per_year = share("capital_cost_per_year");
    Prices {
        device_usd,
        rest_usd,
        life_years: section.estimate("life_years", TINY..=Decimal::from(50), findings),
        resale_share,
        capital_cost_per_year,
        tariff: tariff.map(str::to_owned),
        electricity_usd_per_kwh,
        idle_watts: section.estimate("idle_watts", zero..=MANY, findings),
        active_watts: section.estimate("active_watts", zero..=MANY, findings),
        pue: section.estimate("pue", one..=TEN, findings),
        rack_usd_per_month,
        maintenance_share_per_year,
        staff_hours_per_month: section.estimate("staff_hours_per_month", zero..=MANY, findings),
        staff_usd_per_hour,
        spare_share: section.estimate("spare_share", zero..=TEN, findings),
        against: against.unwrap_or_default(),
        api_usd_per_month: api_usd_per_month.map(Usd),
        api_change_per_year: section.estimate("api_change_per_year", MINUS_ONE..=TEN, findings),
        rent_usd_per_gpu_hour,
    }
}
