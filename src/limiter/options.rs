//! The options of a start, and their fingerprint.

use crate::domain::admission::AtLimit;
use crate::domain::labels::Labels;
use crate::domain::lease::{Fingerprint, StreamLimit};
use crate::domain::names::{ContentId, DeviceId, DeviceName, IdempotencyKey, StreamId};

/// The options of a start request.
#[derive(Clone, Debug, Default)]
pub struct StartOptions {
    pub idempotency_key: Option<IdempotencyKey>,
    pub device_id: Option<DeviceId>,
    pub device_name: Option<DeviceName>,
    pub content_id: Option<ContentId>,
    /// The labels in the request body.
    pub labels: Labels,
    pub replaces: Vec<StreamId>,
    pub at_limit: Option<AtLimit>,
    /// The limit in the caller's token. It is not part of the request body and therefore not part of the fingerprint.
    pub token_limit: Option<StreamLimit>,
    /// The labels in the caller's token. They override those in the body, and are not part of the fingerprint either.
    pub token_labels: Labels,
}

impl StartOptions {
    /// A digest of the request fields. Requests with equal fields have equal fingerprints, regardless of their JSON
    /// formatting. The hashed text contains the length of each value, so that two different requests never have the same text.
    pub(super) fn fingerprint(&self) -> Fingerprint {
        let mut text = String::new();
        let mut field = |name: &str, value: Option<&str>| {
            if let Some(value) = value {
                text.push_str(&format!("{name}={}:{value};", value.len()));
            }
        };
        field("deviceId", self.device_id.as_ref().map(DeviceId::as_str));
        field("deviceName", self.device_name.as_ref().map(DeviceName::as_str));
        field("contentId", self.content_id.as_ref().map(ContentId::as_str));
        for id in &self.replaces {
            field("replaces", Some(&id.to_string()));
        }
        field(
            "atLimit",
            self.at_limit.map(|at_limit| match at_limit {
                AtLimit::Reject => "reject",
                AtLimit::EvictOldest => "evictOldest",
            }),
        );
        for (name, value) in self.labels.iter() {
            field(&format!("labels.{name}"), Some(value.as_str()));
        }
        Fingerprint(uuid::Uuid::new_v5(&FINGERPRINTS, text.as_bytes()))
    }
}

/// Namespace of fingerprints. It is part of the stored format and must never change.
const FINGERPRINTS: uuid::Uuid = uuid::Uuid::from_u128(0x0c67_5f3e_8c5a_4d1b_b1f5_77f0_94a2_1b6e);
