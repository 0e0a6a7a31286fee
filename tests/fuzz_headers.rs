//! Hostile model files: changed headers are read or refused, without a panic and without memory
//! beyond what the file's size justifies, and so is all that `bench fit --gguf` makes of them.
//!
//! `FUZZ_SECONDS=600 cargo test --test fuzz_headers` goes on for ten minutes; the debug build is the
//! stricter one, for there an overflow is a panic. `FUZZ_SEED` starts elsewhere.
#![allow(missing_docs)]

use std::alloc::{GlobalAlloc, Layout as Allocation, System};
use std::cell::Cell;
use std::io::Cursor;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use bench::catalog::models::{Arch, ModelSpec};
use bench::fit::answer::{self, Candidate, Question};
use bench::fit::constants;
use bench::fit::file;
use bench::fit::machine::Machine;
use bench::fit::memory::{Layout, Plan};
use bench::fit::packed::Packed;
use bench::model::gguf::{Array, Header, Value, encode, encoded_len};
use bench::model::quant::Quant;
use bench::model::{Tensor, arch, tensors};
use rand::{RngExt, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;

/// Counts what this thread holds, and its peak.
struct Counting;

thread_local! {
    static HELD: Cell<usize> = const { Cell::new(0) };
    static PEAK: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: every call is passed on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Allocation) -> *mut u8 {
        let held = HELD.get().wrapping_add(layout.size());
        HELD.set(held);
        PEAK.set(PEAK.get().max(held));
        // SAFETY: the caller's promises are those of `System`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Allocation) {
        HELD.set(HELD.get().wrapping_sub(layout.size()));
        // SAFETY: as above.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The bytes that `work` holds at its peak, beside what was held before.
fn peak_of<T>(work: impl FnOnce() -> T) -> (T, usize) {
    let before = HELD.get();
    PEAK.set(before);
    let result = work();
    (result, PEAK.get() - before)
}

/// What the reader holds at most: its buffer of 256 KiB twice over, and for each entry of 14 to 33
/// bytes in the file its name, its place among the names, its sizes and its offset.
fn allowed(len: usize) -> usize {
    (1 << 20) + 16 * len
}

/// Whole small files of every architecture, one with every kind of value.
fn seeds() -> Vec<Vec<u8>> {
    let mut files: Vec<Vec<u8>> = Arch::ALL
        .into_iter()
        .map(|arch| {
            let spec = ModelSpec::tiny(arch);
            let mut metadata = arch::metadata(&spec, Quant::F16);
            let words = (0..40).map(|i| format!("w{i}")).collect();
            metadata.push(("tokenizer.ggml.tokens".into(), Value::Array(Array::String(words))));
            whole(&metadata, &tensors(&spec, Quant::F16).unwrap())
        })
        .collect();
    let every = vec![
        ("u8".into(), Value::U8(1)),
        ("i8".into(), Value::I8(-1)),
        ("u16".into(), Value::U16(2)),
        ("i16".into(), Value::I16(-2)),
        ("f32".into(), Value::F32(0.5)),
        ("bool".into(), Value::Bool(true)),
        ("u64".into(), Value::U64(5)),
        ("i64".into(), Value::I64(-5)),
        ("f64".into(), Value::F64(0.25)),
        ("general.alignment".into(), Value::U32(64)),
        ("array.u32".into(), Value::Array(Array::U32(vec![1, 2, 3]))),
        ("array.i32".into(), Value::Array(Array::I32(vec![-1, 2]))),
        ("array.f32".into(), Value::Array(Array::F32(vec![0.1; 9]))),
        ("array.bool".into(), Value::Array(Array::Bool(vec![true, false]))),
        ("array.text".into(), Value::Array(Array::String(vec![String::new(), "a".into()]))),
    ];
    files.push(whole(&every, &[]));
    files
}

/// A header without the data behind it, but with its length: data are zeros, as in a sparse file.
fn whole(metadata: &[(String, Value)], tensors: &[Tensor]) -> Vec<u8> {
    let mut bytes = encode(metadata, tensors);
    bytes.resize(encoded_len(&bytes, tensors) as usize, 0);
    bytes
}

const NUMBERS: [u64; 16] = [
    0,
    1,
    2,
    3,
    4,
    31,
    33,
    255,
    65_536,
    i32::MAX as u64,
    u32::MAX as u64,
    1 << 32,
    i64::MAX as u64,
    1 << 63,
    u64::MAX - 31,
    u64::MAX,
];

/// One change: of a byte, of a number, of a stretch, or of the length.
fn change(rng: &mut Xoshiro256PlusPlus, file: &mut Vec<u8>, header: usize, others: &[Vec<u8>]) {
    if file.is_empty() {
        return;
    }
    // Most of a file is data that nobody reads: change its header.
    let end = header.min(file.len());
    let at = rng.random_range(0..end.max(1));
    match rng.random_range(0..10) {
        0 => file[at] ^= 1 << rng.random_range(0..8),
        1 => file[at] = rng.random(),
        2 | 3 => put(file, at, &NUMBERS[rng.random_range(0..NUMBERS.len())].to_le_bytes()),
        4 => put(file, at, &(NUMBERS[rng.random_range(0..11)] as u32).to_le_bytes()),
        5 => {
            let small: u64 = rng.random_range(0..1024);
            put(file, at, &small.to_le_bytes());
        }
        6 => {
            let len = rng.random_range(0..64.min(file.len() - at) + 1);
            file.drain(at..at + len);
        }
        7 => {
            let len = rng.random_range(0..64.min(file.len() - at) + 1);
            let copy = file[at..at + len].to_vec();
            let to = rng.random_range(0..end.max(1));
            file.splice(to..to, copy);
        }
        8 => {
            let other = &others[rng.random_range(0..others.len())];
            let from = rng.random_range(0..other.len());
            let len = rng.random_range(0..256.min(other.len() - from) + 1);
            file.splice(at..at, other[from..from + len].iter().copied());
        }
        _ => file.truncate(rng.random_range(0..file.len() + 1)),
    }
}

fn put(file: &mut [u8], at: usize, bytes: &[u8]) {
    for (target, byte) in file[at..].iter_mut().zip(bytes) {
        *target = *byte;
    }
}

/// Everything that `bench fit --gguf` does with a header.
fn answer(header: &Header, machine: &Machine) -> bool {
    let Ok(spec) = file::spec(header) else { return false };
    let tensors = file::tensors(header);
    let packed = Packed::of_tensors(&spec, &tensors, file::packing(&tensors));
    let layout = Layout { slots: 2, ..Layout::default() };
    let plan = Plan::new(&spec, &layout);
    let candidate =
        Candidate { spec: &spec, weights: &packed.weights, plan: &plan, work: &packed.work };
    let question = Question::new(layout, "llama.cpp");
    answer::answer(&candidate, machine, &question, constants::embedded());
    true
}

#[test]
fn changed_headers_are_read_or_refused_without_panic_or_much_memory() {
    let seconds = |name: &str| std::env::var(name).ok().map(|t| t.parse::<u64>().unwrap());
    let least = seconds("FUZZ_SECONDS").map(Duration::from_secs);
    let seed = seconds("FUZZ_SEED").unwrap_or(1);
    let machine = Machine::parse("2x rtx-3090", &[]).unwrap();
    let seeds = seeds();
    let headers: Vec<usize> = seeds
        .iter()
        .map(|file| {
            let header = Header::read_from(Cursor::new(file)).unwrap();
            header.tensors.iter().map(|t| t.offset as usize).min().unwrap_or(file.len())
        })
        .collect();
    // The constants and the catalogue are made once, and not by the first file.
    assert!(answer(&Header::read_from(Cursor::new(&seeds[0])).unwrap(), &machine));
    let mut rng = Xoshiro256PlusPlus::seed_from_u64(seed);
    let start = Instant::now();
    let (mut runs, mut read, mut answered, mut most) = (0_u64, 0_u64, 0_u64, 0.0_f64);
    while runs < 3000 || least.is_some_and(|least| start.elapsed() < least) {
        let i = rng.random_range(0..seeds.len());
        let mut file = seeds[i].clone();
        for _ in 0..rng.random_range(1..4) {
            change(&mut rng, &mut file, headers[i], &seeds);
        }
        let tried = catch_unwind(AssertUnwindSafe(|| {
            let (header, held) = peak_of(|| Header::read_from(Cursor::new(&file)));
            assert!(held <= allowed(file.len()), "{held} bytes held for a file of {}", file.len());
            let share = held.saturating_sub(1 << 20) as f64 / file.len().max(1) as f64;
            match header {
                Ok(header) => (true, answer(&header, &machine), share),
                Err(error) => {
                    let text = format!("{error:#}");
                    let placed = text.contains("byte ") || text.contains("alignment");
                    assert!(placed, "no byte is named: {text}");
                    (false, false, share)
                }
            }
        }));
        let Ok((was_read, was_answered, share)) = tried else {
            let path = std::env::temp_dir().join(format!("hostile-{seed}-{runs}.gguf"));
            std::fs::write(&path, &file).unwrap();
            panic!("run {runs} of seed {seed} failed; its file: {}", path.display());
        };
        runs += 1;
        read += u64::from(was_read);
        answered += u64::from(was_answered);
        most = most.max(share);
    }
    println!(
        "{runs} files in {:.0?}: {read} read, {answered} answered, others refused; at most {most:.2} \
         bytes held for each of a file beyond 1 MiB",
        start.elapsed()
    );
    // Were all refused at byte 0, nothing would have been tried.
    assert!(read > runs / 50 && answered > 0, "{read} of {runs} read, {answered} answered");
}

/// 64 MiB are enough for the header of the largest model, vocabulary included.
#[test]
fn a_large_vocabulary_is_passed_over_and_not_held() {
    let spec = bench::catalog::models::find("kimi-k2").unwrap();
    let mut metadata = arch::metadata(spec, Quant::Q4KM);
    let words = |n: u32| Value::Array(Array::String((0..n).map(|i| format!("w{i}")).collect()));
    metadata.push(("tokenizer.ggml.tokens".into(), words(spec.vocab)));
    metadata.push(("tokenizer.ggml.merges".into(), words(spec.vocab)));
    let tensors = tensors(spec, Quant::Q4KM).unwrap();
    let bytes = encode(&metadata, &tensors);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    std::fs::write(&path, &bytes).unwrap();
    // A sparse file: as long as the model, and on disk only its header.
    let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.set_len(encoded_len(&bytes, &tensors)).unwrap();
    drop((metadata, bytes, file));
    let (header, held) = peak_of(|| Header::read(&path).unwrap());
    assert!(header.file_bytes.gib() > 400.0, "{}", header.file_bytes);
    println!("{held} bytes held for a model of {}", header.file_bytes);
    assert!(held < 4 << 20, "{held}");
}
