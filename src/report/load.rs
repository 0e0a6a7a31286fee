//! Servers and engines in process side by side under load, and the highest load that met the
//! objective.

use crate::record::Record;
use crate::units::{self, ABSENT, Bytes, Nanos, Share, significant};

use super::{Section, Table};

/// The tables of the loaded rows of one model; none where there are no such rows.
pub fn sections(heading: &str, records: &[&Record]) -> Vec<Section> {
    let records: Vec<_> = records.iter().copied().filter(|record| record.is_loaded()).collect();
    let mut works: Vec<String> = Vec::new();
    for record in &records {
        if !works.contains(&work(record)) {
            works.push(work(record));
        }
    }
    let mut sections = Vec::new();
    for asked in works {
        // Rows of other requests are other measurements: they do not share a table.
        let (searches, loads): (Vec<_>, Vec<_>) =
            records.iter().filter(|r| work(r) == asked).partition(|r| is_search(r));
        if !loads.is_empty() {
            sections.push(under_load(heading, &asked, &loads));
        }
        if !searches.is_empty() {
            sections.push(capacity(heading, &asked, &searches));
        }
        sections.extend(clocks(heading, &asked, &loads));
    }
    sections
}

/// What one request asks for.
fn work(record: &Record) -> String {
    let alike = || format!("{} + {} tokens", record.prompt_tokens, record.new_tokens);
    record.workload.clone().unwrap_or_else(alike)
}

fn is_search(record: &Record) -> bool {
    record.load.as_deref().is_some_and(|load| load.starts_with("slo-"))
}

fn under_load(heading: &str, asked: &str, records: &[&Record]) -> Section {
    let mut table = Table::new(&[
        "engine",
        "load",
        ">each",
        ">all",
        ">TTFT 50/95/99",
        ">ITL 99",
        ">good/s",
        ">memory",
    ]);
    let mut notes = vec![
        "each, all: generated tok/s of one user's stream, and of all together while the load is \
         steady. TTFT: 50th, 95th and 99th percentile. ITL 99: the 99th of the time between tokens. \
         good/s: requests a second that met the objective; failures miss it. memory: peak of the \
         processes."
            .to_owned(),
    ];
    for record in records {
        table.rows.push(row(record));
    }
    if records.iter().any(|record| record.is_calibration()) {
        notes.push("calibration: a sweep for bench capacity, without figures of its own.".into());
    }
    notes.push(format!("Requests: {asked}."));
    notes.extend(objectives(records));
    for record in records {
        if let Some(failure) = &record.failure {
            notes.push(format!("{}, {}: {failure}", record.engine, load(record)));
        }
    }
    notes.extend(client(records));
    Section {
        heading: format!("{heading}, under load"),
        table: Some(table),
        notes,
        ..Section::default()
    }
}

fn row(record: &Record) -> Vec<String> {
    if record.trials == 0 {
        let mut row = vec![engine(record), load(record), record.outcome.to_string()];
        row.resize(8, ABSENT.to_owned());
        return row;
    }
    let number = |value: Option<f64>| value.map_or(ABSENT.to_owned(), |v| significant(v, 3));
    vec![
        engine(record),
        load(record),
        number(record.decode_tok_s_median),
        number(record.system_tok_s_median),
        times([record.ttft_ns_median, record.ttft_ns_p95, record.ttft_ns_p99]),
        units::or_absent(record.itl_ns_p99.map(|ns| Nanos(ns as u64))),
        number(record.goodput_per_s),
        units::or_absent(record.peak_memory_bytes.map(Bytes)),
    ]
}

fn engine(record: &Record) -> String {
    if record.marks.is_empty() { record.engine.clone() } else { format!("{}*", record.engine) }
}

/// Users, requests a second, or what else sent the requests.
pub fn load(record: &Record) -> String {
    match (record.concurrency, record.rate_per_s) {
        (Some(1), _) => "1 user".to_owned(),
        (Some(users), _) => format!("{users} users"),
        (None, Some(rate)) => format!("{}/s", significant(rate, 2)),
        (None, None) => record.load.clone().unwrap_or_default(),
    }
}

/// Several times in the unit of the longest, in a cell: `210/340/— ms`.
fn times(times: [Option<f64>; 3]) -> String {
    let Some(longest) = times.iter().flatten().copied().reduce(f64::max) else {
        return ABSENT.to_owned();
    };
    let (unit, nanos) = if longest < 1e9 { ("ms", 1e6) } else { ("s", 1e9) };
    let shown = times.map(|t| t.map_or(ABSENT.to_owned(), |ns| significant(ns / nanos, 2)));
    format!("{} {unit}", shown.join("/"))
}

fn objectives(records: &[&Record]) -> Option<String> {
    let objective = records.iter().find_map(|record| record.slo.as_ref())?;
    Some(format!("Objective: {objective} of the requests."))
}

/// How late the client of servers was: the measured overhead of the ruler.
fn client(records: &[&Record]) -> Option<String> {
    let late = |record: &&&Record| record.client_lag_ns_median.is_some();
    let most = records.iter().filter(late).max_by(|a, b| {
        let of = |record: &Record| record.client_lag_ns_median.unwrap_or(0.0);
        of(a).total_cmp(&of(b))
    })?;
    let lag = most.client_lag_ns_median?;
    let share = most.ttft_ns_median.filter(|ttft| *ttft > 0.0).map(|ttft| Share(lag / ttft));
    let p99 = records.iter().filter_map(|r| r.client_lag_ns_p99).reduce(f64::max);
    let p99 = p99.map(|ns| format!(", 99th percentile {}", Nanos(ns as u64))).unwrap_or_default();
    Some(format!(
        "Client: it sent requests {} after they were due (median of the worst row{p99}), {} of the \
         time to first token; past 2 % the row is marked.",
        Nanos(lag as u64),
        units::or_absent(share),
    ))
}

fn capacity(heading: &str, asked: &str, records: &[&Record]) -> Section {
    let mut table = Table::new(&["engine", ">users", ">requests/s"]);
    let mut notes = vec![
        "The highest load that met the objective by the lower end of its 95 % interval, and in \
         brackets the lowest that missed it. ≥: no load that was tried missed it."
            .to_owned(),
    ];
    let mut engines: Vec<&str> = Vec::new();
    for record in records {
        if !engines.contains(&record.engine.as_str()) {
            engines.push(&record.engine);
        }
    }
    for name in engines {
        let of = |load: &str| {
            let named =
                |record: &&&Record| record.engine == name && record.load.as_deref() == Some(load);
            records.iter().find(named).copied()
        };
        let users = of("slo-users").map(|r| {
            let real = |n: Option<u32>| n.map(f64::from);
            found(r, real(r.slo_capacity_users), real(r.slo_missed_users))
        });
        let rate = of("slo-rate").map(|r| found(r, r.slo_capacity_per_s, r.slo_missed_per_s));
        let absent = || ABSENT.to_owned();
        let marked = records.iter().any(|r| r.engine == name && !r.marks.is_empty());
        let shown = if marked { format!("{name}*") } else { name.to_owned() };
        table.rows.push(vec![shown, users.unwrap_or_else(absent), rate.unwrap_or_else(absent)]);
    }
    notes.push(format!("Requests: {asked}."));
    notes.extend(objectives(records));
    for record in records {
        if let Some(probes) = &record.slo_probes {
            notes.push(format!("{}, requests that met it: {probes}", record.engine));
        }
    }
    Section {
        heading: format!("{heading}, load that meets the objective"),
        table: Some(table),
        notes,
        ..Section::default()
    }
}

/// What a search found: `12 (13)`, `≥ 512`, `none (1)`.
fn found(record: &Record, met: Option<f64>, missed: Option<f64>) -> String {
    let number =
        |value: f64| if value.fract() == 0.0 { value.to_string() } else { significant(value, 3) };
    match (met, missed) {
        (Some(met), Some(missed)) => format!("{} ({})", number(met), number(missed)),
        (Some(met), None) => format!("≥ {}", number(met)),
        (None, Some(missed)) => format!("none ({})", number(missed)),
        (None, None) => record.outcome.to_string(),
    }
}

/// The clocks of a server side by side: the client's, the server's own, and the same engine in
/// process.
fn clocks(heading: &str, asked: &str, records: &[&Record]) -> Option<Section> {
    let has = |record: &&&Record| {
        record.server_decode_ns_median.is_some() || record.in_process_decode_tok_s_median.is_some()
    };
    let mut table =
        Table::new(&["engine", "load", ">client tok/s", ">its own tok/s", ">in process tok/s"]);
    for record in records.iter().filter(has) {
        let number = |value: Option<f64>| value.map_or(ABSENT.to_owned(), |v| significant(v, 3));
        // The same tokens by both clocks, so that only the clocks differ.
        let own = record
            .client_decode_ns_median
            .zip(record.server_decode_ns_median)
            .zip(record.decode_tok_s_median)
            .filter(|((_, own), _)| *own > 0.0)
            .map(|((seen, own), speed)| speed * seen / own);
        table.rows.push(vec![
            engine(record),
            load(record),
            number(record.decode_tok_s_median),
            number(own),
            number(record.in_process_decode_tok_s_median),
        ]);
    }
    (!table.rows.is_empty()).then(|| Section {
        heading: format!("{heading}, by three clocks"),
        table: Some(table),
        notes: vec![
            "Generation of one stream: as the client saw it, as the server reports it, and the same \
             engine without a server. More than 3 % between the first two is marked, and between \
             the outer two with one user, where no queue explains it."
                .to_owned(),
            format!("Requests: {asked}."),
        ],
        ..Section::default()
    })
}

#[cfg(test)]
mod tests {
    use super::super::{Render, Report, markdown::Markdown, terminal::Terminal};
    use super::*;

    fn record(engine: &str, users: u32) -> Record {
        Record {
            engine: engine.to_owned(),
            concurrency: Some(users),
            load: Some(format!("c{users}")),
            outcome: crate::record::Outcome::Measured,
            trials: 5,
            prompt_tokens: 512,
            new_tokens: 128,
            ttft_ns_median: Some(210e6),
            ttft_ns_p95: Some(340e6),
            ttft_ns_p99: Some(990e6),
            decode_tok_s_median: Some(12.34),
            system_tok_s_median: Some(1234.0),
            itl_ns_p99: Some(123e6),
            goodput_per_s: Some(2.31),
            slo: Some("TTFT ≤ 2.00 s for 95 %".to_owned()),
            peak_memory_bytes: Some(123 << 30),
            ..Record::default()
        }
    }

    fn rendered(records: &[Record]) -> (String, String) {
        let records: Vec<_> = records.iter().collect();
        let report =
            Report { title: String::new(), sections: sections("qwen3-0.6b Q4_K_M", &records) };
        let (mut screen, mut document) = (Vec::new(), Vec::new());
        Terminal { width: Some(80) }.render(&report, &mut screen).unwrap();
        Markdown.render(&report, &mut document).unwrap();
        (String::from_utf8(screen).unwrap(), String::from_utf8(document).unwrap())
    }

    #[test]
    fn servers_and_engines_stand_side_by_side_in_eighty_columns() {
        let failed = Record {
            failure: Some("3 of 40 failed: 429 Too Many Requests".to_owned()),
            marks: "failed-requests".to_owned(),
            client_lag_ns_median: Some(2.1e6),
            ..record("llama-server", 16)
        };
        let (screen, document) = rendered(&[record("llama.cpp", 16), failed]);
        assert!(screen.lines().all(|line| line.chars().count() <= 80), "{screen}");
        assert!(screen.contains("TTFT 50/95/99"), "a table, not paragraphs: {screen}");
        assert!(screen.contains("210/340/990 ms"), "{screen}");
        assert!(document.contains("| llama.cpp | 16 users | 12.3 | 1234 |"), "{document}");
        assert!(document.contains("llama-server, 16 users: 3 of 40 failed: 429"), "{document}");
        assert!(document.contains("2.10 ms after they were due"), "{document}");
        assert!(document.contains("1.0 % of the time to first token"), "{document}");
    }

    #[test]
    fn rows_of_other_requests_have_a_table_of_their_own() {
        let longer = Record { prompt_tokens: 4096, ..record("vllm", 2) };
        let (_, document) = rendered(&[record("vllm", 2), longer]);
        assert_eq!(document.matches("under load").count(), 2, "{document}");
        assert!(document.contains("Requests: 4096 + 128 tokens."), "{document}");
    }

    #[test]
    fn a_search_shows_what_it_found_and_what_it_did_not() {
        let search =
            |engine: &str, load: &str| Record { load: Some(load.to_owned()), ..record(engine, 1) };
        let (_, document) = rendered(&[
            Record {
                slo_capacity_users: Some(12),
                slo_missed_users: Some(13),
                slo_probes: Some("8 users 110 of 110".to_owned()),
                ..search("vllm", "slo-users")
            },
            Record { slo_capacity_per_s: Some(51.2), ..search("vllm", "slo-rate") },
            Record { slo_missed_users: Some(1), ..search("candle", "slo-users") },
        ]);
        assert!(document.contains("| vllm | 12 (13) | ≥ 51.2 |"), "{document}");
        assert!(document.contains("| candle | none (1) | — |"), "{document}");
        assert!(document.contains("8 users 110 of 110"), "{document}");
        assert!(!document.contains("under load"), "a search is no load: {document}");
    }

    #[test]
    fn the_clocks_of_a_server_stand_beside_each_other() {
        let (_, document) = rendered(&[Record {
            client_decode_ns_median: Some(1.1e9),
            server_decode_ns_median: Some(1.0e9),
            in_process_decode_tok_s_median: Some(14.0),
            decode_tok_s_median: Some(10.0),
            ..record("llama-server", 1)
        }]);
        assert!(document.contains("| llama-server | 1 user | 10.0 | 11.0 | 14.0 |"), "{document}");
    }
}
