//! Validated names of users, devices, contents and streams. Parsing validates a name once; later code can rely on it.

use std::fmt;

use thiserror::Error;
use unicode_normalization::is_nfc;
use uuid::Uuid;

/// The name of the user whose streams are counted: an opaque, case-sensitive string of 1 to 256 bytes of UTF-8 in NFC.
/// It contains no control characters and no bidirectional control characters, and has no white space at either end.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UserName(Box<str>);

/// A device id that the player chooses: 1 to 128 bytes of UTF-8 in NFC, no control characters.
pub type DeviceId = Label<128>;
/// A human-readable device name: 1 to 256 bytes of UTF-8 in NFC, no control characters.
pub type DeviceName = Label<256>;
/// The content that the stream plays: 1 to 256 bytes of UTF-8 in NFC, no control characters.
pub type ContentId = Label<256>;

/// A string of 1 to `MAX` bytes of UTF-8 in NFC, without control characters.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Label<const MAX: usize>(Box<str>);

/// The idempotency key of a start: 1 to 255 visible ASCII characters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdempotencyKey(Box<str>);

/// The id of one stream (one playback): a UUID. It is printed in lower case and parsed in any case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(Uuid);

/// Why a name is invalid. Each message states the violated rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum NameError {
    #[error("must not be empty")]
    Empty,
    #[error("must be at most {max} bytes of UTF-8, has {actual}")]
    TooLong { max: usize, actual: usize },
    #[error("must not contain control characters")]
    Control,
    #[error("must not contain bidirectional control characters")]
    Bidirectional,
    #[error("must not begin or end with white space")]
    OuterWhiteSpace,
    #[error("must be in Unicode normalization form C (NFC)")]
    NotNormalized,
    #[error("must be 1 to 255 visible ASCII characters")]
    NotVisibleAscii,
    #[error("must be a UUID, such as 6fa459ea-ee8a-4ca4-894e-db77e160355e")]
    NotUuid,
}

impl UserName {
    /// Maximum length in bytes.
    pub const MAX_BYTES: usize = 256;

    /// Validates `text` and keeps it unchanged. Rejects text that is not in NFC or has white space at either end,
    /// because otherwise two spellings of one name would be counted as two users.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        check_text(text, Self::MAX_BYTES)?;
        if text.chars().any(is_bidirectional_control) {
            return Err(NameError::Bidirectional);
        }
        if text.starts_with(char::is_whitespace) || text.ends_with(char::is_whitespace) {
            return Err(NameError::OuterWhiteSpace);
        }
        Ok(Self(text.into()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl<const MAX: usize> Label<MAX> {
    pub fn parse(text: &str) -> Result<Self, NameError> {
        check_text(text, MAX)?;
        Ok(Self(text.into()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl IdempotencyKey {
    pub fn parse(bytes: &[u8]) -> Result<Self, NameError> {
        match std::str::from_utf8(bytes) {
            Ok(text) if (1..=255).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic()) => {
                Ok(Self(text.into()))
            }
            _ => Err(NameError::NotVisibleAscii),
        }
    }
}

impl StreamId {
    /// A random id (UUID version 4) from 16 random bytes.
    pub fn random(bytes: [u8; 16]) -> Self {
        Self(uuid::Builder::from_random_bytes(bytes).into_uuid())
    }

    /// Derives the id (UUID version 5) from the user name and the idempotency key, so that a retry finds the lease of
    /// the first attempt. The hashed text begins with the length of the user name, so that two different pairs of user
    /// name and key never have the same text.
    pub fn from_key(user_name: &UserName, key: &IdempotencyKey) -> Self {
        let user_name = user_name.as_str();
        let name = format!("{}:{user_name}{}", user_name.len(), key.0);
        Self(Uuid::new_v5(&KEYED_STREAMS, name.as_bytes()))
    }

    pub fn parse(text: &str) -> Result<Self, NameError> {
        // Accept only the hyphenated form. `Uuid` also parses braces, URNs and 32 hexadecimal digits without hyphens.
        match Uuid::try_parse(text) {
            Ok(uuid) if text.len() == 36 => Ok(Self(uuid)),
            _ => Err(NameError::NotUuid),
        }
    }

    pub fn uuid(self) -> Uuid {
        self.0
    }
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(f)
    }
}

impl fmt::Display for UserName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<const MAX: usize> fmt::Display for Label<MAX> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Namespace of the stream ids derived from idempotency keys. It is part of the stored format and must never change.
const KEYED_STREAMS: Uuid = Uuid::from_u128(0x5d1a_7c1e_0f4b_4b7e_9a53_2f6c_8e90_d417);

fn check_text(text: &str, max: usize) -> Result<(), NameError> {
    if text.is_empty() {
        return Err(NameError::Empty);
    }
    if text.len() > max {
        return Err(NameError::TooLong { max, actual: text.len() });
    }
    if text.chars().any(char::is_control) {
        return Err(NameError::Control);
    }
    if !is_nfc(text) {
        return Err(NameError::NotNormalized);
    }
    Ok(())
}

/// The 12 characters with the Unicode property Bidi_Control (PropList.txt, unchanged since Unicode 6.3).
fn is_bidirectional_control(c: char) -> bool {
    matches!(c, '\u{061C}' | '\u{200E}' | '\u{200F}' | '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_names_are_validated_and_kept_unchanged() {
        for good in ["a", "..", "a/b", "ann@example.com", "Ann", "日本", "é", "a b", &"x".repeat(256)] {
            assert_eq!(UserName::parse(good).unwrap().as_str(), good);
        }
        for (bad, why) in [
            ("", NameError::Empty),
            (" a", NameError::OuterWhiteSpace),
            ("a\u{3000}", NameError::OuterWhiteSpace),
            ("a\nb", NameError::Control),
            ("a\u{85}b", NameError::Control),
            ("a\u{202E}b", NameError::Bidirectional),
            ("e\u{301}", NameError::NotNormalized),
            (&"x".repeat(257), NameError::TooLong { max: 256, actual: 257 }),
            (&"é".repeat(129), NameError::TooLong { max: 256, actual: 258 }),
        ] {
            assert_eq!(UserName::parse(bad), Err(why), "{bad:?}");
        }
    }

    #[test]
    fn stream_ids_parse_in_any_case_and_print_lower_case() {
        let id = StreamId::parse("6FA459EA-EE8A-4CA4-894E-DB77E160355E").unwrap();
        assert_eq!(id.to_string(), "6fa459ea-ee8a-4ca4-894e-db77e160355e");
        for bad in ["", "x", "{6fa459ea-ee8a-4ca4-894e-db77e160355e}", "6fa459eaee8a4ca4894edb77e160355e"] {
            assert_eq!(StreamId::parse(bad), Err(NameError::NotUuid), "{bad:?}");
        }
    }

    #[test]
    fn keyed_stream_ids_are_stable_and_differ_between_users() {
        let id = |user: &str, key: &str| {
            let user = UserName::parse(user).unwrap();
            StreamId::from_key(&user, &IdempotencyKey::parse(key.as_bytes()).unwrap()).to_string()
        };
        assert_eq!(id("ann", "k"), id("ann", "k"));
        assert_eq!(id("ann", "k"), "dd3dd724-816c-5c95-9dac-df4a65092616", "stored ids depend on this value");
        assert_ne!(id("ann", "bk"), id("annb", "k"));
        assert_ne!(id("1", ":1x"), id("1:", "1x"));
    }

    #[test]
    fn idempotency_keys_are_visible_ascii() {
        assert!(IdempotencyKey::parse(b"!~").is_ok());
        for bad in [&b""[..], b"a b", b"\x7f", "é".as_bytes(), b"\xff", &[b'x'; 256]] {
            assert_eq!(IdempotencyKey::parse(bad), Err(NameError::NotVisibleAscii));
        }
    }
}
