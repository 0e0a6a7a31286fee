//! The header of a safetensors file: which tensor lies where.

use anyhow::Context;
use serde_json::{Map, json};

/// Data begin at a multiple of this.
const ALIGNMENT: usize = 8;

/// An element type, by the name that the format gives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dtype {
    /// 16-bit float.
    F16,
    /// 16-bit float with the exponent of a 32-bit one.
    BF16,
    /// Packed weights, 32 bits at a time.
    U32,
}

impl Dtype {
    fn name(self) -> &'static str {
        match self {
            Self::F16 => "F16",
            Self::BF16 => "BF16",
            Self::U32 => "U32",
        }
    }

    /// Bytes of one element.
    pub fn bytes(self) -> u64 {
        match self {
            Self::F16 | Self::BF16 => 2,
            Self::U32 => 4,
        }
    }
}

/// A tensor of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its name.
    pub name: String,
    /// Its elements' type.
    pub dtype: Dtype,
    /// Sizes, the contiguous one last.
    pub shape: Vec<u64>,
}

impl Entry {
    /// Bytes of its data.
    pub fn bytes(&self) -> u64 {
        self.shape.iter().product::<u64>() * self.dtype.bytes()
    }
}

/// The header of a file whose data are those of `entries`, in their order and without gaps.
///
/// The format: <https://github.com/huggingface/safetensors#format>, a length in 8 bytes, JSON,
/// padding of spaces.
pub fn encode(entries: &[Entry]) -> anyhow::Result<Vec<u8>> {
    let mut table = Map::new();
    // Loaders look here for the framework that wrote the file.
    table.insert("__metadata__".to_owned(), json!({"format": "mlx"}));
    let mut at = 0;
    for entry in entries {
        let end = at + entry.bytes();
        let place = json!({
            "dtype": entry.dtype.name(), "shape": entry.shape, "data_offsets": [at, end],
        });
        table.insert(entry.name.clone(), place);
        at = end;
    }
    let mut text = serde_json::to_vec(&table).context("cannot encode a header")?;
    text.resize(text.len().next_multiple_of(ALIGNMENT), b' ');
    let mut header = (text.len() as u64).to_le_bytes().to_vec();
    header.extend(text);
    Ok(header)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tensors_lie_one_after_the_other_behind_an_aligned_header() {
        let entry = |name: &str, dtype, shape: &[u64]| Entry {
            name: name.to_owned(),
            dtype,
            shape: shape.to_vec(),
        };
        let header =
            encode(&[entry("a", Dtype::F16, &[3, 2]), entry("b", Dtype::U32, &[5])]).unwrap();
        let length = u64::from_le_bytes(header[..8].try_into().unwrap());
        assert_eq!(header.len() as u64, 8 + length);
        assert_eq!(length % 8, 0);
        let table: serde_json::Value = serde_json::from_slice(&header[8..]).unwrap();
        assert_eq!(table["a"]["data_offsets"], json!([0, 12]));
        assert_eq!(table["b"]["data_offsets"], json!([12, 32]));
        assert_eq!(table["b"]["dtype"], "U32");
    }
}
