//! What there is to know about a server: a TOML file, so that a new server needs no code.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use serde::Deserialize;

/// The servers that come with the program.
const SHIPPED: [(&str, &str); 10] = [
    ("anthropic", include_str!("servers/anthropic.toml")),
    ("llama-server", include_str!("servers/llama-server.toml")),
    ("lm-studio", include_str!("servers/lm-studio.toml")),
    ("lm-studio-v0", include_str!("servers/lm-studio-v0.toml")),
    ("lm-studio-v1", include_str!("servers/lm-studio-v1.toml")),
    ("mlx-lm-server", include_str!("servers/mlx-lm-server.toml")),
    ("ollama", include_str!("servers/ollama.toml")),
    ("openai", include_str!("servers/openai.toml")),
    ("openai-completions", include_str!("servers/openai-completions.toml")),
    ("vllm", include_str!("servers/vllm.toml")),
];

/// A server.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Descriptor {
    /// Where it listens unless a scenario or the environment says otherwise.
    pub url: Option<String>,
    /// Headers of every request.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// The key that it wants.
    pub key: Option<Key>,
    /// A PEM file with certificates that are trusted besides the public ones.
    pub ca_file: Option<PathBuf>,
    /// Words of its command line, to tell it from others that forward its port.
    #[serde(default)]
    pub programs: Vec<String>,
    /// How to ask for a generation.
    pub request: Generation,
    /// Where its version is found.
    pub version: VersionSource,
    /// Where the name of the served model is found; else it is the model's path.
    pub model: Option<Place>,
    /// What to ask to see that it is ready.
    pub ready: Option<Ready>,
    /// How it is given a model file, where it runs already and the scenario names no model of its.
    pub create: Option<Create>,
    /// What makes it load the model, before anything is timed.
    pub load: Option<Load>,
    /// What to read back once it is ready.
    #[serde(default)]
    pub read: Vec<ReadBack>,
    /// Its own account of the device memory that the model takes.
    pub memory: Option<Memory>,
    /// Its own times, where it tells them apart from the stream.
    pub metrics: Option<Metrics>,
    /// How to start it; a server that cannot be started is attached to.
    pub start: Option<Start>,
}

/// A key from the environment, and nowhere else.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Key {
    /// The variable that holds it.
    pub environment: String,
    /// The header that carries it.
    pub header: String,
    /// What stands before it in the header.
    #[serde(default)]
    pub prefix: String,
    /// Whether the server also works without it.
    #[serde(default)]
    pub optional: bool,
}

/// How to ask for a generation: an endpoint, a JSON body, and where in it the case's values go
/// (JSON pointers, RFC 6901).
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Generation {
    pub path: String,
    /// The body before the case's values are put in.
    pub body: Json,
    /// Whether the prompt is sent as token ids or as text.
    pub prompt: PromptForm,
    pub prompt_at: String,
    pub tokens_at: String,
    pub model_at: Option<String>,
    /// Where the size of the context goes, for servers that take it with each request.
    pub context_at: Option<String>,
}

/// How a prompt travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PromptForm {
    /// As token ids: the work is exactly the case's.
    Ids,
    /// As text made from the ids: the server's count of prompt tokens is what counts.
    Text,
}

/// A value in a JSON answer.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Place {
    pub path: String,
    pub pointer: String,
}

/// Where a version is found: the first of these that answers.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VersionSource {
    /// From the running server.
    pub path: Option<String>,
    pub pointer: Option<String>,
    /// From a program that is installed but does not run.
    #[serde(default)]
    pub command: Vec<String>,
    /// What stands for a version where a service publishes none.
    pub fixed: Option<String>,
}

/// How to see that a server is ready.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ready {
    /// Answers 200 when it is.
    pub path: String,
}

/// How a model file is uploaded and given a name.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Create {
    /// Before the file's checksum: `HEAD` says whether it is there, `POST` uploads it.
    pub upload: String,
    pub path: String,
    #[serde(default)]
    pub body: Json,
    pub model_at: String,
    /// Where an object with the file's name and `sha256:` checksum goes.
    pub files_at: String,
}

/// A request that has a model loaded.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Load {
    pub path: String,
    #[serde(default)]
    pub body: Json,
    pub model_at: String,
    pub context_at: Option<String>,
}

/// Where a list of loaded models stands; keys of its elements.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Memory {
    pub path: String,
    pub list: String,
    /// The key of the model's name.
    pub name: String,
    /// The key of the bytes that it takes of the devices' memory.
    pub device_bytes: String,
}

/// A Prometheus page with sums over all requests. What a trial adds to them is its own.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Metrics {
    pub path: String,
    /// Histograms in seconds: of the prompt, the generation, the time to the first token.
    pub prompt: Option<String>,
    pub decode: Option<String>,
    pub ttft: Option<String>,
    /// A counter of prompt tokens that a cache held.
    pub cached_tokens: Option<String>,
}

/// A JSON object.
pub type Json = serde_json::Map<String, serde_json::Value>;

/// Values to read back.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReadBack {
    pub path: String,
    /// Name in the record → JSON pointer.
    #[serde(default)]
    pub values: BTreeMap<String, String>,
    /// Name in the record → `metric/label` of a Prometheus page.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
}

/// How to start a server. `{model}`, `{port}`, `{slots}`, `{slot_tokens}` and `{context}` (their
/// product) are replaced.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Start {
    pub command: Vec<String>,
    /// Variables, where the environment does not have them already.
    #[serde(default)]
    pub environment: BTreeMap<String, String>,
    /// Variables that change how it works, to be recorded where they are set.
    #[serde(default)]
    pub variables: Vec<String>,
    /// More arguments for a model that is a folder without weights.
    #[serde(default)]
    pub without_weights: Vec<String>,
    /// A setting of the case → the arguments that put it in force; `{}` is its value.
    #[serde(default)]
    pub settings: BTreeMap<String, Vec<String>>,
    pub ready_seconds: u64,
}

impl Descriptor {
    /// The descriptor called `name`, or in the file `name` where it ends in `.toml`.
    pub fn find(name: &str) -> anyhow::Result<Self> {
        if name.ends_with(".toml") {
            let text = std::fs::read_to_string(name)
                .with_context(|| format!("cannot read the server's descriptor '{name}'"))?;
            let mut descriptor = Self::parse(&text).with_context(|| name.to_owned())?;
            // Relative to the descriptor's own folder.
            if let (Some(file), Some(folder)) = (&mut descriptor.ca_file, Path::new(name).parent())
            {
                *file = folder.join(&file);
            }
            return Ok(descriptor);
        }
        let Some((_, text)) = SHIPPED.iter().find(|(known, _)| *known == name) else {
            let known: Vec<_> = SHIPPED.iter().map(|(known, _)| *known).collect();
            bail!(
                "unknown server '{name}'; known are {}; for another one, write a descriptor and \
                 set BENCH_SERVER to its path",
                known.join(", ")
            );
        };
        Self::parse(text).with_context(|| format!("servers/{name}.toml"))
    }

    fn parse(text: &str) -> anyhow::Result<Self> {
        let descriptor: Self = toml::from_str(text)?;
        let pointers = [&descriptor.request.prompt_at, &descriptor.request.tokens_at]
            .into_iter()
            .chain(&descriptor.request.model_at)
            .chain(&descriptor.request.context_at)
            .chain(descriptor.create.iter().flat_map(|c| [&c.model_at, &c.files_at]))
            .chain(
                descriptor
                    .load
                    .iter()
                    .flat_map(|l| [Some(&l.model_at), l.context_at.as_ref()].into_iter().flatten()),
            )
            .chain(descriptor.memory.iter().map(|m| &m.list));
        for pointer in pointers {
            if !pointer.starts_with('/') {
                bail!("'{pointer}' is no JSON pointer; write it as '/{pointer}'");
            }
        }
        if !descriptor.request.path.starts_with('/') {
            bail!("the path '{}' must begin with '/'", descriptor.request.path);
        }
        Ok(descriptor)
    }

    /// The name of a server as records spell it: a descriptor's file name without its ending.
    pub fn label(name: &str) -> String {
        let path = Path::new(name);
        match path.extension() {
            Some(extension) if extension == "toml" => {
                path.file_stem().unwrap_or_default().to_string_lossy().into_owned()
            }
            _ => name.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shipped_descriptor_is_valid() {
        for (name, _) in SHIPPED {
            Descriptor::find(name).unwrap();
        }
    }

    #[test]
    fn an_unknown_server_is_answered_with_the_known_ones() {
        let error = format!("{:#}", Descriptor::find("vlm").unwrap_err());
        assert!(error.contains("vllm") && error.contains("BENCH_SERVER"), "{error}");
    }

    #[test]
    fn an_unknown_key_in_a_descriptor_is_an_error() {
        let text = include_str!("servers/openai.toml").replace("prompt_at", "promt_at");
        assert!(format!("{:#}", Descriptor::parse(&text).unwrap_err()).contains("promt_at"));
    }
}
