//! What keeps two rows of the same work from being compared.

use crate::record::{Outcome, Record};

/// Settings that change the work of any engine, under the names that engines report them by.
const COMMON: [&str; 3] = ["kv_type", "flash_attention", "threads"];

/// Whether two records did the same work on the same model.
pub fn is_same_work(a: &Record, b: &Record) -> bool {
    let work = |r: &Record| (r.prompt_tokens, r.new_tokens, r.depth, r.batch, r.concurrency);
    let load = |r: &Record| (r.load.clone(), r.workload.clone(), r.rate_per_s.map(f64::to_bits));
    a.model == b.model
        && a.quant == b.quant
        && a.weights == b.weights
        && work(a) == work(b)
        && load(a) == load(b)
}

/// Why `record` may not be compared with `first`, the first row of the same work; `kin` is the first
/// row of the same work on the same engine.
pub fn differences(record: &Record, first: &Record, kin: Option<&Record>) -> Vec<String> {
    let mut found = Vec::new();
    if record.outcome != Outcome::Measured || first.outcome != Outcome::Measured {
        return found;
    }
    match (&record.token_hash, &first.token_hash) {
        (Some(mine), Some(theirs)) if mine == theirs => {}
        (Some(_), Some(_)) => found.push("other token ids".to_owned()),
        _ => found.push("token ids not known to be the same".to_owned()),
    }
    let settings = |r: &Record| r.effective_settings.clone().unwrap_or_default();
    let (mine, theirs) = (settings(record), settings(first));
    for name in COMMON {
        if let (Some(mine), Some(theirs)) = (value(&mine, name), value(&theirs, name))
            && mine != theirs
        {
            found.push(format!("{name} {mine} instead of {theirs}"));
        }
    }
    let Some(kin) = kin else { return found };
    if record.settings != kin.settings && !found.iter().any(|f| f.contains(" instead of ")) {
        found.push("other settings".to_owned());
    }
    if record.engine_version != kin.engine_version {
        found.push("other version of the engine".to_owned());
    }
    if record.engine_build != kin.engine_build {
        found.push("other build of the engine".to_owned());
    }
    if record.backend != kin.backend {
        found.push("other backend".to_owned());
    }
    if record.bench_version != kin.bench_version {
        found.push("other version of bench".to_owned());
    }
    found
}

fn value<'a>(settings: &'a str, name: &str) -> Option<&'a str> {
    settings.split_whitespace().find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record {
        Record {
            outcome: Outcome::Measured,
            token_hash: Some("a".to_owned()),
            effective_settings: Some("kv_type=f16 threads=2".to_owned()),
            engine_version: Some("1".to_owned()),
            ..Record::default()
        }
    }

    #[test]
    fn rows_that_did_the_same_have_no_differences() {
        assert!(differences(&record(), &record(), Some(&record())).is_empty());
    }

    #[test]
    fn each_thing_that_differs_is_named() {
        type Change = fn(&mut Record);
        let changes: [(Change, &str); 7] = [
            (|r| r.token_hash = Some("b".to_owned()), "other token ids"),
            (|r| r.token_hash = None, "token ids not known to be the same"),
            (
                |r| r.effective_settings = Some("kv_type=q8_0 threads=2".to_owned()),
                "kv_type q8_0 instead of f16",
            ),
            (|r| r.settings = "mmap=false".to_owned(), "other settings"),
            (|r| r.engine_version = Some("2".to_owned()), "other version of the engine"),
            (|r| r.engine_build = Some("AVX2".to_owned()), "other build of the engine"),
            (|r| r.backend = Some("CUDA".to_owned()), "other backend"),
        ];
        for (change, said) in changes {
            let mut other = record();
            change(&mut other);
            assert_eq!(differences(&other, &record(), Some(&record())), [said]);
        }
    }

    #[test]
    fn a_case_that_failed_has_nothing_to_compare() {
        let failed = Record { outcome: Outcome::OutOfMemory, ..Record::default() };
        assert!(differences(&failed, &record(), None).is_empty());
    }
}
