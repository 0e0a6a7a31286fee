//! GPUs and their drivers, through NVML, which is loaded when it is first asked for.

use std::sync::OnceLock;

use nvml_wrapper::Nvml;
use nvml_wrapper::error::NvmlError;
use serde::{Deserialize, Serialize};

use crate::units::{Bytes, Watts};

/// A GPU as its driver describes it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Gpu {
    /// Its name.
    pub name: String,
    /// All of its memory, as the driver states it.
    pub memory: Option<Bytes>,
    /// The driver's version.
    pub driver: Option<String>,
    /// The newest CUDA version that the driver supports.
    pub cuda: Option<String>,
    /// CUDA compute capability, such as `12.0`.
    pub compute_capability: Option<String>,
    /// The power limit in force.
    pub power_limit: Option<Watts>,
    /// The widest link to the host: `gen5 x16`.
    pub pcie: Option<String>,
}

/// NVML, or in words why it is not there. It stays loaded: loading takes up to a second.
pub(crate) fn nvml() -> Result<&'static Nvml, &'static str> {
    static NVML: OnceLock<Result<Nvml, String>> = OnceLock::new();
    NVML.get_or_init(|| Nvml::init().map_err(|e| why_absent(&e))).as_ref().map_err(String::as_str)
}

fn why_absent(error: &NvmlError) -> String {
    match error {
        NvmlError::LibloadingError(_) | NvmlError::LibraryNotFound => {
            "no NVIDIA driver: its library libnvidia-ml.so.1 is not installed".to_owned()
        }
        NvmlError::DriverNotLoaded => {
            "the NVIDIA driver is installed and not loaded; try `sudo modprobe nvidia`".to_owned()
        }
        NvmlError::LibRmVersionMismatch => {
            "the NVIDIA driver was updated and not reloaded; restart the machine".to_owned()
        }
        NvmlError::NoPermission => {
            "no permission to talk to the NVIDIA driver; check /dev/nvidiactl".to_owned()
        }
        other => format!("NVML says: {other}"),
    }
}

/// The GPUs of this machine, and in words why there are none.
pub fn describe() -> (Vec<Gpu>, Option<String>) {
    let mut gpus = amd_gpus();
    let absent = match nvml() {
        Ok(nvml) => match nvidia_gpus(nvml) {
            Ok(found) => {
                gpus.splice(0..0, found);
                Some("the NVIDIA driver sees no GPU".to_owned())
            }
            Err(error) => Some(format!("NVML says: {error}")),
        },
        Err(_) if cfg!(all(target_os = "macos", target_arch = "aarch64")) => {
            Some("the GPU is part of the processor and shares its memory".to_owned())
        }
        Err(reason) => Some(reason.to_owned()),
    };
    let absent = absent.filter(|_| gpus.is_empty());
    (gpus, absent)
}

fn nvidia_gpus(nvml: &Nvml) -> Result<Vec<Gpu>, NvmlError> {
    let driver = nvml.sys_driver_version().ok();
    // 12080 is 12.8.
    let cuda = nvml.sys_cuda_driver_version().ok();
    let cuda = cuda.map(|v| format!("{}.{}", v / 1000, v % 1000 / 10));
    (0..nvml.device_count()?)
        .map(|index| {
            let device = nvml.device_by_index(index)?;
            let link = device.max_pcie_link_gen().ok().zip(device.max_pcie_link_width().ok());
            Ok(Gpu {
                name: device.name()?,
                memory: device.memory_info().ok().map(|m| Bytes(m.total)),
                driver: driver.clone(),
                cuda: cuda.clone(),
                compute_capability: device
                    .cuda_compute_capability()
                    .ok()
                    .map(|c| format!("{}.{}", c.major, c.minor)),
                power_limit: device
                    .enforced_power_limit()
                    .ok()
                    .map(|milliwatts| Watts(f64::from(milliwatts) / 1e3)),
                pcie: link.map(|(generation, width)| format!("gen{generation} x{width}")),
            })
        })
        .collect()
}

/// Whether an NVIDIA GPU is plugged in, with or without a driver.
pub fn has_nvidia_card() -> bool {
    let Ok(devices) = std::fs::read_dir("/sys/bus/pci/devices") else { return false };
    devices.flatten().any(|device| {
        let read = |name| super::read_trimmed(&device.path().join(name)).unwrap_or_default();
        // PCI's class 03 is a display controller.
        read("vendor") == "0x10de" && read("class").starts_with("0x03")
    })
}

/// AMD's GPUs from the files of the amdgpu driver; it has no library that is always there.
#[cfg(target_os = "linux")]
fn amd_gpus() -> Vec<Gpu> {
    let Ok(cards) = std::fs::read_dir("/sys/class/drm") else { return Vec::new() };
    let mut devices: Vec<_> = cards.flatten().map(|c| c.path().join("device")).collect();
    devices.sort();
    devices
        .iter()
        .filter_map(|device| {
            let read = |name| super::read_trimmed(&device.join(name));
            // Connectors (card0-DP-1) lie in the same folder and lead to the card.
            let memory = read("mem_info_vram_total")?.parse().ok().map(Bytes);
            let name = read("product_name").filter(|n| !n.is_empty());
            let id = read("device").unwrap_or_default();
            Some(Gpu {
                name: name.unwrap_or_else(|| format!("AMD GPU {id}").trim().to_owned()),
                memory,
                driver: Some("amdgpu".to_owned()),
                cuda: None,
                compute_capability: None,
                power_limit: None,
                pcie: None,
            })
        })
        .collect()
}

#[cfg(not(target_os = "linux"))]
fn amd_gpus() -> Vec<Gpu> {
    Vec::new()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_without_a_gpu_says_why() {
        let (gpus, absent) = describe();
        assert_eq!(gpus.is_empty(), absent.is_some());
    }

    #[test]
    fn a_reason_ends_with_what_to_do() {
        assert!(why_absent(&NvmlError::DriverNotLoaded).contains("modprobe nvidia"));
        assert!(why_absent(&NvmlError::Timeout).starts_with("NVML says: "));
    }
}
