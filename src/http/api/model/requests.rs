//! Request bodies.

use std::collections::BTreeMap;
use std::fmt;

use poem_openapi::{Enum, Object};
use serde::Deserialize;
use serde::de::{Deserializer, Error, MapAccess, Visitor};
use serde_json::Value;

use super::json_text::JsonText;
use crate::domain::admission;

/// Options of a start. All are optional; `null` means absent.
#[derive(Clone, Debug, Default, Deserialize, Object)]
#[serde(rename_all = "camelCase", expecting = "a JSON object")]
#[oai(rename_all = "camelCase", skip_serializing_if_is_none, example)]
pub(crate) struct StartRequest {
    /// An id that the player keeps across restarts. The start replaces a live stream of the same device, so that a page
    /// reload never counts twice. At most 128 bytes in NFC, no control characters. Empty means absent.
    #[oai(validator(max_length = 128))]
    #[serde(default, deserialize_with = "identifying_text")]
    pub(crate) device_id: Option<String>,
    /// A human-readable name of the device. It is shown in lists and denials. It is cleaned: control characters are
    /// removed, and it is cut to 256 bytes.
    #[serde(default, deserialize_with = "display_text")]
    pub(crate) device_name: Option<String>,
    /// The content that is played. It is shown in lists and denials. It is cleaned like `deviceName`.
    #[serde(default, deserialize_with = "display_text")]
    pub(crate) content_id: Option<String>,
    /// Ids of the same user's streams that this start ends in the same step. If the start is denied, they stay live.
    #[oai(validator(max_items = 10))]
    #[serde(default, deserialize_with = "stream_ids")]
    pub(crate) replaces: Option<Vec<String>>,
    #[serde(default, deserialize_with = "at_limit")]
    pub(crate) at_limit: Option<AtLimit>,
    /// Labels of the stream, at most 8. The rules of the service can limit the streams with certain labels. Names have at most 32
    /// characters of `a-z`, `0-9` and `_`, and start with a letter. Values have at most 64 bytes in NFC and no control characters.
    /// Labels in the caller's token override them.
    #[oai(validator(max_properties = 8))]
    #[serde(default, deserialize_with = "labels")]
    pub(crate) labels: Option<BTreeMap<String, String>>,
}

/// The action if the user is at the limit. The default is the setting `limits.at_limit`, which is `reject` unless
/// configured. An empty text means absent.
// A copy of the domain's enum, because the domain does not depend on poem-openapi.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Enum)]
#[oai(rename_all = "camelCase", remote = "admission::AtLimit")]
pub(crate) enum AtLimit {
    Reject,
    EvictOldest,
}

/// The user's own limit.
#[derive(Clone, Debug, Deserialize, Object)]
#[serde(rename_all = "camelCase", expecting = "a JSON object")]
#[oai(rename_all = "camelCase", skip_serializing_if_is_none, example)]
pub(crate) struct LimitRequest {
    /// The user's new stream limit: 0 to 50. 0 blocks the user: every start is denied, whatever the user's token contains,
    /// unless the limit is in observe mode.
    #[oai(validator(minimum(value = "0"), maximum(value = "50")))]
    #[serde(default = "missing_limit", deserialize_with = "limit")]
    pub(crate) limit: u64,
    /// Whether to end the live streams that exceed the limit, in the same step. They end in the order in which
    /// `evictOldest` ends them. The default is `false`.
    pub(crate) end_excess: Option<bool>,
}

/// What changed since the last heartbeat. May be omitted.
#[derive(Clone, Debug, Default, Deserialize, Object)]
#[serde(rename_all = "camelCase", expecting = "a JSON object")]
#[oai(rename_all = "camelCase", skip_serializing_if_is_none, example)]
pub(crate) struct HeartbeatRequest {
    /// The content that is played now. It is cleaned like the `contentId` of a start. Empty or absent leaves the stored
    /// content.
    #[serde(default, deserialize_with = "display_text")]
    pub(crate) content_id: Option<String>,
}

/// The streams to end. Without a body, all live streams end.
#[derive(Clone, Debug, Default, Deserialize, Object)]
#[serde(rename_all = "camelCase", expecting = "a JSON object")]
#[oai(rename_all = "camelCase", skip_serializing_if_is_none, example)]
pub(crate) struct EvictionRequest {
    /// The streams to end, at most 50. Unknown ids are ignored. Without this field, or with `null`, **all** live streams
    /// end; an empty list ends none.
    #[oai(validator(max_items = 50))]
    #[serde(default, deserialize_with = "stream_ids")]
    pub(crate) stream_ids: Option<Vec<String>>,
    /// A message to the viewers. Their players receive it with the next heartbeat. It is cleaned like `deviceName`.
    #[serde(default, deserialize_with = "display_text")]
    pub(crate) message: Option<String>,
}

// These deserializers are written by hand. Derived ones would report Rust terms such as "sequence" and "variant", and
// would accept an object as an enum.

fn identifying_text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let text = Option::<JsonText>::deserialize(deserializer)?;
    text.map(|text| text.into_exact().map_err(D::Error::custom)).transpose()
}

fn display_text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    Ok(Option::<JsonText>::deserialize(deserializer)?.map(JsonText::into_lossy))
}

/// Rejects repeated names, because programs differ in which of two values they use. `null` means that the label is absent.
fn labels<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<BTreeMap<String, String>>, D::Error> {
    struct Labels;

    impl<'de> Visitor<'de> for Labels {
        type Value = Option<BTreeMap<String, String>>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object with strings")
        }

        fn visit_unit<E>(self) -> Result<Self::Value, E> {
            Ok(None)
        }

        fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Self::Value, A::Error> {
            let mut labels = BTreeMap::new();
            while let Some((name, value)) = object.next_entry::<String, Option<JsonText>>()? {
                let Some(value) = value else { continue };
                if labels.insert(name, value.into_exact().map_err(A::Error::custom)?).is_some() {
                    return Err(A::Error::custom("must not contain a label twice"));
                }
            }
            Ok(Some(labels))
        }
    }

    deserializer.deserialize_any(Labels)
}

fn stream_ids<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<String>>, D::Error> {
    let error = || D::Error::custom("must be a list of stream ids");
    match Value::deserialize(deserializer)? {
        Value::Null => Ok(None),
        Value::Array(ids) => {
            let ids = ids.into_iter().map(|id| id.as_str().map(str::to_owned).ok_or_else(error));
            ids.collect::<Result<_, _>>().map(Some)
        }
        _ => Err(error()),
    }
}

fn at_limit<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<AtLimit>, D::Error> {
    match Value::deserialize(deserializer)? {
        Value::Null => Ok(None),
        value => match value.as_str() {
            Some("") => Ok(None),
            Some("reject") => Ok(Some(AtLimit::Reject)),
            Some("evictOldest") => Ok(Some(AtLimit::EvictOldest)),
            _ => Err(D::Error::custom("must be \"reject\" or \"evictOldest\"")),
        },
    }
}

/// Returns `u64::MAX` if the value is not a whole number. `u64::MAX` is above the highest limit, so the caller reports
/// the same error as for any limit that is too high.
fn limit<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    Ok(Value::deserialize(deserializer)?.as_u64().unwrap_or(u64::MAX))
}

fn missing_limit() -> u64 {
    u64::MAX
}
