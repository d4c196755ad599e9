//! Names of users, devices and streams, and texts that are only displayed. Parsing rejects an invalid name, because a name
//! identifies something. Texts are cleaned and never rejected. Later code can rely on valid names and clean texts.

use std::borrow::Cow;
use std::fmt;

use thiserror::Error;
use unicode_normalization::{UnicodeNormalization, is_nfc};
use uuid::Uuid;

/// The name of the user whose streams are counted: an opaque, case-sensitive string of 1 to 256 bytes of UTF-8 in NFC,
/// without control characters and bidirectional control characters. It is not `.` or `..`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UserName(Box<str>);

/// A device id that the player chooses: 1 to 128 bytes of UTF-8 in NFC, without control characters and bidirectional
/// control characters.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeviceId(Box<str>);

/// A text that is only displayed: 1 to 256 bytes of UTF-8 in NFC, without control characters and bidirectional control
/// characters, and without white space at either end.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DisplayText(Box<str>);

/// A human-readable device name.
pub type DeviceName = DisplayText;
/// The content that a stream plays.
pub type ContentId = DisplayText;
/// A message to the viewer whose stream is ended.
pub type Message = DisplayText;

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
    #[error("must be at most {max} characters, has {actual}")]
    TooManyCharacters { max: usize, actual: usize },
    #[error("must not contain control characters")]
    Control,
    #[error("must not contain bidirectional control characters")]
    Bidirectional,
    #[error("must not be \".\" or \"..\", because HTTP clients remove such path segments")]
    DotSegment,
    #[error("must be 1 to 255 visible ASCII characters")]
    NotVisibleAscii,
    #[error("must be a UUID, such as 6fa459ea-ee8a-4ca4-894e-db77e160355e")]
    NotUuid,
    #[error("must be 1 to 32 characters of a-z, 0-9 and '_', and start with a letter")]
    NotLabelName,
}

impl UserName {
    /// Maximum length in bytes.
    pub const MAX_BYTES: usize = 256;

    /// Normalizes `text` to NFC, so that two encodings of one name are the same user, and validates it.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        if matches!(text, "." | "..") {
            return Err(NameError::DotSegment);
        }
        parse_name(text, Self::MAX_BYTES).map(Self)
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl DeviceId {
    /// Maximum length in bytes.
    pub const MAX_BYTES: usize = 128;

    /// Normalizes `text` to NFC, so that two encodings of one id are the same device, and validates it.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        parse_name(text, Self::MAX_BYTES).map(Self)
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl DisplayText {
    /// Maximum length in bytes.
    pub const MAX_BYTES: usize = 256;

    /// Removes control characters and bidirectional control characters, normalizes to NFC, removes white space at both
    /// ends, and cuts the text to 256 bytes at a character boundary. `None` if nothing is left.
    pub fn clean(text: &str) -> Option<Self> {
        // Most texts are printable ASCII, which is always in NFC. Normalizing them would cost a tenth of the instructions of
        // a start.
        let normalized = match text.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
            true => Cow::Borrowed(text),
            false => {
                let visible = text.chars().filter(|c| !c.is_control() && !is_bidirectional_control(*c));
                Cow::Owned(visible.nfc().collect::<String>())
            }
        };
        let trimmed = normalized.trim();
        // Every substring of a text in NFC is in NFC (UAX #15, section 1.3).
        let cut = trimmed[..trimmed.floor_char_boundary(Self::MAX_BYTES)].trim_end();
        (!cut.is_empty()).then(|| Self(cut.into()))
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

impl From<Uuid> for StreamId {
    fn from(id: Uuid) -> Self {
        Self(id)
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

impl fmt::Display for DeviceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for DisplayText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Namespace of the stream ids derived from idempotency keys. It is part of the stored format and must never change.
const KEYED_STREAMS: Uuid = Uuid::from_u128(0x5d1a_7c1e_0f4b_4b7e_9a53_2f6c_8e90_d417);

/// Normalizes `text` to NFC. Names are compared in this form, so that two encodings of one name are equal.
pub(crate) fn normalize(text: &str) -> Cow<'_, str> {
    if is_nfc(text) { Cow::Borrowed(text) } else { Cow::Owned(text.nfc().collect()) }
}

/// Normalizes to NFC, then checks the length and the characters.
pub(super) fn parse_name(text: &str, max: usize) -> Result<Box<str>, NameError> {
    if text.is_empty() {
        return Err(NameError::Empty);
    }
    // NFC shortens a text to no less than two sevenths of its length. For example, U+1FBE U+0308 U+0301 (7 bytes) becomes
    // U+0390 (2 bytes). A text of more than 3.5 × `max` bytes therefore cannot become valid. The check uses 4 × `max`.
    if text.len() > 4 * max {
        return Err(NameError::TooLong { max, actual: text.len() });
    }
    let name: Box<str> = normalize(text).into();
    if name.len() > max {
        return Err(NameError::TooLong { max, actual: name.len() });
    }
    if name.chars().any(char::is_control) {
        return Err(NameError::Control);
    }
    if name.chars().any(is_bidirectional_control) {
        return Err(NameError::Bidirectional);
    }
    Ok(name)
}

/// The 12 characters with the Unicode property Bidi_Control (PropList.txt, unchanged since Unicode 6.3).
pub(crate) fn is_bidirectional_control(c: char) -> bool {
    matches!(c, '\u{061C}' | '\u{200E}' | '\u{200F}' | '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_names_are_normalized_and_validated() {
        for good in ["a", "...", "a/b", "ann@example.com", "Ann", "日本", "é", " a b ", "क़", &"x".repeat(256)]
        {
            let name = UserName::parse(good).unwrap();
            assert_eq!(name.as_str(), good.nfc().collect::<String>());
        }
        assert_eq!(UserName::parse("Zoe\u{308}"), UserName::parse("Zoë"));
        assert_eq!(UserName::parse(&"e\u{301}".repeat(128)), UserName::parse(&"é".repeat(128)));
        assert_eq!(UserName::parse(&"\u{1FBE}\u{308}\u{301}".repeat(128)).unwrap().as_str(), "ΐ".repeat(128));
        for (bad, why) in [
            ("", NameError::Empty),
            (".", NameError::DotSegment),
            ("..", NameError::DotSegment),
            ("a\nb", NameError::Control),
            ("a\u{85}b", NameError::Control),
            ("a\u{202E}b", NameError::Bidirectional),
            (&"x".repeat(257), NameError::TooLong { max: 256, actual: 257 }),
            (&"é".repeat(129), NameError::TooLong { max: 256, actual: 258 }),
            (&"e\u{301}".repeat(129), NameError::TooLong { max: 256, actual: 258 }),
        ] {
            assert_eq!(UserName::parse(bad), Err(why), "{bad:?}");
        }
    }

    #[test]
    fn device_ids_follow_the_rules_of_user_names() {
        assert_eq!(DeviceId::parse("te\u{301}le\u{301}").unwrap().as_str(), "télé");
        assert_eq!(DeviceId::parse(""), Err(NameError::Empty));
        assert_eq!(DeviceId::parse("tv\u{200F}"), Err(NameError::Bidirectional));
        assert_eq!(DeviceId::parse(&"x".repeat(129)), Err(NameError::TooLong { max: 128, actual: 129 }));
    }

    #[test]
    fn display_texts_are_cleaned() {
        for (text, cleaned) in [
            ("Living-room TV", Some("Living-room TV")),
            (" \tTV\n", Some("TV")),
            ("a\tb\r\nc", Some("abc")),
            ("Zoe\u{308}\u{202E}s TV", Some("Zoës TV")),
            ("\u{301}", Some("\u{301}")),
            ("क\u{93C}", Some("क\u{93C}")),
            ("", None),
            (" \u{3000} ", None),
            ("\0\u{7F}\u{200E}", None),
            ("\u{200E} a \u{200E}", Some("a")),
        ] {
            assert_eq!(DisplayText::clean(text).as_ref().map(DisplayText::as_str), cleaned, "{text:?}");
        }
    }

    #[test]
    fn long_display_texts_are_cut_at_a_character() {
        let clean = |text: &str| DisplayText::clean(text).unwrap().as_str().to_owned();
        assert_eq!(clean(&"x".repeat(300)), "x".repeat(256));
        assert_eq!(clean(&"日".repeat(4000)), "日".repeat(85));
        assert_eq!(clean(&"👨\u{200D}👩\u{200D}".repeat(100)).len(), 256 - 256 % 14 + 4);
        assert_eq!(clean(&format!("{} b", "a".repeat(255))), "a".repeat(255), "no white space at the end");
        assert_eq!(clean(&format!("a{}", "\u{316}\u{301}".repeat(5000))).len(), 256);
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
