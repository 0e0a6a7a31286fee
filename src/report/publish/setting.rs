//! On what, with what and how it was measured, and what speaks against it.

use std::collections::BTreeMap;

use crate::host::Host;
use crate::record::Outcome;
use crate::report::{Section, Table};
use crate::units::{ABSENT, grouped, or_absent};
use crate::watch::Mark;

use super::rows::Row;
use super::{Names, Source};

/// A column for each machine.
pub fn machines(sources: &[Source], names: &Names, rows: &[Row]) -> Option<Section> {
    let mut hosts: Vec<(String, Option<&Host>)> = Vec::new();
    for row in rows {
        if !hosts.iter().any(|(name, _)| *name == row.host) {
            hosts.push((row.host.clone(), sources[row.source].host.as_ref()));
        }
    }
    if hosts.is_empty() {
        return None;
    }
    let columns: Vec<_> =
        std::iter::once("").chain(hosts.iter().map(|(name, _)| name.as_str())).collect();
    let mut table = Table::new(&columns);
    let mut line = |what: &str, of: &dyn Fn(&Host) -> Option<String>| {
        let cells: Vec<_> =
            hosts.iter().map(|(_, host)| host.and_then(of).unwrap_or(ABSENT.to_owned())).collect();
        if cells.iter().any(|cell| cell != ABSENT) {
            let mut row = vec![what.to_owned()];
            row.extend(cells.iter().map(|cell| names.without(cell)));
            table.rows.push(row);
        }
    };
    line("processor", &|h| Some(h.cpu.model.clone()));
    line("cores", &|h| {
        let cores = h.cpu.physical_cores.map_or(String::new(), |n| format!("{n} cores, "));
        Some(format!("{cores}{} threads, {} usable", h.cpu.logical_cores, h.cpu.usable_threads))
    });
    line("instruction sets", &|h| Some(h.cpu.instruction_sets.join(" ")));
    line("last-level cache", &|h| {
        h.cpu.last_level_cache.map(|c| format!("{} × {}", c.count, c.size))
    });
    line("memory", &|h| Some(h.memory.total.to_string()));
    line("swap", &|h| Some(h.memory.swap.to_string()));
    line("GPU", &|h| {
        let gpus: Vec<_> = h
            .gpus
            .iter()
            .map(|gpu| {
                let driver = gpu.driver.as_ref().map_or(String::new(), |d| format!(", driver {d}"));
                format!("{}, {}{driver}", gpu.name, or_absent(gpu.memory))
            })
            .collect();
        let absent = h.gpu_absent.as_ref().map(|why| format!("none: {why}"));
        if gpus.is_empty() { absent } else { Some(gpus.join("; ")) }
    });
    line("virtual machine", &|h| {
        h.cpu.virtual_machine.map(|is| if is { "yes: shared with others" } else { "no" }.to_owned())
    });
    line("governor", &|h| h.cpu.governor.clone());
    line("system", &|h| {
        let kernel = h.os.kernel.as_ref().map_or(String::new(), |k| format!(", kernel {k}"));
        Some(format!("{}{kernel}, {}", h.os.name, h.os.architecture))
    });
    let mut notes = Vec::new();
    for (name, _) in &hosts {
        let speeds = rows.iter().filter(|row| row.host == *name).flat_map(|row| {
            [row.record.probe_bandwidth_gb_s_before, row.record.probe_bandwidth_gb_s_after]
        });
        let mut speeds: Vec<f64> = speeds.flatten().collect();
        speeds.sort_by(f64::total_cmp);
        if let (Some(low), Some(high)) = (speeds.first(), speeds.last()) {
            use crate::units::GbPerSecond;
            notes.push(format!(
                "{name}: main memory was read at {} to {} in the probes beside the cases.",
                GbPerSecond(*low),
                GbPerSecond(*high)
            ));
        }
    }
    let heading = if hosts.len() == 1 { "The machine" } else { "The machines" };
    Some(Section { heading: heading.to_owned(), table: Some(table), notes, ..Section::default() })
}

/// What was run: the scenarios, and the engines with their versions, builds and settings.
pub fn engines(sources: &[Source], rows: &[Row]) -> Vec<Section> {
    let mut text = Vec::new();
    for (number, source) in sources.iter().enumerate() {
        let of: Vec<_> = rows.iter().filter(|row| row.source == number).collect();
        let Some(first) = of.first() else { continue };
        let description =
            source.description.as_ref().map_or(String::new(), |text| format!(": {text}"));
        let (least, most) =
            of.iter().filter(|row| row.has_figures()).fold((u32::MAX, 0), |(least, most), row| {
                (least.min(row.record.trials), most.max(row.record.trials))
            });
        let trials = if least >= most { most.to_string() } else { format!("{least} to {most}") };
        text.push(format!(
            "Scenario {}{description}. {} cases on {}, {}, {trials} counted trials each, bench {}.",
            first.record.scenario,
            of.len(),
            first.host,
            first.date,
            first.record.bench_version
        ));
    }
    if rows.iter().any(|row| row.record.weights == "synthetic") {
        text.push(
            "Synthetic weights have the model's exact shapes, quantisation and vocabulary and \
             random content: they load and run like the real ones, and say nothing about answers."
                .to_owned(),
        );
    }
    let mut table = Table::new(&[
        "engine",
        "version",
        "built for",
        "computes on",
        "settings",
        "host",
        ">cases",
    ]);
    let mut kinds: Vec<(Vec<String>, usize)> = Vec::new();
    for row in rows {
        let r = &row.record;
        let or = |text: &Option<String>| text.clone().unwrap_or_else(|| ABSENT.to_owned());
        let settings = r.effective_settings.clone().unwrap_or_else(|| r.settings.clone());
        let kind = vec![
            r.engine.clone(),
            or(&r.engine_version),
            or(&r.engine_build),
            or(&r.backend),
            without_room(&settings),
            row.host.clone(),
        ];
        match kinds.iter_mut().find(|(known, _)| *known == kind) {
            Some((_, count)) => *count += 1,
            None => kinds.push((kind, 1)),
        }
    }
    for (mut kind, count) in kinds {
        kind.push(grouped(count as u64));
        table.rows.push(kind);
    }
    let _ = table.take_constant(&["host"]);
    let run = Section {
        heading: "What was run".to_owned(),
        text,
        table: Some(table),
        notes: vec![
            "The settings are those in force, read back from the engine; room for tokens \
             (context_tokens, batch_tokens) follows each case and stands in the CSV."
                .to_owned(),
        ],
        ..Section::default()
    };
    let mut sections = vec![run];
    sections.extend(failures(rows));
    sections
}

/// Settings without those that follow the size of a case.
fn without_room(settings: &str) -> String {
    let follow = ["context_tokens=", "batch_tokens=", "cache_blocks="];
    let is_kept = |word: &&str| follow.iter().all(|key| !word.starts_with(key));
    settings.split_whitespace().filter(is_kept).collect::<Vec<_>>().join(" ")
}

fn failures(rows: &[Row]) -> Option<Section> {
    let mut table = Table::new(&["case", "outcome", "reason", "host"]);
    for row in rows.iter().filter(|row| row.record.outcome != Outcome::Measured) {
        table.rows.push(vec![
            row.record.case_id.clone(),
            row.record.outcome.to_string(),
            row.record.reason.clone().unwrap_or_else(|| ABSENT.to_owned()),
            row.host.clone(),
        ]);
    }
    if table.rows.is_empty() {
        return None;
    }
    let _ = table.take_constant(&["host"]);
    Some(Section {
        heading: "What could not be measured".to_owned(),
        is_part: true,
        table: Some(table),
        ..Section::default()
    })
}

/// What speaks against which rows.
pub fn validity(rows: &[Row]) -> Option<Section> {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for row in rows {
        for mark in row.record.marks.split_whitespace() {
            *counts.entry(mark.to_owned()).or_default() += 1;
        }
        for doubt in &row.doubts {
            *counts.entry(doubt.clone()).or_default() += 1;
        }
    }
    let clean = rows.iter().filter(|row| row.record.is_clean() && row.doubts.is_empty()).count();
    let mut table = Table::new(&["mark", "what it means", ">rows"]);
    for (mark, count) in counts {
        let meaning = match mark.parse::<Mark>() {
            Ok(mark) => mark.meaning().to_owned(),
            Err(_) => "not comparable with the first row of the same work (‡)".to_owned(),
        };
        table.rows.push(vec![mark, meaning, grouped(count as u64)]);
    }
    let probes = rows.iter().filter_map(|row| row.record.harness_cpu_share);
    let most = probes.fold(0.0, f64::max);
    let mut text = vec![format!(
        "{clean} of {} rows are measured and have no mark. A marked row stays in every table, with its mark: \
         whoever wants a clean one runs it again.",
        rows.len()
    )];
    if most > 0.0 {
        text.push(format!(
            "The harness itself took at most {} of the processor's time.",
            crate::units::Share(most)
        ));
    }
    Some(Section {
        heading: "What speaks against these figures".to_owned(),
        text,
        table: (!table.rows.is_empty()).then_some(table),
        ..Section::default()
    })
}

/// How it was measured and what that cannot tell.
pub fn method() -> Section {
    Section {
        heading: "Method and limits".to_owned(),
        text: vec![
            "Each case ran in a process of its own. The engines of one point stayed loaded side by \
             side and ran in turn, trial by trial, on the same token ids; trials ended when the 95 % \
             interval of the median was within ±2 %, or at the scenario's limit. A figure is the \
             median of the trials and its interval that of Hettmansperger and Sheather; nothing was \
             dropped."
                .to_owned(),
            "Inside the clock: the engine's work on the prompt and on each token, until the logits \
             are in the host's memory. Outside: loading, sampling (the tokens are given), encoding, \
             statistics. Decode tok/s = (N − 1) / (last − first token); prefill tok/s = prompt tokens \
             / (first token − start)."
                .to_owned(),
            "One stream says nothing about several users; a short context nothing about a long one; \
             a virtual machine shares its memory bus with neighbours that nobody sees; synthetic \
             weights may route experts and draw power otherwise than trained ones. The people who \
             wrote bench also wrote its candle engine, and tuned it on a machine like those of its \
             first reports."
                .to_owned(),
        ],
        notes: vec![
            "In full: reports/METHODOLOGY.md and reports/LIMITS.md of the project.".to_owned(),
        ],
        ..Section::default()
    }
}
