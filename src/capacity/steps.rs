//! The steps of an engine, found again in the moments at which the tokens of its requests came:
//! tokens that came together were made by one step.

use super::step::PromptPart;
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
    /// Whether it began with a request to an idle engine: then its way there is in the time.
    pub from_idle: bool,
    /// Whether the time is the engine's own.
    pub own: bool,
}

impl Step {
    pub fn prompt_tokens(&self) -> f64 {
        self.prompts.iter().map(|part| part.tokens).sum()
    }
}

/// How many requests and tokens an engine computes at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Sequences.
    pub sequences: u32,
    /// Tokens of a step, of prompts and generation together.
    pub step_tokens: u32,
}

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
        let Some((seconds, from_idle)) = span(moment, before, &parts, &requests) else { continue };
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
        if let Some(seconds) = own.filter(|own| *own > 0.0) {
            let prompts = prompts.clone();
            found.push(Step { seconds, sequences, cached, prompts, from_idle: false, own: true });
        }
        found.push(Step { seconds, sequences, cached, prompts, from_idle, own: false });
    }
    found
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
    let all = parts.fold(PromptPart::default(), |sum, part| PromptPart {
        tokens: sum.tokens + part.tokens,
        pairs: sum.pairs + part.pairs,
    });
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

/// How long it took until `moment`, and whether the engine had been idle; `None` where that cannot
/// be told.
fn span(
    moment: &Moment,
    before: Option<&Moment>,
    parts: &[(usize, PromptPart)],
    requests: &[&Seen],
) -> Option<(f64, bool)> {
    let sent = parts.iter().map(|(i, _)| requests[*i].sent).fold(f64::INFINITY, f64::min);
    let Some(before) = before else { return Some((moment.at - sent, true)) };
    let busy = moment.at - before.at;
    if !moment.further.is_empty() {
        return Some((busy, false));
    }
    let idle = moment.at - sent;
    let doubt = DOUBT * busy.min(idle);
    if sent >= before.at {
        Some((idle, true))
    } else if before.at - sent > doubt {
        Some((busy, false))
    } else {
        None
    }
}
