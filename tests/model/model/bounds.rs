//! What is explored: small worlds, each with its players, clocks and limits.

use stream_manager::domain::admission::AtLimit;

use super::BEGIN;
use crate::protocol::{Id, Ids, Tick, bit, ids};

#[derive(Clone, Debug)]
pub struct Bounds {
    pub name: &'static str,
    pub limit: u8,
    /// How long a lease lasts.
    pub duration: Tick,
    /// The true time goes no further.
    pub until: Tick,
    pub starters: Vec<Start>,
    pub reads: Reads,
    /// How often a start is tried, by the service or its player.
    pub attempts: u8,
    /// How many requests that were given up may be on their way at a time.
    pub zombies: usize,
    pub stops: bool,
    pub evictions: bool,
    /// The user's own limit from some moment on.
    pub set_limit: Option<Option<u8>>,
}

/// A start that some player asks some instance for.
#[derive(Clone, Copy, Debug)]
pub struct Start {
    pub id: Id,
    /// The instance's clock, from the true time.
    pub skew: i8,
    pub device: Option<u8>,
    pub replaces: Option<Id>,
    pub at_limit: AtLimit,
}

/// In which order a query reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reads {
    CounterFirst,
    LeasesFirst,
    /// Every item by itself, in any order.
    Apart,
}

impl Start {
    pub const fn plain(id: Id, skew: i8) -> Self {
        Self { id, skew, device: None, replaces: None, at_limit: AtLimit::Reject }
    }

    pub const fn evicting(id: Id, skew: i8) -> Self {
        Self { at_limit: AtLimit::EvictOldest, ..Self::plain(id, skew) }
    }

    pub const fn on_device(id: Id, skew: i8) -> Self {
        Self { device: Some(7), ..Self::plain(id, skew) }
    }

    pub const fn replacing(id: Id, skew: i8, replaced: Id) -> Self {
        Self { replaces: Some(replaced), ..Self::plain(id, skew) }
    }
}

impl Bounds {
    fn of(name: &'static str, limit: u8, starters: &[Start]) -> Self {
        Self {
            name,
            limit,
            duration: 2,
            until: 4,
            starters: starters.to_vec(),
            reads: Reads::CounterFirst,
            attempts: 2,
            zombies: 0,
            stops: true,
            evictions: false,
            set_limit: None,
        }
    }

    /// The ids that are started.
    pub fn ids(&self) -> impl Iterator<Item = Id> + use<> {
        ids(self.starters.iter().fold(0 as Ids, |all, start| all | bit(start.id)))
    }

    /// How far the oldest request can be behind the true time.
    pub fn slowest(&self) -> Tick {
        self.until - BEGIN + self.starters.iter().map(|start| start.skew.min(0).unsigned_abs()).max().unwrap_or(0)
    }

    /// What CI explores, and the wrong versions must fall to.
    pub fn short() -> Vec<Self> {
        use Start as S;
        let of = Self::of;
        let brief = |bounds: Self| Self { duration: 1, until: 3, ..bounds };
        vec![
            of("two plain starts", 1, &[S::plain(0, 0), S::plain(1, 1)]),
            brief(of("two evictions, leases read first", 1, &[S::evicting(0, 0), S::evicting(1, -1)]).leases_first()),
            Self { until: 3, ..of("an eviction", 1, &[S::plain(0, 0), S::evicting(1, -1)]) },
            Self { until: 3, ..of("one start twice", 1, &[S::plain(0, 0), S::plain(0, 1)]).with_zombies(1) },
            Self {
                until: 3,
                ..of("a device starts again", 2, &[S::on_device(0, 0), S::on_device(1, 1)]).with_zombies(1)
            },
            brief(of("a replacement", 1, &[S::plain(0, 1), S::replacing(1, 0, 0)]).with_evictions()),
            brief(of("late requests, one slot", 1, &[S::plain(0, 0), S::evicting(1, 1)]).with_zombies(1)),
            brief(of("a limit lowered", 2, &[S::plain(0, 0), S::evicting(1, 1)]).setting_limit(Some(1))),
            brief(
                of("each item read by itself", 1, &[S::plain(0, 0), S::evicting(1, 0)])
                    .reading_apart()
                    .without_stops(),
            ),
        ]
    }

    /// More of everything.
    pub fn long() -> Vec<Self> {
        use Start as S;
        let of = Self::of;
        let brief = |bounds: Self| Self { duration: 1, until: 3, ..bounds };
        let mut all = vec![
            of("an eviction", 1, &[S::plain(0, 0), S::evicting(1, -1)]),
            of("two evictions", 1, &[S::evicting(0, 1), S::evicting(1, -1)]),
            of("a device starts again", 1, &[S::on_device(0, 0), S::on_device(1, 1)]),
            of("a replacement", 1, &[S::plain(0, 1), S::replacing(1, 0, 0)]).with_evictions(),
            of("one start twice, with zombies", 1, &[S::plain(0, 0), S::plain(0, 1)]).with_zombies(1),
            of("a limit raised", 1, &[S::plain(0, 0), S::plain(1, 1)]).setting_limit(Some(2)),
            brief(of("an eviction, each item by itself", 1, &[S::plain(0, 0), S::evicting(1, -1)]).with_zombies(1))
                .reading_apart(),
            brief(of("three starts, one slot", 1, &[S::plain(0, 0), S::plain(1, 1), S::evicting(2, -1)])),
            brief(of("three starts, two slots", 2, &[S::plain(0, 0), S::plain(1, 1), S::evicting(2, -1)])),
        ];
        all.extend(
            all.clone().into_iter().filter(|bounds| bounds.reads == Reads::CounterFirst).map(Self::leases_first),
        );
        all
    }

    fn leases_first(self) -> Self {
        Self { reads: Reads::LeasesFirst, ..self }
    }

    fn reading_apart(self) -> Self {
        Self { reads: Reads::Apart, ..self }
    }

    fn without_stops(self) -> Self {
        Self { stops: false, ..self }
    }

    fn with_zombies(self, zombies: usize) -> Self {
        Self { zombies, ..self }
    }

    fn with_evictions(self) -> Self {
        Self { evictions: true, ..self }
    }

    fn setting_limit(self, limit: Option<u8>) -> Self {
        Self { set_limit: Some(limit), ..self }
    }
}
