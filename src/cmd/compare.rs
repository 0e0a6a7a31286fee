//! `bench compare`: says of two sets of results, or of two engines in one, whether they differ.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::ValueEnum;

use crate::compare::{
    Condition, Line, Metric, Pairing, Subject, Terms, Values, Verdict, as_one, compare_by_case,
    compare_by_engine, took_turns,
};
use crate::interchange;
use crate::record::{Folder, Record};
use crate::report::markdown::Markdown;
use crate::report::terminal::Terminal;
use crate::report::{Render, Report, Section, Table, spreadsheet};
use crate::run::summary::trial_values;
use crate::runner::protocol::Sample;
use crate::units::{self, Nanos, significant};
use crate::verify::{load_of, shown};

use super::run::Format;

/// By how much speeds may drop before it is a regression, where nothing else is said.
const THRESHOLD: &str = "3%";

/// Flags of `bench compare`.
#[derive(Debug, clap::Args)]
pub struct CompareArgs {
    /// The baseline: a result folder. With --by engine: the folder, or folders, with the engines.
    #[arg(required = true, value_name = "BASELINE [CANDIDATE]", num_args = 1..)]
    results: Vec<PathBuf>,
    /// Several runs of the candidate against the several of the baseline, each run one value: what
    /// changes with every start of a process is then in the interval. 5 of each decide; run them in
    /// turns.
    #[arg(long, value_name = "CANDIDATE", num_args = 1.., conflicts_with = "by")]
    with: Vec<PathBuf>,
    /// What is compared: the cases of two folders, or the engines within.
    #[arg(long, value_enum, default_value = "case")]
    by: By,
    /// The engine that others are compared with; default: the first of each case.
    #[arg(long, value_name = "ENGINE")]
    baseline: Option<String>,
    /// Only these metrics; default: generation, and the prompt.
    #[arg(long, value_enum, value_delimiter = ',')]
    metric: Vec<MetricName>,
    /// A loss beyond this is a regression, and the exit code 1: 3% or 0.03.
    #[arg(long, default_value = THRESHOLD, value_parser = share)]
    threshold: f64,
    /// Compare although these conditions differ. Another version of the engine always may.
    #[arg(long, value_enum, value_delimiter = ',')]
    allow: Vec<Allowed>,
    /// How the lines are printed; markdown is a comment ready to post.
    #[arg(long, value_enum, default_value = "table")]
    format: Format,
}

/// What is held beside each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum By {
    /// The same case in two folders
    Case,
    /// The same work on several engines
    Engine,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum MetricName {
    /// Time to first token
    Ttft,
    /// Speed of the prompt
    Prefill,
    /// Speed of one stream's generation
    Decode,
    /// Speed of all streams together
    System,
    /// From the request to its last token
    E2e,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Allowed {
    /// Other instruction sets or GPU architectures, another backend
    Build,
    /// Other switches of the engine
    Settings,
    /// Another machine
    Host,
}

fn share(text: &str) -> Result<f64, String> {
    let (number, unit) = match text.trim().strip_suffix('%') {
        Some(number) => (number.trim_end(), 0.01),
        None => (text.trim(), 1.0),
    };
    let value = number.parse::<f64>().map(|value| value * unit).ok();
    value
        .filter(|value| (0.0..1.0).contains(value))
        .ok_or_else(|| "write a share such as 3% or 0.03, below 100%".to_owned())
}

/// Runs the subcommand.
pub fn run(args: &CompareArgs) -> anyhow::Result<ExitCode> {
    let lines = lines(args)?;
    if lines.is_empty() {
        bail!("there is nothing to compare: the folders have no rows");
    }
    // No regression would be a claim about nothing.
    if !lines.iter().any(|l| l.baseline_case_id.is_some() && l.candidate_case_id.is_some()) {
        bail!(
            "the two sides have no case in common, such as '{}'; bench run of one scenario makes \
             both, and engines within a folder are compared with --by engine",
            lines
                .iter()
                .find_map(|l| l.baseline_case_id.clone().or(l.candidate_case_id.clone()))
                .unwrap_or_default()
        );
    }
    print(args, &lines)?;
    let regressed = lines.iter().any(|line| line.regression);
    Ok(match (regressed, judged(&lines)) {
        (true, _) => ExitCode::from(1),
        // A check that passes where nothing could be checked is none.
        (false, 0) => ExitCode::from(2),
        (false, _) => ExitCode::SUCCESS,
    })
}

/// Whether there are trials enough for a verdict on its ratio.
fn is_judged(line: &&Line) -> bool {
    line.ratio_low.is_some()
}

fn judged(lines: &[Line]) -> usize {
    lines.iter().filter(is_judged).count()
}

fn lines(args: &CompareArgs) -> anyhow::Result<Vec<Line>> {
    let mut tested: Vec<_> = args
        .allow
        .iter()
        .map(|allowed| match allowed {
            Allowed::Build => Condition::Build,
            Allowed::Settings => Condition::Settings,
            Allowed::Host => Condition::Host,
        })
        .collect();
    // A new version is what is tested most often, and the lines name both.
    tested.push(Condition::Version);
    let metrics = args.metric.iter().map(|name| match name {
        MetricName::Ttft => Metric::TtftNs,
        MetricName::Prefill => Metric::PrefillTokS,
        MetricName::Decode => Metric::DecodeTokS,
        MetricName::System => Metric::SystemTokS,
        MetricName::E2e => Metric::E2eNs,
    });
    let mut terms =
        Terms { metrics: metrics.collect(), tested, threshold: args.threshold, in_turns: None };
    if !args.with.is_empty() {
        let read = |folders: &[PathBuf]| -> anyhow::Result<Vec<Vec<Subject>>> {
            folders.iter().map(|folder| subjects(folder, 0)).collect()
        };
        let (baseline, candidate) = (read(&args.results)?, read(&args.with)?);
        terms.in_turns = Some(took_turns(&baseline, &candidate));
        let one = |runs: &[Vec<Subject>]| as_one(runs).map_err(anyhow::Error::msg);
        return Ok(compare_by_case(&one(&baseline)?, &one(&candidate)?, &terms));
    }
    match (args.by, args.results.as_slice()) {
        (By::Case, [baseline, candidate]) => {
            if args.baseline.is_some() {
                bail!("--baseline names an engine; it goes with --by engine");
            }
            Ok(compare_by_case(&subjects(baseline, 0)?, &subjects(candidate, 1)?, &terms))
        }
        (By::Case, _) => bail!(
            "comparing cases takes two result folders, {} given; the engines within one are \
             compared with: bench compare FOLDER --by engine",
            args.results.len()
        ),
        (By::Engine, folders) => {
            terms.tested.push(Condition::Engine);
            let mut all = Vec::new();
            for (run, folder) in folders.iter().enumerate() {
                all.extend(subjects(folder, run)?);
            }
            let mut engines: Vec<_> = all.iter().map(|s| s.record.engine.as_str()).collect();
            engines.sort_unstable();
            engines.dedup();
            if let Some(wanted) = &args.baseline
                && !engines.contains(&wanted.as_str())
            {
                bail!("no row has the engine '{wanted}'; there are: {}", engines.join(", "));
            }
            if engines.len() < 2 {
                bail!(
                    "only one engine is there ({}); two folders are compared with: bench compare \
                     BASELINE CANDIDATE",
                    engines.join(", ")
                );
            }
            Ok(compare_by_engine(&all, args.baseline.as_deref(), &terms))
        }
    }
}

/// The rows of a folder, the `run`-th of several, with their trials.
pub(super) fn subjects(path: &Path, run: usize) -> anyhow::Result<Vec<Subject>> {
    if !path.join("records.csv").is_file() {
        bail!("'{}' is no result folder: it has no records.csv", path.display());
    }
    let folder = Folder::open(path)?;
    let mut values: BTreeMap<String, Values> = BTreeMap::new();
    let mut put = |case: &str, metric, trial, value: Option<f64>| {
        if let Some(value) = value {
            let of_case = values.entry(case.to_owned()).or_default();
            of_case.entry(metric).or_default().push((trial, value));
        }
    };
    if path.join(interchange::VALUES).is_file() {
        for stated in interchange::read_values(path)? {
            for metric in Metric::ALL {
                let value = stated.values.get(metric.column()).copied();
                put(&stated.case_id, metric, stated.trial, value);
            }
        }
    } else {
        let trials = folder.read_trials::<Sample>()?;
        for record in folder.records() {
            let own: Vec<_> =
                trials.iter().filter(|t| t.case_id == record.case_id).cloned().collect();
            for trial in shown(record, &own) {
                for v in trial_values(record, std::slice::from_ref(&trial), load_of(record)) {
                    let (case_id, number) = (&record.case_id, trial.trial);
                    put(case_id, Metric::TtftNs, number, v.ttft_ns);
                    put(case_id, Metric::PrefillTokS, number, v.prefill_tok_s);
                    put(case_id, Metric::DecodeTokS, number, v.decode_tok_s);
                    put(case_id, Metric::SystemTokS, number, v.system_tok_s);
                    put(case_id, Metric::E2eNs, number, v.e2e_ns);
                }
            }
        }
    }
    let subject = |record: &Record| Subject {
        run,
        values: values.remove(&record.case_id).unwrap_or_default(),
        record: record.clone(),
    };
    Ok(folder.records().iter().map(subject).collect())
}

fn print(args: &CompareArgs, lines: &[Line]) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    let report = report(lines, args.threshold, args.with.is_empty());
    match args.format {
        Format::Table => Terminal::default().render(&report, &mut out)?,
        Format::Markdown => {
            // A bot finds its earlier comment by this, to replace it.
            writeln!(out, "<!-- bench compare -->\n")?;
            Markdown.render(&report, &mut out)?;
        }
        Format::Json => {
            serde_json::to_writer_pretty(&mut out, lines)?;
            writeln!(out)?;
        }
        Format::Csv => {
            let mut writer = csv::Writer::from_writer(Vec::new());
            for line in lines {
                writer.serialize(line).context("cannot encode a line")?;
            }
            let plain = writer.into_inner().context("cannot encode the lines")?;
            out.write_all(spreadsheet::defused(&plain)?.as_bytes())?;
        }
    }
    out.flush()?;
    Ok(())
}

/// The lines as tables, one for each model and pair of engines, and what they come to first.
/// `single_runs`: each side is one run, so that nobody knows what the next start would give.
pub fn report(lines: &[Line], threshold: f64, single_runs: bool) -> Report {
    let mut sections =
        vec![Section { text: vec![headline(lines, threshold)], ..Section::default() }];
    for line in lines {
        let (heading, who) = heading(line);
        let same = |s: &Section| s.heading == heading && s.text.first() == Some(&who);
        let place = sections.iter().position(same).unwrap_or_else(|| {
            let table =
                Table::new(&["work", "metric", ">base", ">new", ">ratio", ">finds", "difference"]);
            let (heading, text) = (heading.clone(), vec![who.clone()]);
            sections.push(Section { heading, text, table: Some(table), ..Section::default() });
            sections.len() - 1
        });
        let section = &mut sections[place];
        if line.metric.is_some()
            && let Some(table) = &mut section.table
        {
            table.rows.push(row(line));
        }
        if let Some(reason) = &line.reason {
            let metric = line.metric.map_or_else(String::new, |metric| format!(", {metric}"));
            section.notes.push(format!("{}{metric}: {}: {reason}", work(line), line.verdict));
        }
    }
    for section in &mut sections {
        section.table = section.table.take().filter(|table| !table.rows.is_empty());
    }
    sections.push(legend(lines, single_runs));
    Report { title: String::new(), sections }
}

fn headline(lines: &[Line], threshold: f64) -> String {
    let count = |verdict: Verdict| lines.iter().filter(|line| line.verdict == verdict).count();
    let regressions = lines.iter().filter(|line| line.regression).count();
    let limit = units::Share(threshold);
    let first = match regressions {
        0 if judged(lines) == 0 => "Nothing could be judged.".to_owned(),
        0 if judged(lines) < lines.len() => format!(
            "No regression beyond {limit} in {} of {} lines that could be judged.",
            judged(lines),
            lines.len()
        ),
        0 => format!("No regression beyond {limit}."),
        1 => format!("1 regression beyond {limit}."),
        n => format!("{n} regressions beyond {limit}."),
    };
    format!(
        "{first} Faster: {}; slower: {}; no difference seen: {}; too few trials: {}; not \
         comparable: {}.",
        count(Verdict::Faster),
        count(Verdict::Slower),
        count(Verdict::NoDifferenceSeen),
        count(Verdict::TooFewTrials),
        count(Verdict::NotComparable),
    )
}

/// What a line is about, and whose figures stand in it.
fn heading(line: &Line) -> (String, String) {
    let name = |engine: &Option<String>, version: &Option<String>, host: Option<&String>| {
        let words = [engine.as_ref(), version.as_ref()].into_iter().flatten().cloned();
        let words = words.collect::<Vec<_>>().join(" ");
        host.map_or(words.clone(), |host| format!("{words} on {host}"))
    };
    let hosts = line.baseline_host.as_ref().zip(line.candidate_host.as_ref());
    let hosts = hosts.filter(|(a, b)| a != b).unzip();
    let baseline = name(&line.baseline_engine, &line.baseline_version, hosts.0);
    let candidate = name(&line.candidate_engine, &line.candidate_version, hosts.1);
    let who = match (baseline.is_empty(), candidate.is_empty()) {
        (false, false) => format!("{candidate} against {baseline}"),
        _ => format!("{candidate}{baseline}"),
    };
    (format!("{} {}, {} weights", line.model, line.quant, line.weights), who)
}

fn work(line: &Line) -> String {
    let number = line.load.get(1..).unwrap_or_default();
    let batch = line.load.strip_prefix('b').and_then(|n| n.parse().ok());
    let record = Record {
        prompt_tokens: line.prompt_tokens,
        new_tokens: line.new_tokens,
        depth: line.depth,
        batch: batch.unwrap_or(1),
        ..Record::default()
    };
    let work = crate::report::results::work(&record);
    match line.load.as_str() {
        _ if batch.is_some() => work,
        load if load.starts_with('c') => format!("{work} {number} users"),
        load if load.starts_with('r') => format!("{work} {number}/s"),
        load => format!("{work} {load}"),
    }
}

fn row(line: &Line) -> Vec<String> {
    let marked = |text: String, marks: &Option<String>| match marks {
        Some(_) => format!("{text}*"),
        None => text,
    };
    let value = |value: Option<f64>| match (line.metric, value) {
        (_, None) => units::ABSENT.to_owned(),
        (Some(Metric::TtftNs | Metric::E2eNs), Some(ns)) => Nanos(ns as u64).to_string(),
        (_, Some(speed)) => significant(speed, 3),
    };
    // Short, so that the table fits into 80 columns.
    let verdict = match line.verdict {
        Verdict::Slower if line.regression => "regression".to_owned(),
        Verdict::NoDifferenceSeen => "none seen".to_owned(),
        Verdict::TooFewTrials | Verdict::NotComparable => units::ABSENT.to_owned(),
        verdict => verdict.to_string(),
    };
    let ratio = line.ratio.map(|r| units::with_interval(r, line.ratio_low.zip(line.ratio_high)));
    vec![
        work(line),
        line.metric.map_or_else(String::new, |metric| metric.to_string()),
        marked(value(line.baseline_median), &line.baseline_marks),
        marked(value(line.candidate_median), &line.candidate_marks),
        units::or_absent(ratio),
        units::or_absent(line.smallest_detectable.map(units::Share)),
        verdict,
    ]
}

fn legend(lines: &[Line], single_runs: bool) -> Section {
    let tested = judged(lines);
    let in_turns =
        lines.iter().filter(|line| line.pairing == Some(Pairing::Interleaved)).filter(is_judged);
    let in_turns = in_turns.count();
    let mut notes = vec![
        "ratio: new / base with half of its 95 % interval. finds: the smallest difference that would \
         have been found nine times in ten. * marked: what speaks against the row stands in its \
         records.csv."
            .to_owned(),
    ];
    let apart = lines.iter().any(|line| line.pairing == Some(Pairing::Apart));
    if single_runs && apart && tested > 0 {
        notes.push(
            "Each side is one run: what changes with every start of a process (memory placement, \
             clocks) is in no interval. Several runs in turns decide: bench compare A1 A2 … --with \
             B1 B2 …"
                .to_owned(),
        );
    }
    if tested > 0 {
        notes.push(format!(
            "Of {tested} ratios, {in_turns} are of values measured in turns. Where nothing \
             differs at all, {} of them would be called different by chance.",
            significant(tested as f64 * 0.05, 1)
        ));
    }
    Section { notes, ..Section::default() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Outcome;

    fn subject(engine: &str, decode: [f64; 6]) -> Subject {
        let record = Record {
            case_id: "case".to_owned(),
            engine: engine.to_owned(),
            engine_version: Some("llama-cpp-sys-2 0.1.161 (ggml 0.26.0)".to_owned()),
            model: "qwen3-0.6b".to_owned(),
            quant: "Q4_K_M".to_owned(),
            weights: "synthetic".to_owned(),
            outcome: Outcome::Measured,
            marks: "probe-drift".to_owned(),
            prompt_tokens: 8192,
            new_tokens: 1024,
            depth: 32768,
            batch: 1,
            decode_tok_s_median: crate::stats::median(&decode),
            ..Record::default()
        };
        let trials = (1..).zip(decode).collect();
        Subject { run: 0, record, values: Values::from([(Metric::DecodeTokS, trials)]) }
    }

    #[test]
    fn the_lines_fit_into_a_terminal_of_eighty_columns() {
        let terms = Terms {
            metrics: vec![Metric::DecodeTokS, Metric::TtftNs],
            tested: vec![Condition::Version],
            threshold: 0.03,
            in_turns: None,
        };
        let baseline = subject("llama.cpp", [100.0, 101.0, 99.0, 100.5, 99.5, 100.1]);
        let candidate = subject("llama.cpp", [90.0, 91.0, 89.0, 90.5, 89.5, 90.1]);
        let lines = compare_by_case(&[baseline], &[candidate], &terms);
        let mut out = Vec::new();
        Terminal { width: Some(80) }.render(&report(&lines, 0.03, true), &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(text.starts_with("1 regression beyond 3.0 %."), "{text}");
        assert!(text.contains("0.900 ± ") && text.contains(" regression "), "{text}");
        assert!(text.contains("the baseline has no TTFT"), "{text}");
        assert!(text.contains("work  "), "a table, not paragraphs: {text}");
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    }

    #[test]
    fn a_threshold_is_a_share_with_or_without_its_unit() {
        assert_eq!(share("3%"), Ok(0.03));
        assert_eq!(share("0.05"), Ok(0.05));
        assert_eq!(share("2 %"), Ok(0.02));
        for wrong in ["3", "-1%", "x", "100%", "NaN"] {
            assert!(share(wrong).is_err(), "{wrong}");
        }
    }
}
