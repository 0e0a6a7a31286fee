//! The machines and prices that the claims are worked out with.

use anyhow::Context;
use jiff::civil::Date;
use rust_decimal::Decimal;

use crate::catalog::{cloud_prices, electricity};
use crate::cost::{Alternative, ApiPrice, Comparison, Inputs, compare};
use crate::units::{TokensPerSecond, Usd, UsdPerMtok, Watts};

pub(super) const SONNET: &str = "anthropic/claude-sonnet-5.5";
pub(super) const OPUS: &str = "anthropic/claude-opus-5.5";
pub(super) const HOSTED: &str = "openrouter/openai/gpt-oss-120b";

/// A machine whose speed somebody published.
pub(super) struct Machine {
    /// Generated tokens a second, all streams together.
    pub(super) tok_s: f64,
    /// Prompt tokens a second.
    pub(super) prompt_tok_s: f64,
    pub(super) usd: u32,
    pub(super) active_watts: f64,
    pub(super) idle_watts: f64,
    /// What the figures are, and where they come from.
    pub(super) basis: &'static str,
}

/// The machine that serves many streams of a large open model.
pub(super) const SPARK: Machine = Machine {
    tok_s: 312.56,
    prompt_tok_s: 1983.16,
    usd: 6950,
    active_watts: 140.0,
    idle_watts: 5.0,
    basis: "DGX Spark, gpt-oss-120b, 32 streams: 312.56 tok/s generated, 1,983 tok/s of prompts \
            (ggml-org/llama.cpp benches/dgx-spark.md, 2025-11-02); $6,950 (2026-10-02), 140 W, \
            5 W at idle (github:rlindsey2/sunkcost, at the wall)",
};

/// The machine of the break-even for 1,500 USD.
pub(super) const GAMING_PC: Machine = Machine {
    tok_s: 67.95,
    prompt_tok_s: 3682.37,
    usd: 1500,
    active_watts: 300.0,
    idle_watts: 57.0,
    basis: "RTX 4070 Super (the bandwidth of an RTX 4070), Llama 3.1 8B Q4_K_M, one stream: 67.95 \
            tok/s generated, 3,682 tok/s of prompts (localscore.ai, read 2026-04-17); an RTX 4070's \
            200 W and 7 W, and 100 W and 50 W assumed for the rest",
};

/// The laptop with 128 GB.
pub(super) const LAPTOP: Machine = Machine {
    tok_s: 141.1,
    prompt_tok_s: 1e9,
    usd: 4000,
    active_watts: 145.0,
    idle_watts: 6.0,
    basis: "M4 Max, Qwen3 30B-A3B, one stream: at most 141 tok/s, twice the 70.55 of an M4 Pro \
            (llmfit, 2026-07-29) as its memory has twice the bandwidth (546 to 273 GB/s); the time \
            for prompts not counted",
};

impl Machine {
    /// The machine with nothing but its price and electricity, for three years.
    pub(super) fn inputs(&self) -> anyhow::Result<Inputs> {
        let us = electricity::find("US", "household", None)?;
        let seconds = Decimal::try_from(1e6 / self.prompt_tok_s)?;
        Ok(Inputs {
            device_usd: Usd(self.usd.into()),
            output_tok_s: TokensPerSecond(self.tok_s),
            prompt_s_per_mtok: seconds,
            active_watts: Watts(self.active_watts),
            idle_watts: Watts(self.idle_watts),
            electricity_usd_per_kwh: us.price,
            working_days_per_month: Decimal::new(304_375, 4),
            prompt_tokens: Decimal::from(3000),
            new_tokens: Decimal::from(1000),
            ..Inputs::blank()
        })
    }

    /// The same with so many million tokens a month, three of prompts for one generated.
    pub(super) fn with_volume(&self, mtok: Decimal) -> anyhow::Result<Inputs> {
        let mut inputs = self.inputs()?;
        inputs.requests_per_day =
            mtok * Decimal::from(1_000_000) / Decimal::from(4000) / inputs.working_days_per_month;
        Ok(inputs)
    }
}

pub(super) struct Prices {
    pub(super) today: Date,
}

impl Prices {
    pub(super) fn api(&self, key: &str) -> anyhow::Result<ApiPrice> {
        let quote = cloud_prices::embedded().api(key, 3000, self.today)?;
        Ok(ApiPrice {
            input: quote.listing.input.context("a list without an input price")?,
            cached: quote.listing.cached,
            output: quote.listing.output.context("a list without an output price")?,
            batch_discount: quote.batch_discount,
        })
    }

    /// For a million tokens, three of prompts for one generated.
    pub(super) fn blended(&self, key: &str) -> anyhow::Result<UsdPerMtok> {
        let price = self.api(key)?;
        Ok(UsdPerMtok((price.input.0 * Decimal::from(3) + price.output.0) / Decimal::from(4)))
    }

    pub(super) fn against(&self, inputs: Inputs, key: &str) -> anyhow::Result<Comparison> {
        compare(&Alternative::Api(self.api(key)?).of(inputs)?)
    }
}
