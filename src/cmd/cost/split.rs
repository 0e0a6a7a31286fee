//! Flags and tables of a division between own machines and the cloud.

use anyhow::{Context, bail, ensure};
use clap::ValueEnum;
use rust_decimal::Decimal;
use rust_decimal::prelude::ToPrimitive;

use crate::cost::{self, Hybrid, Inputs, Routing, Task};
use crate::report::{Section, Table};
use crate::scenario::Length;
use crate::units::{ABSENT, Tokens};

/// Which part of the requests goes to the own machine.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct SplitArgs {
    /// Also find the cheapest division between own machines and each API.
    #[arg(long, value_enum, value_name = "HOW")]
    hybrid: Option<How>,
    /// With `share`: prices this share of the requests on own machines instead of searching, 0 to 1.
    #[arg(long, value_name = "SHARE", requires = "hybrid", conflicts_with = "quality_floor")]
    local_share: Option<Decimal>,
    /// A kind of requests: its share of all, prompt and new tokens, and the quality of the local
    /// and the cloud's answers; may be given several times.
    #[arg(long, value_name = "NAME=SHARE,PROMPT,NEW[,LOCAL,CLOUD]", requires = "hybrid")]
    task: Vec<String>,
    /// Quality of the local model's answers, on your own scale.
    #[arg(long, value_name = "Q", requires = "hybrid", conflicts_with = "task")]
    local_quality: Option<Decimal>,
    /// Quality of the cloud's answers, on the same scale.
    #[arg(long, value_name = "Q", requires = "local_quality")]
    cloud_quality: Option<Decimal>,
    /// The least quality that will do: on average for `share`, for each task otherwise.
    #[arg(long, value_name = "Q", requires = "hybrid")]
    quality_floor: Option<Decimal>,
}

/// How requests are divided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum How {
    /// A share of all requests alike.
    Share,
    /// The shortest prompts are local.
    Length,
    /// Whole tasks are local.
    Task,
}

/// A division, and the two that it lies between.
pub struct Divided {
    pub best: Hybrid,
    pub all_local: Hybrid,
    pub all_cloud: Hybrid,
}

impl SplitArgs {
    /// The cheapest or the stated division, on no more devices than `most`; none where none is asked
    /// for. Prompts are spread as `lengths` says.
    pub fn divide(
        &self,
        inputs: &Inputs,
        lengths: Option<&Length>,
        most: Option<u32>,
    ) -> anyhow::Result<Option<Divided>> {
        let Some(how) = self.hybrid else { return Ok(None) };
        ensure!(
            self.local_share.is_none() || how == How::Share,
            "--local-share is a share of all requests alike: use it with --hybrid share, or leave \
             it out so that the cheapest division is found"
        );
        let tasks = self.tasks(how, inputs, lengths)?;
        let routing = match how {
            How::Share => Routing::ByShare,
            How::Length => Routing::ByLength,
            How::Task => Routing::ByTask,
        };
        let alike = |share: Decimal| cost::divide(inputs, &tasks, &vec![share; tasks.len()]);
        let best = match self.local_share {
            Some(share) => {
                let stated = alike(share)?;
                ensure!(
                    most.is_none_or(|most| stated.devices <= most),
                    "--local-share {share} needs {} devices, more than --max-devices",
                    stated.devices
                );
                stated
            }
            None => cost::cheapest(inputs, &tasks, routing, self.quality_floor, most)?,
        };
        let (all_local, all_cloud) = (alike(Decimal::ONE)?, alike(Decimal::ZERO)?);
        Ok(Some(Divided { best, all_local, all_cloud }))
    }

    fn tasks(
        &self,
        how: How,
        inputs: &Inputs,
        lengths: Option<&Length>,
    ) -> anyhow::Result<Vec<Task>> {
        if !self.task.is_empty() {
            return self.task.iter().map(|text| task(text)).collect();
        }
        let alike = |name: String, share: Decimal, prompt_tokens: Decimal| Task {
            name,
            share,
            prompt_tokens,
            new_tokens: inputs.new_tokens,
            local_quality: self.local_quality,
            cloud_quality: self.cloud_quality,
        };
        match how {
            How::Share => {
                Ok(vec![alike("all requests".into(), Decimal::ONE, inputs.prompt_tokens)])
            }
            How::Task => bail!(
                "--hybrid task needs to know the tasks: name each with --task \
                 NAME=SHARE,PROMPT,NEW"
            ),
            How::Length => {
                let bins = lengths.map(bins).unwrap_or_default();
                ensure!(
                    bins.len() > 1,
                    "--hybrid length needs to know how prompts differ: give a scenario whose \
                     [workload] spreads 'prompt_tokens', or each length with --task \
                     NAME=SHARE,PROMPT,NEW"
                );
                let whole: f64 = bins.iter().map(|(_, share)| share).sum();
                let mean: f64 = bins.iter().map(|(tokens, share)| tokens * share / whole).sum();
                let decimal = |value: f64| Decimal::try_from(value).unwrap_or_default();
                let mut left = Decimal::ONE;
                let last = bins.len() - 1;
                let tasks = bins.iter().enumerate().map(|(i, (tokens, share))| {
                    // Together they are all requests, also in the last digit.
                    let share = if i == last { left } else { decimal(share / whole).round_dp(6) };
                    left -= share;
                    let prompt = inputs.prompt_tokens * decimal(tokens / mean);
                    let name = format!(
                        "prompts of about {}",
                        Tokens(prompt.round().to_u32().unwrap_or(u32::MAX))
                    );
                    alike(name, share, prompt)
                });
                Ok(tasks.collect())
            }
        }
    }
}

/// The standard normal distribution at 5, 15, 25, 35 and 45 % above and below its median.
const TENTHS: [f64; 10] =
    [-1.6449, -1.0364, -0.6745, -0.3853, -0.1257, 0.1257, 0.3853, 0.6745, 1.0364, 1.6449];

/// Lengths with their shares, the shortest first: the bins of a histogram, or the middles of ten
/// equal parts of a distribution.
fn bins(length: &Length) -> Vec<(f64, f64)> {
    match length {
        Length::Fixed(tokens) => vec![(f64::from(tokens.0), 1.0)],
        Length::Normal { mean, deviation } => {
            TENTHS.map(|z| ((mean + z * deviation).max(1.0), 0.1)).to_vec()
        }
        Length::LogNormal { median, p95 } => {
            let sigma = (p95 / median).ln() / TENTHS[9];
            TENTHS.map(|z| (median * (sigma * z).exp(), 0.1)).to_vec()
        }
        Length::Histogram(bins) => {
            let mut bins: Vec<_> =
                bins.iter().map(|(tokens, weight)| (f64::from(tokens.0), *weight)).collect();
            bins.sort_by(|a, b| a.0.total_cmp(&b.0));
            bins
        }
    }
}

fn task(text: &str) -> anyhow::Result<Task> {
    let (name, figures) = text
        .split_once('=')
        .with_context(|| format!("--task {text}: write NAME=SHARE,PROMPT,NEW[,LOCAL,CLOUD]"))?;
    let figures: Vec<Decimal> = figures
        .split(',')
        .map(|figure| {
            let number = figure.trim().parse().ok();
            number.with_context(|| format!("--task {text}: '{figure}' is no number"))
        })
        .collect::<anyhow::Result<_>>()?;
    ensure!(
        matches!(figures.len(), 3 | 5),
        "--task {text}: write share, prompt and new tokens, and either both qualities or none"
    );
    Ok(Task {
        name: name.trim().to_owned(),
        share: figures[0],
        prompt_tokens: figures[1],
        new_tokens: figures[2],
        local_quality: figures.get(3).copied(),
        cloud_quality: figures.get(4).copied(),
    })
}

/// The division as a table, with what all and nothing local cost.
pub fn section(name: &str, divided: &Divided) -> Section {
    let Divided { best: hybrid, all_local, all_cloud } = divided;
    let on = |devices| format!("{devices} device{}", if devices == 1 { "" } else { "s" });
    let mut table = Table::new(&["requests", ">local"]);
    for (task, share) in &hybrid.tasks {
        table.rows.push(vec![task.clone(), share.to_string()]);
    }
    let quality =
        hybrid.quality.map_or(ABSENT.to_owned(), |q| q.round_dp(4).normalize().to_string());
    let notes = vec![
        format!(
            "{} of the requests on {} for {} a month, the rest for {}: {} together; all local {} \
             on {}, all in the cloud {}.",
            hybrid.local_share,
            on(hybrid.devices),
            hybrid.owning_per_month,
            hybrid.cloud_per_month,
            hybrid.total_per_month(),
            all_local.total_per_month(),
            on(all_local.devices),
            all_cloud.total_per_month()
        ),
        format!("Mean quality of the answers: {quality}."),
    ];
    Section {
        heading: format!("Hybrid with {name}"),
        table: Some(table),
        notes,
        ..Section::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_become_tasks_that_are_all_requests_with_the_same_mean() {
        let args = SplitArgs { hybrid: Some(How::Length), ..SplitArgs::default() };
        let inputs = Inputs { prompt_tokens: Decimal::from(1000), ..Inputs::blank() };
        let spread = Length::LogNormal { median: 500.0, p95: 4000.0 };
        let tasks = args.tasks(How::Length, &inputs, Some(&spread)).unwrap();
        assert_eq!(tasks.len(), 10);
        assert_eq!(tasks.iter().map(|t| t.share).sum::<Decimal>(), Decimal::ONE);
        let mean: Decimal = tasks.iter().map(|t| t.share * t.prompt_tokens).sum();
        assert_eq!(mean.round_dp(6), Decimal::from(1000));
        // 500 × exp(±σ z) with σ of a p95 eight times the median: the ends are 64 apart.
        let ends = tasks[9].prompt_tokens / tasks[0].prompt_tokens;
        assert_eq!(ends.round(), Decimal::from(64));
        let bars = Length::Histogram(vec![(Tokens(900), 1.0), (Tokens(100), 3.0)]);
        let tasks = args.tasks(How::Length, &inputs, Some(&bars)).unwrap();
        assert_eq!(tasks[0].share, Decimal::new(75, 2));
    }

    #[test]
    fn a_division_by_length_or_task_wants_to_know_them() {
        let inputs = Inputs::blank();
        for (how, words) in [(How::Length, "spreads 'prompt_tokens'"), (How::Task, "--task")] {
            let args = SplitArgs { hybrid: Some(how), ..SplitArgs::default() };
            let error = args.divide(&inputs, None, None).err().unwrap().to_string();
            assert!(error.contains(words), "{error}");
            let half = SplitArgs { local_share: Some(Decimal::new(5, 1)), ..args };
            let error = half.divide(&inputs, None, None).err().unwrap().to_string();
            assert!(error.contains("use it with --hybrid share"), "{error}");
        }
    }
}
