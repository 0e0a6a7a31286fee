//! Every input of a purchase decision: its key, unit, bounds and meaning in one table.

use std::fmt;
use std::str::FromStr;

use rust_decimal::Decimal;
use rust_decimal::prelude::{FromPrimitive, ToPrimitive};

use super::number::Number;
use crate::units::{TokensPerSecond, Usd, UsdPerHour, UsdPerKwh, UsdPerMtok, Watts};

/// A typed amount that can be written as a plain number in the unit that its type names.
pub trait Amount: Copy {
    /// The number in that unit.
    fn number(self) -> Decimal;
    /// The amount for a number in that unit.
    fn amount(number: Decimal) -> Self;
}

macro_rules! decimal_amounts {
    ($($name:ident),*) => {$(
        impl Amount for $name {
            fn number(self) -> Decimal {
                self.0
            }
            fn amount(number: Decimal) -> Self {
                Self(number)
            }
        }
    )*};
}
decimal_amounts!(Usd, UsdPerMtok, UsdPerKwh, UsdPerHour);

macro_rules! float_amounts {
    ($($name:ident),*) => {$(
        impl Amount for $name {
            fn number(self) -> Decimal {
                // A measured value that is no number is out of every input's bounds.
                Decimal::from_f64(self.0).unwrap_or(Decimal::MIN)
            }
            fn amount(number: Decimal) -> Self {
                Self(number.to_f64().unwrap_or(f64::NAN))
            }
        }
    )*};
}
float_amounts!(Watts, TokensPerSecond);

impl Amount for Decimal {
    fn number(self) -> Decimal {
        self
    }
    fn amount(number: Decimal) -> Self {
        number
    }
}

macro_rules! inputs {
    ($($(#[doc = $doc:literal])+ $key:ident: $kind:ty, $unit:literal, $low:literal to $high:literal;)*) => {
        /// All inputs of one decision, each in the unit of its type.
        #[derive(Clone, Copy, Debug, PartialEq)]
        pub struct Inputs {
            $($(#[doc = $doc])+ pub $key: $kind,)*
        }

        /// The inputs as bare numbers in the arithmetic `N`; only the formulas see them.
        #[derive(Clone, Copy, Debug)]
        pub(super) struct Numbers<N> {
            $(pub(super) $key: N,)*
        }

        /// The name of one input.
        #[allow(non_camel_case_types)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Input {
            $($(#[doc = $doc])+ $key,)*
        }

        impl Input {
            /// All of them, in the order of the table.
            pub const ALL: &[Self] = &[$(Self::$key,)*];

            /// As scenarios and flags spell it.
            pub fn key(self) -> &'static str {
                match self { $(Self::$key => stringify!($key),)* }
            }

            /// The unit of its number.
            pub fn unit(self) -> &'static str {
                match self { $(Self::$key => $unit,)* }
            }

            /// What it means, in one line.
            pub fn meaning(self) -> &'static str {
                match self { $(Self::$key => concat!($($doc),+).trim_ascii(),)* }
            }

            /// The smallest and the largest value that is not absurd.
            pub fn bounds(self) -> (Decimal, Decimal) {
                match self { $(Self::$key => (decimal($low), decimal($high)),)* }
            }
        }

        impl Inputs {
            /// The value of `input` in its unit.
            pub fn get(&self, input: Input) -> Decimal {
                match input { $(Input::$key => self.$key.number(),)* }
            }

            /// Gives `input` the value `number` in its unit.
            pub fn set(&mut self, input: Input, number: Decimal) {
                match input { $(Input::$key => self.$key = Amount::amount(number),)* }
            }

            pub(super) fn numbers<N: Number>(&self) -> Numbers<N> {
                Numbers { $($key: N::of(self.$key.number()),)* }
            }
        }

        impl<N> Numbers<N> {
            pub(super) fn set(&mut self, input: Input, value: N) {
                match input { $(Input::$key => self.$key = value,)* }
            }
        }
    };
}

inputs! {
    /// Requests on a working day, in the first year
    requests_per_day: Decimal, "requests", "0" to "1e9";
    /// Prompt tokens of a request, those from a cache included
    prompt_tokens: Decimal, "tokens", "0" to "1e7";
    /// Generated tokens of a request
    new_tokens: Decimal, "tokens", "0" to "1e6";
    /// Share of the prompt that a prefix cache answers
    cached_share: Decimal, "share", "0" to "1";
    /// Share of requests that can wait: batch price in the cloud, off-peak on an own machine
    batch_share: Decimal, "share", "0" to "1";
    /// Working days in a month
    working_days_per_month: Decimal, "days", "0" to "31";
    /// Hours of a working day in which requests come
    active_hours_per_day: Decimal, "hours", "0.1" to "24";
    /// Load of the busiest hour relative to the mean of the active hours
    peak_factor: Decimal, "times", "1" to "1000";
    /// Growth of the use in a year; 0.2 is 20 % more
    growth_per_year: Decimal, "share", "-0.99" to "3";
    /// Purchase price of one device
    device_usd: Usd, "USD", "0" to "1e7";
    /// Purchase price of the rest of the machine, for each device
    rest_usd: Usd, "USD", "0" to "1e7";
    /// Years of use
    life_years: Decimal, "years", "0.1" to "20";
    /// What it sells for at the end, as a share of the purchase
    resale_share: Decimal, "share", "0" to "1";
    /// Generated tokens a second of one device for this workload, at its SLO
    output_tok_s: TokensPerSecond, "tok/s", "0.001" to "1e7";
    /// Time of one device for a million uncached prompt tokens; 0 where output_tok_s includes it
    prompt_s_per_mtok: Decimal, "s/Mtok", "0" to "1e9";
    /// Time that devices compute relative to full batches: a request alone takes longer than its share
    busy_factor: Decimal, "times", "1" to "1000";
    /// Requests on a working day that one device serves, as a plan says; 0: by its speed
    requests_per_device: Decimal, "requests", "0" to "1e9";
    /// Power of the whole machine while it computes, for each device
    active_watts: Watts, "W", "0" to "1e5";
    /// Power of the whole machine while it waits, for each device
    idle_watts: Watts, "W", "0" to "1e5";
    /// Hours a day that the machine is switched on
    powered_hours_per_day: Decimal, "hours", "0.1" to "24";
    /// Capacity kept free, as a share of what is bought
    spare_share: Decimal, "share", "0" to "0.9";
    /// Price of electricity
    electricity_usd_per_kwh: UsdPerKwh, "USD/kWh", "0" to "5";
    /// Energy of the building relative to the machine's
    pue: Decimal, "times", "1" to "5";
    /// Rack or colocation, for each device
    rack_usd_per_month: Usd, "USD", "0" to "1e6";
    /// Maintenance in a year, as a share of the purchase
    maintenance_share_per_year: Decimal, "share", "0" to "1";
    /// Work of people in a month, for all devices together
    staff_hours_per_month: Decimal, "hours", "0" to "1e5";
    /// What an hour of work costs
    staff_usd_per_hour: UsdPerHour, "USD/h", "0" to "1e4";
    /// Cost of capital in a year, compounded monthly; 0.08 is 8 %
    capital_cost_per_year: Decimal, "share", "0" to "1";
    /// Share of the purchase that a loan pays
    loan_share: Decimal, "share", "0" to "1";
    /// Interest of that loan in a year
    loan_rate_per_year: Decimal, "share", "0" to "1";
    /// Years in which that loan is paid back, in equal monthly payments
    loan_years: Decimal, "years", "0.1" to "20";
    /// API price of prompt tokens
    api_input_usd_per_mtok: UsdPerMtok, "USD/Mtok", "0" to "1e4";
    /// API price of prompt tokens that its cache answers
    api_cached_usd_per_mtok: UsdPerMtok, "USD/Mtok", "0" to "1e4";
    /// API price of generated tokens
    api_output_usd_per_mtok: UsdPerMtok, "USD/Mtok", "0" to "1e4";
    /// Discount of the API's batch mode; 0.5 is half the price
    api_batch_discount: Decimal, "share", "0" to "1";
    /// Bill in a month of the first year, apart from prices for tokens; it grows with the use
    api_usd_per_month: Usd, "USD", "0" to "1e9";
    /// Change of API prices in a year; -0.3 is 30 % less
    api_change_per_year: Decimal, "share", "-0.99" to "3";
    /// Rent of one GPU, or of all those of one rented machine
    rent_usd_per_gpu_hour: UsdPerHour, "USD/h", "0" to "1e4";
    /// Hours a day that GPUs are rented
    rent_hours_per_day: Decimal, "hours", "0.1" to "24";
    /// Generated tokens a second of one rented GPU; 0: as fast as the own device
    rented_tok_s: TokensPerSecond, "tok/s", "0" to "1e7";
    /// Time of one rented GPU for a million uncached prompt tokens
    rented_prompt_s_per_mtok: Decimal, "s/Mtok", "0" to "1e9";
}

fn decimal(text: &str) -> Decimal {
    Decimal::from_scientific(text).or_else(|_| text.parse()).expect("a bound in the table above")
}

impl fmt::Display for Input {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.key())
    }
}

/// No input has this key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownInput(pub String);

impl fmt::Display for UnknownInput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let near = Input::ALL
            .iter()
            .map(|input| (strsim::jaro_winkler(&self.0, input.key()), input.key()))
            .max_by(|a, b| a.0.total_cmp(&b.0))
            .map_or("", |(_, key)| key);
        write!(f, "unknown input '{}'; did you mean '{near}'?", self.0)
    }
}

impl std::error::Error for UnknownInput {}

impl FromStr for Input {
    type Err = UnknownInput;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let key = text.trim().replace('-', "_");
        let found = Self::ALL.iter().find(|input| input.key() == key);
        found.copied().ok_or_else(|| UnknownInput(text.to_owned()))
    }
}

impl Inputs {
    /// A decision in which nothing happens yet: no requests, no prices, one request at a time.
    ///
    /// Every price is zero here, so that a caller must set those that its question needs.
    pub fn blank() -> Self {
        let zero = Decimal::ZERO;
        let one = Decimal::ONE;
        Self {
            requests_per_day: zero,
            prompt_tokens: zero,
            new_tokens: zero,
            cached_share: zero,
            batch_share: zero,
            working_days_per_month: Decimal::from(21),
            active_hours_per_day: Decimal::from(24),
            peak_factor: one,
            growth_per_year: zero,
            device_usd: Usd(zero),
            rest_usd: Usd(zero),
            life_years: Decimal::from(3),
            resale_share: zero,
            output_tok_s: TokensPerSecond(1.0),
            prompt_s_per_mtok: zero,
            busy_factor: one,
            requests_per_device: zero,
            active_watts: Watts(0.0),
            idle_watts: Watts(0.0),
            powered_hours_per_day: Decimal::from(24),
            spare_share: zero,
            electricity_usd_per_kwh: UsdPerKwh(zero),
            pue: one,
            rack_usd_per_month: Usd(zero),
            maintenance_share_per_year: zero,
            staff_hours_per_month: zero,
            staff_usd_per_hour: UsdPerHour(zero),
            capital_cost_per_year: zero,
            loan_share: zero,
            loan_rate_per_year: zero,
            loan_years: Decimal::from(3),
            api_input_usd_per_mtok: UsdPerMtok(zero),
            api_cached_usd_per_mtok: UsdPerMtok(zero),
            api_output_usd_per_mtok: UsdPerMtok(zero),
            api_batch_discount: zero,
            api_usd_per_month: Usd(zero),
            api_change_per_year: zero,
            rent_usd_per_gpu_hour: UsdPerHour(zero),
            rent_hours_per_day: Decimal::from(24),
            rented_tok_s: TokensPerSecond(0.0),
            rented_prompt_s_per_mtok: zero,
        }
    }

    /// Checks every value against its bounds and the values against each other.
    ///
    /// # Errors
    /// The first input that cannot be, with what would do.
    pub fn check(&self) -> anyhow::Result<()> {
        for &input in Input::ALL {
            check_bounds(input, self.get(input))?;
        }
        anyhow::ensure!(
            self.idle_watts <= self.active_watts,
            "'idle_watts' {} is above 'active_watts' {}: a waiting machine draws less",
            self.idle_watts,
            self.active_watts
        );
        anyhow::ensure!(
            self.powered_hours_per_day >= self.active_hours_per_day
                || self.batch_share == Decimal::ONE,
            "'powered_hours_per_day' {} is below 'active_hours_per_day' {}: the machine would be \
             off while requests come",
            self.powered_hours_per_day,
            self.active_hours_per_day
        );
        anyhow::ensure!(
            self.rent_usd_per_gpu_hour.0.is_zero()
                || self.rent_hours_per_day >= self.active_hours_per_day
                || self.batch_share == Decimal::ONE,
            "'rent_hours_per_day' {} is below 'active_hours_per_day' {}: nothing would be rented \
             while requests come",
            self.rent_hours_per_day,
            self.active_hours_per_day
        );
        Ok(())
    }
}

/// Checks one number against the bounds of its input.
///
/// # Errors
/// The key, the number and the bounds.
pub fn check_bounds(input: Input, number: Decimal) -> anyhow::Result<()> {
    let (low, high) = input.bounds();
    anyhow::ensure!(
        (low..=high).contains(&number),
        "'{input}' is {}, which cannot be: write {} to {} {}",
        if number == Decimal::MIN {
            "no number".to_owned()
        } else {
            number.normalize().to_string()
        },
        low.normalize(),
        high.normalize(),
        input.unit()
    );
    Ok(())
}

/// How far an input may lie from its point value, and why.
#[derive(Clone, Debug, PartialEq)]
pub struct Range {
    /// Which input.
    pub input: Input,
    /// The least that is plausible.
    pub low: Decimal,
    /// The most that is plausible.
    pub high: Decimal,
    /// Where the range comes from.
    pub basis: String,
}

impl Range {
    /// A range that must hold the point value of `inputs`.
    ///
    /// # Errors
    /// The range that is turned round, out of bounds, or away from the point value.
    pub fn new(
        inputs: &Inputs,
        input: Input,
        low: Decimal,
        high: Decimal,
        basis: impl Into<String>,
    ) -> anyhow::Result<Self> {
        check_bounds(input, low)?;
        check_bounds(input, high)?;
        let point = inputs.get(input);
        anyhow::ensure!(
            low <= point && point <= high,
            "the range {} to {} of '{input}' does not hold its value {}: write LOW..HIGH around it",
            low.normalize(),
            high.normalize(),
            point.normalize()
        );
        Ok(Self { input, low, high, basis: basis.into() })
    }

    /// Whether it is a single value.
    pub fn is_point(&self) -> bool {
        self.low == self.high
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_input_can_be_read_back_by_its_key() {
        let mut inputs = Inputs::blank();
        for (i, &input) in Input::ALL.iter().enumerate() {
            assert_eq!(input.key().parse::<Input>().unwrap(), input);
            assert_eq!(input.key().replace('_', "-").parse::<Input>().unwrap(), input);
            let value = Decimal::new(1 + i as i64, 2);
            inputs.set(input, value);
            assert_eq!(inputs.get(input), value, "{input}");
            assert!(input.bounds().0 < input.bounds().1, "{input}");
            assert!(!input.meaning().is_empty() && !input.unit().is_empty(), "{input}");
        }
    }

    #[test]
    fn an_unknown_key_names_the_nearest() {
        let error = "device_uds".parse::<Input>().unwrap_err();
        assert_eq!(error.to_string(), "unknown input 'device_uds'; did you mean 'device_usd'?");
    }

    #[test]
    fn absurd_values_are_refused_with_their_key_and_bounds() {
        let mut inputs = Inputs::blank();
        inputs.check().unwrap();
        inputs.device_usd = Usd(Decimal::from(-5));
        assert_eq!(
            inputs.check().unwrap_err().to_string(),
            "'device_usd' is -5, which cannot be: write 0 to 10000000 USD"
        );
        inputs.device_usd = Usd(Decimal::ZERO);
        inputs.output_tok_s = TokensPerSecond(f64::NAN);
        assert!(inputs.check().unwrap_err().to_string().contains("'output_tok_s' is no number"));
        inputs.output_tok_s = TokensPerSecond(1.0);
        inputs.idle_watts = Watts(5.0);
        assert!(inputs.check().unwrap_err().to_string().contains("a waiting machine draws less"));
    }

    #[test]
    fn a_range_that_misses_its_point_is_refused() {
        let inputs = Inputs::blank();
        let two = Decimal::from(2);
        let error = Range::new(&inputs, Input::life_years, Decimal::ONE, two, "").unwrap_err();
        assert_eq!(
            error.to_string(),
            "the range 1 to 2 of 'life_years' does not hold its value 3: write LOW..HIGH around it"
        );
    }
}
