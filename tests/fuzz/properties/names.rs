//! Names: what is accepted is printed as it came and keeps its bounds; what is refused is refused for the reason given.

use std::collections::HashSet;

use stream_manager::domain::names::{IdempotencyKey, Label, NameError, StreamId, UserName};
use unicode_normalization::UnicodeNormalization;

/// The input is one name, and split at its first line break a user and a key.
pub fn check(input: &[u8]) {
    idempotency_key(input);
    let Ok(text) = std::str::from_utf8(input) else { return };
    user_name(text);
    label::<128>(text);
    label::<256>(text);
    stream_id(text);
    if let Some((user, key)) = text.split_once('\n') {
        keyed_ids(user, key);
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
            assert!(Label::<256>::parse(text).is_ok(), "a user's name has all that a label needs: {text:?}");
        }
        Err(NameError::OuterWhiteSpace) => assert_ne!(text.trim(), text),
        Err(NameError::Bidirectional) => assert!(text.chars().any(is_bidirectional_control), "{text:?}"),
        Err(error) => refused_rightly(text, error, UserName::MAX_BYTES),
    }
}

fn label<const MAX: usize>(text: &str) {
    match Label::<MAX>::parse(text) {
        Ok(label) => {
            assert_eq!((label.as_str(), label.to_string().as_str()), (text, text));
            assert!((1..=MAX).contains(&text.len()) && is_plain(text), "{text:?}");
        }
        Err(error) => refused_rightly(text, error, MAX),
    }
}

fn refused_rightly(text: &str, error: NameError, most: usize) {
    let rightly = match error {
        NameError::Empty => text.is_empty(),
        NameError::TooLong { max, actual } => max == most && actual == text.len() && actual > max,
        NameError::Control => text.chars().any(char::is_control),
        NameError::NotNormalized => !text.nfc().eq(text.chars()),
        _ => false,
    };
    assert!(rightly, "{text:?}: {error}");
}

fn is_plain(text: &str) -> bool {
    !text.chars().any(char::is_control) && text.nfc().eq(text.chars())
}

/// Unicode's Bidi_Control, spelt out once more: the list in the code is what is checked.
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

/// Wherever user and key part, the id is another one, and it stays the same.
fn keyed_ids(user: &str, key: &str) {
    let joined = format!("{user}{key}");
    if joined.len() > 64 {
        return;
    }
    let mut ids = HashSet::new();
    let mut parted = 0;
    for (at, _) in joined.char_indices() {
        let (user, key) = joined.split_at(at);
        let (Ok(user), Ok(key)) = (UserName::parse(user), IdempotencyKey::parse(key.as_bytes())) else { continue };
        let id = StreamId::from_key(&user, &key);
        assert_eq!(id, StreamId::from_key(&user, &key));
        ids.insert(id);
        parted += 1;
    }
    assert_eq!(ids.len(), parted, "{joined:?}");
}
