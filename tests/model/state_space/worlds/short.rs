//! The worlds that CI explores.

use super::{Selection, Start as S, World};

impl World {
    /// The worlds that CI explores. Every mutant of the model must violate an invariant in at least one of them.
    pub fn short() -> Vec<Self> {
        let new = Self::new;
        vec![
            new("a blocked user", 0, &[S::plain(0, 0), S::evicting(1, 0)]).brief(),
            new("an eviction of one", 1, &[S::plain(0, 0), S::plain(1, 1)])
                .brief()
                .ending(Selection::One(0), -1)
                .with_attempts(1)
                .with_late_request(),
            new("a block", 2, &[S::plain(0, 0).with_token_limit(2), S::evicting(1, 0)])
                .brief()
                .ending(Selection::ExcessOver(0), 0)
                .with_attempts(1),
            new("an excess", 2, &[S::plain(0, 0), S::plain(1, 0)])
                .brief()
                .ending(Selection::ExcessOver(1), 0)
                .with_attempts(1),
            Self {
                until: 3,
                ..new("an eviction of all", 2, &[S::plain(0, 0), S::plain(1, 0)])
                    .ending(Selection::All, 1)
                    .with_attempts(1)
                    .with_late_request()
            },
            new("an erasure", 1, &[S::plain(0, 0), S::evicting(1, 0)])
                .brief()
                .ending(Selection::Erase, 0)
                .with_attempts(1),
            new("a tombstone", 2, &[S::plain(1, 0), S::plain(2, 0), S::on_device(3, 0)])
                .with_first_stream(0)
                .timeless()
                .ending(Selection::Erase, 0)
                .with_attempts(1)
                .without_stops()
                .without_heartbeats(),
            new("a replacement", 1, &[S::plain(0, 1), S::replacing(1, 0, 0)]).brief(),
            Self { until: 3, ..new("one start twice", 1, &[S::plain(0, 0), S::plain(0, 1)]).with_late_request() },
            new("items read in any order", 1, &[S::plain(0, 0), S::evicting(1, 0)])
                .brief()
                .any_order()
                .without_stops(),
            new("late requests, one slot", 1, &[S::plain(0, 0), S::evicting(1, 1)]).brief().with_late_request(),
            new("two evictions, leases read first", 1, &[S::evicting(0, 0), S::evicting(1, -1)])
                .brief()
                .leases_first(),
            Self {
                until: 3,
                ..new("a device starts again", 2, &[S::on_device(0, 0), S::on_device(1, 1)]).with_late_request()
            },
            new("two optimistic starts", 1, &[S::plain(0, 0), S::plain(1, 1)]),
            new("a limit lowered", 2, &[S::plain(0, 0), S::evicting(1, 1)]).brief().setting_limit(Some(1)),
            Self { until: 3, ..new("an eviction", 1, &[S::plain(0, 0), S::evicting(1, -1)]) },
        ]
    }
}
