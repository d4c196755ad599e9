//! Rules: limits for the streams of a user that have certain labels, such as one UHD stream, or two streams per channel.
//! [`crate::domain::admission::decide`] applies them.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::domain::labels::{LabelName, LabelValue, Labels};
use crate::domain::lease::{Lease, StreamLimit};
use crate::domain::names::{NameError, parse_name};

/// The name of a rule: 1 to 64 characters in NFC, without control characters and bidirectional control characters.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct RuleName(Box<str>);

/// A limit for the live streams of a user that have certain labels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    pub name: RuleName,
    /// The maximum number of streams that the rule counts. 0 forbids them.
    pub max: StreamLimit,
    /// The rule counts the streams that have all of these labels.
    pub labels: Labels,
    /// If set, the rule counts only streams with this label, and each of its values separately.
    pub per: Option<LabelName>,
    pub mode: LimitMode,
}

/// What happens to a start that exceeds a limit or a rule.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum LimitMode {
    /// The start is denied, or evicts other streams.
    #[default]
    Enforce,
    /// The start is admitted and reported, up to [`StreamLimit::MAX`] streams of the user.
    Observe,
}

/// How many live streams of a user a rule counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleUse<'a> {
    pub rule: &'a Rule,
    /// The value of the label [`Rule::per`].
    pub per: Option<LabelValue>,
    pub count: usize,
}

/// The maximum number of rules. They are evaluated for each start, and each one has its own series in the metrics.
pub const MAX_RULES: usize = 16;

impl RuleName {
    /// Maximum length in characters.
    pub const MAX_CHARACTERS: usize = 64;

    /// Normalizes `text` to NFC and validates it.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        // A character has at most 4 bytes.
        let name = parse_name(text, 4 * Self::MAX_CHARACTERS)?;
        match name.chars().count() {
            actual if actual > Self::MAX_CHARACTERS => {
                Err(NameError::TooManyCharacters { max: Self::MAX_CHARACTERS, actual })
            }
            _ => Ok(Self(name)),
        }
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Rule {
    /// Whether the rule counts a stream with these labels. If so, it also limits the start of such a stream.
    pub fn applies_to(&self, labels: &Labels) -> bool {
        labels.contains_all(&self.labels) && self.per.as_ref().is_none_or(|per| labels.get(per).is_some())
    }
}

/// The use of each rule that counts at least one of the `live` streams, in the order of the rules. A rule with
/// [`Rule::per`] has one entry for each value.
pub fn usage<'a>(rules: &'a [Rule], live: &[Lease]) -> Vec<RuleUse<'a>> {
    let of_rule = |rule: &'a Rule| {
        let mut counts = BTreeMap::<Option<&LabelValue>, usize>::new();
        for lease in live.iter().filter(|lease| rule.applies_to(&lease.labels)) {
            let value = rule.per.as_ref().and_then(|per| lease.labels.get(per));
            *counts.entry(value).or_default() += 1;
        }
        counts.into_iter().map(move |(per, count)| RuleUse { rule, per: per.cloned(), count })
    };
    rules.iter().flat_map(of_rule).collect()
}

impl TryFrom<String> for RuleName {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        Self::parse(&text)
    }
}

impl From<RuleName> for String {
    fn from(name: RuleName) -> Self {
        name.0.into()
    }
}

impl fmt::Display for RuleName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
