//! What it costs to own a machine, when it pays back, and against which alternative.
//!
//! Amounts carry their unit in their type, so that a price for tokens cannot stand for one of
//! energy, nor euros for dollars:
//!
//! ```compile_fail
//! use bench::units::{Usd, UsdPerKwh};
//! let mixed = Usd(1.into()) + UsdPerKwh(1.into());
//! ```
//!
//! ```compile_fail
//! let mut inputs = bench::cost::Inputs::blank();
//! inputs.electricity_usd_per_kwh = bench::units::UsdPerMtok(1.into());
//! ```

mod assumptions;
mod break_even;
mod claims;
mod cloud;
mod hybrid;
mod inputs;
mod number;
mod ownership;
mod presets;
mod sensitivity;

pub use assumptions::{Assumption, Assumptions, Basis};
pub use break_even::{
    BreakEven, BreakEvenVolume, Comparison, Cumulative, MonthlyCost, PerMtok, compare, cumulative,
};
pub use claims::{Claim, Verdict, claims};
pub use cloud::{Alternative, ApiPrice, at_full_load};
pub use hybrid::{Hybrid, Routing, Task, cheapest, divide};
pub use inputs::{Amount, Input, Inputs, Range, UnknownInput, check_bounds};
pub use presets::{PRESETS, Preset};
pub use sensitivity::{DRAWS, Draws, Percentiles, STRONGEST, Swing, monte_carlo, tornado};

#[cfg(test)]
mod golden;
