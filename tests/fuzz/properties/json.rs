//! Parses request bodies independently of the service: returns the members of a JSON object, in order and with duplicates.

use serde::de::IgnoredAny;
use serde_json::Value;

/// The value of a member.
pub enum Member<'a> {
    Text(Text),
    Other(&'a [u8]),
}

/// The content of a JSON string. It may contain bytes that are not UTF-8, unpaired surrogates and raw control characters.
pub struct Text {
    /// The text without the bytes that are not UTF-8.
    pub valid: String,
    /// Whether all bytes are UTF-8.
    pub complete: bool,
    /// Whether the string has no raw control characters, which JSON does not allow.
    pub strict: bool,
}

impl Member<'_> {
    pub fn is_null(&self) -> bool {
        matches!(self, Self::Other(b"null"))
    }

    pub fn is_strict(&self) -> bool {
        !matches!(self, Self::Text(Text { strict: false, .. }))
    }

    pub fn value(&self) -> Option<Value> {
        match self {
            Self::Text(text) if text.complete && text.strict => Some(Value::from(text.valid.clone())),
            Self::Text(_) => None,
            Self::Other(json) => serde_json::from_slice(json).ok(),
        }
    }
}

/// The members of an optional object. Empty if the body is absent, which means only white space or `null`. `None` if the
/// body is invalid.
pub fn members(body: &[u8]) -> Option<Vec<(String, Member<'_>)>> {
    let body = body.strip_prefix("\u{FEFF}".as_bytes()).unwrap_or(body);
    // A body of only white space is absent. A form feed counts as white space here, but JSON does not allow it.
    if body.trim_ascii().is_empty() || serde_json::from_slice::<()>(body).is_ok() {
        return Some(Vec::new());
    }
    let mut rest = trim(trim(body).strip_prefix(b"{")?);
    let mut members = Vec::new();
    if let Some(end) = rest.strip_prefix(b"}") {
        return trim(end).is_empty().then_some(members);
    }
    loop {
        let key = value_length(rest)?;
        let name = serde_json::from_slice::<String>(&rest[..key]).ok()?;
        rest = trim(trim(&rest[key..]).strip_prefix(b":")?);
        let (value, after) = rest.split_at(value_length(rest)?);
        members.push((name, if value[0] == b'"' { Member::Text(text(value)?) } else { Member::Other(value) }));
        rest = trim(after);
        match rest.split_first()? {
            (b',', more) => rest = trim(more),
            (b'}', end) => return trim(end).is_empty().then_some(members),
            _ => return None,
        }
    }
}

fn trim(mut json: &[u8]) -> &[u8] {
    while let Some((b' ' | b'\t' | b'\r' | b'\n', rest)) = json.split_first() {
        json = rest;
    }
    json
}

/// The length of the JSON value at the start of `json`.
fn value_length(json: &[u8]) -> Option<usize> {
    if json.first() == Some(&b'"') {
        let mut at = 1;
        loop {
            match json.get(at)? {
                b'"' => return Some(at + 1),
                b'\\' => at += 2,
                _ => at += 1,
            }
        }
    }
    let mut values = serde_json::Deserializer::from_slice(json).into_iter::<IgnoredAny>();
    values.next()?.ok()?;
    Some(values.byte_offset())
}

/// Decodes a string with its quotes. `None` if an escape is invalid.
fn text(json: &[u8]) -> Option<Text> {
    let strict = !json.iter().any(|byte| *byte < 0x20);
    let mut text = Text { valid: String::new(), complete: true, strict };
    let (mut bytes, mut units) = (Vec::new(), Vec::new());
    let mut rest = &json[1..json.len() - 1];
    while let Some((first, more)) = rest.split_first() {
        rest = more;
        if *first != b'\\' {
            text.push_units(&mut units);
            bytes.push(*first);
            continue;
        }
        text.push_bytes(&mut bytes);
        let (escape, more) = rest.split_first()?;
        rest = more;
        let unit = match escape {
            b'"' | b'\\' | b'/' => u16::from(*escape),
            b'b' => 8,
            b't' => 9,
            b'n' => 10,
            b'f' => 12,
            b'r' => 13,
            b'u' => {
                let (digits, more) = rest.split_at_checked(4)?;
                rest = more;
                digits.iter().try_fold(0, |unit, digit| Some(unit * 16 + char::from(*digit).to_digit(16)? as u16))?
            }
            _ => return None,
        };
        units.push(unit);
    }
    text.push_bytes(&mut bytes);
    text.push_units(&mut units);
    Some(text)
}

impl Text {
    fn push_bytes(&mut self, bytes: &mut Vec<u8>) {
        for chunk in std::mem::take(bytes).utf8_chunks() {
            self.valid.push_str(chunk.valid());
            self.complete &= chunk.invalid().is_empty();
        }
    }

    fn push_units(&mut self, units: &mut Vec<u16>) {
        for decoded in char::decode_utf16(std::mem::take(units)) {
            match decoded {
                Ok(c) => self.valid.push(c),
                Err(_) => self.complete = false,
            }
        }
    }
}
