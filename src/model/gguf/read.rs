//! Reading headers of files from strangers: every claim is checked before it is believed.

use std::collections::HashSet;
use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, bail, ensure};

use super::{ALIGNMENT, Array, Header, TensorInfo, Value};
use crate::model::Tensor;
use crate::model::quant::TensorType;
use crate::units::Bytes;

/// Arrays of numbers up to this length are kept: no model has more layers.
const KEPT_ARRAY: u64 = 4096;
/// The format's limit for keys.
const LONGEST_KEY: u64 = 65_535;
/// `GGML_MAX_DIMS`.
const MOST_DIMS: u32 = 4;
/// A key (length 8 + 1), its type and a value of one byte.
const SMALLEST_ENTRY: u64 = 14;
/// A name (length 8 + 1), number of sizes, one size, type, offset.
const SMALLEST_TENSOR: u64 = 33;

impl Header {
    /// Reads the header of a model file; of a split file (`…-00001-of-00003.gguf`) all parts.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let first = Part::open(path)?;
        let count = first.number("split.count").unwrap_or(1);
        if count <= 1 {
            return Ok(Self::join(vec![(path.to_owned(), first)]));
        }
        let number = first.number("split.no").unwrap_or(0);
        let mut parts = Vec::new();
        for (i, sibling) in siblings(path, number, count)?.into_iter().enumerate() {
            let part = if i as u64 == number { first.clone() } else { Part::open(&sibling)? };
            ensure!(
                part.number("split.no") == Some(i as u64),
                "{}: says that it is part {:?}, its name says {}; name the parts as they were made",
                sibling.display(),
                part.number("split.no"),
                i + 1
            );
            parts.push((sibling, part));
        }
        let header = Self::join(parts);
        if let Some(claimed) = header.get("split.tensors.count").and_then(Value::as_u64) {
            ensure!(
                claimed == header.tensors.len() as u64,
                "{}: all parts should have {claimed} tensors and have {}; a part is missing or foreign",
                path.display(),
                header.tensors.len()
            );
        }
        let mut names = HashSet::new();
        for info in &header.tensors {
            ensure!(
                names.insert(info.tensor.name.as_str()),
                "{}: tensor '{}' stands in two parts",
                path.display(),
                info.tensor.name
            );
        }
        Ok(header)
    }

    /// Reads a header from anything that can be read and sought; `len` is the whole file's length.
    pub fn read_from(reader: impl Read + Seek) -> anyhow::Result<Self> {
        Ok(Self::join(vec![(PathBuf::new(), Part::read(reader)?)]))
    }

    fn join(parts: Vec<(PathBuf, Part)>) -> Self {
        let mut header = Self {
            files: Vec::new(),
            file_bytes: Bytes(0),
            metadata: Vec::new(),
            tensors: Vec::new(),
        };
        for (file, (path, part)) in parts.into_iter().enumerate() {
            header.files.push(path);
            header.file_bytes.0 += part.len;
            if file == 0 {
                header.metadata = part.metadata;
            }
            let infos = part.tensors.into_iter();
            header.tensors.extend(infos.map(|(tensor, offset)| TensorInfo {
                tensor,
                file,
                offset,
            }));
        }
        header
    }
}

/// The paths of all parts, from the path of part `number`.
fn siblings(path: &Path, number: u64, count: u64) -> anyhow::Result<Vec<PathBuf>> {
    let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
    let suffix = format!("-{:05}-of-{count:05}.gguf", number + 1);
    let stem = name.strip_suffix(&suffix).with_context(|| {
        format!(
            "{}: is part {} of {count}, so its name must end with '{suffix}'; rename it",
            path.display(),
            number + 1
        )
    })?;
    ensure!(count <= 99_999, "{}: says that it has {count} parts", path.display());
    Ok((1..=count)
        .map(|i| path.with_file_name(format!("{stem}-{i:05}-of-{count:05}.gguf")))
        .collect())
}

/// One file's header.
#[derive(Clone, Debug)]
struct Part {
    len: u64,
    metadata: Vec<(String, Value)>,
    tensors: Vec<(Tensor, u64)>,
}

impl Part {
    fn open(path: &Path) -> anyhow::Result<Self> {
        let file = File::open(path).with_context(|| format!("{}", path.display()))?;
        Self::read(file).with_context(|| format!("{}", path.display()))
    }

    fn number(&self, key: &str) -> Option<u64> {
        self.metadata.iter().find(|(k, _)| k == key).and_then(|(_, v)| v.as_u64())
    }

    fn read(mut reader: impl Read + Seek) -> anyhow::Result<Self> {
        let len = reader.seek(SeekFrom::End(0)).context("the file's length")?;
        reader.seek(SeekFrom::Start(0)).context("the file's start")?;
        let mut input = Input { reader: BufReader::with_capacity(1 << 18, reader), at: 0, len };
        let (tensors, entries) = input.preamble()?;
        let mut metadata = Vec::new();
        let mut keys = HashSet::new();
        for _ in 0..entries {
            let at = input.at;
            let key = input.string(LONGEST_KEY, "a key")?;
            ensure!(!key.is_empty(), "byte {at}: a key without a name");
            ensure!(keys.insert(key.clone()), "byte {at}: key '{key}' stands twice");
            let value = input.value().with_context(|| format!("key '{key}'"))?;
            metadata.push((key, value));
        }
        let alignment = match metadata.iter().find(|(k, _)| k == "general.alignment") {
            None => ALIGNMENT,
            Some((_, Value::U32(a))) if a.is_power_of_two() => u64::from(*a),
            Some((_, other)) => bail!("general.alignment is {other:?}; it must be a power of two"),
        };
        let tensors = input.tensors(tensors, alignment)?;
        Ok(Self { len, metadata, tensors })
    }
}

struct Input<R> {
    reader: BufReader<R>,
    at: u64,
    len: u64,
}

impl<R: Read> Input<R> {
    fn left(&self) -> u64 {
        self.len.saturating_sub(self.at)
    }

    fn bytes<const N: usize>(&mut self) -> anyhow::Result<[u8; N]> {
        let mut bytes = [0; N];
        self.reader
            .read_exact(&mut bytes)
            .map_err(|e| anyhow!("byte {}: the file ends within its header ({e})", self.at))?;
        self.at += N as u64;
        Ok(bytes)
    }

    fn u32(&mut self) -> anyhow::Result<u32> {
        self.bytes().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> anyhow::Result<u64> {
        self.bytes().map(u64::from_le_bytes)
    }

    /// Magic and version, then the numbers of tensors and of keys.
    fn preamble(&mut self) -> anyhow::Result<(u64, u64)> {
        let magic: [u8; 4] = self.bytes()?;
        ensure!(&magic == b"GGUF", "byte 0: begins with {magic:02x?}, so it is no GGUF file");
        let version = self.u32()?;
        ensure!(
            version.swap_bytes() > 3,
            "byte 4: a big-endian file; convert it with gguf_convert_endian.py"
        );
        ensure!(
            (2..=3).contains(&version),
            "byte 4: GGUF version {version}; versions 2 and 3 are known"
        );
        let tensors = self.u64()?;
        let entries = self.u64()?;
        let smallest = tensors
            .checked_mul(SMALLEST_TENSOR)
            .zip(entries.checked_mul(SMALLEST_ENTRY))
            .and_then(|(t, e)| t.checked_add(e));
        ensure!(
            smallest.is_some_and(|s| s <= self.left()),
            "byte 8: {tensors} tensors and {entries} keys cannot fit in a file of {} bytes",
            self.len
        );
        Ok((tensors, entries))
    }

    fn string(&mut self, longest: u64, what: &str) -> anyhow::Result<String> {
        let at = self.at;
        let len = self.u64()?;
        ensure!(
            len <= longest.min(self.left()),
            "byte {at}: {what} of {len} bytes, where at most {} are possible",
            longest.min(self.left())
        );
        let mut bytes = vec![0; len as usize];
        self.reader
            .read_exact(&mut bytes)
            .map_err(|e| anyhow!("byte {at}: the file ends within {what} ({e})"))?;
        self.at += len;
        String::from_utf8(bytes).map_err(|_| anyhow!("byte {at}: {what} is no UTF-8 text"))
    }

    fn skip(&mut self, bytes: u64) -> anyhow::Result<()> {
        ensure!(
            bytes <= self.left(),
            "byte {}: {bytes} bytes are announced and {} are left",
            self.at,
            self.left()
        );
        let mut rest = (&mut self.reader).take(bytes);
        let skipped = std::io::copy(&mut rest, &mut std::io::sink())?;
        ensure!(skipped == bytes, "byte {}: the file ends within its header", self.at);
        self.at += bytes;
        Ok(())
    }

    fn value(&mut self) -> anyhow::Result<Value> {
        let at = self.at;
        Ok(match self.u32()? {
            0 => Value::U8(self.bytes::<1>()?[0]),
            1 => Value::I8(self.bytes::<1>()?[0] as i8),
            2 => Value::U16(u16::from_le_bytes(self.bytes()?)),
            3 => Value::I16(i16::from_le_bytes(self.bytes()?)),
            4 => Value::U32(self.u32()?),
            5 => Value::I32(self.u32()? as i32),
            6 => Value::F32(f32::from_le_bytes(self.bytes()?)),
            7 => Value::Bool(self.boolean()?),
            8 => Value::String(self.string(u64::MAX, "a text")?),
            9 => Value::Array(self.array()?),
            10 => Value::U64(self.u64()?),
            11 => Value::I64(self.u64()? as i64),
            12 => Value::F64(f64::from_le_bytes(self.bytes()?)),
            other => bail!("byte {at}: value type {other}; 0 to 12 are known"),
        })
    }

    fn boolean(&mut self) -> anyhow::Result<bool> {
        let at = self.at;
        match self.bytes::<1>()?[0] {
            0 => Ok(false),
            1 => Ok(true),
            other => bail!("byte {at}: a truth value of {other}"),
        }
    }

    fn array(&mut self) -> anyhow::Result<Array> {
        let at = self.at;
        let element = self.u32()?;
        let len = self.u64()?;
        let width: u64 = match element {
            0 | 1 | 7 => 1,
            2 | 3 => 2,
            4..=6 => 4,
            8 => 8,
            10..=12 => 8,
            9 => bail!("byte {at}: an array of arrays"),
            other => bail!("byte {at}: array elements of type {other}; 0 to 12 are known"),
        };
        ensure!(
            len.checked_mul(width).is_some_and(|bytes| bytes <= self.left()),
            "byte {at}: an array of {len} elements cannot fit in the {} bytes that are left",
            self.left()
        );
        let kept = len <= KEPT_ARRAY;
        Ok(match element {
            4 if kept => Array::U32((0..len).map(|_| self.u32()).collect::<Result<_, _>>()?),
            5 if kept => {
                Array::I32((0..len).map(|_| Ok(self.u32()? as i32)).collect::<anyhow::Result<_>>()?)
            }
            6 if kept => Array::F32(
                (0..len)
                    .map(|_| Ok(f32::from_le_bytes(self.bytes()?)))
                    .collect::<anyhow::Result<_>>()?,
            ),
            7 if kept => Array::Bool((0..len).map(|_| self.boolean()).collect::<Result<_, _>>()?),
            8 => {
                for _ in 0..len {
                    let text = self.u64()?;
                    self.skip(text)?;
                }
                Array::Skipped(len)
            }
            _ => {
                self.skip(len * width)?;
                Array::Skipped(len)
            }
        })
    }

    fn tensors(&mut self, count: u64, alignment: u64) -> anyhow::Result<Vec<(Tensor, u64)>> {
        let mut list: Vec<(Tensor, u64, u64)> = Vec::new();
        let mut names = HashSet::new();
        for _ in 0..count {
            let at = self.at;
            let name = self.string(LONGEST_KEY, "a tensor's name")?;
            ensure!(!name.is_empty(), "byte {at}: a tensor without a name");
            ensure!(names.insert(name.clone()), "byte {at}: tensor '{name}' stands twice");
            let (tensor, offset) =
                self.tensor(name.clone(), alignment).with_context(|| format!("tensor '{name}'"))?;
            list.push((tensor, offset, at));
        }
        let start = self.at.next_multiple_of(alignment);
        let mut placed = Vec::with_capacity(list.len());
        for (tensor, offset, at) in list {
            let bytes = tensor.bytes();
            let begin = start.checked_add(offset);
            let end = begin.and_then(|b| b.checked_add(bytes));
            let (Some(begin), Some(end)) = (begin, end) else {
                bail!("byte {at}: tensor '{}' has the offset {offset}", tensor.name);
            };
            ensure!(
                end <= self.len,
                "byte {at}: tensor '{}' ends at byte {end} of a file of {} bytes; download it again",
                tensor.name,
                self.len
            );
            placed.push((tensor, begin));
        }
        let mut order: Vec<&(Tensor, u64)> = placed.iter().collect();
        order.sort_by_key(|(_, begin)| *begin);
        for pair in order.windows(2) {
            let (first, second) = (pair[0], pair[1]);
            ensure!(
                first.1 + first.0.bytes() <= second.1,
                "byte {}: tensors '{}' and '{}' overlap",
                second.1,
                first.0.name,
                second.0.name
            );
        }
        Ok(placed)
    }

    fn tensor(&mut self, name: String, alignment: u64) -> anyhow::Result<(Tensor, u64)> {
        let at = self.at;
        let rank = self.u32()?;
        ensure!((1..=MOST_DIMS).contains(&rank), "byte {at}: {rank} sizes; 1 to 4 are possible");
        let dims = (0..rank).map(|_| self.u64()).collect::<Result<Vec<_>, _>>()?;
        ensure!(!dims.contains(&0), "byte {at}: a size of 0");
        let elements = dims.iter().try_fold(1u64, |n, &d| n.checked_mul(d));
        ensure!(
            elements.is_some_and(|n| n <= i64::MAX as u64 / 8),
            "byte {at}: sizes {dims:?}, which nothing can hold"
        );
        let at = self.at;
        let code = self.u32()?;
        let kind = TensorType::from_code(code)
            .with_context(|| format!("byte {at}: tensor type {code}, which is not known"))?;
        ensure!(
            dims[0] % kind.block_weights() == 0,
            "byte {at}: rows of {} weights are no whole blocks of {kind}",
            dims[0]
        );
        let at = self.at;
        let offset = self.u64()?;
        ensure!(
            offset % alignment == 0,
            "byte {at}: offset {offset} is no multiple of the alignment {alignment}"
        );
        Ok((Tensor { name, dims, kind }, offset))
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
