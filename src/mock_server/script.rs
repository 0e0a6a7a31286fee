//! What a mock server writes, and when: the streams of the servers that this project measures,
//! for any profile. Pure.

use std::fmt::Write;

use serde_json::{Value, json};

use super::profile::{Failure, Profile, UsageWhen};

/// A server's way of streaming, known by its endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// `/v1/completions`
    Completions,
    /// `/v1/chat/completions`
    Chat,
    /// `/completion`: llama-server's own
    LlamaServer,
    /// `/api/generate`: Ollama's own, newline-delimited
    Ollama,
    /// `/api/v0/completions`: LM Studio's, with statistics
    LmStudioV0,
    /// `/api/v1/chat`: LM Studio's own
    LmStudioV1,
    /// `/v1/messages`: Anthropic's
    Anthropic,
}

impl Dialect {
    /// The dialect of an endpoint.
    pub fn of(path: &str) -> Option<Self> {
        Some(match path {
            "/v1/completions" => Self::Completions,
            "/v1/chat/completions" => Self::Chat,
            "/completion" => Self::LlamaServer,
            "/api/generate" => Self::Ollama,
            "/api/v0/completions" => Self::LmStudioV0,
            "/api/v1/chat" => Self::LmStudioV1,
            "/v1/messages" => Self::Anthropic,
            _ => return None,
        })
    }
}

/// Bytes that are due at a time after the request was read.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// When, in nanoseconds.
    pub at_ns: u64,
    /// What; without the framing of HTTP.
    pub bytes: Vec<u8>,
    /// What follows.
    pub then: Then,
}

/// What follows a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// The next step.
    Go,
    /// The end of the response; the connection stays.
    End,
    /// The connection is cut.
    Cut,
    /// Nothing, for ever.
    Hang,
    /// The same bytes again and again.
    Repeat,
}

/// A response in the making: each call of [`Script::next_step`] gives its next step.
#[derive(Clone, Debug)]
pub struct Script {
    profile: Profile,
    dialect: Dialect,
    prompt_tokens: u32,
    /// Tokens to stream, and tokens that were asked for.
    tokens: u32,
    stage: Stage,
    /// Bytes of an event of a full chunk, which are the same for each.
    template: Option<Vec<u8>>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Stage {
    Prelude,
    Comment(u32),
    Event(u32),
    Usage,
    Close,
    Over,
}

impl Script {
    /// The response to a request with this JSON body.
    pub fn new(profile: Profile, dialect: Dialect, body: &Value) -> Self {
        let count = |value: &Value| match value {
            Value::Array(ids) => ids.len(),
            Value::String(text) => text.split_whitespace().count(),
            _ => 0,
        };
        let prompt = [body.get("prompt"), body.get("input"), body.pointer("/messages/0/content")];
        let prompt_tokens = prompt.into_iter().flatten().map(count).next().unwrap_or(0) as u32;
        let names = [
            "/max_tokens",
            "/max_completion_tokens",
            "/n_predict",
            "/options/num_predict",
            "/max_output_tokens",
        ];
        let asked = names.iter().find_map(|name| body.pointer(name)?.as_u64()).unwrap_or(16);
        let mut tokens = asked.min(10_000_000) as u32;
        if profile.fail == Some(Failure::EarlyEnd) {
            tokens = tokens.min(profile.fail_at);
        }
        Self { profile, dialect, prompt_tokens, tokens, stage: Stage::Prelude, template: None }
    }

    /// How it behaves.
    pub fn profile(&self) -> &Profile {
        &self.profile
    }

    /// Tokens that it streams.
    pub fn tokens(&self) -> u32 {
        self.tokens
    }

    /// The next step of the response.
    pub fn next_step(&mut self) -> Option<Step> {
        loop {
            match self.stage {
                Stage::Prelude => {
                    self.stage = Stage::Comment(1);
                    let bytes = self.prelude();
                    if !bytes.is_empty() {
                        return Some(Step { at_ns: 1_000_000, bytes, then: Then::Go });
                    }
                }
                Stage::Comment(n) => {
                    let at_ms = f64::from(n) * self.profile.comment_ms;
                    if self.profile.comment_ms > 0.0 && at_ms < self.profile.ttft_ms {
                        self.stage = Stage::Comment(n + 1);
                        let bytes = format!(": keep-alive{0}{0}", self.line_end()).into_bytes();
                        return Some(Step { at_ns: (at_ms * 1e6) as u64, bytes, then: Then::Go });
                    }
                    self.stage = if self.tokens == 0 { Stage::Usage } else { Stage::Event(0) };
                }
                Stage::Event(j) => {
                    let (at_ns, start, length) = self.profile.event(j, self.tokens);
                    if let Some(step) = self.failure(at_ns, start) {
                        self.stage = Stage::Over;
                        return Some(step);
                    }
                    let last = start + length >= self.tokens;
                    self.stage = if last { Stage::Usage } else { Stage::Event(j + 1) };
                    let bytes = self.event(start, length, last);
                    return Some(Step { at_ns, bytes, then: Then::Go });
                }
                Stage::Usage => {
                    self.stage = Stage::Close;
                    let bytes = self.epilogue();
                    let at_ns = self.profile.end_ns(self.tokens);
                    return Some(Step { at_ns, bytes, then: Then::End });
                }
                Stage::Close | Stage::Over => return None,
            }
        }
    }

    /// What goes wrong before the event that starts with token `start`.
    fn failure(&self, at_ns: u64, start: u32) -> Option<Step> {
        let failure = self.profile.fail.filter(|_| start >= self.profile.fail_at)?;
        let error = json!({"error": {"message": "the mock was told to fail", "code": 500}});
        let (bytes, then) = match failure {
            Failure::StreamError => (self.framed(&error, None), Then::End),
            Failure::Disconnect => (Vec::new(), Then::Cut),
            Failure::BadJson => (self.raw(b"{\"choices\": [{\"text\": }"), Then::End),
            Failure::BadUtf8 => {
                (self.raw(b"{\"response\": \"\xFF\xFE\", \"content\": \"\xFF\"}"), Then::End)
            }
            Failure::EndlessLine => (vec![b'x'; 65_536], Then::Repeat),
            Failure::Silent => (Vec::new(), Then::Hang),
            Failure::Html => (b"<html><body>502 Bad Gateway</body></html>\n".to_vec(), Then::End),
            _ => return None,
        };
        Some(Step { at_ns, bytes, then })
    }

    fn line_end(&self) -> &'static str {
        if self.profile.crlf { "\r\n" } else { "\n" }
    }

    /// A JSON object as an event of this dialect.
    fn framed(&self, value: &Value, name: Option<&str>) -> Vec<u8> {
        let mut bytes = Vec::new();
        if let (Some(name), false) = (name, self.dialect == Dialect::Ollama) {
            bytes.extend_from_slice(format!("event: {name}{}", self.line_end()).as_bytes());
        }
        bytes.extend(self.raw(value.to_string().as_bytes()));
        bytes
    }

    fn raw(&self, payload: &[u8]) -> Vec<u8> {
        let end = self.line_end().as_bytes();
        if self.dialect == Dialect::Ollama {
            return [payload, end].concat();
        }
        [b"data: ", payload, end, end].concat()
    }

    fn usage(&self, generated: u32) -> Value {
        let mut usage = json!({
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": generated,
            "total_tokens": self.prompt_tokens + generated,
            "prompt_tokens_details": {"cached_tokens": 0},
        });
        if self.profile.reasoning > 0 {
            let reasoning = self.profile.reasoning.min(generated);
            usage["completion_tokens_details"] = json!({"reasoning_tokens": reasoning});
        }
        usage
    }

    /// What comes before the first token.
    fn prelude(&self) -> Vec<u8> {
        match self.dialect {
            Dialect::Chat if self.profile.role_first => {
                let delta = json!({"role": "assistant", "content": ""});
                let choice = json!({"index": 0, "delta": delta, "finish_reason": null});
                self.framed(&json!({"object": "chat.completion.chunk", "choices": [choice]}), None)
            }
            Dialect::Anthropic => {
                let usage = json!({"input_tokens": self.prompt_tokens, "output_tokens": 1});
                let message = json!({"role": "assistant", "content": [], "usage": usage});
                let start = json!({"type": "message_start", "message": message});
                let block = json!({"type": "text", "text": ""});
                let block =
                    json!({"type": "content_block_start", "index": 0, "content_block": block});
                let ping = json!({"type": "ping"});
                [(start, "message_start"), (block, "content_block_start"), (ping, "ping")]
                    .iter()
                    .flat_map(|(value, name)| self.framed(value, Some(name)))
                    .collect()
            }
            Dialect::LmStudioV1 => ["chat.start", "prompt_processing.start", "message.start"]
                .iter()
                .flat_map(|name| self.framed(&json!({"type": name}), Some(name)))
                .collect(),
            _ => Vec::new(),
        }
    }

    /// The event of tokens `start..start + length`.
    fn event(&mut self, start: u32, length: u32, last: bool) -> Vec<u8> {
        let same = length == self.profile.chunk
            && !last
            && self.profile.usage != UsageWhen::Running
            && !self.profile.ids
            && self.dialect != Dialect::LlamaServer
            && start >= self.profile.reasoning;
        if let (true, Some(template)) = (same, &self.template) {
            return template.clone();
        }
        let bytes = self.render(start, length, last);
        if same {
            self.template = Some(bytes.clone());
        }
        bytes
    }

    fn render(&self, start: u32, length: u32, last: bool) -> Vec<u8> {
        let word = if self.profile.wide { " 時間é" } else { " time" };
        let text = word.repeat(length as usize);
        let reasoning = self.profile.is_reasoning(start);
        let ids: Vec<u32> = (start..start + length).collect();
        let finish = if last { json!("length") } else { Value::Null };
        let (mut value, name) = match self.dialect {
            Dialect::Completions | Dialect::LmStudioV0 => {
                let mut choice = json!({"index": 0, "text": text, "finish_reason": finish});
                if self.profile.ids {
                    choice["token_ids"] = json!(ids);
                }
                (json!({"object": "text_completion", "choices": [choice]}), None)
            }
            Dialect::Chat => {
                let delta = if self.profile.tools {
                    let function = json!({"arguments": text});
                    json!({"tool_calls": [{"index": 0, "function": function}]})
                } else if reasoning {
                    let mut delta = json!({});
                    delta[&self.profile.reasoning_field] = json!(text);
                    delta
                } else {
                    json!({"content": text})
                };
                let mut choice = json!({"index": 0, "delta": delta, "finish_reason": finish});
                if self.profile.ids {
                    choice["token_ids"] = json!(ids);
                }
                (json!({"object": "chat.completion.chunk", "choices": [choice]}), None)
            }
            Dialect::LlamaServer => {
                let value = json!({
                    // Only the last event says which slot.
                    "index": 0, "content": text, "tokens": ids, "stop": false, "id_slot": -1,
                });
                (value, None)
            }
            Dialect::Ollama => {
                let field = if reasoning { "thinking" } else { "response" };
                let mut value = json!({"model": "mock", "response": "", "done": false});
                value[field] = json!(text);
                (value, None)
            }
            Dialect::LmStudioV1 => {
                let name = if reasoning { "reasoning.delta" } else { "message.delta" };
                (json!({"type": name, "content": text}), Some(name))
            }
            Dialect::Anthropic => {
                let delta = if self.profile.tools {
                    json!({"type": "input_json_delta", "partial_json": text})
                } else if reasoning {
                    json!({"type": "thinking_delta", "thinking": text})
                } else {
                    json!({"type": "text_delta", "text": text})
                };
                let name = "content_block_delta";
                (json!({"type": name, "index": 0, "delta": delta}), Some(name))
            }
        };
        if self.profile.usage == UsageWhen::Running {
            value["usage"] = self.usage(start + length);
        }
        self.framed(&value, name)
    }

    /// What comes after the last token.
    fn epilogue(&self) -> Vec<u8> {
        let p = &self.profile;
        let (prompt, tokens) = (self.prompt_tokens, self.tokens);
        let tells = p.usage != UsageWhen::Never;
        let decode_ms = p.tpot_ms * f64::from(tokens.saturating_sub(1));
        let mut bytes = Vec::new();
        match self.dialect {
            Dialect::Completions | Dialect::Chat => {
                if tells {
                    let usage = json!({"choices": [], "usage": self.usage(tokens)});
                    bytes.extend(self.framed(&usage, None));
                }
                bytes.extend(self.raw(b"[DONE]"));
            }
            Dialect::LmStudioV0 => {
                let stats = json!({
                    "tokens_per_second": 51.4,
                    "time_to_first_token": p.ttft_ms / 1e3,
                    "generation_time": decode_ms / 1e3,
                    "stop_reason": "maxPredictedTokensReached",
                });
                let last = json!({"choices": [], "usage": self.usage(tokens), "stats": stats});
                bytes.extend(self.framed(&last, None));
                bytes.extend(self.raw(b"[DONE]"));
            }
            Dialect::LlamaServer => {
                let timings = json!({
                    "cache_n": 0, "prompt_n": prompt, "prompt_ms": p.ttft_ms,
                    "predicted_n": tokens, "predicted_ms": decode_ms,
                });
                let last = json!({
                    "content": "", "tokens": [], "stop": true, "stop_type": "limit",
                    "tokens_predicted": tokens, "tokens_evaluated": prompt, "timings": timings,
                    "id_slot": p.slot,
                });
                bytes.extend(self.framed(&last, None));
            }
            Dialect::Ollama => {
                let last = json!({
                    "model": "mock", "response": "", "done": true, "done_reason": "length",
                    "load_duration": 1_000_000, "prompt_eval_count": prompt,
                    "prompt_eval_duration": (p.ttft_ms * 1e6) as u64,
                    "eval_count": tokens, "eval_duration": (decode_ms * 1e6) as u64,
                });
                bytes.extend(self.framed(&last, None));
            }
            Dialect::LmStudioV1 => {
                let stats = json!({
                    "input_tokens": prompt, "total_output_tokens": tokens,
                    "reasoning_output_tokens": p.reasoning, "tokens_per_second": 51.4,
                    "time_to_first_token_seconds": p.ttft_ms / 1e3,
                });
                let end = json!({"type": "message.end"});
                bytes.extend(self.framed(&end, Some("message.end")));
                let end = json!({"type": "chat.end", "result": {"stats": stats}});
                bytes.extend(self.framed(&end, Some("chat.end")));
            }
            Dialect::Anthropic => {
                let stop = json!({"type": "content_block_stop", "index": 0});
                bytes.extend(self.framed(&stop, Some("content_block_stop")));
                let usage = json!({"output_tokens": tokens});
                let delta = json!({"stop_reason": "max_tokens"});
                let delta = json!({"type": "message_delta", "delta": delta, "usage": usage});
                bytes.extend(self.framed(&delta, Some("message_delta")));
                let stop = json!({"type": "message_stop"});
                bytes.extend(self.framed(&stop, Some("message_stop")));
            }
        }
        bytes
    }
}

/// The head and body of a response that is no stream: status, further headers, body.
pub fn refusal(profile: &Profile, key: &str) -> Option<Vec<u8>> {
    let (status, header, body) = match profile.fail? {
        Failure::BadRequest => (
            "400 Bad Request",
            "",
            json!({"error": {"message": format!("invalid value; your key was {key}")}}).to_string(),
        ),
        Failure::NotFound => (
            "404 Not Found",
            "",
            json!({"error": {"message": "the model 'mock' does not exist"}}).to_string(),
        ),
        Failure::RateLimited => (
            "429 Too Many Requests",
            "Retry-After: 7\r\n",
            json!({"error": {"message": "slow down"}}).to_string(),
        ),
        Failure::ServerError => ("500 Internal Server Error", "", "internal ".repeat(11_000)),
        _ => return None,
    };
    let mut response = String::new();
    // Writing to a String cannot fail.
    let _ = write!(
        response,
        "HTTP/1.1 {status}\r\n{header}Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    Some(response.into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_keeps_to_the_profile() {
        let profile: Profile = "ttft_ms=50,tpot_ms=2,chunk=2".parse().unwrap();
        let body = json!({"prompt": [1, 2, 3], "max_tokens": 6});
        let mut script = Script::new(profile, Dialect::Completions, &body);
        let times: Vec<u64> =
            std::iter::from_fn(|| script.next_step()).map(|step| step.at_ns / 1_000_000).collect();
        assert_eq!(times, [50, 54, 58, 58]);
    }
}
