//! Character classes for the `pattern`s of the OpenAPI document, as JavaScript regular expressions. A pattern cannot
//! express NFC or a maximum length in bytes, so the descriptions state these rules.

pub(super) const CONTROLS: &str = r"\u0000-\u001f\u007f-\u009f";
pub(super) const BIDIRECTIONAL_CONTROLS: &str = r"\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069";
