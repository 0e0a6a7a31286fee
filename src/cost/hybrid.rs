//! A share of the requests on own machines and the rest in the cloud, and the share that costs least.

use anyhow::{bail, ensure};
use rust_decimal::Decimal;
use serde::Serialize;

use super::inputs::{Inputs, Numbers};
use super::number::Number;
use super::ownership::{Life, exact, unrounded_devices};
use crate::units::{Share, Usd};

/// Requests of one kind; by length, a bin of lengths is a kind.
#[derive(Clone, Debug, PartialEq)]
pub struct Task {
    /// Its name.
    pub name: String,
    /// Its share of all requests.
    pub share: Decimal,
    /// Prompt tokens of a request.
    pub prompt_tokens: Decimal,
    /// Generated tokens of a request.
    pub new_tokens: Decimal,
    /// How good the local model's answers are, on the user's own scale; none where it is not known.
    pub local_quality: Option<Decimal>,
    /// How good the cloud's answers are, on the same scale.
    pub cloud_quality: Option<Decimal>,
}

/// Which requests may go to the own machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Routing {
    /// A share of each task alike; a quality floor is about the mean of all answers.
    ByShare,
    /// The shortest prompts first; a quality floor is about each task.
    ByLength,
    /// The tasks that save most for a second of the machine first; the floor is about each task.
    ByTask,
}

/// A division of the requests, and its cost.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Hybrid {
    /// Share of the requests that go to the own machine.
    pub local_share: Share,
    /// The tasks with their local shares.
    pub tasks: Vec<(String, Share)>,
    /// Devices bought; none are needed where nothing is local.
    pub devices: u32,
    /// A mean month of owning, at the cost of capital.
    pub owning_per_month: Usd,
    /// A mean month of the cloud, for the rest.
    pub cloud_per_month: Usd,
    /// Mean quality of all answers; none where no quality is stated.
    pub quality: Option<Decimal>,
}

impl Hybrid {
    /// Both bills together.
    pub fn total_per_month(&self) -> Usd {
        self.owning_per_month + self.cloud_per_month
    }
}

/// The cost of sending the share `local[i]` of the requests of `tasks[i]` to own machines.
///
/// # Errors
/// Shares that are no shares, or tasks that do not make up the whole.
pub fn divide(inputs: &Inputs, tasks: &[Task], local: &[Decimal]) -> anyhow::Result<Hybrid> {
    inputs.check()?;
    check(tasks)?;
    ensure!(
        local.len() == tasks.len()
            && local.iter().all(|share| (Decimal::ZERO..=Decimal::ONE).contains(share)),
        "a local share is not between 0 and 1, or there is not one for each task"
    );
    Ok(cost(inputs, tasks, local))
}

fn check(tasks: &[Task]) -> anyhow::Result<()> {
    let whole: Decimal = tasks.iter().map(|task| task.share).sum();
    if let Some(task) = tasks.iter().find(|t| t.share < 0.into() || t.prompt_tokens < 0.into()) {
        bail!("task '{}' has a negative share or length", task.name);
    }
    ensure!(
        (whole - Decimal::ONE).abs() < Decimal::new(1, 6),
        "the shares of the tasks make {whole}, not 1: write the share of each in all requests"
    );
    Ok(())
}

/// The division that costs least, with the quality that the user asks for, on no more devices than
/// the `most` that can be had.
///
/// Between two numbers of devices the cost is a straight line in the share, so that the least lies
/// where devices are just full, where a task is wholly local, or where the floor is reached.
///
/// # Errors
/// A floor without qualities, or one that not even the cloud reaches.
pub fn cheapest(
    inputs: &Inputs,
    tasks: &[Task],
    routing: Routing,
    floor: Option<Decimal>,
    most: Option<u32>,
) -> anyhow::Result<Hybrid> {
    inputs.check()?;
    check(tasks)?;
    if let Some(floor) = floor {
        for task in tasks {
            let (Some(_), Some(cloud)) = (task.local_quality, task.cloud_quality) else {
                bail!(
                    "a quality floor of {floor} needs the local and the cloud quality of task '{}'",
                    task.name
                );
            };
            ensure!(
                cloud >= floor || routing == Routing::ByShare,
                "the quality floor {floor} of task '{}' is above the cloud's own {cloud}",
                task.name
            );
        }
    }
    let zero = vec![Decimal::ZERO; tasks.len()];
    let mut best = cost(inputs, tasks, &zero);
    let mut consider = |local: &[Decimal]| {
        let found = cost(inputs, tasks, local);
        let fine = match (floor, routing) {
            (Some(floor), Routing::ByShare) => found.quality.is_some_and(|q| q >= floor),
            _ => true,
        };
        let fine = fine && most.is_none_or(|most| found.devices <= most);
        if fine && found.total_per_month() < best.total_per_month() {
            best = found;
        }
    };

    if routing == Routing::ByShare {
        if let Some(floor) = floor {
            let mean = |of: &dyn Fn(&Task) -> Decimal| -> Decimal {
                tasks.iter().map(|t| t.share * of(t)).sum()
            };
            let cloud = mean(&|t| t.cloud_quality.unwrap_or_default());
            let local = mean(&|t| t.local_quality.unwrap_or_default());
            ensure!(cloud >= floor, "the quality floor {floor} is above the cloud's own {cloud}");
            if local < floor {
                // Rounded down at the last digit, so that the floor holds.
                let most = (cloud - floor) / (cloud - local);
                let most = most.round_dp_with_strategy(20, rust_decimal::RoundingStrategy::ToZero);
                consider(&vec![most; tasks.len()]);
            }
        }
        let all = vec![Decimal::ONE; tasks.len()];
        consider(&all);
        let whole = load(inputs, tasks, &all);
        for devices in 1..whole.count().min(MOST_DEVICES) {
            consider(&vec![fraction(devices, whole); tasks.len()]);
        }
        return Ok(best);
    }

    let mut order: Vec<usize> = (0..tasks.len())
        .filter(|&i| floor.is_none_or(|floor| tasks[i].local_quality.is_some_and(|q| q >= floor)))
        .collect();
    match routing {
        Routing::ByLength => order.sort_by_key(|&i| tasks[i].prompt_tokens),
        _ => order.sort_by_key(|&i| std::cmp::Reverse(worth(inputs, tasks, i))),
    }
    let mut local = zero;
    for i in order {
        let before = load(inputs, tasks, &local);
        local[i] = Decimal::ONE;
        consider(&local);
        let whole = load(inputs, tasks, &local) - before;
        let first = before.count().max(1);
        for devices in first..(before + whole).count().min(MOST_DEVICES) {
            local[i] = fraction_of(Decimal::from(devices) - before, whole);
            consider(&local);
        }
        local[i] = Decimal::ONE;
    }
    Ok(best)
}

/// Devices up to which a division is searched.
const MOST_DEVICES: u32 = 1000;

fn fraction(devices: u32, whole: Decimal) -> Decimal {
    fraction_of(devices.into(), whole)
}

/// Rounded down at the last digit, so that the devices are not overrun by it.
fn fraction_of(part: Decimal, whole: Decimal) -> Decimal {
    let share = (part / whole).clamp(Decimal::ZERO, Decimal::ONE);
    share.round_dp_with_strategy(20, rust_decimal::RoundingStrategy::ToZero)
}

/// What the cloud charges for a second of work that the own machine would do, of `tasks[i]`.
fn worth(inputs: &Inputs, tasks: &[Task], i: usize) -> Decimal {
    let only = |at| if at == i { Decimal::ONE } else { Decimal::ZERO };
    let alone = part(inputs, tasks, &(0..tasks.len()).map(only).collect::<Vec<_>>());
    let seconds = unrounded_devices(&alone.numbers::<Decimal>());
    if seconds.is_zero() { Decimal::MAX } else { bill(&alone) / seconds }
}

fn bill(inputs: &Inputs) -> Decimal {
    exact(inputs).sum(|year| year.cloud)
}

fn load(inputs: &Inputs, tasks: &[Task], local: &[Decimal]) -> Decimal {
    let numbers: Numbers<Decimal> = part(inputs, tasks, local).numbers();
    unrounded_devices(&numbers)
}

/// `inputs` with only `shares` of the tasks, as the requests that are their mean: every cost is
/// linear in the tokens, so that the mean request costs what the requests cost. Of a bill it is the
/// share of the tokens, as nobody says what each kind is charged for.
fn part(inputs: &Inputs, tasks: &[Task], shares: &[Decimal]) -> Inputs {
    let mut part = *inputs;
    let sum = |of: &dyn Fn(&Task) -> Decimal| -> Decimal {
        tasks.iter().zip(shares).map(|(task, share)| task.share * share * of(task)).sum()
    };
    let share = sum(&|_| Decimal::ONE);
    part.requests_per_day = inputs.requests_per_day * share;
    let tokens = |t: &Task| t.prompt_tokens + t.new_tokens;
    let all_tokens: Decimal = tasks.iter().map(|t| t.share * tokens(t)).sum();
    let of_bill = if all_tokens.is_zero() { share } else { sum(&tokens) / all_tokens };
    part.api_usd_per_month = Usd(inputs.api_usd_per_month.0 * of_bill);
    if !share.is_zero() {
        part.prompt_tokens = sum(&|t| t.prompt_tokens) / share;
        part.new_tokens = sum(&|t| t.new_tokens) / share;
    }
    part
}

fn cost(inputs: &Inputs, tasks: &[Task], local: &[Decimal]) -> Hybrid {
    let rest: Vec<Decimal> = local.iter().map(|share| Decimal::ONE - share).collect();
    let local_share: Decimal = tasks.iter().zip(local).map(|(t, share)| t.share * share).sum();
    let owned: Life<Decimal> = exact(&part(inputs, tasks, local));
    let months = Decimal::from(owned.months);
    let (devices, owning) = if local_share.is_zero() {
        (0, Decimal::ZERO)
    } else {
        let running = owned.sum(|year| owned.running(year)) / months;
        (owned.devices, owned.capital_per_month() + running)
    };
    let quality = tasks
        .iter()
        .zip(local)
        .map(|(task, share)| {
            let cloud = task.cloud_quality?;
            Some(task.share * (task.local_quality? * share + cloud * (Decimal::ONE - share)))
        })
        .sum();
    Hybrid {
        local_share: Share(local_share.float()),
        tasks: tasks
            .iter()
            .zip(local)
            .map(|(task, share)| (task.name.clone(), Share(share.float())))
            .collect(),
        devices,
        owning_per_month: Usd(owning),
        cloud_per_month: Usd(bill(&part(inputs, tasks, &rest)) / months),
        quality,
    }
}
