//! The worlds that the model explores: small combinations of calls, clock skews, limits and faults.

mod long;
mod short;

use stream_manager::domain::admission::AtLimit;
use stream_manager::domain::rules::LimitMode;

use crate::protocol::{Id, IdSet, ModelRule, StreamLabels, Tick, bit, ids};

/// The time at which the model begins. It is above zero, so that a slow clock can show an earlier time.
pub const BEGIN: Tick = 2;

#[derive(Clone, Debug)]
pub struct World {
    pub name: &'static str,
    /// The limit of a user without a stored limit.
    pub limit: u8,
    /// The maximum number of streams in observe mode. The service has 50, which is too large for the model.
    pub hard_limit: u8,
    pub rules: &'static [ModelRule],
    /// The lease duration.
    pub duration: Tick,
    /// The true time at which the model ends.
    pub until: Tick,
    pub calls: Vec<Call>,
    /// A stream that was started and acknowledged before the model begins.
    pub first_stream: Option<Id>,
    pub reads: ReadOrder,
    /// Maximum attempts per start, by the service or by its client.
    pub attempts: u8,
    /// Maximum number of late requests at the same time.
    pub max_late_requests: usize,
    pub heartbeats: bool,
    pub stops: bool,
    /// If set, the user's stored limit can change to this value. `Some(None)` deletes the stored limit.
    pub set_limit: Option<Option<u8>>,
    /// Maximum number of times that the stored limit is set.
    pub max_limits_set: u8,
}

/// One call of the service, and the clock skew of the instance that handles it.
#[derive(Clone, Copy, Debug)]
pub enum Call {
    Start(Start),
    End(End),
}

#[derive(Clone, Copy, Debug)]
pub struct Start {
    pub id: Id,
    /// The instance's clock minus the true time.
    pub skew: i8,
    pub device: Option<u8>,
    pub replaces: Option<Id>,
    pub at_limit: AtLimit,
    pub token_limit: Option<u8>,
    pub labels: StreamLabels,
    /// The settings of the instance that handles the call.
    pub modes: Modes,
}

/// The modes of the user's limit and of all rules.
#[derive(Clone, Copy, Debug)]
pub struct Modes {
    pub limit: LimitMode,
    pub rules: LimitMode,
}

/// A call that ends streams.
#[derive(Clone, Copy, Debug)]
pub struct End {
    pub selection: Selection,
    pub skew: i8,
    pub attempts: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Selection {
    All,
    One(Id),
    /// Stores the limit, and ends the streams that exceed it.
    ExcessOver(u8),
    /// Ends all streams, and then deletes everything.
    Erase,
}

/// Two rules that overlap: both count the UHD streams of a channel.
const OVERLAPPING: &[ModelRule] = &[ModelRule::uhd(1), ModelRule::per_channel(1)];

/// The order in which a query reads the items.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadOrder {
    CounterFirst,
    LeasesFirst,
    /// The query reads one item at a time, in any order.
    AnyOrder,
}

impl Call {
    pub fn start(&self) -> Option<&Start> {
        match self {
            Self::Start(start) => Some(start),
            Self::End(_) => None,
        }
    }

    pub fn end(&self) -> Option<&End> {
        match self {
            Self::Start(_) => None,
            Self::End(end) => Some(end),
        }
    }

    pub fn skew(&self) -> i8 {
        match self {
            Self::Start(Start { skew, .. }) | Self::End(End { skew, .. }) => *skew,
        }
    }
}

impl Start {
    const fn plain(id: Id, skew: i8) -> Self {
        let labels = StreamLabels { uhd: false, channel: None };
        let modes = Modes { limit: LimitMode::Enforce, rules: LimitMode::Enforce };
        Self { id, skew, device: None, replaces: None, at_limit: AtLimit::Reject, token_limit: None, labels, modes }
    }

    const fn evicting(id: Id, skew: i8) -> Self {
        Self { at_limit: AtLimit::EvictOldest, ..Self::plain(id, skew) }
    }

    /// A start on a device. Every such start uses the same device id.
    const fn on_device(id: Id, skew: i8) -> Self {
        Self { device: Some(7), ..Self::plain(id, skew) }
    }

    const fn replacing(id: Id, skew: i8, replaced: Id) -> Self {
        Self { replaces: Some(replaced), ..Self::plain(id, skew) }
    }

    const fn with_token_limit(self, limit: u8) -> Self {
        Self { token_limit: Some(limit), ..self }
    }

    /// Whether the start evicts at the limit, instead of being denied.
    pub fn makes_room(&self) -> bool {
        self.at_limit == AtLimit::EvictOldest && self.modes.limit == LimitMode::Enforce
    }

    const fn observing_limit(self) -> Self {
        Self { modes: Modes { limit: LimitMode::Observe, ..self.modes }, ..self }
    }

    const fn observing_rules(self) -> Self {
        Self { modes: Modes { rules: LimitMode::Observe, ..self.modes }, ..self }
    }

    const fn in_uhd(self) -> Self {
        Self { labels: StreamLabels { uhd: true, ..self.labels }, ..self }
    }

    const fn of_channel(self, channel: u8) -> Self {
        Self { labels: StreamLabels { channel: Some(channel), ..self.labels }, ..self }
    }
}

impl World {
    fn new(name: &'static str, limit: u8, starts: &[Start]) -> Self {
        Self {
            name,
            limit,
            hard_limit: 2,
            rules: &[],
            duration: 2,
            until: 4,
            calls: starts.iter().copied().map(Call::Start).collect(),
            first_stream: None,
            reads: ReadOrder::CounterFirst,
            attempts: 2,
            max_late_requests: 0,
            heartbeats: true,
            stops: true,
            set_limit: None,
            max_limits_set: 1,
        }
    }

    /// The ids of all streams.
    pub fn ids(&self) -> impl Iterator<Item = Id> + use<> {
        let started = self.calls.iter().filter_map(Call::start).map(|start| start.id);
        ids(started.chain(self.first_stream).fold(0 as IdSet, |all, id| all | bit(id)))
    }

    /// Maximum number of seconds that the time in a request can be behind the true time.
    pub fn max_lag(&self) -> Tick {
        self.until - BEGIN + self.calls.iter().map(|call| call.skew().min(0).unsigned_abs()).max().unwrap_or(0)
    }

    /// Leases last one tick, and the world has two points in time.
    fn brief(self) -> Self {
        Self { duration: 1, until: BEGIN + 1, ..self }
    }

    /// No time passes, so no lease expires.
    fn timeless(self) -> Self {
        Self { until: BEGIN, ..self }
    }

    fn with_rules(self, rules: &'static [ModelRule]) -> Self {
        Self { rules, ..self }
    }

    fn with_first_stream(self, id: Id) -> Self {
        Self { first_stream: Some(id), ..self }
    }

    fn leases_first(self) -> Self {
        Self { reads: ReadOrder::LeasesFirst, ..self }
    }

    fn any_order(self) -> Self {
        Self { reads: ReadOrder::AnyOrder, ..self }
    }

    fn without_heartbeats(self) -> Self {
        Self { heartbeats: false, ..self }
    }

    fn without_stops(self) -> Self {
        Self { stops: false, ..self }
    }

    fn with_attempts(self, attempts: u8) -> Self {
        Self { attempts, ..self }
    }

    fn with_late_request(self) -> Self {
        Self { max_late_requests: 1, ..self }
    }

    fn setting_limit(self, limit: Option<u8>) -> Self {
        Self { set_limit: Some(limit), ..self }
    }

    fn setting_limit_twice(self, limit: Option<u8>) -> Self {
        Self { max_limits_set: 2, ..self.setting_limit(limit) }
    }

    fn ending(mut self, selection: Selection, skew: i8, attempts: u8) -> Self {
        self.calls.push(Call::End(End { selection, skew, attempts }));
        self
    }
}
