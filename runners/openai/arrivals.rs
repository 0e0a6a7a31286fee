//! The bytes of one response with the times at which they were read, and the events in them.

use bench::runner::protocol::{Counted, Served, ServedFault};

use crate::event::{Event, Usage};

/// A line without an end is given up here.
const LONGEST_LINE: usize = 1 << 20;

/// What is kept of one response before it is parsed.
pub const PARSE_AT: usize = 64 << 10;

/// What is wrong with a stream.
pub type Fault = (ServedFault, String);

/// One response as it comes: bytes now, meaning later, so that parsing one stream does not delay
/// the stamps of others.
#[derive(Debug, Default)]
pub struct Arrivals {
    /// The most tokens, and events, that are taken.
    most: usize,
    /// Token ids so far.
    ids: usize,
    raw: Vec<u8>,
    /// Ends of what was read (in `raw`), with their times.
    reads: Vec<(usize, u64)>,
    events: Vec<Seen>,
    /// Data lines of an event that is not over.
    pending: Vec<u8>,
    pending_ns: u64,
    done: bool,
    first_event_ns: Option<u64>,
    first_visible_ns: Option<u64>,
    usage: Usage,
    finish: Option<String>,
    count: usize,
}

/// An event that brought generated tokens.
#[derive(Clone, Copy, Debug)]
struct Seen {
    at_ns: u64,
    /// Token ids in it.
    ids: Option<u32>,
    /// The server's count of generated tokens up to it.
    total: Option<u32>,
}

impl Arrivals {
    /// For a response of `asked` tokens. A few times as many may come, from a server that ignores
    /// the limit; of an endless one nothing is to fill the memory.
    pub fn new(asked: usize) -> Self {
        Self { most: 4 * asked + 1000, ..Self::default() }
    }

    /// Takes bytes that were read at `at_ns`. They are parsed when they have become many.
    pub fn push(&mut self, bytes: &[u8], at_ns: u64) -> Result<(), Fault> {
        self.raw.extend_from_slice(bytes);
        self.reads.push((self.raw.len(), at_ns));
        if self.raw.len() < PARSE_AT {
            return Ok(());
        }
        self.parse(false)
    }

    /// Whether the server has said that the stream is over, parsed or not.
    pub fn says_done(&self) -> bool {
        self.done || self.raw.trim_ascii_end().ends_with(b"data: [DONE]")
    }

    /// Bytes that wait to be parsed.
    pub fn unparsed(&self) -> usize {
        self.raw.len()
    }

    /// Events parsed so far.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Parses what has come; `last` where nothing follows.
    pub fn parse(&mut self, last: bool) -> Result<(), Fault> {
        let raw = std::mem::take(&mut self.raw);
        let reads = std::mem::take(&mut self.reads);
        let mut read = 0;
        let mut start = 0;
        let mut result = Ok(());
        while start < raw.len() {
            let (end, next) = match raw[start..].iter().position(|&b| b == b'\n') {
                Some(length) => (start + length, start + length + 1),
                None if last => (raw.len(), raw.len()),
                None => break,
            };
            while read + 1 < reads.len() && reads[read].0 < next {
                read += 1;
            }
            let line = raw[start..end].strip_suffix(b"\r").unwrap_or(&raw[start..end]);
            start = next;
            result = self.line(line, reads[read].1);
            if result.is_err() {
                break;
            }
        }
        if result.is_ok() && last {
            result = self.dispatch();
        }
        if result.is_ok() && raw.len() - start > LONGEST_LINE {
            result = Err((
                ServedFault::Malformed,
                format!("a line longer than {LONGEST_LINE} bytes: {}", quote(&raw[start..])),
            ));
        }
        self.raw = raw[start..].to_vec();
        self.reads = reads
            .into_iter()
            .filter(|&(end, _)| end > start)
            .map(|(end, at)| (end - start, at))
            .collect();
        result
    }

    /// One line of server-sent events, or of newline-delimited JSON: what it starts with tells.
    fn line(&mut self, line: &[u8], at_ns: u64) -> Result<(), Fault> {
        let line = line.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(line);
        match line.first() {
            None => self.dispatch(),
            Some(b':') => Ok(()),
            Some(b'{') => self.payload(line, at_ns),
            _ => {
                if let Some(data) = line.strip_prefix(b"data:") {
                    let data = data.strip_prefix(b" ").unwrap_or(data);
                    if !self.pending.is_empty() {
                        self.pending.push(b'\n');
                    }
                    if self.pending.len() + data.len() > LONGEST_LINE {
                        let words = format!("an event longer than {LONGEST_LINE} bytes");
                        return Err((ServedFault::Malformed, words));
                    }
                    self.pending.extend_from_slice(data);
                    self.pending_ns = at_ns;
                    return Ok(());
                }
                let field: &[u8] = line.split(|&b| b == b':').next().unwrap_or_default();
                if matches!(field, b"event" | b"id" | b"retry") {
                    return Ok(());
                }
                Err((ServedFault::Malformed, format!("no event: {}", quote(line))))
            }
        }
    }

    /// The end of a server-sent event.
    fn dispatch(&mut self) -> Result<(), Fault> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let payload = std::mem::take(&mut self.pending);
        self.payload(&payload, self.pending_ns)
    }

    fn payload(&mut self, payload: &[u8], at_ns: u64) -> Result<(), Fault> {
        if payload == b"[DONE]" {
            self.done = true;
            return Ok(());
        }
        self.count += 1;
        self.first_event_ns.get_or_insert(at_ns);
        let event: Event = serde_json::from_slice(payload).map_err(|error| {
            let words =
                format!("event {} is no JSON object ({error}): {}", self.count, quote(payload));
            (ServedFault::Malformed, words)
        })?;
        if let Some(error) = event.error() {
            return Err((ServedFault::Stream, format!("the server reported an error: {error}")));
        }
        self.ids += event.ids().unwrap_or(0) as usize;
        let claimed = event.usage().output_tokens.unwrap_or(0) as usize;
        if self.count.max(self.ids).max(claimed) > self.most {
            let words = format!(
                "more than {} events or tokens; event {}: {}",
                self.most,
                self.count,
                quote(payload)
            );
            return Err((ServedFault::Malformed, words));
        }
        let brings = event.brings();
        self.done |= event.ends();
        if let Some(finish) = event.finish() {
            self.finish = Some(finish);
        }
        let usage = event.usage();
        if brings.visible {
            self.first_visible_ns.get_or_insert(at_ns);
        }
        if brings.any() || event.ids().is_some() || self.counts_on(&event, usage.output_tokens) {
            self.events.push(Seen { at_ns, ids: event.ids(), total: usage.output_tokens });
        }
        self.usage.merge(usage);
        Ok(())
    }

    /// Whether an event without text brought tokens all the same: the server's running count rose.
    /// A special token, or a part of a character, has no text of its own.
    fn counts_on(&self, event: &Event, total: Option<u32>) -> bool {
        let running = self.events.iter().all(|event| event.total.is_some());
        let before = self.events.last().and_then(|event| event.total).unwrap_or(0);
        event.is_choice() && running && total.is_some_and(|total| total > before)
    }

    /// The arrivals of tokens and the rest of what was seen, once everything is parsed.
    pub fn finish(self, closed_ns: u64) -> (Vec<u64>, Served) {
        let (event_tokens, counted) = self.tokens_of_events();
        let token_ns = self
            .events
            .iter()
            .zip(&event_tokens)
            .flat_map(|(event, &tokens)| std::iter::repeat_n(event.at_ns, tokens as usize))
            .collect();
        let served = Served {
            event_tokens,
            counted,
            first_event_ns: self.first_event_ns,
            first_visible_ns: self.first_visible_ns,
            closed_ns: Some(closed_ns),
            prompt_tokens: self.usage.prompt_tokens,
            cached_tokens: self.usage.cached_tokens,
            output_tokens: self.usage.output_tokens,
            reasoning_tokens: self.usage.reasoning_tokens,
            server_prompt_ns: self.usage.prompt_ns,
            server_decode_ns: self.usage.decode_ns,
            server_ttft_ns: self.usage.ttft_ns,
            server_load_ns: self.usage.load_ns,
            slot: self.usage.slot,
            server_means: false,
            finish: self.finish,
            error: None,
        };
        (token_ns, served)
    }

    /// How many tokens each event brought: by the server's running count, by their ids, or by
    /// spreading the server's total evenly; a chunk is not a token.
    fn tokens_of_events(&self) -> (Vec<u32>, Counted) {
        let events = self.events.len();
        if events == 0 {
            return (Vec::new(), Counted::Usage);
        }
        let running: Option<Vec<u32>> = self.events.iter().map(|event| event.total).collect();
        // A count that stays the same on each event is no running count.
        if let Some(totals) = running
            && totals.windows(2).all(|pair| pair[0] < pair[1])
            && (events > 1 || self.usage.output_tokens == totals.first().copied())
        {
            let before = std::iter::once(0).chain(totals.iter().copied());
            return (totals.iter().zip(before).map(|(t, b)| t - b).collect(), Counted::Usage);
        }
        let ids: Option<Vec<u32>> = self.events.iter().map(|event| event.ids).collect();
        let of_ids = ids.as_ref().map(|ids| ids.iter().sum::<u32>());
        let total = self.usage.streamed_tokens();
        match (ids, of_ids, total) {
            (Some(ids), Some(sum), total) if total.is_none_or(|total| total == sum) => {
                (ids, Counted::Ids)
            }
            (_, _, Some(total)) if total > 0 => (spread(total, events), Counted::Usage),
            _ => (vec![1; events], Counted::Events),
        }
    }
}

/// `total` tokens over `events` events, evenly, with at least one in the first.
fn spread(total: u32, events: usize) -> Vec<u32> {
    let upto = |i: usize| {
        let share = i as f64 * f64::from(total) / events as f64;
        if i == 0 { 0 } else { (share.round() as u32).clamp(1, total) }
    };
    (0..events).map(|i| upto(i + 1) - upto(i)).collect()
}

/// The beginning of what cannot be read, for a message.
fn quote(bytes: &[u8]) -> String {
    let start = &bytes[..bytes.len().min(200)];
    format!("'{}'", String::from_utf8_lossy(start).escape_debug())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arrivals(parts: &[(&str, u64)]) -> (Vec<u64>, Served) {
        let mut arrivals = Arrivals::new(100);
        for (text, at) in parts {
            arrivals.push(text.as_bytes(), *at).unwrap();
        }
        arrivals.parse(true).unwrap();
        arrivals.finish(99)
    }

    #[test]
    fn an_event_has_the_time_of_its_last_byte() {
        let (tokens, _) = arrivals(&[
            ("data: {\"choices\":[{\"text\":\"a\"}]}\n\ndata: {\"choi", 1),
            ("ces\":[{\"text\":\"b\"}]}", 2),
            ("\n", 3),
            ("\ndata: [DONE]\n\n", 4),
        ]);
        assert_eq!(tokens, [1, 3]);
    }

    #[test]
    fn a_role_is_the_first_event_but_no_token() {
        let (tokens, served) = arrivals(&[
            (
                "data: {\"choices\":[{\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}]}\r\n\r\n",
                1,
            ),
            (": keep-alive\r\n\r\n", 2),
            ("data: {\"choices\":[{\"delta\":{\"reasoning_content\":\"hm\"}}]}\r\n\r\n", 3),
            ("data: {\"choices\":[{\"delta\":{\"content\":\"yes\"}}]}\r\n\r\n", 4),
        ]);
        assert_eq!(tokens, [3, 4]);
        assert_eq!((served.first_event_ns, served.first_visible_ns), (Some(1), Some(4)));
        assert_eq!(served.counted, Counted::Events);
    }

    #[test]
    fn a_token_without_a_text_is_one_where_the_server_counts_it() {
        let event = |text: &str, total: u32| {
            format!(
                "data: {{\"choices\":[{{\"text\":\"{text}\"}}],\
                 \"usage\":{{\"completion_tokens\":{total}}}}}\n\n"
            )
        };
        let end = "data: {\"choices\":[],\"usage\":{\"completion_tokens\":3}}\n\n";
        let (tokens, served) =
            arrivals(&[(&event("", 1), 1), (&event("a", 2), 2), (&event("", 3), 3), (end, 4)]);
        assert_eq!(tokens, [1, 2, 3]);
        assert_eq!((served.counted, served.first_visible_ns), (Counted::Usage, Some(2)));
    }

    #[test]
    fn a_count_at_the_end_alone_is_no_token() {
        let (tokens, _) = arrivals(&[
            ("data: {\"choices\":[{\"text\":\"a\"}]}\n\n", 1),
            (
                "data: {\"choices\":[{\"text\":\"\",\"finish_reason\":\"length\"}],\
                 \"usage\":{\"completion_tokens\":2}}\n\n",
                9,
            ),
        ]);
        assert_eq!(tokens, [1, 1]);
    }

    #[test]
    fn ids_without_a_text_are_tokens() {
        let (tokens, served) = arrivals(&[
            ("data: {\"content\":\"\",\"tokens\":[7],\"stop\":false}\n\n", 1),
            ("data: {\"content\":\"a\",\"tokens\":[8],\"stop\":false}\n\n", 2),
            ("data: {\"content\":\"\",\"tokens\":[],\"stop\":true}\n\n", 3),
        ]);
        assert_eq!((tokens, served.counted), (vec![1, 2], Counted::Ids));
    }

    #[test]
    fn the_servers_total_is_spread_over_its_events() {
        assert_eq!(spread(10, 3), [3, 4, 3]);
        assert_eq!(spread(130, 33)[0], 4);
        assert_eq!(spread(130, 33).iter().sum::<u32>(), 130);
        assert_eq!(spread(2, 5).iter().sum::<u32>(), 2);
        assert_eq!(spread(1, 40)[0], 1);
    }

    #[test]
    fn nonsense_is_quoted() {
        let mut arrivals = Arrivals::new(100);
        arrivals.push(b"<html>502</html>\n", 1).unwrap();
        let (kind, words) = arrivals.parse(true).unwrap_err();
        assert_eq!(kind, ServedFault::Malformed);
        assert!(words.contains("<html>502"), "{words}");
    }

    #[test]
    fn a_claim_of_four_thousand_million_tokens_is_not_believed() {
        let mut arrivals = Arrivals::new(16);
        let event = b"data: {\"choices\":[{\"text\":\"a\"}],\
            \"usage\":{\"completion_tokens\":4000000000}}\n\n";
        arrivals.push(event, 1).unwrap();
        let (kind, words) = arrivals.parse(true).unwrap_err();
        assert_eq!(kind, ServedFault::Malformed);
        assert!(words.contains("more than 1064"), "{words}");
        assert!(arrivals.finish(2).0.len() <= 1064);
    }

    #[test]
    fn an_endless_stream_of_small_events_ends() {
        let mut arrivals = Arrivals::new(16);
        let event = b"data: {\"choices\":[{\"text\":\"a\"}]}\n\n";
        let error = (0..100_000).find_map(|i| arrivals.push(event, i).err());
        assert!(error.is_some_and(|(kind, _)| kind == ServedFault::Malformed));
        assert!(arrivals.events.len() <= 1064);
    }

    #[test]
    fn an_endless_line_ends_at_a_mebibyte() {
        let mut arrivals = Arrivals::new(100);
        let error = (0..100_000).find_map(|i| arrivals.push(&[b'x'; 4096], i).err());
        assert!(error.is_some_and(|(_, words)| words.contains("longer than")));
        assert!(arrivals.raw.len() < 3 << 20);
    }
}
