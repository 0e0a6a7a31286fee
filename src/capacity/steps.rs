//! The steps of an engine, found again in the moments at which the tokens of its requests came:
//! tokens that came together were made by one step.

use super::pieces::{Batches, Piece, pieces};
use super::step::{PromptPart, StepTime};
use crate::stats;

/// An answered request as its stamps tell it, in seconds of one clock.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Seen {
    /// When it was sent.
    pub sent: f64,
    /// Tokens of its prompt that were computed.
    pub computed: u32,
    /// Tokens that its cache held before.
    pub before: u32,
    /// When its tokens came, those of one event at the same time.
    pub tokens: Vec<f64>,
    /// The engine's own time for its prompt, where it says it of each request.
    pub prompt: Option<f64>,
    /// Its slot, where the engine says it of each request.
    pub slot: Option<u32>,
}

/// What a step, or several in a row that made no token between them, computed and how long it took.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Step {
    pub seconds: f64,
    /// Sequences that generated a token.
    pub sequences: u32,
    /// Tokens in their caches.
    pub cached: f64,
    /// The prompts' part of each step.
    pub prompts: Vec<PromptPart>,
    /// The pieces of all of them, if the caches of slots were apart; `None` where a slot is not
    /// known.
    pub pieces: Option<Vec<Piece>>,
    /// Whether it began with a request to an idle engine: then its way there is in the time.
    pub from_idle: bool,
    /// Whether that had been idle for longer than [`COLD`].
    pub cold: bool,
}

impl Step {
    /// What `time` says of it.
    pub fn expected(&self, time: &StepTime, batches: Batches) -> f64 {
        let cold = if self.cold { time.cold } else { 0.0 };
        let entry = cold + if self.from_idle { time.entry } else { 0.0 };
        if let (Batches::Pieces, Some(pieces)) = (batches, &self.pieces) {
            let all = sum(self.prompts.iter().copied());
            return entry + time.seconds_in(pieces, self.sequences, self.cached, all);
        }
        if self.prompts.is_empty() {
            return entry + time.seconds(self.sequences, self.cached, PromptPart::default());
        }
        let parts = self.prompts.iter();
        entry + parts.map(|part| time.seconds(self.sequences, self.cached, *part)).sum::<f64>()
    }

    pub fn prompt_tokens(&self) -> f64 {
        self.prompts.iter().map(|part| part.tokens).sum()
    }
}

fn sum(parts: impl Iterator<Item = PromptPart>) -> PromptPart {
    parts.fold(PromptPart::default(), |sum, part| PromptPart {
        tokens: sum.tokens + part.tokens,
        pairs: sum.pairs + part.pairs,
    })
}

/// How many requests and tokens an engine computes at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Sequences.
    pub sequences: u32,
    /// Tokens of a step, of prompts and generation together.
    pub step_tokens: u32,
    /// Tokens of a piece, where it computes in pieces.
    pub micro_batch: u32,
}

/// Seconds after which an idle engine's first step takes longer: its threads sleep, and processor and
/// memory save power.
pub const COLD: f64 = 0.1;

/// Tokens that come this much closer than the shortest steps take were made by one step.
const TOGETHER: f64 = 0.5;

/// A request within this share of a step's time of its start may have come before it or after.
const DOUBT: f64 = 0.2;

/// Tokens that came together.
struct Moment {
    at: f64,
    /// Requests that had tokens before.
    further: Vec<usize>,
    /// Requests whose first token it is.
    first: Vec<usize>,
    /// Whether a request has two tokens in it, so that it was no single step.
    blurred: bool,
}

/// The steps of a trial that can be told for sure.
pub(super) fn reconstruct(requests: &[Seen], room: Room) -> Vec<Step> {
    let mut requests: Vec<&Seen> = requests.iter().filter(|r| !r.tokens.is_empty()).collect();
    requests.sort_by(|a, b| a.sent.total_cmp(&b.sent));
    let Some(moments) = moments(&requests) else { return Vec::new() };
    let mut found = Vec::new();
    let mut left: Vec<u32> = requests.iter().map(|request| request.computed).collect();
    let mut place = vec![0_usize; requests.len()];
    let first_at = first_moments(&moments, requests.len());
    for (k, moment) in moments.iter().enumerate() {
        let parts = prompts_of(k, &moments, &requests, &first_at, &mut left, room);
        let cached: f64 = moment.further.iter().map(|&i| cache(requests[i], place[i])).sum();
        for &i in moment.further.iter().chain(&moment.first) {
            place[i] += 1;
        }
        let before = k.checked_sub(1).map(|k| &moments[k]);
        let Some(Span { seconds, idle }) = span(moment, before, &parts, &requests) else {
            continue;
        };
        let (from_idle, cold) = (idle.is_some(), idle.is_some_and(|idle| idle > COLD));
        // A generating request that has no token here was put out, or its token came late.
        let paused = moment
            .further
            .iter()
            .any(|i| !before.is_some_and(|b| b.further.contains(i) || b.first.contains(i)));
        let skipped = !moment.further.is_empty()
            && before.is_some_and(|before| {
                let made = before.further.iter().chain(&before.first);
                made.clone().any(|&i| place[i] < requests[i].tokens.len() && !in_moment(moment, i))
            });
        if moment.blurred || before.is_some_and(|b| b.blurred) || paused || skipped {
            continue;
        }
        let sequences = moment.further.len() as u32;
        let tokens = parts.iter().map(|(_, part)| part.tokens).sum::<f64>();
        if sequences == 0 && tokens == 0.0 || seconds <= 0.0 {
            continue;
        }
        let alone = parts.len() == 1 && from_idle && sequences == 0;
        let room_left = room.step_tokens.saturating_sub(sequences);
        let prompts = cut(parts.iter().map(|(_, part)| *part), room_left);
        if sequences > 0 && prompts.len() > 1 {
            // More than a step has room for, although tokens came: it is not as it seems.
            continue;
        }
        let own = parts.first().filter(|_| alone).and_then(|(i, _)| requests[*i].prompt);
        let pieces = match in_pieces(moment, &parts, &requests, room) {
            Ok(pieces) => pieces,
            Err(TwoInOne) => continue,
        };
        let step = Step { seconds, sequences, cached, prompts, pieces, from_idle, cold };
        if let Some(seconds) = own.filter(|own| *own > 0.0) {
            found.push(Step { seconds, from_idle: false, ..step.clone() });
        }
        found.push(step);
    }
    found
}

/// Two requests had one slot in what was taken for one step.
struct TwoInOne;

/// The pieces of what was computed before a moment, if the caches of slots are apart; `None` where
/// a request does not say its slot.
fn in_pieces(
    moment: &Moment,
    parts: &[(usize, PromptPart)],
    requests: &[&Seen],
    room: Room,
) -> Result<Option<Vec<Piece>>, TwoInOne> {
    let slots: Option<Vec<u32>> = moment.further.iter().map(|&i| requests[i].slot).collect();
    let prompts: Option<Vec<(u32, u32)>> =
        parts.iter().map(|(i, part)| Some((requests[*i].slot?, part.tokens as u32))).collect();
    let (Some(mut generating), Some(mut left)) = (slots, prompts) else { return Ok(None) };
    generating.sort_unstable();
    left.sort_unstable();
    let mut all: Vec<u32> = left.iter().map(|prompt| prompt.0).chain(generating.clone()).collect();
    all.sort_unstable();
    if all.windows(2).any(|pair| pair[0] == pair[1]) {
        return Err(TwoInOne);
    }
    let mut found = Vec::new();
    loop {
        // A batch: prompts in the order of slots, as far as there is room.
        let mut rest = room.step_tokens.saturating_sub(generating.len() as u32).max(1);
        let batch: Vec<(u32, u32)> = left
            .iter_mut()
            .map(|(slot, tokens)| {
                let chunk = (*tokens).min(rest);
                *tokens -= chunk;
                rest -= chunk;
                (*slot, chunk)
            })
            .collect();
        found.extend(pieces(generating.iter().copied(), batch, room.micro_batch));
        if left.iter().all(|(_, tokens)| *tokens == 0) {
            return Ok(Some(found));
        }
    }
}

fn in_moment(moment: &Moment, i: usize) -> bool {
    moment.further.contains(&i) || moment.first.contains(&i)
}

/// Tokens in a request's cache in the step that makes its token number `place`, from 0.
fn cache(request: &Seen, place: usize) -> f64 {
    f64::from(request.before) + f64::from(request.computed) + place as f64
}

/// Groups tokens by the moments at which they came; `None` where no request has two.
fn moments(requests: &[&Seen]) -> Option<Vec<Moment>> {
    let gaps: Vec<f64> = requests
        .iter()
        .flat_map(|r| r.tokens.windows(2).map(|pair| pair[1] - pair[0]))
        .filter(|gap| *gap > 0.0)
        .collect();
    let mut sorted = gaps;
    sorted.sort_by(f64::total_cmp);
    let shortest = *sorted.get(sorted.len() / 20)?;
    let mut events: Vec<(f64, usize, usize)> = Vec::new();
    for (i, request) in requests.iter().enumerate() {
        events.extend(request.tokens.iter().enumerate().map(|(n, &at)| (at, i, n)));
    }
    events.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.2.cmp(&b.2)));
    let mut moments: Vec<Moment> = Vec::new();
    let mut start = f64::NEG_INFINITY;
    let mut stamps: Vec<f64> = Vec::new();
    for (at, i, n) in events {
        let again = moments.last().is_some_and(|moment| in_moment(moment, i));
        let same_event = again && stamps.last() == Some(&at);
        if same_event {
            if let Some(moment) = moments.last_mut() {
                moment.blurred = true;
            }
            continue;
        }
        if again || at - start > TOGETHER * shortest {
            close(&mut moments, &stamps);
            stamps.clear();
            start = at;
            moments.push(Moment { at, further: Vec::new(), first: Vec::new(), blurred: false });
        }
        stamps.push(at);
        if let Some(moment) = moments.last_mut() {
            if n == 0 { &mut moment.first } else { &mut moment.further }.push(i);
        }
    }
    close(&mut moments, &stamps);
    Some(moments)
}

/// A moment is the middle of its stamps: one that was read late does not move it.
fn close(moments: &mut [Moment], stamps: &[f64]) {
    if let (Some(moment), Some(middle)) = (moments.last_mut(), stats::median(stamps)) {
        moment.at = middle;
    }
}

/// The moment of each request's first token.
fn first_moments(moments: &[Moment], requests: usize) -> Vec<usize> {
    let mut first_at = vec![usize::MAX; requests];
    for (k, moment) in moments.iter().enumerate() {
        for &i in &moment.first {
            first_at[i] = k;
        }
    }
    first_at
}

/// What was computed of prompts before moment `k` and after the one before: all that was left of
/// those whose first token it is, and as much of the next one as there was room for. One that would
/// have fitted whole and has no token yet had not begun.
fn prompts_of(
    k: usize,
    moments: &[Moment],
    requests: &[&Seen],
    first_at: &[usize],
    left: &mut [u32],
    room: Room,
) -> Vec<(usize, PromptPart)> {
    let moment = &moments[k];
    let mut parts = Vec::new();
    let mut used = moment.further.len() as u32;
    for &i in &moment.first {
        parts.push((i, take(requests[i], &mut left[i], u32::MAX)));
        used = used.saturating_add(parts.last().map_or(0, |(_, part)| part.tokens as u32));
    }
    let running = (moment.further.len() + moment.first.len()) as u32;
    let begins = k.checked_sub(1).map_or(f64::NEG_INFINITY, |before| moments[before].at);
    // Where the engine was idle, it was there if it came no later than one that was computed.
    let begins = moment.first.iter().map(|&i| requests[i].sent.next_up()).fold(begins, f64::max);
    let waits = |i: &usize| {
        let later = first_at[*i] > k && first_at[*i] != usize::MAX;
        later && left[*i] > 0 && requests[*i].sent < begins
    };
    let next = (0..requests.len()).filter(waits).min_by_key(|i| first_at[*i]);
    let rest = room.step_tokens.saturating_sub(used);
    if let Some(i) = next.filter(|i| running < room.sequences && rest > 0 && left[*i] > rest) {
        parts.push((i, take(requests[i], &mut left[i], rest)));
    }
    parts
}

/// Takes up to `most` tokens of a prompt.
fn take(request: &Seen, left: &mut u32, most: u32) -> PromptPart {
    let tokens = (*left).min(most);
    let done = f64::from(request.before) + f64::from(request.computed - *left);
    *left -= tokens;
    let tokens = f64::from(tokens);
    PromptPart { tokens, pairs: tokens * (done + tokens / 2.0) }
}

/// The steps that prompts fill where each has room for so many tokens.
fn cut(parts: impl Iterator<Item = PromptPart>, room: u32) -> Vec<PromptPart> {
    let all = sum(parts);
    if all.tokens <= 0.0 {
        return Vec::new();
    }
    let steps = (all.tokens / f64::from(room.max(1))).ceil().max(1.0) as usize;
    let mut left = all.tokens;
    (0..steps)
        .map(|_| {
            let tokens = left.min(f64::from(room.max(1)));
            left -= tokens;
            PromptPart { tokens, pairs: all.pairs * tokens / all.tokens }
        })
        .collect()
}

/// How long steps took, and for how long the engine had been idle before, if it was.
struct Span {
    seconds: f64,
    idle: Option<f64>,
}

/// What lies before `moment`; `None` where that cannot be told.
fn span(
    moment: &Moment,
    before: Option<&Moment>,
    parts: &[(usize, PromptPart)],
    requests: &[&Seen],
) -> Option<Span> {
    let sent = parts.iter().map(|(i, _)| requests[*i].sent).fold(f64::INFINITY, f64::min);
    let Some(before) = before else {
        return Some(Span { seconds: moment.at - sent, idle: Some(f64::INFINITY) });
    };
    let busy = moment.at - before.at;
    if !moment.further.is_empty() {
        return Some(Span { seconds: busy, idle: None });
    }
    let since = moment.at - sent;
    let doubt = DOUBT * busy.min(since);
    if sent >= before.at {
        Some(Span { seconds: since, idle: Some(sent - before.at) })
    } else if before.at - sent > doubt {
        Some(Span { seconds: busy, idle: None })
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOM: Room = Room { sequences: 4, step_tokens: 100, micro_batch: 64 };

    fn seen(sent: f64, computed: u32, tokens: &[f64]) -> Seen {
        Seen { sent, computed, tokens: tokens.to_vec(), ..Seen::default() }
    }

    #[test]
    fn tokens_that_come_together_are_one_step() {
        let one = seen(0.0, 30, &[0.300, 0.320, 0.350, 0.380]);
        let other = seen(0.305, 10, &[0.3501, 0.3802]);
        let steps = reconstruct(&[one, other], ROOM);
        assert_eq!(steps.len(), 4);
        // A prompt alone, from idle; a token; a token beside a prompt; two tokens.
        let shape: Vec<_> =
            steps.iter().map(|s| (s.sequences, s.prompt_tokens(), s.cached, s.from_idle)).collect();
        assert_eq!(
            shape,
            [
                (0, 30.0, 0.0, true),
                (1, 0.0, 31.0, false),
                (1, 10.0, 32.0, false),
                (2, 0.0, 44.0, false)
            ]
        );
        assert!((steps[0].seconds - 0.3).abs() < 1e-9);
        assert!((steps[3].seconds - 0.0301).abs() < 2e-4, "{}", steps[3].seconds);
    }

    #[test]
    fn a_prompt_beyond_the_room_takes_several_steps() {
        let steps = reconstruct(&[seen(0.0, 250, &[0.9, 0.92])], ROOM);
        let tokens: Vec<_> = steps[0].prompts.iter().map(|part| part.tokens).collect();
        assert_eq!(tokens, [100.0, 100.0, 50.0]);
        let pairs: f64 = steps[0].prompts.iter().map(|part| part.pairs).sum();
        assert!((pairs - 250.0 * 125.0).abs() < 1e-6);
        // Beside one that generates, its parts are in the steps of that one's tokens.
        let generating = seen(0.0, 10, &[0.1, 0.15, 0.55, 0.95, 1.05]);
        let long = seen(0.12, 210, &[1.051]);
        let steps = reconstruct(&[generating, long], ROOM);
        let parts: Vec<_> = steps.iter().map(|s| (s.sequences, s.prompt_tokens())).collect();
        assert_eq!(parts, [(0, 10.0), (1, 0.0), (1, 99.0), (1, 99.0), (1, 12.0)]);
    }

    #[test]
    fn slots_tell_the_pieces_of_a_step() {
        let pieces = |requests: &[Seen]| -> Vec<Option<Vec<(u32, u32)>>> {
            let shapes = |pieces: &Vec<Piece>| {
                pieces.iter().map(|piece| (piece.sequences, piece.tokens)).collect()
            };
            reconstruct(requests, ROOM).iter().map(|s| s.pieces.as_ref().map(shapes)).collect()
        };
        let of = |slot: u32, seen: Seen| Seen { slot: Some(slot), ..seen };
        let one = of(0, seen(0.0, 30, &[0.300, 0.320, 0.350, 0.380]));
        let beside = seen(0.305, 10, &[0.3501, 0.3802]);
        let wanted = |last: &[(u32, u32)], mixed: &[(u32, u32)]| {
            [vec![(1, 30)], vec![(1, 1)], mixed.to_vec(), last.to_vec()].map(Some).to_vec()
        };
        let found = pieces(&[one.clone(), of(2, beside.clone())]);
        assert_eq!(found, wanted(&[(1, 1), (1, 1)], &[(1, 1), (1, 10)]));
        let found = pieces(&[one.clone(), of(1, beside.clone())]);
        assert_eq!(found, wanted(&[(2, 1)], &[(2, 1), (1, 9)]));
        // Both in one slot cannot be.
        assert_eq!(pieces(&[one.clone(), of(0, beside.clone())]).len(), 2);
        assert_eq!(pieces(&[one, beside])[2..], [None, None]);
        // Batches of 100, 100 and 50 tokens in pieces of at most 64.
        let long = pieces(&[of(3, seen(0.0, 250, &[0.9, 0.92]))]);
        assert_eq!(long[0], Some(vec![(1, 64), (1, 36), (1, 64), (1, 36), (1, 50)]));
    }

    #[test]
    fn two_tokens_in_one_event_are_no_step() {
        let request = seen(0.0, 10, &[0.10, 0.12, 0.14, 0.18, 0.18, 0.20, 0.22]);
        let steps = reconstruct(&[request], ROOM);
        assert_eq!(steps.len(), 4, "{steps:?}");
        assert!(steps.iter().skip(1).all(|step| (step.seconds - 0.02).abs() < 1e-9), "{steps:?}");
    }

    #[test]
    fn a_request_that_waited_began_at_the_end_of_the_step_before() {
        let one = Room { sequences: 1, ..ROOM };
        let first = seen(0.0, 10, &[0.10, 0.12, 0.14]);
        let second = seen(0.03, 20, &[0.34, 0.36]);
        let steps = reconstruct(&[first.clone(), second], one);
        assert_eq!((steps[3].seconds * 100.0).round(), 20.0);
        assert!(!steps[3].from_idle);
        // Sent while the last token was made, it may have come before or after.
        let steps = reconstruct(&[first, seen(0.139, 20, &[0.34, 0.36])], one);
        assert_eq!(steps.len(), 4, "{steps:?}");
    }

    #[test]
    fn an_engine_s_own_time_of_a_prompt_has_no_way_in_it() {
        let request = Seen { prompt: Some(0.09), ..seen(0.0, 10, &[0.10, 0.12]) };
        let steps = reconstruct(&[request], ROOM);
        assert_eq!((steps[0].seconds, steps[0].from_idle), (0.09, false));
        assert_eq!((steps[1].seconds, steps[1].from_idle), (0.10, true));
    }
}
