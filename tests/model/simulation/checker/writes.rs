//! Checks applied writes: every difference between the user's states before and after a write must be an effect of that write.

use std::sync::Arc;

use stream_manager::domain::admission::{AtLimit, MAX_ENDED_LEASES};
use stream_manager::domain::lease::{EndReason, EndedBy, Lease, Termination, Timestamp};
use stream_manager::domain::names::{ContentId, StreamId};
use stream_manager::domain::rules::LimitMode;
use stream_manager::limiter::{Policy, StartOptions};

use super::violation::{Violation, ViolationKind};
use crate::simulation::api::Operation;
use crate::simulation::state::{ShortId, StoreWrite, UserState, short_ids};

pub struct WriteCheck<'a> {
    pub before: &'a UserState,
    pub after: &'a UserState,
    pub write: &'a StoreWrite,
    /// The operation of the call that sent the write. `None` for a sweep.
    pub operation: Option<&'a Operation>,
    /// The user's states since the beginning of that call.
    pub during_call: &'a [Arc<UserState>],
    /// The settings of the instance that handles the call.
    pub policy: &'a Policy,
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
        self.check_counts()?;
        self.check_selection()?;
        self.check_counter()
    }

    /// The options of the start that sent the write.
    pub fn options(&self) -> Option<&StartOptions> {
        match self.operation {
            Some(Operation::Start(options, _)) => Some(options),
            _ => None,
        }
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
            // An erasure deletes the leases of the streams that it ends, and no others.
            StoreWrite::End { .. } if matches!(self.operation, Some(Operation::Erase)) => {
                self.before.members.contains(&lease.stream_id)
            }
            // Requests that change the members prune ended leases.
            StoreWrite::Start { .. } | StoreWrite::End { .. } if lease.termination.is_some() => {
                self.keeps_enough_ended_leases()
            }
            StoreWrite::Start { now, .. } | StoreWrite::End { now: Some(now), .. } => lease.expires_at <= *now,
            StoreWrite::Purge | StoreWrite::DeleteEnded => lease.termination.is_some(),
            StoreWrite::Sweep { now } => lease.ttl_s * 1000 <= now.epoch_ms(),
            StoreWrite::Heartbeat { .. }
            | StoreWrite::End { now: None, .. }
            | StoreWrite::Bury
            | StoreWrite::SetLimit { .. } => false,
        };
        let erases = matches!(self.write, StoreWrite::Purge | StoreWrite::DeleteEnded | StoreWrite::Bury);
        if erases && !matches!(self.operation, Some(Operation::Erase)) {
            return Err(ViolationKind::TakenEarly.with(format!("{} without an erasure", self.write)));
        }
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
                StoreWrite::Heartbeat { stream_id, now, content }
                    if *stream_id == old.stream_id && *new == renewed(old, new, content.as_ref()) =>
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
            (StoreWrite::End { .. }, by)
                if termination.reason == EndReason::Evicted && self.requests_end(old, by) =>
            {
                Ok(())
            }
            (StoreWrite::Start { stream_id, now }, Some(by)) if by.stream_id == Some(*stream_id) => {
                let admitted = self.after.lease(*stream_id).is_some_and(|own| own.termination.is_none());
                if !admitted {
                    return Err(ViolationKind::PartialStart.with(format!("{id} by {}", self.write)));
                }
                let requested = self.options().is_some_and(|options| ends(options, old, termination.reason));
                if requested && old.expires_at > *now {
                    return Ok(());
                }
                let details = format!("{id} by {}, which did not request it", self.write);
                Err(ViolationKind::TakenEarly.with(details))
            }
            (write, _) => Err(ViolationKind::TakenEarly.with(format!("{id} was ended by {write}"))),
        }
    }

    /// Whether the operation may end the stream with this `endedBy`.
    fn requests_end(&self, lease: &Lease, by: &Option<EndedBy>) -> bool {
        match self.operation {
            Some(Operation::Evict(ids, message)) => {
                let expected =
                    message.clone().map(|message| EndedBy { message: Some(message), ..EndedBy::default() });
                ids.as_ref().is_none_or(|ids| ids.contains(&lease.stream_id)) && *by == expected
            }
            Some(Operation::EndExcess(_)) => by.is_none(),
            _ => false,
        }
    }

    fn check_members(&self) -> CheckResult {
        let (before, after) = (self.before, self.after);
        let added: Vec<&StreamId> = after.members.difference(&before.members).collect();
        let removed: Vec<&StreamId> = before.members.difference(&after.members).collect();
        let explained = match self.write {
            // The checks of the leases also cover the removed members.
            StoreWrite::Start { stream_id, .. } => added.iter().all(|id| *id == stream_id),
            StoreWrite::End { .. } => added.is_empty(),
            StoreWrite::Stop { stream_id } => added.is_empty() && removed.iter().all(|id| *id == stream_id),
            // In the memory store, a sweep also removes members, because they are not stored separately. On DynamoDB,
            // TTL deletes only leases and tombstones.
            StoreWrite::Sweep { .. } => {
                let with_lease = |id: &StreamId| before.counter.is_none() && after.lease(*id).is_none();
                added.is_empty() && removed.iter().all(|id| with_lease(id))
            }
            StoreWrite::Heartbeat { .. }
            | StoreWrite::Purge
            | StoreWrite::DeleteEnded
            | StoreWrite::Bury
            | StoreWrite::SetLimit { .. } => added.is_empty() && removed.is_empty(),
        };
        if explained {
            return Ok(());
        }
        let details = format!("{}: added{}, removed{}", self.write, short_ids(added), short_ids(removed));
        Err(ViolationKind::UnexplainedMembership.with(details))
    }

    fn check_stored_limit(&self) -> CheckResult {
        let expected = match (self.write, self.operation) {
            (StoreWrite::SetLimit { limit }, _) => *limit,
            (StoreWrite::End { .. }, Some(Operation::EndExcess(limit))) => Some(*limit),
            (StoreWrite::Purge | StoreWrite::Bury, _) => None,
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
        let token_limit = self.options().and_then(|options| options.token_limit);
        let observes = self.policy.limit_mode == LimitMode::Observe;
        let own_limit = before.limit(token_limit, self.policy.default_limit);
        let limit = usize::from(if observes { self.policy.hard_limit } else { own_limit }.get());
        let grown = after.renewable() > before.renewable().max(limit);
        let StoreWrite::Start { stream_id, now } = self.write else {
            let details = || format!("{} of {limit}", after.renewable());
            return if grown { Err(ViolationKind::OverLimit.with(details())) } else { self.check_rules(None) };
        };
        let most = after.members.len().max(after.renewable());
        let admitted = after.lease(*stream_id) != before.lease(*stream_id);
        if grown || (admitted && most > limit) {
            return Err(ViolationKind::OverLimit.with(format!("{most} of {limit} after {}", self.write)));
        }
        self.check_rules(after.lease(*stream_id).filter(|_| admitted))?;
        // A limit in observe mode evicts nothing.
        let evicting_limit = if observes { usize::MAX } else { limit };
        match self.has_rules() {
            true => self.check_evictions_by_rules(evicting_limit, *stream_id, *now)?,
            false => self.check_evictions(evicting_limit, Some(*stream_id))?,
        }
        if admitted { self.check_replacements(*stream_id, *now) } else { Ok(()) }
    }

    /// A request that ends streams must end all streams that it selects, in one step.
    fn check_selection(&self) -> CheckResult {
        if !matches!(self.write, StoreWrite::End { .. }) {
            return Ok(());
        }
        let left: Vec<&StreamId> = match self.operation {
            Some(Operation::Evict(Some(ids), _)) => ids.iter().filter(|id| self.after.members.contains(id)).collect(),
            Some(Operation::EndExcess(limit)) => {
                let limit = limit.get() as usize;
                let most = self.after.members.len().max(self.after.renewable());
                if most > limit {
                    return Err(ViolationKind::OverLimit.with(format!("{most} of {limit} after {}", self.write)));
                }
                self.check_evictions(limit, None)?;
                Vec::new()
            }
            _ => self.after.members.iter().collect(),
        };
        if left.is_empty() {
            return Ok(());
        }
        Err(ViolationKind::NotEnded.with(format!("{} left{}", self.write, short_ids(left))))
    }

    /// Only a tombstone has a TTL, and only its TTL deletes a counter. Otherwise, a later counter could reach the revision
    /// that a delayed write has read.
    fn check_counter(&self) -> CheckResult {
        let ttl_s = |state: &UserState| state.counter.and_then(|counter| counter.ttl_s);
        let expired = |ttl_s: i64| matches!(self.write, StoreWrite::Sweep { now } if ttl_s * 1000 <= now.epoch_ms());
        if self.before.counter.is_some() && self.after.counter.is_none() && !ttl_s(self.before).is_some_and(expired) {
            return Err(ViolationKind::CounterLost.with(format!("by {}", self.write)));
        }
        let is_empty = self.after.members.is_empty() && self.after.stored_limit.is_none();
        if ttl_s(self.after).is_some() && !is_empty {
            return Err(ViolationKind::NotPermanent.with(format!("after {}", self.write)));
        }
        Ok(())
    }

    /// A start must end every stream that it replaces, so that a page reload never takes two slots.
    fn check_replacements(&self, own: StreamId, now: Timestamp) -> CheckResult {
        let kept = self.after.leases.values().find(|lease| {
            let replaced = self.options().is_some_and(|options| replaces(options, lease));
            lease.stream_id != own && lease.is_live_at(now) && replaced
        });
        let details = |lease: &Lease| format!("{} is still live after {}", ShortId(lease.stream_id), ShortId(own));
        kept.map_or(Ok(()), |lease| Err(ViolationKind::NotReplaced.with(details(lease))))
    }
}

/// The lease `old` with the expiry and TTL of `new`, and the content of the heartbeat.
fn renewed(old: &Lease, new: &Lease, content: Option<&ContentId>) -> Lease {
    let content_id = content.or(old.content_id.as_ref()).cloned();
    Lease { expires_at: new.expires_at, ttl_s: new.ttl_s, content_id, ..old.clone() }
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
