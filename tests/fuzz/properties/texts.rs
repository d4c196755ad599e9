//! A second, independent implementation of the rules for names and for texts that people read.

use std::collections::BTreeMap;

use serde_json::Value;
use unicode_normalization::UnicodeNormalization;

/// The normalized name, or `None` if `text` is not a valid name of at most `max` bytes.
pub fn name(text: &str, max: usize) -> Option<String> {
    let name: String = text.nfc().collect();
    let valid = (1..=max).contains(&name.len()) && !name.chars().any(is_forbidden);
    valid.then_some(name)
}

/// The label with its value normalized, or `None` if it is not valid.
pub fn label(label: &str, value: &str) -> Option<(String, String)> {
    let mut characters = label.chars();
    let begins = characters.next().is_some_and(|first| first.is_ascii_lowercase());
    let continues = characters.all(|c| c == '_' || c.is_ascii_lowercase() || c.is_ascii_digit());
    (begins && continues && label.len() <= 32).then_some((label.to_owned(), name(value, 64)?))
}

/// The labels in a JSON object, or `None` if they are not valid.
pub fn labels(json: &Value) -> Option<BTreeMap<String, String>> {
    let labels = json.as_object().filter(|labels| labels.len() <= 8)?;
    labels.iter().map(|(name, value)| label(name, value.as_str()?)).collect()
}

/// The cleaned text, or `None` if nothing of it is left.
pub fn cleaned(text: &str) -> Option<String> {
    let normalized: String = text.chars().filter(|c| !is_forbidden(*c)).collect::<String>().nfc().collect();
    let mut cut = String::new();
    for c in normalized.trim().chars() {
        if cut.len() + c.len_utf8() > 256 {
            break;
        }
        cut.push(c);
    }
    cut.truncate(cut.trim_end().len());
    (!cut.is_empty()).then_some(cut)
}

/// The same text in normalization form NFD, which differs from NFC for some texts.
pub fn decomposed(text: &str) -> String {
    text.nfd().collect()
}

/// Control characters, and the characters with the Unicode property Bidi_Control. Does not use the production code, because
/// the tests check that code.
pub fn is_forbidden(c: char) -> bool {
    let code = u32::from(c);
    let control = code < 0x20 || (0x7F..0xA0).contains(&code);
    control || is_bidirectional_control(c)
}

pub fn is_bidirectional_control(c: char) -> bool {
    "\u{61C}\u{200E}\u{200F}\u{202A}\u{202B}\u{202C}\u{202D}\u{202E}\u{2066}\u{2067}\u{2068}\u{2069}".contains(c)
}
