//! Shapes of requests with a name, each with the reason for its numbers.

use anyhow::Context;

use super::Length;
use crate::units::Nanos;

/// A named shape of requests. The numbers are assumptions, stated so that they can be argued with.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Preset {
    /// As flags and scenarios spell it.
    pub name: &'static str,
    /// Names of the same use where a day of it is counted, as `bench cost` does.
    pub also: &'static [&'static str],
    /// What it stands for and why these numbers.
    pub basis: &'static str,
    prompt: (f64, f64),
    answer: (f64, f64),
    /// Requests of a conversation or chain.
    pub turns: u32,
    /// The pause before a further one.
    pub think: Nanos,
}

/// Shapes of requests.
pub const PRESETS: [Preset; 4] = [
    Preset {
        name: "chat",
        also: &["chat-team"],
        basis: "assumed: people write 80 tokens (one in twenty 800), read an answer of 250 for \
                half a minute and ask on, four times",
        prompt: (80.0, 800.0),
        answer: (250.0, 900.0),
        turns: 4,
        think: Nanos(30_000_000_000),
    },
    Preset {
        name: "rag",
        also: &[],
        basis: "assumed: a question with five passages of 600 tokens, one answer of 200",
        prompt: (3000.0, 6000.0),
        answer: (200.0, 500.0),
        turns: 1,
        think: Nanos(0),
    },
    Preset {
        name: "coding-agent",
        also: &["coding-agents", "always-on-agent"],
        basis: "assumed: a chain of twenty calls half a second apart, each adding 700 tokens of \
                tool output and generating 120",
        prompt: (700.0, 5000.0),
        answer: (120.0, 800.0),
        turns: 20,
        think: Nanos(500_000_000),
    },
    Preset {
        name: "batch-summary",
        also: &["document-batch"],
        basis: "assumed: documents of 4,000 tokens (one in twenty 16,000), summaries of 300",
        prompt: (4000.0, 16_000.0),
        answer: (300.0, 600.0),
        turns: 1,
        think: Nanos(0),
    },
];

impl Preset {
    /// The preset of that name, or an error with the nearest and all known.
    pub fn find(name: &str) -> anyhow::Result<Self> {
        let known =
            PRESETS.iter().find(|preset| preset.name == name || preset.also.contains(&name));
        let known = known.copied();
        known.with_context(|| {
            let names = PRESETS.map(|preset| preset.name);
            let like = |known: &&str| (strsim::jaro_winkler(known, name) * 1e6) as u32;
            let near = names.into_iter().max_by_key(|known| like(known)).unwrap_or_default();
            format!("unknown workload '{name}'; did you mean '{near}'? Known: {}", names.join(", "))
        })
    }

    /// The lengths of prompts.
    pub fn prompt(&self) -> Length {
        Length::LogNormal { median: self.prompt.0, p95: self.prompt.1 }
    }

    /// The lengths of answers.
    pub fn answer(&self) -> Length {
        Length::LogNormal { median: self.answer.0, p95: self.answer.1 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn presets_have_lengths_and_are_found_by_each_of_their_names() {
        for preset in PRESETS {
            assert!(preset.prompt().check().is_ok() && preset.answer().check().is_ok());
            for name in preset.also {
                assert_eq!(Preset::find(name).unwrap(), preset, "{name}");
            }
        }
        assert!(Preset::find("chatt").unwrap_err().to_string().contains("'chat'"));
    }
}
