//! The worlds that the model explores: small combinations of start calls, clock skews, limits and faults.

use stream_manager::domain::admission::AtLimit;

use crate::protocol::{Id, IdSet, Tick, bit, ids};

/// The time at which the model begins. It is above zero, so that a slow clock can show an earlier time.
pub const BEGIN: Tick = 2;

#[derive(Clone, Debug)]
pub struct World {
    pub name: &'static str,
    pub limit: u8,
    /// The lease duration.
    pub duration: Tick,
    /// The true time at which the model ends.
    pub until: Tick,
    pub starts: Vec<Start>,
    pub reads: ReadOrder,
    /// Maximum attempts per start call, by the service or by the player.
    pub attempts: u8,
    /// Maximum number of late requests at the same time.
    pub max_late_requests: usize,
    pub stops: bool,
    pub evictions: bool,
    /// If set, the user's stored limit changes once. `Some(None)` deletes it.
    pub set_limit: Option<Option<u8>>,
}

/// One start call and the clock skew of its instance.
#[derive(Clone, Copy, Debug)]
pub struct Start {
    pub id: Id,
    /// The instance's clock minus the true time.
    pub skew: i8,
    pub device: Option<u8>,
    pub replaces: Option<Id>,
    pub at_limit: AtLimit,
}

/// The order in which a query reads the items.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadOrder {
    CounterFirst,
    LeasesFirst,
    /// The query reads one item at a time, in any order.
    AnyOrder,
}

impl Start {
    pub const fn plain(id: Id, skew: i8) -> Self {
        Self { id, skew, device: None, replaces: None, at_limit: AtLimit::Reject }
    }

    pub const fn evicting(id: Id, skew: i8) -> Self {
        Self { at_limit: AtLimit::EvictOldest, ..Self::plain(id, skew) }
    }

    /// A start on a device. Every such start uses the same device id.
    pub const fn on_device(id: Id, skew: i8) -> Self {
        Self { device: Some(7), ..Self::plain(id, skew) }
    }

    pub const fn replacing(id: Id, skew: i8, replaced: Id) -> Self {
        Self { replaces: Some(replaced), ..Self::plain(id, skew) }
    }
}

impl World {
    fn new(name: &'static str, limit: u8, starts: &[Start]) -> Self {
        Self {
            name,
            limit,
            duration: 2,
            until: 4,
            starts: starts.to_vec(),
            reads: ReadOrder::CounterFirst,
            attempts: 2,
            max_late_requests: 0,
            stops: true,
            evictions: false,
            set_limit: None,
        }
    }

    /// The stream ids of the start calls.
    pub fn ids(&self) -> impl Iterator<Item = Id> + use<> {
        ids(self.starts.iter().fold(0 as IdSet, |all, start| all | bit(start.id)))
    }

    /// Maximum number of seconds that the time in a request can be behind the true time.
    pub fn max_lag(&self) -> Tick {
        self.until - BEGIN + self.starts.iter().map(|start| start.skew.min(0).unsigned_abs()).max().unwrap_or(0)
    }

    /// The worlds that CI explores. Every mutant of the model must violate an invariant in at least one of them.
    pub fn short() -> Vec<Self> {
        use Start as S;
        let new = Self::new;
        let brief = |world: Self| Self { duration: 1, until: 3, ..world };
        vec![
            new("two optimistic starts", 1, &[S::plain(0, 0), S::plain(1, 1)]),
            brief(
                new("two evictions, leases read first", 1, &[S::evicting(0, 0), S::evicting(1, -1)]).leases_first(),
            ),
            Self { until: 3, ..new("an eviction", 1, &[S::plain(0, 0), S::evicting(1, -1)]) },
            Self { until: 3, ..new("one start twice", 1, &[S::plain(0, 0), S::plain(0, 1)]).with_late_request() },
            Self {
                until: 3,
                ..new("a device starts again", 2, &[S::on_device(0, 0), S::on_device(1, 1)]).with_late_request()
            },
            brief(new("a replacement", 1, &[S::plain(0, 1), S::replacing(1, 0, 0)]).with_evictions()),
            brief(new("late requests, one slot", 1, &[S::plain(0, 0), S::evicting(1, 1)]).with_late_request()),
            brief(new("a limit lowered", 2, &[S::plain(0, 0), S::evicting(1, 1)]).setting_limit(Some(1))),
            brief(
                new("items read in any order", 1, &[S::plain(0, 0), S::evicting(1, 0)]).any_order().without_stops(),
            ),
        ]
    }

    /// Larger worlds, explored with `MODEL_WORLDS=long`.
    pub fn long() -> Vec<Self> {
        use Start as S;
        let new = Self::new;
        let brief = |world: Self| Self { duration: 1, until: 3, ..world };
        let mut all = vec![
            new("an eviction", 1, &[S::plain(0, 0), S::evicting(1, -1)]),
            new("two evictions", 1, &[S::evicting(0, 1), S::evicting(1, -1)]),
            new("a device starts again", 1, &[S::on_device(0, 0), S::on_device(1, 1)]),
            new("a replacement", 1, &[S::plain(0, 1), S::replacing(1, 0, 0)]).with_evictions(),
            new("one start twice, late requests", 1, &[S::plain(0, 0), S::plain(0, 1)]).with_late_request(),
            new("a limit raised", 1, &[S::plain(0, 0), S::plain(1, 1)]).setting_limit(Some(2)),
            brief(new("an eviction, items read in any order", 1, &[S::plain(0, 0), S::evicting(1, -1)]))
                .with_late_request()
                .any_order(),
            brief(new("three starts, one slot", 1, &[S::plain(0, 0), S::plain(1, 1), S::evicting(2, -1)])),
            brief(new("three starts, two slots", 2, &[S::plain(0, 0), S::plain(1, 1), S::evicting(2, -1)])),
        ];
        all.extend(
            all.clone().into_iter().filter(|world| world.reads == ReadOrder::CounterFirst).map(Self::leases_first),
        );
        all
    }

    fn leases_first(self) -> Self {
        Self { reads: ReadOrder::LeasesFirst, ..self }
    }

    fn any_order(self) -> Self {
        Self { reads: ReadOrder::AnyOrder, ..self }
    }

    fn without_stops(self) -> Self {
        Self { stops: false, ..self }
    }

    fn with_late_request(self) -> Self {
        Self { max_late_requests: 1, ..self }
    }

    fn with_evictions(self) -> Self {
        Self { evictions: true, ..self }
    }

    fn setting_limit(self, limit: Option<u8>) -> Self {
        Self { set_limit: Some(limit), ..self }
    }
}
