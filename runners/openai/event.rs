//! One event of a stream, in the words of any server that this project knows: their names do not
//! collide, so one reader serves all dialects.

use std::fmt;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// Whether a field holds something: a text, a list or an object that is not empty. The content
/// itself is not kept.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Filled(bool);

impl<'de> Deserialize<'de> for Filled {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(FilledVisitor)
    }
}

struct FilledVisitor;

impl<'de> Visitor<'de> for FilledVisitor {
    type Value = Filled;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }
    fn visit_str<E>(self, text: &str) -> Result<Filled, E> {
        Ok(Filled(!text.is_empty()))
    }
    fn visit_unit<E>(self) -> Result<Filled, E> {
        Ok(Filled(false))
    }
    fn visit_bool<E>(self, _: bool) -> Result<Filled, E> {
        Ok(Filled(false))
    }
    fn visit_i64<E>(self, _: i64) -> Result<Filled, E> {
        Ok(Filled(false))
    }
    fn visit_u64<E>(self, _: u64) -> Result<Filled, E> {
        Ok(Filled(false))
    }
    fn visit_f64<E>(self, _: f64) -> Result<Filled, E> {
        Ok(Filled(false))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Filled, A::Error> {
        let mut any = false;
        while seq.next_element::<IgnoredAny>()?.is_some() {
            any = true;
        }
        Ok(Filled(any))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Filled, A::Error> {
        let mut any = false;
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {
            any = true;
        }
        Ok(Filled(any))
    }
}

/// The length of a list, where a field is one.
#[derive(Clone, Copy, Debug, Default)]
struct Length(Option<u32>);

impl<'de> Deserialize<'de> for Length {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let list = Option::<Vec<IgnoredAny>>::deserialize(deserializer)?;
        Ok(Self(list.map(|list| list.len() as u32)))
    }
}

#[derive(Debug, Default, serde::Deserialize)]
#[serde(default)]
struct Delta {
    content: Filled,
    text: Filled,
    reasoning: Filled,
    reasoning_content: Filled,
    thinking: Filled,
    tool_calls: Filled,
    function_call: Filled,
    refusal: Filled,
    partial_json: Filled,
    stop_reason: Option<String>,
    usage: Option<Counts>,
}

#[derive(Debug, Default, serde::Deserialize)]
#[serde(default)]
struct Choice {
    text: Filled,
    delta: Option<Delta>,
    token_ids: Length,
    finish_reason: Option<String>,
}

#[derive(Clone, Debug, Default, serde::Deserialize)]
#[serde(default)]
struct Details {
    cached_tokens: Option<u32>,
    reasoning_tokens: Option<u32>,
}

#[derive(Clone, Debug, Default, serde::Deserialize)]
#[serde(default)]
struct Counts {
    prompt_tokens: Option<u32>,
    completion_tokens: Option<u32>,
    prompt_tokens_details: Option<Details>,
    completion_tokens_details: Option<Details>,
    prompt_cache_hit_tokens: Option<u32>,
    input_tokens: Option<u32>,
    output_tokens: Option<u32>,
    cache_read_input_tokens: Option<u32>,
    cache_creation_input_tokens: Option<u32>,
}

/// llama-server's own clock.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(default)]
struct Timings {
    cache_n: Option<u32>,
    prompt_n: Option<u32>,
    prompt_ms: Option<f64>,
    predicted_n: Option<u32>,
    predicted_ms: Option<f64>,
}

/// LM Studio's own clock: its native interface counts in seconds.
#[derive(Clone, Debug, Default, serde::Deserialize)]
#[serde(default)]
struct Stats {
    time_to_first_token: Option<f64>,
    time_to_first_token_seconds: Option<f64>,
    generation_time: Option<f64>,
    stop_reason: Option<String>,
    input_tokens: Option<u32>,
    total_output_tokens: Option<u32>,
    reasoning_output_tokens: Option<u32>,
    model_load_time_seconds: Option<f64>,
}

#[derive(Debug, Default, serde::Deserialize)]
#[serde(default)]
struct Outcome {
    stats: Option<Stats>,
}

/// One event; every field is one that some server uses.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(default)]
pub struct Event {
    r#type: Option<String>,
    choices: Vec<Choice>,
    usage: Option<Counts>,
    error: Option<serde_json::Value>,
    // Anthropic: `delta`, `message`; Ollama's chat: `message`
    delta: Option<Delta>,
    message: Option<Delta>,
    // llama-server's own endpoint
    content: Filled,
    tokens: Length,
    stop: Option<bool>,
    stop_type: Option<String>,
    id_slot: Option<i64>,
    timings: Option<Timings>,
    // Ollama, in nanoseconds
    response: Filled,
    thinking: Filled,
    done: Option<bool>,
    done_reason: Option<String>,
    prompt_eval_count: Option<u32>,
    prompt_eval_duration: Option<u64>,
    prompt_eval_cached_count: Option<u32>,
    eval_count: Option<u32>,
    eval_duration: Option<u64>,
    load_duration: Option<u64>,
    // LM Studio
    stats: Option<Stats>,
    result: Option<Outcome>,
}

/// What kinds of generated tokens an event brings.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Brings {
    /// Content for the reader.
    pub visible: bool,
    /// Reasoning.
    pub reasoning: bool,
    /// A tool call.
    pub tool: bool,
}

impl Brings {
    /// Whether it brings any token.
    pub fn any(self) -> bool {
        self.visible || self.reasoning || self.tool
    }
}

/// What a server says of a generation.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Usage {
    pub prompt_tokens: Option<u32>,
    pub cached_tokens: Option<u32>,
    pub output_tokens: Option<u32>,
    pub reasoning_tokens: Option<u32>,
    pub prompt_ns: Option<u64>,
    pub decode_ns: Option<u64>,
    pub ttft_ns: Option<u64>,
    pub load_ns: Option<u64>,
    pub slot: Option<u32>,
    /// Whether reasoning was streamed and not only counted.
    pub reasoning_seen: bool,
}

impl Usage {
    /// Takes over what `later` says.
    pub fn merge(&mut self, later: Self) {
        let Self { prompt_tokens, cached_tokens, output_tokens, reasoning_tokens, .. } = later;
        self.prompt_tokens = prompt_tokens.or(self.prompt_tokens);
        self.cached_tokens = cached_tokens.or(self.cached_tokens);
        self.output_tokens = output_tokens.or(self.output_tokens);
        self.reasoning_tokens = reasoning_tokens.or(self.reasoning_tokens);
        self.prompt_ns = later.prompt_ns.or(self.prompt_ns);
        self.decode_ns = later.decode_ns.or(self.decode_ns);
        self.ttft_ns = later.ttft_ns.or(self.ttft_ns);
        self.load_ns = later.load_ns.or(self.load_ns);
        self.slot = later.slot.or(self.slot);
        self.reasoning_seen |= later.reasoning_seen;
    }

    /// Generated tokens that were streamed: hidden reasoning is counted by the server, and never
    /// arrives.
    pub fn streamed_tokens(&self) -> Option<u32> {
        let hidden = if self.reasoning_seen { 0 } else { self.reasoning_tokens.unwrap_or(0) };
        self.output_tokens.map(|tokens| tokens.saturating_sub(hidden))
    }
}

impl Event {
    /// The kinds of tokens in this event.
    pub fn brings(&self) -> Brings {
        let kind = self.r#type.as_deref().unwrap_or_default();
        // LM Studio names the kind and puts every text into `content`.
        let reasoning_event = kind.starts_with("reasoning");
        let mut brings = Brings {
            visible: (self.content.0 && !reasoning_event) || self.response.0,
            reasoning: self.thinking.0 || (self.content.0 && reasoning_event),
            tool: false,
        };
        // Anthropic's `message_start` holds the empty message, its `message_delta` no text.
        let deltas = self.choices.iter().filter_map(|choice| choice.delta.as_ref());
        for delta in deltas.chain(self.delta.as_ref()).chain(self.message.as_ref()) {
            brings.visible |= delta.content.0 || delta.text.0 || delta.refusal.0;
            brings.reasoning |= delta.reasoning.0 || delta.reasoning_content.0 || delta.thinking.0;
            brings.tool |= delta.tool_calls.0 || delta.function_call.0 || delta.partial_json.0;
        }
        brings.visible |= self.choices.iter().any(|choice| choice.text.0);
        brings
    }

    /// Whether it is a piece of an answer in the words of OpenAI.
    pub fn is_choice(&self) -> bool {
        !self.choices.is_empty()
    }

    /// The number of token ids in this event.
    pub fn ids(&self) -> Option<u32> {
        let of_choice = self.choices.first().and_then(|choice| choice.token_ids.0);
        of_choice.or(self.tokens.0).filter(|&ids| ids > 0)
    }

    /// Whether the server says that nothing follows.
    pub fn ends(&self) -> bool {
        self.done == Some(true)
            || self.stop == Some(true)
            || matches!(self.r#type.as_deref(), Some("message_stop" | "chat.end"))
    }

    /// Why the generation ended, where this event says so.
    pub fn finish(&self) -> Option<String> {
        let of_choice = self.choices.first().and_then(|choice| choice.finish_reason.clone());
        let of_delta = self.delta.as_ref().and_then(|delta| delta.stop_reason.clone());
        let of_stats = self.own_stats().and_then(|stats| stats.stop_reason.clone());
        let of_stop = self.stop_type.clone().filter(|kind| kind != "none");
        of_choice.or(of_delta).or_else(|| self.done_reason.clone()).or(of_stop).or(of_stats)
    }

    /// The server's error, in its own words.
    pub fn error(&self) -> Option<String> {
        match self.error.as_ref()? {
            serde_json::Value::Null => None,
            serde_json::Value::String(text) => Some(text.clone()),
            other => {
                let message = other.get("message").and_then(|m| m.as_str()).map(str::to_owned);
                Some(message.unwrap_or_else(|| other.to_string()))
            }
        }
    }

    fn own_stats(&self) -> Option<&Stats> {
        self.stats.as_ref().or_else(|| self.result.as_ref()?.stats.as_ref())
    }

    /// What the server says of the generation so far.
    pub fn usage(&self) -> Usage {
        let mut usage = Usage {
            reasoning_seen: self.brings().reasoning,
            prompt_tokens: self.prompt_eval_count,
            cached_tokens: self.prompt_eval_cached_count,
            output_tokens: self.eval_count,
            prompt_ns: self.prompt_eval_duration,
            decode_ns: self.eval_duration,
            load_ns: self.load_duration,
            slot: self.id_slot.and_then(|slot| slot.try_into().ok()),
            ..Usage::default()
        };
        let of_message = self.message.as_ref().and_then(|message| message.usage.as_ref());
        for counts in of_message.into_iter().chain(&self.usage) {
            usage.merge(counts.usage());
        }
        if let Some(timings) = &self.timings {
            let cached = timings.cache_n;
            usage.merge(Usage {
                prompt_tokens: timings.prompt_n.map(|n| n + cached.unwrap_or(0)),
                cached_tokens: cached,
                output_tokens: timings.predicted_n,
                prompt_ns: timings.prompt_ms.map(|ms| (ms * 1e6) as u64),
                decode_ns: timings.predicted_ms.map(|ms| (ms * 1e6) as u64),
                ..Usage::default()
            });
        }
        if let Some(stats) = self.own_stats() {
            let ns = |seconds: f64| (seconds * 1e9) as u64;
            usage.merge(Usage {
                prompt_tokens: stats.input_tokens,
                output_tokens: stats.total_output_tokens,
                reasoning_tokens: stats.reasoning_output_tokens,
                ttft_ns: stats.time_to_first_token.or(stats.time_to_first_token_seconds).map(ns),
                decode_ns: stats.generation_time.map(ns),
                load_ns: stats.model_load_time_seconds.map(ns),
                ..Usage::default()
            });
        }
        usage
    }
}

impl Counts {
    fn usage(&self) -> Usage {
        let details = |details: &Option<Details>| details.clone().unwrap_or_default();
        let cached = details(&self.prompt_tokens_details).cached_tokens;
        let cached = cached.or(self.prompt_cache_hit_tokens).or(self.cache_read_input_tokens);
        // Anthropic counts cached tokens apart from `input_tokens`.
        let input = self.input_tokens.map(|tokens| {
            tokens
                + self.cache_read_input_tokens.unwrap_or(0)
                + self.cache_creation_input_tokens.unwrap_or(0)
        });
        Usage {
            prompt_tokens: self.prompt_tokens.or(input),
            cached_tokens: cached,
            output_tokens: self.completion_tokens.or(self.output_tokens),
            reasoning_tokens: details(&self.completion_tokens_details).reasoning_tokens,
            ..Usage::default()
        }
    }
}
