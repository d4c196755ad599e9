//! Checks names and texts. A valid name is normalized to NFC and within its bounds. The error of an invalid name states
//! the actual reason. A text that people read is cleaned and never rejected.

use std::collections::HashSet;

use stream_manager::domain::names::{DeviceId, DisplayText, IdempotencyKey, NameError, StreamId, UserName};
use unicode_normalization::UnicodeNormalization;

use super::texts;

/// Tests the whole input as one name. If the input contains a line break, also tests the part before the first one as a user
/// name, and the part after it as an idempotency key.
pub fn check(input: &[u8]) {
    idempotency_key(input);
    let Ok(text) = std::str::from_utf8(input) else { return };
    name(text, UserName::MAX_BYTES, matches!(text, "." | ".."), |text| {
        UserName::parse(text).map(|name| (name.as_str().to_owned(), name.to_string()))
    });
    name(text, DeviceId::MAX_BYTES, false, |text| {
        DeviceId::parse(text).map(|id| (id.as_str().to_owned(), id.to_string()))
    });
    display_text(text);
    stream_id(text);
    if let Some((user, key)) = text.split_once('\n') {
        derived_ids(user, key);
    }
}

/// `parse` returns the name twice: as it is stored and as it is displayed.
fn name(text: &str, max: usize, reserved: bool, parse: impl Fn(&str) -> Result<(String, String), NameError>) {
    let expected = texts::name(text, max).filter(|_| !reserved);
    match parse(text) {
        Ok((stored, displayed)) => {
            assert_eq!((Some(&stored), &displayed), (expected.as_ref(), &stored), "{text:?}");
            for equivalent in [stored.clone(), texts::decomposed(text)] {
                assert_eq!(parse(&equivalent).map(|(name, _)| name), Ok(stored.clone()), "{text:?}");
            }
        }
        Err(error) => {
            assert_eq!(expected, None, "{text:?}: {error}");
            assert_reason(text, error, max);
        }
    }
}

fn assert_reason(text: &str, error: NameError, max_bytes: usize) {
    let length = text.nfc().map(char::len_utf8).sum::<usize>();
    let correct = match error {
        NameError::Empty => text.is_empty(),
        // `actual` is the length of the normalized name, or of the original text if the original text is far too long.
        NameError::TooLong { max, actual } => {
            max == max_bytes && length > max && (actual == length || actual == text.len())
        }
        NameError::Control => text.chars().any(char::is_control),
        NameError::Bidirectional => text.chars().any(texts::is_bidirectional_control),
        NameError::DotSegment => matches!(text, "." | ".."),
        _ => false,
    };
    assert!(correct, "{text:?}: {error}");
}

fn display_text(text: &str) {
    let cleaned = DisplayText::clean(text);
    assert_eq!(cleaned.as_ref().map(DisplayText::as_str), texts::cleaned(text).as_deref(), "{text:?}");
    let Some(cleaned) = cleaned else {
        assert!(text.chars().all(|c| c.is_whitespace() || texts::is_forbidden(c)), "{text:?}");
        return;
    };
    let shown = cleaned.as_str();
    assert!((1..=DisplayText::MAX_BYTES).contains(&shown.len()) && shown.trim() == shown, "{text:?}");
    assert!(!shown.chars().any(texts::is_forbidden) && shown.nfc().eq(shown.chars()), "{text:?}");
    assert_eq!(cleaned.to_string(), shown);
    for equivalent in [shown, &texts::decomposed(shown), &format!("\u{202E} \t{shown}\0 \n")] {
        assert_eq!(DisplayText::clean(equivalent).as_ref(), Some(&cleaned), "{text:?}");
    }
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
    let (mut ids, mut pairs) = (HashSet::new(), HashSet::new());
    for (at, _) in joined.char_indices() {
        let (user, key) = joined.split_at(at);
        let (Ok(user), Ok(valid_key)) = (UserName::parse(user), IdempotencyKey::parse(key.as_bytes())) else {
            continue;
        };
        let id = StreamId::from_key(&user, &valid_key);
        assert_eq!(id, StreamId::from_key(&user, &valid_key));
        ids.insert(id);
        pairs.insert((user, key));
    }
    assert_eq!(ids.len(), pairs.len(), "{joined:?}");
}
