//! Prints the settings as TOML that can be loaded again.

use std::fmt::Write;

use serde_json::Value;

use super::sections::Config;

impl Config {
    /// The effective settings as TOML, without secrets. Each rule has its effective mode.
    pub fn to_toml(&self) -> String {
        let mut text = String::new();
        let mut config = self.clone();
        for rule in &mut config.limits.rules {
            rule.mode.get_or_insert(config.limits.mode);
        }
        let sections = serde_json::to_value(config).unwrap_or_default();
        for (section, keys) in sections.as_object().into_iter().flatten() {
            _ = writeln!(text, "[{section}]");
            for (key, value) in keys.as_object().into_iter().flatten() {
                _ = match value {
                    Value::Null => writeln!(text, "# {key} is not set"),
                    Value::Object(_) => writeln!(text, "# {key} is set, and not shown"),
                    value => writeln!(text, "{key} = {}", to_toml(value)),
                };
            }
            text.push('\n');
        }
        text
    }
}

/// Strings and numbers are the same in JSON and TOML, except that TOML requires the escape of a DEL character. Objects become inline
/// tables, and absent values are omitted.
fn to_toml(value: &Value) -> String {
    match value {
        Value::Array(items) => format!("[{}]", items.iter().map(to_toml).collect::<Vec<_>>().join(", ")),
        Value::Object(members) => {
            let present = members.iter().filter(|(_, value)| !value.is_null());
            let members = present.map(|(key, value)| format!("{key} = {}", to_toml(value))).collect::<Vec<_>>();
            if members.is_empty() { "{}".to_owned() } else { format!("{{ {} }}", members.join(", ")) }
        }
        value => value.to_string().replace('\u{7f}', "\\u007f"),
    }
}
