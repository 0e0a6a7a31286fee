//! Continuous batching, once for all in-process engines: which tokens of which sequences go into
//! the engine's next step.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use anyhow::bail;

use super::{Fault, Request, Schedule, TokenSink};

/// Tokens of one sequence in one step of the engine.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Chunk<'a> {
    /// The sequence, below `Settings::slots`.
    pub sequence: u32,
    /// The position of the first token; the sequence's cache holds exactly the positions before.
    pub position: u32,
    /// The tokens, in order.
    pub tokens: &'a [u32],
    /// Whether the logits after the last token are wanted.
    pub logits: bool,
}

/// An engine that computes one batch at a time.
pub trait Stepper {
    /// The most tokens that one step takes.
    fn batch_tokens(&self) -> usize;

    /// Sequences that are held at once.
    fn slots(&self) -> usize;

    /// Forgets everything in the sequence's cache.
    fn forget(&mut self, sequence: u32) -> anyhow::Result<()>;

    /// Computes the chunks (at most one for each sequence, at most [`Self::batch_tokens`] tokens in
    /// all) and returns when the wanted logits are on the host.
    fn step(&mut self, chunks: &[Chunk<'_>]) -> anyhow::Result<()>;
}

/// Fills the cache of sequence `i` with request `i`'s context, for [`super::Runner::prepare`].
pub fn prepare(engine: &mut impl Stepper, requests: &[Request]) -> anyhow::Result<()> {
    for sequence in 0..engine.slots() as u32 {
        engine.forget(sequence)?;
    }
    let most = engine.batch_tokens();
    for (sequence, request) in requests.iter().enumerate().take(engine.slots()) {
        let mut position = 0;
        for tokens in request.context.chunks(most) {
            let sequence = sequence as u32;
            engine.step(&[Chunk { sequence, position, tokens, logits: false }])?;
            position += tokens.len() as u32;
        }
    }
    Ok(())
}

/// A request in a slot.
struct Active {
    request: usize,
    /// Prompt tokens processed.
    prompt_done: usize,
    /// Tokens generated.
    generated: usize,
}

/// Requests that are not in a slot yet: those that may start, by their time, and those that wait for
/// the end of another one.
struct Queue<'a> {
    requests: &'a [Request],
    /// When, and which.
    due: BinaryHeap<Reverse<(u64, usize)>>,
    /// The requests that wait for each one.
    followers: Vec<Vec<usize>>,
}

impl<'a> Queue<'a> {
    fn new(requests: &'a [Request]) -> anyhow::Result<Self> {
        let mut queue =
            Self { requests, due: BinaryHeap::new(), followers: vec![Vec::new(); requests.len()] };
        for (i, request) in requests.iter().enumerate() {
            match request.after.map(|before| before as usize) {
                None => queue.due.push(Reverse((request.start_ns, i))),
                Some(before) if before < i => queue.followers[before].push(i),
                Some(before) => {
                    bail!("request {i} waits for request {before}, which is not before it")
                }
            }
        }
        Ok(queue)
    }

    /// The next request that is due at `now`, and since when. One that is due after its latest start
    /// is left out, and ends those that would follow it.
    fn pop(&mut self, now: u64, sinks: &mut [TokenSink]) -> Option<(usize, u64)> {
        loop {
            let Reverse((at, i)) = *self.due.peek()?;
            if self.requests[i].latest_ns.is_some_and(|latest| at > latest) {
                self.due.pop();
                sinks[i].left_out();
                self.ended(i, at);
            } else if at > now {
                return None;
            } else {
                self.due.pop();
                return Some((i, at));
            }
        }
    }

    /// Request `i` ended at `end`: those that waited for it are due after their pause.
    fn ended(&mut self, i: usize, end: u64) {
        for follower in std::mem::take(&mut self.followers[i]) {
            let request = &self.requests[follower];
            let due = request.start_ns.max(end.saturating_add(request.think_ns));
            self.due.push(Reverse((due, follower)));
        }
    }
}

/// Runs the requests to their end, for [`super::Runner::generate`]. Under continuous batching each
/// step takes one token of every generating sequence, then as much of the waiting prompts as the
/// batch has room for; in lockstep no sequence generates before all prompts are done. A request is
/// the engine's from the moment at which it is due: the wait for a free slot is part of its time to
/// first token, as it is behind a server. The first `slots` requests that are due at once take the
/// slots that [`prepare`] filled.
pub fn generate(
    engine: &mut impl Stepper,
    requests: &[Request],
    schedule: Schedule,
    sinks: &mut [TokenSink],
) -> anyhow::Result<()> {
    let slots = engine.slots();
    let most = engine.batch_tokens();
    let mut active: Vec<Option<Active>> = (0..slots).map(|_| None).collect();
    let mut used = vec![false; slots];
    let mut queue = Queue::new(requests)?;
    let mut chunks = Vec::with_capacity(slots);
    let mut taken = Vec::with_capacity(slots);
    loop {
        let now = sinks.first().map_or(0, TokenSink::now);
        for (slot, place) in active.iter_mut().enumerate() {
            if place.is_some() {
                continue;
            }
            let Some((request, due)) = queue.pop(now, sinks) else { break };
            if request != slot && !requests[request].context.is_empty() {
                return Err(anyhow::Error::new(Fault::Unsupported).context(
                    "a depth in the cache of a request that starts later than the first ones",
                ));
            }
            if used[slot] || request != slot {
                engine.forget(slot as u32)?;
            }
            used[slot] = true;
            sinks[request].arrived(due);
            *place = Some(Active { request, prompt_done: 0, generated: 0 });
        }

        let prompts_wait = active.iter().flatten().any(|a| a.generated == 0);
        let generating_waits = schedule == Schedule::Lockstep && prompts_wait;
        let mut room = most;
        chunks.clear();
        taken.clear();
        for generating in [true, false] {
            if generating && generating_waits {
                continue;
            }
            for (slot, place) in active.iter().enumerate() {
                let Some(sequence) = place else { continue };
                let request = &requests[sequence.request];
                if (sequence.generated > 0) != generating || room == 0 {
                    continue;
                }
                let depth = request.context.len();
                let (tokens, position) = if generating {
                    let last = sequence.generated - 1;
                    (&request.output[last..=last], depth + request.prompt.len() + last)
                } else {
                    let rest = &request.prompt[sequence.prompt_done..];
                    (&rest[..rest.len().min(room)], depth + sequence.prompt_done)
                };
                let logits =
                    generating || sequence.prompt_done + tokens.len() == request.prompt.len();
                room -= tokens.len();
                let position = position as u32;
                chunks.push(Chunk { sequence: slot as u32, position, tokens, logits });
                taken.push(slot);
            }
        }
        if chunks.is_empty() {
            let Some(Reverse((due, next))) = queue.due.peek().copied() else { return Ok(()) };
            let wait = due.saturating_sub(sinks[next].now());
            std::thread::sleep(std::time::Duration::from_nanos(wait));
            continue;
        }
        engine.step(&chunks)?;
        for (chunk, &slot) in chunks.iter().zip(&taken) {
            let Some(sequence) = &mut active[slot] else { continue };
            let request = &requests[sequence.request];
            if sequence.generated == 0 {
                sequence.prompt_done += chunk.tokens.len();
            }
            if chunk.logits {
                sequence.generated += 1;
                sinks[sequence.request].token();
            }
            if sequence.prompt_done == request.prompt.len()
                && sequence.generated >= request.output.len()
            {
                let ended = sequence.request;
                active[slot] = None;
                let end = sinks[ended].last().unwrap_or(0);
                queue.ended(ended, end);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::super::protocol::Sample;
    use super::*;

    /// An engine that writes down what it was asked to compute.
    struct Notebook {
        slots: usize,
        batch_tokens: usize,
        /// For each step, each chunk's sequence, position, number of tokens and wish for logits.
        steps: Vec<Vec<(u32, u32, usize, bool)>>,
        cached: Vec<u32>,
    }

    impl Notebook {
        fn new(slots: usize, batch_tokens: usize) -> Self {
            Self { slots, batch_tokens, steps: Vec::new(), cached: vec![0; slots] }
        }
    }

    impl Stepper for Notebook {
        fn batch_tokens(&self) -> usize {
            self.batch_tokens
        }

        fn slots(&self) -> usize {
            self.slots
        }

        fn forget(&mut self, sequence: u32) -> anyhow::Result<()> {
            self.cached[sequence as usize] = 0;
            Ok(())
        }

        fn step(&mut self, chunks: &[Chunk<'_>]) -> anyhow::Result<()> {
            let total: usize = chunks.iter().map(|c| c.tokens.len()).sum();
            assert!(total <= self.batch_tokens, "{total} tokens in one step");
            for chunk in chunks {
                let cached = &mut self.cached[chunk.sequence as usize];
                assert_eq!(chunk.position, *cached, "a gap in sequence {}", chunk.sequence);
                *cached += chunk.tokens.len() as u32;
            }
            self.steps.push(
                chunks.iter().map(|c| (c.sequence, c.position, c.tokens.len(), c.logits)).collect(),
            );
            Ok(())
        }
    }

    fn request(context: usize, prompt: usize, output: usize) -> Request {
        Request {
            context: vec![1; context],
            prompt: vec![2; prompt],
            output: vec![3; output],
            ..Request::default()
        }
    }

    fn run(engine: &mut Notebook, requests: &[Request], schedule: Schedule) -> Vec<usize> {
        let epoch = Instant::now();
        let mut sinks: Vec<_> =
            requests.iter().map(|r| TokenSink::new(epoch, r.output.len())).collect();
        prepare(engine, requests).unwrap();
        engine.steps.clear();
        generate(engine, requests, schedule, &mut sinks).unwrap();
        sinks.iter().map(TokenSink::len).collect()
    }

    #[test]
    fn one_stream_is_its_prompt_and_then_a_token_at_a_time() {
        let mut engine = Notebook::new(1, 8);
        let tokens = run(&mut engine, &[request(5, 10, 3)], Schedule::Lockstep);
        assert_eq!(tokens, [3]);
        let expected = [(0, 5, 8, false), (0, 13, 2, true), (0, 15, 1, true), (0, 16, 1, true)];
        let steps: Vec<_> = engine.steps.iter().map(|s| s[0]).collect();
        assert_eq!(steps, expected);
    }

    #[test]
    fn in_lockstep_nothing_is_generated_before_all_prompts_are_done() {
        let mut engine = Notebook::new(3, 8);
        let requests = [request(0, 6, 2), request(0, 6, 2), request(0, 6, 2)];
        assert_eq!(run(&mut engine, &requests, Schedule::Lockstep), [2, 2, 2]);
        // Sequence 0's prompt ends in the first step; its second token waits for the others.
        assert_eq!(engine.steps.len(), 4);
        assert_eq!(engine.steps[3], [(0, 6, 1, true), (1, 6, 1, true), (2, 6, 1, true)]);
    }

    #[test]
    fn continuous_batching_generates_while_prompts_come_in_and_uses_slots_again() {
        let mut engine = Notebook::new(2, 8);
        let requests = [request(0, 6, 3), request(0, 6, 1), request(0, 2, 2)];
        assert_eq!(run(&mut engine, &requests, Schedule::Continuous), [3, 1, 2]);
        assert_eq!(engine.steps[1], [(0, 6, 1, true), (1, 2, 4, true)]);
        assert_eq!(engine.steps[2], [(0, 7, 1, true), (1, 0, 2, true)]);
    }

    /// What [`generate`] stamped, with an engine whose steps take a millisecond each.
    fn samples(slots: usize, requests: &[Request]) -> Vec<Sample> {
        struct Slow(Notebook);
        impl Stepper for Slow {
            fn batch_tokens(&self) -> usize {
                self.0.batch_tokens()
            }
            fn slots(&self) -> usize {
                self.0.slots()
            }
            fn forget(&mut self, sequence: u32) -> anyhow::Result<()> {
                self.0.forget(sequence)
            }
            fn step(&mut self, chunks: &[Chunk<'_>]) -> anyhow::Result<()> {
                std::thread::sleep(Duration::from_millis(1));
                self.0.step(chunks)
            }
        }
        let mut engine = Slow(Notebook::new(slots, 64));
        let epoch = Instant::now();
        let mut sinks: Vec<_> =
            requests.iter().map(|r| TokenSink::new(epoch, r.output.len())).collect();
        generate(&mut engine, requests, Schedule::Continuous, &mut sinks).unwrap();
        sinks.into_iter().zip(requests).map(|(sink, r)| sink.into_sample(r)).collect()
    }

    fn end(sample: &Sample) -> u64 {
        *sample.token_ns.last().unwrap()
    }

    #[test]
    fn a_user_asks_again_after_the_answer_and_a_pause() {
        let think = 20_000_000;
        let again = Request { after: Some(0), think_ns: think, ..request(0, 4, 3) };
        let samples = samples(2, &[request(0, 4, 3), request(0, 4, 30), again]);
        assert_eq!(samples[2].intended_ns, end(&samples[0]) + think);
        assert_eq!(samples[2].sent_ns, samples[2].intended_ns);
        assert!(samples[2].token_ns[0] > samples[2].sent_ns);
    }

    #[test]
    fn the_wait_for_a_slot_is_part_of_the_time_to_first_token() {
        let second = Request { start_ns: 2_000_000, ..request(0, 4, 2) };
        let samples = samples(1, &[request(0, 4, 20), second]);
        assert_eq!(samples[1].sent_ns, 2_000_000, "it was there before a slot was free");
        assert!(samples[1].token_ns[0] > end(&samples[0]));
    }

    #[test]
    fn what_is_due_after_the_time_is_over_is_left_out_with_all_that_follows_it() {
        let limit = Some(5_000_000);
        let follow = |before| Request {
            after: Some(before),
            think_ns: 3_600_000_000_000,
            latest_ns: limit,
            ..request(0, 4, 2)
        };
        let samples = samples(1, &[request(0, 4, 2), follow(0), follow(1)]);
        assert!(!samples[0].is_left_out());
        assert!(samples[1].is_left_out() && samples[2].is_left_out());
    }
}
