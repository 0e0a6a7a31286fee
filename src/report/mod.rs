//! What a report says, whatever it is rendered as.

pub mod bars;
pub mod chart;
pub mod explorer;
pub mod html;
pub mod lines;
pub mod load;
pub mod markdown;
pub mod plot;
pub mod publish;
pub mod results;
mod scene;
pub mod spreadsheet;
pub mod table;
pub mod terminal;

use std::io;
use std::path::{Path, PathBuf};

use anyhow::Context;

use explorer::Explorer;
use plot::Plot;
pub use table::{Cell, Column, Origin, Rows, Table};

/// A title and its sections.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Report {
    /// What it is about.
    pub title: String,
    /// Its parts, in order.
    pub sections: Vec<Section>,
}

impl Report {
    /// Writes its charts into `folder`, as SVG and PNG; their files.
    pub fn write_charts(&self, folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
        std::fs::create_dir_all(folder)
            .with_context(|| format!("cannot make the folder '{}'", folder.display()))?;
        let mut written = Vec::new();
        for figure in self.sections.iter().flat_map(|section| &section.figures) {
            for ending in ["svg", "png"] {
                let path = folder.join(format!("{}.{ending}", figure.name));
                figure.plot.write(&path)?;
                written.push(path);
            }
        }
        Ok(written)
    }
}

/// A heading with what stands below it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Section {
    /// The heading.
    pub heading: String,
    /// Whether it belongs to the section above it.
    pub is_part: bool,
    /// Paragraphs before the table.
    pub text: Vec<String>,
    /// Figures to read first.
    pub headlines: Vec<Headline>,
    /// Charts, each with the values behind it.
    pub figures: Vec<Figure>,
    /// A decision to turn round in the hand.
    pub explorer: Option<Explorer>,
    /// A table.
    pub table: Option<Table>,
    /// Paragraphs after the table.
    pub notes: Vec<String>,
    /// Lines to type.
    pub commands: Vec<String>,
    /// A file that the report carries with it.
    pub download: Option<Download>,
}

/// A figure that answers the reader's question, with what it rests on.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Headline {
    /// What it is of.
    pub label: String,
    /// The figure with its unit.
    pub value: String,
    /// Its interval, in words.
    pub interval: Option<String>,
    /// Where it comes from.
    pub origin: Option<Origin>,
    /// The rest of the story.
    pub detail: Vec<String>,
    /// What speaks against it.
    pub marks: Option<String>,
}

/// A chart with a name for its files.
#[derive(Clone, Debug, PartialEq)]
pub struct Figure {
    /// Its file's name, without the ending.
    pub name: String,
    /// The chart.
    pub plot: Plot,
    /// What stands below it.
    pub note: Option<String>,
}

/// A file that the report carries with it.
#[derive(Clone, Debug, PartialEq)]
pub struct Download {
    /// The file's name.
    pub name: String,
    /// What it is.
    pub label: String,
    /// The type that a browser is told.
    pub media_type: &'static str,
    /// Its text.
    pub text: String,
}

/// A form that a report can be written in.
pub trait Render {
    /// Writes the whole report.
    fn render(&self, report: &Report, out: &mut dyn io::Write) -> io::Result<()>;
}
