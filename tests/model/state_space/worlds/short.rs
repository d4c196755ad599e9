//! The worlds that CI explores, the small ones first.

use super::Selection::{All, Erase, ExcessOver, One};
use super::{OVERLAPPING, Start as S, World};

impl World {
    /// The worlds that CI explores. Every mutant of the model must violate an invariant in at least one of them.
    pub fn short() -> Vec<Self> {
        let new = Self::new;
        let single = |world: Self| world.with_attempts(1);
        vec![
            new("a blocked user", 0, &[S::plain(0, 0), S::evicting(1, 0)]).brief(),
            new("a repeated start", 2, &[S::plain(0, 1)]).brief().with_late_request(),
            single(
                new("a rule, a replacement", 3, &[S::plain(0, 0).in_uhd(), S::replacing(1, 0, 0).in_uhd()]).brief(),
            )
            .with_rules(OVERLAPPING),
            single(
                new("a rule, two channels", 3, &[S::plain(0, 0).of_channel(1), S::plain(1, 0).of_channel(2)]).brief(),
            )
            .with_rules(OVERLAPPING),
            single(new(
                "two rules that overlap",
                3,
                &[S::plain(0, 0).in_uhd(), S::plain(1, 0).of_channel(1), S::evicting(2, 0).in_uhd().of_channel(1)],
            ))
            .brief()
            .without_stops()
            .with_rules(OVERLAPPING),
            single(new(
                "a limit in observe mode",
                1,
                &[
                    S::plain(0, 0).observing_limit(),
                    S::plain(1, 0).observing_limit(),
                    S::evicting(2, 0).observing_limit(),
                ],
            ))
            .brief()
            .without_stops(),
            single(new("a blocked user in observe mode", 0, &[S::plain(0, 0), S::evicting(1, 0).observing_limit()]))
                .brief(),
            single(new(
                "a rule in observe mode",
                3,
                &[S::plain(0, 0).in_uhd(), S::plain(1, 0).in_uhd().observing_rules(), S::evicting(2, 0).in_uhd()],
            ))
            .brief()
            .without_stops()
            .with_rules(OVERLAPPING),
            single(new(
                "a rule and a limit in observe mode",
                1,
                &[
                    S::plain(0, 0).in_uhd(),
                    S::plain(1, 0).in_uhd().observing_rules().observing_limit(),
                    S::evicting(2, 0).in_uhd().observing_limit(),
                ],
            ))
            .brief()
            .without_stops()
            .with_rules(OVERLAPPING),
            single(new(
                "both modes, an eviction",
                1,
                &[S::plain(0, 0), S::plain(1, 0).observing_limit(), S::evicting(2, 0)],
            ))
            .brief()
            .without_stops(),
            single(new("a user is blocked", 2, &[S::plain(0, 0).with_token_limit(2), S::evicting(1, 0)]).brief())
                .ending(ExcessOver(0), 0, 1),
            single(new("an eviction of one", 1, &[S::plain(0, 0), S::plain(1, 1)]).brief())
                .ending(One(0), -1, 2)
                .with_late_request(),
            single(new("a limit set", 2, &[S::plain(0, 0), S::evicting(1, 1)]).brief()).setting_limit(Some(1)),
            Self { until: 3, ..single(new("an eviction of all", 2, &[S::plain(0, 0), S::plain(1, 0)])) }
                .ending(All, 1, 1)
                .with_late_request(),
            single(new("an excess", 2, &[S::plain(0, 0), S::plain(1, 0)]).brief()).ending(ExcessOver(1), 0, 2),
            single(new("an erasure, late requests", 1, &[S::plain(0, 0), S::evicting(1, 0)]).brief())
                .ending(Erase, 0, 1)
                .with_late_request(),
            single(new("a tombstone", 2, &[S::plain(1, 0), S::plain(2, 0), S::on_device(3, 0)]).timeless())
                .with_first_stream(0)
                .ending(Erase, 0, 1)
                .without_stops()
                .without_heartbeats(),
            new("limits set after an erasure", 1, &[])
                .timeless()
                .with_first_stream(0)
                .ending(Erase, 0, 2)
                .with_late_request()
                .setting_limit_twice(Some(0))
                .without_heartbeats(),
            new("a replacement", 1, &[S::plain(0, 1), S::replacing(1, 0, 0)]).brief(),
            new("two rules", 3, &[S::plain(0, 0).in_uhd().of_channel(1), S::plain(1, 1).in_uhd()])
                .brief()
                .with_late_request()
                .with_rules(OVERLAPPING),
            Self { until: 3, ..new("one start twice", 1, &[S::plain(0, 0), S::plain(0, 1)]).with_late_request() },
            single(new("an erasure, repeated", 1, &[S::plain(0, 0), S::evicting(1, 0)]).brief()).ending(Erase, 0, 2),
            new("items read in any order", 1, &[S::plain(0, 0), S::evicting(1, 0)])
                .brief()
                .any_order()
                .without_stops(),
            new("both modes at the same time", 1, &[S::plain(0, 0), S::plain(1, 1).observing_limit()])
                .brief()
                .with_late_request(),
            new("late requests, one slot", 1, &[S::plain(0, 0), S::evicting(1, 1)]).brief().with_late_request(),
            single(new("an erasure, items read in any order", 1, &[S::plain(0, 0), S::evicting(1, 0)]).brief())
                .ending(Erase, 0, 1)
                .any_order(),
            new("two evictions, leases read first", 1, &[S::evicting(0, 0), S::evicting(1, -1)])
                .brief()
                .leases_first(),
            Self {
                until: 3,
                ..new("a device starts again", 2, &[S::on_device(0, 0), S::on_device(1, 1)]).with_late_request()
            },
            single(new("an erasure and a limit", 1, &[S::plain(0, 0), S::evicting(1, 0)]).brief())
                .ending(Erase, 0, 1)
                .setting_limit(Some(0)),
            single(new("an erasure and an eviction", 1, &[S::plain(0, 0)]).brief())
                .ending(Erase, 0, 2)
                .ending(One(0), 1, 2)
                .with_late_request(),
            single(new("two erasures", 1, &[S::plain(0, 0)]).brief())
                .ending(Erase, 0, 2)
                .ending(Erase, 0, 1)
                .with_late_request(),
            single(new("an excess and an eviction of all", 2, &[S::plain(0, 0), S::plain(1, 0)]).brief())
                .ending(ExcessOver(1), 0, 1)
                .ending(All, 0, 1),
            new("two optimistic starts", 1, &[S::plain(0, 0), S::plain(1, 1)]),
            new("a limit lowered", 2, &[S::plain(0, 0), S::evicting(1, 1)]).brief().setting_limit(Some(1)),
            Self { until: 3, ..new("an eviction", 1, &[S::plain(0, 0), S::evicting(1, -1)]) },
        ]
    }
}
