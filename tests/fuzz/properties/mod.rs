//! Properties of the parsers of untrusted input, which must hold for any bytes. There is one file per parser. Its
//! function `check` panics if a property is violated. `tests/integration/corpus.rs` replays the corpus, and
//! `scripts/fuzz` searches for new inputs.

#![allow(clippy::unwrap_used, reason = "a violated property panics")]
#![allow(clippy::disallowed_methods, reason = "the expiry of tokens depends on the host's clock")]

pub mod items;
mod json;
pub mod media_paths;
pub mod names;
pub mod requests;
mod service;
pub mod settings;
pub mod starts;
mod texts;
pub mod tokens;

/// Panics if a message contains a term that only Rust and its libraries use. A term that occurs in the input is
/// allowed, because messages may quote the input.
fn assert_no_jargon(message: &str, input: &[u8]) {
    const JARGON: [&str; 19] = [
        "u8",
        "u16",
        "u32",
        "u64",
        "i64",
        "i128",
        "usize",
        "f64",
        "struct",
        "enum",
        "sequence",
        "variant",
        "std::",
        "core::",
        "alloc::",
        "stream_manager::",
        "serde",
        "Option",
        "Body",
    ];
    // Messages contain the names of environment variables in lower case, regardless of their case in the input.
    let input = String::from_utf8_lossy(input).to_lowercase();
    // A message can quote a name that ends with a colon, and then add its own colon. Therefore, `::` counts as part of
    // a Rust path only if an identifier follows.
    let is_path =
        |rest: &str| rest.starts_with(|first: char| first.is_alphanumeric() || first == '_' || first == '<');
    let contains = |word: &str| {
        message.match_indices(word).any(|(at, _)| !word.ends_with("::") || is_path(&message[at + word.len()..]))
    };
    let jargon = JARGON.iter().find(|word| contains(word) && !input.contains(&word.to_lowercase()));
    assert_eq!(jargon, None, "in {message}");
}
