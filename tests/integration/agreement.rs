//! The stores agree: any sequence of verbs gets the same answers from memory and from the DynamoDB store.

use proptest::prelude::*;
use stream_manager::domain::admission::{AtLimit, MAX_ENDED_LEASES, StartOutcome, StartRequest};
use stream_manager::domain::lease::{Fingerprint, StreamLimit};
use stream_manager::domain::names::{Label, UserName};
use stream_manager::store::{StartHint, StoppedBy, StreamState};

use crate::support::{Fixture, TERMS, persistently, start, stream, user};

#[derive(Clone, Debug)]
enum Step {
    Start { request: StartRequest, room: StartHint },
    Heartbeat(u8),
    Stop(u8, StoppedBy),
    Limit(Option<u64>),
    Wait(i64),
    Sweep,
}

const STREAMS: u8 = 6;

fn any_start() -> impl Strategy<Value = Step> {
    let options = (
        0..STREAMS,
        proptest::option::of(0u8..3),
        proptest::collection::vec(0..STREAMS, 0..2),
        any::<bool>(),
        proptest::option::of(0u128..2),
        any::<bool>(),
        proptest::option::weighted(0.3, 1u64..5),
    );
    options.prop_map(|(n, device, replaces, evict, fingerprint, expect_room, token_limit)| {
        let request = StartRequest {
            fingerprint: fingerprint.map(|body| Fingerprint(uuid::Uuid::from_u128(body))),
            device_id: device.and_then(|device| Label::parse(&format!("device-{device}")).ok()),
            replaces: replaces.into_iter().map(stream).collect(),
            at_limit: if evict { AtLimit::EvictOldest } else { AtLimit::Reject },
            token_limit: token_limit.and_then(StreamLimit::new),
            ..start(n)
        };
        Step::Start { request, room: if expect_room { StartHint::Optimistic } else { StartHint::ReadFirst } }
    })
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => any_start(),
        3 => (0..STREAMS).prop_map(Step::Heartbeat),
        2 => (0..STREAMS).prop_map(|n| Step::Stop(n, StoppedBy::Player)),
        1 => (0..STREAMS).prop_map(|n| Step::Stop(n, StoppedBy::Evictor)),
        1 => proptest::option::of(1u64..5).prop_map(Step::Limit),
        3 => (1i64..100).prop_map(Step::Wait),
        1 => Just(Step::Sweep),
    ]
}

/// What the store answers, in full, as text; and after it the state that everyone can see. Before it, `evicted` streams
/// come and go; after it, what is still known of them.
async fn answers(fixture: &Fixture, user: &UserName, evicted: u8, steps: &[Step]) -> Vec<String> {
    let store = &fixture.store;
    let mut answers = Vec::new();
    for n in STREAMS..STREAMS + evicted {
        let request = start(n);
        persistently(|| store.start(user, &request, StartHint::Optimistic, fixture.now())).await;
        persistently(|| store.stop(user, stream(n), StoppedBy::Evictor, TERMS, fixture.now())).await;
        fixture.advance_s(i64::from(n % 2));
    }
    for step in steps {
        let now = fixture.now();
        let answer = match step {
            Step::Start { request, room } => match persistently(|| store.start(user, request, *room, now)).await {
                // TTL takes a member's lease away in DynamoDB and the member with it in memory.
                StartOutcome::Started(mut started) => {
                    started.reaped = 0;
                    format!("{started:?}")
                }
                other => format!("{other:?}"),
            },
            Step::Heartbeat(n) => {
                let beat = persistently(|| store.heartbeat(user, stream(*n), TERMS, now)).await;
                format!("{:?} {:?}", unless_expired(beat.state), beat.previous_expiry)
            }
            Step::Stop(n, StoppedBy::Evictor) if !is_live(store.stream(user, stream(*n), now).await) => {
                // The mark of an eviction goes on an expired lease too, if it is still there.
                String::new()
            }
            Step::Stop(n, by) => {
                persistently(|| store.stop(user, stream(*n), *by, TERMS, now)).await;
                String::new()
            }
            Step::Limit(limit) => {
                persistently(|| store.set_limit(user, limit.and_then(StreamLimit::new))).await;
                String::new()
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
        let seen = store.streams(user, now).await.expect("a list");
        assert!(seen.live.len() <= 5, "no limit here is higher");
        let mut states = Vec::new();
        for n in 0..STREAMS {
            states.push(unless_expired(store.stream(user, stream(n), now).await.expect("a stream")));
        }
        answers.push(format!("{step:?} -> {answer} {seen:?} {states:?}"));
    }
    for n in STREAMS..STREAMS + evicted {
        answers.push(format!("{n}: {:?}", store.stream(user, stream(n), fixture.now()).await.expect("a stream")));
    }
    answers
}

fn is_live(state: stream_manager::store::Result<StreamState>) -> bool {
    matches!(state, Ok(StreamState::Live(_)))
}

/// A lease that ran out may be forgotten at any time: by TTL, or by a start that happened to look.
fn unless_expired(state: StreamState) -> StreamState {
    match state {
        StreamState::Inactive(lease) if lease.termination.is_none() => StreamState::NotFound,
        state => state,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn memory_and_dynamodb_answer_alike(
        evicted in prop_oneof![Just(0), 0..=MAX_ENDED_LEASES as u8 + 5],
        steps in proptest::collection::vec(any_step(), 1..40),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let memory = Fixture::memory().await.expect("a store");
            let embedded = Fixture::embedded().await.expect("a store");
            let ann = user("ann");
            embedded.clock.advance_ms(memory.now().epoch_ms() - embedded.now().epoch_ms());
            let memory = answers(&memory, &ann, evicted, &steps).await;
            let embedded = answers(&embedded, &ann, evicted, &steps).await;
            for (memory, embedded) in memory.iter().zip(&embedded) {
                prop_assert_eq!(memory, embedded);
            }
            Ok(())
        })?;
    }
}
