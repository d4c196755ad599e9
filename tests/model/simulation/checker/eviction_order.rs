//! Checks that a write evicts no more streams than necessary, in this order: overdue streams first, then the others, the
//! oldest first in both groups. A heartbeat may have renewed a stream after the read on which the write is based, so the
//! check accepts both versions of its lease.

use std::ops::RangeInclusive;

use stream_manager::domain::lease::{EndReason, Lease, Timestamp};
use stream_manager::domain::names::StreamId;

use super::violation::{Violation, ViolationKind};
use super::writes::WriteCheck;
use crate::simulation::state::{StoreWrite, short_ids};

impl WriteCheck<'_> {
    /// A write must evict only as many streams as the limit requires, in eviction order. `own` is the stream that is being
    /// started, if any.
    pub fn check_evictions(&self, limit: usize, own: Option<StreamId>) -> Result<(), Violation> {
        let evicted = self.evicted();
        let Some(first) = evicted.first() else { return Ok(()) };
        let ids = |leases: &[&Lease]| short_ids(leases.iter().map(|lease| &lease.stream_id));
        if self.after.members.len() < limit {
            let details = format!("{} evicted{} and left a slot free", self.write, ids(&evicted));
            return Err(ViolationKind::UnneededEviction.with(details));
        }
        let is_kept = |lease: &&Lease| Some(lease.stream_id) != own && self.after.members.contains(&lease.stream_id);
        let kept: Vec<&Lease> = self.before.held().filter(is_kept).collect();
        if self.times(first).any(|now| self.is_in_order(&evicted, &kept, now)) {
            return Ok(());
        }
        let details = format!("{} evicted{} and kept{}", self.write, ids(&evicted), ids(&kept));
        Err(ViolationKind::UnneededEviction.with(details))
    }

    /// Whether the write evicts an overdue stream and keeps an older one that is not overdue.
    pub fn evicts_overdue_before_older(&self) -> bool {
        let evicted = self.evicted();
        let kept = || self.before.held().filter(|lease| self.after.members.contains(&lease.stream_id));
        evicted.iter().any(|evicted| kept().any(|kept| kept.by_age(evicted).is_lt()))
    }

    /// The streams that the write evicts.
    fn evicted(&self) -> Vec<&Lease> {
        let is_evicted = |lease: &&Lease| {
            let termination = self.after.lease(lease.stream_id).and_then(|lease| lease.termination.as_ref());
            termination.is_some_and(|termination| termination.reason == EndReason::Evicted)
        };
        self.before.leases.values().filter(|lease| lease.termination.is_none()).filter(is_evicted).collect()
    }

    /// The possible times of the decision. If the request does not contain the time, the TTL of an evicted lease shows it
    /// with a precision of one second.
    fn times(&self, evicted: &Lease) -> impl Iterator<Item = Timestamp> {
        let exact = |now: &Timestamp| now.epoch_ms()..=now.epoch_ms();
        let times: RangeInclusive<i64> = match self.write {
            StoreWrite::Start { now, .. } | StoreWrite::End { now: Some(now), .. } => exact(now),
            _ => {
                let ttl_s = self.after.lease(evicted.stream_id).map_or(0, |lease| lease.ttl_s);
                let last = 1000 * (ttl_s - i64::from(self.policy.terms.retention_s));
                last - 999..=last
            }
        };
        times.map(Timestamp::from_epoch_ms)
    }

    fn is_in_order(&self, evicted: &[&Lease], kept: &[&Lease], now: Timestamp) -> bool {
        let key = |lease: &Lease, is_overdue: bool| (!is_overdue, lease.started_at, lease.stream_id);
        let first_key = |lease: &&Lease| key(lease, self.versions(lease).any(|lease| self.is_overdue(lease, now)));
        let last_key = |lease: &&Lease| key(lease, self.versions(lease).all(|lease| self.is_overdue(lease, now)));
        let was_live = |lease: &Lease| self.versions(lease).all(|lease| lease.is_live_at(now));
        let last_evicted = evicted.iter().map(first_key).max();
        let first_kept = kept.iter().filter(|lease| was_live(lease)).map(last_key).min();
        evicted.iter().all(|lease| lease.is_live_at(now)) && first_kept.is_none_or(|kept| last_evicted < Some(kept))
    }

    /// All versions of a lease since the beginning of the call that sent the write, except ended ones.
    pub fn versions(&self, lease: &Lease) -> impl Iterator<Item = &Lease> {
        let id = lease.stream_id;
        let earlier = self.during_call.iter().filter_map(move |state| state.lease(id)).chain(self.before.lease(id));
        earlier.filter(|lease| lease.termination.is_none())
    }

    /// Whether the last renewal is more than 1.5 heartbeat intervals ago. The expiry shows the time of the renewal, because
    /// the lease duration never changes during a run.
    pub fn is_overdue(&self, lease: &Lease, now: Timestamp) -> bool {
        let terms = self.policy.terms;
        let renewed_ms = lease.expires_at.epoch_ms() - 1000 * i64::from(terms.duration_s);
        2 * (now.epoch_ms() - renewed_ms) > 3000 * i64::from(terms.heartbeat_interval_s)
    }
}
