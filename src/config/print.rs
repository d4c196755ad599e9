//! Prints the settings as TOML that can be loaded again.

use std::fmt::Write;

use serde_json::Value;

use super::sections::Config;

impl Config {
    /// The effective settings as TOML, without secrets.
    pub fn to_toml(&self) -> String {
        let mut text = String::new();
        let sections = serde_json::to_value(self).unwrap_or_default();
        for (section, keys) in sections.as_object().into_iter().flatten() {
            _ = writeln!(text, "[{section}]");
            for (key, value) in keys.as_object().into_iter().flatten() {
                // JSON strings and integers are valid TOML, unless a string contains an unescaped DEL character.
                _ = match value {
                    Value::Null => writeln!(text, "# {key} is not set"),
                    Value::Object(_) => writeln!(text, "# {key} is set, and not shown"),
                    value => writeln!(text, "{key} = {}", value.to_string().replace('\u{7f}', "\\u007f")),
                };
            }
            text.push('\n');
        }
        text
    }
}
