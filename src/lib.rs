//! Measure, predict and decide: what a machine does with local language models.
//!
//! ```text
//! scenarios/*.toml → Scenario → Case → Job ═pipe═▶ runners/* ═pipe═▶ Event → Record → results/*/records.csv
//!                                                                                        │  (a file is the joint)
//!                             compare | fit | capacity | cost → Report → reports/*  ◀────┘
//! ```

pub mod capacity;
pub mod cases;
pub mod catalog;
pub mod cli;
pub mod cmd;
pub mod compare;
pub mod cost;
pub mod fit;
pub mod host;
pub mod interchange;
pub mod metrics;
pub mod mock_server;
pub mod model;
pub mod record;
pub mod report;
pub mod run;
pub mod runner;
pub mod scenario;
pub mod stats;
pub mod units;
pub mod verify;
pub mod watch;
pub mod workload;

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    /// Who may use whom, beside itself and `units`. `*` is everybody.
    const LAYERS: &[(&str, &[&str])] = &[
        ("units", &[]),
        ("stats", &[]),
        ("metrics", &["stats"]),
        ("workload", &[]),
        ("catalog", &[]),
        ("model", &["catalog"]),
        ("host", &[]),
        ("watch", &["host"]),
        ("runner", &[]),
        ("record", &[]),
        ("scenario", &["catalog", "model", "runner", "workload"]),
        ("cases", &["runner", "scenario", "stats", "workload"]),
        ("compare", &["record", "stats"]),
        ("fit", &["catalog", "model", "record", "stats"]),
        ("capacity", &["catalog", "fit", "metrics", "model", "record", "stats", "workload"]),
        ("cost", &["catalog", "record", "stats", "workload"]),
        (
            "run",
            &[
                "cases", "catalog", "fit", "host", "metrics", "model", "record", "runner",
                "scenario", "stats", "watch", "workload",
            ],
        ),
        ("interchange", &["catalog", "compare", "model", "record", "stats", "watch"]),
        ("report", &["capacity", "compare", "cost", "fit", "host", "record", "stats", "watch"]),
        (
            "verify",
            &[
                "compare",
                "host",
                "interchange",
                "record",
                "run",
                "runner",
                "scenario",
                "stats",
                "watch",
            ],
        ),
        ("mock_server", &["runner"]),
        ("cli", &["cmd"]),
        ("cmd", &["*"]),
        ("main", &["bench", "cmd", "cli"]),
        ("lib", &["*"]),
    ];

    /// Rooms without files, clock and processes.
    const PURE: &[&str] =
        &["units", "stats", "metrics", "workload", "cases", "compare", "fit", "capacity", "cost"];

    fn rust_files(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                rust_files(&path, found);
            } else if path.extension().is_some_and(|e| e == "rs") {
                found.push(path);
            }
        }
    }

    /// Every file under `src/` with its room and its text before the tests.
    fn sources() -> Vec<(PathBuf, String, String)> {
        let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let mut files = Vec::new();
        rust_files(&src, &mut files);
        files
            .into_iter()
            .map(|path| {
                let inside = path.strip_prefix(&src).unwrap().to_owned();
                let room = inside.iter().next().unwrap().to_str().unwrap();
                let room = room.trim_end_matches(".rs").to_owned();
                let text = std::fs::read_to_string(&path).unwrap();
                let code = text.split("#[cfg(test)]").next().unwrap().to_owned();
                (inside, room, code)
            })
            .collect()
    }

    /// The words after each `crate::` in a text.
    fn used(code: &str) -> Vec<&str> {
        let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
        code.split("crate::")
            .skip(1)
            .flat_map(|rest| match rest.strip_prefix('{') {
                Some(group) => group.split('}').next().unwrap_or("").split(',').collect(),
                None => vec![rest],
            })
            .filter_map(|word| word.trim().split(|c| !is_word(c)).next())
            .filter(|word| !word.is_empty())
            .collect()
    }

    #[test]
    fn every_room_uses_only_the_rooms_below_it() {
        for (path, room, code) in sources() {
            let (_, below) = LAYERS
                .iter()
                .find(|(name, _)| *name == room)
                .unwrap_or_else(|| panic!("'{room}' has no place in LAYERS"));
            for word in used(&code) {
                let is_room = LAYERS.iter().any(|(name, _)| *name == word);
                let allowed = word == room || word == "units" || below.contains(&word);
                assert!(
                    !is_room || allowed || below.contains(&"*"),
                    "{}: '{room}' may not use '{word}'",
                    path.display()
                );
            }
        }
    }

    #[test]
    fn pure_rooms_touch_no_file_clock_or_process() {
        for (path, room, code) in sources() {
            if PURE.contains(&room.as_str()) {
                for word in ["std::fs", "std::process", "Instant", "SystemTime", "std::net"] {
                    assert!(!code.contains(word), "{}: '{word}' in a pure room", path.display());
                }
            }
        }
    }

    #[test]
    fn only_the_host_and_the_watch_know_the_machine() {
        for (path, room, code) in sources() {
            if !["host", "watch"].contains(&room.as_str()) {
                for word in ["sysinfo::", "nvml_wrapper"] {
                    assert!(!code.contains(word), "{}: '{word}'", path.display());
                }
            }
        }
    }

    #[test]
    fn features_are_switched_in_cargo_toml_alone() {
        for (path, _, code) in sources() {
            if path != Path::new("lib.rs") {
                assert!(!code.contains("cfg(feature"), "{}", path.display());
                assert!(!code.contains("unsafe {"), "{}: unsafe", path.display());
            }
        }
    }
}
