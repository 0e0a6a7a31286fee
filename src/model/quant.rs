//! Quantisations: the block layout of each tensor type, and the mixed types that files are named by.

use std::fmt;
use std::str::FromStr;

use anyhow::bail;

use crate::catalog::nearest;

/// How one tensor is stored, with ggml's number and name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs, reason = "these are ggml's own names")]
pub enum TensorType {
    F32,
    F16,
    BF16,
    F64,
    Q1_0,
    Q2_0,
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q8_0,
    Q8_1,
    Q2K,
    Q3K,
    Q4K,
    Q5K,
    Q6K,
    Q8K,
    Iq2Xxs,
    Iq2Xs,
    Iq2S,
    Iq3Xxs,
    Iq3S,
    Iq1S,
    Iq1M,
    Iq4Nl,
    Iq4Xs,
    Tq1_0,
    Tq2_0,
    Mxfp4,
    Nvfp4,
    I8,
    I16,
    I32,
    I64,
}

/// Type, ggml's number, ggml's name, bytes and weights of a block.
/// Numbers and names: `enum ggml_type` and `type_traits` of ggml; sizes: `ggml-common.h`.
const LAYOUTS: [(TensorType, u32, &str, u32, u32); 35] = [
    (TensorType::F32, 0, "F32", 4, 1),
    (TensorType::F16, 1, "F16", 2, 1),
    (TensorType::BF16, 30, "BF16", 2, 1),
    (TensorType::F64, 28, "F64", 8, 1),
    (TensorType::Q1_0, 41, "Q1_0", 18, 128),
    (TensorType::Q2_0, 42, "Q2_0", 18, 64),
    (TensorType::Q4_0, 2, "Q4_0", 18, 32),
    (TensorType::Q4_1, 3, "Q4_1", 20, 32),
    (TensorType::Q5_0, 6, "Q5_0", 22, 32),
    (TensorType::Q5_1, 7, "Q5_1", 24, 32),
    (TensorType::Q8_0, 8, "Q8_0", 34, 32),
    (TensorType::Q8_1, 9, "Q8_1", 36, 32),
    (TensorType::Q2K, 10, "Q2_K", 84, 256),
    (TensorType::Q3K, 11, "Q3_K", 110, 256),
    (TensorType::Q4K, 12, "Q4_K", 144, 256),
    (TensorType::Q5K, 13, "Q5_K", 176, 256),
    (TensorType::Q6K, 14, "Q6_K", 210, 256),
    (TensorType::Q8K, 15, "Q8_K", 292, 256),
    (TensorType::Iq2Xxs, 16, "IQ2_XXS", 66, 256),
    (TensorType::Iq2Xs, 17, "IQ2_XS", 74, 256),
    (TensorType::Iq2S, 22, "IQ2_S", 82, 256),
    (TensorType::Iq3Xxs, 18, "IQ3_XXS", 98, 256),
    (TensorType::Iq3S, 21, "IQ3_S", 110, 256),
    (TensorType::Iq1S, 19, "IQ1_S", 50, 256),
    (TensorType::Iq1M, 29, "IQ1_M", 56, 256),
    (TensorType::Iq4Nl, 20, "IQ4_NL", 18, 32),
    (TensorType::Iq4Xs, 23, "IQ4_XS", 136, 256),
    (TensorType::Tq1_0, 34, "TQ1_0", 54, 256),
    (TensorType::Tq2_0, 35, "TQ2_0", 66, 256),
    (TensorType::Mxfp4, 39, "MXFP4", 17, 32),
    (TensorType::Nvfp4, 40, "NVFP4", 36, 64),
    (TensorType::I8, 24, "I8", 1, 1),
    (TensorType::I16, 25, "I16", 2, 1),
    (TensorType::I32, 26, "I32", 4, 1),
    (TensorType::I64, 27, "I64", 8, 1),
];

impl TensorType {
    /// Every type that a file can hold.
    pub fn all() -> impl Iterator<Item = Self> {
        LAYOUTS.iter().map(|l| l.0)
    }

    fn layout(self) -> &'static (Self, u32, &'static str, u32, u32) {
        // The table is in the order of the enum: a test.
        &LAYOUTS[self as usize]
    }

    /// ggml's number for it, as GGUF files store it.
    pub fn code(self) -> u32 {
        self.layout().1
    }

    /// The type with ggml's number `code`.
    pub fn from_code(code: u32) -> Option<Self> {
        LAYOUTS.iter().find(|l| l.1 == code).map(|l| l.0)
    }

    /// ggml's name for it.
    pub fn name(self) -> &'static str {
        self.layout().2
    }

    /// Bytes in one block.
    pub fn block_bytes(self) -> u64 {
        u64::from(self.layout().3)
    }

    /// Weights in one block; a row is a whole number of blocks.
    pub fn block_weights(self) -> u64 {
        u64::from(self.layout().4)
    }

    /// Whether weights share a scale, so that they must be dequantised.
    pub fn is_quantised(self) -> bool {
        self.block_weights() > 1
    }
}

impl fmt::Display for TensorType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// What a model file is quantised to: the word in its name. Its tensors have several types.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs, reason = "these are llama.cpp's own names")]
pub enum Quant {
    F16,
    BF16,
    Q8_0,
    Q6K,
    Q5KM,
    Q4KM,
    Q4_0,
    Q3KM,
    Q2K,
    Iq4Xs,
    Mxfp4,
}

impl Quant {
    /// Every quantisation for which recipes are known.
    pub const ALL: [Self; 11] = [
        Self::F16,
        Self::BF16,
        Self::Q8_0,
        Self::Q6K,
        Self::Q5KM,
        Self::Q4KM,
        Self::Q4_0,
        Self::Q3KM,
        Self::Q2K,
        Self::Iq4Xs,
        Self::Mxfp4,
    ];

    /// The word in file names, scenarios and flags.
    pub fn name(self) -> &'static str {
        match self {
            Self::F16 => "F16",
            Self::BF16 => "BF16",
            Self::Q8_0 => "Q8_0",
            Self::Q6K => "Q6_K",
            Self::Q5KM => "Q5_K_M",
            Self::Q4KM => "Q4_K_M",
            Self::Q4_0 => "Q4_0",
            Self::Q3KM => "Q3_K_M",
            Self::Q2K => "Q2_K",
            Self::Iq4Xs => "IQ4_XS",
            Self::Mxfp4 => "MXFP4",
        }
    }

    /// llama.cpp's `llama_ftype`, the value of `general.file_type`.
    pub fn file_type(self) -> u32 {
        match self {
            Self::F16 => 1,
            Self::Q4_0 => 2,
            Self::Q8_0 => 7,
            Self::Q2K => 10,
            Self::Q3KM => 12,
            Self::Q4KM => 15,
            Self::Q5KM => 17,
            Self::Q6K => 18,
            Self::Iq4Xs => 30,
            Self::BF16 => 32,
            Self::Mxfp4 => 38,
        }
    }

    /// The type that most of its tensors have.
    pub fn main_type(self) -> TensorType {
        match self {
            Self::F16 => TensorType::F16,
            Self::BF16 => TensorType::BF16,
            Self::Q8_0 => TensorType::Q8_0,
            Self::Q6K => TensorType::Q6K,
            Self::Q5KM => TensorType::Q5K,
            Self::Q4KM => TensorType::Q4K,
            Self::Q4_0 => TensorType::Q4_0,
            Self::Q3KM => TensorType::Q3K,
            Self::Q2K => TensorType::Q2K,
            Self::Iq4Xs => TensorType::Iq4Xs,
            Self::Mxfp4 => TensorType::Mxfp4,
        }
    }
}

impl fmt::Display for Quant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Quant {
    type Err = anyhow::Error;

    fn from_str(word: &str) -> anyhow::Result<Self> {
        if let Some(quant) = Self::ALL.into_iter().find(|q| q.name().eq_ignore_ascii_case(word)) {
            return Ok(quant);
        }
        match nearest(word, Self::ALL.map(Self::name)).first() {
            Some(near) => bail!("unknown quantisation '{word}'; did you mean '{near}'?"),
            None => bail!(
                "unknown quantisation '{word}'; use one of {}",
                Self::ALL.map(Self::name).join(", ")
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::quants;

    #[test]
    fn every_type_has_a_layout_and_its_code_leads_back() {
        for t in TensorType::all() {
            assert_eq!(TensorType::from_code(t.code()), Some(t));
            assert_eq!(t.layout().0, t);
        }
    }

    #[test]
    fn block_layouts_agree_with_the_sourced_facts() {
        let mut compared = 0;
        for row in quants::all().iter().filter(|r| r.kind == "block layout") {
            let Some(t) = TensorType::all().find(|t| t.name() == row.id) else { continue };
            let (Some(bytes), Some(weights)) = (row.bytes_per_block, row.weights_per_block) else {
                continue;
            };
            // ggml stores NVFP4 in blocks of four of the published groups
            assert_eq!(t.block_bytes() * weights, bytes * t.block_weights(), "{}", row.id);
            compared += 1;
        }
        assert!(compared >= 25, "{compared}");
    }

    #[test]
    fn a_misspelt_quantisation_is_met_with_the_nearest() {
        let message = "Q4_KM".parse::<Quant>().unwrap_err().to_string();
        assert!(message.contains("did you mean 'Q4_K_M'"), "{message}");
        assert_eq!("q4_k_m".parse::<Quant>().unwrap(), Quant::Q4KM);
    }
}
