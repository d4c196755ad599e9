//! Property test: any sequence of operations has the same results on the memory store and the embedded store.

use proptest::prelude::*;
use stream_manager::domain::admission::end::{EndRequest, Selection};
use stream_manager::domain::admission::{AtLimit, MAX_ENDED_LEASES, StartOutcome, StartRequest};
use stream_manager::domain::lease::{Fingerprint, StreamLimit};
use stream_manager::domain::names::{ContentId, DeviceId, UserName};
use stream_manager::domain::rules::{LimitMode, Rule};
use stream_manager::store::{HeartbeatRequest, StartHint, StreamState};

use crate::rules::{UHD, labels, rule};
use crate::support::{Fixture, TERMS, eviction, renewal, retry_on_contention, start, stream, user};

#[derive(Clone, Debug)]
enum Step {
    Start { request: StartRequest, hint: StartHint },
    Heartbeat(u8, Option<&'static str>),
    Stop(u8),
    End(Selection),
    Purge,
    Limit(Option<u64>),
    Wait(i64),
    Sweep,
}

const STREAMS: u8 = 6;

fn any_start() -> impl Strategy<Value = Step> {
    let parameters = (
        0..STREAMS,
        proptest::option::of(0u8..3),
        proptest::collection::vec(0..STREAMS, 0..2),
        any::<bool>(),
        proptest::option::of(0u128..2),
        any::<bool>(),
        proptest::option::weighted(0.3, 0u64..5),
        proptest::option::of(prop_oneof![Just("uhd"), Just("hd")]),
        [any_mode(), any_mode(), any_mode()],
    );
    parameters.prop_map(|(n, device, replaces, evict, fingerprint, optimistic, token_limit, quality, modes)| {
        let request = StartRequest {
            fingerprint: fingerprint.map(|body| Fingerprint(uuid::Uuid::from_u128(body))),
            device_id: device.and_then(|device| DeviceId::parse(&format!("device-{device}")).ok()),
            replaces: replaces.into_iter().map(stream).collect(),
            at_limit: if evict { AtLimit::EvictOldest } else { AtLimit::Reject },
            token_limit: token_limit.and_then(StreamLimit::new),
            labels: quality.map(|quality| labels(&[("quality", quality)])).unwrap_or_default(),
            limit_mode: modes[0],
            // The highest limit in this test.
            hard_limit: StreamLimit::new(4).unwrap(),
            rules: [
                Rule { mode: modes[1], ..rule("one UHD stream", 1, UHD, None) },
                Rule { mode: modes[2], ..rule("two per quality", 2, &[], Some("quality")) },
            ]
            .into(),
            ..start(n)
        };
        Step::Start { request, hint: if optimistic { StartHint::Optimistic } else { StartHint::ReadFirst } }
    })
}

fn any_mode() -> impl Strategy<Value = LimitMode> {
    prop_oneof![3 => Just(LimitMode::Enforce), 1 => Just(LimitMode::Observe)]
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => any_start(),
        3 => (0..STREAMS, proptest::option::of(Just("movie"))).prop_map(|(n, content)| Step::Heartbeat(n, content)),
        2 => (0..STREAMS).prop_map(Step::Stop),
        1 => any_selection().prop_map(Step::End),
        1 => Just(Step::Purge),
        1 => proptest::option::of(0u64..5).prop_map(Step::Limit),
        3 => (1i64..100).prop_map(Step::Wait),
        1 => Just(Step::Sweep),
    ]
}

fn any_selection() -> impl Strategy<Value = Selection> {
    prop_oneof![
        Just(Selection::All),
        Just(Selection::Erase),
        proptest::collection::vec(0..STREAMS, 0..3)
            .prop_map(|ids| Selection::Listed(ids.into_iter().map(stream).collect())),
        (0u64..5).prop_map(|limit| Selection::ExcessOver(StreamLimit::new(limit).unwrap())),
    ]
}

/// The result of each step as text, with the visible state after the step. Before the first step, starts and evicts `evicted`
/// streams. The last results are the final states of these streams.
async fn results(fixture: &Fixture, user: &UserName, evicted: u8, steps: &[Step]) -> Vec<String> {
    let store = &fixture.store;
    let mut results = Vec::new();
    for n in STREAMS..STREAMS + evicted {
        let (request, eviction) = (start(n), eviction(n));
        retry_on_contention(|| store.start(user, &request, StartHint::Optimistic, fixture.now())).await;
        retry_on_contention(|| store.end(user, &eviction, fixture.now())).await;
        fixture.advance_s(i64::from(n % 2));
    }
    for step in steps {
        let now = fixture.now();
        let result = match step {
            Step::Start { request, hint } => {
                match retry_on_contention(|| store.start(user, request, *hint, now)).await {
                    // After TTL deletes a lease, the embedded store's counter still contains the stream, and a start reaps it. The
                    // memory store no longer contains it, so `reaped` differs. Only starts that read know the other streams.
                    StartOutcome::Started(mut started) => {
                        started.reaped = 0;
                        started.expired.clear();
                        started.live_before = None;
                        format!("{started:?}")
                    }
                    other => format!("{other:?}"),
                }
            }
            Step::Heartbeat(n, content) => {
                let content_id = content.and_then(ContentId::clean);
                let request = HeartbeatRequest { content_id, ..renewal(*n) };
                let heartbeat = retry_on_contention(|| store.heartbeat(user, &request, now)).await;
                format!("{:?} {:?}", unless_expired(heartbeat.state), heartbeat.previous_expiry)
            }
            Step::Stop(n) => {
                retry_on_contention(|| store.stop(user, stream(*n))).await;
                String::new()
            }
            Step::End(selection) => {
                // Remove expired leases first. TTL may have deleted them in only one of the two stores, and in the other store
                // an eviction would mark them as ended.
                fixture.advance_s(200);
                fixture.sweep(user).await;
                let request = EndRequest { selection: selection.clone(), message: None, terms: TERMS };
                format!("{:?}", retry_on_contention(|| store.end(user, &request, fixture.now())).await)
            }
            Step::Purge => {
                retry_on_contention(|| store.purge(user, now)).await;
                String::new()
            }
            Step::Limit(limit) => {
                let previous = retry_on_contention(|| store.set_limit(user, limit.and_then(StreamLimit::new))).await;
                format!("{previous:?}")
            }
            Step::Wait(seconds) => {
                fixture.advance_s(*seconds);
                String::new()
            }
            Step::Sweep => {
                fixture.sweep(user).await;
                String::new()
            }
        };
        let now = fixture.now();
        let listed = store.streams(user, now).await.unwrap();
        assert!(listed.live.len() <= 5, "no limit in this test exceeds 5");
        let mut states = Vec::new();
        for n in 0..STREAMS {
            states.push(unless_expired(store.stream(user, stream(n), now).await.unwrap()));
        }
        results.push(format!("{step:?} -> {result} {listed:?} {states:?}"));
    }
    for n in STREAMS..STREAMS + evicted {
        results.push(format!("{n}: {:?}", store.stream(user, stream(n), fixture.now()).await.unwrap()));
    }
    results
}

/// Hides expired leases, because TTL or a start that reads may delete them at any time.
fn unless_expired(state: StreamState) -> StreamState {
    match state {
        StreamState::Inactive(lease) if lease.termination.is_none() => StreamState::NotFound,
        state => state,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn memory_and_embedded_store_have_the_same_results(
        evicted in prop_oneof![Just(0), 0..=MAX_ENDED_LEASES as u8 + 5],
        steps in proptest::collection::vec(any_step(), 1..40),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let memory = Fixture::memory().await;
            let embedded = Fixture::embedded().await;
            let ann = user("ann");
            embedded.clock.advance_ms(memory.now().epoch_ms() - embedded.now().epoch_ms());
            let memory = results(&memory, &ann, evicted, &steps).await;
            let embedded = results(&embedded, &ann, evicted, &steps).await;
            for (memory, embedded) in memory.iter().zip(&embedded) {
                prop_assert_eq!(memory, embedded);
            }
            Ok(())
        })?;
    }
}
