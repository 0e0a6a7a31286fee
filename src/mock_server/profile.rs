//! How a mock server behaves, written in the first part of its URL's path, and what a perfect
//! client would measure of it.

use std::str::FromStr;

use anyhow::{Context, bail};

/// The behaviour of a mock server: `ttft_ms=200,tpot_ms=10,chunk=4,role-first`.
#[derive(Clone, Debug, PartialEq)]
pub struct Profile {
    /// Time to the first token, in milliseconds.
    pub ttft_ms: f64,
    /// Time for each further token, in milliseconds.
    pub tpot_ms: f64,
    /// Tokens in each event.
    pub chunk: u32,
    /// Send an event without a token at once: the role, or the start of a message.
    pub role_first: bool,
    /// How many of the first tokens are reasoning.
    pub reasoning: u32,
    /// The field that holds reasoning: `reasoning` or `reasoning_content`.
    pub reasoning_field: String,
    /// Send tokens as tool calls.
    pub tools: bool,
    /// When the number of tokens is told.
    pub usage: UsageWhen,
    /// Send token ids with each event.
    pub ids: bool,
    /// The slot that llama-server says it computed the answer in.
    pub slot: u32,
    /// Milliseconds between the last token and the end of the stream.
    pub done_ms: f64,
    /// The token (counted from zero) before which the stream stalls, and for how long.
    pub stall_at: u32,
    /// Milliseconds of the stall.
    pub stall_ms: f64,
    /// Milliseconds between keep-alive comments while the first token is waited for; 0 is none.
    pub comment_ms: f64,
    /// Write in pieces of so many bytes; 0 is whole events.
    pub split: usize,
    /// Lines end in `\r\n`.
    pub crlf: bool,
    /// Tokens are texts of several bytes a character.
    pub wide: bool,
    /// What goes wrong.
    pub fail: Option<Failure>,
    /// The token (counted from zero) before which it goes wrong.
    pub fail_at: u32,
}

/// When the number of tokens is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UsageWhen {
    /// Never.
    Never,
    /// At the end.
    End,
    /// In each event, counted up to it.
    Running,
}

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// An error event in mid-stream.
    StreamError,
    /// The connection ends in mid-stream.
    Disconnect,
    /// An event that is no JSON.
    BadJson,
    /// An event that is no UTF-8.
    BadUtf8,
    /// Bytes without an end of line.
    EndlessLine,
    /// Nothing comes after the tokens before.
    Silent,
    /// The stream ends properly with too few tokens.
    EarlyEnd,
    /// A page for people instead of a stream.
    Html,
    /// 400 with a body that repeats the request's key.
    BadRequest,
    /// 404: no such model.
    NotFound,
    /// 429 with `Retry-After`.
    RateLimited,
    /// 500 with a body of 100 KiB.
    ServerError,
    /// The connection ends before any answer.
    NoAnswer,
}

impl Default for Profile {
    fn default() -> Self {
        Self {
            ttft_ms: 100.0,
            tpot_ms: 10.0,
            chunk: 1,
            role_first: false,
            reasoning: 0,
            reasoning_field: "reasoning_content".to_owned(),
            tools: false,
            usage: UsageWhen::End,
            ids: false,
            slot: 0,
            done_ms: 0.0,
            stall_at: 0,
            stall_ms: 0.0,
            comment_ms: 0.0,
            split: 0,
            crlf: false,
            wide: false,
            fail: None,
            fail_at: 0,
        }
    }
}

/// Names and meanings of [`Failure`], for the parser and for `--help`.
pub const FAILURES: [(&str, Failure); 13] = [
    ("stream-error", Failure::StreamError),
    ("disconnect", Failure::Disconnect),
    ("bad-json", Failure::BadJson),
    ("bad-utf8", Failure::BadUtf8),
    ("endless-line", Failure::EndlessLine),
    ("silent", Failure::Silent),
    ("early-end", Failure::EarlyEnd),
    ("html", Failure::Html),
    ("bad-request", Failure::BadRequest),
    ("not-found", Failure::NotFound),
    ("rate-limited", Failure::RateLimited),
    ("server-error", Failure::ServerError),
    ("no-answer", Failure::NoAnswer),
];

impl FromStr for Profile {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let mut profile = Self::default();
        for word in text.split(',').filter(|word| !word.is_empty()) {
            let (key, value) = word.split_once('=').unwrap_or((word, ""));
            let number = || {
                let number: f64 =
                    value.parse().with_context(|| format!("{key}: '{value}' is no number"))?;
                // A day is beyond any test, and its nanoseconds fit.
                if !(0.0..=86_400_000.0).contains(&number) {
                    bail!("{key}: '{value}' is not between 0 and 86400000");
                }
                Ok(number)
            };
            let whole = || number().map(|number| number as u32);
            match key {
                "ttft_ms" => profile.ttft_ms = number()?,
                "tpot_ms" => profile.tpot_ms = number()?,
                "chunk" => profile.chunk = whole()?.max(1),
                "role-first" => profile.role_first = true,
                "reasoning" => profile.reasoning = whole()?,
                "reasoning_field" => value.clone_into(&mut profile.reasoning_field),
                "tools" => profile.tools = true,
                "usage" => {
                    profile.usage = match value {
                        "never" => UsageWhen::Never,
                        "end" => UsageWhen::End,
                        "running" => UsageWhen::Running,
                        _ => bail!("usage: '{value}' is not one of never, end, running"),
                    }
                }
                "ids" => profile.ids = true,
                "slot" => profile.slot = whole()?,
                "done_ms" => profile.done_ms = number()?,
                "stall_at" => profile.stall_at = whole()?,
                "stall_ms" => profile.stall_ms = number()?,
                "comment_ms" => profile.comment_ms = number()?,
                "split" => profile.split = whole()? as usize,
                "crlf" => profile.crlf = true,
                "wide" => profile.wide = true,
                "fail" => {
                    let known = FAILURES.iter().find(|(name, _)| *name == value);
                    let names: Vec<_> = FAILURES.iter().map(|(name, _)| *name).collect();
                    profile.fail = Some(known.map(|(_, failure)| *failure).with_context(|| {
                        format!("fail: '{value}' is not one of {}", names.join(", "))
                    })?);
                }
                "fail_at" => profile.fail_at = whole()?,
                _ => bail!("unknown word '{key}' in the mock server's profile '{text}'"),
            }
        }
        Ok(profile)
    }
}

/// What a perfect client would see of one generation, in nanoseconds after the request.
#[derive(Clone, Debug, PartialEq)]
pub struct Truth {
    /// The token-bearing events: when, and how many tokens.
    pub events: Vec<(u64, u32)>,
    /// The first event with visible content.
    pub first_visible_ns: Option<u64>,
    /// The end of the stream.
    pub closed_ns: u64,
}

fn ns(ms: f64) -> u64 {
    (ms * 1e6).round() as u64
}

impl Profile {
    /// When event `j` of a generation of `tokens` tokens is due: its first token and its length.
    /// The first event comes at the time to the first token, however many tokens it brings.
    pub fn event(&self, j: u32, tokens: u32) -> (u64, u32, u32) {
        let start = j * self.chunk;
        let length = self.chunk.min(tokens - start);
        let after_first = (start + length).saturating_sub(self.chunk.min(tokens));
        let mut at = self.ttft_ms + self.tpot_ms * f64::from(after_first);
        if self.stall_ms > 0.0 && start >= self.stall_at {
            at += self.stall_ms;
        }
        (ns(at), start, length)
    }

    /// The number of events of a generation.
    pub fn events(&self, tokens: u32) -> u32 {
        tokens.div_ceil(self.chunk)
    }

    /// When the stream of `tokens` tokens ends.
    pub fn end_ns(&self, tokens: u32) -> u64 {
        let last = self.events(tokens).saturating_sub(1);
        self.event(last, tokens).0 + ns(self.done_ms)
    }

    /// Whether the event that starts with token `start` is reasoning.
    pub fn is_reasoning(&self, start: u32) -> bool {
        start < self.reasoning
    }

    /// What a perfect client would see of a whole generation of `tokens` tokens.
    pub fn truth(&self, tokens: u32) -> Truth {
        let events: Vec<_> = (0..self.events(tokens)).map(|j| self.event(j, tokens)).collect();
        let visible = events.iter().find(|(_, start, _)| !self.tools && !self.is_reasoning(*start));
        Truth {
            first_visible_ns: visible.map(|(at, ..)| *at),
            closed_ns: self.end_ns(tokens),
            events: events.into_iter().map(|(at, _, length)| (at, length)).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_per_token_is_exact_whatever_the_chunk() {
        for chunk in [1, 3, 4, 7] {
            let profile = Profile { chunk, tpot_ms: 10.0, ..Profile::default() };
            let truth = profile.truth(50);
            let tokens: u32 = truth.events.iter().map(|event| event.1).sum();
            let (first, last) = (truth.events[0], truth.events[truth.events.len() - 1]);
            assert_eq!(tokens, 50);
            assert_eq!((last.0 - first.0) / u64::from(50 - first.1), 10_000_000, "chunk {chunk}");
        }
    }

    #[test]
    fn words_are_read_and_unknown_ones_refused() {
        let profile: Profile = "ttft_ms=5,chunk=4,role-first,fail=html".parse().unwrap();
        assert_eq!((profile.ttft_ms, profile.chunk, profile.role_first), (5.0, 4, true));
        assert_eq!(profile.fail, Some(Failure::Html));
        for wrong in ["tfft_ms=5", "fail=fire", "usage=often", "ttft_ms=-1", "ttft_ms=NaN"] {
            assert!(wrong.parse::<Profile>().is_err(), "{wrong}");
        }
    }
}
