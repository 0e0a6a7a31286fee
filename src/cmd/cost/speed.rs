//! The speed of a machine for a workload, measured or predicted, as inputs of the decision.

use anyhow::Context as _;
use rust_decimal::Decimal;
use rust_decimal::prelude::{FromPrimitive, ToPrimitive};

use crate::cost::{Assumptions, Basis, Input, compare};

/// What is known about a machine's speed.
pub enum Speed {
    /// Measured by `bench run`.
    Measured { paces: Vec<Pace>, source: String, watts: Option<NetWatts> },
    /// Predicted by `fit`.
    Predicted { paces: Vec<Pace>, source: String },
    /// It cannot serve the workload at all; the reason is a sentence.
    Cannot(String),
}

/// How fast a machine is with so many requests at once; each figure as low, likely, high.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pace {
    /// Requests at once.
    pub streams: u32,
    /// Generated tokens a second, of all requests together.
    pub tok_s: [f64; 3],
    /// Seconds for a million uncached prompt tokens; 0 where `tok_s` includes them.
    pub prompt_s_per_mtok: [f64; 3],
}

impl Pace {
    /// Seconds of the device for one request.
    pub fn seconds(&self, uncached_tokens: f64, new_tokens: f64) -> f64 {
        uncached_tokens * self.prompt_s_per_mtok[1] / 1e6 + new_tokens / self.tok_s[1]
    }
}

/// What a machine draws above its idle power while it works.
pub struct NetWatts {
    /// Joules a second.
    pub watts: f64,
    /// What the counter covers: `gpu`, `package`.
    pub boundary: String,
    /// Which case.
    pub source: String,
}

/// Puts the best of `paces`, which come with the fewest requests at once first.
pub fn put(
    all: &mut Assumptions,
    paces: &[Pace],
    basis: Basis,
    source: &str,
) -> anyhow::Result<()> {
    let best = paces.last().context("a speed without a pace")?;
    let is_stated =
        |all: &Assumptions, input| all.get(input).is_some_and(|row| row.basis == Basis::Stated);
    let three = |[low, likely, high]: [f64; 3]| -> anyhow::Result<(Decimal, Decimal, Decimal)> {
        let number = |value: f64| {
            // Four digits are as many as any measurement has.
            let number = Decimal::from_f64(value).and_then(|number| number.round_sf(4));
            number.with_context(|| format!("a speed of {value:?}"))
        };
        let likely = number(likely)?;
        Ok((number(low)?.min(likely), likely, number(high)?.max(likely)))
    };
    all.put(Input::output_tok_s, three(best.tok_s)?, basis, source)?;
    let has_prompts = best.prompt_s_per_mtok[1] > 0.0;
    if has_prompts && !is_stated(all, Input::prompt_s_per_mtok) {
        all.put(Input::prompt_s_per_mtok, three(best.prompt_s_per_mtok)?, basis, source)?;
    }
    if !is_stated(all, Input::busy_factor) {
        put_busy(all, paces, basis)?;
    }
    Ok(())
}

/// At its mean load the machine works with fewer requests at once than at its peak, and is busy for
/// longer with each: with the fewest that keep up.
fn put_busy(all: &mut Assumptions, paces: &[Pace], basis: Basis) -> anyhow::Result<()> {
    let inputs = all.inputs();
    let Some(best) = paces.last().filter(|best| best.streams > 1) else { return Ok(()) };
    let float = |value: Decimal| value.to_f64().unwrap_or(f64::NAN);
    let uncached = float(inputs.prompt_tokens * (Decimal::ONE - inputs.cached_share));
    let seconds = |pace: &Pace| pace.seconds(uncached, float(inputs.new_tokens));
    let devices = f64::from(compare(&inputs)?.devices);
    let hours = float(inputs.active_hours_per_day) * devices;
    let load = float(inputs.requests_per_day) / (hours * 3600.0);
    let keeps_up = |pace: &&Pace| load * seconds(pace) <= 1.0;
    let usual = paces.iter().find(keeps_up).unwrap_or(best);
    let factor = (seconds(usual) / seconds(best)).max(1.0);
    let factor = Decimal::from_f64(factor).and_then(|f| f.round_sf(4)).unwrap_or(Decimal::ONE);
    let source = format!(
        "{} at once keep up with the mean load, {} serve the peak; fewer at once take longer each",
        usual.streams, best.streams
    );
    all.put(Input::busy_factor, (Decimal::ONE, factor, factor), basis, source)
}

/// Puts measured power above the idle power that is there; what is stated stays.
pub fn put_watts(all: &mut Assumptions, net: &NetWatts) -> anyhow::Result<()> {
    let Some(idle) = all.get(Input::idle_watts).map(|row| row.likely) else { return Ok(()) };
    if all.get(Input::active_watts).is_some_and(|row| row.basis == Basis::Stated) {
        return Ok(());
    }
    let likely = idle
        + Decimal::from_f64(net.watts)
            .and_then(|watts| watts.round_sf(4))
            .with_context(|| format!("a power of {:?}", net.watts))?;
    // A counter of the GPU alone does not see that the rest of the machine works too.
    let rest = if net.boundary == "gpu" { Decimal::from(50) } else { Decimal::ZERO };
    let about = likely * Decimal::new(5, 2);
    let source = format!(
        "{}: net of idle by the counter of the {}, on the idle power above{}",
        net.source,
        net.boundary,
        if rest.is_zero() { "" } else { "; up to 50 W more assumed for the rest at work" }
    );
    let range = ((likely - about).max(idle), likely, likely + about + rest);
    all.put(Input::active_watts, range, Basis::Measured, source)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pace(streams: u32, tok_s: f64) -> Pace {
        Pace { streams, tok_s: [tok_s; 3], prompt_s_per_mtok: [0.0; 3] }
    }

    fn with_requests(requests: u32) -> Assumptions {
        let mut all = Assumptions::default();
        for (input, value) in [
            (Input::requests_per_day, requests),
            (Input::new_tokens, 100),
            (Input::active_hours_per_day, 10),
        ] {
            all.put_point(input, value.into(), Basis::Stated, "").unwrap();
        }
        all
    }

    #[test]
    fn a_light_load_keeps_the_machine_busy_for_longer_than_full_batches_would() {
        let paces = [pace(1, 100.0), pace(2, 180.0), pace(4, 300.0)];
        let factor = |requests| {
            let mut all = with_requests(requests);
            put(&mut all, &paces, Basis::Predicted, "test").unwrap();
            all.get(Input::busy_factor).unwrap().likely
        };
        // 36,000 s a day: 1 s alone for each of 1,000 requests; 50,000 need two at once.
        assert_eq!(factor(1000), Decimal::from(3));
        assert_eq!(factor(50_000), Decimal::new(1667, 3));
        assert_eq!(factor(90_000), Decimal::ONE);
    }

    #[test]
    fn a_stated_power_is_not_replaced_by_a_measured_one() {
        let net = NetWatts { watts: 300.0, boundary: "gpu".into(), source: "case a".into() };
        let mut all = with_requests(1);
        all.put_point(Input::idle_watts, 50.into(), Basis::Listed, "").unwrap();
        put_watts(&mut all, &net).unwrap();
        let row = all.get(Input::active_watts).unwrap();
        assert_eq!((row.likely, row.basis), (350.into(), Basis::Measured));
        all.put_point(Input::active_watts, 500.into(), Basis::Stated, "").unwrap();
        put_watts(&mut all, &net).unwrap();
        assert_eq!(all.get(Input::active_watts).unwrap().likely, 500.into());
    }
}
