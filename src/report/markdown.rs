//! A report as Markdown.

use std::io;

use super::{Headline, Render, Report, Table};

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
                let level = if section.is_part { "###" } else { "##" };
                writeln!(out, "{level} {}\n", escape(&section.heading))?;
            }
            headlines(&section.headlines, out)?;
            for line in &section.text {
                writeln!(out, "{}\n", escape(line))?;
            }
            for figure in &section.figures {
                let (title, name) = (escape(figure.plot.title()), &figure.name);
                writeln!(out, "![{title}](charts/{name}.svg)\n")?;
                if let Some(note) = &figure.note {
                    writeln!(out, "{}\n", escape(note))?;
                }
            }
            if let Some(explorer) = &section.explorer {
                writeln!(out, "{}\n", escape(&explorer.sentence()))?;
                table(&explorer.values(), out)?;
                writeln!(out, "Break-even by price of electricity and hardware:\n")?;
                table(&explorer.prices(), out)?;
            }
            if let Some(table) = &section.table {
                self::table(table, out)?;
            }
            if !section.commands.is_empty() {
                // Indented, so that nothing in a line can end the block.
                for line in section.commands.iter().flat_map(|command| command.lines()) {
                    writeln!(out, "    {}", line.replace(char::is_control, " "))?;
                }
                writeln!(out)?;
            }
            if let Some(download) = &section.download {
                writeln!(out, "[{}]({})\n", escape(&download.label), download.name)?;
            }
            for line in &section.notes {
                writeln!(out, "{}\n", escape(line))?;
            }
        }
        Ok(())
    }
}

fn headlines(headlines: &[Headline], out: &mut dyn io::Write) -> io::Result<()> {
    for headline in headlines {
        let mut facts = vec![];
        facts.extend(headline.interval.clone());
        facts.extend(headline.detail.iter().cloned());
        facts.extend(headline.origin.map(|origin| origin.to_string()));
        facts.extend(headline.marks.as_ref().map(|marks| format!("marked: {marks}")));
        writeln!(
            out,
            "- **{}: {}** ({})",
            escape(&headline.label),
            escape(&headline.value),
            escape(&facts.join("; "))
        )?;
    }
    if headlines.is_empty() { Ok(()) } else { writeln!(out) }
}

fn table(table: &Table, out: &mut dyn io::Write) -> io::Result<()> {
    if let Some(caption) = &table.caption {
        writeln!(out, "{}\n", escape(caption))?;
    }
    let names: Vec<_> = table.columns.iter().map(|c| escape(&c.name)).collect();
    writeln!(out, "| {} |", names.join(" | "))?;
    let rules: Vec<_> = table.columns.iter().map(|c| if c.right { "--:" } else { "---" }).collect();
    writeln!(out, "| {} |", rules.join(" | "))?;
    for row in &table.rows {
        let cells: Vec<_> = row.iter().map(|cell| escape(&cell.words())).collect();
        writeln!(out, "| {} |", cells.join(" | "))?;
    }
    writeln!(out)
}

/// The text so that Markdown shows it as it stands, on one line.
pub fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\\' | '`' | '*' | '_' | '[' | ']' | '<' | '>' | '|' | '#' | '~' | '&' | '!' => {
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
