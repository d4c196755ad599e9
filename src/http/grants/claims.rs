//! The claims of a grant.

use serde::{Deserialize, Serialize, Serializer};
use uuid::Uuid;

use super::Grant;
use crate::domain::labels::Labels;
use crate::domain::lease::Timestamp;
use crate::domain::names::StreamId;

/// The claims that are signed. Contains only what a CDN needs, because URLs, cookies and logs may contain the grant.
#[derive(Serialize)]
pub(super) struct SignedClaims<'a> {
    pub(super) iss: &'a str,
    pub(super) aud: &'a str,
    pub(super) sub: &'a str,
    pub(super) jti: Uuid,
    pub(super) iat: i64,
    pub(super) exp: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) content: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "label_map")]
    pub(super) labels: Option<&'a Labels>,
}

/// The claims that are used after verification. The verification itself checks `iss` and `aud`.
#[derive(Deserialize)]
pub(super) struct VerifiedClaims {
    sub: String,
    jti: String,
    exp: i64,
    content: Option<String>,
}

impl VerifiedClaims {
    pub(super) fn into_grant(self) -> Option<Grant> {
        Some(Grant {
            subject: self.sub,
            stream_id: StreamId::parse(&self.jti).ok()?,
            content: self.content,
            expires_at: Timestamp::from_epoch_ms(self.exp.saturating_mul(1000)),
        })
    }
}

fn label_map<S: Serializer>(labels: &Option<&Labels>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(
        labels.iter().flat_map(|labels| labels.iter()).map(|(name, value)| (name.as_str(), value.as_str())),
    )
}

/// Whole seconds since 1970, rounded down.
pub(super) fn seconds(at: Timestamp) -> i64 {
    at.epoch_ms().div_euclid(1000)
}

/// The expiry of a grant whose lease expires at `expires_at`, rounded up to whole seconds, so that the grant of a live lease is
/// valid.
pub(super) fn expiry_s(expires_at: Timestamp, leeway_s: u32) -> i64 {
    seconds(expires_at.plus_s(leeway_s).plus_ms(999))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grants_expire_with_the_lease_and_the_leeway() {
        for (expires_at_ms, leeway_s, expiry) in [(90_000, 0, 90), (90_001, 0, 91), (90_000, 30, 120)] {
            assert_eq!(expiry_s(Timestamp::from_epoch_ms(expires_at_ms), leeway_s), expiry);
        }
    }
}
