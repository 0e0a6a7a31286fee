use std::io::Cursor;
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::*;
use crate::catalog::models::{Arch, ModelSpec};
use crate::model::gguf::{encode, encoded_len};
use crate::model::quant::Quant;
use crate::model::{arch, tensors};

/// A whole small file whose data is zeros.
fn small_file() -> Vec<u8> {
    let spec = ModelSpec::tiny(Arch::Qwen3);
    let mut metadata = arch::metadata(&spec, Quant::Q4KM);
    let tokens = (0..spec.vocab).map(|i| format!("token {i}")).collect();
    metadata.push(("tokenizer.ggml.tokens".into(), Value::Array(Array::String(tokens))));
    metadata.push(("flags".into(), Value::Array(Array::Bool(vec![true, false]))));
    let tensors = tensors(&spec, Quant::Q4KM).unwrap();
    let mut bytes = encode(&metadata, &tensors);
    bytes.resize(encoded_len(&bytes, &tensors) as usize, 0);
    bytes
}

fn error_of(bytes: &[u8]) -> String {
    format!("{:#}", Header::read_from(Cursor::new(bytes)).unwrap_err())
}

/// A file with one key and one tensor, whose parts a test can choose.
fn one_tensor(key: &str, dims: &[u64], kind: u32, offset: u64) -> Vec<u8> {
    let mut out = b"GGUF".to_vec();
    out.extend(3u32.to_le_bytes());
    out.extend(1u64.to_le_bytes());
    out.extend(1u64.to_le_bytes());
    out.extend((key.len() as u64).to_le_bytes());
    out.extend(key.as_bytes());
    out.extend(4u32.to_le_bytes());
    out.extend(32u32.to_le_bytes());
    out.extend(1u64.to_le_bytes());
    out.extend(b"t");
    out.extend((dims.len() as u32).to_le_bytes());
    dims.iter().for_each(|d| out.extend(d.to_le_bytes()));
    out.extend(kind.to_le_bytes());
    out.extend(offset.to_le_bytes());
    out.resize(4096, 0);
    out
}

#[test]
fn a_written_header_is_read_back_whole() {
    let spec = ModelSpec::tiny(Arch::Qwen3);
    let header = Header::read_from(Cursor::new(small_file())).unwrap();
    assert_eq!(header.architecture(), Some("qwen3"));
    assert_eq!(header.vocab(), Some(1024));
    assert_eq!(header.of_arch("block_count").and_then(Value::as_u64), Some(2));
    assert_eq!(header.get("flags").unwrap().of_layer(0), Some(1));
    let expected = tensors(&spec, Quant::Q4KM).unwrap();
    let read: Vec<_> = header.tensors.iter().map(|t| t.tensor.clone()).collect();
    assert_eq!(read, expected);
    assert_eq!(header.parameters(), arch::parameters(&spec).unwrap());
}

#[test]
fn what_is_no_gguf_file_is_refused_at_byte_0() {
    assert!(
        error_of(b"PK\x03\x04 and so on").contains("byte 0"),
        "{}",
        error_of(b"PK\x03\x04....")
    );
    assert!(error_of(b"").contains("byte 0"));
    let mut swapped = small_file();
    swapped[4..8].copy_from_slice(&3u32.to_be_bytes());
    assert!(error_of(&swapped).contains("big-endian"), "{}", error_of(&swapped));
}

#[test]
fn hostile_counts_are_refused_before_anything_is_allocated() {
    let mut bytes = small_file();
    bytes[8..16].copy_from_slice(&u64::MAX.to_le_bytes());
    assert!(error_of(&bytes).contains("byte 8"), "{}", error_of(&bytes));
    let mut bytes = one_tensor("k", &[32], 0, 0);
    bytes[24..32].copy_from_slice(&(1u64 << 60).to_le_bytes());
    assert!(error_of(&bytes).contains("byte 24"), "{}", error_of(&bytes));
}

#[test]
fn impossible_tensors_are_refused_with_the_byte() {
    let ok = one_tensor("k", &[32], 0, 0);
    assert!(Header::read_from(Cursor::new(ok)).is_ok());
    for (bytes, word) in [
        (one_tensor("k", &[0], 0, 0), "size of 0"),
        (one_tensor("k", &[], 0, 0), "0 sizes"),
        (one_tensor("k", &[1; 5], 0, 0), "5 sizes"),
        (one_tensor("k", &[1 << 40, 1 << 40], 0, 0), "nothing can hold"),
        (one_tensor("k", &[32], 999, 0), "type 999"),
        (one_tensor("k", &[31], 2, 0), "no whole blocks"),
        (one_tensor("k", &[32], 0, 8), "alignment"),
        (one_tensor("k", &[32], 0, u64::MAX - 31), "offset"),
        (one_tensor("k", &[1 << 20], 0, 0), "download it again"),
    ] {
        let message = error_of(&bytes);
        assert!(message.contains(word) && message.contains("byte "), "{word}: {message}");
    }
}

#[test]
fn keys_and_tensors_that_stand_twice_are_refused() {
    let tensor = |name: &str| Tensor { name: name.into(), dims: vec![32], kind: TensorType::F32 };
    let twice = vec![("a".to_owned(), Value::U8(1)), ("a".to_owned(), Value::U8(2))];
    assert!(error_of(&encode(&twice, &[])).contains("key 'a' stands twice"));
    let mut bytes = encode(&[], &[tensor("t"), tensor("t")]);
    bytes.resize(bytes.len() + 256, 0);
    assert!(error_of(&bytes).contains("tensor 't' stands twice"));
}

#[test]
fn a_bad_alignment_is_refused() {
    for bad in [Value::U32(0), Value::U32(48), Value::U64(32)] {
        let bytes = encode(&[("general.alignment".to_owned(), bad)], &[]);
        assert!(error_of(&bytes).contains("power of two"), "{}", error_of(&bytes));
    }
}

#[test]
fn overlapping_tensors_are_refused() {
    let tensor = |name: &str| Tensor { name: name.into(), dims: vec![32], kind: TensorType::F32 };
    let mut bytes = encode(&[], &[tensor("t"), tensor("u")]);
    // the second tensor's offset is the last number of the header
    let at = bytes.windows(8).rposition(|w| w == 128u64.to_le_bytes()).unwrap();
    bytes[at..at + 8].copy_from_slice(&64u64.to_le_bytes());
    bytes.resize(bytes.len() + 256, 0);
    assert!(error_of(&bytes).contains("overlap"), "{}", error_of(&bytes));
}

#[test]
fn a_split_file_is_read_as_one() {
    let dir = tempfile::tempdir().unwrap();
    let tensor = |name: &str| Tensor { name: name.into(), dims: vec![32], kind: TensorType::F32 };
    for (i, name) in ["a", "b", "c"].into_iter().enumerate() {
        let metadata = vec![
            ("split.no".to_owned(), Value::U16(i as u16)),
            ("split.count".to_owned(), Value::U16(3)),
            ("split.tensors.count".to_owned(), Value::I32(3)),
        ];
        let mut bytes = encode(&metadata, &[tensor(name)]);
        bytes.resize(bytes.len() + 128, 0);
        let path = dir.path().join(format!("m-0000{}-of-00003.gguf", i + 1));
        std::fs::write(path, bytes).unwrap();
    }
    for start in ["m-00001-of-00003.gguf", "m-00002-of-00003.gguf"] {
        let header = Header::read(&dir.path().join(start)).unwrap();
        let names: Vec<_> = header.tensors.iter().map(|t| t.tensor.name.as_str()).collect();
        assert_eq!(names, ["a", "b", "c"]);
        assert_eq!(header.tensors[2].file, 2);
        assert_eq!(header.files.len(), 3);
    }
    std::fs::rename(dir.path().join("m-00001-of-00003.gguf"), dir.path().join("x.gguf")).unwrap();
    let message = format!("{:#}", Header::read(&dir.path().join("x.gguf")).unwrap_err());
    assert!(message.contains("rename it"), "{message}");
}

#[test]
fn the_header_of_a_400_gb_model_is_read_in_milliseconds() {
    let spec = crate::catalog::models::find("deepseek-v3").unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("deepseek.gguf");
    let mut metadata = arch::metadata(spec, Quant::Q4KM);
    let words = |n: u32| Value::Array(Array::String((0..n).map(|i| format!("w{i}")).collect()));
    metadata.push(("tokenizer.ggml.tokens".into(), words(spec.vocab)));
    metadata.push(("tokenizer.ggml.merges".into(), words(spec.vocab)));
    let tensors = tensors(spec, Quant::Q4KM).unwrap();
    let bytes = encode(&metadata, &tensors);
    std::fs::write(&path, &bytes).unwrap();
    // a sparse file: as long as the model, and on disk only its header
    let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.set_len(encoded_len(&bytes, &tensors)).unwrap();
    let fastest = (0..5)
        .map(|_| {
            let start = Instant::now();
            let header = Header::read(&path).unwrap();
            assert!(header.file_bytes.gib() > 370.0, "{}", header.file_bytes);
            start.elapsed()
        })
        .min()
        .unwrap();
    // 10 ms when optimised; a test without optimisation gets more room
    let limit = if cfg!(debug_assertions) { 400 } else { 10 };
    assert!(fastest < Duration::from_millis(limit), "{fastest:?}");
}

proptest! {
    /// No file makes the reader panic or allocate more than the file's size.
    #[test]
    fn mutated_files_are_read_or_refused(
        changes in prop::collection::vec((0usize..40_000, any::<u8>()), 1..8),
        cut in prop::option::of(0usize..40_000),
    ) {
        let mut bytes = small_file();
        for (at, byte) in changes {
            let len = bytes.len();
            bytes[at % len] = byte;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut);
        }
        let _ = Header::read_from(Cursor::new(bytes));
    }

    /// Whole numbers are what attackers change: lengths, counts, offsets.
    #[test]
    fn mutated_numbers_are_read_or_refused(at in 0usize..40_000, number in any::<u64>()) {
        let mut bytes = small_file();
        let at = at % (bytes.len() - 8);
        bytes[at..at + 8].copy_from_slice(&number.to_le_bytes());
        let _ = Header::read_from(Cursor::new(bytes));
    }
}
