//! Devices that models run on, each with its source and date.

use std::sync::LazyLock;

use anyhow::{Context, bail};
use serde::Deserialize;

use crate::catalog::nearest;
use crate::units::{Bytes, GbPerSecond, Tflops, Watts};

/// The rows, embedded so that the program needs no file beside it.
const ROWS: &str = include_str!("hardware.csv");

/// Every device of the catalogue, in the order of `hardware.csv`.
pub fn all() -> &'static [Device] {
    static DEVICES: LazyLock<Vec<Device>> = LazyLock::new(|| {
        read(ROWS).expect("the embedded hardware.csv is checked by a test of this module")
    });
    &DEVICES
}

/// The `own` devices and the catalogue's of which a price is known.
pub fn priced(own: &[Device]) -> impl Iterator<Item = &Device> {
    own.iter().chain(all()).filter(|d| d.list_price.is_some() || d.street_price.is_some())
}

/// The device with this id or name, in any case, among the catalogue's and `own` ones.
pub fn find<'a>(word: &str, own: &'a [Device]) -> anyhow::Result<&'a Device> {
    let known = || own.iter().chain(all());
    let said = |d: &&Device| d.id.eq_ignore_ascii_case(word) || d.name.eq_ignore_ascii_case(word);
    if let Some(device) = known().find(said) {
        return Ok(device);
    }
    // `rtx-3060` where the catalogue has it with one memory alone.
    let prefix = format!("{}-", word.to_lowercase());
    let longer: Vec<&Device> =
        known().filter(|d| d.id.to_lowercase().starts_with(&prefix)).collect();
    let size = |d: &Device| {
        let gb = d.id[prefix.len()..].strip_suffix("gb");
        gb.is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
    };
    if let [device] = longer.as_slice()
        && size(device)
    {
        return Ok(device);
    }
    let near = nearest(word, known().map(|d| d.id.as_str()));
    match near.as_slice() {
        [] => bail!("unknown device '{word}'; `bench devices` lists what is known"),
        near => bail!("unknown device '{word}'; did you mean '{}'?", near.join("' or '")),
    }
}

/// How a device's memory is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A card with its own memory.
    Gpu,
    /// A chip whose GPU shares the machine's memory.
    Unified,
    /// A processor and its memory.
    Cpu,
}

/// Devices whose speed follows the same constants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Family {
    /// GeForce 30 and its workstation and server sisters.
    NvidiaAmpere,
    /// GeForce 40 and its sisters.
    NvidiaAda,
    /// GeForce 50 and its sisters.
    NvidiaBlackwell,
    /// Data-centre cards with high-bandwidth memory: A30 to B200.
    NvidiaHbm,
    /// DGX Spark.
    NvidiaGb10,
    /// The first generation, whose GPU is weak for its bandwidth.
    AppleM1,
    /// Later chips of one die.
    Apple,
    /// Two dies joined: neither reaches all of the bandwidth.
    AppleUltra,
    /// Radeon cards.
    AmdRdna,
    /// Instinct cards.
    AmdHbm,
    /// Processors with a Radeon inside.
    AmdApu,
    /// Arc.
    IntelXe,
    /// No GPU used.
    Cpu,
}

impl Family {
    /// Every family.
    pub const ALL: [Self; 13] = [
        Self::NvidiaAmpere,
        Self::NvidiaAda,
        Self::NvidiaBlackwell,
        Self::NvidiaHbm,
        Self::NvidiaGb10,
        Self::AppleM1,
        Self::Apple,
        Self::AppleUltra,
        Self::AmdRdna,
        Self::AmdHbm,
        Self::AmdApu,
        Self::IntelXe,
        Self::Cpu,
    ];

    /// The word in `hardware.csv`.
    pub fn name(self) -> &'static str {
        match self {
            Self::NvidiaAmpere => "nvidia-ampere",
            Self::NvidiaAda => "nvidia-ada",
            Self::NvidiaBlackwell => "nvidia-blackwell",
            Self::NvidiaHbm => "nvidia-hbm",
            Self::NvidiaGb10 => "nvidia-gb10",
            Self::AppleM1 => "apple-m1",
            Self::Apple => "apple",
            Self::AppleUltra => "apple-ultra",
            Self::AmdRdna => "amd-rdna",
            Self::AmdHbm => "amd-hbm",
            Self::AmdApu => "amd-apu",
            Self::IntelXe => "intel-xe",
            Self::Cpu => "cpu",
        }
    }

    /// Whether it is one of Apple's.
    pub fn is_apple(self) -> bool {
        matches!(self, Self::AppleM1 | Self::Apple | Self::AppleUltra)
    }
}

/// A price and when it was seen.
#[derive(Clone, Debug, PartialEq)]
pub struct Price {
    /// US dollars, as the source writes them.
    pub usd: String,
    /// When, as the source writes it.
    pub as_of: String,
    /// Where.
    pub source: String,
}

/// A device, as its maker or driver describes it.
#[derive(Clone, Debug, PartialEq)]
pub struct Device {
    /// The word for this device in files and flags.
    pub id: String,
    /// What people call it.
    pub name: String,
    /// Who makes it.
    pub vendor: String,
    /// How its memory is reached.
    pub kind: Kind,
    /// Whose speed constants it follows.
    pub family: Family,
    /// What its driver reports (not the label on the box); unified memory: what is built in.
    pub memory: Option<Bytes>,
    /// The label on the box, in GB.
    pub memory_label_gb: Option<f64>,
    /// Memory bandwidth, as stated by its maker.
    pub bandwidth: Option<GbPerSecond>,
    /// What it can send to others like it at once, one way, where links or a switch join them all.
    pub link: Option<GbPerSecond>,
    /// Among how many others this is divided, a link to each; `None`: a switch gives all to any.
    pub link_peers: Option<u32>,
    /// FP16 matrix speed, dense, as stated by its maker.
    pub fp16: Option<Tflops>,
    /// GPU cores, where a chip is sold with several counts.
    pub gpu_cores: Option<u32>,
    /// Board or system power at full load.
    pub power: Option<Watts>,
    /// Power when idle.
    pub idle_power: Option<Watts>,
    /// The maker's price.
    pub list_price: Option<Price>,
    /// The price in shops.
    pub street_price: Option<Price>,
    /// Where the row comes from.
    pub source: String,
    /// Conflicts between sources and other remarks.
    pub notes: String,
}

impl Device {
    /// The share of built-in memory that the system leaves to models, with the reason.
    ///
    /// macOS lets the GPU have two thirds up to 36 GB and three quarters above (LocalScore's
    /// database: 21.33 of 32 GB, 96 of 128 GB). A card's driver reports what is left already; of a
    /// plain machine's memory the system and the desktop take some.
    pub fn usable(&self) -> Option<(Bytes, &'static str)> {
        let memory = self.memory?;
        let share = |part: f64| Bytes((memory.0 as f64 * part) as u64);
        Some(match self.kind {
            Kind::Gpu => (memory, "as the driver reports"),
            Kind::Unified if self.family.is_apple() && memory.gib() <= 36.0 => {
                (share(2.0 / 3.0), "macOS leaves two thirds to the GPU")
            }
            Kind::Unified if self.family.is_apple() => {
                (share(0.75), "macOS leaves three quarters to the GPU")
            }
            Kind::Unified if self.family == Family::NvidiaGb10 => (
                Bytes(memory.0.saturating_sub(Bytes::from_gib(3.0).0)),
                "less 3 GiB for the system",
            ),
            // 96 GB on Windows, about 108 to 120 GB of 128 with Linux' GTT (row's own notes).
            Kind::Unified => (share(0.84), "what Linux lets the GPU map (GTT)"),
            Kind::Cpu => (share(0.9), "less a tenth for the system"),
        })
    }
}

#[derive(Deserialize)]
struct Row {
    id: String,
    name: String,
    vendor: String,
    kind: Kind,
    family: Family,
    memory_gib: Option<f64>,
    memory_gb_marketing: Option<f64>,
    bandwidth_gb_s: Option<f64>,
    link_gb_s: Option<f64>,
    link_peers: Option<u32>,
    fp16_tflops_dense: Option<f64>,
    gpu_cores: Option<u32>,
    tdp_w: Option<f64>,
    idle_w: Option<f64>,
    price_usd: String,
    price_date: String,
    street_price_usd: String,
    street_price_date: String,
    source: String,
    street_source: String,
    notes: String,
}

fn read(rows: &str) -> anyhow::Result<Vec<Device>> {
    let price = |usd: &str, as_of: &str, source: &str| {
        (!usd.is_empty()).then(|| Price {
            usd: usd.to_owned(),
            as_of: as_of.to_owned(),
            source: source.to_owned(),
        })
    };
    csv::Reader::from_reader(rows.as_bytes())
        .deserialize()
        .enumerate()
        .map(|(i, row)| {
            let row: Row = row.with_context(|| format!("hardware.csv:{}", i + 2))?;
            Ok(Device {
                list_price: price(&row.price_usd, &row.price_date, &row.source),
                street_price: price(
                    &row.street_price_usd,
                    &row.street_price_date,
                    &row.street_source,
                ),
                id: row.id,
                name: row.name,
                vendor: row.vendor,
                kind: row.kind,
                family: row.family,
                memory: row.memory_gib.map(Bytes::from_gib),
                memory_label_gb: row.memory_gb_marketing,
                bandwidth: row.bandwidth_gb_s.map(GbPerSecond),
                link: row.link_gb_s.map(GbPerSecond),
                link_peers: row.link_peers,
                fp16: row.fp16_tflops_dense.map(Tflops),
                gpu_cores: row.gpu_cores,
                power: row.tdp_w.map(Watts),
                idle_power: row.idle_w.map(Watts),
                source: row.source,
                notes: row.notes,
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_at_least_75_devices_each_with_a_source() {
        let devices = read(ROWS).unwrap();
        assert!(devices.len() >= 75, "{}", devices.len());
        for device in &devices {
            assert!(!device.source.is_empty(), "{}", device.id);
            assert!(device.bandwidth.is_some(), "{}", device.id);
            assert_eq!(devices.iter().filter(|d| d.id == device.id).count(), 1, "{}", device.id);
        }
    }

    #[test]
    fn a_card_has_the_memory_of_its_driver_and_not_of_its_box() {
        let card = find("rtx-5090", &[]).unwrap();
        assert!((card.memory.unwrap().gib() - 31.84).abs() < 0.01);
        assert_eq!(card.memory_label_gb, Some(32.0));
    }

    #[test]
    fn a_laptop_card_is_not_the_desktop_card() {
        let (laptop, desktop) =
            (find("rtx-5090-laptop", &[]).unwrap(), find("rtx-5090", &[]).unwrap());
        assert!(laptop.memory < desktop.memory);
        assert!(laptop.bandwidth.unwrap().0 < desktop.bandwidth.unwrap().0);
    }

    #[test]
    fn an_unknown_device_gets_the_nearest_names() {
        let error = find("rtx-5099", &[]).unwrap_err().to_string();
        assert!(error.contains("unknown device 'rtx-5099'; did you mean 'rtx-50"), "{error}");
    }

    #[test]
    fn a_size_may_be_left_out_where_there_is_one() {
        assert_eq!(find("RTX-3060", &[]).unwrap().id, "rtx-3060-12gb");
        // Here are three with two memories.
        assert!(find("a100", &[]).unwrap_err().to_string().contains("'a100-40gb'"));
    }

    #[test]
    fn macos_keeps_a_third_or_a_quarter() {
        let share = |id: &str| {
            let device = find(id, &[]).unwrap();
            device.usable().unwrap().0.gib() / device.memory.unwrap().gib()
        };
        assert!((share("apple-m1") - 2.0 / 3.0).abs() < 1e-6);
        assert!((share("apple-m4-max") - 0.75).abs() < 1e-6);
    }
}
