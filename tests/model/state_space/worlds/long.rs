//! Larger worlds, explored with `MODEL_WORLDS=long`.

use super::Selection::{All, Erase, ExcessOver};
use super::{OVERLAPPING, ReadOrder, Start as S, World};

impl World {
    /// Larger worlds, explored with `MODEL_WORLDS=long`.
    pub fn long() -> Vec<Self> {
        let new = Self::new;
        let mut all = vec![
            new("an eviction", 1, &[S::plain(0, 0), S::evicting(1, -1)]),
            new("two evictions", 1, &[S::evicting(0, 1), S::evicting(1, -1)]),
            new("a device starts again", 1, &[S::on_device(0, 0), S::on_device(1, 1)]),
            new("a replacement", 1, &[S::plain(0, 1), S::replacing(1, 0, 0)]),
            new("one start twice, late requests", 1, &[S::plain(0, 0), S::plain(0, 1)]).with_late_request(),
            new("a limit raised", 1, &[S::plain(0, 0), S::plain(1, 1)]).setting_limit(Some(2)),
            new("an eviction, items read in any order", 1, &[S::plain(0, 0), S::evicting(1, -1)])
                .brief()
                .with_late_request()
                .any_order(),
            new("three starts, one slot", 1, &[S::plain(0, 0), S::plain(1, 1), S::evicting(2, -1)]).brief(),
            new(
                "two rules that overlap",
                3,
                &[S::plain(0, 0).in_uhd(), S::plain(1, 1).of_channel(1), S::evicting(2, -1).in_uhd().of_channel(1)],
            )
            .brief()
            .with_attempts(1)
            .with_rules(OVERLAPPING),
            new(
                "both modes at the same time",
                1,
                &[S::plain(0, 0), S::plain(1, 1).observing_limit(), S::evicting(2, -1)],
            )
            .brief()
            .with_attempts(1),
            new(
                "rules in both modes",
                3,
                &[
                    S::plain(0, 0).in_uhd(),
                    S::plain(1, 1).in_uhd().of_channel(1).observing_rules(),
                    S::evicting(2, -1).in_uhd().of_channel(1),
                ],
            )
            .brief()
            .with_attempts(1)
            .with_rules(OVERLAPPING),
            new("an eviction of all", 2, &[S::plain(0, 0), S::plain(1, 0)]).brief().ending(All, 1, 2),
            new("an excess", 2, &[S::plain(0, 0), S::plain(1, 1)]).brief().ending(ExcessOver(1), 0, 2),
            new("an erasure", 1, &[S::plain(0, 0), S::evicting(1, -1)]).brief().ending(Erase, 0, 1),
            new("two erasures", 1, &[S::plain(0, 0), S::plain(1, 0)])
                .brief()
                .with_attempts(1)
                .ending(Erase, 0, 1)
                .ending(Erase, 1, 1),
            new("a tombstone", 2, &[S::plain(1, 0), S::plain(2, 0), S::on_device(3, 0)])
                .timeless()
                .with_first_stream(0)
                .with_attempts(1)
                .ending(Erase, 0, 2)
                .with_late_request()
                .without_stops(),
            new("three starts, two slots", 2, &[S::plain(0, 0), S::plain(1, 1), S::evicting(2, -1)]).brief(),
        ];
        all.extend(
            all.clone().into_iter().filter(|world| world.reads == ReadOrder::CounterFirst).map(Self::leases_first),
        );
        all
    }
}
