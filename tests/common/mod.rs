//! What the tests of the real programs share.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use bench::model::gguf::{self, Value};
use bench::record::{Record, read_records};

/// A folder with a scenario, where `bench run` is called.
pub struct Place {
    pub folder: tempfile::TempDir,
}

impl Place {
    /// A folder that holds `scenario.toml`.
    pub fn with_scenario(text: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("scenario.toml"), text).unwrap();
        Self { folder }
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// `bench` in this folder, with nothing of the outer world's settings.
    pub fn bench(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_bench"));
        command.args(args).current_dir(self.path()).env("BENCH_CACHE", self.path().join("cache"));
        command
    }

    /// Writes a model file that is a header and nothing more: enough for the mock engine.
    pub fn write_header(&self, name: &str) {
        let metadata = [
            ("general.architecture".to_owned(), Value::String("mock".to_owned())),
            ("mock.vocab_size".to_owned(), Value::U32(1000)),
        ];
        std::fs::write(self.path().join(name), gguf::encode(&metadata, &[])).unwrap();
    }

    /// Runs the scenario.
    pub fn run(&self, args: &[&str]) -> Output {
        self.bench(&[&["run", "scenario.toml"], args].concat()).output().unwrap()
    }

    /// The only result folder.
    pub fn results(&self) -> PathBuf {
        let folders: Vec<_> = std::fs::read_dir(self.path().join("results"))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        assert_eq!(folders.len(), 1, "{folders:?}");
        folders[0].clone()
    }

    /// The rows of the only result folder.
    pub fn records(&self) -> Vec<Record> {
        read_records(&self.results().join("records.csv")).unwrap()
    }
}

/// What a program wrote to standard error.
pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// What a program wrote to standard output.
pub fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}
