//! What a report says, whatever it is rendered as.

pub mod chart;
pub mod load;
pub mod markdown;
pub mod results;
pub mod terminal;

use std::io;

/// A title and its sections.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Report {
    /// What it is about.
    pub title: String,
    /// Its parts, in order.
    pub sections: Vec<Section>,
}

/// A heading with what stands below it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Section {
    /// The heading.
    pub heading: String,
    /// Paragraphs before the table.
    pub text: Vec<String>,
    /// A table.
    pub table: Option<Table>,
    /// Paragraphs after the table.
    pub notes: Vec<String>,
}

/// Columns and rows.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Table {
    /// The columns' names and alignments.
    pub columns: Vec<Column>,
    /// As many cells in each row as there are columns.
    pub rows: Vec<Vec<String>>,
}

/// A column of a table.
#[derive(Clone, Debug, PartialEq)]
pub struct Column {
    /// Its heading, with the unit where the cells do not say it.
    pub name: String,
    /// Numbers stand to the right.
    pub right: bool,
}

impl Table {
    /// An empty table; a column whose name starts with `>` stands to the right.
    pub fn new(columns: &[&str]) -> Self {
        let columns = columns
            .iter()
            .map(|name| Column {
                name: name.trim_start_matches('>').to_owned(),
                right: name.starts_with('>'),
            })
            .collect();
        Self { columns, rows: Vec::new() }
    }
}

/// A form that a report can be written in.
pub trait Render {
    /// Writes the whole report.
    fn render(&self, report: &Report, out: &mut dyn io::Write) -> io::Result<()>;
}
