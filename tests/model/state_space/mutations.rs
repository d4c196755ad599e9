//! Applies mutants to the model: each one changes the writes of a correct request.

use stream_manager::domain::admission::Commit;

use super::model::ProtocolModel;
use crate::mutants::Mutant;
use crate::protocol::{self, Id, Items, STREAMS, Tick, Write, bit};

impl ProtocolModel {
    pub fn mutate(&self, mut writes: Vec<Write>) -> Vec<Write> {
        if self.is(Mutant::RemoveMemberWithoutDelete) {
            writes.retain(|write| !matches!(write, Write::DeleteDead { .. }));
        }
        for write in &mut writes {
            match write {
                Write::AddMember { increments_revision, checks_limit, .. } => {
                    *increments_revision = !self.is(Mutant::OptimisticStartKeepsRevision);
                    *checks_limit = !self.is(Mutant::OptimisticStartIgnoresStoredLimit);
                }
                Write::SetMembers { checks_revision, checks_limit, .. } => {
                    *checks_revision = !self.is(Mutant::StartIgnoresRevision);
                    *checks_limit = !self.is(Mutant::StartIgnoresStoredLimit);
                }
                Write::DeleteDead { conditional, .. } => *conditional = !self.is(Mutant::DeleteDeadUnconditionally),
                Write::MarkEnded { conditional, .. } => *conditional = !self.is(Mutant::MarkMissingLease),
                Write::PutLease { conditional, .. } => *conditional = !self.is(Mutant::PutWithoutCondition),
                _ => {}
            }
        }
        writes
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

    pub fn mutate_commit(&self, commit: &mut Commit, items: &Items, now: Tick) {
        if self.is(Mutant::DeadLeasesKeepSlots) {
            commit.members.extend(std::mem::take(&mut commit.dead));
        }
        if self.is(Mutant::RecountFromQuery) {
            let lease = |id: Id| items.leases[id as usize];
            commit.members = (0..STREAMS as Id)
                .filter(|id| lease(*id).is_some_and(|lease| lease.termination.is_none() && lease.expires_at > now))
                .map(protocol::stream_id)
                .chain([commit.lease.stream_id])
                .filter(|id| commit.ended.iter().all(|ended| ended.stream_id != *id))
                .collect();
            commit.dead.retain(|id| lease(protocol::id_of(*id)).is_some());
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
