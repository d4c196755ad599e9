//! A run of the model in words.

use std::fmt;

use super::{Action, State};
use crate::protocol::{IDS, Id, Items, Place, ids};

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tick => write!(f, "time passes"),
            Self::Begin(start) => write!(f, "start {start} begins"),
            Self::ReadCounter(start) => write!(f, "start {start} reads the counter"),
            Self::ReadLeases(start) => write!(f, "start {start} reads the leases"),
            Self::ReadLease(start, id) => write!(f, "start {start} reads lease {id}"),
            Self::Send(start) => write!(f, "start {start}'s transaction arrives and is answered"),
            Self::SendUnheard(start) => write!(f, "start {start}'s transaction arrives, the answer is lost"),
            Self::GiveUp(start) => write!(f, "start {start}'s caller gives up waiting"),
            Self::Arrive(request) => write!(f, "a request arrives that was given up ({request})"),
            Self::Settle(Place::Counter) => write!(f, "the counter becomes visible as written"),
            Self::Settle(Place::Lease(id)) => write!(f, "lease {id} becomes visible as written"),
            Self::Heartbeat { id, now } => write!(f, "a heartbeat for {id} from a clock at {now}"),
            Self::Stop(id) => write!(f, "{id} is stopped by its player"),
            Self::Evict(id) => write!(f, "{id} is evicted by somebody"),
            Self::Ttl(id) => write!(f, "TTL deletes lease {id}"),
            Self::SetLimit => write!(f, "the user gets a limit of their own"),
        }
    }
}

/// A step, and where it differs what the table holds and what readers see of it.
pub fn step(action: Action, after: &State) -> String {
    let (held, seen) = (table(&after.items), table(&after.visible()));
    let readers = if held == seen { String::new() } else { format!("; readers see {seen}") };
    format!("{action}  [{held}{readers}]")
}

fn table(items: &Items) -> String {
    let members: Vec<String> = ids(items.counter.streams).map(|id| id.to_string()).collect();
    let lease = |id: Id| {
        let lease = items.leases[id as usize]?;
        let ended = if lease.ended.is_some() { " ended" } else { "" };
        Some(format!("{id} until {}{ended}", lease.expires_at))
    };
    let leases: Vec<String> = (0..IDS as Id).filter_map(lease).collect();
    format!("members {{{}}}, leases {{{}}}", members.join(", "), leases.join(", "))
}
