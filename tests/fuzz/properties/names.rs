//! Checks names. A valid name must be within its bounds and must be displayed unchanged. The error of an invalid name
//! must state the actual reason.

use std::collections::HashSet;

use stream_manager::domain::names::{IdempotencyKey, Label, NameError, StreamId, UserName};
use unicode_normalization::UnicodeNormalization;

/// The input is one name. If it contains a line break, the text before and after the first one is also a user name and
/// an idempotency key.
pub fn check(input: &[u8]) {
    idempotency_key(input);
    let Ok(text) = std::str::from_utf8(input) else { return };
    user_name(text);
    label::<128>(text);
    label::<256>(text);
    stream_id(text);
    if let Some((user, key)) = text.split_once('\n') {
        derived_ids(user, key);
    }
}

fn user_name(text: &str) {
    match UserName::parse(text) {
        Ok(name) => {
            assert_eq!((name.as_str(), name.to_string().as_str()), (text, text));
            assert!(
                (1..=UserName::MAX_BYTES).contains(&text.len()) && text.trim() == text && is_plain(text),
                "{text:?}"
            );
            assert!(!text.chars().any(is_bidirectional_control), "{text:?}");
            assert!(Label::<256>::parse(text).is_ok(), "a valid user name is not a valid label: {text:?}");
        }
        Err(NameError::OuterWhiteSpace) => assert_ne!(text.trim(), text),
        Err(NameError::Bidirectional) => assert!(text.chars().any(is_bidirectional_control), "{text:?}"),
        Err(error) => assert_reason(text, error, UserName::MAX_BYTES),
    }
}

fn label<const MAX: usize>(text: &str) {
    match Label::<MAX>::parse(text) {
        Ok(label) => {
            assert_eq!((label.as_str(), label.to_string().as_str()), (text, text));
            assert!((1..=MAX).contains(&text.len()) && is_plain(text), "{text:?}");
        }
        Err(error) => assert_reason(text, error, MAX),
    }
}

fn assert_reason(text: &str, error: NameError, max_bytes: usize) {
    let correct = match error {
        NameError::Empty => text.is_empty(),
        NameError::TooLong { max, actual } => max == max_bytes && actual == text.len() && actual > max,
        NameError::Control => text.chars().any(char::is_control),
        NameError::NotNormalized => !text.nfc().eq(text.chars()),
        _ => false,
    };
    assert!(correct, "{text:?}: {error}");
}

fn is_plain(text: &str) -> bool {
    !text.chars().any(char::is_control) && text.nfc().eq(text.chars())
}

/// The characters with the Unicode property Bidi_Control. This list does not use the production code, so that it can
/// check that code.
fn is_bidirectional_control(c: char) -> bool {
    "\u{61C}\u{200E}\u{200F}\u{202A}\u{202B}\u{202C}\u{202D}\u{202E}\u{2066}\u{2067}\u{2068}\u{2069}".contains(c)
}

fn stream_id(text: &str) {
    match StreamId::parse(text) {
        Ok(id) => {
            assert_eq!(id.to_string(), text.to_ascii_lowercase());
            assert_eq!(StreamId::parse(&id.to_string()), Ok(id));
            assert_eq!(StreamId::parse(&text.to_ascii_uppercase()), Ok(id));
        }
        Err(error) => assert_eq!(error, NameError::NotUuid),
    }
}

fn idempotency_key(bytes: &[u8]) {
    let visible = (1..=255).contains(&bytes.len()) && bytes.iter().all(|byte| (0x21..=0x7e).contains(byte));
    assert_eq!(IdempotencyKey::parse(bytes).is_ok(), visible);
}

/// Checks that the id derived from a user and a key is deterministic. Different splits of the same text into user and
/// key must have different ids.
fn derived_ids(user: &str, key: &str) {
    let joined = format!("{user}{key}");
    if joined.len() > 64 {
        return;
    }
    let mut ids = HashSet::new();
    let mut splits = 0;
    for (at, _) in joined.char_indices() {
        let (user, key) = joined.split_at(at);
        let (Ok(user), Ok(key)) = (UserName::parse(user), IdempotencyKey::parse(key.as_bytes())) else { continue };
        let id = StreamId::from_key(&user, &key);
        assert_eq!(id, StreamId::from_key(&user, &key));
        ids.insert(id);
        splits += 1;
    }
    assert_eq!(ids.len(), splits, "{joined:?}");
}
