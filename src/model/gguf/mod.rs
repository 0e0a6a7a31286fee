//! GGUF files: what a header says, and how it is read and written.
//!
//! Format: <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>.

mod read;
mod write;

use std::path::PathBuf;

use crate::units::Bytes;

use super::Tensor;

pub use write::{encode, encoded_len};

/// Tensors start at multiples of this, unless `general.alignment` says otherwise.
pub const ALIGNMENT: u64 = 32;

/// A metadata value.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs, reason = "the variants are the format's value types")]
pub enum Value {
    U8(u8),
    I8(i8),
    U16(u16),
    I16(i16),
    U32(u32),
    I32(i32),
    F32(f32),
    Bool(bool),
    String(String),
    Array(Array),
    U64(u64),
    I64(i64),
    F64(f64),
}

/// An array of metadata values.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs, reason = "the variants are the format's value types")]
pub enum Array {
    Bool(Vec<bool>),
    U32(Vec<u32>),
    I32(Vec<i32>),
    F32(Vec<f32>),
    String(Vec<String>),
    /// An array that the reader passed over because nobody asks for its values: its length.
    Skipped(u64),
}

impl Array {
    /// Values in it.
    pub fn len(&self) -> u64 {
        match self {
            Self::Bool(v) => v.len() as u64,
            Self::U32(v) => v.len() as u64,
            Self::I32(v) => v.len() as u64,
            Self::F32(v) => v.len() as u64,
            Self::String(v) => v.len() as u64,
            Self::Skipped(n) => *n,
        }
    }

    /// Whether it has no values.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Value {
    /// This value as a whole number, if it is one and not negative.
    pub fn as_u64(&self) -> Option<u64> {
        match *self {
            Self::U8(v) => Some(v.into()),
            Self::U16(v) => Some(v.into()),
            Self::U32(v) => Some(v.into()),
            Self::U64(v) => Some(v),
            Self::I8(v) => v.try_into().ok(),
            Self::I16(v) => v.try_into().ok(),
            Self::I32(v) => v.try_into().ok(),
            Self::I64(v) => v.try_into().ok(),
            _ => None,
        }
    }

    /// This value as a number.
    pub fn as_f64(&self) -> Option<f64> {
        match *self {
            Self::F32(v) => Some(v.into()),
            Self::F64(v) => Some(v),
            _ => self.as_u64().map(|v| v as f64),
        }
    }

    /// This value as text, if it is text.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::String(text) => Some(text),
            _ => None,
        }
    }

    /// This value for layer `il`: an array's element, or the one number for all layers.
    pub fn of_layer(&self, il: u32) -> Option<u64> {
        let il = il as usize;
        match self {
            Self::Array(Array::U32(v)) => v.get(il).map(|&v| v.into()),
            Self::Array(Array::I32(v)) => v.get(il).and_then(|&v| v.try_into().ok()),
            Self::Array(Array::Bool(v)) => v.get(il).map(|&v| v.into()),
            Self::Array(_) => None,
            value => value.as_u64(),
        }
    }
}

/// A tensor and where its data lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorInfo {
    /// Name, sizes and type.
    pub tensor: Tensor,
    /// Which of [`Header::files`] it lies in.
    pub file: usize,
    /// Where its data starts in that file.
    pub offset: u64,
}

/// What the header of a model file says, of all its parts when it is split.
#[derive(Clone, Debug, PartialEq)]
pub struct Header {
    /// The files, one unless it is split.
    pub files: Vec<PathBuf>,
    /// The size of all files.
    pub file_bytes: Bytes,
    /// Keys and values of the first file, in its order.
    pub metadata: Vec<(String, Value)>,
    /// Every tensor, in the order of the files.
    pub tensors: Vec<TensorInfo>,
}

impl Header {
    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.metadata.iter().find(|(k, _)| k == key).map(|(_, v)| v)
    }

    /// `general.architecture`.
    pub fn architecture(&self) -> Option<&str> {
        self.get("general.architecture")?.as_str()
    }

    /// The value of a key that begins with the architecture's name: `block_count`.
    pub fn of_arch(&self, key: &str) -> Option<&Value> {
        self.get(&format!("{}.{key}", self.architecture()?))
    }

    /// Tokens in the vocabulary.
    pub fn vocab(&self) -> Option<u64> {
        match self.get("tokenizer.ggml.tokens") {
            Some(Value::Array(tokens)) => Some(tokens.len()),
            _ => self.of_arch("vocab_size")?.as_u64(),
        }
    }

    /// Weights in all tensors.
    pub fn parameters(&self) -> u64 {
        self.tensors.iter().map(|t| t.tensor.elements()).sum()
    }

    /// Bytes of all tensors, without header and padding.
    pub fn weight_bytes(&self) -> Bytes {
        Bytes(self.tensors.iter().map(|t| t.tensor.bytes()).sum())
    }
}
