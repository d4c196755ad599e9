//! The contract of `LeaseStore`, a clause a promise, run against every store. The endpoint's runs count only when
//! `TEST_DYNAMODB_ENDPOINT` is set.

mod admissions;
mod endings;

use stream_manager::domain::admission::{AtLimit, StartOutcome, StartRequest, Started};
use stream_manager::domain::lease::{Fingerprint, Lease, StreamLimit};
use stream_manager::domain::names::{StreamId, UserName};
use stream_manager::store::{StartHint, Stop, StoppedBy, StreamState};

use self::admissions::*;
use self::endings::*;
use crate::support::{Backing, Fixture, TERMS, persistently, start, stream};

macro_rules! contract {
    ($($clause:ident),* $(,)?) => {
        contract! { @store memory: $($clause),* }
        contract! { @store embedded: $($clause),* }
        contract! { @store endpoint: $($clause),* }
    };
    (@store $store:ident: $($clause:ident),*) => {
        mod $store {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $clause() {
                    if let Some(fixture) = crate::support::Fixture::$store().await {
                        super::$clause(User { fixture, name: crate::support::someone() }).await;
                    }
                }
            )*
            use super::User;
        }
    };
}

contract! {
    a_start_is_granted_for_the_duration_and_keeps_what_it_was_told,
    a_start_at_the_limit_is_denied_with_the_live_streams_oldest_first,
    racing_starts_grant_exactly_the_limit,
    racing_evictions_never_hold_more_than_the_limit,
    a_repeated_start_answers_the_first_lease_and_takes_no_second_slot,
    a_repeated_start_with_another_body_is_refused,
    a_repeated_start_of_an_ended_stream_says_so,
    a_repeated_start_whose_lease_ran_out_is_admitted_anew,
    a_slot_is_free_at_the_expiry_and_not_a_millisecond_before,
    a_heartbeat_renews_for_the_duration_from_now,
    a_late_duplicate_of_a_heartbeat_never_shortens_a_lease,
    a_heartbeat_never_revives_a_lease_that_ran_out,
    a_heartbeat_of_an_unknown_stream_finds_nothing,
    a_stop_frees_one_slot_however_often_it_is_repeated,
    a_stop_of_an_unknown_user_leaves_nothing_behind,
    a_stopped_stream_is_forgotten,
    an_evicted_stream_is_over_and_remembered_for_the_retention,
    a_stop_after_an_eviction_leaves_the_mark,
    a_restarted_device_takes_its_own_slot_again,
    a_stream_that_was_replaced_learns_by_whom,
    a_start_replaces_in_one_step_and_if_denied_replaces_nothing,
    evicting_the_oldest_makes_room_for_one,
    a_repeated_start_says_again_whom_it_ended,
    restarts_without_end_leave_no_more_than_the_latest_to_remember,
    a_users_own_limit_is_in_force_until_it_is_removed,
    a_lowered_limit_ends_nobody_and_refuses_until_there_is_room,
    a_limit_that_a_token_says_goes_before_the_stored_one_and_the_default,
    users_are_apart_however_alike_their_names,
    deletion_by_ttl_frees_nothing_twice_and_blocks_nothing,
    an_eviction_of_a_stream_that_ttl_deleted_is_done_already,
    evictions_without_end_leave_no_more_than_the_latest_to_remember,
}

/// One user on one store, and the verbs in short.
pub struct User {
    pub fixture: Fixture,
    pub name: UserName,
}

impl User {
    async fn start(&self, request: StartRequest) -> StartOutcome {
        self.start_at(request, StartHint::Optimistic).await
    }

    async fn start_at(&self, request: StartRequest, room: StartHint) -> StartOutcome {
        let store = &self.fixture.store;
        persistently(|| store.start(&self.name, &request, room, self.fixture.now())).await
    }

    async fn started(&self, request: StartRequest) -> Started {
        match self.start(request).await {
            StartOutcome::Started(started) => started,
            other => panic!("not started: {other:?}"),
        }
    }

    async fn denied(&self, request: StartRequest) -> Vec<StreamId> {
        match self.start(request).await {
            StartOutcome::Denied(denial) => denial.streams.iter().map(|lease| lease.stream_id).collect(),
            other => panic!("not denied: {other:?}"),
        }
    }

    async fn beat(&self, n: u8) -> StreamState {
        let store = &self.fixture.store;
        persistently(|| store.heartbeat(&self.name, stream(n), TERMS, self.fixture.now())).await.state
    }

    async fn stop(&self, n: u8, by: StoppedBy) -> Stop {
        let store = &self.fixture.store;
        persistently(|| store.stop(&self.name, stream(n), by, TERMS, self.fixture.now())).await
    }

    async fn live(&self) -> Vec<StreamId> {
        let streams = self.fixture.store.streams(&self.name, self.fixture.now()).await.expect("a list");
        streams.live.iter().map(|lease| lease.stream_id).collect()
    }

    async fn state(&self, n: u8) -> StreamState {
        self.fixture.store.stream(&self.name, stream(n), self.fixture.now()).await.expect("a stream")
    }

    /// How many leases are stored, over or not.
    async fn stored(&self) -> usize {
        match &self.fixture.backing {
            Backing::Memory(store) => store.size().1,
            Backing::Embedded(_, client) | Backing::Endpoint(client) => {
                let items = crate::support::items(client, &self.name).await;
                items.iter().filter(|item| item["record"].as_s().is_ok_and(|record| record != "counter")).count()
            }
        }
    }

    async fn limit(&self, limit: Option<u64>) {
        let limit = limit.and_then(StreamLimit::new);
        persistently(|| self.fixture.store.set_limit(&self.name, limit)).await;
    }
}

fn live(state: StreamState) -> Lease {
    match state {
        StreamState::Live(lease) => lease,
        other => panic!("not live: {other:?}"),
    }
}

fn over(state: StreamState) -> Lease {
    match state {
        StreamState::Inactive(lease) => lease,
        other => panic!("not over: {other:?}"),
    }
}

fn keyed(n: u8, body: u128) -> StartRequest {
    StartRequest { fingerprint: Some(Fingerprint(uuid::Uuid::from_u128(body))), ..start(n) }
}

fn evicting(n: u8) -> StartRequest {
    StartRequest { at_limit: AtLimit::EvictOldest, ..start(n) }
}
