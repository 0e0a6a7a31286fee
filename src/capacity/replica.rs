//! One device with its engine: which requests it computes in the next step, how long that takes,
//! and what has become of them after it. From one change of the set of sequences to the next it
//! goes in one jump.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use super::asking::{Asked, Asker};
use super::engine::{Cache, Engine};
use super::idle::Idle;
use super::ledger::{Answered, Ledger, Work};
use super::pieces::pieces;
use super::slots::Slots;
use super::step::{PromptPart, Run};
use super::steps::COLD;

/// The most steps of a jump; more are taken in several.
const LONGEST_JUMP: u64 = 1 << 32;

/// A request on a device.
#[derive(Clone, Copy, Debug)]
struct Request {
    asked: Asked,
    /// Its place among those that count.
    place: Option<u64>,
    /// Tokens to compute before the next token comes: the prompt, and after having been put out
    /// what was generated.
    prompt: u32,
    /// Of these, the ones that are done or found in a cache.
    done: u32,
    /// Tokens that were generated.
    generated: u32,
    /// The moment of the first token.
    first: f64,
    /// In the order of admission.
    admitted: u64,
    /// Its slot, where the engine has slots.
    slot: u32,
}

/// What a device does until it decides anew.
#[derive(Clone, Copy, Debug)]
enum Doing {
    Nothing,
    /// A step with prompts.
    Prompts {
        began: f64,
    },
    /// Steps of pure generation.
    Steps {
        began: f64,
        run: Run,
        steps: u64,
    },
}

/// A request that has left its device.
#[derive(Clone, Copy, Debug)]
pub struct Left {
    /// Whose.
    pub asker: Asker,
    /// When, for who asked.
    pub at: f64,
    /// Whether it was one of those that count.
    pub counted: bool,
}

/// Why a request is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Too many wait.
    Queue,
    /// No cache of the engine holds it.
    TooLong,
}

/// A device that serves.
pub struct Replica<'a> {
    engine: &'a Engine,
    /// Seconds of a step without caches, by the number of sequences.
    decode: Vec<f64>,
    requests: Vec<Request>,
    free: Vec<u32>,
    waiting: VecDeque<u32>,
    /// Admitted, their prompts not yet computed; in the order of admission, or of slots.
    prompting: VecDeque<u32>,
    /// Those that generate, by the step in which their last token comes.
    decoding: BinaryHeap<Reverse<(u64, u32)>>,
    /// Tokens that each prompt of the step under way gets: those of the first in `prompting`.
    chunks: Vec<u32>,
    step: u64,
    admissions: u64,
    /// Tokens in the caches of those that generate.
    cached: u64,
    /// Tokens in the caches of all admitted ones.
    used: u64,
    idle: Idle,
    /// Where the engine has slots.
    slots: Option<Slots>,
    /// Whether these have caches of their own, so that a step is computed in pieces.
    in_pieces: bool,
    /// A conversation has further turns that look for its cache.
    talks: bool,
    doing: Doing,
    /// Since when it does nothing.
    idle_since: f64,
    /// Its next step is the first after a pause.
    cold: bool,
    /// When it decides anew.
    pub ends: f64,
}

impl<'a> Replica<'a> {
    pub fn new(engine: &'a Engine, turns: u32) -> Self {
        let most = engine.sequences.min(1 << 16);
        let (slots, in_pieces) = match engine.cache {
            Cache::Paged { .. } => (None, false),
            Cache::Slots { unified, .. } => (Some(Slots::new(engine.sequences)), !unified),
        };
        Self {
            engine,
            decode: (0..=most).map(|n| engine.step.decode.at(f64::from(n))).collect(),
            requests: Vec::new(),
            free: Vec::new(),
            waiting: VecDeque::new(),
            prompting: VecDeque::new(),
            decoding: BinaryHeap::new(),
            chunks: Vec::new(),
            step: 0,
            admissions: 0,
            cached: 0,
            used: 0,
            idle: Idle::default(),
            slots,
            in_pieces,
            talks: engine.reuses_prefix && turns > 1,
            doing: Doing::Nothing,
            idle_since: f64::NEG_INFINITY,
            cold: false,
            ends: f64::INFINITY,
        }
    }

    /// Seconds for each generated token with all its sequences at work.
    pub fn full_token(&self) -> f64 {
        self.decode_seconds(self.engine.sequences) / f64::from(self.engine.sequences)
    }

    /// Requests for each of its sequences.
    pub fn load(&self) -> f64 {
        let all = self.waiting.len() + self.prompting.len() + self.decoding.len();
        all as f64 / f64::from(self.engine.sequences)
    }

    /// Takes a request, or says why not.
    pub fn take(
        &mut self,
        asked: Asked,
        place: Option<u64>,
        ledger: &mut Ledger<'_>,
    ) -> Result<(), Refusal> {
        let turn = asked.turn;
        let tokens = u64::from(turn.prompt_tokens.0) + u64::from(turn.new_tokens.0);
        if turn.new_tokens.0 == 0 || !self.engine.can_hold(tokens) {
            return Err(Refusal::TooLong);
        }
        let has_room = self.waiting.is_empty() && self.running() < self.engine.sequences as usize;
        // Those for whom a sequence is free wait only for the end of a step.
        let free = (self.engine.sequences as usize).saturating_sub(self.running());
        let full = |queue: u32| self.waiting.len() >= free + queue as usize;
        if self.engine.queue.is_some_and(full) {
            return Err(Refusal::Queue);
        }
        let request = Request {
            asked,
            place,
            prompt: turn.prompt_tokens.0,
            done: 0,
            generated: 0,
            first: 0.0,
            admitted: 0,
            slot: 0,
        };
        let id = match self.free.pop() {
            Some(id) => {
                self.requests[id as usize] = request;
                id
            }
            None => {
                self.requests.push(request);
                (self.requests.len() - 1) as u32
            }
        };
        self.waiting.push_back(id);
        ledger.wait(asked.at, 1);
        match &mut self.doing {
            Doing::Nothing => {
                self.cold = asked.at - self.idle_since > COLD;
                self.decide(asked.at, ledger);
            }
            // It is admitted at the end of the step under way.
            Doing::Steps { began, run, steps } if has_room => {
                *steps = run.steps_by(asked.at - *began).min(*steps);
                self.ends = *began + run.seconds(*steps);
            }
            Doing::Steps { .. } | Doing::Prompts { .. } => {}
        }
        Ok(())
    }

    fn running(&self) -> usize {
        self.prompting.len() + self.decoding.len()
    }

    /// What it was doing is over: who has left.
    pub fn end(&mut self, ledger: &mut Ledger<'_>, left: &mut Vec<Left>) {
        let now = self.ends;
        let sequences = self.decoding.len() as u64;
        match self.doing {
            Doing::Nothing => {}
            Doing::Steps { began, steps, .. } => {
                self.book(began, now, sequences, steps * sequences, steps * sequences, ledger);
                self.grow(steps);
            }
            Doing::Prompts { began } => {
                let all = sequences + self.prompting.len() as u64;
                let done = self.finished_prompts();
                self.book(began, now, all, sequences + done as u64, sequences, ledger);
                self.grow(1);
                self.end_prompts(now, done, ledger, left);
            }
        }
        while let Some(&Reverse((last, id))) = self.decoding.peek()
            && last <= self.step
        {
            self.decoding.pop();
            self.leave(id, now, ledger, left);
        }
        if let Some(slots) = &mut self.slots {
            slots.end_step();
        }
        self.decide(now, ledger);
    }

    /// Each sequence that generates has as many tokens more as steps were made.
    fn grow(&mut self, steps: u64) {
        let more = steps * self.decoding.len() as u64;
        self.step += steps;
        self.cached += more;
        self.used += more;
    }

    /// Books steps of `running` sequences that made `tokens`, in which the caches `grew`.
    fn book(
        &self,
        from: f64,
        to: f64,
        running: u64,
        tokens: u64,
        grew: u64,
        ledger: &mut Ledger<'_>,
    ) {
        let all = self.engine.cache_tokens() as f64;
        let (mean, most) = match self.engine.cache {
            Cache::Paged { .. } => {
                let held = self.held() as f64;
                ((held + grew as f64 / 2.0) / all, (held + grew as f64) / all)
            }
            Cache::Slots { .. } => {
                let share = running as f64 / f64::from(self.engine.sequences);
                (share, share)
            }
        };
        let work = Work { running: running as f64, tokens: tokens as f64, mean, most };
        ledger.work(from, to, &work);
    }

    /// Prompts that the step under way completes; they are the first ones.
    fn finished_prompts(&self) -> usize {
        let ends = |(id, chunk): (&u32, &u32)| {
            let request = &self.requests[*id as usize];
            request.done + chunk >= request.prompt
        };
        self.prompting.iter().zip(&self.chunks).filter(|pair| ends(*pair)).count()
    }

    fn end_prompts(
        &mut self,
        now: f64,
        done: usize,
        ledger: &mut Ledger<'_>,
        left: &mut Vec<Left>,
    ) {
        for (id, chunk) in self.prompting.iter().zip(&self.chunks) {
            self.requests[*id as usize].done += chunk;
        }
        for _ in 0..done {
            let Some(id) = self.prompting.pop_front() else { break };
            let request = &mut self.requests[id as usize];
            // After having been put out, the first token came long ago.
            if request.generated == 0 {
                request.first = now;
            }
            request.generated += 1;
            self.used += 1;
            let more = request.asked.turn.new_tokens.0 - request.generated;
            self.cached += u64::from(request.prompt) + 1;
            if more == 0 {
                self.leave(id, now, ledger, left);
            } else {
                if let Some(slots) = &mut self.slots {
                    slots.generate(request.slot);
                }
                self.decoding.push(Reverse((self.step + u64::from(more), id)));
            }
        }
    }

    /// A request has its last token.
    fn leave(&mut self, id: u32, now: f64, ledger: &mut Ledger<'_>, left: &mut Vec<Left>) {
        let request = self.requests[id as usize];
        let turn = request.asked.turn;
        let tokens = u64::from(turn.prompt_tokens.0) + u64::from(turn.new_tokens.0);
        self.cached -= tokens;
        self.used -= tokens;
        let Asked { asker, conversation, .. } = request.asked;
        match &mut self.slots {
            Some(slots) => slots.free(request.slot, conversation, tokens),
            None if self.talks => self.idle.keep(conversation, tokens),
            None => {}
        }
        self.free.push(id);
        let entry = self.engine.step.entry;
        if let Some(place) = request.place {
            ledger.answer(&Answered {
                place,
                asked: request.asked.at,
                ttft: request.first - request.asked.at + entry,
                e2e: now - request.asked.at + entry,
                new_tokens: turn.new_tokens.0,
            });
        }
        left.push(Left { asker, at: now + entry, counted: request.place.is_some() });
    }

    /// Tokens of memory that the admitted ones hold: of blocks, half of the last one is empty.
    fn held(&self) -> u64 {
        match self.engine.cache {
            Cache::Paged { block, .. } => {
                self.used + (self.running() as u64 * u64::from(block.saturating_sub(1))) / 2
            }
            Cache::Slots { .. } => self.used,
        }
    }

    /// Admits what waits, and begins the next step or steps.
    fn decide(&mut self, now: f64, ledger: &mut Ledger<'_>) {
        self.admit(now, ledger);
        loop {
            if !self.prompting.is_empty() && self.begin_prompts(now) {
                return;
            }
            let Some(&Reverse((last, _))) = self.decoding.peek() else {
                if self.prompting.is_empty() {
                    self.doing = Doing::Nothing;
                    self.idle_since = now;
                    self.ends = f64::INFINITY;
                    return;
                }
                self.put_out(now, ledger);
                continue;
            };
            let steps = (last - self.step).min(LONGEST_JUMP).min(self.steps_in_memory());
            if steps > 0 {
                let sequences = self.decoding.len() as u32;
                let step = &self.engine.step;
                let base = match &self.slots {
                    Some(slots) if self.in_pieces => {
                        let mut sum = 0.0;
                        slots.runs(|run| sum += self.decode_seconds(run));
                        sum
                    }
                    _ => self.decode_seconds(sequences),
                };
                let run = Run::new(base, sequences, self.cached as f64, step.cached_token);
                self.ends = now + run.seconds(steps);
                self.doing = Doing::Steps { began: now, run, steps };
                return;
            }
            self.put_out(now, ledger);
        }
    }

    fn decode_seconds(&self, sequences: u32) -> f64 {
        let known = self.decode.get(sequences as usize).copied();
        known.unwrap_or_else(|| self.engine.step.decode.at(f64::from(sequences)))
    }

    /// Caches that nobody computes with go when their room is needed.
    fn give_up_idle(&mut self, room: u64) {
        while self.idle.tokens() > room && self.idle.evict().is_some() {}
    }

    /// Steps for which the memory lasts, where every sequence takes a token in each.
    fn steps_in_memory(&mut self) -> u64 {
        let Cache::Paged { tokens, .. } = self.engine.cache else { return u64::MAX };
        let sequences = (self.decoding.len() as u64).max(1);
        let free = tokens.saturating_sub(self.held());
        self.give_up_idle(free);
        // What the whole memory cannot hold was not taken.
        if self.running() == 1 { u64::MAX } else { free / sequences }
    }

    /// Begins a step with prompts; not where the memory does not bear it.
    fn begin_prompts(&mut self, now: f64) -> bool {
        let sequences = self.decoding.len() as u32;
        if self.steps_in_memory() == 0 {
            return false;
        }
        let mut budget = self.engine.step_tokens.saturating_sub(sequences).max(1);
        let mut part = PromptPart::default();
        self.chunks.clear();
        for id in &self.prompting {
            let request = &self.requests[*id as usize];
            let chunk = (request.prompt - request.done).min(budget);
            if chunk == 0 {
                break;
            }
            let (tokens, before) = (f64::from(chunk), f64::from(request.done));
            part.tokens += tokens;
            part.pairs += tokens * (before + tokens / 2.0);
            budget -= chunk;
            self.chunks.push(chunk);
        }
        let (step, cached) = (&self.engine.step, self.cached as f64);
        let seconds = match &self.slots {
            Some(slots) if self.in_pieces => {
                let slot = |id: &u32| self.requests[*id as usize].slot;
                let prompts = self.prompting.iter().map(slot).zip(self.chunks.iter().copied());
                let pieces = pieces(slots.generating(), prompts, self.engine.micro_batch);
                step.seconds_in(&pieces, sequences, cached, part)
            }
            _ => step.seconds(sequences, cached, part),
        };
        let cold = if std::mem::take(&mut self.cold) { step.cold } else { 0.0 };
        self.ends = now + seconds + cold;
        self.doing = Doing::Prompts { began: now };
        true
    }

    /// Takes those that wait in, as long as there is room, in the order in which they came.
    fn admit(&mut self, now: f64, ledger: &mut Ledger<'_>) {
        if let Cache::Paged { tokens, .. } = self.engine.cache {
            self.give_up_idle(tokens.saturating_sub(self.held()));
        }
        while let Some(&id) = self.waiting.front() {
            if self.running() >= self.engine.sequences as usize {
                return;
            }
            let request = self.requests[id as usize];
            let conversation = request.asked.conversation;
            let repeated = request.asked.turn.repeated_tokens.0;
            let (mut found, mut slot) = (0, 0);
            if self.talks && repeated > 0 {
                found = self.idle.of(conversation).min(u64::from(repeated));
            }
            match self.engine.cache {
                Cache::Paged { tokens, block } => {
                    // Only whole blocks are found again.
                    found -= found % u64::from(block.max(1));
                    let needed = u64::from(request.prompt) + u64::from(block);
                    if self.running() > 0 && self.held() + needed > tokens {
                        return;
                    }
                    self.idle.take(conversation);
                    self.give_up_idle(tokens.saturating_sub(self.held() + needed));
                }
                Cache::Slots { .. } => {
                    if let Some(slots) = &mut self.slots {
                        let held;
                        (slot, held) = slots.take(conversation, request.prompt, repeated);
                        found = if self.talks { held } else { 0 };
                    }
                }
            }
            self.waiting.pop_front();
            ledger.wait(now, -1);
            self.admissions += 1;
            let request = &mut self.requests[id as usize];
            request.admitted = self.admissions;
            request.slot = slot;
            // The last token of a prompt is computed anew: its answer is what is asked for.
            request.done = (found as u32).min(request.prompt - 1);
            self.used += u64::from(request.prompt);
            // A server with slots fills its batch in their order.
            let requests = &self.requests;
            let place = self.prompting.partition_point(|id| requests[*id as usize].slot <= slot);
            self.prompting.insert(place, id);
        }
    }

    /// Puts the last admitted request out of the cache: it waits before all others, and what it
    /// had is computed again.
    fn put_out(&mut self, now: f64, ledger: &mut Ledger<'_>) {
        let admitted = |id: &u32| self.requests[*id as usize].admitted;
        let of_prompts = self.prompting.back().copied();
        let of_decoding = self.decoding.iter().map(|Reverse((_, id))| *id).max_by_key(admitted);
        let Some(id) = of_prompts.into_iter().chain(of_decoding).max_by_key(admitted) else {
            return;
        };
        if of_prompts == Some(id) {
            self.prompting.pop_back();
            let request = &mut self.requests[id as usize];
            self.used -= u64::from(request.prompt);
            request.done = 0;
        } else {
            let last = self.decoding.iter().find(|Reverse((_, other))| *other == id);
            let left = last.map_or(0, |Reverse((last, _))| last - self.step) as u32;
            self.decoding.retain(|Reverse((_, other))| *other != id);
            let request = &mut self.requests[id as usize];
            let turn = request.asked.turn;
            request.generated = turn.new_tokens.0 - left;
            let tokens = turn.prompt_tokens.0 + request.generated;
            request.prompt = tokens;
            request.done = 0;
            self.cached -= u64::from(tokens);
            self.used -= u64::from(tokens);
        }
        self.waiting.push_front(id);
        ledger.wait(now, 1);
        ledger.outcome.preempted += 1;
    }
}
