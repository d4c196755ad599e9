//! The rules that no wrong version breaks first, broken by hand: the oracle sees them.

use stream_manager::domain::lease::EndedBy;
use stream_manager::domain::names::DeviceId;

use super::*;

const NOW: Timestamp = Timestamp::from_epoch_ms(1_000_000);

fn id(n: u8) -> StreamId {
    StreamId::random([n; 16])
}

fn lease(n: u8, age_s: u32) -> Lease {
    Lease {
        stream_id: id(n),
        device_id: DeviceId::parse(&format!("tv-{n}")).ok(),
        device_name: None,
        content_id: None,
        fingerprint: None,
        started_at: NOW.plus_ms(-1000 * i64::from(age_s)),
        expires_at: NOW.plus_s(8),
        ttl_s: 2_000,
        termination: None,
    }
}

fn holding(leases: impl IntoIterator<Item = Lease>) -> State {
    let leases: Vec<Lease> = leases.into_iter().collect();
    let members = leases.iter().filter(|lease| lease.termination.is_none()).map(|lease| lease.stream_id).collect();
    State { own_limit: None, members, leases: leases.into_iter().map(|lease| (lease.stream_id, lease)).collect() }
}

fn evicted(lease: Lease, by: u8) -> Lease {
    let ended_by = Some(EndedBy { stream_id: id(by), device_name: None });
    Lease { termination: Some(Box::new(Termination { reason: EndReason::Evicted, ended_by })), ..lease }
}

fn rule(before: &State, after: &State, act: Act, asked: StartOptions) -> Option<Rule> {
    let default_limit = StreamLimit::new(2).expect("a limit");
    let step = Step { before, after, act: &act, asked: Some(&asked), default_limit };
    step.check().err().map(|violation| violation.rule)
}

fn start(n: u8) -> Act {
    Act::Start { stream_id: id(n), now: NOW }
}

#[test]
fn one_lease_more_than_the_limit_is_seen() {
    let before = holding([lease(1, 2), lease(2, 1)]);
    let after = holding([lease(1, 2), lease(2, 1), lease(3, 0)]);
    assert_eq!(rule(&before, &after, start(3), StartOptions::default()), Some(Rule::OverLimit));
    let lowered = State { own_limit: StreamLimit::new(1), ..before.clone() };
    let after = State { own_limit: StreamLimit::new(1), ..holding([lease(1, 2), lease(3, 0)]) };
    assert_eq!(rule(&lowered, &after, start(3), StartOptions::default()), Some(Rule::TakenEarly));
    assert_eq!(rule(&before, &before, start(3), StartOptions::default()), None);
}

#[test]
fn an_eviction_of_too_many_or_of_the_wrong_one_is_seen() {
    let evicting = || StartOptions { at_limit: Some(AtLimit::EvictOldest), ..StartOptions::default() };
    let before = holding([lease(1, 2), lease(2, 1)]);
    for (after, expected) in [
        ([evicted(lease(1, 2), 3), lease(2, 1), lease(3, 0)], None),
        ([lease(1, 2), evicted(lease(2, 1), 3), lease(3, 0)], Some(Rule::EvictedWithoutNeed)),
        ([evicted(lease(1, 2), 3), evicted(lease(2, 1), 3), lease(3, 0)], Some(Rule::EvictedWithoutNeed)),
    ] {
        assert_eq!(rule(&before, &holding(after), start(3), evicting()), expected);
    }
}

#[test]
fn a_stream_of_the_same_device_that_lives_on_is_seen() {
    let (before, after) = (holding([lease(1, 1)]), holding([lease(1, 1), lease(2, 0)]));
    let reload = StartOptions { device_id: DeviceId::parse("tv-1").ok(), ..StartOptions::default() };
    assert_eq!(rule(&before, &after, start(2), reload), Some(Rule::NotReplaced));
    assert_eq!(rule(&before, &after, start(2), StartOptions::default()), None);
}

#[test]
fn a_change_without_a_reason_is_seen() {
    let (none, one) = (State::default(), holding([lease(1, 1)]));
    let limited = State { own_limit: StreamLimit::new(1), ..one.clone() };
    let uncounted = State { members: Default::default(), ..one.clone() };
    let beat = || Act::Beat { stream_id: id(1), now: NOW };
    for (before, after, act, expected) in [
        (&none, &one, beat(), Rule::AppearedFromNowhere),
        (&one, &none, beat(), Rule::TakenEarly),
        (&one, &none, Act::Stop { stream_id: id(2) }, Rule::TakenEarly),
        (&one, &none, Act::Sweep { now: NOW }, Rule::TakenEarly),
        (&one, &limited, beat(), Rule::MembershipUnexplained),
        (&one, &uncounted, Act::Stop { stream_id: id(1) }, Rule::Uncounted),
    ] {
        assert_eq!(rule(before, after, act, StartOptions::default()), Some(expected));
    }
}

#[test]
fn an_end_that_is_forgotten_while_there_are_few_to_remember_is_seen() {
    let remembering = |ids: std::ops::Range<u8>| holding(ids.map(|n| evicted(lease(n, 1), 99)));
    let most = MAX_ENDED_LEASES as u8;
    let acts = || [Act::Forget, Act::Evict { stream_id: id(1) }, Act::Start { stream_id: id(100), now: NOW }];
    for act in acts() {
        let after = remembering(1..most + 1);
        assert_eq!(rule(&remembering(0..most + 1), &after, act, StartOptions::default()), None);
    }
    for act in acts() {
        let after = remembering(1..most);
        assert_eq!(rule(&remembering(0..most), &after, act, StartOptions::default()), Some(Rule::TakenEarly));
    }
    let one = holding([lease(1, 1)]);
    assert_eq!(rule(&one, &State::default(), Act::Forget, StartOptions::default()), Some(Rule::TakenEarly));
}
