//! The alternatives to owning: an API that charges for tokens, GPUs by the hour, a bill that is paid.

use rust_decimal::Decimal;

use super::inputs::{Input, Inputs};
use crate::units::{TokensPerSecond, Usd, UsdPerHour, UsdPerMtok};

/// What an API charges for tokens.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ApiPrice {
    /// Prompt tokens.
    pub input: UsdPerMtok,
    /// Prompt tokens that its cache answers; none where the list does not say.
    pub cached: Option<UsdPerMtok>,
    /// Generated tokens.
    pub output: UsdPerMtok,
    /// Discount of its batch mode; none where the list does not say.
    pub batch_discount: Option<Decimal>,
}

/// One alternative to owning.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Alternative {
    /// An API, of the model that is replaced or of the same model on somebody else's machines.
    Api(ApiPrice),
    /// GPUs by the hour.
    Gpus {
        /// Rent of one, or of all those of one machine.
        price: UsdPerHour,
        /// Hours a day that they are rented.
        hours_per_day: Decimal,
        /// Generated tokens a second of one, at the SLO; 0: as fast as the own device.
        tok_s: TokensPerSecond,
        /// Time of one for a million uncached prompt tokens; 0 where `tok_s` includes it.
        prompt_s_per_mtok: Decimal,
    },
    /// What is paid today, in a month, whatever for.
    Bill(Usd),
}

impl Alternative {
    /// Whether the bill of this alternative depends on `input`; inputs of no alternative count as
    /// used.
    pub fn uses(self, input: Input) -> bool {
        match input {
            Input::api_input_usd_per_mtok
            | Input::api_cached_usd_per_mtok
            | Input::api_output_usd_per_mtok
            | Input::api_batch_discount => matches!(self, Self::Api(_)),
            Input::api_usd_per_month => matches!(self, Self::Bill(_)),
            Input::api_change_per_year => !matches!(self, Self::Gpus { .. }),
            Input::rent_usd_per_gpu_hour
            | Input::rent_hours_per_day
            | Input::rented_tok_s
            | Input::rented_prompt_s_per_mtok => matches!(self, Self::Gpus { .. }),
            _ => true,
        }
    }

    /// `inputs` with this alternative and no other.
    ///
    /// # Errors
    /// The price that the workload needs and the list does not have.
    pub fn of(self, mut inputs: Inputs) -> anyhow::Result<Inputs> {
        let blank = Inputs::blank();
        inputs.api_input_usd_per_mtok = blank.api_input_usd_per_mtok;
        inputs.api_cached_usd_per_mtok = blank.api_cached_usd_per_mtok;
        inputs.api_output_usd_per_mtok = blank.api_output_usd_per_mtok;
        inputs.api_batch_discount = blank.api_batch_discount;
        inputs.api_usd_per_month = blank.api_usd_per_month;
        inputs.rent_usd_per_gpu_hour = blank.rent_usd_per_gpu_hour;
        match self {
            Self::Api(price) => {
                inputs.api_input_usd_per_mtok = price.input;
                inputs.api_output_usd_per_mtok = price.output;
                inputs.api_cached_usd_per_mtok = match price.cached {
                    Some(cached) => cached,
                    None if inputs.cached_share.is_zero() => price.input,
                    None => anyhow::bail!(
                        "no 'api_cached_usd_per_mtok' is known, and {} of the prompt tokens come \
                         from a cache: set it with --set api_cached_usd_per_mtok=…, say with \
                         --no-cache-discount that they cost as much as others, or set \
                         'cached_share' to 0",
                        crate::units::Share(super::number::Number::float(inputs.cached_share))
                    ),
                };
                inputs.api_batch_discount = match price.batch_discount {
                    Some(discount) => discount,
                    None if inputs.batch_share.is_zero() => Decimal::ZERO,
                    None => anyhow::bail!(
                        "no 'api_batch_discount' is known, and {} of the requests use the batch \
                         mode: set it, or 'batch_share' to 0",
                        crate::units::Share(super::number::Number::float(inputs.batch_share))
                    ),
                };
            }
            Self::Gpus { price, hours_per_day, tok_s, prompt_s_per_mtok } => {
                inputs.rent_usd_per_gpu_hour = price;
                inputs.rent_hours_per_day = hours_per_day;
                inputs.rented_tok_s = tok_s;
                inputs.rented_prompt_s_per_mtok = prompt_s_per_mtok;
            }
            Self::Bill(usd) => inputs.api_usd_per_month = usd,
        }
        Ok(inputs)
    }
}

/// Cost of a million tokens on a GPU that never waits: its price for an hour over the tokens of an
/// hour. This is the method of InferenceX (SemiAnalysis), and the floor under every real cost.
///
/// None where the machine makes no tokens.
pub fn at_full_load(price: UsdPerHour, speed: TokensPerSecond) -> Option<UsdPerMtok> {
    let per_hour = Decimal::try_from(speed.0).ok()? * Decimal::from(3600);
    (per_hour > Decimal::ZERO).then(|| UsdPerMtok(price.0 / per_hour * Decimal::from(1_000_000)))
}
