//! Writes a report to publish: one page, the same as Markdown, the records as CSV, the charts.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};

use crate::host::Host;
use crate::record::write_whole;
use crate::report::html::Html;
use crate::report::markdown::Markdown;
use crate::report::publish::{self, Contents, Source};
use crate::report::{Render, Report, Section};

use super::{ReportArgs, cost, fit, read_folder};

/// Makes the report of `args` in `folder`.
pub fn write(args: &ReportArgs, folder: &Path) -> anyhow::Result<()> {
    let sources: Vec<_> =
        args.results.iter().map(|path| source(path)).collect::<anyhow::Result<_>>()?;
    ensure!(
        sources.iter().any(|source| !source.records.is_empty()),
        "the result folders have no rows yet: `bench run --resume` goes on with a killed run"
    );
    let contents = Contents {
        title: args.title.clone(),
        fit: fit::sections(&sources, &args.results, args.with_host_names)?,
        cost: decided(args)?,
        with_host_names: args.with_host_names,
        command: command(args, folder),
        sources,
    };
    let (report, csv) = publish::report(&contents)?;
    let charts = folder.join("charts");
    report.write_charts(&charts)?;
    write_whole(&folder.join("results.csv"), csv.as_bytes())?;
    write_whole(&folder.join("report.md"), &rendered(&Markdown, &report)?)?;
    let page = folder.join("index.html");
    write_whole(&page, &rendered(&Html, &report)?)?;
    println!("{}", page.display());
    Ok(())
}

/// What is decided from the results: how many machines, and what they cost.
fn decided(args: &ReportArgs) -> anyhow::Result<Vec<Section>> {
    let mut sections = match &args.capacity {
        Some(arguments) => crate::cmd::capacity::sections(arguments)
            .with_context(|| format!("--capacity '{arguments}'"))?,
        None => Vec::new(),
    };
    sections.extend(args.cost.as_deref().map_or_else(|| Ok(cost::missing()), cost::sections)?);
    Ok(sections)
}

fn rendered(form: &dyn Render, report: &Report) -> anyhow::Result<Vec<u8>> {
    let mut text = Vec::new();
    form.render(report, &mut text).context("cannot render the report")?;
    Ok(text)
}

/// A result folder with what it says about its machine and its scenario.
fn source(path: &Path) -> anyhow::Result<Source> {
    let records = read_folder(path)?;
    let host = path.join("host.toml");
    let host: Option<Host> = match fs::read_to_string(&host) {
        Ok(text) => {
            let place = || format!("'{}' does not describe a machine", host.display());
            Some(toml::from_str(&text).with_context(place)?)
        }
        // Results that came from other tools have none.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => {
            return Err(error).with_context(|| format!("cannot read '{}'", host.display()));
        }
    };
    // Rows of a run on another version may come with a scenario that is no longer valid.
    let description = fs::read_to_string(path.join("scenario.toml"))
        .ok()
        .and_then(|text| text.parse::<toml::Table>().ok())
        .and_then(|scenario| Some(scenario.get("description")?.as_str()?.to_owned()));
    let full: PathBuf = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let folder = full.file_name().unwrap_or_default().to_string_lossy().into_owned();
    Ok(Source { folder, records, host, description })
}

/// The command as it can be typed again.
fn command(args: &ReportArgs, folder: &Path) -> String {
    let mut words = vec!["bench".to_owned(), "report".to_owned()];
    words.extend(args.results.iter().map(|path| path.display().to_string()));
    words.extend(["--out".to_owned(), folder.display().to_string()]);
    if let Some(title) = &args.title {
        words.extend(["--title".to_owned(), title.clone()]);
    }
    if let Some(cost) = &args.cost {
        words.extend(["--cost".to_owned(), cost.clone()]);
    }
    if let Some(capacity) = &args.capacity {
        words.extend(["--capacity".to_owned(), capacity.clone()]);
    }
    if args.with_host_names {
        words.push("--with-host-names".to_owned());
    }
    // A word with a NUL cannot have come from a command line.
    words
        .iter()
        .map(|word| shlex::try_quote(word).unwrap_or_default())
        .collect::<Vec<_>>()
        .join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_read_back_by_a_shell_as_it_was() {
        let args = ReportArgs {
            results: vec!["results/2026-11-21-x".into(), "Ada's results".into()],
            out: None,
            title: None,
            capacity: None,
            cost: Some("--workload chat-team --rent 'runpod/H100 PCIe 80GB'".to_owned()),
            with_host_names: true,
            format: crate::cmd::run::Format::Table,
            splice: None,
        };
        let command = command(&args, Path::new("reports/x"));
        let words = shlex::split(&command).unwrap();
        assert_eq!(words[2..4], ["results/2026-11-21-x", "Ada's results"]);
        assert!(words.contains(&args.cost.unwrap()), "{command}");
        assert_eq!(words.last().unwrap(), "--with-host-names");
    }
}
