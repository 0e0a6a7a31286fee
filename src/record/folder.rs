//! The folder `results/<date>-<host>-<scenario>/`: written after each case, whole at any moment.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};

use super::{Record, read_records, to_csv, write_sums};

/// One line of `samples.jsonl`: the raw arrivals of one trial.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Trial<S> {
    /// The case.
    pub case_id: String,
    /// Its number, from 0 in the order of measuring; equal numbers of the engines of one point
    /// were measured one after the other.
    pub trial: u32,
    /// Not counted: it warms up.
    pub warmup: bool,
    /// Of a probe of a search: the users of its closed loop.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub users: Option<u32>,
    /// Of a probe of a search: the requests a second of its open loop.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_per_s: Option<f64>,
    /// The raw arrivals, one for each request.
    pub samples: Vec<S>,
}

impl<S> Trial<S> {
    /// A trial that is no probe.
    pub fn new(case_id: impl Into<String>, trial: u32, warmup: bool, samples: Vec<S>) -> Self {
        Self { case_id: case_id.into(), trial, warmup, users: None, rate_per_s: None, samples }
    }
}

/// A folder of results that is being written.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    records: Vec<Record>,
}

impl Folder {
    /// Makes a new folder with the scenario's text and the machine's description; where `name`
    /// exists already, a number is added to it.
    pub fn create(root: &Path, name: &str, scenario: &str, host: &str) -> anyhow::Result<Self> {
        let path = create_folder(
            root,
            name,
            &[
                ("scenario.toml", scenario.as_bytes()),
                ("host.toml", host.as_bytes()),
                ("samples.jsonl", b""),
                ("records.csv", &to_csv(&[])?),
            ],
        )?;
        Ok(Self { path, records: Vec::new() })
    }

    /// Opens a folder that an earlier run left, to go on in it.
    pub fn open(path: &Path) -> anyhow::Result<Self> {
        let file = path.join("records.csv");
        let empty = fs::metadata(&file).is_ok_and(|m| m.len() == 0);
        let records = if empty { Vec::new() } else { read_records(&file)? };
        Ok(Self { path: path.to_owned(), records })
    }

    /// Where it lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The rows so far.
    pub fn records(&self) -> &[Record] {
        &self.records
    }

    /// Whether the case has a row.
    pub fn has(&self, case_id: &str) -> bool {
        self.records.iter().any(|r| r.case_id == case_id)
    }

    /// Adds the cases' rows and trials. The trials come first: a row without its samples could not
    /// be recomputed, samples without a row are measured again.
    pub fn add<S: Serialize>(
        &mut self,
        records: Vec<Record>,
        trials: &[Trial<S>],
    ) -> anyhow::Result<()> {
        let path = self.samples_path();
        let known: Vec<_> = self.records.iter().map(|r| r.case_id.as_str()).collect();
        let mut text = Vec::new();
        // Lines of a case without a row are left over from a killed run.
        if let Ok(file) = fs::File::open(&path) {
            for line in BufReader::new(file).lines() {
                let line = line.with_context(|| format!("cannot read '{}'", path.display()))?;
                if case_of(&line).is_some_and(|id| known.contains(&id.as_str())) {
                    text.extend_from_slice(line.as_bytes());
                    text.push(b'\n');
                }
            }
        }
        for trial in trials {
            serde_json::to_writer(&mut text, trial).context("cannot encode a trial")?;
            text.push(b'\n');
        }
        write_whole(&path, &text)?;
        self.records.extend(records);
        self.write_records()?;
        write_sums(&self.path)
    }

    fn write_records(&self) -> anyhow::Result<()> {
        write_whole(&self.path.join("records.csv"), &to_csv(&self.records)?)
    }

    fn samples_path(&self) -> PathBuf {
        self.path.join("samples.jsonl")
    }

    /// The trials in the folder's `samples.jsonl`.
    pub fn read_trials<S: for<'de> Deserialize<'de>>(&self) -> anyhow::Result<Vec<Trial<S>>> {
        read_trials(&self.samples_path())
    }
}

/// The trials of a file, one JSON object a line.
pub fn read_trials<T: for<'de> Deserialize<'de>>(path: &Path) -> anyhow::Result<Vec<T>> {
    let file = fs::File::open(path).with_context(|| format!("cannot read '{}'", path.display()))?;
    BufReader::new(file)
        .lines()
        .enumerate()
        .map(|(number, line)| {
            let place = || format!("{}:{}: not a trial", path.display(), number + 1);
            serde_json::from_str(&line.with_context(place)?).with_context(place)
        })
        .collect()
}

/// Makes a new folder of these files and their checksums; where `name` exists already, a number is
/// added to it.
pub fn create_folder(root: &Path, name: &str, files: &[(&str, &[u8])]) -> anyhow::Result<PathBuf> {
    fs::create_dir_all(root).with_context(|| format!("cannot make '{}'", root.display()))?;
    // Filled under another name: who sees the folder sees all its files. And a folder that cannot be
    // written shows before the first trial.
    let draft = tempfile::Builder::new()
        .prefix(".bench-")
        .tempdir_in(root)
        .with_context(|| format!("cannot write in '{}'", root.display()))?;
    for (file, text) in files {
        write_whole(&draft.path().join(file), text)?;
    }
    write_sums(draft.path())?;
    make_shared(draft.path())?;
    for number in 1..1000 {
        let name = if number == 1 { name.to_owned() } else { format!("{name}-{number}") };
        let path = root.join(name);
        if !path.exists() && fs::rename(draft.path(), &path).is_ok() {
            let _ = draft.keep();
            return Ok(path);
        }
    }
    bail!("'{}' has a thousand folders named '{name}'; remove some", root.display())
}

fn case_of(line: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct Id {
        case_id: String,
    }
    serde_json::from_str::<Id>(line).ok().map(|id| id.case_id)
}

/// Replaces the file in one step: a reader, and a killed run, see the old text or the new.
pub fn write_whole(path: &Path, text: &[u8]) -> anyhow::Result<()> {
    let context = || format!("cannot write '{}'; is the disk full?", path.display());
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(folder).with_context(context)?;
    file.write_all(text).and_then(|()| file.as_file().sync_all()).with_context(context)?;
    set_readable(file.as_file()).with_context(context)?;
    file.persist(path).map_err(|e| e.error).with_context(context)?;
    Ok(())
}

/// Temporary folders are private; results are to be shared.
#[cfg(unix)]
fn make_shared(folder: &Path) -> anyhow::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(folder, fs::Permissions::from_mode(0o755))
        .with_context(|| format!("cannot open '{}' to readers", folder.display()))
}

#[cfg(not(unix))]
fn make_shared(_: &Path) -> anyhow::Result<()> {
    Ok(())
}

/// Temporary files are private; results are to be shared.
#[cfg(unix)]
fn set_readable(file: &fs::File) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    file.set_permissions(fs::Permissions::from_mode(0o644))
}

#[cfg(not(unix))]
fn set_readable(_: &fs::File) -> std::io::Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(case_id: &str) -> Record {
        Record { case_id: case_id.to_owned(), ..Record::default() }
    }

    fn trial(case_id: &str) -> Trial<u32> {
        Trial::new(case_id, 0, false, vec![1, 2])
    }

    #[test]
    fn a_folder_is_opened_again_with_what_was_written() {
        let root = tempfile::tempdir().unwrap();
        let mut folder = Folder::create(root.path(), "x", "name = 1", "cpu = 2").unwrap();
        folder.add(vec![record("a")], &[trial("a")]).unwrap();
        let again = Folder::open(folder.path()).unwrap();
        assert!(again.has("a") && !again.has("b"));
        assert_eq!(again.read_trials::<u32>().unwrap(), [trial("a")]);
    }

    #[test]
    fn samples_of_a_case_that_was_killed_are_not_kept_beside_the_new_ones() {
        let root = tempfile::tempdir().unwrap();
        let mut folder = Folder::create(root.path(), "x", "", "").unwrap();
        folder.add(vec![record("a")], &[trial("a")]).unwrap();
        let samples = folder.path().join("samples.jsonl");
        let mut text = fs::read_to_string(&samples).unwrap();
        text.push_str(
            "{\"case_id\":\"b\",\"trial\":0,\"warmup\":false,\"samples\":[9]}\n{\"case_id\":\"b",
        );
        fs::write(&samples, text).unwrap();
        let mut folder = Folder::open(folder.path()).unwrap();
        folder.add(vec![record("b")], &[trial("b")]).unwrap();
        assert_eq!(folder.read_trials::<u32>().unwrap(), [trial("a"), trial("b")]);
    }

    #[test]
    fn a_second_run_of_the_day_gets_a_folder_of_its_own() {
        let root = tempfile::tempdir().unwrap();
        let first = Folder::create(root.path(), "x", "", "").unwrap();
        let second = Folder::create(root.path(), "x", "", "").unwrap();
        assert_ne!(first.path(), second.path());
    }
}
