//! Properties that each parser of untrusted input has for any bytes. There is one file per parser, with a function `check` that
//! panics if a property is violated. `tests/integration/corpus.rs` replays the corpus, and `scripts/fuzz` searches for new inputs.

#![allow(clippy::unwrap_used, reason = "a violated property panics")]
#![allow(clippy::disallowed_methods, reason = "the expiry of tokens depends on the host's clock")]

pub mod items;
pub mod names;
pub mod requests;
mod service;
pub mod settings;
pub mod starts;
pub mod tokens;

/// Fails if a message contains a word that only Rust and its libraries use. A word that occurs in the input is allowed, because
/// messages may quote the input.
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
    // Messages contain the names of variables in lower case, whatever their case in the input.
    let input = String::from_utf8_lossy(input).to_lowercase();
    // A name from the input can end with a colon and precede the message's own colon. `::` is part of a Rust path only if an
    // identifier follows.
    let is_path =
        |rest: &str| rest.starts_with(|first: char| first.is_alphanumeric() || first == '_' || first == '<');
    let contains = |word: &str| {
        message.match_indices(word).any(|(at, _)| !word.ends_with("::") || is_path(&message[at + word.len()..]))
    };
    let jargon = JARGON.iter().find(|word| contains(word) && !input.contains(&word.to_lowercase()));
    assert_eq!(jargon, None, "in {message}");
}
