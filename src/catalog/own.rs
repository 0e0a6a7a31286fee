//! A user's own devices and prices, from a TOML file.

use std::path::Path;

use anyhow::{Context, bail};
use serde::Deserialize;

use super::hardware::{self, Device, Family, Kind, Price};
use crate::units::{Bytes, GbPerSecond, Tflops, Watts};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    device: Vec<OwnDevice>,
    #[serde(default)]
    price: Vec<OwnPrice>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OwnDevice {
    id: String,
    name: Option<String>,
    kind: Kind,
    family: Family,
    memory_gib: f64,
    bandwidth_gb_s: f64,
    fp16_tflops: Option<f64>,
    power_w: Option<f64>,
    idle_w: Option<f64>,
    price_usd: Option<f64>,
}

/// A price that replaces the catalogue's.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OwnPrice {
    device: String,
    usd: f64,
}

/// The devices in `text`, the content of the file `path`: new ones, and the catalogue's at other
/// prices.
pub fn read(path: &Path, text: &str) -> anyhow::Result<Vec<Device>> {
    let place = path.display();
    let file: File = toml::from_str(text).with_context(|| place.to_string())?;
    let source = place.to_string();
    let price = |usd: f64| Price {
        usd: format!("{usd}"),
        as_of: "stated by you".to_owned(),
        source: source.clone(),
    };
    let positive = |what: &str, id: &str, value: f64| {
        if value > 0.0 && value.is_finite() {
            Ok(value)
        } else {
            bail!("{place}: {what} of '{id}' is {value}; it must be above 0")
        }
    };
    let mut devices = Vec::new();
    for own in file.device {
        devices.push(Device {
            name: own.name.unwrap_or_else(|| own.id.clone()),
            vendor: String::new(),
            kind: own.kind,
            family: own.family,
            memory: Some(Bytes::from_gib(positive("memory_gib", &own.id, own.memory_gib)?)),
            memory_label_gb: None,
            bandwidth: Some(GbPerSecond(positive("bandwidth_gb_s", &own.id, own.bandwidth_gb_s)?)),
            fp16: own.fp16_tflops.map(Tflops),
            gpu_cores: None,
            power: own.power_w.map(Watts),
            idle_power: own.idle_w.map(Watts),
            list_price: None,
            street_price: own.price_usd.map(price),
            source: source.clone(),
            notes: String::new(),
            id: own.id,
        });
    }
    for stated in file.price {
        let usd = positive("the price", &stated.device, stated.usd)?;
        let known = hardware::find(&stated.device, &devices).with_context(|| place.to_string())?;
        let mut device = known.clone();
        device.street_price = Some(price(usd));
        devices.retain(|d| d.id != device.id);
        devices.push(device);
    }
    Ok(devices)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> anyhow::Result<Vec<Device>> {
        read(Path::new("own.toml"), text)
    }

    #[test]
    fn a_device_and_a_price_are_read() {
        let devices = parse(
            "[[device]]\nid = \"my-card\"\nkind = \"gpu\"\nfamily = \"nvidia-ada\"\n\
             memory_gib = 20\nbandwidth_gb_s = 600\n[[price]]\ndevice = \"rtx-5090\"\nusd = 3200\n",
        )
        .unwrap();
        assert_eq!(devices.len(), 2);
        assert_eq!(
            hardware::find("my-card", &devices).unwrap().memory,
            Some(Bytes::from_gib(20.0))
        );
        let card = hardware::find("rtx-5090", &devices).unwrap();
        assert_eq!(card.street_price.as_ref().unwrap().usd, "3200");
        assert!(card.bandwidth.is_some());
    }

    #[test]
    fn an_unknown_key_or_a_wrong_number_names_the_file() {
        let error = |text: &str| format!("{:#}", parse(text).unwrap_err());
        assert!(error("[[device]]\nid = \"x\"\ncolour = 1\n").contains("own.toml"));
        assert!(error("[[price]]\ndevice = \"rtx-5099\"\nusd = 1\n").contains("did you mean"));
        assert!(error("[[price]]\ndevice = \"rtx-5090\"\nusd = -1\n").contains("above 0"));
    }
}
