//! Formats a counterexample, one line per step.

use std::fmt;

use super::state::{Action, State};
use crate::protocol::{Id, ItemKey, Items, STREAMS, ids};

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tick => write!(f, "time advances by one tick"),
            Self::Begin(call) => write!(f, "call {call} begins"),
            Self::ReadCounter(call) => write!(f, "call {call} reads the counter"),
            Self::ReadLeases(call) => write!(f, "call {call} reads the leases"),
            Self::ReadLease(call, id) => write!(f, "call {call} reads lease {id}"),
            Self::Send(call) => write!(f, "call {call} sends its request and receives the response"),
            Self::SendAndLoseResponse(call) => {
                write!(f, "call {call} sends its request and the response gets lost")
            }
            Self::TimeOut(call) => write!(f, "call {call} times out; its request is still under way"),
            Self::ArriveLate(request) => write!(f, "late request {request} arrives"),
            Self::MakeVisible(ItemKey::Counter) => write!(f, "the new counter becomes visible"),
            Self::MakeVisible(ItemKey::Lease(id)) => write!(f, "the new lease {id} becomes visible"),
            Self::Heartbeat { id, now } => write!(f, "a heartbeat renews {id} at clock time {now}"),
            Self::Stop(id) => write!(f, "the player stops {id}"),
            Self::DeleteByTtl(id) => write!(f, "TTL deletes lease {id}"),
            Self::DeleteTombstone => write!(f, "TTL deletes the tombstone"),
            Self::SetLimit => write!(f, "the user's stored limit changes"),
        }
    }
}

/// Formats one step and the items in the table after it. If readers see different items, adds those items.
pub fn describe(action: Action, after: &State) -> String {
    let (stored, visible) = (table(&after.items), table(&after.visible()));
    let readers = if stored == visible { String::new() } else { format!("; readers see {visible}") };
    format!("{action}  [{stored}{readers}]")
}

fn table(items: &Items) -> String {
    let members: Vec<String> = ids(items.counter.members).map(|id| id.to_string()).collect();
    let lease = |id: Id| {
        let lease = items.leases[id as usize]?;
        let ended = if lease.termination.is_some() { " ended" } else { "" };
        Some(format!("{id} until {}{ended}", lease.expires_at))
    };
    let leases: Vec<String> = (0..STREAMS as Id).filter_map(lease).collect();
    let revision = items.counter.revision.map_or("-".to_owned(), |revision| revision.to_string());
    let tombstone = if items.counter.has_ttl { ", TTL" } else { "" };
    let (members, leases) = (members.join(", "), leases.join(", "));
    format!("revision {revision}{tombstone}, members {{{members}}}, leases {{{leases}}}")
}
