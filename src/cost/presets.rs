//! Workloads to start from, each with the reason for its numbers.

use rust_decimal::Decimal;

use super::inputs::Inputs;
use crate::workload;

/// A workload with a name.
#[derive(Clone, Copy, Debug)]
pub struct Preset {
    /// As flags and scenarios spell it.
    pub name: &'static str,
    /// What it stands for.
    pub meaning: &'static str,
    /// Where its numbers come from.
    pub basis: &'static str,
    /// People or agents that it is for; none where it is not counted in them.
    pub users: Option<u32>,
    requests_per_day: u32,
    prompt_tokens: u32,
    new_tokens: u32,
    cached_percent: u32,
    batch_percent: u32,
    working_days_per_month: u32,
    active_hours_per_day: u32,
    peak_tenths: u32,
}

/// All of them.
pub const PRESETS: &[Preset] = &[
    Preset {
        name: "chat-team",
        meaning: "25 people who chat with a model through the working day",
        basis: "assumed: 40 requests a person and day, prompts of 1,500 tokens with the history, \
                answers of 350; the busiest hour has three times the mean",
        users: Some(25),
        requests_per_day: 1000,
        prompt_tokens: 1500,
        new_tokens: 350,
        cached_percent: 40,
        batch_percent: 0,
        working_days_per_month: 21,
        active_hours_per_day: 9,
        peak_tenths: 30,
    },
    Preset {
        name: "coding-agents",
        meaning: "a developer's coding agents, an API bill of 500 to 1,000 USD a month",
        basis: "assumed: 1,500 calls a day of 14,000 prompt tokens, 80 % from the prefix cache, and \
                600 generated tokens: 654 USD a month at 3 USD input, 0.30 cached and 15 output for a \
                million tokens",
        users: Some(1),
        requests_per_day: 1500,
        prompt_tokens: 14_000,
        new_tokens: 600,
        cached_percent: 80,
        batch_percent: 0,
        working_days_per_month: 21,
        active_hours_per_day: 10,
        peak_tenths: 20,
    },
    Preset {
        name: "document-batch",
        meaning: "20,000 documents a day, summarised within a day",
        basis: "assumed: documents of 3,000 tokens, summaries of 300; none is urgent",
        users: None,
        requests_per_day: 20_000,
        prompt_tokens: 3000,
        new_tokens: 300,
        cached_percent: 0,
        batch_percent: 100,
        working_days_per_month: 21,
        active_hours_per_day: 24,
        peak_tenths: 10,
    },
    Preset {
        name: "always-on-agent",
        meaning: "one agent that works around the clock",
        basis: "assumed: a call every 30 seconds of 6,000 prompt tokens, 70 % from the prefix \
                cache, and 400 generated tokens",
        users: Some(1),
        requests_per_day: 2880,
        prompt_tokens: 6000,
        new_tokens: 400,
        cached_percent: 70,
        batch_percent: 0,
        working_days_per_month: 30,
        active_hours_per_day: 24,
        peak_tenths: 15,
    },
];

impl Preset {
    /// The preset of that name.
    ///
    /// # Errors
    /// An unknown name, with the nearest and all known.
    pub fn find(name: &str) -> anyhow::Result<&'static Self> {
        // The name of the requests alone stands for a day of them where there is one.
        let day = workload::PRESETS.iter().find(|requests| requests.name == name);
        let day = day.and_then(|requests| requests.also.first()).copied().unwrap_or(name);
        PRESETS.iter().find(|preset| preset.name == day).ok_or_else(|| {
            let near = PRESETS
                .iter()
                .max_by(|a, b| {
                    strsim::jaro_winkler(a.name, name)
                        .total_cmp(&strsim::jaro_winkler(b.name, name))
                })
                .map_or("", |preset| preset.name);
            let all: Vec<_> = PRESETS.iter().map(|preset| preset.name).collect();
            anyhow::anyhow!(
                "unknown workload '{name}'; did you mean '{near}'? There are {}",
                all.join(", ")
            )
        })
    }

    /// `inputs` with this workload.
    pub fn of(&self, mut inputs: Inputs) -> Inputs {
        let percent = |value: u32| Decimal::new(value.into(), 2);
        inputs.requests_per_day = self.requests_per_day.into();
        inputs.prompt_tokens = self.prompt_tokens.into();
        inputs.new_tokens = self.new_tokens.into();
        inputs.cached_share = percent(self.cached_percent);
        inputs.batch_share = percent(self.batch_percent);
        inputs.working_days_per_month = self.working_days_per_month.into();
        inputs.active_hours_per_day = self.active_hours_per_day.into();
        inputs.peak_factor = Decimal::new(self.peak_tenths.into(), 1);
        inputs
    }
}
