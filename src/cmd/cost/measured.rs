//! How fast a machine was in the newest results of a scenario: the highest throughput at which the
//! service that the scenario promises was kept.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use crate::host::Host;
use crate::record::{Outcome, Record, read_records};
use crate::scenario::{Scenario, Slo};

use super::demand::Demand;
use super::speed::{NetWatts, Pace, Speed};

/// What the results say, or why they say nothing.
pub enum Found {
    /// The speed of the machine.
    Speed(Speed),
    /// No usable results; the reason is a clause.
    Nothing(String),
}

/// Looks the newest results of `scenario` on the machine that it is meant for up.
pub fn find(root: &Path, scenario: &Scenario, demand: &Demand) -> anyhow::Result<Found> {
    let mut others = Vec::new();
    let mut folder = None;
    for path in folders(root, &scenario.name) {
        let records = read_records(&path.join("records.csv"))?;
        // The folder of 'dual-rtx5090' ends like one of 'rtx5090'.
        if records.iter().any(|record| record.scenario != scenario.name) {
            continue;
        }
        match differences(&path, scenario)? {
            differences if differences.is_empty() => {
                folder = Some((path, records));
                break;
            }
            differences => others.push(format!("'{}': {}", path.display(), differences[0])),
        }
    }
    let Some((folder, records)) = folder else {
        return Ok(Found::Nothing(if others.is_empty() {
            format!("no results of '{}' in '{}'", scenario.name, root.display())
        } else {
            format!("the results of '{}' are of other machines: {}", scenario.name, others[0])
        }));
    };
    let slo = demand.slo;
    // Attainment was counted against the limits that held then.
    let counted = slo.is_some() && is_same_slo(&folder, scenario);
    let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
    Ok(choose(&records, demand, slo.as_ref(), counted, &name))
}

/// A usable row: its pace, and how far it kept the service.
struct Row<'a> {
    record: &'a Record,
    pace: Pace,
    kept: Kept,
}

#[derive(Clone, Copy, PartialEq)]
enum Kept {
    /// Nothing was promised.
    Free,
    /// By this share of its requests, surely by the second one.
    Share(f64, f64),
    /// By its medians.
    Medians,
    /// Not.
    Missed,
}

fn choose(
    records: &[Record],
    demand: &Demand,
    slo: Option<&Slo>,
    counted: bool,
    folder: &str,
) -> Found {
    let wanted = |r: &&Record| {
        r.outcome == Outcome::Measured
            && demand.model.is_none_or(|model| r.model.eq_ignore_ascii_case(&model.id))
            && demand.quant.is_none_or(|quant| r.quant.eq_ignore_ascii_case(quant.name()))
    };
    let measured: Vec<&Record> = records.iter().filter(wanted).collect();
    let rows: Vec<Row<'_>> = measured
        .iter()
        .filter_map(|record| {
            let pace = pace(record, &measured)?;
            Some(Row { record, pace, kept: kept(record, slo, counted) })
        })
        .collect();
    if rows.is_empty() {
        let of = demand.model.map_or(String::new(), |model| format!(" of '{}'", model.id));
        return Found::Nothing(format!("'{folder}' has no measured case{of}"));
    }
    let seconds = |row: &Row<'_>| row.pace.seconds(demand.uncached_tokens, demand.new_tokens);
    let fastest = |a: &&Row<'_>, b: &&Row<'_>| seconds(a).total_cmp(&seconds(b));
    let Some(best) = rows.iter().filter(|row| row.kept != Kept::Missed).min_by(fastest) else {
        let most = measured.iter().filter_map(|r| r.slo_attainment).fold(f64::NAN, f64::max);
        let most = if most.is_nan() {
            String::new()
        } else {
            format!(", at best by {} of its requests", crate::units::Share(most))
        };
        return Found::Speed(Speed::Cannot(format!(
            "misses the SLO in every measured case of {folder}{most}"
        )));
    };
    // The same engine with fewer requests at once: what a light load gets.
    let is_alike = |row: &&Row<'_>| {
        row.record.engine == best.record.engine
            && row.record.model == best.record.model
            && row.record.quant == best.record.quant
            && row.kept != Kept::Missed
            && row.pace.streams < best.pace.streams
    };
    let mut paces: Vec<Pace> = rows.iter().filter(is_alike).map(|row| row.pace).collect();
    paces.push(best.pace);
    paces.sort_by_key(|pace| pace.streams);
    Found::Speed(Speed::Measured {
        paces,
        source: source(best, demand, slo, folder),
        watts: watts(best.record, &measured, folder),
    })
}

fn source(best: &Row<'_>, demand: &Demand, slo: Option<&Slo>, folder: &str) -> String {
    let record = best.record;
    let mut words = vec![format!("case {} of {folder}", record.case_id)];
    words.push(match best.kept {
        Kept::Free => "the fastest".to_owned(),
        Kept::Share(share, low) => {
            let sure = slo.is_some_and(|slo| low >= slo.attainment.0);
            let doubt = if sure { "" } else { ", too few requests to be sure" };
            format!(
                "the fastest that kept the SLO, by {} of its requests (at least {}{doubt})",
                crate::units::Share(share),
                crate::units::Share(low)
            )
        }
        Kept::Medians => "the fastest whose medians kept the SLO".to_owned(),
        Kept::Missed => "missed the SLO".to_owned(),
    });
    words.push(format!(
        "{} at once, prompts of {}, answers of {}, on {}",
        best.pace.streams, record.prompt_tokens, record.new_tokens, record.host
    ));
    let measured = record.depth + record.prompt_tokens + record.new_tokens;
    if f64::from(measured) < demand.prompt_tokens + demand.new_tokens {
        words.push("shorter than the workload's mean request".to_owned());
    }
    if !record.marks.is_empty() {
        words.push(format!("marked {}", record.marks));
    }
    words.join("; ")
}

/// The pace of a row; where many requests come and go, the time for their prompts is taken out by
/// the prompt speed that another row of the same engine and weights measured.
fn pace(record: &Record, all: &[&Record]) -> Option<Pace> {
    let (tok_s, low, high) = match record.system_tok_s_median {
        Some(tok_s) => (tok_s, record.system_tok_s_low, record.system_tok_s_high),
        None => (record.decode_tok_s_median?, record.decode_tok_s_low, record.decode_tok_s_high),
    };
    // Of requests that come and go, those that were answered: gaps between them are part of it.
    let answered = record.requests_per_s.filter(|rate| *rate > 0.0 && record.is_loaded());
    let scale = answered.map_or(1.0, |rate| rate * f64::from(record.new_tokens) / tok_s);
    let tok_s = [low.unwrap_or(tok_s).min(tok_s), tok_s, high.unwrap_or(tok_s).max(tok_s)];
    let tok_s = tok_s.map(|speed| speed * scale);
    let prompts = |r: &Record| -> Option<[f64; 3]> {
        let speed = r.prefill_tok_s_median.filter(|speed| *speed > 0.0)?;
        let (low, high) = (r.prefill_tok_s_low, r.prefill_tok_s_high);
        let slow = low.filter(|low| *low > 0.0).unwrap_or(speed).min(speed);
        Some([1e6 / high.unwrap_or(speed).max(speed), 1e6 / speed, 1e6 / slow])
    };
    if !record.is_loaded() {
        return Some(Pace {
            streams: record.batch.max(1),
            tok_s,
            prompt_s_per_mtok: prompts(record).unwrap_or_default(),
        });
    }
    let users = record.concurrency.or(record.slots).unwrap_or(1).max(1);
    let alike = |r: &&&Record| {
        r.engine == record.engine
            && r.model == record.model
            && r.quant == record.quant
            && !r.is_loaded()
    };
    let other = all.iter().filter(alike).filter_map(|r| Some((r.prompt_tokens, prompts(r)?)));
    let whole = Pace { streams: users, tok_s, prompt_s_per_mtok: [0.0; 3] };
    let Some((_, prompt_s)) = other.max_by_key(|(tokens, _)| *tokens) else { return Some(whole) };
    let share = f64::from(record.prompt_tokens) / f64::from(record.new_tokens.max(1));
    let without = |speed: f64| 1.0 / (1.0 / speed - share * prompt_s[1] / 1e6);
    let apart = tok_s.map(without);
    // Prompts that would fill nearly all of the time leave too little to tell.
    let is_sound =
        tok_s.iter().zip(&apart).all(|(whole, apart)| (*whole..whole * 5.0).contains(apart));
    Some(if is_sound { Pace { tok_s: apart, prompt_s_per_mtok: prompt_s, ..whole } } else { whole })
}

fn kept(record: &Record, slo: Option<&Slo>, counted: bool) -> Kept {
    let Some(slo) = slo else { return Kept::Free };
    let is_search = record.load.as_ref().is_some_and(|load| load.starts_with("slo-"));
    if is_search && record.slo_capacity_per_s.is_none() && record.slo_capacity_users.is_none() {
        return Kept::Missed;
    }
    if let (true, Some(share)) = (counted, record.slo_attainment) {
        return if share >= slo.attainment.0 {
            Kept::Share(share, record.slo_attainment_low.unwrap_or(0.0))
        } else {
            Kept::Missed
        };
    }
    let limits = [
        (slo.ttft, record.ttft_ns_median),
        (slo.tpot, record.decode_tok_s_median.map(|speed| 1e9 / speed)),
        (slo.e2e, record.e2e_ns_median),
    ];
    let met = limits.into_iter().all(|(limit, found)| {
        limit.is_none_or(|limit| found.is_some_and(|ns| ns <= limit.0 as f64))
    });
    if met { Kept::Medians } else { Kept::Missed }
}

/// Net joules a token times tokens a second of the same row, its prompts included; of the row with
/// the most sequences at once where the best one has no counter.
fn watts(best: &Record, all: &[&Record], folder: &str) -> Option<NetWatts> {
    let of = |r: &Record| -> Option<NetWatts> {
        let joules = r.energy_per_token_joules.filter(|joules| *joules > 0.0 && !r.is_loaded())?;
        let seconds = r.e2e_ns_median.filter(|ns| *ns > 0.0)? / 1e9;
        let tok_s = f64::from(r.batch.max(1)) * f64::from(r.new_tokens) / seconds;
        Some(NetWatts {
            watts: joules * tok_s,
            boundary: r.energy_boundary.clone().unwrap_or_else(|| "unknown".to_owned()),
            source: format!(
                "case {} of {folder}: {} J a token",
                r.case_id,
                crate::units::significant(joules, 3)
            ),
        })
    };
    let alike =
        |r: &&&Record| r.engine == best.engine && r.model == best.model && r.quant == best.quant;
    of(best).or_else(|| {
        let mut others: Vec<&&Record> = all.iter().filter(alike).collect();
        others.sort_by_key(|r| std::cmp::Reverse(r.batch));
        others.into_iter().find_map(|r| of(r))
    })
}

/// Result folders of a scenario, the newest first.
fn folders(root: &Path, scenario: &str) -> Vec<PathBuf> {
    let ending = format!("-{scenario}");
    let Ok(entries) = fs::read_dir(root) else { return Vec::new() };
    let mut found: Vec<_> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let counted = name.rsplit_once('-').filter(|(_, n)| n.parse::<u32>().is_ok());
            name.ends_with(&ending) || counted.is_some_and(|(stem, _)| stem.ends_with(&ending))
        })
        .filter_map(|path| Some((path.join("records.csv").metadata().ok()?.modified().ok()?, path)))
        .collect();
    found.sort();
    found.into_iter().rev().map(|(_, path)| path).collect()
}

/// What the machine of the results lacks of what the scenario expects.
fn differences(folder: &Path, scenario: &Scenario) -> anyhow::Result<Vec<String>> {
    let path = folder.join("host.toml");
    let text =
        fs::read_to_string(&path).with_context(|| format!("cannot read '{}'", path.display()))?;
    let host: Host = toml::from_str(&text)
        .with_context(|| format!("'{}' does not describe a machine", path.display()))?;
    let mut expected = scenario.host.clone();
    // `host.toml` has the system's full name.
    expected.os.clear();
    Ok(expected.differences(&crate::cmd::run::found(&host)))
}

fn is_same_slo(folder: &Path, scenario: &Scenario) -> bool {
    let slo = |text: &str| {
        let table: toml::Table = toml::from_str(text).ok()?;
        let mut slo = table.get("slo")?.as_table()?.clone();
        // Neither changes what a request must keep.
        slo.remove("attainment");
        slo.remove("search");
        Some(slo)
    };
    let then = fs::read_to_string(folder.join("scenario.toml")).ok();
    then.and_then(|text| slo(&text)).is_some_and(|then| Some(then) == slo(&scenario.text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::{Nanos, Share, Tokens};

    fn record(batch: u32, concurrency: Option<u32>, system: f64) -> Record {
        Record {
            case_id: format!("b{batch}-c{concurrency:?}"),
            engine: "mock".into(),
            model: "m".into(),
            quant: "Q8_0".into(),
            outcome: Outcome::Measured,
            prompt_tokens: 1000,
            new_tokens: 100,
            batch,
            concurrency,
            system_tok_s_median: Some(system),
            ..Record::default()
        }
    }

    fn demand(slo: Option<Slo>) -> Demand {
        Demand {
            model: None,
            quant: None,
            prompt_tokens: 1000.0,
            uncached_tokens: 1000.0,
            new_tokens: 100.0,
            room: Tokens(2048),
            room_basis: String::new(),
            streams: 8,
            streams_basis: String::new(),
            slo,
        }
    }

    fn second() -> Slo {
        Slo {
            ttft: Some(Nanos::from_seconds(1.0)),
            tpot: None,
            e2e: None,
            attainment: Share(0.9),
            search: false,
        }
    }

    fn measured(records: &[Record], slo: Option<Slo>, counted: bool) -> (Vec<Pace>, String) {
        match choose(records, &demand(slo), slo.as_ref(), counted, "folder") {
            Found::Speed(Speed::Measured { paces, source, .. }) => (paces, source),
            Found::Speed(Speed::Cannot(reason)) | Found::Nothing(reason) => (vec![], reason),
            Found::Speed(Speed::Predicted { .. }) => unreachable!("nothing is predicted here"),
        }
    }

    #[test]
    fn the_fastest_case_that_kept_the_slo_is_taken_and_not_the_fastest_of_all() {
        let with = |users, system, share| Record {
            slo_attainment: Some(share),
            slo_attainment_low: Some(share - 0.05),
            ..record(1, Some(users), system)
        };
        let rows = [with(1, 50.0, 1.0), with(4, 150.0, 0.97), with(16, 300.0, 0.4)];
        let (paces, source) = measured(&rows, Some(second()), true);
        assert_eq!(paces.iter().map(|p| p.streams).collect::<Vec<_>>(), [1, 4]);
        assert!(source.contains("by 97 % of its requests (at least 92 %)"), "{source}");
        assert_eq!(measured(&rows, None, false).0.last().unwrap().streams, 16);
        let late = [with(4, 150.0, 0.5)];
        let (none, reason) = measured(&late, Some(second()), true);
        assert!(none.is_empty() && reason.contains("at best by 50 %"), "{reason}");
    }

    #[test]
    fn without_counted_requests_the_medians_decide() {
        let with = |batch, ttft: f64, system| Record {
            ttft_ns_median: Some(ttft * 1e9),
            slo_attainment: Some(1.0),
            ..record(batch, None, system)
        };
        let rows = [with(1, 0.3, 50.0), with(8, 1.7, 300.0)];
        let (paces, source) = measured(&rows, Some(second()), false);
        assert_eq!(paces.last().unwrap().streams, 1);
        assert!(source.contains("whose medians kept the SLO"), "{source}");
    }

    #[test]
    fn the_time_for_prompts_is_told_apart_from_the_answers_of_continuous_batches() {
        // Alone: 1,000 tokens of prompt in 0.5 s. Together: 100 tokens a request at 100 tok/s are
        // 1 s for each request, of which 0.5 s read its prompt: answers come at 200 tok/s.
        let alone = Record { prefill_tok_s_median: Some(2000.0), ..record(1, None, 40.0) };
        let rows = [alone.clone(), record(1, Some(8), 100.0)];
        let (paces, _) = measured(&rows, None, false);
        let best = paces.last().unwrap();
        assert!((best.tok_s[1] - 200.0).abs() < 1e-9, "{best:?}");
        assert_eq!(best.prompt_s_per_mtok[1], 500.0);
        // Prompts that would take all of the time cannot be taken out.
        let rows = [alone, record(1, Some(8), 199.0)];
        let best = *measured(&rows, None, false).0.last().unwrap();
        assert_eq!((best.tok_s[1], best.prompt_s_per_mtok[1]), (199.0, 0.0));
    }

    #[test]
    fn a_loaded_case_is_as_fast_as_the_requests_that_it_answered() {
        // 1.5 requests of 100 tokens a second, though 300 tok/s came while all generated.
        let row = Record { requests_per_s: Some(1.5), ..record(1, Some(8), 300.0) };
        let (paces, _) = measured(&[row], None, false);
        assert!((paces[0].tok_s[1] - 150.0).abs() < 1e-9, "{paces:?}");
        // A search that found no load that meets the objective.
        let none = Record { load: Some("slo-rate".into()), ..record(1, None, 300.0) };
        let (paces, reason) = measured(&[none], Some(second()), true);
        assert!(paces.is_empty() && reason.contains("misses the SLO"), "{reason}");
    }

    #[test]
    fn joules_become_watts_by_the_rate_of_their_own_row() {
        // 0.5 J a token, 8 sequences of 100 tokens in 2 s: 400 tok/s, 200 W.
        let row = Record {
            energy_per_token_joules: Some(0.5),
            energy_boundary: Some("gpu".into()),
            e2e_ns_median: Some(2e9),
            ..record(8, None, 500.0)
        };
        let net = watts(&row, &[&row], "folder").unwrap();
        assert_eq!(net.watts, 200.0);
        assert!(net.source.contains("0.500 J a token"), "{}", net.source);
        assert!(watts(&record(1, None, 1.0), &[], "folder").is_none());
    }
}
