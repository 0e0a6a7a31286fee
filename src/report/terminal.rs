//! A report for a person at a terminal.

use std::io;

use comfy_table::presets::UTF8_HORIZONTAL_ONLY;
use comfy_table::{CellAlignment, ContentArrangement};

use crate::units::ABSENT;

use super::{Render, Report, Table};

/// Renders for a terminal.
#[derive(Debug, Default)]
pub struct Terminal {
    /// Columns of the terminal; `None` asks it, and takes what a pipe gets.
    pub width: Option<u16>,
}

impl Render for Terminal {
    fn render(&self, report: &Report, out: &mut dyn io::Write) -> io::Result<()> {
        let width = self.width.or_else(|| comfy_table::Table::new().width()).map(usize::from);
        if !report.title.is_empty() {
            writeln!(out, "{}\n", printable(&report.title))?;
        }
        for section in &report.sections {
            if !section.heading.is_empty() {
                writeln!(out, "{}", printable(&section.heading))?;
            }
            for line in &section.text {
                paragraph(line, width, out)?;
            }
            for headline in &section.headlines {
                let interval = headline.interval.iter().map(|text| format!(" ({text})"));
                let text = format!(
                    "{}: {}{}; {}",
                    headline.label,
                    headline.value,
                    interval.collect::<String>(),
                    headline.detail.join("; ")
                );
                paragraph(&text, width, out)?;
            }
            if let Some(explorer) = &section.explorer {
                paragraph(&explorer.sentence(), width, out)?;
            }
            if let Some(table) = &section.table {
                if let Some(caption) = &table.caption {
                    paragraph(caption, width, out)?;
                }
                let drawn = self.table(table);
                let natural = drawn.column_max_content_widths();
                let needed: usize = natural.iter().map(|w| usize::from(*w) + 1).sum();
                match width {
                    // Cells broken over many lines cannot be read: rows become paragraphs.
                    Some(width) if needed > width && table.columns.len() > MOST_WRAPPED => {
                        cards(table, width, out)?;
                    }
                    _ => writeln!(out, "{drawn}")?,
                }
            }
            for command in &section.commands {
                writeln!(out, "    {}", printable(command))?;
            }
            for line in &section.notes {
                paragraph(line, width, out)?;
            }
            writeln!(out)?;
        }
        Ok(())
    }
}

/// Up to so many columns a table that is too wide is still readable with its cells wrapped.
const MOST_WRAPPED: usize = 4;

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
            drawn.add_row(row.iter().map(|cell| printable(&cell.words())));
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

fn paragraph(text: &str, width: Option<usize>, out: &mut dyn io::Write) -> io::Result<()> {
    let text = printable(text);
    match width {
        Some(width) => writeln!(out, "{}", textwrap::fill(&text, whole_words(width))),
        None => writeln!(out, "{text}"),
    }
}

/// Lines that end at spaces alone: `tok/s` and the names of models stay whole.
fn whole_words<'a>(width: usize) -> textwrap::Options<'a> {
    textwrap::Options::new(width)
        .word_separator(textwrap::WordSeparator::AsciiSpace)
        .word_splitter(textwrap::WordSplitter::NoHyphenation)
}

/// Each row on lines of its own: the words that name it, then its values with their names.
fn cards(table: &Table, width: usize, out: &mut dyn io::Write) -> io::Result<()> {
    let names = table.columns.iter().position(|c| c.right).unwrap_or(1).max(1);
    let options = whole_words(width).initial_indent("  ").subsequent_indent("  ");
    for row in &table.rows {
        let cells: Vec<_> = row.iter().map(|cell| printable(&cell.words())).collect();
        let (title, values) = cells.split_at(names.min(cells.len()));
        writeln!(out, "{}", textwrap::fill(&title.join(" · "), whole_words(width)))?;
        let values: Vec<_> = values
            .iter()
            .zip(&table.columns[names..])
            .filter(|(value, _)| *value != ABSENT)
            // A value stays on the line of its name.
            .map(|(value, column)| format!("{} {value}", column.name).replace(' ', "\u{a0}"))
            .collect();
        let text = textwrap::fill(&values.join("; "), &options);
        writeln!(out, "{}", text.replace('\u{a0}', " "))?;
    }
    Ok(())
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

    #[test]
    fn a_table_too_wide_for_the_terminal_becomes_paragraphs_with_whole_values() {
        let columns = ["model", "quant", ">prefill tok/s", ">decode tok/s", ">total", ">longest"];
        let mut table = Table::new(&columns);
        let cells =
            ["llama-3.1-70b", "Q4_K_M", "2796 [1947, 3766]", "60.1 [51, 66]", "20.3 GiB", "—"];
        table.rows.push(cells.map(str::to_owned).to_vec());
        let section = Section { table: Some(table), ..Section::default() };
        let report = Report { title: String::new(), sections: vec![section] };
        let drawn = |width| {
            let mut out = Vec::new();
            Terminal { width: Some(width) }.render(&report, &mut out).unwrap();
            String::from_utf8(out).unwrap()
        };
        for width in 40..60 {
            assert_eq!(drawn(width).matches("tok/s").count(), 2, "{width}: {}", drawn(width));
        }
        let text = drawn(60);
        assert!(text.contains("llama-3.1-70b · Q4_K_M\n"), "{text}");
        assert!(text.contains("prefill tok/s 2796 [1947, 3766];"), "{text}");
        assert!(!text.contains("longest"), "what is absent is left out: {text}");
        assert!(text.lines().all(|line| line.chars().count() <= 60), "{text}");
    }
}
