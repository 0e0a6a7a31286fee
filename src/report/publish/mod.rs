//! Result folders → the report that people publish: the answer first, then everything it rests on.

mod comparable;
pub mod cost;
mod growth;
mod headline;
mod memory;
mod names;
mod rows;
mod setting;
mod speed;

use crate::host::Host;
use crate::record::Record;

use super::spreadsheet;
use super::{Download, Report, Section};

pub use names::Names;
use rows::Row;

/// One result folder.
#[derive(Clone, Debug, Default)]
pub struct Source {
    /// Its name, without the folders above.
    pub folder: String,
    /// Its rows.
    pub records: Vec<Record>,
    /// The machine; none where the folder does not describe it.
    pub host: Option<Host>,
    /// What the scenario says that it is for.
    pub description: Option<String>,
}

/// What a report is made of.
#[derive(Clone, Debug, Default)]
pub struct Contents {
    /// Its title; otherwise made of the machines.
    pub title: Option<String>,
    /// The result folders.
    pub sources: Vec<Source>,
    /// Whether hosts keep the names that people gave them.
    pub with_host_names: bool,
    /// What else the machine could run, and how fast.
    pub fit: Vec<Section>,
    /// What owning the machine costs.
    pub cost: Vec<Section>,
    /// The command that remakes the report.
    pub command: String,
}

/// The report and its records as a CSV file.
///
/// # Errors
/// A record that cannot be encoded.
pub fn report(contents: &Contents) -> anyhow::Result<(Report, String)> {
    let names = Names::of(&contents.sources, contents.with_host_names);
    let rows = rows::prepare(&contents.sources, &names);
    let records: Vec<Record> = rows.iter().map(|row| row.record.clone()).collect();
    let csv = spreadsheet::csv(&records)?;

    let mut sections = vec![headline::section(&rows)];
    sections.extend(setting::machines(&contents.sources, &names, &rows));
    sections.extend(setting::engines(&contents.sources, &rows));
    sections.extend(speed::sections(&rows));
    sections.extend(growth::sections(&rows));
    sections.extend(memory::sections(&rows));
    sections.extend(contents.fit.iter().cloned());
    sections.extend(contents.cost.iter().cloned());
    sections.extend(setting::validity(&rows));
    sections.push(setting::method());
    sections.push(remake(contents, &names, &csv));
    let title = contents.title.clone().unwrap_or_else(|| title(&rows));
    Ok((Report { title, sections }, csv))
}

fn title(rows: &[Row]) -> String {
    let hosts = distinct(rows.iter().map(|row| row.host.as_str()));
    match hosts.as_slice() {
        [] => "Local language models".to_owned(),
        [host] => format!("Local language models on {host}"),
        hosts => format!("Local language models on {} machines", hosts.len()),
    }
}

fn remake(contents: &Contents, names: &Names, csv: &str) -> Section {
    let mut text = vec![
        "Every measured figure above comes from the records of these runs, and every prediction \
         and price from the catalogue of this version of bench: the report can be made again on any \
         machine."
            .to_owned(),
    ];
    if names.hides_any() {
        text.push(
            "Names that people gave to machines are left out here: in the command below the \
             machine's description stands for them."
                .to_owned(),
        );
    }
    Section {
        heading: "How to make this again".to_owned(),
        text,
        commands: vec![names.without(&contents.command)],
        download: Some(Download {
            name: "results.csv".to_owned(),
            label: format!("All {} records with every column, as CSV", contents.records()),
            media_type: "text/csv",
            text: csv.to_owned(),
        }),
        notes: vec![
            "results/README.md of the project says what each column means, and in which unit."
                .to_owned(),
        ],
        ..Section::default()
    }
}

impl Contents {
    fn records(&self) -> usize {
        self.sources.iter().map(|source| source.records.len()).sum()
    }
}

/// Each value once, in the order of its first place.
fn distinct<T: PartialEq>(values: impl Iterator<Item = T>) -> Vec<T> {
    let mut found = Vec::new();
    for value in values {
        if !found.contains(&value) {
            found.push(value);
        }
    }
    found
}

#[cfg(test)]
mod tests;
