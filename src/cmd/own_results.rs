//! Result folders as what one machine has shown of itself.

use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};

use crate::fit::measured::{self, Point};
use crate::host::Host;
use crate::record::read_records;
use crate::stats;
use crate::units::{GbPerSecond, Tflops};

use super::host::Speeds;

/// The results of one machine.
#[derive(Clone, Debug)]
pub struct OwnResults {
    /// The machine.
    pub host: Host,
    /// The names of the folders.
    pub folders: Vec<String>,
    /// Every speed in them.
    pub points: Vec<Point>,
    /// The median of the probes around their cases.
    pub speeds: Option<Speeds>,
}

/// The result folders below `root` whose machine has this label, by name.
pub fn of_host(root: &Path, label: &str) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(root) else { return Vec::new() };
    let mut folders: Vec<PathBuf> = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| host(path).is_ok_and(|host| host.label == label))
        .collect();
    folders.sort();
    folders
}

fn host(folder: &Path) -> anyhow::Result<Host> {
    let path = folder.join("host.toml");
    let text = std::fs::read_to_string(&path).with_context(|| {
        format!("'{}' is no folder of results: cannot read host.toml", folder.display())
    })?;
    toml::from_str(&text).with_context(|| path.display().to_string())
}

/// Reads `folders`, which must be of one machine.
pub fn read(folders: &[PathBuf]) -> anyhow::Result<OwnResults> {
    let first = folders.first().context("no folder of results is given")?;
    let machine = host(first)?;
    let (mut points, mut names) = (Vec::new(), Vec::new());
    let (mut bandwidths, mut computes) = (Vec::new(), Vec::new());
    for folder in folders {
        let label = host(folder)?.label;
        ensure!(
            label == machine.label,
            "'{}' was measured on '{label}' and '{}' on '{}'; give the results of one machine",
            folder.display(),
            first.display(),
            machine.label
        );
        let name = folder.file_name().map_or_else(
            || folder.display().to_string(),
            |name| format!("results/{}", name.to_string_lossy()),
        );
        for record in read_records(&folder.join("records.csv"))? {
            points.extend(measured::points(&record, &name));
            bandwidths.extend(record.probe_bandwidth_gb_s_before);
            bandwidths.extend(record.probe_bandwidth_gb_s_after);
            computes.extend(record.probe_tflops_before);
            computes.extend(record.probe_tflops_after);
        }
        names.push(name);
    }
    let speeds = stats::median(&bandwidths).zip(stats::median(&computes)).map(|(b, c)| Speeds {
        bandwidth: GbPerSecond(b),
        compute: Tflops(c),
        source: format!("the median of {} probes in the results", bandwidths.len()),
    });
    Ok(OwnResults { host: machine, folders: names, points, speeds })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host;
    use crate::record::{Folder, Outcome, Record};

    fn folder(root: &Path, label: &str, bandwidth: f64) -> PathBuf {
        let mut host = host::describe();
        host.label = label.to_owned();
        let text = toml::to_string(&host).unwrap();
        let mut folder = Folder::create(root, label, "", &text).unwrap();
        let record = Record {
            case_id: "a".to_owned(),
            engine: "llama.cpp".to_owned(),
            model: "qwen3-0.6b".to_owned(),
            quant: "Q8_0".to_owned(),
            batch: 1,
            outcome: Outcome::Measured,
            backend: Some("CPU".to_owned()),
            decode_tok_s_median: Some(40.0),
            probe_bandwidth_gb_s_before: Some(bandwidth),
            probe_bandwidth_gb_s_after: Some(bandwidth + 2.0),
            probe_tflops_before: Some(0.2),
            ..Record::default()
        };
        folder.add::<()>(vec![record], &[]).unwrap();
        folder.path().to_owned()
    }

    #[test]
    fn folders_of_one_machine_are_found_and_read_together() {
        let root = tempfile::tempdir().unwrap();
        folder(root.path(), "this", 30.0);
        folder(root.path(), "this", 40.0);
        folder(root.path(), "other", 90.0);
        std::fs::create_dir(root.path().join("empty")).unwrap();
        let found = of_host(root.path(), "this");
        assert_eq!(found.len(), 2);
        let results = read(&found).unwrap();
        assert_eq!(results.points.len(), 2);
        assert_eq!(results.points[0].folder, "results/this");
        let speeds = results.speeds.unwrap();
        assert_eq!((speeds.bandwidth, speeds.compute), (GbPerSecond(36.0), Tflops(0.2)));
    }

    #[test]
    fn results_of_two_machines_are_refused() {
        let root = tempfile::tempdir().unwrap();
        let folders = [folder(root.path(), "this", 30.0), folder(root.path(), "other", 30.0)];
        let error = read(&folders).unwrap_err().to_string();
        assert!(error.contains("give the results of one machine"), "{error}");
        assert!(of_host(&root.path().join("nothing"), "this").is_empty());
    }
}
