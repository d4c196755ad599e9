//! The protocol in the model: the items of one user, and the writes, each with a condition and an effect.
//! `expressions` tests that the DynamoDB expressions have the same conditions and effects.

mod labels;
mod writes;

use std::sync::Arc;

use stream_manager::domain::admission::{AtLimit, Guard, Snapshot, StartRequest};
use stream_manager::domain::labels::Labels;
use stream_manager::domain::lease::{EndReason, EndedBy, Lease, LeaseTerms, StreamLimit, Termination, Timestamp};
use stream_manager::domain::names::{ContentId, DeviceId, Message, StreamId};
use stream_manager::domain::rules::LimitMode;

pub use labels::{ModelRule, StreamLabels};
pub use writes::{
    LimitCheck, REVISION_STEP, Write, Writes, bury, commit, end, heartbeat, optimistic_start, prune, stop,
};

/// The number of stream ids.
pub const STREAMS: usize = 4;

/// The index of a stream.
pub type Id = u8;
/// A set of streams, one bit per stream.
pub type IdSet = u8;
/// A time in seconds.
pub type Tick = u8;
/// The revision of a counter.
pub type Revision = u16;

/// The counter item. The default value represents a missing item.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct CounterItem {
    pub is_stored: bool,
    pub members: IdSet,
    pub revision: Option<Revision>,
    pub stream_limit: Option<u8>,
    /// Set if the counter is a tombstone, which TTL deletes.
    pub has_ttl: bool,
}

/// The item of one stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LeaseItem {
    pub started_at: Tick,
    pub expires_at: Tick,
    pub device: Option<u8>,
    pub content: Option<u8>,
    pub labels: StreamLabels,
    pub termination: Option<TerminationMark>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TerminationMark {
    /// True for a replacement, false for an eviction.
    pub replaced: bool,
    /// The start that ended the stream. `None` if another request ended it.
    pub by: Option<Id>,
    /// Whether the request that ended the stream had a message.
    pub message: bool,
}

/// All items of one user.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Items {
    pub counter: CounterItem,
    pub leases: [Option<LeaseItem>; STREAMS],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ItemKey {
    Counter,
    Lease(Id),
}

impl Items {
    /// Converts the items to a production [`Snapshot`] and calls `decide` with it.
    pub fn with_snapshot<T>(&self, duration: Tick, decide: impl FnOnce(&Snapshot<'_>) -> T) -> T {
        let members: Vec<StreamId> = ids(self.counter.members).map(stream_id).collect();
        let stored = (0..STREAMS).filter_map(|id| Some((id as Id, self.leases[id]?)));
        let leases: Vec<Lease> = stored.map(|(id, lease)| lease.to_lease(id, duration)).collect();
        let stored_limit = self.counter.stream_limit.and_then(|limit| StreamLimit::new(limit.into()));
        let guard = Guard { revision: self.counter.revision.map(u64::from), stored_limit };
        decide(&Snapshot { guard, members: &members, leases: &leases })
    }
}

impl LeaseItem {
    pub fn to_lease(self, id: Id, duration: Tick) -> Lease {
        let request = request(id, self.device, &[], AtLimit::Reject, 1, duration);
        let termination = self.termination.map(|mark| {
            let reason = if mark.replaced { EndReason::Replaced } else { EndReason::Evicted };
            let message = if mark.message { message() } else { None };
            let by = EndedBy { stream_id: mark.by.map(stream_id), message, ..EndedBy::default() };
            Box::new(Termination { reason, ended_by: (by != EndedBy::default()).then_some(by) })
        });
        let expires_at = timestamp(self.expires_at);
        let ttl_s = request.terms.ttl_s(expires_at);
        let (content_id, labels) = (self.content.and_then(content), self.labels.to_labels());
        Lease { expires_at, ttl_s, content_id, labels, termination, ..request.lease(timestamp(self.started_at)) }
    }
}

pub fn lease_item(lease: &Lease) -> LeaseItem {
    LeaseItem {
        started_at: tick(lease.started_at),
        expires_at: tick(lease.expires_at),
        device: lease.device_id.as_ref().and_then(|device| device.as_str().parse().ok()),
        content: lease.content_id.as_ref().and_then(|content| content.as_str().parse().ok()),
        labels: StreamLabels::of(&lease.labels),
        termination: lease.termination.as_deref().map(termination_mark),
    }
}

fn termination_mark(termination: &Termination) -> TerminationMark {
    let by = termination.ended_by.clone().unwrap_or_default();
    TerminationMark {
        replaced: termination.reason == EndReason::Replaced,
        by: by.stream_id.map(id_of),
        message: by.message.is_some(),
    }
}

/// The message in all requests that contain a message.
pub fn message() -> Option<Message> {
    Message::clean("goodbye")
}

pub fn limit(limit: u8) -> StreamLimit {
    StreamLimit::new(limit.into()).unwrap()
}

pub fn content(content: u8) -> Option<ContentId> {
    ContentId::clean(&content.to_string())
}

pub fn request(
    id: Id,
    device: Option<u8>,
    replaces: &[Id],
    at_limit: AtLimit,
    limit: u8,
    duration: Tick,
) -> StartRequest {
    StartRequest {
        stream_id: stream_id(id),
        fingerprint: None,
        device_id: device.map(|device| DeviceId::parse(&device.to_string()).unwrap()),
        device_name: None,
        content_id: None,
        labels: Labels::default(),
        replaces: replaces.iter().map(|id| stream_id(*id)).collect(),
        at_limit,
        token_limit: None,
        default_limit: self::limit(limit),
        limit_mode: LimitMode::Enforce,
        hard_limit: StreamLimit::HIGHEST,
        rules: Arc::default(),
        terms: terms(duration),
    }
}

/// The heartbeat interval is as long as the lease, so that no live lease is overdue. The simulation covers
/// overdue leases.
pub const fn terms(duration: Tick) -> LeaseTerms {
    LeaseTerms { duration_s: duration as u32, heartbeat_interval_s: duration as u32, retention_s: RETENTION_S }
}

/// Longer than any run of the model, because the model has a separate action for TTL.
pub const RETENTION_S: u32 = 1000;

pub fn bit(id: Id) -> IdSet {
    1 << id
}

pub fn ids(set: IdSet) -> impl Iterator<Item = Id> {
    (0..STREAMS as Id).filter(move |id| set & bit(*id) != 0)
}

pub fn stream_id(id: Id) -> StreamId {
    StreamId::random([id; 16])
}

/// The inverse of [`stream_id`].
pub fn id_of(id: StreamId) -> Id {
    (0..STREAMS as Id).find(|index| stream_id(*index) == id).unwrap()
}

pub fn timestamp(tick: Tick) -> Timestamp {
    Timestamp::from_epoch_ms(i64::from(tick) * 1000)
}

pub fn tick(at: Timestamp) -> Tick {
    Tick::try_from(at.epoch_ms() / 1000).unwrap()
}
