//! Step times by least squares, from the moments at which tokens came in measured runs.

use anyhow::ensure;
use serde::Serialize;

use super::least_squares::{self, Row};
use super::pieces::Batches;
use super::step::{Curve, StepTime};
use super::steps::{Room, Seen, Step, reconstruct};
use crate::stats;

/// One step in so many is held back, to judge the fit by.
const HELD_BACK: usize = 5;
/// Steps of a number of sequences that bear a point of the curve.
const BEARS: usize = 4;
/// Ways of computing batches differ in a step where their relative errors are so far apart.
const APPARENT: f64 = 0.02;
/// Steps after a pause of which the time that they take more is told.
const FEWEST_COLD: usize = 8;
/// Each point of the prompts' curve is at least this many times the one before.
const APART: f64 = 1.5;
/// What measures what is missing.
const REMEDY: &str = "run a [[matrix]] with 'calibrate = true' for this engine, model and \
                      quantisation, as in: bench run scenarios/capacity.toml";

/// Step times, and how well they explain what was measured.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StepFit {
    /// The step times.
    pub step: StepTime,
    /// How the engine computes the sequences of a step: in pieces, unless whole batches are surely nearer
    /// to the steps held back.
    pub batches: Batches,
    /// The median error of the other way; `None` where the slots of requests are not known, so that
    /// whole batches are all that can be told.
    pub other_error_median: Option<f64>,
    /// Of steps that were held back: the median size of the relative error.
    pub error_median: f64,
    /// And the one that 95 % do not exceed; `None` of fewer than 20.
    pub error_p95: Option<f64>,
    /// Steps that it rests on.
    pub steps: usize,
    /// The most sequences at once among them.
    pub sequences: u32,
    /// The most prompt tokens of a step among them.
    pub prompt_tokens: u32,
}

/// The step times that explain `trials` best, each the requests of one trial on the same engine.
pub fn fit(trials: &[Vec<Seen>], room: Room) -> anyhow::Result<StepFit> {
    let steps: Vec<Step> = trials.iter().flat_map(|trial| reconstruct(trial, room)).collect();
    ensure!(
        !steps.is_empty(),
        "no step can be told from these samples: none has two tokens of a request; {REMEDY}"
    );
    let whole = Explained::by(&steps, Batches::Whole, room);
    let told = room.sequences > 1 && steps.iter().all(|step| step.pieces.is_some());
    let pieces = told.then(|| Explained::by(&steps, Batches::Pieces, room));
    let (found, other) = match (whole, pieces) {
        (Ok(whole), Some(Ok(pieces))) if whole.is_surely_nearer_than(&pieces) => {
            (whole, Some(pieces))
        }
        // Whole batches have more that is free (times of both kinds together, and of a token beside
        // prompts), by which they explain most of what pieces take longer: in doubt it is these,
        // as a server with slots is that nobody told to share its cache.
        (Ok(whole), Some(Ok(pieces))) => (pieces, Some(whole)),
        (Err(_), Some(Ok(pieces))) => (pieces, None),
        (whole, _) => (whole?, None),
    };
    Ok(StepFit {
        step: found.step,
        batches: found.batches,
        other_error_median: other.and_then(|other| stats::median(&other.errors)),
        error_median: stats::median(&found.errors).unwrap_or(f64::NAN),
        error_p95: stats::percentile(&found.errors, 95.0),
        steps: steps.len(),
        sequences: steps.iter().map(|step| step.sequences).max().unwrap_or(0),
        prompt_tokens: steps.iter().map(|step| step.prompt_tokens() as u32).max().unwrap_or(0),
    })
}

/// Step times for one way of computing batches.
struct Explained {
    batches: Batches,
    step: StepTime,
    /// The sizes of relative errors of steps that were held back.
    errors: Vec<f64>,
    /// Those of all steps, each held back in its turn.
    each: Vec<f64>,
}

impl Explained {
    fn by(steps: &[Step], batches: Batches, room: Room) -> anyhow::Result<Self> {
        let knots = Knots::of(steps, batches, room)?;
        let rows: Vec<Row> = steps.iter().map(|step| knots.row(step)).collect();
        let mut each = vec![0.0; rows.len()];
        for turn in 0..HELD_BACK {
            let kept = rows.iter().enumerate().filter(|(i, _)| i % HELD_BACK != turn);
            let kept: Vec<Row> = kept.map(|(_, row)| row.clone()).collect();
            let judged = least_squares::of_the_sum(&kept);
            for i in (turn..rows.len()).step_by(HELD_BACK) {
                each[i] = least_squares::relative_error(&rows[i], &judged).abs();
            }
        }
        let errors = each.iter().skip(HELD_BACK - 1).step_by(HELD_BACK).copied().collect();
        let step = knots.step_time(&least_squares::of_the_sum(&rows))?;
        Ok(Self { batches, step, errors, each })
    }

    /// Whether it is nearer in most of the steps in which the two differ, by three standard deviations
    /// of a fair coin (sign test): how much a step was off says more of the machine than of the way.
    fn is_surely_nearer_than(&self, other: &Self) -> bool {
        let pairs = self.each.iter().zip(&other.each);
        let differ = pairs.filter(|(own, other)| (**own - **other).abs() > APPARENT);
        let (nearer, farther): (Vec<_>, Vec<_>) = differ.partition(|(own, other)| own < other);
        let (nearer, all) = (nearer.len() as f64, (nearer.len() + farther.len()) as f64);
        nearer > all / 2.0 + 3.0 * all.sqrt() / 2.0
    }
}

/// How an engine kept to its step times in a run that had no part in them.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Pace {
    /// All steps' time over the one that was expected of them, without what they hung.
    pub all: f64,
    /// The median of a step's time over the one that was expected.
    pub median: f64,
    /// Seconds by which steps were longer than twice what was expected: it hung, or another program
    /// had the machine.
    pub hung: f64,
    /// Steps that could be told.
    pub steps: usize,
}

/// The pace of an engine in trials; `None` where no step can be told.
pub fn pace(step: &StepTime, batches: Batches, trials: &[Vec<Seen>], room: Room) -> Option<Pace> {
    let steps: Vec<Step> = trials.iter().flat_map(|trial| reconstruct(trial, room)).collect();
    let expected = |s: &Step| s.expected(step, batches);
    let ratios: Vec<f64> = steps.iter().map(|s| s.seconds / expected(s)).collect();
    let over = |s: &Step| (s.seconds - 2.0 * expected(s)).max(0.0);
    let hung: f64 = steps.iter().map(over).sum();
    let took: f64 = steps.iter().map(|s| s.seconds).sum();
    let all = (took - hung) / steps.iter().map(expected).sum::<f64>();
    Some(Pace { all, median: stats::median(&ratios)?, hung, steps: steps.len() })
}

/// Where the curves have their points.
#[derive(Debug)]
struct Knots {
    decode: Vec<f64>,
    prompt: Vec<f64>,
    batches: Batches,
    /// Whether a step with prompts alone was seen without a way to the engine: else the base of
    /// the prompts' curve, the way and what both kinds take more cannot be told apart, and the last
    /// of them counts as nothing.
    apart: bool,
    /// Whether enough steps came after a pause for what they take more to be told.
    cold: bool,
}

impl Knots {
    fn of(steps: &[Step], batches: Batches, room: Room) -> anyhow::Result<Self> {
        let generating = steps.iter().filter(|step| step.prompts.is_empty());
        let generating = generating.flat_map(|step| generated(step, batches));
        let decode = borne(generating.collect());
        ensure!(!decode.is_empty(), "no step generates alone in these samples; {REMEDY}");
        ensure!(
            decode.len() > 1 || room.sequences < 2,
            "all steps of these samples have {} at once, so what a larger batch costs is not known; \
             {REMEDY}",
            decode[0]
        );
        let computing = steps.iter().flat_map(|step| computed(step, batches));
        let prompt = octaves(computing.collect());
        ensure!(
            prompt.len() > 1,
            "the prompts of these samples are all alike, so what a longer one costs is not known; \
             {REMEDY}"
        );
        let alone = |step: &Step| step.sequences == 0 && !step.from_idle;
        let apart = steps.iter().any(alone);
        let paused = steps.iter().filter(|step| step.cold).count();
        let began = steps.iter().filter(|step| step.from_idle).count();
        // Each trial begins after one: of these alone, and of their one length, nothing is told.
        let cold = paused >= FEWEST_COLD && paused * 4 >= began;
        Ok(Self { decode, prompt, batches, apart, cold })
    }

    /// The row of a step. Columns: the curve of generation, a cached token, the curve of prompts, a
    /// pair, both kinds, a sequence beside prompts, the first step after a pause, the way to the engine.
    fn row(&self, step: &Step) -> Row {
        let mut columns = Vec::with_capacity(self.decode.len() + self.prompt.len() + 6);
        let mut decode = vec![0.0; self.decode.len()];
        for at_once in generated(step, self.batches) {
            for (sum, share) in decode.iter_mut().zip(shares(&self.decode, at_once)) {
                *sum += share;
            }
        }
        columns.extend(decode);
        columns.push(if step.sequences > 0 { step.cached } else { 0.0 });
        let mut prompt = vec![0.0; self.prompt.len()];
        for tokens in computed(step, self.batches) {
            for (sum, ramp) in prompt.iter_mut().zip(ramps(&self.prompt, tokens)) {
                *sum += ramp;
            }
        }
        columns.extend(prompt);
        columns.push(step.prompts.iter().map(|part| part.pairs).sum());
        let both = step.sequences > 0 && !step.prompts.is_empty();
        columns.push(if both && self.apart { 1.0 } else { 0.0 });
        // In pieces, those beside prompts lie on the curve of generation.
        let beside = both && self.batches == Batches::Whole;
        columns.push(if beside { f64::from(step.sequences) } else { 0.0 });
        columns.push(if step.cold && self.cold { 1.0 } else { 0.0 });
        columns.push(if step.from_idle { 1.0 } else { 0.0 });
        Row { columns, value: step.seconds, kind: usize::from(!step.prompts.is_empty()) }
    }

    fn step_time(&self, found: &[f64]) -> anyhow::Result<StepTime> {
        let (decode, rest) = found.split_at(self.decode.len());
        let (cached_token, rest) = (rest[0], &rest[1..]);
        let (prompt, rest) = rest.split_at(self.prompt.len());
        Ok(StepTime {
            // Kernels change with the batch: three sequences may take less than two.
            decode: Curve::new(self.decode.iter().copied().zip(decode.iter().copied()).collect())?,
            cached_token,
            prompt: risen(&self.prompt, prompt)?,
            pair: rest[0],
            both: rest[1],
            beside: rest[2],
            cold: rest[3],
            entry: rest[4],
        })
    }
}

/// The sequences at once of what lies on the curve of generation: steps of it alone, or pieces with a
/// token of each sequence.
fn generated(step: &Step, batches: Batches) -> Vec<f64> {
    match (batches, &step.pieces) {
        (Batches::Pieces, Some(pieces)) => {
            let single = pieces.iter().filter(|piece| piece.tokens == 1);
            single.map(|piece| f64::from(piece.sequences)).collect()
        }
        _ if step.sequences > 0 && step.prompts.is_empty() => vec![f64::from(step.sequences)],
        _ => Vec::new(),
    }
}

/// The tokens at once of what lies on the curve of prompts: steps with prompts, where those that
/// generate beside join them, or pieces with several tokens of each sequence.
fn computed(step: &Step, batches: Batches) -> Vec<f64> {
    match (batches, &step.pieces) {
        (Batches::Pieces, Some(pieces)) => {
            let several = pieces.iter().filter(|piece| piece.tokens > 1);
            several.map(|piece| f64::from(piece.sequences) * f64::from(piece.tokens)).collect()
        }
        _ => {
            let beside = f64::from(step.sequences);
            step.prompts.iter().map(|part| part.tokens + beside).collect()
        }
    }
}

/// Values that enough steps have.
fn borne(mut values: Vec<f64>) -> Vec<f64> {
    values.sort_by(f64::total_cmp);
    values.chunk_by(|a, b| a == b).filter(|same| same.len() >= BEARS).map(|same| same[0]).collect()
}

/// Powers of two, at which kernels change, between the least and the largest of `values`, and these
/// themselves: each with a value between it and the one before.
fn octaves(mut values: Vec<f64>) -> Vec<f64> {
    values.sort_by(f64::total_cmp);
    let (Some(&least), Some(&most)) = (values.first(), values.last()) else { return values };
    let mut kept = vec![least];
    let mut power = 1.0;
    while power * APART <= most {
        let before = kept[kept.len() - 1];
        let is_told = values.iter().any(|value| *value > before && *value <= power);
        if power >= before * APART && is_told {
            kept.push(power);
        }
        power *= 2.0;
    }
    if most > least {
        kept.push(most);
    }
    kept
}

/// How much each point of a curve says about `x`: the two around it, beyond the last one the last two.
fn shares(knots: &[f64], x: f64) -> impl Iterator<Item = f64> {
    let next = knots.partition_point(|knot| *knot < x).min(knots.len() - 1);
    let before = next.saturating_sub(1);
    let way = match knots[next] - knots[before] {
        0.0 => 1.0,
        apart => ((x - knots[before]) / apart).max(0.0),
    };
    (0..knots.len()).map(move |i| {
        if i == next {
            way
        } else if i == before {
            1.0 - way
        } else {
            0.0
        }
    })
}

/// The parts of a curve that does not fall, at `x`: 1 for its first point, and for each further one
/// how far `x` is on the way to it from the one before; on from the last two as between them.
fn ramps(knots: &[f64], x: f64) -> impl Iterator<Item = f64> {
    let last = knots.len() - 1;
    (0..knots.len()).map(move |i| {
        if i == 0 {
            return 1.0;
        }
        let way = (x - knots[i - 1]) / (knots[i] - knots[i - 1]);
        if i == last { way.max(0.0) } else { way.clamp(0.0, 1.0) }
    })
}

fn risen(knots: &[f64], rises: &[f64]) -> anyhow::Result<Curve> {
    let mut sum = 0.0;
    let points = knots.iter().zip(rises).map(|(x, rise)| {
        sum += rise;
        (*x, sum)
    });
    Curve::new(points.collect())
}

#[cfg(test)]
mod tests {
    use rand::{RngExt, SeedableRng};
    use rand_distr::{Distribution, StandardNormal};
    use rand_xoshiro::Xoshiro256PlusPlus;

    use super::*;
    use crate::capacity::slots::Slots;
    use crate::capacity::steps::COLD;
    use crate::capacity::{PromptPart, pieces};
    use crate::units::Tokens;
    use crate::workload::{Planned, calibration};

    const ROOM: Room = Room { sequences: 8, step_tokens: 256, micro_batch: 128 };

    fn truth() -> StepTime {
        let curve = |points: &[(f64, f64)]| Curve::new(points.to_vec()).unwrap();
        StepTime {
            decode: curve(&[(1.0, 0.020), (2.0, 0.026), (4.0, 0.040), (8.0, 0.060)]),
            cached_token: 4e-6,
            prompt: curve(&[(1.0, 0.021), (32.0, 0.100), (256.0, 0.800)]),
            pair: 2e-7,
            both: 0.0,
            beside: 0.0015,
            cold: 0.015,
            entry: 0.004,
        }
    }

    /// A request in the engine: its place, its slot, prompt tokens that are done, tokens that came.
    struct Active {
        place: usize,
        slot: u32,
        done: u32,
        made: u32,
    }

    /// Stamps of `plan` on an engine of these step times, whose every step is off by a normal
    /// deviation of `noise`, and one in a hundred takes three times as long.
    fn stamps(
        plan: &[Planned],
        step: &StepTime,
        batches: Batches,
        noise: f64,
        seed: u64,
    ) -> Vec<Seen> {
        let mut random = Xoshiro256PlusPlus::seed_from_u64(seed);
        let mut seen: Vec<Seen> = plan
            .iter()
            .map(|p| Seen { computed: p.prompt_tokens.0, sent: f64::NAN, ..Seen::default() })
            .collect();
        let mut ends = vec![None; plan.len()];
        let mut queue: Vec<usize> = Vec::new();
        let mut active: Vec<Active> = Vec::new();
        let mut slots = Slots::new(ROOM.sequences);
        let mut now = 0.0_f64;
        let (mut idle_since, mut cold) = (f64::NEG_INFINITY, false);
        loop {
            for (i, planned) in plan.iter().enumerate() {
                let due = planned.after.map_or(Some(0.0), |before| ends[before as usize]);
                if let Some(due) = due.filter(|_| seen[i].sent.is_nan()) {
                    // A client is a moment late.
                    seen[i].sent = due + planned.think.seconds() + 0.0002;
                    queue.push(i);
                }
            }
            while active.len() < ROOM.sequences as usize
                && let Some(&place) = queue.first()
                && seen[place].sent + step.entry <= now
            {
                queue.remove(0);
                let (slot, _) = slots.take(place as u64, 1, 0);
                seen[place].slot = Some(slot);
                active.push(Active { place, slot, done: 0, made: 0 });
            }
            active.sort_by_key(|a| a.slot);
            if active.is_empty() {
                let Some(next) = queue.first() else { return seen };
                cold = seen[*next].sent - idle_since > COLD;
                now = seen[*next].sent + step.entry;
                continue;
            }
            let generating: Vec<&Active> = active.iter().filter(|a| a.made > 0).collect();
            let sequences = generating.len() as u32;
            let cached = generating.iter().map(|a| f64::from(a.done + a.made)).sum();
            let slots_of: Vec<u32> = generating.iter().map(|a| a.slot).collect();
            let mut prompts = Vec::new();
            let (mut part, mut left) = (PromptPart::default(), ROOM.step_tokens - sequences);
            for a in active.iter_mut() {
                if a.made > 0 {
                    a.made += 1;
                    continue;
                }
                let chunk = (seen[a.place].computed - a.done).min(left);
                let (tokens, before) = (f64::from(chunk), f64::from(a.done));
                part.tokens += tokens;
                part.pairs += tokens * (before + tokens / 2.0);
                left -= chunk;
                prompts.push((a.slot, chunk));
                a.done += chunk;
                a.made = u32::from(a.done == seen[a.place].computed);
            }
            let normal: f64 = StandardNormal.sample(&mut random);
            let odd = if noise > 0.0 && random.random_range(0..100) == 0 { 3.0 } else { 1.0 };
            let seconds = match batches {
                Batches::Whole => step.seconds(sequences, cached, part),
                Batches::Pieces => {
                    let pieces = pieces(slots_of, prompts, ROOM.micro_batch);
                    step.seconds_in(&pieces, sequences, cached, part)
                }
            };
            let more = if std::mem::take(&mut cold) { step.cold } else { 0.0 };
            now += (seconds + more) * (1.0 + noise * normal) * odd;
            idle_since = now;
            active.retain(|a| {
                if a.made > 0 {
                    // Bytes of one step are read one after the other.
                    let jitter = random.random::<f64>() * 0.0003 * noise.min(1.0) * 50.0;
                    seen[a.place].tokens.push(now + jitter);
                }
                let over = a.made == plan[a.place].new_tokens.0;
                if over {
                    ends[a.place] = seen[a.place].tokens.last().copied();
                    slots.free(a.slot, a.place as u64, 1);
                }
                !over
            });
            slots.end_step();
        }
    }

    fn trials(batches: Batches, noise: f64, trials: u64) -> Vec<Vec<Seen>> {
        let plan = calibration(Tokens(512), Tokens(48), 8);
        (0..trials).map(|seed| stamps(&plan, &truth(), batches, noise, seed)).collect()
    }

    /// The largest relative difference of steps such as occur.
    fn difference(a: &StepTime, b: &StepTime) -> f64 {
        let mut largest: f64 = 0.0;
        for sequences in [0, 1, 2, 3, 5, 8] {
            for cached in [100.0, 600.0, 2000.0] {
                for tokens in [0.0, 16.0, 60.0, 200.0, 248.0] {
                    for before in [0.0, 256.0] {
                        if sequences == 0 && tokens == 0.0 {
                            continue;
                        }
                        let part = PromptPart { tokens, pairs: tokens * (before + tokens / 2.0) };
                        let cached = if sequences == 0 { 0.0 } else { cached };
                        let ratio =
                            a.seconds(sequences, cached, part) / b.seconds(sequences, cached, part);
                        largest = largest.max((ratio - 1.0).abs());
                    }
                }
            }
        }
        largest
    }

    #[test]
    fn known_step_times_are_found_again_from_their_stamps() {
        let found = fit(&trials(Batches::Whole, 0.0, 1), ROOM).unwrap();
        assert!(difference(&found.step, &truth()) < 0.01, "{found:#?}");
        assert!(found.error_median < 0.002, "{}", found.error_median);
        assert_eq!(found.sequences, 8);
        // The client's moment is part of the way.
        assert!((found.step.entry - 0.0042).abs() < 0.0005, "{}", found.step.entry);
        assert!((found.step.cold - 0.015).abs() < 0.001, "{}", found.step.cold);
    }

    #[test]
    fn without_pauses_nothing_is_said_of_the_first_step_after_one() {
        let mut plan = calibration(Tokens(512), Tokens(48), 8);
        plan.iter_mut().for_each(|planned| planned.think = crate::units::Nanos(0));
        let trials: Vec<_> =
            (0..3).map(|seed| stamps(&plan, &truth(), Batches::Whole, 0.0, seed)).collect();
        let found = fit(&trials, ROOM).unwrap();
        assert_eq!(found.step.cold, 0.0);
        assert!(difference(&found.step, &truth()) < 0.01, "{found:#?}");
    }

    #[test]
    fn the_slots_tell_whether_batches_are_computed_in_pieces() {
        for noise in [0.0, 0.03] {
            let whole = fit(&trials(Batches::Whole, noise, 1), ROOM).unwrap();
            assert_eq!(whole.batches, Batches::Whole);
            assert!(whole.other_error_median.is_some_and(|other| other > whole.error_median));
            let pieces = fit(&trials(Batches::Pieces, noise, 1), ROOM).unwrap();
            assert_eq!(pieces.batches, Batches::Pieces);
        }
        let mut untold = trials(Batches::Pieces, 0.0, 1);
        untold[0][3].slot = None;
        let untold = fit(&untold, ROOM).unwrap();
        assert_eq!((untold.batches, untold.other_error_median), (Batches::Whole, None));
    }

    #[test]
    fn step_times_of_pieces_are_found_again() {
        let found = fit(&trials(Batches::Pieces, 0.0, 1), ROOM).unwrap();
        assert!(found.error_median < 0.002, "{}", found.error_median);
        let (step, truth) = (&found.step, truth());
        for n in 1..=8 {
            let ratio = step.decode.at(f64::from(n)) / truth.decode.at(f64::from(n));
            assert!((ratio - 1.0).abs() < 0.01, "{n} at once: {ratio}");
        }
        for tokens in [16.0, 40.0, 100.0, 128.0] {
            let ratio = step.prompt.at(tokens) / truth.prompt.at(tokens);
            assert!((ratio - 1.0).abs() < 0.02, "{tokens} tokens: {ratio}");
        }
        assert!((step.cached_token / truth.cached_token - 1.0).abs() < 0.02, "{step:?}");
        assert!((step.pair / truth.pair - 1.0).abs() < 0.05, "{step:?}");
        assert!(step.both < 0.0005, "{step:?}");
    }

    #[test]
    fn noise_and_steps_that_hang_do_not_move_them() {
        // As noisy as vLLM's steps were, measured.
        let found = fit(&trials(Batches::Whole, 0.01, 3), ROOM).unwrap();
        let apart = difference(&found.step, &truth());
        assert!(apart < 0.02, "{apart} {found:#?}");
        assert!((0.003..0.02).contains(&found.error_median), "{}", found.error_median);
        assert!(found.error_p95.is_some_and(|p95| p95 > 0.01), "{:?}", found.error_p95);
    }

    #[test]
    fn the_pace_of_a_run_tells_a_slow_machine_from_one_that_hung() {
        let plan = calibration(Tokens(200), Tokens(30), 4);
        let slow =
            StepTime { decode: Curve::new(vec![(1.0, 0.030), (8.0, 0.090)]).unwrap(), ..truth() };
        let found =
            pace(&truth(), Batches::Whole, &[stamps(&plan, &slow, Batches::Whole, 0.0, 1)], ROOM)
                .unwrap();
        assert!(found.median > 1.2 && found.hung < 0.1, "{found:?}");
        assert!((1.05..1.5).contains(&found.all), "{found:?}");
        let mut hung = stamps(&plan, &truth(), Batches::Whole, 0.0, 1);
        let from = hung.iter().map(|seen| seen.sent).fold(0.0, f64::max) - 0.01;
        for seen in &mut hung {
            let late = |at: &mut f64| *at += if *at > from { 4.0 } else { 0.0 };
            seen.tokens.iter_mut().for_each(late);
        }
        let found = pace(&truth(), Batches::Whole, &[hung], ROOM).unwrap();
        assert!((found.median - 1.0).abs() < 0.02, "{found:?}");
        assert!((found.all - 1.0).abs() < 0.1, "{found:?}");
        assert!((3.5..4.1).contains(&found.hung), "{found:?}");
    }

    #[test]
    fn what_was_not_measured_is_an_error_that_says_what_to_run() {
        let one = |prompt: u32, new: u32| {
            let plan = [Planned {
                prompt_tokens: Tokens(prompt),
                new_tokens: Tokens(new),
                ..calibration(Tokens(1), Tokens(1), 1)[0]
            }];
            stamps(&plan, &truth(), Batches::Whole, 0.0, 1)
        };
        let error = |trials: &[Vec<Seen>]| fit(trials, ROOM).unwrap_err().to_string();
        assert!(error(&[one(30, 1)]).starts_with("no step can be told"));
        let single = error(&[one(30, 20), one(60, 20)]);
        assert!(single.contains("all steps of these samples have 1 at once"), "{single}");
        assert!(single.contains("bench run scenarios/capacity.toml"), "{single}");
        let room = Room { sequences: 1, ..ROOM };
        assert!(fit(&[one(30, 20), one(60, 20), one(90, 9)], room).is_ok());
        let alike = fit(&[one(30, 20), one(30, 20)], room).unwrap_err().to_string();
        assert!(alike.contains("prompts of these samples are all alike"), "{alike}");
    }

    #[test]
    fn points_of_a_curve_are_those_that_enough_steps_bear() {
        let values = |times: usize| [1.0, 2.0, 4.0, 5.0].repeat(times);
        assert_eq!(borne([values(BEARS), vec![3.0]].concat()), [1.0, 2.0, 4.0, 5.0]);
        assert!(borne(values(BEARS - 1)).is_empty());
    }

    #[test]
    fn a_curve_of_prompts_has_its_points_where_kernels_change() {
        assert_eq!(
            octaves(vec![250.0, 3.0, 9.0, 17.0, 60.0, 70.0]),
            [3.0, 16.0, 32.0, 64.0, 128.0, 250.0]
        );
        // Nothing was between 3 and 8, nor close above a point.
        assert_eq!(octaves(vec![3.0, 9.0, 12.0]), [3.0, 12.0]);
        assert_eq!((octaves(vec![7.0, 7.0]), octaves(Vec::new())), (vec![7.0], Vec::new()));
    }
}
