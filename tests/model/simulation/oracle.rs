//! The oracle of writes: whether the difference between two states of a user is explained by the one write between
//! them. Written from the promises, not from the code that keeps them.

use stream_manager::domain::admission::{AtLimit, MAX_ENDED_LEASES};
use stream_manager::domain::lease::{EndReason, Lease, StreamLimit, Termination, Timestamp};
use stream_manager::domain::names::StreamId;
use stream_manager::limiter::StartOptions;

use super::state::{Act, Short, State, shorts};
use super::violation::{Rule, Violation};

/// One write, and what it was about.
pub struct Step<'a> {
    pub before: &'a State,
    pub after: &'a State,
    pub act: &'a Act,
    /// What the start asked for whose request this is.
    pub asked: Option<&'a StartOptions>,
    pub default_limit: StreamLimit,
}

type Verdict = Result<(), Violation>;

impl Step<'_> {
    pub fn check(&self) -> Verdict {
        for lease in self.after.leases.values() {
            self.stored(lease)?;
        }
        for lease in self.before.leases.values() {
            match self.after.lease(lease.stream_id) {
                None => self.removed(lease)?,
                Some(now) if now != lease => self.changed(lease, now)?,
                Some(_) => {}
            }
        }
        self.membership()?;
        self.numbers()
    }

    fn stored(&self, lease: &Lease) -> Verdict {
        let id = Short(lease.stream_id);
        if lease.termination.is_some() {
            return Ok(());
        }
        if !self.after.members.contains(&lease.stream_id) {
            return Err(Rule::Uncounted.broken(format!("{id} after {}", self.act)));
        }
        if lease.ttl_s * 1000 < lease.expires_at.epoch_ms() {
            return Err(Rule::ExpiryMovedBack.broken(format!("{id} may be deleted before it expires")));
        }
        match (self.before.lease(lease.stream_id), self.act) {
            (Some(_), _) => Ok(()),
            (None, Act::Start { stream_id, .. }) if *stream_id == lease.stream_id => Ok(()),
            (None, act) => Err(Rule::AppearedFromNowhere.broken(format!("{id} after {act}"))),
        }
    }

    fn removed(&self, lease: &Lease) -> Verdict {
        let explained = match self.act {
            Act::Stop { stream_id } => *stream_id == lease.stream_id && lease.termination.is_none(),
            // A start clears away what has expired, and as an eviction forgets what was ended long before.
            Act::Start { .. } | Act::Evict { .. } | Act::Forget if lease.termination.is_some() => {
                self.remembers_enough()
            }
            Act::Start { now, .. } => lease.expires_at <= *now,
            Act::Sweep { now } => lease.ttl_s * 1000 <= now.epoch_ms(),
            Act::Beat { .. } | Act::Evict { .. } | Act::Forget | Act::Limit { .. } => false,
        };
        let what = || format!("{} was deleted by {}", Short(lease.stream_id), self.act);
        if explained { Ok(()) } else { Err(Rule::TakenEarly.broken(what())) }
    }

    /// Whether ended leases were only forgotten because there are many: players must learn of the others.
    fn remembers_enough(&self) -> bool {
        self.after.leases.values().filter(|lease| lease.termination.is_some()).count() >= MAX_ENDED_LEASES
    }

    fn changed(&self, old: &Lease, new: &Lease) -> Verdict {
        let id = Short(old.stream_id);
        match (&old.termination, &new.termination) {
            (Some(_), _) => Err(Rule::CameBack.broken(format!("{id} by {}", self.act))),
            (None, Some(termination)) => self.ended(old, new, termination),
            (None, None) if new.expires_at < old.expires_at => {
                Err(Rule::ExpiryMovedBack.broken(format!("{id} by {}", self.act)))
            }
            (None, None) => match self.act {
                Act::Beat { stream_id, now } if *stream_id == old.stream_id && new.started_at == old.started_at => {
                    let what = || format!("{id} had expired when {}", self.act);
                    if old.expires_at > *now { Ok(()) } else { Err(Rule::RenewedAfterExpiry.broken(what())) }
                }
                // The same start again, after its first lease ran out.
                Act::Start { stream_id, now } if *stream_id == old.stream_id && old.expires_at <= *now => Ok(()),
                act => Err(Rule::TakenEarly.broken(format!("{id} was overwritten by {act}"))),
            },
        }
    }

    fn ended(&self, old: &Lease, new: &Lease, termination: &Termination) -> Verdict {
        let id = Short(old.stream_id);
        if new.expires_at != old.expires_at {
            return Err(Rule::CameBack.broken(format!("{id} was renewed as it was ended by {}", self.act)));
        }
        match (self.act, &termination.ended_by) {
            (Act::Evict { stream_id }, None) if *stream_id == old.stream_id => Ok(()),
            (Act::Start { stream_id, now }, Some(by)) if by.stream_id == *stream_id => {
                let admitted = self.after.lease(*stream_id).is_some_and(|own| own.termination.is_none());
                if !admitted {
                    return Err(Rule::HalfDone.broken(format!("{id} by {}", self.act)));
                }
                if self.asked.is_some_and(|asked| asked_for(asked, old, termination.reason)) && old.expires_at > *now
                {
                    return Ok(());
                }
                Err(Rule::TakenEarly.broken(format!("{id} by {}, which did not ask for it", self.act)))
            }
            (act, _) => Err(Rule::TakenEarly.broken(format!("{id} was ended by {act}"))),
        }
    }

    fn membership(&self) -> Verdict {
        let (before, after) = (self.before, self.after);
        let added: Vec<&StreamId> = after.members.difference(&before.members).collect();
        let removed: Vec<&StreamId> = before.members.difference(&after.members).collect();
        let explained = match self.act {
            // Which of them may go is judged by what became of their leases.
            Act::Start { stream_id, .. } => added.iter().all(|id| *id == stream_id),
            Act::Stop { stream_id } | Act::Evict { stream_id } => {
                added.is_empty() && removed.iter().all(|id| *id == stream_id)
            }
            // In memory a lease is its own membership; of the table TTL deletes leases only.
            Act::Sweep { .. } => added.is_empty() && removed.iter().all(|id| after.lease(**id).is_none()),
            Act::Beat { .. } | Act::Forget | Act::Limit { .. } => added.is_empty() && removed.is_empty(),
        };
        if !explained {
            let what = format!("{}: added{}, removed{}", self.act, shorts(added), shorts(removed));
            return Err(Rule::MembershipUnexplained.broken(what));
        }
        let limit = match self.act {
            Act::Limit { limit } => *limit,
            _ => before.own_limit,
        };
        let what = || format!("{}: the user's own limit is {:?}", self.act, after.own_limit);
        if after.own_limit == limit { Ok(()) } else { Err(Rule::MembershipUnexplained.broken(what())) }
    }

    fn numbers(&self) -> Verdict {
        let (before, after) = (self.before, self.after);
        let limit = before.limit(self.default_limit).get() as usize;
        let grown = after.renewable() > before.renewable().max(limit);
        let Act::Start { stream_id, now } = self.act else {
            return if grown {
                Err(Rule::OverLimit.broken(format!("{} of {limit}", after.renewable())))
            } else {
                Ok(())
            };
        };
        let most = after.members.len().max(after.renewable());
        let admitted = after.lease(*stream_id) != before.lease(*stream_id);
        if grown || (admitted && most > limit) {
            return Err(Rule::OverLimit.broken(format!("{most} of {limit} after {}", self.act)));
        }
        self.eviction(*stream_id, *now, limit)?;
        if admitted { self.replacement(*stream_id, *now) } else { Ok(()) }
    }

    /// What a start replaces does not live on beside it: a page reload never counts twice.
    fn replacement(&self, own: StreamId, now: Timestamp) -> Verdict {
        let beside = self.after.leases.values().find(|lease| {
            lease.stream_id != own && lease.is_live_at(now) && self.asked.is_some_and(|asked| replaces(asked, lease))
        });
        let what = |lease: &Lease| format!("{} lives on beside {}", Short(lease.stream_id), Short(own));
        beside.map_or(Ok(()), |lease| Err(Rule::NotReplaced.broken(what(lease))))
    }

    /// No more is evicted than makes room for one, and the oldest go.
    fn eviction(&self, own: StreamId, now: Timestamp, limit: usize) -> Verdict {
        let evicted: Vec<&Lease> = self.before.leases.values().filter(|lease| self.evicts(lease)).collect();
        let Some(youngest) = evicted.iter().max_by(|a, b| a.by_age(b)) else { return Ok(()) };
        if self.after.members.len() < limit {
            return Err(Rule::EvictedWithoutNeed.broken(format!("{} had room", Short(own))));
        }
        let kept = self.before.leases.values().filter(|lease| {
            lease.stream_id != own && lease.is_live_at(now) && self.after.members.contains(&lease.stream_id)
        });
        match kept.into_iter().find(|lease| lease.by_age(youngest).is_lt()) {
            None => Ok(()),
            Some(older) => Err(Rule::EvictedWithoutNeed.broken(format!(
                "{} was evicted, and {} is older",
                Short(youngest.stream_id),
                Short(older.stream_id)
            ))),
        }
    }

    fn evicts(&self, lease: &Lease) -> bool {
        let termination = self.after.lease(lease.stream_id).and_then(|lease| lease.termination.as_ref());
        lease.termination.is_none() && termination.is_some_and(|termination| termination.reason == EndReason::Evicted)
    }
}

fn asked_for(asked: &StartOptions, lease: &Lease, reason: EndReason) -> bool {
    match reason {
        EndReason::Replaced => replaces(asked, lease),
        EndReason::Evicted => asked.at_limit == Some(AtLimit::EvictOldest),
    }
}

/// Whether a start takes the place of this stream.
pub fn replaces(asked: &StartOptions, lease: &Lease) -> bool {
    asked.replaces.contains(&lease.stream_id) || (asked.device_id.is_some() && asked.device_id == lease.device_id)
}

#[cfg(test)]
mod tests;
