//! Labels and rules in the model. The checks use [`ModelRule::counts`], which shares no code with the production rules.

use std::collections::BTreeMap;

use stream_manager::domain::labels::{LabelName, LabelValue, Labels};
use stream_manager::domain::rules::{LimitMode, Rule, RuleName};

const QUALITY: &str = "quality";
const UHD: &str = "uhd";
const CHANNEL: &str = "channel";

/// The labels of a stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct StreamLabels {
    pub uhd: bool,
    pub channel: Option<u8>,
}

/// A rule for UHD streams, for the streams of each channel, or for the UHD streams of each channel.
#[derive(Clone, Copy, Debug)]
pub struct ModelRule {
    pub max: u8,
    pub uhd: bool,
    pub per_channel: bool,
}

impl StreamLabels {
    pub fn to_labels(self) -> Labels {
        let quality = self.uhd.then(|| label(QUALITY, UHD));
        let channel = self.channel.map(|channel| label(CHANNEL, &channel.to_string()));
        Labels::new(quality.into_iter().chain(channel).collect()).unwrap()
    }

    pub fn of(labels: &Labels) -> Self {
        let texts: BTreeMap<&str, &str> =
            labels.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let channel = texts.get(CHANNEL).map(|channel| channel.parse().unwrap());
        Self { uhd: texts.get(QUALITY) == Some(&UHD), channel }
    }
}

impl ModelRule {
    pub const fn uhd(max: u8) -> Self {
        Self { max, uhd: true, per_channel: false }
    }

    pub const fn per_channel(max: u8) -> Self {
        Self { max, uhd: false, per_channel: true }
    }

    /// Whether the rule limits the start of a stream with the labels `own`, and counts a stream with the labels `other`.
    pub fn counts(self, own: StreamLabels, other: StreamLabels) -> bool {
        let same_channel = own.channel.is_some() && own.channel == other.channel;
        (!self.uhd || (own.uhd && other.uhd)) && (!self.per_channel || same_channel)
    }

    pub fn to_rule(self, mode: LimitMode) -> Rule {
        Rule {
            name: RuleName::parse(&format!("{self:?}")).unwrap(),
            max: super::limit(self.max),
            labels: Labels::new(self.uhd.then(|| label(QUALITY, UHD)).into_iter().collect()).unwrap(),
            per: self.per_channel.then(|| LabelName::parse(CHANNEL).unwrap()),
            mode,
        }
    }
}

fn label(name: &str, value: &str) -> (LabelName, LabelValue) {
    (LabelName::parse(name).unwrap(), LabelValue::parse(value).unwrap())
}
