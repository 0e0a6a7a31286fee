//! A user's own devices, models and prices, from a TOML file.

use std::ops::Range;
use std::path::Path;

use anyhow::{anyhow, ensure};
use serde::Deserialize;
use toml::Spanned;

use super::hardware::{self, Device, Family, Kind, Price};
use super::models::{self, Arch, Experts, ModelSpec, RopeFactors, Sliding};
use super::nearest;
use crate::units::{Bytes, GbPerSecond, Tflops, Watts};

/// What a file of one's own adds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Own {
    /// Devices: new ones, and the catalogue's at other prices.
    pub devices: Vec<Device>,
    /// Models.
    pub models: Vec<ModelSpec>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    device: Vec<Spanned<OwnDevice>>,
    #[serde(default)]
    model: Vec<Spanned<OwnModel>>,
    #[serde(default)]
    price: Vec<OwnPrice>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OwnDevice {
    id: Spanned<String>,
    name: Option<String>,
    kind: Kind,
    family: Family,
    memory_gib: Spanned<f64>,
    bandwidth_gb_s: Spanned<f64>,
    link_gb_s: Option<Spanned<f64>>,
    fp16_tflops: Option<Spanned<f64>>,
    power_w: Option<Spanned<f64>>,
    idle_w: Option<Spanned<f64>>,
    price_usd: Option<Spanned<f64>>,
}

/// A shape, as a whole or as the difference from a catalogued one.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OwnModel {
    id: Spanned<String>,
    name: Option<String>,
    /// A catalogued model whose shape this one has, but for the keys that are given.
    like: Option<Spanned<String>>,
    architecture: Option<Spanned<Arch>>,
    layers: Option<Spanned<u32>>,
    hidden: Option<Spanned<u32>>,
    ffn: Option<Spanned<u32>>,
    heads: Option<Spanned<u32>>,
    kv_heads: Option<Spanned<u32>>,
    head_dim: Option<Spanned<u32>>,
    vocab: Option<Spanned<u32>>,
    context: Option<Spanned<u32>>,
    tied: Option<bool>,
    experts: Option<Spanned<u32>>,
    experts_active: Option<Spanned<u32>>,
    expert_ffn: Option<Spanned<u32>>,
    experts_shared: Option<u32>,
    window: Option<Spanned<u32>>,
    full_every: Option<Spanned<u32>>,
}

/// A price that replaces the catalogue's.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OwnPrice {
    device: Spanned<String>,
    usd: Spanned<f64>,
}

/// Architectures whose shape a few numbers describe.
const PLAIN: [Arch; 6] =
    [Arch::Llama, Arch::Mistral3, Arch::Qwen2, Arch::Qwen3, Arch::Qwen3Moe, Arch::Phi3];

/// Those of which llama.cpp or vLLM knows layers that see a window only.
const WINDOWED: [Arch; 8] = [
    Arch::Llama,
    Arch::Llama4,
    Arch::Mistral3,
    Arch::Gemma3,
    Arch::Gemma4,
    Arch::Phi3,
    Arch::GptOss,
    Arch::Deepseek4,
];

/// No layer, width or vocabulary reaches it.
const LARGEST: u32 = 100_000_000;
/// No model has as many weights.
const MOST_WEIGHTS: u64 = 1_000_000_000_000_000;

/// Reads `text`, the content of the file `path`.
pub fn read(path: &Path, text: &str) -> anyhow::Result<Own> {
    let place = Place { path, text };
    let file: File = toml::from_str(text).map_err(|error| place.syntax(&error))?;
    let mut own = Own::default();
    for given in file.device {
        let device = place.device(given.into_inner())?;
        own.devices.push(device);
    }
    for given in file.model {
        let at = given.span();
        let model = place.model(given.into_inner(), at)?;
        own.models.push(model);
    }
    for stated in file.price {
        let usd = place.positive("usd", &stated.usd)?;
        let known = hardware::find(stated.device.get_ref(), &own.devices)
            .map_err(|error| place.at(stated.device.span(), &error.to_string()))?;
        let mut device = known.clone();
        device.street_price = Some(place.price(usd));
        own.devices.retain(|d| d.id != device.id);
        own.devices.push(device);
    }
    Ok(own)
}

/// A file, to say where in it something is wrong.
struct Place<'a> {
    path: &'a Path,
    text: &'a str,
}

impl Place<'_> {
    /// `file:line: what is wrong`.
    fn at(&self, span: Range<usize>, what: &str) -> anyhow::Error {
        let before = &self.text.as_bytes()[..span.start.min(self.text.len())];
        let line = before.iter().filter(|b| **b == b'\n').count() + 1;
        anyhow!("{}:{line}: {what}", self.path.display())
    }

    /// The parser's own error, with the nearest key or word.
    fn syntax(&self, error: &toml::de::Error) -> anyhow::Error {
        let message = error.message().trim_end_matches('.').to_owned();
        // serde: unknown field `x`, expected one of `a`, `b`; the words stand in backticks.
        let mut quoted = message.split('`').skip(1).step_by(2);
        let hint = match (message.starts_with("unknown "), quoted.next()) {
            (true, Some(word)) => nearest(word, quoted).first().map(|near| {
                let kind = message.split(' ').nth(1).unwrap_or_default();
                let kind = if kind == "field" { "key" } else { "word" };
                format!("unknown {kind} '{word}'; did you mean '{near}'?")
            }),
            _ => None,
        };
        let text = hint.unwrap_or_else(|| message.replace('`', "'"));
        self.at(error.span().unwrap_or(0..0), &text)
    }

    fn positive(&self, key: &str, value: &Spanned<f64>) -> anyhow::Result<f64> {
        let number = *value.get_ref();
        if number > 0.0 && number.is_finite() {
            return Ok(number);
        }
        Err(self.at(value.span(), &format!("{key} is {number}; it must be above 0")))
    }

    fn whole(&self, key: &str, value: &Spanned<u32>) -> anyhow::Result<u32> {
        let number = *value.get_ref();
        if (1..=LARGEST).contains(&number) {
            return Ok(number);
        }
        Err(self
            .at(value.span(), &format!("{key} is {number}; it must be above 0 and of this world")))
    }

    fn price(&self, usd: f64) -> Price {
        Price {
            usd: format!("{usd}"),
            as_of: "stated by you".to_owned(),
            source: self.path.display().to_string(),
        }
    }

    fn device(&self, own: OwnDevice) -> anyhow::Result<Device> {
        let optional = |key: &str, value: &Option<Spanned<f64>>| {
            value.as_ref().map(|v| self.positive(key, v)).transpose()
        };
        let id = self.id(&own.id)?;
        Ok(Device {
            name: own.name.clone().unwrap_or_else(|| id.clone()),
            vendor: String::new(),
            kind: own.kind,
            family: own.family,
            memory: Some(Bytes::from_gib(self.positive("memory_gib", &own.memory_gib)?)),
            memory_label_gb: None,
            bandwidth: Some(GbPerSecond(self.positive("bandwidth_gb_s", &own.bandwidth_gb_s)?)),
            link: optional("link_gb_s", &own.link_gb_s)?.map(GbPerSecond),
            link_peers: None,
            fp16: optional("fp16_tflops", &own.fp16_tflops)?.map(Tflops),
            gpu_cores: None,
            power: optional("power_w", &own.power_w)?.map(Watts),
            idle_power: optional("idle_w", &own.idle_w)?.map(Watts),
            list_price: None,
            street_price: optional("price_usd", &own.price_usd)?.map(|usd| self.price(usd)),
            source: self.path.display().to_string(),
            notes: String::new(),
            id,
        })
    }

    /// A name that flags can take.
    fn id(&self, id: &Spanned<String>) -> anyhow::Result<String> {
        let text = id.get_ref();
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if !text.is_empty() && text.chars().all(plain) {
            return Ok(text.clone());
        }
        Err(self.at(id.span(), &format!("id '{text}'; use letters, digits, '-', '_' and '.'")))
    }

    fn model(&self, own: OwnModel, at: Range<usize>) -> anyhow::Result<ModelSpec> {
        let id = self.id(&own.id)?;
        let mut spec = match (&own.like, &own.architecture) {
            (Some(like), None) => models::find(like.get_ref())
                .map_err(|error| self.at(like.span(), &error.to_string()))?
                .clone(),
            (None, Some(arch)) => self.plain(&own, *arch.get_ref(), arch.span(), at.clone())?,
            _ => {
                let what = format!("model '{id}' needs one of 'like' and 'architecture'");
                return Err(self.at(at, &what));
            }
        };
        spec.name = own.name.clone().unwrap_or_else(|| id.clone());
        spec.id = id;
        let set = |target: &mut u32, key: &str, value: &Option<Spanned<u32>>| {
            if let Some(value) = value {
                *target = self.whole(key, value)?;
            }
            anyhow::Ok(())
        };
        set(&mut spec.layers, "layers", &own.layers)?;
        set(&mut spec.hidden, "hidden", &own.hidden)?;
        set(&mut spec.heads, "heads", &own.heads)?;
        set(&mut spec.kv_heads, "kv_heads", &own.kv_heads)?;
        set(&mut spec.head_dim, "head_dim", &own.head_dim)?;
        set(&mut spec.vocab, "vocab", &own.vocab)?;
        set(&mut spec.context_max, "context", &own.context)?;
        if let Some(ffn) = &own.ffn {
            spec.ffn = Some(self.whole("ffn", ffn)?);
        }
        spec.tied = own.tied.unwrap_or(spec.tied);
        self.experts(&own, &mut spec, at.clone())?;
        if let Some(window) = &own.window {
            if !WINDOWED.contains(&spec.arch) {
                let what = format!(
                    "no layer of architecture '{}' has a window; leave 'window' out",
                    spec.arch.name()
                );
                return Err(self.at(window.span(), &what));
            }
            let full_every = match &own.full_every {
                Some(every) => Some(self.whole("full_every", every)?),
                None => spec.sliding.as_ref().and_then(|s| s.full_every),
            };
            spec.sliding = Some(Sliding { window: self.whole("window", window)?, full_every });
        } else if let Some(every) = &own.full_every {
            let Some(sliding) = &mut spec.sliding else {
                return Err(self.at(every.span(), "'full_every' says nothing without 'window'"));
            };
            sliding.full_every = Some(self.whole("full_every", every)?);
        }
        self.ensure_possible(&spec, at)?;
        // What was counted or read of the model that this one is like holds for that one.
        spec.params_total = None;
        spec.params_active = None;
        spec.params_basis = String::new();
        spec.source = self.path.display().to_string();
        spec.detail_source = "stated by you".to_owned();
        spec.notes = String::new();
        Ok(spec)
    }

    /// Refuses what no model has, so that no product of its widths overflows.
    fn ensure_possible(&self, spec: &ModelSpec, at: Range<usize>) -> anyhow::Result<()> {
        let width = |count: u32, each: u32| u64::from(count) * u64::from(each);
        let shared = spec.gemma4.as_ref().map_or(0, |g| g.kv_shared_layers);
        let possible = || {
            ensure!(spec.layers <= 4096, "{} layers; no model has as many", spec.layers);
            ensure!(
                spec.layers > shared,
                "{} layers, of which the last {shared} share the cache of earlier ones",
                spec.layers
            );
            ensure!(
                spec.heads.is_multiple_of(spec.kv_heads),
                "{} heads cannot share {} kv_heads",
                spec.heads,
                spec.kv_heads
            );
            let mla = spec.mla.as_ref().map_or(0, |m| (m.nope_dim + m.rope_dim).max(m.v_dim));
            let full = spec.gemma4.as_ref().map_or(0, |g| g.full_head_dim);
            let mut widths = vec![width(spec.heads, spec.head_dim.max(mla).max(full))];
            if let Some(e) = &spec.experts {
                ensure!(e.active <= e.total, "more experts_active than experts");
                let each = (u64::from(e.active) + u64::from(e.shared)).checked_mul(e.ffn.into());
                widths.push(each.unwrap_or(u64::MAX));
            }
            ensure!(
                widths.iter().all(|w| *w <= LARGEST.into()),
                "heads × head_dim or experts × expert_ffn are wider than any model"
            );
            let routed = spec.experts.as_ref().map_or(0, |e| width(e.total, e.ffn));
            let forward = routed.saturating_add(spec.ffn.unwrap_or(0).into());
            let layer = forward.saturating_mul(3).saturating_add(4 * widths[0]);
            let rows = layer.saturating_mul(spec.layers.into()).saturating_add(spec.vocab.into());
            let all = rows.saturating_mul(spec.hidden.into());
            ensure!(all <= MOST_WEIGHTS, "about {all} weights; no model has as many");
            Ok(())
        };
        possible().map_err(|error: anyhow::Error| self.at(at, &error.to_string()))
    }

    /// A plain decoder of `arch` with nothing but what is given.
    fn plain(
        &self,
        own: &OwnModel,
        arch: Arch,
        span: Range<usize>,
        at: Range<usize>,
    ) -> anyhow::Result<ModelSpec> {
        if !PLAIN.contains(&arch) {
            let what = format!(
                "a model of architecture '{}' has more parts than these keys can say; name one that \
                 it is like: like = \"…\"",
                arch.name()
            );
            return Err(self.at(span, &what));
        }
        let need = |key: &str, value: &Option<Spanned<u32>>| match value {
            Some(value) => self.whole(key, value),
            None => Err(self.at(at.clone(), &format!("key '{key}' is missing"))),
        };
        let base = models::all().iter().find(|s| s.arch == arch);
        let mut spec = base.ok_or_else(|| self.at(span, "no model of this architecture"))?.clone();
        spec.layers = need("layers", &own.layers)?;
        spec.hidden = need("hidden", &own.hidden)?;
        spec.heads = need("heads", &own.heads)?;
        spec.vocab = need("vocab", &own.vocab)?;
        spec.context_max = need("context", &own.context)?;
        spec.kv_heads = spec.heads;
        spec.head_dim = (spec.hidden / spec.heads).max(1);
        spec.tied = false;
        spec.experts = None;
        spec.sliding = None;
        spec.rope.factors = RopeFactors::None;
        spec.ffn = None;
        if own.ffn.is_none() && own.experts.is_none() {
            return Err(self.at(at, "key 'ffn' is missing"));
        }
        Ok(spec)
    }

    fn experts(
        &self,
        own: &OwnModel,
        spec: &mut ModelSpec,
        at: Range<usize>,
    ) -> anyhow::Result<()> {
        let given = [&own.experts, &own.experts_active, &own.expert_ffn];
        if given.iter().all(|g| g.is_none()) && own.experts_shared.is_none() {
            return Ok(());
        }
        let mut experts = spec.experts.clone().unwrap_or(Experts::NONE);
        if spec.experts.is_none() && given.iter().any(|g| g.is_none()) {
            let what = "keys 'experts', 'experts_active' and 'expert_ffn' must stand together";
            return Err(self.at(at, what));
        }
        let targets = [&mut experts.total, &mut experts.active, &mut experts.ffn];
        for ((target, key), value) in
            targets.into_iter().zip(["experts", "experts_active", "expert_ffn"]).zip(given)
        {
            if let Some(value) = value {
                *target = self.whole(key, value)?;
            }
        }
        experts.shared = own.experts_shared.unwrap_or(experts.shared);
        spec.experts = Some(experts);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> anyhow::Result<Own> {
        read(Path::new("own.toml"), text)
    }

    fn error(text: &str) -> String {
        format!("{:#}", parse(text).unwrap_err())
    }

    #[test]
    fn a_device_and_a_price_are_read() {
        let devices = parse(
            "[[device]]\nid = \"my-card\"\nkind = \"gpu\"\nfamily = \"nvidia-ada\"\n\
             memory_gib = 20\nbandwidth_gb_s = 600\n[[price]]\ndevice = \"rtx-5090\"\nusd = 3200\n",
        )
        .unwrap()
        .devices;
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
    fn a_model_is_a_shape_or_the_difference_from_one() {
        let own = parse(
            "[[model]]\nid = \"mine\"\nlike = \"qwen3-8b\"\nlayers = 40\ncontext = 131072\n\
             [[model]]\nid = \"new\"\narchitecture = \"llama\"\nlayers = 10\nhidden = 512\n\
             ffn = 2048\nheads = 8\nkv_heads = 2\nvocab = 32000\ncontext = 4096\n\
             [[model]]\nid = \"moe\"\narchitecture = \"qwen3moe\"\nlayers = 10\nhidden = 512\n\
             heads = 8\nvocab = 32000\ncontext = 4096\nexperts = 16\nexperts_active = 2\n\
             expert_ffn = 256\n\
             [[model]]\nid = \"seen\"\nlike = \"gemma-3-27b\"\nfull_every = 4\n\
             [[model]]\nid = \"shared\"\nlike = \"glm-4.5-air\"\nexperts_shared = 2\n",
        )
        .unwrap();
        let [mine, new, moe, seen, shared] = own.models.as_slice() else { panic!("{own:?}") };
        assert_eq!(seen.sliding, Some(Sliding { window: 1024, full_every: Some(4) }));
        assert_eq!(shared.experts.as_ref().map(|e| (e.total, e.shared)), Some((128, 2)));
        assert_eq!((mine.layers, mine.hidden, mine.context_max), (40, 4096, 131_072));
        assert_eq!((new.head_dim, new.kv_heads, new.tied), (64, 2, false));
        assert_eq!(moe.experts.as_ref().unwrap().total, 16);
        assert_eq!(mine.params_total, None);
        assert!(mine.source.contains("own.toml"));
    }

    #[test]
    fn what_is_wrong_is_named_with_file_and_line() {
        let like =
            |id: &str, keys: &str| format!("[[model]]\nid = \"m\"\nlike = \"{id}\"\n{keys}\n");
        let device = "[[device]]\nid = \"x\"\nkind = \"gpu\"\nfamily = \"nvidia-ada\"\n";
        for (text, expected) in [
            (
                "[[device]]\nid = \"x\"\nmemory_gb = 1\n".to_owned(),
                "own.toml:3: unknown key 'memory_gb'; did you mean 'memory_gib'?",
            ),
            (
                "[[devise]]\nid = \"x\"\n".to_owned(),
                "own.toml:1: unknown key 'devise'; did you mean 'device'?",
            ),
            (
                "[[device]]\nid = \"x\"\nkind = \"gpu\"\nfamily = \"nvidia-adda\"\n".to_owned(),
                "own.toml:4: unknown word 'nvidia-adda'; did you mean 'nvidia-ada'?",
            ),
            (
                format!("{device}memory_gib = -1\nbandwidth_gb_s = 2\n"),
                "own.toml:5: memory_gib is -1; it must be above 0",
            ),
            (format!("{device}bandwidth_gb_s = 2\n"), "own.toml:1: missing field 'memory_gib'"),
            (
                "[[price]]\ndevice = \"rtx-5099\"\nusd = 1\n".to_owned(),
                "own.toml:2: unknown device 'rtx-5099'; did you mean",
            ),
            (
                "[[price]]\ndevice = \"rtx-5090\"\nusd = 0\n".to_owned(),
                "own.toml:3: usd is 0; it must be above 0",
            ),
            (
                "[[model]]\nid = \"m\"\nlike = \"qwen3-8\"\n".to_owned(),
                "own.toml:3: unknown model 'qwen3-8'; did you mean 'qwen3-8b'",
            ),
            (
                "\n[[model]]\nid = \"m\"\n".to_owned(),
                "own.toml:2: model 'm' needs one of 'like' and 'architecture'",
            ),
            (
                "[[model]]\nid = \"m\"\narchitecture = \"llama\"\nlayers = 2\n".to_owned(),
                "own.toml:1: key 'hidden' is missing",
            ),
            (
                "[[model]]\nid = \"m\"\nlike = \"qwen3-8b\"\nlayers = 0\n".to_owned(),
                "own.toml:4: layers is 0",
            ),
            (
                "[[model]]\nid = \"m\"\narchitecture = \"deepseek2\"\n".to_owned(),
                "own.toml:3: a model of architecture 'deepseek2' has more parts",
            ),
            ("x = = 1\n".to_owned(), "own.toml:1: "),
            (
                like("gemma-4-e2b", "layers = 20"),
                "own.toml:1: 20 layers, of which the last 20 share the cache of earlier ones",
            ),
            (
                like("qwen3-8b", "window = 4096"),
                "own.toml:4: no layer of architecture 'qwen3' has a window; leave 'window' out",
            ),
            (
                like("qwen3-8b", "full_every = 4"),
                "own.toml:4: 'full_every' says nothing without 'window'",
            ),
            (
                like("qwen3-8b", "experts_shared = 1"),
                "own.toml:1: keys 'experts', 'experts_active' and 'expert_ffn' must stand together",
            ),
            (
                like("qwen3-30b-a3b", "experts_active = 129"),
                "own.toml:1: more experts_active than experts",
            ),
            (
                // 65,536 × 65,536 is 0 in 32 bits.
                like("llama-3.1-8b", "heads = 65536\nhead_dim = 65536"),
                "own.toml:1: heads × head_dim or experts × expert_ffn are wider than any model",
            ),
            (
                like("qwen3-30b-a3b", "experts_shared = 4294967295"),
                "own.toml:1: heads × head_dim or experts × expert_ffn are wider than any model",
            ),
            (
                like("llama-3.1-8b", "hidden = 100000000\nffn = 100000000"),
                "own.toml:1: about 960065254400000000 weights; no model has as many",
            ),
        ] {
            let message = error(&text);
            assert!(message.starts_with(expected), "{message}\nnot\n{expected}");
        }
    }
}
