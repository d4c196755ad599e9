//! Applies mutants to the model: each one changes the writes of a correct request.

use stream_manager::domain::admission::{Commit, StartRequest};
use stream_manager::domain::lease::EndReason;

use super::model::ProtocolModel;
use super::worlds::Start;
use crate::mutants::Mutant;
use crate::protocol::{self, Id, Items, LimitCheck, STREAMS, StreamLabels, Tick, Write, bit, ids};

impl ProtocolModel {
    pub fn mutate(&self, mut writes: Vec<Write>) -> Vec<Write> {
        if self.is(Mutant::RemoveMemberWithoutDelete) {
            writes.retain(|write| !matches!(write, Write::DeleteDead { .. }));
        }
        let starts = writes.iter().any(|write| matches!(write, Write::PutLease { .. }));
        for write in &mut writes {
            match write {
                Write::AddMember { increments_revision, limit_check, removes_ttl, .. } => {
                    *increments_revision = !self.is(Mutant::OptimisticStartKeepsRevision);
                    *removes_ttl = !self.is(Mutant::StartKeepsTombstoneTtl);
                    *limit_check = match *limit_check {
                        LimitCheck::NoLimit if self.is(Mutant::OptimisticStartIgnoresStoredLimit) => {
                            LimitCheck::Unchecked
                        }
                        LimitCheck::NotBlocked if self.is(Mutant::TokenLimitOverridesBlock) => LimitCheck::Unchecked,
                        limit_check => limit_check,
                    };
                }
                Write::SetMembers { checks_revision, checks_limit, removes_ttl, .. } if starts => {
                    *checks_revision = !self.is(Mutant::StartIgnoresRevision);
                    *checks_limit = !self.is(Mutant::StartIgnoresStoredLimit);
                    *removes_ttl = !self.is(Mutant::StartKeepsTombstoneTtl);
                }
                Write::SetMembers { checks_revision, .. } => *checks_revision = !self.is(Mutant::EndIgnoresRevision),
                Write::DeleteDead { conditional, .. } => *conditional = !self.is(Mutant::DeleteDeadUnconditionally),
                Write::MarkEnded { conditional, .. } => *conditional = !self.is(Mutant::MarkMissingLease),
                Write::PutLease { conditional, .. } => *conditional = !self.is(Mutant::PutWithoutCondition),
                _ => {}
            }
        }
        writes
    }

    pub fn mutate_bury(&self, mut write: Write) -> Write {
        if let Write::BuryCounter { sets_ttl, adds_to_revision, checks_revision, checks_limit, .. } = &mut write {
            if *sets_ttl && self.is(Mutant::ErasureDeletesCounter) {
                return Write::DeleteCounter { conditional: true };
            }
            if *sets_ttl && self.is(Mutant::TombstoneKeepsRevision) {
                *adds_to_revision = 0;
            }
            *checks_revision = !self.is(Mutant::BurialIgnoresRevision);
            *checks_limit = !self.is(Mutant::BurialIgnoresLimit);
        }
        write
    }

    pub fn mutate_heartbeat(&self, mut write: Write) -> Write {
        if let Write::Renew { requires_stored, rejects_ended, rejects_expired, only_forward, .. } = &mut write {
            *requires_stored = !self.is(Mutant::HeartbeatCreatesLease);
            *rejects_ended = !self.is(Mutant::HeartbeatIgnoresEviction);
            *rejects_expired = !self.is(Mutant::HeartbeatRenewsExpired);
            *only_forward = !self.is(Mutant::HeartbeatMovesExpiryBack);
        }
        write
    }

    /// The limit that decides how many streams a request ends. A mutant uses a limit other than the one in the request.
    pub fn mutate_excess_limit(&self, limit: u8, items: &Items, now: Tick) -> u8 {
        let is_dead = |id: &Id| items.leases[*id as usize].is_none_or(|lease| lease.expires_at <= now);
        if self.is(Mutant::ExcessOverOldLimit) {
            items.counter.stream_limit.unwrap_or(self.world.limit)
        } else if self.is(Mutant::ExcessCountsDeadLeases) {
            limit.saturating_sub(ids(items.counter.members).filter(is_dead).count() as u8)
        } else {
            limit
        }
    }

    /// The items with which a start is decided. A mutant gives the same channel to all streams that have a channel.
    pub fn mutate_labels(&self, items: &Items, request: &mut StartRequest) -> Items {
        let mut items = *items;
        if self.is(Mutant::RuleComparesOnlyNames) {
            let same = |labels: StreamLabels| StreamLabels { channel: labels.channel.map(|_| 1), ..labels };
            request.labels = same(StreamLabels::of(&request.labels)).to_labels();
            items.leases.iter_mut().flatten().for_each(|lease| lease.labels = same(lease.labels));
        }
        items
    }

    /// Whether a mutant denies a start that the correct rules admit, because a rule counts too many streams.
    pub fn rule_denies(&self, start: &Start, commit: &Commit, items: &Items) -> bool {
        let counted: Vec<Id> = if self.is(Mutant::RuleCountsDeadLeases) {
            commit.change.dead.iter().map(|id| protocol::id_of(*id)).collect()
        } else if self.is(Mutant::RuleCountsReplacedStreams) {
            let ended = commit.change.ended.iter();
            let replaced = ended.filter(|ended| ended.termination.reason == EndReason::Replaced);
            replaced.map(|ended| protocol::id_of(ended.stream_id)).collect()
        } else {
            return false;
        };
        let kept = commit.change.members.iter().map(|id| protocol::id_of(*id));
        let all: Vec<Id> =
            kept.filter(|id| protocol::stream_id(*id) != commit.lease.stream_id).chain(counted).collect();
        self.world.rules.iter().any(|rule| {
            let counts =
                |id: &&Id| items.leases[**id as usize].is_some_and(|lease| rule.counts(start.labels, lease.labels));
            rule.counts(start.labels, start.labels) && all.iter().filter(counts).count() >= usize::from(rule.max)
        })
    }

    pub fn mutate_commit(&self, commit: &mut Commit, items: &Items, now: Tick) {
        let change = &mut commit.change;
        if self.is(Mutant::DeadLeasesKeepSlots) {
            change.members.extend(std::mem::take(&mut change.dead));
        }
        if self.is(Mutant::RecountFromQuery) {
            let lease = |id: Id| items.leases[id as usize];
            change.members = (0..STREAMS as Id)
                .filter(|id| lease(*id).is_some_and(|lease| lease.termination.is_none() && lease.expires_at > now))
                .map(protocol::stream_id)
                .chain([commit.lease.stream_id])
                .filter(|id| change.ended.iter().all(|ended| ended.stream_id != *id))
                .collect();
            change.dead.retain(|id| lease(protocol::id_of(*id)).is_some());
        }
    }

    /// Splits a start into two transactions. `writes` keeps the first one, which frees the slot. Returns the second
    /// one, which takes the slot.
    pub fn split_off_admission(&self, writes: &mut Vec<Write>, id: Id) -> Vec<Write> {
        let frees = |write: &Write| matches!(write, Write::MarkEnded { .. } | Write::DeleteDead { .. });
        let mut admission: Vec<Write> = writes.iter().copied().filter(|write| !frees(write)).collect();
        writes.retain(|write| frees(write) || matches!(write, Write::SetMembers { .. }));
        let read_revision = admission.iter_mut().find_map(|write| match write {
            Write::SetMembers { revision, .. } => Some(revision.replace(revision.unwrap_or(0) + 1)),
            _ => None,
        });
        for write in writes {
            if let Write::SetMembers { revision, members, .. } = write {
                (*revision, *members) = (read_revision.flatten(), *members & !bit(id));
            }
        }
        admission
    }
}
