//! The bodies of requests: the descriptor's JSON with the case's values in their places.

use anyhow::{Context, bail};
use bench::runner::Request;
use bytes::Bytes;
use serde_json::{Map, Value};

use crate::descriptor::{Generation, PromptForm};

/// Common English words: most tokenizers have one token for each with a space before it.
const WORDS: [&str; 96] = [
    "time",
    "year",
    "people",
    "way",
    "day",
    "man",
    "thing",
    "woman",
    "life",
    "child",
    "world",
    "school",
    "state",
    "family",
    "student",
    "group",
    "country",
    "problem",
    "hand",
    "part",
    "place",
    "case",
    "week",
    "company",
    "system",
    "program",
    "question",
    "work",
    "government",
    "number",
    "night",
    "point",
    "home",
    "water",
    "room",
    "mother",
    "area",
    "money",
    "story",
    "fact",
    "month",
    "lot",
    "right",
    "study",
    "book",
    "eye",
    "job",
    "word",
    "business",
    "issue",
    "side",
    "kind",
    "head",
    "house",
    "service",
    "friend",
    "father",
    "power",
    "hour",
    "game",
    "line",
    "end",
    "member",
    "law",
    "car",
    "city",
    "community",
    "name",
    "president",
    "team",
    "minute",
    "idea",
    "body",
    "information",
    "back",
    "parent",
    "face",
    "others",
    "level",
    "office",
    "door",
    "health",
    "person",
    "art",
    "war",
    "history",
    "party",
    "result",
    "change",
    "morning",
    "reason",
    "research",
    "girl",
    "guy",
    "moment",
    "air",
];

/// How many leading tokens of a prompt are put into an order of its own, so that no cache of an
/// earlier request or run helps.
const SHUFFLED: usize = 64;

/// What goes into every body.
#[derive(Debug)]
pub struct Bodies<'a> {
    pub generation: &'a Generation,
    pub model: &'a str,
    pub slot_tokens: u32,
}

impl Bodies<'_> {
    /// The body of `request`, whose prompt begins in an order of its own.
    pub fn of(&self, request: &Request, order: Order) -> anyhow::Result<Bytes> {
        let mut ids: Vec<u32> = request.context.iter().chain(&request.prompt).copied().collect();
        order.shuffle(&mut ids);
        let prompt = match self.generation.prompt {
            PromptForm::Ids => Value::from(ids),
            PromptForm::Text => Value::from(text(&ids)),
        };
        let mut body = Value::Object(self.generation.body.clone());
        put(&mut body, &self.generation.prompt_at, prompt)?;
        put(&mut body, &self.generation.tokens_at, Value::from(request.output.len()))?;
        if let Some(place) = &self.generation.model_at {
            put(&mut body, place, Value::from(self.model))?;
        }
        if let Some(place) = &self.generation.context_at {
            put(&mut body, place, Value::from(self.slot_tokens))?;
        }
        Ok(serde_json::to_vec(&body).context("cannot write a request's body")?.into())
    }
}

/// The order of a prompt's first tokens; it differs for each conversation of each run.
#[derive(Clone, Copy, Debug)]
pub struct Order {
    nonce: u64,
    /// So many tokens are put into it: a later turn must begin as the first one did.
    tokens: usize,
}

impl Order {
    /// An order that only `nonce` has, of a conversation that begins with `first`.
    pub fn new(nonce: u64, first: &Request) -> Self {
        Self { nonce, tokens: (first.context.len() + first.prompt.len()).min(SHUFFLED) }
    }

    /// The same tokens, another prompt.
    fn shuffle(self, ids: &mut [u32]) {
        let mut state = self.nonce;
        for i in (1..ids.len().min(self.tokens)).rev() {
            // Knuth's multiplicative step is enough to keep orders apart.
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            ids.swap(i, (state >> 33) as usize % (i + 1));
        }
    }
}

/// A text with one common word for each token id.
fn text(ids: &[u32]) -> String {
    let mut text = String::with_capacity(ids.len() * 8);
    for (i, id) in ids.iter().enumerate() {
        if i > 0 {
            text.push(' ');
        }
        text.push_str(WORDS[*id as usize % WORDS.len()]);
    }
    text
}

/// Sets the value at a JSON pointer, making the objects on the way.
fn put(body: &mut Value, pointer: &str, value: Value) -> anyhow::Result<()> {
    let mut place = body;
    for key in pointer.split('/').skip(1) {
        place = match place {
            Value::Array(list) => {
                let length = list.len();
                let index: usize =
                    key.parse().with_context(|| format!("'{pointer}' names no place in a list"))?;
                list.get_mut(index).with_context(|| {
                    format!("'{pointer}' is beyond the {length} elements of the body's list")
                })?
            }
            Value::Null => {
                *place = Value::Object(Map::new());
                match place {
                    Value::Object(object) => object.entry(key).or_insert(Value::Null),
                    _ => unreachable!("it was just made"),
                }
            }
            Value::Object(object) => object.entry(key).or_insert(Value::Null),
            _ => bail!("'{pointer}' leads through a value that is no object"),
        };
    }
    *place = value;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pointer_makes_objects_and_enters_lists() {
        let mut body = serde_json::json!({"messages": [{"role": "user"}]});
        put(&mut body, "/messages/0/content", Value::from("hi")).unwrap();
        put(&mut body, "/options/num_predict", Value::from(7)).unwrap();
        assert_eq!(
            body,
            serde_json::json!({"messages": [{"role": "user", "content": "hi"}],
                               "options": {"num_predict": 7}})
        );
        assert!(put(&mut body, "/messages/3/content", Value::Null).is_err());
    }

    #[test]
    fn two_nonces_give_two_prompts_of_the_same_tokens() {
        let (mut a, mut b): (Vec<u32>, Vec<u32>) = ((0..100).collect(), (0..100).collect());
        let first = Request { prompt: a.clone(), ..Request::default() };
        Order::new(1, &first).shuffle(&mut a);
        Order::new(2, &first).shuffle(&mut b);
        assert_ne!(a, b);
        assert_eq!(a[SHUFFLED..], b[SHUFFLED..]);
        a.sort_unstable();
        assert_eq!(a, (0..100).collect::<Vec<_>>());
    }

    #[test]
    fn a_later_turn_begins_as_the_first_one_did() {
        let first = Request { prompt: (0..20).collect(), ..Request::default() };
        let order = Order::new(7, &first);
        let (mut one, mut two): (Vec<u32>, Vec<u32>) = ((0..20).collect(), (0..100).collect());
        order.shuffle(&mut one);
        order.shuffle(&mut two);
        assert_ne!(one, (0..20).collect::<Vec<_>>());
        assert_eq!(one, two[..20]);
    }

    #[test]
    fn a_text_has_a_word_for_each_token() {
        assert_eq!(text(&[0, 1, 96]).split(' ').count(), 3);
        assert_eq!(text(&[0]), "time");
    }
}
