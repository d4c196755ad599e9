//! Labels of streams: short texts that say what is played, and where. Rules count streams by their labels.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::domain::names::{NameError, parse_name};

/// The name of a label: 1 to 32 characters of a-z, 0-9 and `_`. The first one is a letter.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct LabelName(Box<str>);

/// The value of a label: 1 to 64 bytes of UTF-8 in NFC, without control characters and bidirectional control characters.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct LabelValue(Box<str>);

/// Labels with different names, sorted by name. A clone shares the memory.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "BTreeMap<LabelName, LabelValue>", into = "BTreeMap<LabelName, LabelValue>")]
pub struct Labels(
    /// `None` if there are no labels, so that a stream without labels allocates nothing.
    Option<Arc<[(LabelName, LabelValue)]>>,
);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("must have at most {max} labels, has {actual}")]
pub struct TooManyLabels {
    pub max: usize,
    pub actual: usize,
}

impl LabelName {
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let is_valid = (1..=32).contains(&text.len())
            && text.starts_with(|c: char| c.is_ascii_lowercase())
            && text.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_'));
        if is_valid { Ok(Self(text.into())) } else { Err(NameError::NotLabelName) }
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl LabelValue {
    /// Maximum length in bytes.
    pub const MAX_BYTES: usize = 64;

    /// Normalizes `text` to NFC, so that two encodings of one value are equal, and validates it.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        parse_name(text, Self::MAX_BYTES).map(Self)
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Labels {
    /// The maximum number of labels of a request, a token or a rule.
    pub const MAX: usize = 8;
    /// The maximum number of labels of a stream, which has the labels of its request and those of its token.
    pub const MAX_OF_STREAM: usize = 2 * Self::MAX;

    /// # Errors
    /// There are more than [`Labels::MAX`] labels.
    pub fn new(labels: BTreeMap<LabelName, LabelValue>) -> Result<Self, TooManyLabels> {
        Self::with_max(labels, Self::MAX)
    }

    /// The labels of a stored stream.
    ///
    /// # Errors
    /// There are more than [`Labels::MAX_OF_STREAM`] labels.
    pub fn of_stream(labels: BTreeMap<LabelName, LabelValue>) -> Result<Self, TooManyLabels> {
        Self::with_max(labels, Self::MAX_OF_STREAM)
    }

    /// Adds the labels of `other`. If both have a label, the result has the value of `other`.
    pub fn overridden_by(&self, other: &Self) -> Self {
        match (self.is_empty(), other.is_empty()) {
            (_, true) => self.clone(),
            (true, _) => other.clone(),
            (false, false) => Self::from_map(self.iter().chain(other.iter()).cloned().collect()),
        }
    }

    pub fn get(&self, name: &LabelName) -> Option<&LabelValue> {
        self.iter().find(|(known, _)| known == name).map(|(_, value)| value)
    }

    /// Whether all labels of `other` are among these labels, with the same values.
    pub fn contains_all(&self, other: &Self) -> bool {
        other.iter().all(|(name, value)| self.get(name) == Some(value))
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// The labels, sorted by name.
    pub fn iter(&self) -> std::slice::Iter<'_, (LabelName, LabelValue)> {
        self.as_slice().iter()
    }

    fn as_slice(&self) -> &[(LabelName, LabelValue)] {
        self.0.as_deref().unwrap_or_default()
    }

    fn with_max(labels: BTreeMap<LabelName, LabelValue>, max: usize) -> Result<Self, TooManyLabels> {
        match labels.len() {
            actual if actual > max => Err(TooManyLabels { max, actual }),
            _ => Ok(Self::from_map(labels)),
        }
    }

    fn from_map(labels: BTreeMap<LabelName, LabelValue>) -> Self {
        Self((!labels.is_empty()).then(|| labels.into_iter().collect()))
    }
}

impl TryFrom<String> for LabelName {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        Self::parse(&text)
    }
}

impl TryFrom<String> for LabelValue {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        Self::parse(&text)
    }
}

impl TryFrom<BTreeMap<LabelName, LabelValue>> for Labels {
    type Error = TooManyLabels;

    fn try_from(labels: BTreeMap<LabelName, LabelValue>) -> Result<Self, TooManyLabels> {
        Self::new(labels)
    }
}

impl From<LabelName> for String {
    fn from(name: LabelName) -> Self {
        name.0.into()
    }
}

impl From<LabelValue> for String {
    fn from(value: LabelValue) -> Self {
        value.0.into()
    }
}

impl From<Labels> for BTreeMap<LabelName, LabelValue> {
    fn from(labels: Labels) -> Self {
        labels.iter().cloned().collect()
    }
}

impl fmt::Display for LabelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for LabelValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(labels: &[(&str, &str)]) -> BTreeMap<LabelName, LabelValue> {
        let label =
            |(name, value): &(&str, &str)| (LabelName::parse(name).unwrap(), LabelValue::parse(value).unwrap());
        labels.iter().map(label).collect()
    }

    fn labels(labels: &[(&str, &str)]) -> Labels {
        Labels::new(map(labels)).unwrap()
    }

    #[test]
    fn label_names_are_identifiers_in_lower_case() {
        for good in ["a", "quality", "x_1", &"a".repeat(32)] {
            assert_eq!(LabelName::parse(good).unwrap().as_str(), good);
        }
        for bad in ["", "1a", "_a", "Quality", "a-b", "a.b", "é", "a ", &"a".repeat(33)] {
            assert_eq!(LabelName::parse(bad), Err(NameError::NotLabelName), "{bad:?}");
        }
    }

    #[test]
    fn label_values_are_normalized_and_validated() {
        assert_eq!(LabelValue::parse("Zoe\u{308}").unwrap().as_str(), "Zoë");
        assert_eq!(LabelValue::parse(&"x".repeat(64)).unwrap().as_str(), "x".repeat(64));
        for (bad, why) in [
            ("", NameError::Empty),
            ("a\nb", NameError::Control),
            ("a\u{202E}b", NameError::Bidirectional),
            (&"é".repeat(33), NameError::TooLong { max: 64, actual: 66 }),
        ] {
            assert_eq!(LabelValue::parse(bad), Err(why), "{bad:?}");
        }
    }

    #[test]
    fn labels_are_compared_by_name_and_value() {
        let both = labels(&[("quality", "uhd"), ("channel", "news")]);
        assert!(both.contains_all(&labels(&[("quality", "uhd")])));
        assert!(both.contains_all(&Labels::default()));
        assert!(!both.contains_all(&labels(&[("quality", "hd")])));
        assert!(!both.contains_all(&labels(&[("title", "uhd")])));
        assert!(!labels(&[("quality", "uhd")]).contains_all(&both));
    }

    #[test]
    fn overriding_labels_win() {
        let body = labels(&[("plan", "gold"), ("quality", "uhd")]);
        let token = labels(&[("plan", "basic")]);
        assert_eq!(body.overridden_by(&token), labels(&[("plan", "basic"), ("quality", "uhd")]));
        assert_eq!(body.overridden_by(&Labels::default()), body);
        assert_eq!(Labels::default().overridden_by(&token), token);
    }

    #[test]
    fn number_of_labels_is_bounded() {
        let many = |n: usize| (0..n).map(|n| (format!("l{n}"), "x".to_owned())).collect::<Vec<_>>();
        let many = |n| {
            let many = many(n);
            map(&many.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect::<Vec<_>>())
        };
        assert_eq!(Labels::new(many(8)).unwrap().iter().len(), 8);
        assert_eq!(Labels::new(many(9)), Err(TooManyLabels { max: 8, actual: 9 }));
        assert_eq!(Labels::of_stream(many(16)).unwrap().iter().len(), 16);
        assert_eq!(Labels::of_stream(many(17)), Err(TooManyLabels { max: 16, actual: 17 }));
        assert_eq!(Labels::new(map(&[])).unwrap(), Labels::default());
    }
}
