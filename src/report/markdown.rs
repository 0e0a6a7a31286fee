//! A report as Markdown.

use std::io;

use super::{Render, Report};

/// Renders GitHub's Markdown.
#[derive(Debug, Default)]
pub struct Markdown;

impl Render for Markdown {
    fn render(&self, report: &Report, out: &mut dyn io::Write) -> io::Result<()> {
        if !report.title.is_empty() {
            writeln!(out, "# {}\n", escape(&report.title))?;
        }
        for section in &report.sections {
            if !section.heading.is_empty() {
                writeln!(out, "## {}\n", escape(&section.heading))?;
            }
            for line in &section.text {
                writeln!(out, "{}\n", escape(line))?;
            }
            if let Some(table) = &section.table {
                let names: Vec<_> = table.columns.iter().map(|c| escape(&c.name)).collect();
                writeln!(out, "| {} |", names.join(" | "))?;
                let rules: Vec<_> =
                    table.columns.iter().map(|c| if c.right { "--:" } else { "---" }).collect();
                writeln!(out, "| {} |", rules.join(" | "))?;
                for row in &table.rows {
                    let cells: Vec<_> = row.iter().map(|cell| escape(cell)).collect();
                    writeln!(out, "| {} |", cells.join(" | "))?;
                }
                writeln!(out)?;
            }
            for line in &section.notes {
                writeln!(out, "{}\n", escape(line))?;
            }
        }
        Ok(())
    }
}

/// The text so that Markdown shows it as it stands, on one line.
pub fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\\' | '`' | '*' | '_' | '[' | ']' | '<' | '>' | '|' | '#' | '~' => {
                escaped.push('\\');
                escaped.push(c);
            }
            c if c.is_control() => escaped.push(' '),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markup_in_a_name_is_shown_and_not_obeyed() {
        assert_eq!(escape("a|b <img> [x](y)\nz"), "a\\|b \\<img\\> \\[x\\](y) z");
    }
}
