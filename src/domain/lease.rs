//! Leases and the arithmetic of time: plain data and pure functions. Nothing here reads a clock.

use std::fmt;

use crate::domain::names::{ContentId, DeviceId, DeviceName, StreamId};

/// An instant, in milliseconds since 1970-01-01 UTC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

/// How many live streams a user may hold: 1 to 50, so that one transaction can always replace all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct StreamLimit(u8);

/// How long a lease lives after each renewal, and how long it is kept after that for its player to learn why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseTerms {
    pub duration_s: u32,
    pub retention_s: u32,
}

/// One stream's slot, held until `expires_at` unless it was ended before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    pub stream_id: StreamId,
    pub device_id: Option<DeviceId>,
    pub device_name: Option<DeviceName>,
    pub content_id: Option<ContentId>,
    /// What a keyed start asked for; absent when it had no key.
    pub fingerprint: Option<Fingerprint>,
    pub started_at: Timestamp,
    pub expires_at: Timestamp,
    /// Second from which storage may delete it. Never earlier than `expires_at` when the lease is written.
    pub ttl_s: i64,
    /// Set when somebody else ended it; such a lease is never live again.
    pub termination: Option<Box<Termination>>,
}

/// Who ended a lease that its own player did not stop, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Termination {
    pub reason: EndReason,
    pub ended_by: Option<EndedBy>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndReason {
    /// Pushed out to make room, or ended by another device or by support.
    Evicted,
    /// Its own device started again, or a start named it in `replaces`.
    Replaced,
}

/// The start that ended a lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndedBy {
    pub stream_id: StreamId,
    pub device_name: Option<DeviceName>,
}

/// A digest of what a keyed start asked for: the same key with another body is a mistake of the caller.
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

    /// Whole seconds from `now` until this instant, rounded up; 0 when it has passed.
    pub const fn seconds_after(self, now: Self) -> u32 {
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
    /// What most services of this kind grant.
    pub const DEFAULT: Self = Self(3);

    /// None unless `limit` is 1 to 50.
    pub const fn new(limit: u64) -> Option<Self> {
        if limit >= 1 && limit <= Self::MAX as u64 { Some(Self(limit as u8)) } else { None }
    }

    pub const fn get(self) -> u8 {
        self.0
    }

    /// By how many this many live streams are more than the limit allows.
    pub const fn exceeded_by(self, live: usize) -> usize {
        live.saturating_sub(self.0 as usize)
    }

    /// How many more streams may start beside this many live ones.
    pub const fn remaining(self, live: usize) -> usize {
        (self.0 as usize).saturating_sub(live)
    }
}

impl fmt::Display for StreamLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl LeaseTerms {
    /// When a lease that is granted or renewed at `now` runs out.
    pub const fn expires_at(&self, now: Timestamp) -> Timestamp {
        now.plus_s(self.duration_s)
    }

    /// Which share of a lease that runs out at `expiry` has passed at `now`: 0 as it was granted, 1 as it runs out.
    pub fn share_passed(&self, expiry: Timestamp, now: Timestamp) -> f64 {
        let left_ms = expiry.0.saturating_sub(now.0) as f64;
        let duration_ms = f64::from(self.duration_s) * 1000.0;
        // Below 0 only by another clock, or by a lease that was longer before the setting changed.
        (1.0 - left_ms / duration_ms).clamp(0.0, 1.0)
    }

    /// The epoch second after which storage may delete what matters until `until`. Rounded up: DynamoDB's TTL
    /// works in seconds, and a lease must never look deletable before it has run out.
    pub const fn ttl_s(&self, until: Timestamp) -> i64 {
        (until.plus_s(self.retention_s).0.saturating_add(999)) / 1000
    }
}

impl Lease {
    /// Live: not ended, and `expires_at` is in the future of `now`.
    pub fn is_live_at(&self, now: Timestamp) -> bool {
        self.termination.is_none() && self.expires_at > now
    }

    /// Puts the oldest first: by `started_at`, then by id.
    pub fn by_age(&self, other: &Self) -> std::cmp::Ordering {
        (self.started_at, self.stream_id).cmp(&(other.started_at, other.stream_id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_are_rounded_up_and_never_negative() {
        let now = Timestamp::from_epoch_ms(10_000);
        for (at, seconds) in [(9_000, 0), (10_000, 0), (10_001, 1), (11_000, 1), (11_001, 2), (i64::MAX, u32::MAX)] {
            assert_eq!(Timestamp::from_epoch_ms(at).seconds_after(now), seconds, "{at}");
        }
    }

    #[test]
    fn ttl_is_in_seconds_and_never_before_the_retention_has_passed() {
        let terms = LeaseTerms { duration_s: 90, retention_s: 10 };
        assert_eq!(terms.ttl_s(Timestamp::from_epoch_ms(1_000)), 11);
        assert_eq!(terms.ttl_s(Timestamp::from_epoch_ms(1_001)), 12);
    }

    #[test]
    fn the_share_of_a_lease_that_has_passed_is_0_as_it_was_granted_and_1_as_it_runs_out() {
        let terms = LeaseTerms { duration_s: 90, retention_s: 10 };
        let expiry = Timestamp::from_epoch_ms(90_000);
        for (now_ms, share) in [(0, 0.0), (45_000, 0.5), (90_000, 1.0), (-5_000, 0.0)] {
            assert_eq!(terms.share_passed(expiry, Timestamp::from_epoch_ms(now_ms)), share, "{now_ms}");
        }
    }

    #[test]
    fn a_limit_is_one_to_fifty() {
        assert_eq!(
            [0, 1, 50, 51].map(|n| StreamLimit::new(n).map(StreamLimit::get)),
            [None, Some(1), Some(50), None]
        );
    }
}
