//! Why two rows may not be compared: other work, or other conditions than those under test.

use std::collections::BTreeMap;

use crate::record::{Outcome, Record};

/// A condition of a measurement that is either under test or has to be equal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Condition {
    /// The engine itself, with all that belongs to it.
    Engine,
    /// The engine's version.
    Version,
    /// What the engine was compiled for, and what it computes on.
    Build,
    /// The switches in force.
    Settings,
    /// The machine.
    Host,
}

/// Settings that change the work or its means on every engine; the others are an engine's own.
const SHARED_SETTINGS: [&str; 2] = ["kv_type", "threads"];

/// What a server made of the memory that was left is no setting.
const OF_MEMORY: [&str; 2] = ["block_tokens", "cache_blocks"];

/// How the requests came, in the words of the column `load`, which rows of an earlier version lack.
pub fn load(record: &Record) -> String {
    let users = record.concurrency.map(|users| format!("c{users}"));
    record.load.clone().or(users).unwrap_or_else(|| format!("b{}", record.batch))
}

/// The first reason why the two may not be compared; conditions in `tested` may differ.
pub fn obstacle(baseline: &Record, candidate: &Record, tested: &[Condition]) -> Option<String> {
    without_figures(baseline, candidate)
        .or_else(|| other_work(baseline, candidate))
        .or_else(|| other_conditions(baseline, candidate, tested))
}

fn without_figures(baseline: &Record, candidate: &Record) -> Option<String> {
    let reason = |side: &str, record: &Record| {
        let why = record.reason.as_ref().map_or(String::new(), |reason| format!(": {reason}"));
        (record.outcome != Outcome::Measured).then(|| format!("{side}: {}{why}", record.outcome))
    };
    reason("baseline", baseline).or_else(|| reason("candidate", candidate))
}

fn other_work(a: &Record, b: &Record) -> Option<String> {
    let asked = |r: &Record| {
        [
            ("models", r.model.clone()),
            ("quantisations", r.quant.clone()),
            ("weights", r.weights.clone()),
            ("prompt lengths", r.prompt_tokens.to_string()),
            ("numbers of new tokens", r.new_tokens.to_string()),
            ("depths", r.depth.to_string()),
            ("loads", load(r)),
            ("workloads", r.workload.clone().unwrap_or_default()),
        ]
    };
    for ((what, a), (_, b)) in asked(a).into_iter().zip(asked(b)) {
        if let Some(difference) = differs(what, &a, &b) {
            return Some(difference);
        }
    }
    // What only one of them knows cannot be held against it.
    let known = |what, a: Option<String>, b: Option<String>| differs(what, &a?, &b?);
    known("token ids", a.token_hash.clone(), b.token_hash.clone())
        .or_else(|| known("weights files", a.model_sha256.clone(), b.model_sha256.clone()))
        .or_else(|| {
            let bytes = |r: &Record| r.model_bytes.map(|n| format!("{n} bytes"));
            known("weights files", bytes(a), bytes(b))
        })
}

fn other_conditions(a: &Record, b: &Record, tested: &[Condition]) -> Option<String> {
    let fixed = |condition| !tested.contains(&condition);
    let text = |word: &Option<String>| word.clone().unwrap_or_default();
    let engines = !fixed(Condition::Engine);
    if fixed(Condition::Engine) && a.engine != b.engine {
        return differs("engines", &a.engine, &b.engine);
    }
    if fixed(Condition::Host) && a.host != b.host {
        return differs("hosts", &a.host, &b.host);
    }
    if !engines && fixed(Condition::Version) && a.engine_version != b.engine_version {
        return differs("engine versions", &text(&a.engine_version), &text(&b.engine_version));
    }
    if !engines && fixed(Condition::Build) {
        if a.engine_build != b.engine_build {
            return differs("engine builds", &text(&a.engine_build), &text(&b.engine_build));
        }
        if a.backend != b.backend {
            return differs("backends", &text(&a.backend), &text(&b.backend));
        }
    }
    if !fixed(Condition::Settings) {
        return None;
    }
    let settings = |r: &Record| {
        let words = r.effective_settings.as_deref().unwrap_or(&r.settings).to_owned();
        let pairs = words.split_whitespace().filter_map(|word| word.split_once('='));
        pairs
            .filter(|(k, _)| !OF_MEMORY.contains(k))
            .map(|(k, v)| (k.to_owned(), v.to_owned()))
            .collect::<BTreeMap<_, _>>()
    };
    let (a, b) = (settings(a), settings(b));
    let unset = "unset".to_owned();
    let mut keys: Vec<_> = a.keys().chain(b.keys()).collect();
    keys.sort_unstable();
    keys.dedup();
    keys.into_iter().find_map(|key| {
        let (mine, theirs) = (a.get(key), b.get(key));
        // Another engine has other switches: only what both have, and what means the same.
        let counts = !engines
            || (SHARED_SETTINGS.contains(&key.as_str()) && mine.is_some() && theirs.is_some());
        (counts && mine != theirs).then(|| {
            format!(
                "the settings differ: {key} {}, {}",
                mine.unwrap_or(&unset),
                theirs.unwrap_or(&unset)
            )
        })
    })
}

fn differs(what: &str, a: &str, b: &str) -> Option<String> {
    let word = |text: &str| if text.is_empty() { "none".to_owned() } else { format!("'{text}'") };
    (a != b).then(|| format!("the {what} differ: {}, {}", word(a), word(b)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record {
        Record {
            engine: "llama.cpp".to_owned(),
            model: "qwen3-0.6b".to_owned(),
            outcome: Outcome::Measured,
            engine_version: Some("b1".to_owned()),
            engine_build: Some("AVX2".to_owned()),
            backend: Some("CPU".to_owned()),
            host: "x".to_owned(),
            token_hash: Some("aa".to_owned()),
            effective_settings: Some("batch_tokens=512 kv_type=f16 threads=2".to_owned()),
            ..Record::default()
        }
    }

    #[test]
    fn equal_rows_may_be_compared() {
        assert_eq!(obstacle(&record(), &record(), &[]), None);
    }

    #[test]
    fn each_difference_that_is_not_under_test_is_an_obstacle_and_is_named() {
        type Change = fn(&mut Record);
        let changes: [(Change, Option<Condition>, &str); 12] = [
            (|r| r.token_hash = Some("bb".to_owned()), None, "the token ids differ: 'aa', 'bb'"),
            (|r| r.prompt_tokens = 9, None, "the prompt lengths differ: '0', '9'"),
            (|r| r.quant = "Q8_0".to_owned(), None, "the quantisations differ: none, 'Q8_0'"),
            (|r| r.batch = 2, None, "the loads differ: 'b0', 'b2'"),
            (|r| r.concurrency = Some(2), None, "the loads differ: 'b0', 'c2'"),
            (|r| r.outcome = Outcome::OutOfMemory, None, "candidate: out-of-memory"),
            (|r| r.engine = "candle".to_owned(), Some(Condition::Engine), "the engines differ"),
            (
                |r| r.engine_version = Some("b2".to_owned()),
                Some(Condition::Version),
                "the engine versions differ: 'b1', 'b2'",
            ),
            (|r| r.engine_build = None, Some(Condition::Build), "the engine builds differ"),
            (
                |r| r.backend = Some("CUDA".to_owned()),
                Some(Condition::Build),
                "the backends differ",
            ),
            (|r| r.host = "y".to_owned(), Some(Condition::Host), "the hosts differ: 'x', 'y'"),
            (
                |r| r.effective_settings = Some("batch_tokens=576 kv_type=f16".to_owned()),
                Some(Condition::Settings),
                "the settings differ: batch_tokens 512, 576",
            ),
        ];
        for (change, condition, expected) in changes {
            let mut other = record();
            change(&mut other);
            let reason = obstacle(&record(), &other, &[]).unwrap_or_default();
            assert!(reason.starts_with(expected), "'{reason}' is not '{expected}'");
            let tested: Vec<_> = condition.into_iter().collect();
            assert_eq!(obstacle(&record(), &other, &tested).is_none(), condition.is_some());
        }
    }

    #[test]
    fn engines_have_their_own_switches_but_share_the_cache_s_type_and_the_threads() {
        let mut other = record();
        other.engine = "candle".to_owned();
        other.engine_version = Some("0.11".to_owned());
        other.effective_settings = Some("mmap=true kv_type=f16 threads=2".to_owned());
        assert_eq!(obstacle(&record(), &other, &[Condition::Engine]), None);
        other.effective_settings = Some("kv_type=q8_0 threads=2".to_owned());
        let reason = obstacle(&record(), &other, &[Condition::Engine]).unwrap();
        assert_eq!(reason, "the settings differ: kv_type f16, q8_0");
    }

    #[test]
    fn the_room_that_a_server_found_is_no_obstacle() {
        let mut other = record();
        let settings = other.effective_settings.unwrap();
        other.effective_settings = Some(format!("{settings} block_tokens=16 cache_blocks=900"));
        assert_eq!(obstacle(&record(), &other, &[]), None);
    }

    #[test]
    fn what_only_one_row_knows_is_no_obstacle() {
        let mut other = record();
        other.token_hash = None;
        other.model_bytes = Some(1);
        assert_eq!(obstacle(&record(), &other, &[]), None);
    }
}
