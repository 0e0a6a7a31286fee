//! Flags and tables of a division between own machines and the cloud.

use anyhow::{Context, ensure};
use clap::ValueEnum;
use rust_decimal::Decimal;

use crate::cost::{self, Hybrid, Inputs, Routing, Task};
use crate::report::{Section, Table};
use crate::units::{ABSENT, Usd};

/// Which part of the requests goes to the own machine.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct SplitArgs {
    /// Also find the cheapest division between own machines and each API.
    #[arg(long, value_enum, value_name = "HOW")]
    hybrid: Option<How>,
    /// Prices this share of the requests on own machines instead of searching, 0 to 1.
    #[arg(long, value_name = "SHARE", requires = "hybrid")]
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

impl SplitArgs {
    /// The cheapest or the stated division; none where none is asked for.
    pub fn divide(&self, inputs: &Inputs) -> anyhow::Result<Option<Hybrid>> {
        let Some(how) = self.hybrid else { return Ok(None) };
        let tasks = self.tasks(inputs)?;
        let routing = match how {
            How::Share => Routing::ByShare,
            How::Length => Routing::ByLength,
            How::Task => Routing::ByTask,
        };
        let found = match self.local_share {
            Some(share) => cost::divide(inputs, &tasks, &vec![share; tasks.len()])?,
            None => cost::cheapest(inputs, &tasks, routing, self.quality_floor)?,
        };
        Ok(Some(found))
    }

    fn tasks(&self, inputs: &Inputs) -> anyhow::Result<Vec<Task>> {
        if self.task.is_empty() {
            return Ok(vec![Task {
                name: "all requests".into(),
                share: Decimal::ONE,
                prompt_tokens: inputs.prompt_tokens,
                new_tokens: inputs.new_tokens,
                local_quality: self.local_quality,
                cloud_quality: self.cloud_quality,
            }]);
        }
        self.task.iter().map(|text| task(text)).collect()
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
pub fn section(name: &str, hybrid: &Hybrid, all_local: Usd, all_cloud: Usd) -> Section {
    let mut table = Table::new(&["requests", ">local"]);
    for (task, share) in &hybrid.tasks {
        table.rows.push(vec![task.clone(), share.to_string()]);
    }
    let quality =
        hybrid.quality.map_or(ABSENT.to_owned(), |q| q.round_dp(4).normalize().to_string());
    let notes = vec![
        format!(
            "{} of the requests on {} device{} for {} a month, the rest for {}: {} together; all \
             local {all_local}, all in the cloud {all_cloud}.",
            hybrid.local_share,
            hybrid.devices,
            if hybrid.devices == 1 { "" } else { "s" },
            hybrid.owning_per_month,
            hybrid.cloud_per_month,
            hybrid.total_per_month()
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
