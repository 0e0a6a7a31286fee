//! Which device of the catalogue a detected one is: by its PCI id, else by its name.

use std::sync::LazyLock;

use serde::Deserialize;

use super::hardware::{self, Device, Family, Kind};
use crate::units::{Bytes, or_absent};

/// Ids of the devices in the catalogue, from the PCI ID Project's database (2025-07-11,
/// <https://pci-ids.ucw.cz>, by Martin Mares and Albert Pool; its 3-clause BSD licence allows it).
const IDS: &str = include_str!("pci_ids.csv");

/// The source of every match by a PCI id.
pub const SOURCE: &str = "pci.ids of 2025-07-11, https://pci-ids.ucw.cz";

/// Chips that are sold with several counts of GPU cores, which only the count of CPU cores tells
/// apart: Apple's technical specifications of the MacBook Pro of 2023 and 2024.
const APPLE_CORES: [(&str, u32); 4] =
    [("apple-m3-max-30", 14), ("apple-m3-max", 16), ("apple-m4-max-32", 14), ("apple-m4-max", 16)];

/// The share by which a driver's memory may differ from the catalogue's.
const MEMORY_TOLERANCE: f64 = 0.1;

/// What a driver or the kernel says of a GPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen<'a> {
    /// Its name.
    pub name: &'a str,
    /// Vendor and device, such as `10de:2b85`.
    pub pci_id: Option<&'a str>,
    /// Its memory.
    pub memory: Option<Bytes>,
}

/// A detected device and its row in the catalogue.
#[derive(Clone, Debug, PartialEq)]
pub struct Identified {
    /// The row.
    pub device: &'static Device,
    /// By what it was recognised.
    pub by: String,
    /// What it may be instead.
    pub doubt: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Row {
    pci_id: String,
    device: String,
    database_name: String,
    shared_with: String,
}

fn rows() -> &'static [Row] {
    static ROWS: LazyLock<Vec<Row>> =
        LazyLock::new(|| read(IDS).expect("a test of this module reads the embedded pci_ids.csv"));
    &ROWS
}

fn read(text: &str) -> anyhow::Result<Vec<Row>> {
    super::rows("pci_ids.csv", text)
}

/// The row of a GPU beside `main_memory`; an error says in words why there is none.
pub fn gpu(seen: &Seen<'_>, main_memory: Bytes) -> Result<Identified, String> {
    let listed: Vec<&Row> =
        rows().iter().filter(|row| Some(row.pci_id.as_str()) == seen.pci_id).collect();
    let Some(first) = listed.first() else { return by_name(seen, main_memory) };
    let devices: Vec<&Device> =
        listed.iter().filter_map(|row| hardware::find(&row.device, &[]).ok()).collect();
    let device = nearest_memory(&devices, seen.memory, main_memory).ok_or_else(|| {
        format!(
            "PCI id {} is {}, which is catalogued with {} and not {}: see `bench devices`",
            first.pci_id,
            first.database_name,
            devices.iter().map(|d| or_absent(d.memory)).collect::<Vec<_>>().join(" or "),
            or_absent(seen.memory)
        )
    })?;
    let doubt = (!first.shared_with.is_empty())
        .then(|| format!("{} has the same PCI id", first.shared_with));
    Ok(Identified { device, by: format!("PCI id {}", first.pci_id), doubt })
}

fn by_name(seen: &Seen<'_>, main_memory: Bytes) -> Result<Identified, String> {
    let wanted = words(seen.name);
    let is_laptop = |words: &[String]| words.iter().any(|w| w == "laptop");
    let fits = |device: &&'static Device| {
        let have = words(&device.id);
        let rest: Vec<&String> = have.iter().filter(|w| !wanted.contains(w)).collect();
        !wanted.is_empty()
            && wanted.iter().all(|w| have.contains(w))
            && is_laptop(&have) == is_laptop(&wanted)
            && rest.iter().all(|w| says_size(w))
    };
    let devices: Vec<&'static Device> = hardware::all().iter().filter(fits).collect();
    let id = seen.pci_id.map_or_else(String::new, |id| format!(" (PCI id {id})"));
    let device = nearest_memory(&devices, seen.memory, main_memory).ok_or_else(|| {
        format!("'{}'{id} is not in the catalogue: describe it with `--catalog FILE`", seen.name)
    })?;
    Ok(Identified { device, by: format!("name '{}'", seen.name), doubt: None })
}

/// The words of a product's name that tell products apart.
fn words(name: &str) -> Vec<String> {
    const SAYS_NOTHING: [&str; 8] =
        ["nvidia", "geforce", "amd", "radeon", "intel", "gpu", "generation", "graphics"];
    let name = name.to_lowercase();
    name.split(|c: char| !c.is_ascii_alphanumeric())
        .filter(|w| !w.is_empty() && !SAYS_NOTHING.contains(w))
        .map(str::to_owned)
        .collect()
}

/// Whether a word of a catalogue's id says how much memory there is, or in which box it is sold.
fn says_size(word: &str) -> bool {
    let digits = word.strip_suffix("gb").unwrap_or(word);
    ["dgx", "spark"].contains(&word)
        || (digits.len() < 4 && digits.bytes().all(|b| b.is_ascii_digit()))
}

/// Of devices that are otherwise alike the one with this memory. A GPU that shares the machine's
/// memory has about as much as there is of it.
fn nearest_memory(
    devices: &[&'static Device],
    memory: Option<Bytes>,
    main_memory: Bytes,
) -> Option<&'static Device> {
    let distance = |device: &Device| {
        let seen = match device.kind {
            Kind::Gpu => memory,
            Kind::Unified | Kind::Cpu => Some(built_in(device, main_memory, memory)),
        };
        let listed = device.memory.or(device.memory_label_gb.map(Bytes::from_gib));
        match (listed, seen) {
            (Some(listed), Some(seen)) => (seen.0 as f64 / listed.0 as f64).ln().abs(),
            _ => 0.0,
        }
    };
    let near = devices.iter().filter(|d| {
        // How much is built in varies in such machines.
        d.kind != Kind::Gpu || distance(d) <= MEMORY_TOLERANCE
    });
    near.min_by(|a, b| distance(a).total_cmp(&distance(b))).copied()
}

/// All memory of a machine whose GPU shares it: what the firmware sets aside for AMD's is missing
/// from the rest, and its driver states it.
pub fn built_in(device: &Device, main_memory: Bytes, of_driver: Option<Bytes>) -> Bytes {
    let set_aside = of_driver.filter(|_| device.family == Family::AmdApu).map_or(0, |m| m.0);
    Bytes(main_memory.0 + set_aside)
}

/// The row of a chip whose GPU shares the machine's memory, from the name of its processor.
pub fn chip(processor: &str, cores: Option<u32>) -> Option<Identified> {
    let said = words(processor);
    let is_apple = processor.starts_with("Apple ");
    let candidates: Vec<&'static Device> = hardware::all()
        .iter()
        .filter(|d| d.kind == Kind::Unified)
        .filter(|d| {
            let known = words(&d.id);
            if is_apple {
                // `Apple M4` is no M4 Max, and the count of GPU cores is not said.
                let name = d.name.split(" (").next().unwrap_or_default();
                name.eq_ignore_ascii_case(processor)
            } else {
                known.iter().all(|w| said.contains(w))
            }
        })
        .collect();
    let by = format!("processor '{processor}'");
    let has_cores = |d: &Device| APPLE_CORES.iter().any(|(id, n)| *id == d.id && Some(*n) == cores);
    if let Some(device) = candidates.iter().find(|d| has_cores(d)) {
        let by = format!("{by} with {} cores", or_absent(cores));
        return Some(Identified { device, by, doubt: None });
    }
    let speed = |d: &Device| d.bandwidth.map_or(0.0, |b| b.0);
    let slowest = candidates.iter().min_by(|a, b| speed(a).total_cmp(&speed(b)))?;
    let others: Vec<&str> =
        candidates.iter().filter(|d| d.id != slowest.id).map(|d| d.name.as_str()).collect();
    let doubt = (!others.is_empty())
        .then(|| format!("{} is called the same; the slower one is assumed", others.join(" or ")));
    Some(Identified { device: slowest, by, doubt })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id_of(name: &str, pci_id: Option<&str>, gib: f64) -> Result<String, String> {
        let seen = Seen { name, pci_id, memory: Some(Bytes::from_gib(gib)) };
        gpu(&seen, Bytes::from_gib(64.0)).map(|found| found.device.id.clone())
    }

    #[test]
    fn every_id_leads_to_a_row_of_the_catalogue() {
        for row in read(IDS).unwrap() {
            let device = hardware::find(&row.device, &[]).unwrap();
            let laptop = row.database_name.contains("Mobile") || row.database_name.contains("Lap");
            assert_eq!(device.id.contains("laptop"), laptop, "{row:?}");
            let (vendor, chip) = row.pci_id.split_once(':').unwrap();
            assert!(["10de", "1002", "8086"].contains(&vendor) && chip.len() == 4, "{row:?}");
        }
    }

    #[test]
    fn a_laptop_card_is_told_from_the_desktop_card_of_the_same_name() {
        let name = "NVIDIA GeForce RTX 4090";
        assert_eq!(id_of(name, Some("10de:2684"), 23.99).unwrap(), "rtx-4090");
        assert_eq!(id_of(name, Some("10de:2757"), 15.99).unwrap(), "rtx-4090-laptop");
        let laptop = "NVIDIA GeForce RTX 5090 Laptop GPU";
        assert_eq!(id_of(laptop, None, 23.9).unwrap(), "rtx-5090-laptop");
        assert_eq!(id_of(laptop, Some("10de:ffff"), 23.9).unwrap(), "rtx-5090-laptop");
    }

    #[test]
    fn one_id_with_several_sizes_is_told_by_its_memory() {
        assert_eq!(id_of("x", Some("1002:744c"), 23.98).unwrap(), "rx-7900-xtx");
        assert_eq!(id_of("x", Some("1002:744c"), 19.98).unwrap(), "rx-7900-xt");
        assert_eq!(id_of("x", Some("10de:2d04"), 15.93).unwrap(), "rtx-5060-ti-16gb");
        let small = id_of("x", Some("10de:2d04"), 7.96).unwrap_err();
        assert!(small.contains("RTX 5060 Ti") && small.contains("7.96 GiB"), "{small}");
    }

    #[test]
    fn an_id_that_several_products_share_leaves_a_doubt() {
        let seen = Seen { name: "x", pci_id: Some("1002:7550"), memory: None };
        let found = gpu(&seen, Bytes::from_gib(64.0)).unwrap();
        assert_eq!(found.device.id, "rx-9070-xt");
        assert!(found.doubt.unwrap().contains("RX 9070 GRE"));
    }

    #[test]
    fn a_card_without_a_known_id_goes_by_its_name_and_memory() {
        assert_eq!(id_of("NVIDIA GeForce RTX 3060", None, 12.0).unwrap(), "rtx-3060-12gb");
        assert!(id_of("NVIDIA GeForce RTX 3060", None, 8.0).is_err());
        assert!(id_of("NVIDIA GeForce RTX 4060", None, 8.0).is_err());
        assert_eq!(id_of("NVIDIA GeForce RTX 4070", None, 11.99).unwrap(), "rtx-4070");
        assert!(
            id_of("NVIDIA GeForce GTX 1080", Some("10de:1b80"), 8.0)
                .unwrap_err()
                .contains("'NVIDIA GeForce GTX 1080' (PCI id 10de:1b80) is not in the catalogue")
        );
    }

    #[test]
    fn gpus_that_share_memory_are_told_apart_by_the_machines_memory() {
        let seen = Seen { name: "NVIDIA GB10", pci_id: None, memory: None };
        let of = |gib: f64| gpu(&seen, Bytes::from_gib(gib)).unwrap().device.id.clone();
        assert_eq!(of(119.0), "dgx-spark-gb10");
        assert_eq!(of(60.0), "dgx-spark-gb10-64");
    }

    #[test]
    fn a_chip_is_known_by_the_name_of_its_processor() {
        let of = |name: &str, cores: u32| chip(name, Some(cores)).map(|f| f.device.id.clone());
        assert_eq!(of("Apple M4", 10).unwrap(), "apple-m4");
        assert_eq!(of("Apple M4 Max", 16).unwrap(), "apple-m4-max");
        assert_eq!(of("Apple M4 Max", 14).unwrap(), "apple-m4-max-32");
        assert_eq!(of("AMD Ryzen AI 9 HX 370 w/ Radeon 890M", 12).unwrap(), "ryzen-ai-9-hx-370");
        assert_eq!(of("Intel(R) Core(TM) Ultra 7 258V", 8).unwrap(), "core-ultra-7-258v");
        assert_eq!(of("AMD EPYC", 2), None);
        let unsure = chip("Apple M5 Max", Some(18)).unwrap();
        assert_eq!(unsure.device.id, "apple-m5-max-32");
        assert!(unsure.doubt.unwrap().contains("40-core"));
    }
}
