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

/// The candidates that are spelt most like `word`, best first, at most three; none that is far off.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    let word = word.to_lowercase();
    let mut scored: Vec<(f64, &str)> = candidates
        .into_iter()
        .map(|c| (strsim::jaro_winkler(&word, &c.to_lowercase()), c))
        .filter(|(score, _)| *score > 0.8)
        .collect();
    scored.sort_by(|a, b| b.0.total_cmp(&a.0));
    scored.truncate(3);
    scored.into_iter().map(|(_, c)| c).collect()
}
