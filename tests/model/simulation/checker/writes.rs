//! Checks applied writes: each one must explain every difference between the user's states before and after it.

use stream_manager::domain::admission::{AtLimit, MAX_ENDED_LEASES};
use stream_manager::domain::lease::{EndReason, Lease, StreamLimit, Termination, Timestamp};
use stream_manager::domain::names::StreamId;
use stream_manager::limiter::StartOptions;

use super::violation::{Violation, ViolationKind};
use crate::simulation::state::{ShortId, StoreWrite, UserState, short_ids};

pub struct WriteCheck<'a> {
    pub before: &'a UserState,
    pub after: &'a UserState,
    pub write: &'a StoreWrite,
    /// The options of the start that sent the write, if a start sent it.
    pub options: Option<&'a StartOptions>,
    pub default_limit: StreamLimit,
}

type CheckResult = Result<(), Violation>;

impl WriteCheck<'_> {
    pub fn run(&self) -> CheckResult {
        for lease in self.after.leases.values() {
            self.check_stored(lease)?;
        }
        for lease in self.before.leases.values() {
            match self.after.lease(lease.stream_id) {
                None => self.check_deleted(lease)?,
                Some(new) if new != lease => self.check_changed(lease, new)?,
                Some(_) => {}
            }
        }
        self.check_members()?;
        self.check_stored_limit()?;
        self.check_counts()
    }

    fn check_stored(&self, lease: &Lease) -> CheckResult {
        let id = ShortId(lease.stream_id);
        if lease.termination.is_some() {
            return Ok(());
        }
        if !self.after.members.contains(&lease.stream_id) {
            return Err(ViolationKind::NotCounted.with(format!("{id} after {}", self.write)));
        }
        if lease.ttl_s * 1000 < lease.expires_at.epoch_ms() {
            return Err(ViolationKind::ExpiryMovedBack.with(format!("the TTL of {id} is before its expiry")));
        }
        match (self.before.lease(lease.stream_id), self.write) {
            (Some(_), _) => Ok(()),
            (None, StoreWrite::Start { stream_id, .. }) if *stream_id == lease.stream_id => Ok(()),
            (None, write) => Err(ViolationKind::UnexplainedLease.with(format!("{id} after {write}"))),
        }
    }

    fn check_deleted(&self, lease: &Lease) -> CheckResult {
        let explained = match self.write {
            StoreWrite::Stop { stream_id } => *stream_id == lease.stream_id && lease.termination.is_none(),
            // Starts and evictions prune ended leases.
            StoreWrite::Start { .. } | StoreWrite::Evict { .. } | StoreWrite::Prune
                if lease.termination.is_some() =>
            {
                self.keeps_enough_ended_leases()
            }
            StoreWrite::Start { now, .. } => lease.expires_at <= *now,
            StoreWrite::Sweep { now } => lease.ttl_s * 1000 <= now.epoch_ms(),
            StoreWrite::Heartbeat { .. }
            | StoreWrite::Evict { .. }
            | StoreWrite::Prune
            | StoreWrite::SetLimit { .. } => false,
        };
        let details = || format!("{} was deleted by {}", ShortId(lease.stream_id), self.write);
        if explained { Ok(()) } else { Err(ViolationKind::TakenEarly.with(details())) }
    }

    /// Pruning must leave at least `MAX_ENDED_LEASES` ended leases, so that players can still learn why their streams
    /// ended.
    fn keeps_enough_ended_leases(&self) -> bool {
        self.after.leases.values().filter(|lease| lease.termination.is_some()).count() >= MAX_ENDED_LEASES
    }

    fn check_changed(&self, old: &Lease, new: &Lease) -> CheckResult {
        let id = ShortId(old.stream_id);
        match (&old.termination, &new.termination) {
            (Some(_), _) => Err(ViolationKind::EndedLeaseChanged.with(format!("{id} by {}", self.write))),
            (None, Some(termination)) => self.check_ended(old, new, termination),
            (None, None) if new.expires_at < old.expires_at => {
                Err(ViolationKind::ExpiryMovedBack.with(format!("{id} by {}", self.write)))
            }
            (None, None) => match self.write {
                StoreWrite::Heartbeat { stream_id, now }
                    if *stream_id == old.stream_id && new.started_at == old.started_at =>
                {
                    let details = || format!("{id} had expired before {}", self.write);
                    if old.expires_at > *now { Ok(()) } else { Err(ViolationKind::ExpiredRenewed.with(details())) }
                }
                // A repeated start replaces its own expired lease.
                StoreWrite::Start { stream_id, now } if *stream_id == old.stream_id && old.expires_at <= *now => {
                    Ok(())
                }
                write => Err(ViolationKind::TakenEarly.with(format!("{id} was overwritten by {write}"))),
            },
        }
    }

    fn check_ended(&self, old: &Lease, new: &Lease, termination: &Termination) -> CheckResult {
        let id = ShortId(old.stream_id);
        if new.expires_at != old.expires_at {
            let details = format!("{} ended {id} and changed its expiry", self.write);
            return Err(ViolationKind::EndedLeaseChanged.with(details));
        }
        match (self.write, &termination.ended_by) {
            (StoreWrite::Evict { stream_id }, None) if *stream_id == old.stream_id => Ok(()),
            (StoreWrite::Start { stream_id, now }, Some(by)) if by.stream_id == *stream_id => {
                let admitted = self.after.lease(*stream_id).is_some_and(|own| own.termination.is_none());
                if !admitted {
                    return Err(ViolationKind::PartialStart.with(format!("{id} by {}", self.write)));
                }
                let requested = self.options.is_some_and(|options| ends(options, old, termination.reason));
                if requested && old.expires_at > *now {
                    return Ok(());
                }
                let details = format!("{id} by {}, which did not request it", self.write);
                Err(ViolationKind::TakenEarly.with(details))
            }
            (write, _) => Err(ViolationKind::TakenEarly.with(format!("{id} was ended by {write}"))),
        }
    }

    fn check_members(&self) -> CheckResult {
        let (before, after) = (self.before, self.after);
        let added: Vec<&StreamId> = after.members.difference(&before.members).collect();
        let removed: Vec<&StreamId> = before.members.difference(&after.members).collect();
        let explained = match self.write {
            // The lease checks cover the removed members.
            StoreWrite::Start { stream_id, .. } => added.iter().all(|id| *id == stream_id),
            StoreWrite::Stop { stream_id } | StoreWrite::Evict { stream_id } => {
                added.is_empty() && removed.iter().all(|id| *id == stream_id)
            }
            // In the memory store, a sweep also removes members, because they are not stored separately. On DynamoDB,
            // TTL deletes only leases.
            StoreWrite::Sweep { .. } => added.is_empty() && removed.iter().all(|id| after.lease(**id).is_none()),
            StoreWrite::Heartbeat { .. } | StoreWrite::Prune | StoreWrite::SetLimit { .. } => {
                added.is_empty() && removed.is_empty()
            }
        };
        if explained {
            return Ok(());
        }
        let details = format!("{}: added{}, removed{}", self.write, short_ids(added), short_ids(removed));
        Err(ViolationKind::UnexplainedMembership.with(details))
    }

    fn check_stored_limit(&self) -> CheckResult {
        let expected = match self.write {
            StoreWrite::SetLimit { limit } => *limit,
            _ => self.before.stored_limit,
        };
        if self.after.stored_limit == expected {
            return Ok(());
        }
        let details = format!("{}: the stored limit is {:?}", self.write, self.after.stored_limit);
        Err(ViolationKind::UnexplainedMembership.with(details))
    }

    fn check_counts(&self) -> CheckResult {
        let (before, after) = (self.before, self.after);
        let limit = before.limit(self.default_limit).get() as usize;
        let grown = after.renewable() > before.renewable().max(limit);
        let StoreWrite::Start { stream_id, now } = self.write else {
            let details = || format!("{} of {limit}", after.renewable());
            return if grown { Err(ViolationKind::OverLimit.with(details())) } else { Ok(()) };
        };
        let most = after.members.len().max(after.renewable());
        let admitted = after.lease(*stream_id) != before.lease(*stream_id);
        if grown || (admitted && most > limit) {
            return Err(ViolationKind::OverLimit.with(format!("{most} of {limit} after {}", self.write)));
        }
        self.check_evictions(*stream_id, *now, limit)?;
        if admitted { self.check_replacements(*stream_id, *now) } else { Ok(()) }
    }

    /// A start must end every stream that it replaces, so that a page reload never takes two slots.
    fn check_replacements(&self, own: StreamId, now: Timestamp) -> CheckResult {
        let kept = self.after.leases.values().find(|lease| {
            let replaced = self.options.is_some_and(|options| replaces(options, lease));
            lease.stream_id != own && lease.is_live_at(now) && replaced
        });
        let details = |lease: &Lease| format!("{} is still live after {}", ShortId(lease.stream_id), ShortId(own));
        kept.map_or(Ok(()), |lease| Err(ViolationKind::NotReplaced.with(details(lease))))
    }

    /// A start must evict only as many streams as it needs for one slot, beginning with the oldest.
    fn check_evictions(&self, own: StreamId, now: Timestamp, limit: usize) -> CheckResult {
        let evicted: Vec<&Lease> = self.before.leases.values().filter(|lease| self.is_evicted(lease)).collect();
        let Some(youngest) = evicted.iter().max_by(|a, b| a.by_age(b)) else { return Ok(()) };
        if self.after.members.len() < limit {
            let details = format!("{} left a slot free", ShortId(own));
            return Err(ViolationKind::UnneededEviction.with(details));
        }
        let kept = self.before.leases.values().filter(|lease| {
            lease.stream_id != own && lease.is_live_at(now) && self.after.members.contains(&lease.stream_id)
        });
        match kept.into_iter().find(|lease| lease.by_age(youngest).is_lt()) {
            None => Ok(()),
            Some(older) => Err(ViolationKind::UnneededEviction.with(format!(
                "{} was evicted, but {} is older",
                ShortId(youngest.stream_id),
                ShortId(older.stream_id)
            ))),
        }
    }

    fn is_evicted(&self, lease: &Lease) -> bool {
        let termination = self.after.lease(lease.stream_id).and_then(|lease| lease.termination.as_ref());
        lease.termination.is_none() && termination.is_some_and(|termination| termination.reason == EndReason::Evicted)
    }
}

/// Whether a start with these options can end the stream for this reason.
fn ends(options: &StartOptions, lease: &Lease, reason: EndReason) -> bool {
    match reason {
        EndReason::Replaced => replaces(options, lease),
        EndReason::Evicted => options.at_limit == Some(AtLimit::EvictOldest),
    }
}

/// Whether a start with these options replaces the stream.
pub fn replaces(options: &StartOptions, lease: &Lease) -> bool {
    options.replaces.contains(&lease.stream_id)
        || (options.device_id.is_some() && options.device_id == lease.device_id)
}
