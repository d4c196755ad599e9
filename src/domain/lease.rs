//! Leases, limits and timestamps: plain data and pure functions. No function reads a clock.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::domain::labels::Labels;
use crate::domain::names::{ContentId, DeviceId, DeviceName, Message, StreamId};

/// An instant, in milliseconds since 1970-01-01 UTC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

/// The maximum number of live streams of a user: 0 to 50. 0 blocks the user. Because of the upper bound, one DynamoDB
/// transaction can end all streams of a user.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct StreamLimit(u8);

/// The limit that applies to a user, and where it comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UserLimit {
    pub limit: StreamLimit,
    pub source: LimitSource,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum LimitSource {
    Default,
    /// The stored limit of the user.
    User,
    /// The caller's token.
    Token,
}

/// How long a lease lasts, how often its player renews it, and how long it stays stored afterwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseTerms {
    /// The time from a start or renewal to the expiry.
    pub duration_s: u32,
    /// The time between two heartbeats of a player.
    pub heartbeat_interval_s: u32,
    /// How long an expired or ended lease stays stored, so that its player can learn the reason.
    pub retention_s: u32,
}

/// The right of one stream to a slot until `expires_at`, unless the lease is terminated earlier.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    pub stream_id: StreamId,
    pub device_id: Option<DeviceId>,
    pub device_name: Option<DeviceName>,
    pub content_id: Option<ContentId>,
    pub labels: Labels,
    /// The fingerprint of the start request, if it had an idempotency key.
    pub fingerprint: Option<Fingerprint>,
    pub started_at: Timestamp,
    pub expires_at: Timestamp,
    /// The time, in epoch seconds, after which the store may delete the lease. Starts and renewals set it to
    /// `expires_at` or later.
    pub ttl_s: i64,
    /// Set if the stream was evicted or replaced. A terminated lease is never live again.
    pub termination: Option<Box<Termination>>,
}

/// Why a lease was ended before its expiry. A stop by the player sets no termination, because it deletes the lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Termination {
    pub reason: EndReason,
    pub ended_by: Option<EndedBy>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndReason {
    /// Ended by a start that needed the slot, by an eviction request, or by a lowered limit.
    Evicted,
    /// Its device started another stream, or another start listed this stream in `replaces`.
    Replaced,
}

/// What ended a lease, reduced to the details that the viewer may see.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EndedBy {
    /// The stream whose start ended the lease.
    pub stream_id: Option<StreamId>,
    /// The device of that stream.
    pub device_name: Option<DeviceName>,
    /// A message to the viewer, from the request that ended the lease.
    pub message: Option<Message>,
}

/// A digest of a start request with an idempotency key. Used to detect a key that is reused for a different
/// request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fingerprint(pub uuid::Uuid);

impl Timestamp {
    pub const fn from_epoch_ms(ms: i64) -> Self {
        Self(ms)
    }

    pub const fn epoch_ms(self) -> i64 {
        self.0
    }

    pub const fn plus_s(self, seconds: u32) -> Self {
        self.plus_ms(seconds as i64 * 1000)
    }

    pub const fn plus_ms(self, ms: i64) -> Self {
        Self(self.0.saturating_add(ms))
    }

    /// Whole seconds from `now` until this instant, rounded up. 0 if the instant has passed.
    pub(crate) const fn seconds_after(self, now: Self) -> u32 {
        let ms = self.0.saturating_sub(now.0);
        if ms <= 0 {
            return 0;
        }
        let seconds = (ms - 1) / 1000 + 1;
        if seconds > u32::MAX as i64 { u32::MAX } else { seconds as u32 }
    }
}

impl StreamLimit {
    pub const MAX: u8 = 50;
    pub const HIGHEST: Self = Self(Self::MAX);
    /// A common limit of streaming services.
    pub const DEFAULT: Self = Self(3);

    /// `None` if `limit` is above 50.
    pub const fn new(limit: u64) -> Option<Self> {
        if limit <= Self::MAX as u64 { Some(Self(limit as u8)) } else { None }
    }

    /// The limit, or 50 if `limit` is above 50.
    pub const fn capped(limit: u64) -> Self {
        match Self::new(limit) {
            Some(limit) => limit,
            None => Self(Self::MAX),
        }
    }

    /// Whether the user may not start any stream.
    pub const fn is_blocked(self) -> bool {
        self.0 == 0
    }

    pub const fn get(self) -> u8 {
        self.0
    }

    /// By how many streams `live` exceeds the limit.
    pub const fn exceeded_by(self, live: usize) -> usize {
        live.saturating_sub(self.0 as usize)
    }

    /// How many more streams may start if `live` streams are already live.
    pub(crate) const fn remaining(self, live: usize) -> usize {
        (self.0 as usize).saturating_sub(live)
    }
}

impl UserLimit {
    /// A limit in the caller's token overrides the stored limit, and the stored limit overrides the default. A stored limit
    /// of 0 blocks the user, whatever the token contains.
    pub const fn effective(token: Option<StreamLimit>, stored: Option<StreamLimit>, default: StreamLimit) -> Self {
        match (token, stored) {
            (_, Some(limit)) if limit.is_blocked() => Self { limit, source: LimitSource::User },
            (Some(limit), _) => Self { limit, source: LimitSource::Token },
            (None, Some(limit)) => Self { limit, source: LimitSource::User },
            (None, None) => Self { limit: default, source: LimitSource::Default },
        }
    }
}

impl fmt::Display for StreamLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl LeaseTerms {
    /// The expiry of a lease that is granted or renewed at `now`.
    pub const fn expires_at(&self, now: Timestamp) -> Timestamp {
        now.plus_s(self.duration_s)
    }

    /// Which fraction of the lease duration has elapsed if the lease expires at `expiry`: 0 at the last renewal, 1 at
    /// the expiry.
    pub(crate) fn elapsed_fraction(&self, expiry: Timestamp, now: Timestamp) -> f64 {
        let left_ms = expiry.0.saturating_sub(now.0) as f64;
        let duration_ms = f64::from(self.duration_s) * 1000.0;
        // Without the clamp, the value can be negative under clock skew, or after the configured duration was lowered.
        (1.0 - left_ms / duration_ms).clamp(0.0, 1.0)
    }

    /// The epoch second after which the store may delete a lease that expires or ends at `until`. Rounded up, because
    /// DynamoDB's TTL counts whole seconds and must not delete a lease before its retention has passed.
    pub const fn ttl_s(&self, until: Timestamp) -> i64 {
        (until.plus_s(self.retention_s).0.saturating_add(999)) / 1000
    }
}

impl Lease {
    /// True if the lease is not terminated and `expires_at` is later than `now`.
    pub fn is_live_at(&self, now: Timestamp) -> bool {
        self.termination.is_none() && self.expires_at > now
    }

    /// Whether the player of a live lease has missed a heartbeat: the last renewal is more than 1.5 heartbeat intervals ago.
    /// The time of the last renewal is derived from the expiry and the configured duration. If the duration was raised after
    /// the renewal, the derived time is too early by the difference, but never before the start.
    pub fn is_overdue_at(&self, now: Timestamp, terms: &LeaseTerms) -> bool {
        let renewed_at = self.started_at.max(self.expires_at.plus_ms(-1000 * i64::from(terms.duration_s)));
        renewed_at.plus_ms(1500 * i64::from(terms.heartbeat_interval_s)) < now
    }

    /// Orders leases from the oldest to the newest: by `started_at`, then by stream id.
    pub fn by_age(&self, other: &Self) -> std::cmp::Ordering {
        (self.started_at, self.stream_id).cmp(&(other.started_at, other.stream_id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_round_up_and_are_never_negative() {
        let now = Timestamp::from_epoch_ms(10_000);
        for (at, seconds) in [(9_000, 0), (10_000, 0), (10_001, 1), (11_000, 1), (11_001, 2), (i64::MAX, u32::MAX)] {
            assert_eq!(Timestamp::from_epoch_ms(at).seconds_after(now), seconds, "{at}");
        }
    }

    #[test]
    fn ttl_rounds_up_to_the_end_of_the_retention() {
        let terms = LeaseTerms { duration_s: 90, heartbeat_interval_s: 30, retention_s: 10 };
        assert_eq!(terms.ttl_s(Timestamp::from_epoch_ms(1_000)), 11);
        assert_eq!(terms.ttl_s(Timestamp::from_epoch_ms(1_001)), 12);
    }

    #[test]
    fn elapsed_fraction_is_0_at_renewal_and_1_at_expiry() {
        let terms = LeaseTerms { duration_s: 90, heartbeat_interval_s: 30, retention_s: 10 };
        let expiry = Timestamp::from_epoch_ms(90_000);
        for (now_ms, fraction) in [(0, 0.0), (45_000, 0.5), (90_000, 1.0), (-5_000, 0.0)] {
            assert_eq!(terms.elapsed_fraction(expiry, Timestamp::from_epoch_ms(now_ms)), fraction, "{now_ms}");
        }
    }

    #[test]
    fn lease_is_overdue_more_than_1_5_intervals_after_its_last_renewal() {
        let terms = LeaseTerms { duration_s: 90, heartbeat_interval_s: 30, retention_s: 10 };
        let lease = |started_ms: i64, expires_ms: i64| Lease {
            stream_id: StreamId::random([1; 16]),
            device_id: None,
            device_name: None,
            content_id: None,
            labels: Labels::default(),
            fingerprint: None,
            started_at: Timestamp::from_epoch_ms(started_ms),
            expires_at: Timestamp::from_epoch_ms(expires_ms),
            ttl_s: 0,
            termination: None,
        };
        let overdue = |lease: Lease, now_ms| lease.is_overdue_at(Timestamp::from_epoch_ms(now_ms), &terms);
        assert!(!overdue(lease(0, 100_000), 55_000), "renewed at 10 s");
        assert!(overdue(lease(0, 100_000), 55_001));
        assert!(!overdue(lease(50_000, 100_000), 95_000), "never before the start");
        assert!(overdue(lease(50_000, 100_000), 95_001));
        assert!(!overdue(lease(0, i64::MAX), 95_000));
    }

    #[test]
    fn limits_are_0_to_50() {
        let limits = [0, 1, 50, 51, u64::MAX];
        assert_eq!(
            limits.map(|n| StreamLimit::new(n).map(StreamLimit::get)),
            [Some(0), Some(1), Some(50), None, None]
        );
        assert_eq!(limits.map(|n| StreamLimit::capped(n).get()), [0, 1, 50, 50, 50]);
    }
}
