//! Speed of answers: all models in all quantisations at three contexts on all devices, and a header.

use std::hint::black_box;
use std::sync::atomic::{AtomicUsize, Ordering};

use bench::catalog::hardware;
use bench::catalog::models::{self, ModelSpec};
use bench::fit::answer::Question;
use bench::fit::constants;
use bench::fit::machine::Machine;
use bench::fit::memory::Layout;
use bench::fit::packed::Blueprint;
use bench::fit::site::Site;
use bench::fit::table::{self, Packings, Questions};
use bench::model::gguf::{Array, Header, Value, encode, encoded_len};
use bench::model::quant::Quant;
use bench::model::{arch, tensors};
use bench::units::Tokens;
use criterion::{Criterion, criterion_group, criterion_main};

fn packings(spec: &ModelSpec) -> Packings {
    let Ok(blueprint) = Blueprint::new(spec) else { return Vec::new() };
    let each = blueprint.each(&Quant::ALL).into_iter();
    each.filter_map(|(quant, packed)| Some((quant.to_string(), packed.ok()?))).collect()
}

/// From nothing but the parsed catalogue to the last answer: tensors, recipes, memory, the longest
/// context, speeds with their intervals. Printing is apart.
fn every_answer() -> usize {
    let layout = Layout::default();
    let question = Question::new(layout, "llama.cpp");
    let machines: Vec<Machine> =
        hardware::all().iter().map(|d| Machine::parse(&d.id, &[]).expect("a device")).collect();
    let sites: Vec<Site<'_>> =
        machines.iter().map(|m| Site::new(m, &question, constants::embedded())).collect();
    let specs: Vec<&ModelSpec> = models::all().iter().collect();
    let contexts = [Tokens(4096), Tokens(8192), Tokens(32_768)];
    let questions = Questions { layout, contexts: &contexts, sites: &sites };
    let answers = AtomicUsize::new(0);
    table::answers(&specs, packings, &questions, |row| {
        black_box(&row.answer);
        answers.fetch_add(1, Ordering::Relaxed);
        None::<()>
    });
    answers.into_inner()
}

fn all(c: &mut Criterion) {
    println!("{} answers", every_answer());
    let mut group = c.benchmark_group("fit");
    group.sample_size(20);
    group.bench_function(
        "all models × devices × 11 quantisations × 3 contexts (target: under 100 ms)",
        |b| {
            b.iter(every_answer);
        },
    );
    group.finish();
}

fn header(c: &mut Criterion) {
    let spec = models::find("deepseek-v3").expect("a model");
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("model.gguf");
    let mut metadata = arch::metadata(spec, Quant::Q4KM);
    let words = |n: u32| Value::Array(Array::String((0..n).map(|i| format!("w{i}")).collect()));
    metadata.push(("tokenizer.ggml.tokens".into(), words(spec.vocab)));
    metadata.push(("tokenizer.ggml.merges".into(), words(spec.vocab)));
    let tensors = tensors(spec, Quant::Q4KM).expect("tensors");
    let bytes = encode(&metadata, &tensors);
    std::fs::write(&path, &bytes).expect("a file");
    // A sparse file: as long as the model, and on disk only its header.
    let file = std::fs::OpenOptions::new().write(true).open(&path).expect("a file");
    file.set_len(encoded_len(&bytes, &tensors)).expect("a hole");
    c.bench_function("header of a 400 GB model (target: under 10 ms)", |b| {
        b.iter(|| Header::read(black_box(&path)).expect("a header"));
    });
}

criterion_group!(speed, all, header);
criterion_main!(speed);
