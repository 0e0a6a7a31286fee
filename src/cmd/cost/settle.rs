//! Everything that a decision about one machine rests on: workload, prices, and a speed that is
//! stated, else measured, else predicted.

use anyhow::bail;

use crate::cost::{Assumptions, Basis, Input};
use crate::fit::machine::Machine;

use super::QuestionArgs;
use super::context::Context;
use super::demand::{self, Demand};
use super::measured::{self, Found};
use super::predicted::{self, Predictor};
use super::speed::{self, Speed};
use super::{flags, machine};

/// Whether a machine can be decided about.
pub enum Settled {
    /// All inputs are known.
    Known(Foundation),
    /// It cannot serve the workload at all, so that there is nothing to price; the reason.
    Cannot(String),
}

/// The inputs of a decision.
pub struct Foundation {
    /// Each with its range and source.
    pub assumptions: Assumptions,
    /// Why the machine cannot serve the workload, though its costs are known.
    pub cannot: Option<String>,
    /// What else is to be said about its speed.
    pub notes: Vec<String>,
}

/// Puts all inputs together. `is_other` says that the machine may be another than the scenario's,
/// whose results say nothing about it; `stated` is a speed with that for prompts.
pub fn settle(
    context: &Context,
    args: &QuestionArgs,
    machine: Option<&Machine>,
    is_other: bool,
    stated: Option<(f64, Option<f64>)>,
) -> anyhow::Result<Settled> {
    let mut all = context.common(args)?;
    if let Some(machine) = machine {
        machine::put(&mut all, machine, context.today)?;
    }
    context.scenario_prices(&mut all, machine, args)?;
    flags::set(&mut all, args)?;
    if let Some((tok_s, prompt_tok_s)) = stated {
        machine::stated_speed(&mut all, tok_s, prompt_tok_s)?;
        // A flag that names the input itself wins.
        flags::set(&mut all, args)?;
    }

    let mut notes = Vec::new();
    let mut cannot = None;
    let is_known = all.get(Input::output_tok_s).is_some();
    let demand = Demand::of(args, context, &all, !is_known)?;
    let predictor = predictor(context, args, &demand);
    if let (Some(machine), Some(Ok(predictor))) = (machine, &predictor) {
        let users = args.users.unwrap_or(1);
        cannot = predictor.cannot_hold(machine, &demand, users);
        let users = if users == 1 { String::new() } else { format!(" for each of {users}") };
        if cannot.is_none() {
            notes.push(format!(
                "The model fits with {} tokens of context{users} ({}; `bench fit`).",
                demand.room, demand.room_basis
            ));
        }
    }
    if !is_known {
        let speed = find(context, args, machine, is_other, &demand, predictor, &mut notes)?;
        match speed {
            Speed::Cannot(reason) => return Ok(Settled::Cannot(reason)),
            Speed::Measured { paces, source, watts } => {
                speed::put(&mut all, &paces, Basis::Measured, &source)?;
                if let Some(watts) = watts {
                    speed::put_watts(&mut all, &watts)?;
                }
            }
            Speed::Predicted { paces, source } => {
                if let Some(reason) = cannot {
                    return Ok(Settled::Cannot(reason));
                }
                speed::put(&mut all, &paces, Basis::Predicted, &source)?;
                notes.extend(demand.slo.as_ref().map(predicted::slo_note));
            }
        }
    }
    flags::ranges(&mut all, args)?;
    machine::check(&all)?;
    Ok(Settled::Known(Foundation { assumptions: all, cannot, notes }))
}

fn predictor<'a>(
    context: &Context,
    args: &'a QuestionArgs,
    demand: &Demand,
) -> Option<anyhow::Result<Predictor<'a>>> {
    let spec = demand.model?;
    let quant = match demand.quant {
        Some(quant) => Ok(quant),
        None => demand::usual_quant(context.scenario.as_ref(), spec),
    };
    Some(quant.and_then(|quant| Predictor::new(args, spec, quant)))
}

/// The measured speed, else the predicted one.
fn find(
    context: &Context,
    args: &QuestionArgs,
    machine: Option<&Machine>,
    is_other: bool,
    demand: &Demand,
    predictor: Option<anyhow::Result<Predictor<'_>>>,
    notes: &mut Vec<String>,
) -> anyhow::Result<Speed> {
    let mut why = String::new();
    if let Some(scenario) = &context.scenario {
        let its = scenario.host.device.as_deref();
        let is_its = !is_other
            || its.is_none()
            || context.machine(None)?.as_ref().map(|m| &m.devices) == machine.map(|m| &m.devices);
        if is_its {
            match measured::find(&args.results, scenario, demand)? {
                Found::Speed(speed) => return Ok(speed),
                Found::Nothing(reason) => why = reason,
            }
        } else {
            why = format!("'{}' is about another machine", scenario.name);
        }
    }
    let (Some(machine), Some(predictor)) = (machine, predictor) else {
        let remedies = "name a --device and a --model so that it is predicted, or state the tokens \
                        a second at its SLO with --tok-s";
        match &context.scenario {
            Some(scenario) => {
                bail!("{why}: measure with `bench run {}`, {remedies}", scenario.path.display())
            }
            None => bail!(
                "how fast is the machine? Give a scenario that `bench run` has measured, {remedies}"
            ),
        }
    };
    let speed = predictor?.speed(machine, demand)?;
    if !why.is_empty() && matches!(speed, Speed::Predicted { .. }) {
        notes.push(format!("Nothing measured: {why}; its speed is predicted."));
    }
    Ok(speed)
}
