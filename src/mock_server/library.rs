//! What a mock server keeps between requests: uploaded files, models made of them, and sums over
//! its generations.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::profile::Profile;

/// Device memory that the mock says its models take.
pub const DEVICE_BYTES: u64 = 123_456_789;

/// The state of a mock server.
#[derive(Debug, Default)]
pub struct Library {
    /// Checksums of uploaded files, `sha256:…`.
    blobs: BTreeSet<String>,
    /// Models by name, and whether they are loaded.
    models: BTreeMap<String, bool>,
    generations: u32,
    prompt_seconds: f64,
    decode_seconds: f64,
}

impl Library {
    /// Ollama's answers to what is not a generation: a status and a body.
    pub fn answer(&mut self, method: &str, path: &str, body: &[u8]) -> Option<(u16, Value)> {
        if let Some(checksum) = path.strip_prefix("/api/blobs/") {
            return Some(self.blob(method, checksum, body));
        }
        match (method, path) {
            ("POST", "/api/create") => Some(self.create(&parsed(body))),
            ("GET", "/api/ps") => {
                let loaded = self.models.iter().filter(|(_, loaded)| **loaded);
                let list: Vec<_> = loaded.map(|(name, _)| entry(name)).collect();
                Some((200, json!({"models": list})))
            }
            ("POST", "/api/generate") => {
                let body = parsed(body);
                if body.get("prompt").is_some() {
                    return None;
                }
                let name = body["model"].as_str().unwrap_or_default();
                match self.models.get_mut(name) {
                    Some(loaded) => *loaded = true,
                    // The mock has every model that nobody has made.
                    None if !name.starts_with("bench-") => {
                        self.models.insert(name.to_owned(), true);
                    }
                    None => {
                        let error = format!("model '{name}' not found");
                        return Some((404, json!({"error": error})));
                    }
                }
                Some((200, json!({"model": name, "done": true, "done_reason": "load"})))
            }
            _ => None,
        }
    }

    fn blob(&mut self, method: &str, checksum: &str, body: &[u8]) -> (u16, Value) {
        let there = self.blobs.contains(checksum);
        match method {
            "HEAD" if there => (200, Value::Null),
            "HEAD" => (404, Value::Null),
            _ => {
                let digest = Sha256::digest(body);
                let own: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
                if checksum != format!("sha256:{own}") {
                    return (400, json!({"error": "the checksum is another one"}));
                }
                self.blobs.insert(checksum.to_owned());
                (201, Value::Null)
            }
        }
    }

    fn create(&mut self, body: &Value) -> (u16, Value) {
        let files = body["files"].as_object();
        let known = files.is_some_and(|files| {
            files.values().all(|file| file.as_str().is_some_and(|sum| self.blobs.contains(sum)))
        });
        match body["model"].as_str() {
            Some(name) if known => {
                self.models.insert(name.to_owned(), false);
                (200, json!({"status": "success"}))
            }
            _ => (400, json!({"error": "unknown files"})),
        }
    }

    /// Counts a generation of `tokens` tokens.
    pub fn count(&mut self, profile: &Profile, tokens: u32) {
        self.generations += 1;
        self.prompt_seconds += profile.ttft_ms / 1e3;
        let decode_ns = profile.end_ns(tokens) - (profile.ttft_ms * 1e6) as u64;
        self.decode_seconds += decode_ns as f64 / 1e9 - profile.done_ms / 1e3;
    }

    /// The sums, as vLLM writes them.
    pub fn metrics(&self) -> String {
        let count = self.generations;
        let histogram = |name: &str, seconds: f64| {
            format!(
                "# TYPE vllm:{name} histogram\n\
                 vllm:{name}_bucket{{engine=\"0\",le=\"+Inf\",model_name=\"mock\"}} {count}.0\n\
                 vllm:{name}_count{{engine=\"0\",model_name=\"mock\"}} {count}.0\n\
                 vllm:{name}_sum{{engine=\"0\",model_name=\"mock\"}} {seconds}\n"
            )
        };
        [
            histogram("request_prefill_time_seconds", self.prompt_seconds),
            histogram("time_to_first_token_seconds", self.prompt_seconds),
            histogram("request_decode_time_seconds", self.decode_seconds),
            "vllm:prefix_cache_hits_total{engine=\"0\",model_name=\"mock\"} 0.0\n".to_owned(),
            "vllm:cache_config_info{block_size=\"16\",engine=\"0\",num_gpu_blocks=\"1000\"} 1.0\n"
                .to_owned(),
        ]
        .concat()
    }
}

fn entry(name: &str) -> Value {
    let tagged = if name.contains(':') { name.to_owned() } else { format!("{name}:latest") };
    json!({"name": tagged, "model": name, "size": DEVICE_BYTES, "size_vram": DEVICE_BYTES,
           "context_length": 4096})
}

fn parsed(body: &[u8]) -> Value {
    serde_json::from_slice(body).unwrap_or_default()
}
