//! A made-up vocabulary of any size, which text can be tokenised with.

use anyhow::ensure;

use super::gguf::{Array, Value};

/// `LLAMA_TOKEN_TYPE_*` of llama.cpp.
const NORMAL: i32 = 1;
const UNKNOWN: i32 = 2;
const CONTROL: i32 = 3;
const BYTE: i32 = 6;

/// The tokens that stand for no text, in the order of their ids.
pub const SPECIAL: [&str; 3] = ["<unk>", "<s>", "</s>"];

/// Three special tokens, one for each byte, one for each printable character.
const SMALLEST: u32 = 3 + 256 + 95;

/// Exactly `size` tokens: the special ones, one for each byte, so that any text can be tokenised,
/// and all short strings of letters, so that English comes to about three letters a token.
pub fn tokens(size: u32) -> anyhow::Result<Vec<String>> {
    ensure!(size >= SMALLEST, "a vocabulary of {size} tokens; at least {SMALLEST} are needed");
    let bytes = (0..=255u8).map(|byte| format!("<0x{byte:02X}>"));
    let special = SPECIAL.iter().map(|token| (*token).to_owned());
    Ok(special.chain(bytes).chain(pieces()).take(size as usize).collect())
}

/// The tokenizer's keys for exactly `size` tokens: a SentencePiece vocabulary, because that loads
/// faster than one with merges.
pub fn tokenizer(size: u32) -> anyhow::Result<Vec<(String, Value)>> {
    let tokens = tokens(size)?;
    let mut types = vec![UNKNOWN, CONTROL, CONTROL];
    types.resize(SPECIAL.len() + 256, BYTE);
    types.resize(tokens.len(), NORMAL);
    // Earlier tokens are shorter; a piece is merged before those that come after it.
    let scores = (0..tokens.len()).map(|i| -(i as f32)).collect();
    let set = |key: &str, value| (format!("tokenizer.ggml.{key}"), value);
    Ok(vec![
        set("model", Value::String("llama".to_owned())),
        set("tokens", Value::Array(Array::String(tokens))),
        set("scores", Value::Array(Array::F32(scores))),
        set("token_type", Value::Array(Array::I32(types))),
        set("unknown_token_id", Value::U32(0)),
        set("bos_token_id", Value::U32(1)),
        set("eos_token_id", Value::U32(2)),
        set("add_bos_token", Value::Bool(false)),
        set("add_eos_token", Value::Bool(false)),
        set("add_space_prefix", Value::Bool(false)),
    ])
}

/// Single characters, then ever longer strings of lower-case letters, with and without a space
/// before them (which SentencePiece writes `▁`). They never end and never repeat.
fn pieces() -> impl Iterator<Item = String> {
    let single = std::iter::once("▁".to_owned())
        .chain((b'!'..=b'~').map(|byte| char::from(byte).to_string()))
        .chain((b'a'..=b'z').map(|byte| format!("▁{}", char::from(byte))));
    let longer = (2..).flat_map(|length| (0..26u64.pow(length)).map(move |n| word(n, length)));
    single.chain(longer.flat_map(|word| [format!("▁{word}"), word]))
}

/// The `n`-th string of `length` letters.
fn word(mut n: u64, length: u32) -> String {
    let mut letters = vec![0; length as usize];
    for letter in letters.iter_mut().rev() {
        *letter = b'a' + (n % 26) as u8;
        n /= 26;
    }
    letters.into_iter().map(char::from).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn a_vocabulary_has_exactly_the_size_and_no_token_twice() {
        for size in [SMALLEST, 1024, 151_936, 262_144] {
            let keys = tokenizer(size).unwrap();
            let Some((_, Value::Array(Array::String(tokens)))) =
                keys.iter().find(|(k, _)| k == "tokenizer.ggml.tokens")
            else {
                panic!("no tokens");
            };
            assert_eq!(tokens.len(), size as usize);
            assert_eq!(tokens.iter().collect::<HashSet<_>>().len(), size as usize);
        }
        assert!(tokenizer(100).is_err());
    }
}
