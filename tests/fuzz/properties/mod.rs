//! What must hold of each parser of outside input, whatever the bytes: a file a parser, each with one `check` that panics
//! when it does not. `tests/integration/corpus.rs` replays the corpus, `scripts/fuzz` searches.

#![allow(clippy::expect_used, reason = "a property fails by panicking")]
#![allow(clippy::disallowed_methods, reason = "tokens are checked by the host's clock")]

pub mod items;
pub mod names;
pub mod requests;
mod service;
pub mod settings;
pub mod starts;
pub mod tokens;

/// Words that only Rust and its libraries would use. Those that the input brought along may come back.
fn assert_no_jargon(said: &str, brought: &[u8]) {
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
    // Variables' names are told in lower case, however they were brought.
    let brought = String::from_utf8_lossy(brought).to_lowercase();
    // A name that ends with a colon may stand before one of ours: a path goes on.
    let goes_on =
        |rest: &str| rest.starts_with(|first: char| first.is_alphanumeric() || first == '_' || first == '<');
    let says = |word: &str| {
        said.match_indices(word).any(|(at, _)| !word.ends_with("::") || goes_on(&said[at + word.len()..]))
    };
    let jargon = JARGON.iter().find(|word| says(word) && !brought.contains(&word.to_lowercase()));
    assert_eq!(jargon, None, "in {said}");
}
