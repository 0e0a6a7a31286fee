//! Devices together: what lies where.

use anyhow::{Context, bail, ensure};

use crate::catalog::hardware::{self, Device, Family, Kind};
use crate::units::Bytes;

/// Devices that one model is spread over, and the memory beside them.
#[derive(Clone, Debug, PartialEq)]
pub struct Machine {
    /// What to call it: `2x rtx-5090`.
    pub name: String,
    /// The devices, the same one as often as it is there.
    pub devices: Vec<Device>,
    /// The processor that takes the layers which the devices cannot hold.
    pub host: Option<Device>,
}

/// The processor that is assumed beside a catalogued card: what a present desktop has.
pub const USUAL_HOST: &str = "cpu-ddr5-5600-2ch";
/// Its memory in GiB: assumed, four modules of 48 GiB.
pub const USUAL_HOST_GIB: f64 = 192.0;

impl Machine {
    /// From `rtx-5090`, `2x rtx-5090` or `rtx-4090 + rtx-3060-12gb`; `own` are the user's devices.
    pub fn parse(text: &str, own: &[Device]) -> anyhow::Result<Self> {
        let mut devices = Vec::new();
        let mut names = Vec::new();
        for part in text.split('+').map(str::trim) {
            let (count, name) = counted(part)?;
            let device = hardware::find(name, own)?;
            names.push(match count {
                1 => device.id.clone(),
                _ => format!("{count}x {}", device.id),
            });
            devices.extend(std::iter::repeat_n(device.clone(), count));
        }
        let cards = devices.iter().filter(|d| d.kind == Kind::Gpu).count();
        ensure!(
            devices.len() == 1 || cards == devices.len(),
            "only cards can be combined, and '{text}' names another device"
        );
        let host = (cards > 0).then(usual_host).transpose()?;
        Ok(Self { name: names.join(" + "), devices, host })
    }

    /// What the devices can hold together, with the reason; `None` where a memory is not known.
    pub fn usable(&self) -> Option<(Bytes, &'static str)> {
        let mut sum = 0;
        let mut reason = "";
        for device in &self.devices {
            let (bytes, why) = device.usable()?;
            sum += bytes.0.saturating_sub(driver_share(device.family).0);
            reason = why;
        }
        Some((Bytes(sum), reason))
    }

    /// Whether the GPU has memory of its own, so that looked-up weights stay on the host.
    pub fn has_own_memory(&self) -> bool {
        self.devices.iter().any(|d| d.kind == Kind::Gpu)
    }
}

fn usual_host() -> anyhow::Result<Device> {
    let known = hardware::find(USUAL_HOST, &[]).context("the usual processor is catalogued")?;
    Ok(Device { memory: Some(Bytes::from_gib(USUAL_HOST_GIB)), ..known.clone() })
}

fn counted(part: &str) -> anyhow::Result<(usize, &str)> {
    let Some((count, name)) = part.split_once(['x', '×']) else { return Ok((1, part)) };
    // `rtx-5090` has an x too: only digits before it are a count.
    let count = count.trim();
    if count.is_empty() || !count.bytes().all(|b| b.is_ascii_digit()) {
        return Ok((1, part));
    }
    let number: usize = count.parse().with_context(|| format!("too many devices in '{part}'"))?;
    if number == 0 || number > 64 {
        bail!("{number} devices in '{part}'; from 1 to 64 can be combined");
    }
    Ok((number, name.trim()))
}

/// What a driver's context takes of a card before the first tensor: about 0.5 GiB with CUDA, where
/// kernels are loaded (assumed; it differs by driver and card), less with others.
pub(super) fn driver_share(family: Family) -> Bytes {
    match family {
        Family::NvidiaAmpere | Family::NvidiaAda | Family::NvidiaBlackwell | Family::NvidiaHbm => {
            Bytes::from_gib(0.5)
        }
        Family::AmdRdna | Family::AmdHbm | Family::IntelXe => Bytes::from_gib(0.3),
        _ => Bytes(0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_and_sums_are_read() {
        let count = |text: &str| Machine::parse(text, &[]).map(|m| m.devices.len());
        assert_eq!(count("rtx-5090").unwrap(), 1);
        assert_eq!(count("2x rtx-5090").unwrap(), 2);
        assert_eq!(count("rtx-4090 + rtx-3060-12gb").unwrap(), 2);
        assert_eq!(count("2 × rtx-4090 + 1x rtx-5090").unwrap(), 3);
        let name = Machine::parse("2×RTX-4090+rtx-3060", &[]).unwrap().name;
        assert_eq!(name, "2x rtx-4090 + rtx-3060-12gb");
    }

    #[test]
    fn nonsense_is_refused_with_a_remedy() {
        let error = |text: &str| Machine::parse(text, &[]).unwrap_err().to_string();
        assert!(error("0x rtx-5090").contains("from 1 to 64"));
        assert!(error("99999999999999999999x rtx-5090").contains("too many devices"));
        assert!(error("rtx-5090 + apple-m4").contains("only cards"));
        assert!(error("2x rtx-5091").contains("did you mean 'rtx-50"));
    }
}
