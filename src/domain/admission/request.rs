//! A start request: its fields, its effective limit, and whether it needs a read.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::domain::labels::Labels;
use crate::domain::lease::{Fingerprint, Lease, LeaseTerms, StreamLimit, Timestamp, UserLimit};
use crate::domain::names::{ContentId, DeviceId, DeviceName, StreamId};
use crate::domain::rules::{LimitMode, Rule};

/// A request to start a stream. Repeating it with the same `stream_id` never takes a second slot.
#[derive(Clone, Debug)]
pub struct StartRequest {
    pub stream_id: StreamId,
    /// Present if the stream id is derived from an idempotency key.
    pub fingerprint: Option<Fingerprint>,
    pub device_id: Option<DeviceId>,
    pub device_name: Option<DeviceName>,
    pub content_id: Option<ContentId>,
    pub labels: Labels,
    /// Streams of the same user that this start ends. Unknown ids are ignored.
    pub replaces: Vec<StreamId>,
    pub at_limit: AtLimit,
    /// The limit in the caller's token. It overrides the stored limit, unless the stored limit is 0.
    pub token_limit: Option<StreamLimit>,
    /// The limit of a user without a stored limit.
    pub default_limit: StreamLimit,
    /// The mode of the user's own limit. Each rule has its own mode.
    pub limit_mode: LimitMode,
    /// The maximum number of live streams of a user in observe mode: [`StreamLimit::HIGHEST`], except in tests. At least as high as any
    /// limit.
    pub hard_limit: StreamLimit,
    /// All rules. Only those that apply to the labels of this start are evaluated.
    pub rules: Arc<[Rule]>,
    pub terms: LeaseTerms,
}

/// What a start does when the limit is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub enum AtLimit {
    Reject,
    EvictOldest,
}

/// How a start treats a lease that is already stored under its stream id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PriorLease {
    Live,
    Ended,
    /// The lease has another fingerprint.
    KeyReused,
    /// The start may be admitted again.
    Expired,
}

impl StartRequest {
    /// Whether the decision depends on the user's other streams. A blocked user's start also needs a read, because its
    /// denial lists the streams or, in observe mode, because its report counts them. The counter does not contain the labels, so a start to
    /// which a rule applies needs a read too.
    pub fn needs_read(&self) -> bool {
        self.device_id.is_some()
            || !self.replaces.is_empty()
            || self.limit(None).is_blocked()
            || self.rules.iter().any(|rule| rule.applies_to(&self.labels))
    }

    /// Whether the start ends this live stream because it is from the same device or in `replaces`.
    pub(super) fn replaces_lease(&self, lease: &Lease) -> bool {
        self.replaces.contains(&lease.stream_id) || (self.device_id.is_some() && lease.device_id == self.device_id)
    }

    /// The effective limit. `stored` is the user's stored limit.
    pub fn limit(&self, stored: Option<StreamLimit>) -> StreamLimit {
        self.user_limit(stored).limit
    }

    /// The effective limit and its source.
    pub fn user_limit(&self, stored: Option<StreamLimit>) -> UserLimit {
        UserLimit::effective(self.token_limit, stored, self.default_limit)
    }

    /// The lease of a start that is admitted at `now`.
    pub fn lease(&self, now: Timestamp) -> Lease {
        let expires_at = self.terms.expires_at(now);
        Lease {
            stream_id: self.stream_id,
            device_id: self.device_id.clone(),
            device_name: self.device_name.clone(),
            content_id: self.content_id.clone(),
            labels: self.labels.clone(),
            fingerprint: self.fingerprint,
            started_at: now,
            expires_at,
            ttl_s: self.terms.ttl_s(expires_at),
            termination: None,
        }
    }

    /// Classifies the lease that is stored under this request's stream id. An expired lease counts as missing even if
    /// its fingerprint differs, because any other start of the user may delete it at any time.
    pub(crate) fn classify(&self, stored: &Lease, now: Timestamp) -> PriorLease {
        if stored.termination.is_none() && stored.expires_at <= now {
            PriorLease::Expired
        } else if stored.fingerprint != self.fingerprint {
            PriorLease::KeyReused
        } else if stored.termination.is_some() {
            PriorLease::Ended
        } else {
            PriorLease::Live
        }
    }
}
