//! The rules in `limits.rules`: reads them from an environment variable, checks them, and converts them.

use std::collections::HashSet;
use std::sync::Arc;

use serde_json::Value;

use super::error::ConfigError;
use super::sections::RuleSettings;
use crate::domain::lease::StreamLimit;
use crate::domain::rules::{LimitMode, MAX_RULES, Rule};

const KEY: &str = "limits.rules";

/// Parses the JSON text of an environment variable. Rejects every other value that is not a list of tables.
pub(super) fn normalize(values: &mut Value) -> Result<(), ConfigError> {
    const LIST: &str = "must be a list of rules; in an environment variable, write the list in JSON";
    let Some(rules) = values.pointer_mut("/limits/rules") else { return Ok(()) };
    if let Value::String(text) = rules {
        let invalid = |error| ConfigError::invalid(KEY, format!("{text:?}"), format!("{LIST}: {error}"));
        *rules = serde_json::from_str(text).map_err(invalid)?;
    }
    let Value::Array(rules) = rules else { return Err(ConfigError::invalid(KEY, rules.to_string(), LIST)) };
    match rules.iter().enumerate().find(|(_, rule)| !rule.is_object()) {
        Some((index, rule)) => {
            let problem = "must be a table with name, max, and labels or per";
            Err(ConfigError::invalid(&format!("{KEY}[{index}]"), rule.to_string(), problem))
        }
        None => Ok(()),
    }
}

pub(super) fn check(rules: &[RuleSettings]) -> Result<(), ConfigError> {
    if rules.len() > MAX_RULES {
        let problem = format!("must have at most {MAX_RULES}");
        return Err(ConfigError::invalid(KEY, format!("{} rules", rules.len()), problem));
    }
    let mut names = HashSet::new();
    for (index, rule) in rules.iter().enumerate() {
        let name = format!("{:?}", rule.name.as_str());
        if !names.insert(&rule.name) {
            return Err(ConfigError::invalid(
                &format!("{KEY}[{index}].name"),
                name,
                "must not be the name of another rule",
            ));
        }
        if rule.labels.is_empty() && rule.per.is_none() {
            let problem = "must have labels or per; limits.streams_per_user limits all streams";
            return Err(ConfigError::invalid(&format!("{KEY}[{index}]"), name, problem));
        }
    }
    Ok(())
}

/// `default_mode` is the mode of rules without a mode of their own.
pub(super) fn rules(settings: &[RuleSettings], default_mode: LimitMode) -> Arc<[Rule]> {
    let rule = |rule: &RuleSettings| Rule {
        name: rule.name.clone(),
        // Never capped, because the setting has the same bounds as `StreamLimit`.
        max: StreamLimit::capped(rule.max.get()),
        labels: rule.labels.clone(),
        per: rule.per.clone(),
        mode: rule.mode.unwrap_or(default_mode),
    };
    settings.iter().map(rule).collect()
}
