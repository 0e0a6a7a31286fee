//! The model and the quantisation that a file's name or a hub's id stand for.

use crate::catalog::{models, quants};

/// Who a name stands for.
#[derive(Clone, Debug, PartialEq)]
pub struct Identity {
    /// The catalogue's id where it is a catalogued model, else the name without its quantisation.
    pub model: String,
    /// The quantisation; empty where the name does not say.
    pub quant: String,
    /// The name without folders: they can name a person.
    pub weights: String,
}

/// Words after a model's name that change neither its shape nor its speed.
const VARIANTS: [&str; 5] = ["-instruct", "-it", "-chat", "-base", "-hf"];

/// Who `name` stands for; `quant` is what the tool says beside it.
pub fn identify(name: &str, quant: Option<&str>) -> Identity {
    let weights = name.rsplit(['/', '\\']).next().unwrap_or(name).trim().to_owned();
    let lower = weights.to_lowercase();
    let stem = lower.strip_suffix(".gguf").or_else(|| lower.strip_suffix(".llamafile"));
    let stem = stem.unwrap_or(&lower);
    let found = in_name(stem);
    let model = found.as_ref().map_or(stem, |(at, _)| &stem[..*at]);
    let model = model.trim_end_matches(['-', '.', '_']).replace(' ', "-");
    let plain = VARIANTS.iter().fold(model.as_str(), |m, word| m.strip_suffix(word).unwrap_or(m));
    let known = models::all()
        .iter()
        .find(|spec| spec.id.eq_ignore_ascii_case(&model) || spec.id.eq_ignore_ascii_case(plain));
    let quant = quant.and_then(spelt).or_else(|| found.map(|(_, quant)| quant));
    Identity {
        model: known.map_or(model, |spec| spec.id.clone()),
        quant: quant.unwrap_or_default(),
        weights,
    }
}

/// The quantisation in a name, and where it begins: `qwen3-0.6b-q4_k_m-s1`.
fn in_name(stem: &str) -> Option<(usize, String)> {
    let mut found: Option<(usize, String)> = None;
    for quant in quants::all().iter().filter(|quant| quant.family.starts_with("GGUF")) {
        let word = quant.id.to_lowercase();
        let Some(at) = stem.rfind(&word).filter(|at| *at > 0) else { continue };
        let bounded = |c: Option<char>| c.is_none_or(|c| "-._ ".contains(c));
        let before = bounded(stem[..at].chars().next_back());
        let after = bounded(stem[at + word.len()..].chars().next());
        // `q4_k_m`, not the `q4_k` that it begins with.
        let longer = found.as_ref().is_none_or(|(_, known)| known.len() < quant.id.len());
        if before && after && longer {
            found = Some((at, quant.id.clone()));
        }
    }
    found
}

/// A tool's spelling of a quantisation in the catalogue's: `Q4_K - Medium` is `Q4_K_M`.
fn spelt(text: &str) -> Option<String> {
    let text = text.trim();
    let short = [(" - Small", "_S"), (" - Medium", "_M"), (" - Large", "_L")]
        .iter()
        .fold(text.to_owned(), |text, (long, short)| text.replace(long, short));
    let known = quants::all().iter().find(|quant| quant.id.eq_ignore_ascii_case(&short));
    let other = (!short.is_empty()).then_some(short);
    known.map(|quant| quant.id.clone()).or(other)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(name: &str) -> (String, String) {
        let Identity { model, quant, .. } = identify(name, None);
        (model, quant)
    }

    #[test]
    fn a_file_s_name_gives_the_catalogued_model_and_its_quantisation() {
        for name in [
            "/home/alice/models/Qwen3-0.6B-Q4_K_M.gguf",
            "qwen3-0.6b-Q4_K_M-s1-74d81cdd40c4.gguf",
            "C:\\models\\qwen3-0.6b.Q4_K_M.gguf",
        ] {
            assert_eq!(of(name), ("qwen3-0.6b".to_owned(), "Q4_K_M".to_owned()), "{name}");
        }
        assert_eq!(of("Qwen/Qwen3-0.6B").0, "qwen3-0.6b");
        assert_eq!(of("meta-llama/Llama-3.1-8B-Instruct").0, "llama-3.1-8b");
    }

    #[test]
    fn an_unknown_name_stays_what_it_is_without_its_folders() {
        assert_eq!(of("/home/alice/my-model.gguf"), ("my-model".to_owned(), String::new()));
        let weights = identify("/home/alice/my-model.gguf", None).weights;
        assert_eq!(weights, "my-model.gguf");
    }

    #[test]
    fn a_tool_s_own_spelling_is_understood() {
        let quant = |text| identify("m.gguf", Some(text)).quant;
        assert_eq!(quant("Q4_K - Medium"), "Q4_K_M");
        assert_eq!(quant("q8_0"), "Q8_0");
        assert_eq!(quant("EXL3 4.0bpw"), "EXL3 4.0bpw");
    }
}
