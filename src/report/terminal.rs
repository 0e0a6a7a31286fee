//! A report for a person at a terminal.

use std::io;

use comfy_table::presets::UTF8_HORIZONTAL_ONLY;
use comfy_table::{CellAlignment, ContentArrangement};

use super::{Render, Report, Table};

/// Renders for a terminal.
#[derive(Debug, Default)]
pub struct Terminal {
    /// Columns of the terminal; `None` asks it, and takes what a pipe gets.
    pub width: Option<u16>,
}

impl Render for Terminal {
    fn render(&self, report: &Report, out: &mut dyn io::Write) -> io::Result<()> {
        if !report.title.is_empty() {
            writeln!(out, "{}\n", printable(&report.title))?;
        }
        for section in &report.sections {
            if !section.heading.is_empty() {
                writeln!(out, "{}", printable(&section.heading))?;
            }
            for line in &section.text {
                writeln!(out, "{}", printable(line))?;
            }
            if let Some(table) = &section.table {
                writeln!(out, "{}", self.table(table))?;
            }
            for line in &section.notes {
                writeln!(out, "{}", printable(line))?;
            }
            writeln!(out)?;
        }
        Ok(())
    }
}

impl Terminal {
    fn table(&self, table: &Table) -> comfy_table::Table {
        let mut drawn = comfy_table::Table::new();
        drawn.load_style(UTF8_HORIZONTAL_ONLY);
        drawn.set_content_arrangement(ContentArrangement::Dynamic);
        if let Some(width) = self.width {
            drawn.set_width(width);
        }
        drawn.set_header(table.columns.iter().map(|c| c.name.as_str()));
        for row in &table.rows {
            drawn.add_row(row.iter().map(|cell| printable(cell)));
        }
        for (i, column) in table.columns.iter().enumerate() {
            if let Some(drawn) = drawn.column_mut(i) {
                drawn.set_padding((0, 1));
                if column.right {
                    drawn.set_cell_alignment(CellAlignment::Right);
                }
            }
        }
        drawn
    }
}

/// The text without control characters: a model's or a server's name must not drive the terminal.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Section;

    #[test]
    fn an_escape_sequence_in_a_cell_does_not_reach_the_terminal() {
        let mut table = Table::new(&["model", ">tok/s"]);
        table.rows.push(vec!["evil\u{1b}[2J".to_owned(), "1".to_owned()]);
        let section = Section { table: Some(table), ..Section::default() };
        let report = Report { title: "t".to_owned(), sections: vec![section] };
        let mut out = Vec::new();
        Terminal { width: Some(80) }.render(&report, &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(!text.contains('\u{1b}'), "{text:?}");
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    }
}
