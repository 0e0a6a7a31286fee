//! Facts about hardware, models, quantisations and prices, each with its source and date.

pub mod cloud_prices;
pub mod electricity;
pub mod hardware;
pub mod identify;
pub mod models;
pub mod own;
pub mod published;
pub mod quants;
pub mod serving;

use anyhow::Context;
use serde::de::DeserializeOwned;

/// The rows of a CSV file with a header; an error names the file, as `name`, and the line.
pub fn rows<T: DeserializeOwned>(name: &str, text: &str) -> anyhow::Result<Vec<T>> {
    csv::Reader::from_reader(text.as_bytes())
        .into_deserialize()
        .enumerate()
        .map(|(i, row)| row.with_context(|| format!("{name}:{}", i + 2)))
        .collect()
}

/// The candidates that are spelt most like `word`, or have most of its parts, best first, at most
/// three; none that is far off.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    let word = word.to_lowercase();
    let mut scored: Vec<(f64, &str)> = candidates
        .into_iter()
        .map(|c| (likeness(&word, &c.to_lowercase()), c))
        .filter(|(score, _)| *score > 0.8)
        .collect();
    scored.sort_by(|a, b| b.0.total_cmp(&a.0));
    scored.truncate(3);
    scored.into_iter().map(|(_, c)| c).collect()
}

/// 0 to 1, by spelling; or by the parts of `word` that `candidate` has too, where these are most of
/// them: `m4-max-128gb` is like `apple-m4-max`.
fn likeness(word: &str, candidate: &str) -> f64 {
    let is_end = |c: char| !c.is_alphanumeric();
    let known: Vec<&str> = candidate.split(is_end).collect();
    let shared = word.split(is_end).filter(|part| known.contains(part)).count();
    let share = shared as f64 / word.split(is_end).count() as f64;
    let by_parts = if share > 0.5 { 0.7 + 0.3 * share } else { 0.0 };
    strsim::jaro_winkler(word, candidate).max(by_parts)
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn a_name_is_found_by_its_spelling_or_by_its_parts() {
        let known = ["rtx-5090", "rtx-5090-laptop", "apple-m4-max", "apple-m4"];
        assert_eq!(nearest("rtx-5099", known)[0], "rtx-5090");
        assert_eq!(nearest("NVIDIA RTX 5090", known)[0], "rtx-5090");
        assert_eq!(nearest("m4-max-128gb", known)[0], "apple-m4-max");
        assert!(nearest("abacus", known).is_empty());
    }
}
