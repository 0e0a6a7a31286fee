//! The probe's figures of this machine, kept in a file: one probe takes a moment, and a machine
//! that others share gives a different figure each time.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use serde::{Deserialize, Serialize};

use super::Probe;
use crate::units::{GbPerSecond, Tflops};

/// The file's name in its folder.
const NAME: &str = "probe.json";

/// Probes of one machine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Stored {
    /// The machine's label.
    pub host: String,
    /// When they were taken: UTC, to the second.
    pub taken: String,
    /// The version of `bench` that took them.
    pub bench_version: String,
    /// One after the other.
    pub probes: Vec<Probe>,
}

impl Stored {
    /// The median of the read bandwidths.
    pub fn read_bandwidth(&self) -> Option<GbPerSecond> {
        middle(self.probes.iter().map(|p| p.read_bandwidth.0)).map(GbPerSecond)
    }

    /// The median of the arithmetic speeds.
    pub fn compute(&self) -> Option<Tflops> {
        middle(self.probes.iter().map(|p| p.compute.0)).map(Tflops)
    }

    /// The slowest and the fastest read bandwidth.
    pub fn range(&self) -> Option<(GbPerSecond, GbPerSecond)> {
        let all = || self.probes.iter().map(|p| p.read_bandwidth.0);
        let ends = (all().reduce(f64::min)?, all().reduce(f64::max)?);
        Some((GbPerSecond(ends.0), GbPerSecond(ends.1)))
    }
}

fn middle(values: impl Iterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let upper = *values.get(values.len() / 2)?;
    Some(if values.len() % 2 == 1 { upper } else { (values[values.len() / 2 - 1] + upper) / 2.0 })
}

/// Where the probes of this machine are kept: a file in `cache`.
pub fn path(cache: &Path) -> PathBuf {
    cache.join(NAME)
}

/// The probes kept in `cache`; `None` where there are none, or of another machine.
pub fn read(cache: &Path, host: &str) -> anyhow::Result<Option<Stored>> {
    let path = path(cache);
    let remedy = || format!("cannot read '{}'; make it anew: bench host --probe", path.display());
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(remedy),
    };
    let stored: Stored = serde_json::from_str(&text).with_context(remedy)?;
    let speeds = stored.probes.iter().flat_map(|p| [p.read_bandwidth.0, p.compute.0]);
    let sound = !stored.probes.is_empty() && speeds.into_iter().all(|s| s.is_finite() && s > 0.0);
    ensure!(sound, "'{}' holds no speeds; make it anew: bench host --probe", path.display());
    Ok((stored.host == host).then_some(stored))
}

/// Keeps `stored` in `cache`, in one step; where.
pub fn write(cache: &Path, stored: &Stored) -> anyhow::Result<PathBuf> {
    let path = path(cache);
    let context = || format!("cannot write '{}'", path.display());
    fs::create_dir_all(cache).with_context(context)?;
    let mut file = tempfile::NamedTempFile::new_in(cache).with_context(context)?;
    serde_json::to_writer_pretty(&mut file, stored).with_context(context)?;
    file.persist(&path).map_err(|e| e.error).with_context(context)?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::{Bytes, Nanos};

    fn stored(bandwidths: &[f64]) -> Stored {
        let probe = |&gb: &f64| Probe {
            read_bandwidth: GbPerSecond(gb),
            compute: Tflops(0.2),
            threads: 2,
            buffer: Bytes(192 << 20),
            took: Nanos(300_000_000),
        };
        Stored {
            host: "amd-epyc-2c-24g".to_owned(),
            taken: "2026-11-21T10:00:00Z".to_owned(),
            bench_version: "0.1.0".to_owned(),
            probes: bandwidths.iter().map(probe).collect(),
        }
    }

    #[test]
    fn probes_survive_their_file_and_are_those_of_one_machine() {
        let cache = tempfile::tempdir().unwrap();
        assert_eq!(read(cache.path(), "amd-epyc-2c-24g").unwrap(), None);
        let kept = stored(&[30.0, 50.0, 31.0]);
        write(&cache.path().join("new"), &kept).unwrap();
        let found = read(&cache.path().join("new"), "amd-epyc-2c-24g").unwrap();
        assert_eq!(found.as_ref(), Some(&kept));
        assert_eq!(read(&cache.path().join("new"), "another").unwrap(), None);
    }

    #[test]
    fn the_median_counts_and_not_the_fastest() {
        let kept = stored(&[30.0, 50.0, 31.0]);
        assert_eq!(kept.read_bandwidth(), Some(GbPerSecond(31.0)));
        assert_eq!(kept.range(), Some((GbPerSecond(30.0), GbPerSecond(50.0))));
        assert_eq!(stored(&[30.0, 32.0]).read_bandwidth(), Some(GbPerSecond(31.0)));
    }

    #[test]
    fn a_damaged_file_is_an_error_with_a_remedy() {
        let cache = tempfile::tempdir().unwrap();
        for text in ["", "{}", r#"{"host":"a","taken":"","bench_version":"","probes":[]}"#] {
            fs::write(path(cache.path()), text).unwrap();
            let error = format!("{:#}", read(cache.path(), "a").unwrap_err());
            assert!(
                error.contains("probe.json") && error.contains("bench host --probe"),
                "{error}"
            );
        }
    }
}
