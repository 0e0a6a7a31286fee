//! Fills the marked tables of a document.

use std::path::Path;

use anyhow::Context;

use crate::report::markdown::Markdown;
use crate::report::{Render, results};

use super::read_folder;

/// The document with every marked table made anew.
pub fn splice(text: &str, path: &Path) -> anyhow::Result<String> {
    const OPEN: &str = "<!-- bench report ";
    const CLOSE: &str = "<!-- /bench report -->";
    let beside = path.parent().unwrap_or(Path::new("."));
    let mut spliced = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(OPEN) {
        let line = 1 + text[..text.len() - rest.len() + at].matches('\n').count();
        let place = || format!("{}:{line}", path.display());
        let (before, marked) = rest.split_at(at);
        let (folder, _) = marked[OPEN.len()..]
            .split_once(" -->")
            .with_context(|| format!("{}: a marker without '-->'", place()))?;
        let (_, after) = marked
            .split_once(CLOSE)
            .with_context(|| format!("{}: no '{CLOSE}' follows the marker", place()))?;
        let records = read_folder(&beside.join(folder)).with_context(place)?;
        let mut table = Vec::new();
        Markdown.render(&results::report("", &records), &mut table)?;
        // A document's own headings stay above those of its tables.
        let table =
            String::from_utf8(table).context("the table is no text")?.replace("## ", "#### ");
        spliced.push_str(&format!("{before}{OPEN}{folder} -->\n\n{}\n\n{CLOSE}", table.trim()));
        rest = after;
    }
    spliced.push_str(rest);
    Ok(spliced)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tables_of_the_readme_are_those_of_its_results() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        for name in ["README.md", "reports/METHODOLOGY.md"] {
            let path = root.join(name);
            let text = std::fs::read_to_string(&path).unwrap();
            assert_eq!(splice(&text, &path).unwrap(), text, "type: bench report --splice {name}");
        }
    }

    #[test]
    fn a_marker_without_an_end_or_a_folder_is_an_error_with_its_line() {
        let path = Path::new("doc.md");
        let error = splice("one\ntwo <!-- bench report x -->\n", path).unwrap_err();
        assert!(error.to_string().starts_with("doc.md:2: no '<!-- /bench report -->'"), "{error}");
        let text = "<!-- bench report nowhere -->\n<!-- /bench report -->";
        let error = format!("{:#}", splice(text, path).unwrap_err());
        assert!(error.contains("doc.md:1") && error.contains("records.csv"), "{error}");
    }
}
