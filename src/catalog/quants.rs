//! Published facts about quantisations: block layouts, effective bits per weight, loss of quality.

use std::sync::LazyLock;

use serde::Deserialize;

/// One published fact about a quantisation.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct QuantFact {
    /// Its name.
    pub id: String,
    /// What it belongs to: GGUF tensor or file type, MLX, AWQ, GPTQ …
    pub family: String,
    /// `block layout`, `mixed file type`, `measured file`, `group quant` or the name of a test.
    pub kind: String,
    /// Bytes in one block.
    pub bytes_per_block: Option<u64>,
    /// Weights in one block.
    pub weights_per_block: Option<u64>,
    /// Bits per weight that follow from the layout.
    pub bpw_exact: Option<f64>,
    /// Bits per weight of a whole file.
    pub bpw_effective: Option<f64>,
    /// Size of Llama 3.1 8B in GiB.
    pub size_gib_llama31_8b: Option<f64>,
    /// Loss of perplexity of Llama 3 8B against F16.
    pub ppl_delta_llama3_8b: Option<f64>,
    /// Loss of perplexity of Llama 3 70B in per cent.
    pub ppl_pct_llama3_70b: Option<f64>,
    /// Anything else worth knowing.
    pub notes: String,
    /// Where it was read.
    pub source: String,
}

/// Every fact, in the order of `quants.csv`.
pub fn all() -> &'static [QuantFact] {
    static FACTS: LazyLock<Vec<QuantFact>> = LazyLock::new(|| {
        read(include_str!("quants.csv"))
            .expect("the embedded quants.csv is checked by a test of this module")
    });
    &FACTS
}

fn read(text: &str) -> anyhow::Result<Vec<QuantFact>> {
    super::rows("quants.csv", text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fact_has_a_source() {
        assert!(all().len() > 100);
        for fact in all() {
            assert!(!fact.source.is_empty(), "{}", fact.id);
        }
    }
}
