//! Reads a JSON string that may contain bytes that are not UTF-8, unpaired surrogates and raw control characters. serde_json
//! rejects such a string, and its error does not name the field. Texts that are only displayed must not cause such an error.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, Visitor};

/// The content of a JSON string. serde_json decodes the escape of an unpaired surrogate, such as `\ud83d`, to the three
/// bytes that UTF-8 would use for it.
pub(super) struct JsonText(Vec<u8>);

impl JsonText {
    /// The text without the bytes that are not UTF-8.
    pub(super) fn into_lossy(self) -> String {
        match String::from_utf8(self.0) {
            Ok(text) => text,
            Err(error) => error.as_bytes().utf8_chunks().map(|chunk| chunk.valid()).collect(),
        }
    }

    pub(super) fn into_exact(self) -> Result<String, &'static str> {
        String::from_utf8(self.0).map_err(|error| match error.as_bytes()[error.utf8_error().valid_up_to()..] {
            [0xED, 0xA0..=0xBF, ..] => {
                "must not contain an unpaired surrogate, such as \\ud83d: cut texts between characters"
            }
            _ => "must be UTF-8",
        })
    }
}

impl<'de> Deserialize<'de> for JsonText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;

        impl Visitor<'_> for Text {
            type Value = JsonText;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<JsonText, E> {
                Ok(JsonText(bytes.to_owned()))
            }
        }

        // serde_json validates the content of a string in `deserialize_str`, but not in `deserialize_bytes`.
        deserializer.deserialize_bytes(Text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &[u8]) -> JsonText {
        serde_json::from_slice(json).unwrap()
    }

    #[test]
    fn texts_keep_everything_that_is_utf8() {
        for (json, text) in [
            (r#""Zo\u00eb \"TV\"""#, "Zoë \"TV\""),
            (r#""\ud83d\ude00 日本""#, "😀 日本"),
            ("\"a\tb\"", "a\tb"),
            (r#""\u0000\n""#, "\0\n"),
            ("\"\"", ""),
        ] {
            assert_eq!(read(json.as_bytes()).into_lossy(), text, "{json}");
            assert_eq!(read(json.as_bytes()).into_exact().as_deref(), Ok(text), "{json}");
        }
    }

    #[test]
    fn unpaired_surrogates_and_other_bytes_are_removed_or_reported() {
        let (surrogate, bytes) = ("surrogate", "UTF-8");
        for (json, text, reason) in [
            (&br#""TV \ud83d""#[..], "TV ", surrogate),
            (br#""\ude00\ud83dTV""#, "TV", surrogate),
            (br#""\ud83d\ud83d\ude00\ud83d\n""#, "😀\n", surrogate),
            (b"\"Zo\xEB\"", "Zo", bytes),
            (b"\"a\xED\xA0\xBDb\"", "ab", surrogate),
            (b"\"\xF0\x9F\x98TV\"", "TV", bytes),
        ] {
            assert_eq!(read(json).into_lossy(), text);
            let error = read(json).into_exact().unwrap_err();
            assert!(error.contains(reason), "{text}: {error}");
        }
    }

    #[test]
    fn only_strings_are_texts() {
        for json in ["7", "true", "[]", "[\"a\"]", "[116, 118]", "{}", "null", "\"a", "\"\\x\""] {
            assert!(serde_json::from_str::<JsonText>(json).is_err(), "{json}");
        }
    }
}
