//! llama.cpp's log, which alone says its buffer sizes and why a load failed.

use std::ffi::{CStr, c_char, c_void};
use std::sync::Mutex;

use llama_cpp_sys_2 as sys;

/// Lines kept; a hostile model file can make llama.cpp log without end.
const MOST_LINES: usize = 10_000;
/// Characters of the error lines that an event quotes.
const MOST_ERROR_CHARS: usize = 1024;

static LINES: Mutex<Vec<(u32, String)>> = Mutex::new(Vec::new());

/// Bytes of the engine's buffers, summed over its devices.
#[derive(Debug, Default, PartialEq)]
pub struct BufferSizes {
    pub weights: Option<u64>,
    pub kv: Option<u64>,
    pub compute: Option<u64>,
}

/// Sends llama.cpp's log to memory from here on.
pub fn collect() {
    // SAFETY: `keep` matches the callback's type, lives for the whole program and uses no user
    // data.
    unsafe { sys::llama_log_set(Some(keep), std::ptr::null_mut()) }
}

extern "C" fn keep(level: sys::ggml_log_level, text: *const c_char, _: *mut c_void) {
    if text.is_null() {
        return;
    }
    // SAFETY: llama.cpp passes a NUL-terminated string that lives for the call.
    let text = unsafe { CStr::from_ptr(text) }.to_string_lossy();
    let Ok(mut lines) = LINES.lock() else { return };
    if level == sys::GGML_LOG_LEVEL_CONT {
        if let Some((_, line)) = lines.last_mut() {
            line.push_str(&text);
        }
    } else if lines.len() < MOST_LINES {
        lines.push((level, text.into_owned()));
    }
}

/// The error lines so far, at most [`MOST_ERROR_CHARS`] characters of them, without line ends.
pub fn errors() -> Vec<String> {
    let Ok(lines) = LINES.lock() else { return Vec::new() };
    let mut room = MOST_ERROR_CHARS;
    lines
        .iter()
        .filter(|(level, _)| *level == sys::GGML_LOG_LEVEL_ERROR)
        .map(|(_, line)| line.trim().chars().take(200).collect::<String>())
        .take_while(|line| {
            let fits = line.len() <= room;
            room = room.saturating_sub(line.len());
            fits
        })
        .collect()
}

/// Whether error lines speak of memory that could not be had.
pub fn says_out_of_memory(errors: &[String]) -> bool {
    let words = ["failed to allocate", "out of memory", "unable to allocate", "OutOfDeviceMemory"];
    errors.iter().any(|line| words.iter().any(|w| line.contains(w)))
}

/// The buffer sizes that the log states.
pub fn buffer_sizes() -> BufferSizes {
    let Ok(lines) = LINES.lock() else { return BufferSizes::default() };
    sum_sizes(lines.iter().map(|(_, line)| line.as_str()))
}

/// The value that follows `name = ` in the last line that has it.
pub fn value(name: &str) -> Option<String> {
    let lines = LINES.lock().ok()?;
    lines.iter().rev().find_map(|(_, line)| {
        let (before, after) = line.split_once('=')?;
        before.trim_end().ends_with(name).then(|| after.trim().to_owned())
    })
}

/// Whether a line of the log contains `text`.
pub fn contains(text: &str) -> bool {
    LINES.lock().is_ok_and(|lines| lines.iter().any(|(_, line)| line.contains(text)))
}

fn sum_sizes<'a>(lines: impl Iterator<Item = &'a str>) -> BufferSizes {
    let mut sizes = BufferSizes::default();
    for line in lines {
        let Some((what, size)) = line.split_once("buffer size =") else { continue };
        // The dots of the loading progress may stand behind the unit.
        let mut words = size.split_whitespace();
        let (Some(number), Some("MiB")) = (words.next(), words.next()) else { continue };
        let Ok(mib) = number.parse::<f64>() else { continue };
        let sum = match what.split_whitespace().last() {
            Some("model") => &mut sizes.weights,
            Some("KV" | "RS" | "state") => &mut sizes.kv,
            Some("compute" | "output") => &mut sizes.compute,
            _ => continue,
        };
        *sum = Some(sum.unwrap_or(0) + (mib * 1024.0 * 1024.0).round() as u64);
    }
    sizes
}

/// llama.cpp's version: the crate does not carry the build number, ggml's version is what it has.
pub fn version() -> String {
    // SAFETY: both functions return static NUL-terminated strings.
    let ggml = unsafe { CStr::from_ptr(sys::ggml_version()) }.to_string_lossy();
    format!("llama-cpp-sys-2 {} (ggml {ggml})", env!("LLAMA_CPP_SYS_VERSION"))
}

/// The CPU features (and GPU backends) that llama.cpp was compiled for.
pub fn features() -> String {
    // SAFETY: the function returns a NUL-terminated string that lives until the next call; there
    // is one thread here.
    let info = unsafe { CStr::from_ptr(sys::llama_print_system_info()) }.to_string_lossy();
    info.split('|')
        .filter_map(|part| part.rsplit(':').next()?.trim().strip_suffix("= 1"))
        .map(str::trim)
        .collect::<Vec<_>>()
        .join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffer_sizes_are_summed_over_devices() {
        let lines = [
            "load_tensors:   CPU_Mapped model buffer size =   100.00 MiB\n",
            "load_tensors:   CPU_REPACK model buffer size =    28.50 MiB\n......\n",
            "llama_kv_cache:        CPU KV buffer size =    56.00 MiB\n",
            "sched_reserve:        CPU compute buffer size =   300.75 MiB\n",
            "llama_context:        CPU  output buffer size =     0.58 MiB\n",
            "something else = 3 MiB\n",
        ];
        let mib = |m: f64| Some((m * 1024.0 * 1024.0).round() as u64);
        let sizes = sum_sizes(lines.into_iter());
        assert_eq!(sizes.weights, mib(128.5));
        assert_eq!(sizes.kv, mib(56.0));
        let compute = sizes.compute.unwrap() as i64 - mib(301.33).unwrap() as i64;
        assert!(compute.abs() <= 1);
    }
}
