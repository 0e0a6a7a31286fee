//! What the energy counters showed, as the figures of a record.

use std::collections::BTreeMap;

use crate::record::{Record, Trial};
use crate::runner::protocol::Sample;
use crate::scenario::Load;
use crate::units::{Joules, Share};
use crate::watch::{Boundary, IdlePower, Metered, Observed, Span, Spans, Window, idle_watts};

/// The share of a figure that its counter's steps may leave open; above it there is no figure.
const OPEN: f64 = 0.1;

/// The times of a trial whose energy is asked for; `None` where nothing was generated. Prompts and
/// generation are apart only where all prompts come first, as in a static batch.
pub fn spans(samples: &[Sample], load: Load) -> Option<Spans> {
    let from_ns = samples.iter().map(|s| s.sent_ns).min()?;
    let to_ns = samples.iter().filter_map(|s| s.token_ns.last().copied()).max()?;
    let first = samples.iter().filter_map(|s| s.token_ns.first().copied()).max();
    let first = first.filter(|_| matches!(load, Load::Batch(_)));
    let decode = first.filter(|first| *first < to_ns);
    Some(Spans {
        whole: Span { from_ns, to_ns },
        prefill: first.map(|to_ns| Span { from_ns, to_ns }),
        decode: decode.map(|from_ns| Span { from_ns, to_ns }),
    })
}

/// The part of its trials that a figure is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Whole,
    Prefill,
    Decode,
}

impl Part {
    /// Its name in `absent`, which is the beginning of its columns.
    fn name(self) -> &'static str {
        match self {
            Self::Whole => "energy",
            Self::Prefill => "energy_prefill",
            Self::Decode => "energy_decode",
        }
    }

    /// What its energy is divided by: the tokens that come in it, or the prompts'.
    fn tokens(self, samples: &[Sample]) -> u64 {
        let first = samples.iter().filter_map(|s| s.token_ns.first()).max().copied();
        let from = first.unwrap_or(0);
        let came = |s: &Sample| s.token_ns.iter().filter(|&&t| t > from).count() as u64;
        match self {
            Self::Whole => samples.iter().map(|s| s.token_ns.len() as u64).sum(),
            Self::Prefill => samples.iter().map(|s| u64::from(s.prompt_tokens)).sum(),
            Self::Decode => samples.iter().map(came).sum(),
        }
    }
}

/// Gross, net, and net a token.
type Figures = (Option<f64>, Option<f64>, Option<f64>);

/// Fills the energy of the counted trials of those shown.
pub fn fill(
    record: &mut Record,
    observed: &Observed,
    idle: &IdlePower,
    shown: &[Trial<Sample>],
    absent: &mut BTreeMap<String, String>,
) {
    let used = observed.gpus_used();
    let counted: Vec<_> = shown.iter().filter(|trial| !trial.warmup).collect();
    let Some(boundary) = boundary(observed, &used) else { return };
    record.energy_boundary = Some(boundary.as_str().to_owned());
    let windows = |part: Part| -> Option<Vec<&Window>> {
        let window = |trial: &&Trial<Sample>| {
            let of_trial = observed.energy.iter().find(|energy| energy.trial == trial.trial)?;
            match part {
                Part::Whole => Some(&of_trial.whole),
                Part::Prefill => of_trial.prefill.as_ref(),
                Part::Decode => of_trial.decode.as_ref(),
            }
        };
        counted.iter().map(window).collect()
    };
    let overlaps = record.is_loaded();
    let mut figures = |part: Part| -> Figures {
        let tokens = counted.iter().map(|trial| part.tokens(&trial.samples)).sum();
        if part == Part::Decode && tokens == 0 {
            return (None, None, None);
        }
        let reason = match windows(part).as_deref() {
            None | Some([]) if overlaps && part != Part::Whole => {
                "prompts and generation overlap under this load".to_owned()
            }
            None | Some([]) => "the runner does not say when its trials started".to_owned(),
            Some([first, rest @ ..]) => {
                let sum = rest.iter().fold((*first).clone(), |sum, window| sum.plus(window));
                match sum.energy(boundary, &used) {
                    None => "the counter stood still behind a trial".to_owned(),
                    Some(metered) => {
                        let watts = idle_watts(idle, boundary, &used).map(|w| w.0);
                        match settled(metered, watts, &sum, tokens) {
                            Ok(figures) => return figures,
                            Err(reason) => reason,
                        }
                    }
                }
            }
        };
        absent.insert(part.name().to_owned(), reason);
        (None, None, None)
    };
    (record.energy_gross_joules, record.energy_net_joules, record.energy_per_token_joules) =
        figures(Part::Whole);
    (
        record.energy_prefill_gross_joules,
        record.energy_prefill_net_joules,
        record.energy_prefill_per_token_joules,
    ) = figures(Part::Prefill);
    (
        record.energy_decode_gross_joules,
        record.energy_decode_net_joules,
        record.energy_decode_per_token_joules,
    ) = figures(Part::Decode);
}

/// What the counters that can be read cover: the GPUs where our processes used some.
fn boundary(observed: &Observed, used: &[usize]) -> Option<Boundary> {
    let has = |boundary| {
        observed.energy.iter().any(|energy| energy.whole.energy(boundary, used).is_some())
    };
    [Boundary::Gpu, Boundary::Package].into_iter().find(|boundary| has(*boundary))
}

/// The figures of what was metered, or in words why it is too uncertain for any.
fn settled(
    metered: Metered,
    idle_watts: Option<f64>,
    window: &Window,
    tokens: u64,
) -> Result<Figures, String> {
    let Joules(gross) = metered.likely;
    let Joules(open) = metered.open();
    // Below zero would be noise.
    let net = idle_watts.map(|watts| (gross - watts * window.time.seconds()).max(0.0));
    if open > OPEN * gross {
        return Err(format!(
            "the counter's steps leave ± {} of it open, more than {}, in windows of {} together",
            Share(if gross > 0.0 { open / gross } else { 1.0 }),
            Share(OPEN),
            window.time,
        ));
    }
    let net = net.filter(|net| open <= OPEN * net);
    Ok((Some(gross), net, net.filter(|_| tokens > 0).map(|net| net / tokens as f64)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::{Bytes, Nanos, Watts};
    use crate::watch::{GpuObserved, MemoryBasis, TrialEnergy};

    const S: u64 = 1_000_000_000;

    /// Two sequences of 100 prompt tokens: the prompts end after 2 s, the last token comes at 12 s.
    fn trial(number: u32) -> Trial<Sample> {
        let sample = |first: u64| Sample {
            prompt_tokens: 100,
            token_ns: (0..=10).map(|i| (first + i) * S).collect(),
            ..Sample::default()
        };
        Trial::new("a", number, false, vec![sample(1), sample(2)])
    }

    fn metered(joules: f64, open: f64) -> Metered {
        let (least, most) = (Joules(joules - open), Joules(joules + open));
        Metered { likely: Joules(joules), least, most }
    }

    /// What a watch saw of two cards of which our processes used the second.
    fn observed(open: f64) -> Observed {
        let gpu = |index, peak_memory| GpuObserved {
            index,
            name: "GPU".to_owned(),
            peak_memory,
            memory_basis: MemoryBasis::Processes,
            clock_mhz: None,
            power_limit: None,
            hottest_celsius: None,
            throttled: Vec::new(),
        };
        let window = |seconds: u64, joules: f64| Window {
            time: Nanos(seconds * S),
            package: Some(metered(10.0 * seconds as f64, 0.1)),
            gpus: vec![Some(metered(9999.0, 0.0)), Some(metered(joules, open))],
        };
        let energy = |trial| TrialEnergy {
            trial,
            whole: window(12, 4200.0),
            prefill: Some(window(2, 1200.0)),
            decode: Some(window(10, 3000.0)),
        };
        Observed {
            gpus: vec![gpu(0, None), gpu(1, Some(Bytes(1 << 30)))],
            energy: vec![energy(0), energy(1), energy(2)],
            ..Observed::default()
        }
    }

    fn filled(observed: &Observed, idle: &IdlePower) -> (Record, BTreeMap<String, String>) {
        let warm_up = Trial { warmup: true, ..trial(0) };
        let (mut record, mut absent) = (Record::default(), BTreeMap::new());
        fill(&mut record, observed, idle, &[warm_up, trial(1), trial(2)], &mut absent);
        (record, absent)
    }

    fn idle() -> IdlePower {
        IdlePower { package: None, gpus: vec![Some(Watts(50.0)), Some(Watts(100.0))] }
    }

    #[test]
    fn prefill_and_decode_have_their_own_tokens_and_the_warm_up_does_not_count() {
        let (record, absent) = filled(&observed(20.0), &idle());
        assert_eq!(record.energy_boundary.as_deref(), Some("gpu"));
        assert_eq!(record.energy_gross_joules, Some(8400.0));
        assert_eq!(record.energy_net_joules, Some(8400.0 - 2400.0));
        assert_eq!(record.energy_per_token_joules, Some(6000.0 / 44.0));
        assert_eq!(record.energy_prefill_net_joules, Some(2400.0 - 400.0));
        assert_eq!(record.energy_prefill_per_token_joules, Some(2000.0 / 400.0));
        assert_eq!(record.energy_decode_gross_joules, Some(6000.0));
        // Of the first sequence's 11 tokens one comes with the second's first, one before it.
        assert_eq!(record.energy_decode_per_token_joules, Some(4000.0 / 38.0));
        assert_eq!(absent, BTreeMap::new());
    }

    #[test]
    fn a_window_that_is_too_short_for_the_counter_has_no_figure_and_says_so() {
        // ± 150 J: 12.5 % of each prefill, 5 % of each generation.
        let (record, absent) = filled(&observed(150.0), &idle());
        assert_eq!(record.energy_prefill_gross_joules, None);
        assert!(record.energy_decode_net_joules.is_some());
        let reason = &absent["energy_prefill"];
        assert!(reason.contains("± 12 %") || reason.contains("± 13 %"), "{reason}");
        assert!(reason.ends_with("in windows of 4.00 s together"), "{reason}");
    }

    #[test]
    fn without_idle_power_there_is_gross_and_no_net() {
        let (record, _) = filled(&observed(1.0), &IdlePower::default());
        assert!(record.energy_decode_gross_joules.is_some());
        assert_eq!((record.energy_net_joules, record.energy_per_token_joules), (None, None));
    }

    #[test]
    fn a_trial_without_its_window_leaves_no_sum() {
        let mut seen = observed(1.0);
        seen.energy.pop();
        let (record, absent) = filled(&seen, &idle());
        assert_eq!(record.energy_gross_joules, None);
        assert!(absent["energy"].contains("does not say when"), "{absent:?}");
    }

    #[test]
    fn without_a_gpu_in_use_the_packages_counter_is_the_boundary() {
        let mut seen = observed(1.0);
        seen.gpus.clear();
        let (record, _) = filled(&seen, &idle());
        assert_eq!(record.energy_boundary.as_deref(), Some("package"));
        assert_eq!(record.energy_gross_joules, Some(240.0));
    }

    #[test]
    fn a_trial_s_windows_are_apart_only_where_all_prompts_come_first() {
        let samples = trial(0).samples;
        let spans_of = |load| spans(&samples, load).expect("windows");
        let batch = spans_of(Load::Batch(2));
        assert_eq!(batch.whole, Span { from_ns: 0, to_ns: 12 * S });
        assert_eq!(batch.prefill, Some(Span { from_ns: 0, to_ns: 2 * S }));
        assert_eq!(batch.decode, Some(Span { from_ns: 2 * S, to_ns: 12 * S }));
        let users = spans_of(Load::Concurrency(2));
        assert_eq!((users.prefill, users.decode), (None, None));
        let one = [Sample { token_ns: vec![S], ..Sample::default() }];
        assert_eq!(spans(&one, Load::Batch(1)).and_then(|s| s.decode), None);
        assert_eq!(spans(&[], Load::Batch(1)), None);
    }
}
