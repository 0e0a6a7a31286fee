//! GPUs and their drivers, through NVML, which is loaded when it is first asked for.

use std::path::Path;
use std::sync::OnceLock;

use nvml_wrapper::Nvml;
use nvml_wrapper::error::NvmlError;
use serde::{Deserialize, Serialize};

use crate::units::{Bytes, Watts};

/// A GPU as its driver describes it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Gpu {
    /// Its name.
    pub name: String,
    /// The driver's own name for this very card, such as `GPU-8f3c…`; only NVIDIA's has one.
    #[serde(skip)]
    pub uuid: Option<String>,
    /// PCI vendor and device, such as `10de:2b85`.
    #[serde(default)]
    pub pci_id: Option<String>,
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

/// The variable that hides NVIDIA's GPUs from programs.
pub const VISIBLE: &str = "CUDA_VISIBLE_DEVICES";

/// The GPUs that programs may use where [`VISIBLE`] is `variable`. It hides no other maker's GPUs.
pub fn visible<'a>(gpus: &'a [Gpu], variable: Option<&str>) -> Vec<&'a Gpu> {
    let (nvidia, others): (Vec<_>, Vec<_>) = gpus.iter().partition(|gpu| gpu.uuid.is_some());
    let uuids: Vec<_> = nvidia.iter().map(|gpu| gpu.uuid.clone()).collect();
    let places = visible_places(&uuids, variable);
    places.into_iter().map(|place| nvidia[place]).chain(others).collect()
}

/// The places in the driver's list, which is by PCI address, that [`VISIBLE`] names: places, or
/// beginnings of UUIDs, up to the first entry that names none. Runners count like this because they
/// are started with `CUDA_DEVICE_ORDER=PCI_BUS_ID`; CUDA's own order is the fastest first.
pub fn visible_places(uuids: &[Option<String>], variable: Option<&str>) -> Vec<usize> {
    let Some(variable) = variable else { return (0..uuids.len()).collect() };
    let place = |entry: &str| match entry.trim().parse::<usize>() {
        Ok(place) => (place < uuids.len()).then_some(place),
        Err(_) if !entry.trim().starts_with("GPU-") => None,
        Err(_) => {
            let named = |uuid: &Option<String>| {
                uuid.as_ref().is_some_and(|uuid| uuid.starts_with(entry.trim()))
            };
            uuids.iter().position(named)
        }
    };
    variable.split(',').map_while(place).collect()
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
    let mut gpus = kernel_gpus(Path::new("/sys/class/drm"));
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
                uuid: device.uuid().ok(),
                pci_id: device.pci_info().ok().map(|p| nvml_id(p.pci_device_id)),
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

/// NVML states the device in the upper and the vendor in the lower half.
fn nvml_id(id: u32) -> String {
    format!("{:04x}:{:04x}", id & 0xffff, id >> 16)
}

/// AMD's and Intel's GPUs from the files of the kernel's drivers, which are always there.
fn kernel_gpus(drm: &Path) -> Vec<Gpu> {
    let Ok(cards) = std::fs::read_dir(drm) else { return Vec::new() };
    // Connectors (card0-DP-1) and render nodes lie in the same folder and lead to the same cards.
    let is_card = |name: &str| {
        name.strip_prefix("card").is_some_and(|n| n.bytes().all(|b| b.is_ascii_digit()))
    };
    let mut cards: Vec<_> = cards
        .flatten()
        .filter(|c| c.file_name().to_str().is_some_and(is_card))
        .map(|c| c.path().join("device"))
        .collect();
    cards.sort();
    cards.iter().filter_map(|card| kernel_gpu(card)).collect()
}

fn kernel_gpu(card: &Path) -> Option<Gpu> {
    let read = |name: &str| super::read_trimmed(&card.join(name));
    let bare = |id: String| id.trim_start_matches("0x").to_owned();
    let (vendor, device) = (bare(read("vendor")?), bare(read("device")?));
    let (maker, memory, driver) = match vendor.as_str() {
        "1002" => {
            ("AMD", Some(read("mem_info_vram_total")?.parse().ok().map(Bytes)?), Some("amdgpu"))
        }
        // The GPU inside a processor sits on the first bus and is none to measure by itself.
        "8086" if !bus(card)?.starts_with("0000:00:") => ("Intel", None, None),
        _ => return None,
    };
    let name = read("product_name").filter(|n| !n.is_empty());
    Some(Gpu {
        name: name.unwrap_or_else(|| format!("{maker} GPU {vendor}:{device}")),
        uuid: None,
        pci_id: Some(format!("{vendor}:{device}")),
        memory,
        driver: driver.map(str::to_owned),
        ..Gpu::default()
    })
}

/// The card's address on the bus: `0000:03:00.0`.
fn bus(card: &Path) -> Option<String> {
    let path = card.canonicalize().ok()?;
    Some(path.file_name()?.to_str()?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hidden_card_is_not_counted() {
        let gpu = |name: &str, uuid: Option<&str>| Gpu {
            name: name.to_owned(),
            uuid: uuid.map(str::to_owned),
            ..Gpu::default()
        };
        let gpus = [gpu("a", Some("GPU-11")), gpu("b", Some("GPU-22")), gpu("amd", None)];
        let names = |variable| -> String {
            visible(&gpus, variable).iter().map(|g| g.name.as_str()).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(names(None), "a b amd");
        assert_eq!(names(Some("1")), "b amd");
        assert_eq!(names(Some("GPU-22,0")), "b a amd");
        assert_eq!(names(Some("0,-1,1")), "a amd");
        assert_eq!(names(Some("")), "amd");
    }

    #[test]
    fn a_machine_without_a_gpu_says_why() {
        let (gpus, absent) = describe();
        assert_eq!(gpus.is_empty(), absent.is_some());
    }

    #[test]
    fn a_reason_ends_with_what_to_do() {
        for (error, remedy) in [
            (NvmlError::LibraryNotFound, "libnvidia-ml.so.1 is not installed"),
            (NvmlError::DriverNotLoaded, "modprobe nvidia"),
            (NvmlError::LibRmVersionMismatch, "restart the machine"),
            (NvmlError::NoPermission, "check /dev/nvidiactl"),
            (NvmlError::Timeout, "NVML says: "),
        ] {
            assert!(why_absent(&error).contains(remedy), "{error:?}: {}", why_absent(&error));
        }
    }

    /// A folder like /sys with one card on the bus at `address`, and the files of its driver.
    #[cfg(unix)]
    fn card(root: &Path, number: u32, address: &str, files: &[(&str, &str)]) {
        let device = root.join("devices").join(address);
        std::fs::create_dir_all(&device).unwrap();
        for (name, text) in files {
            std::fs::write(device.join(name), format!("{text}\n")).unwrap();
        }
        let card = root.join("drm").join(format!("card{number}"));
        std::fs::create_dir_all(&card).unwrap();
        std::os::unix::fs::symlink(&device, card.join("device")).unwrap();
        std::fs::create_dir_all(root.join(format!("drm/card{number}-DP-1"))).unwrap();
    }

    #[cfg(unix)]
    #[test]
    fn cards_of_amd_and_intel_are_found_with_their_ids_and_a_processors_graphics_are_not() {
        let root = tempfile::tempdir().unwrap();
        let amd = [("vendor", "0x1002"), ("device", "0x744c"), ("mem_info_vram_total", "1024")];
        card(root.path(), 0, "0000:03:00.0", &amd);
        card(root.path(), 1, "0000:04:00.0", &[("vendor", "0x8086"), ("device", "0xe20b")]);
        card(root.path(), 2, "0000:00:02.0", &[("vendor", "0x8086"), ("device", "0xa780")]);
        card(root.path(), 3, "0000:05:00.0", &[("vendor", "0x10de"), ("device", "0x2b85")]);
        let found = kernel_gpus(&root.path().join("drm"));
        let ids: Vec<_> = found.iter().map(|g| g.pci_id.as_deref().unwrap()).collect();
        assert_eq!(ids, ["1002:744c", "8086:e20b"]);
        assert_eq!(found[0].memory, Some(Bytes(1024)));
        assert_eq!(found[1].name, "Intel GPU 8086:e20b");
    }

    #[test]
    fn nvml_states_the_device_before_the_vendor() {
        assert_eq!(nvml_id(0x2b85_10de), "10de:2b85");
    }
}
