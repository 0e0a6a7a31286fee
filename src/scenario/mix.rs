//! `points = "workload"`: the requests of `[workload]`, with what its preset says filled in.

use super::matrix::Scope;
use super::table::{Field, Findings};
use super::{Length, Mix, Point, Workload};
use crate::units::{Nanos, Tokens};
use crate::workload::Preset;

/// The longest prompt with its answer where neither the scenario nor a trace says it.
const CONTEXT: Tokens = Tokens(8192);

/// The requests that `points` asks for with a word.
pub(super) fn of_field(
    field: &Field<'_, '_>,
    scope: &Scope<'_>,
    findings: &mut Findings,
) -> Option<Mix> {
    let word = field.text_of(field.value, findings)?;
    let span = field.value.span();
    if word != "workload" {
        findings.add(
            span,
            format!(
                "'points' is a list of points or the word \"workload\", not '{word}'; for example \
                 [{{ prompt_tokens = 512, new_tokens = 128 }}]"
            ),
        );
        return None;
    }
    let Some(workload) = scope.workload else {
        findings.add(span, "'points' names the workload, and there is none; add a [workload]");
        return None;
    };
    match mix(workload) {
        Ok(mix) => Some(mix),
        Err(error) => {
            findings.add(span, format!("{error:#}"));
            None
        }
    }
}

/// The requests of a workload.
fn mix(workload: &Workload) -> anyhow::Result<Mix> {
    let preset = workload.preset.as_deref().map(Preset::find).transpose()?;
    let trace = workload.recorded.clone();
    let longest =
        trace.iter().map(|row| row.prompt_tokens.0.saturating_add(row.new_tokens.0)).max();
    let context = workload.context.or(longest.map(Tokens));
    if let (Some(context), Some(longest)) = (workload.context, longest)
        && longest > context.0
    {
        anyhow::bail!(
            "the trace has a request of {longest} tokens, more than 'context_tokens' of {}; raise \
             it or shorten the trace",
            context.0
        );
    }
    // A trace has the lengths of its requests; no length is drawn from these then.
    let one = || Length::Fixed(Tokens(1));
    let length = |given: &Option<Length>, of_preset: fn(&Preset) -> Length| {
        given.clone().or(preset.as_ref().map(of_preset)).unwrap_or_else(one)
    };
    let prompt = length(&workload.prompt_tokens, Preset::prompt);
    let answer = length(&workload.new_tokens, Preset::answer);
    let turns = workload.turns.or(preset.map(|preset| preset.turns)).unwrap_or(1);
    let fixed = match (&prompt, &answer) {
        (Length::Fixed(prompt), Length::Fixed(answer)) if turns == 1 => {
            Some(Tokens(prompt.0.saturating_add(answer.0)))
        }
        _ => None,
    };
    Ok(Mix {
        prompt,
        answer,
        turns,
        think: workload.think.or(preset.map(|preset| preset.think)).unwrap_or(Nanos(0)),
        context: context.or(fixed).unwrap_or(CONTEXT),
        trace,
    })
}

/// A request of mean lengths, for what needs one point: predictions, ids and rows.
pub(super) fn mean(mix: &Mix) -> Point {
    let (prompt, answer) = mix.mean();
    Point { prompt_tokens: prompt, new_tokens: answer, depth: Tokens(0) }
}
