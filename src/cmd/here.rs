//! This machine, with what it has measured of itself, as predictions take it.

use std::path::{Path, PathBuf};

use anyhow::ensure;

use crate::fit::constants;
use crate::fit::machine::Machine;
use crate::fit::own::Own;
use crate::host::{self as this_host, Host};

use super::{host, own_results};

/// Where `bench run` puts results.
const RESULTS: &str = "results";

/// This machine.
#[derive(Clone, Debug)]
pub struct Here {
    /// What models are placed on.
    pub machine: Machine,
    /// What its records say.
    pub own: Own,
    /// Where its speeds come from, in sentences.
    pub notes: Vec<String>,
}

impl Here {
    /// Describes it, with the result folders `records`; all of this machine in `results/` where
    /// none are given, and none where the only one is `none`.
    pub fn look(records: &[PathBuf]) -> anyhow::Result<Self> {
        let described = this_host::describe();
        let variable = std::env::var(this_host::gpu::VISIBLE).ok();
        let described = seen_by_programs(described, variable.as_deref());
        let folders = match records {
            [only] if only == Path::new("none") => Vec::new(),
            [] => own_results::of_host(Path::new(RESULTS), &described.label),
            given => given.to_vec(),
        };
        let results = match folders.as_slice() {
            [] => None,
            folders => Some(own_results::read(folders)?),
        };
        if let Some(results) = &results {
            ensure!(
                results.host.label == described.label,
                "'{}' was measured on '{}' and this machine is '{}'; predict for a machine of the \
                 catalogue with --device",
                folders[0].display(),
                results.host.label,
                described.label
            );
        }
        let recorded = results.as_ref().and_then(|results| results.speeds.clone());
        let speeds = host::this_machines_speeds(&described, recorded);
        let mut notes = vec![match &speeds {
            Ok(s) => format!(
                "{}: reads {} of memory, {} in 32 bits: {}",
                described.label, s.bandwidth, s.compute, s.source
            ),
            Err(why) => format!("{}: no speed: {why}", described.label),
        }];
        notes.extend(host::recognised(&described));
        let machine = host::machine(&described, speeds.as_ref().ok());
        let own = match results {
            None => Own::default(),
            Some(results) => {
                let own = Own::of(&results.points, &machine, constants::embedded());
                notes.push(format!(
                    "calibrated by {} speeds in {}; {} left out: other programs disturbed them, or \
                     an older version of the engine was measured",
                    own.points().len(),
                    results.folders.join(", "),
                    results.points.len() - own.points().len()
                ));
                own
            }
        };
        Ok(Self { machine, own, notes })
    }
}

/// `host` with the GPUs alone that programs may use where `CUDA_VISIBLE_DEVICES` is `variable`; its
/// label still names all.
fn seen_by_programs(mut host: Host, variable: Option<&str>) -> Host {
    host.gpus = this_host::visible(&host.gpus, variable).into_iter().cloned().collect();
    host
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::Gpu;
    use crate::units::Bytes;

    #[test]
    fn hidden_cards_hold_no_layers() {
        let card = |pci_id: &str, gib: f64| Gpu {
            name: "a card".to_owned(),
            uuid: Some(format!("GPU-{pci_id}")),
            pci_id: Some(pci_id.to_owned()),
            memory: Some(Bytes::from_gib(gib)),
            ..Gpu::default()
        };
        let mut described = this_host::describe();
        described.gpus = vec![card("10de:2684", 23.5), card("10de:2757", 15.9)];
        let label = described.label.clone();
        let ids = |variable: Option<&str>| -> Vec<String> {
            let seen = seen_by_programs(described.clone(), variable);
            assert_eq!(seen.label, label);
            host::machine(&seen, None).devices.into_iter().map(|d| d.id).collect()
        };
        assert_eq!(ids(None), ["rtx-4090", "rtx-4090-laptop"]);
        assert_eq!(ids(Some("1")), ["rtx-4090-laptop"]);
        assert_eq!(ids(Some("")), ["this-machine"]);
    }
}
