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
    /// The body of `request`; `nonce` differs for each request of each run.
    pub fn of(&self, request: &Request, nonce: u64) -> anyhow::Result<Bytes> {
        let mut ids: Vec<u32> = request.context.iter().chain(&request.prompt).copied().collect();
        shuffle(&mut ids, nonce);
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

/// Puts the first tokens into an order that only `nonce` has: the same tokens, another prompt.
fn shuffle(ids: &mut [u32], nonce: u64) {
    let mut state = nonce;
    let end = ids.len().min(SHUFFLED);
    for i in (1..end).rev() {
        // Knuth's multiplicative step is enough to keep orders apart.
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ids.swap(i, (state >> 33) as usize % (i + 1));
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
        shuffle(&mut a, 1);
        shuffle(&mut b, 2);
        assert_ne!(a, b);
        assert_eq!(a[SHUFFLED..], b[SHUFFLED..]);
        a.sort_unstable();
        assert_eq!(a, (0..100).collect::<Vec<_>>());
    }

    #[test]
    fn a_text_has_a_word_for_each_token() {
        assert_eq!(text(&[0, 1, 96]).split(' ').count(), 3);
        assert_eq!(text(&[0]), "time");
    }
}
