//! One decision, worked out: for the terminal, or as a part of a report.

use anyhow::{Context as _, ensure};
use clap::Parser;

use crate::cost::Inputs;
use crate::report::{Report, Section};

use super::answer::Answer;
use super::plan::Plan;
use super::{DecideArgs, context, settle};

/// How a decision ends.
pub enum Outcome {
    /// All inputs are known.
    Known(Box<Answer>),
    /// The machine cannot serve the workload at all.
    Cannot { machine: String, workload: String, reason: String },
}

/// Works out the decision that the flags ask for.
pub fn work_out(args: &DecideArgs) -> anyhow::Result<Outcome> {
    let question = &args.question;
    let mut context = context::Context::of(question)?;
    if let Some(path) = &args.capacity {
        let plan = Plan::read(path)?;
        context.workload.clone_from(&plan.workload);
        context.plan = Some(plan);
    }
    let of_plan = context.plan.as_ref().and_then(|plan| plan.device.as_deref());
    let machine = context.machine(args.device.as_deref().or(of_plan))?;
    if let (Some(machine), Some(of_plan)) = (&machine, of_plan) {
        let planned = context.machine(Some(of_plan))?;
        ensure!(
            planned.is_none_or(|planned| planned.name == machine.name),
            "the plan is for '{of_plan}' and --device names '{}': leave it out, or make a plan for \
             that one with `bench capacity`",
            machine.name
        );
    }
    let name = machine
        .as_ref()
        .map(|machine| machine.name.clone())
        .or_else(|| context.scenario.as_ref().map(|s| s.name.clone()))
        .unwrap_or_else(|| "the machine".to_owned());
    let stated = args.tok_s.map(|tok_s| (tok_s, args.prompt_tok_s));
    let is_other = args.device.is_some();
    let settled = settle::settle(&context, question, machine.as_ref(), is_other, stated)?;
    let basis = match settled {
        settle::Settled::Cannot(reason) => {
            return Ok(Outcome::Cannot { machine: name, workload: context.workload, reason });
        }
        settle::Settled::Known(basis) => basis,
    };
    let alternatives = context.alternatives(question, &basis.assumptions, machine.as_ref())?;
    let answer = Answer::work_out(name, &context, basis, alternatives, question, &args.split)?;
    Ok(Outcome::Known(Box::new(answer)))
}

/// What a report shows of a decision.
pub struct Decision {
    /// Its sentences and tables.
    pub report: Report,
    /// The alternatives that the machine can replace, each with all inputs.
    pub alternatives: Vec<(String, Inputs)>,
}

/// The flags of `bench cost` as words.
#[derive(Debug, clap::Parser)]
#[command(name = "bench cost", no_binary_name = true)]
struct Words {
    #[command(flatten)]
    decide: DecideArgs,
}

/// The decision that the arguments of `bench cost` ask for.
///
/// # Errors
/// Words that `bench cost` would refuse, and what it would say of them.
pub fn decision(arguments: &str) -> anyhow::Result<Decision> {
    let words = shlex::split(arguments).context("a quote that does not end")?;
    let words = Words::try_parse_from(words)?;
    Ok(match work_out(&words.decide)? {
        Outcome::Known(answer) => Decision {
            report: answer.report(),
            alternatives: match answer.cannot {
                Some(_) => Vec::new(),
                None => answer.alternatives.into_iter().map(|w| (w.name, w.inputs)).collect(),
            },
        },
        Outcome::Cannot { machine, workload, reason } => {
            let section =
                Section { text: vec![format!("{machine} {reason}.")], ..Section::default() };
            let title = format!("Owning {machine} for {workload}");
            Decision { report: Report { title, sections: vec![section] }, alternatives: Vec::new() }
        }
    })
}
