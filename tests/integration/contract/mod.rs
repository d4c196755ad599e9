//! The contract of `LeaseStore`. Each clause is a test that runs against every store. The tests in `endpoint` do nothing unless
//! `TEST_DYNAMODB_ENDPOINT` is set.

mod evictions;
mod heartbeats_and_stops;
mod observe;
mod rules;
mod starts;

use stream_manager::domain::admission::end::EndRequest;
use stream_manager::domain::admission::{AtLimit, StartOutcome, StartRequest, Started};
use stream_manager::domain::lease::{Fingerprint, Lease, StreamLimit};
use stream_manager::domain::names::{StreamId, UserName};
use stream_manager::store::{Ended, HeartbeatRequest, StartHint, Stop, StreamState};

use self::evictions::*;
use self::heartbeats_and_stops::*;
use self::observe::*;
use self::rules::*;
use self::starts::*;
use crate::support::{Backing, Fixture, erasure, eviction, renewal, retry_on_contention, start, stream, unique_user};

macro_rules! contract {
    ($($clause:ident),* $(,)?) => {
        contract! { @store memory: $($clause),* }
        contract! { @store embedded: $($clause),* }
        contract! { @store endpoint: $($clause),* }
    };
    (@store $store:ident: $($clause:ident),*) => {
        mod $store {
            use super::{Fixture, User, unique_user};

            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $clause() {
                    let fixture: Option<Fixture> = Fixture::$store().await.into();
                    if let Some(fixture) = fixture {
                        super::$clause(User { fixture, name: unique_user() }).await;
                    }
                }
            )*
        }
    };
}

contract! {
    a_start_stores_its_details_and_expires_after_the_duration,
    a_denial_lists_live_streams_oldest_first,
    racing_starts_grant_exactly_the_limit,
    racing_evictions_never_exceed_the_limit,
    a_repeated_start_returns_the_first_lease,
    a_repeated_start_with_another_body_is_refused,
    a_repeated_start_of_an_evicted_stream_returns_ended,
    a_repeated_start_after_expiry_starts_again,
    a_slot_is_free_exactly_at_expiry,
    a_heartbeat_renews_the_lease_from_now,
    a_late_duplicate_heartbeat_never_shortens_a_lease,
    a_heartbeat_never_revives_an_expired_lease,
    a_heartbeat_of_an_unknown_stream_returns_not_found,
    a_repeated_stop_frees_one_slot,
    a_stop_of_an_unknown_user_stores_nothing,
    a_stopped_stream_is_not_found,
    an_evicted_stream_stays_inactive_for_the_retention,
    a_stop_after_an_eviction_keeps_the_termination,
    a_restarted_device_reuses_its_slot,
    a_replaced_stream_names_its_replacement,
    a_denied_start_replaces_nothing,
    evict_oldest_ends_only_the_oldest_stream,
    a_repeated_start_lists_the_streams_it_ended,
    a_start_returns_the_leases_that_it_ends,
    device_restarts_keep_a_bounded_number_of_ended_leases,
    a_stored_limit_applies_until_it_is_removed,
    a_lowered_limit_ends_no_streams,
    a_token_limit_overrides_the_stored_and_the_default_limit,
    users_with_similar_names_are_independent,
    ttl_deletion_frees_no_slot_twice,
    evicting_a_stream_deleted_by_ttl_does_nothing,
    evictions_keep_a_bounded_number_of_ended_leases,
    a_heartbeat_stores_the_content,
    evict_oldest_prefers_an_overdue_stream,
    an_eviction_of_all_ends_every_live_stream,
    an_eviction_of_listed_streams_ignores_other_ids,
    an_eviction_message_is_stored_with_the_ended_lease,
    a_new_limit_can_end_the_excess,
    ending_streams_returns_their_leases_and_the_previous_limit,
    a_new_limit_of_an_unknown_user_is_stored,
    a_limit_of_zero_blocks_every_start,
    an_erased_user_leaves_no_data,
    streams_are_not_found_after_the_first_step_of_an_erasure,
    a_stream_started_during_an_erasure_survives,
    a_purge_alone_ends_no_stream,
    a_user_can_return_after_an_erasure,
    an_erasure_of_an_unknown_user_stores_nothing,
    labels_are_stored_with_the_stream,
    a_rule_denies_and_lists_the_streams_that_it_counts,
    racing_starts_never_exceed_a_rule,
    a_start_evicts_a_stream_of_the_rule_and_no_older_one,
    an_expired_stream_does_not_count_by_a_rule,
    a_start_over_an_observed_limit_is_reported,
    a_blocked_user_in_observe_mode_can_start,
    the_hard_limit_denies_and_evicts_nobody,
    racing_starts_never_exceed_the_hard_limit,
    instances_with_both_modes_share_the_streams,
    an_observed_rule_is_reported_and_denies_nothing,
}

/// A user of a store, with shortcuts for the operations.
pub struct User {
    pub fixture: Fixture,
    pub name: UserName,
}

impl User {
    async fn start(&self, request: StartRequest) -> StartOutcome {
        self.start_with(request, StartHint::Optimistic).await
    }

    async fn start_with(&self, request: StartRequest, hint: StartHint) -> StartOutcome {
        let store = &self.fixture.store;
        retry_on_contention(|| store.start(&self.name, &request, hint, self.fixture.now())).await
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

    async fn heartbeat(&self, n: u8) -> StreamState {
        self.heartbeat_with(renewal(n)).await
    }

    async fn heartbeat_with(&self, request: HeartbeatRequest) -> StreamState {
        let store = &self.fixture.store;
        retry_on_contention(|| store.heartbeat(&self.name, &request, self.fixture.now())).await.state
    }

    async fn stop(&self, n: u8) -> Stop {
        retry_on_contention(|| self.fixture.store.stop(&self.name, stream(n))).await
    }

    async fn end(&self, request: EndRequest) -> Vec<StreamId> {
        self.ended(request).await.ids()
    }

    async fn ended(&self, request: EndRequest) -> Ended {
        let store = &self.fixture.store;
        retry_on_contention(|| store.end(&self.name, &request, self.fixture.now())).await
    }

    async fn evict(&self, n: u8) -> Vec<StreamId> {
        self.end(eviction(n)).await
    }

    async fn erase(&self) -> Vec<StreamId> {
        let ended = self.end(erasure()).await;
        self.purge().await;
        ended
    }

    async fn purge(&self) {
        retry_on_contention(|| self.fixture.store.purge(&self.name, self.fixture.now())).await;
    }

    async fn live(&self) -> Vec<StreamId> {
        let streams = self.fixture.store.streams(&self.name, self.fixture.now()).await.unwrap();
        streams.live.iter().map(|lease| lease.stream_id).collect()
    }

    async fn state(&self, n: u8) -> StreamState {
        self.fixture.store.stream(&self.name, stream(n), self.fixture.now()).await.unwrap()
    }

    /// The number of stored leases, live or inactive.
    async fn stored_leases(&self) -> usize {
        match &self.fixture.backing {
            Backing::Memory(store) => store.size().1,
            Backing::Embedded(..) | Backing::Endpoint(_) => {
                let items = self.fixture.items(&self.name).await;
                items.iter().filter(|item| item["record"].as_s().is_ok_and(|record| record != "counter")).count()
            }
        }
    }

    /// Returns the previous limit.
    async fn set_limit(&self, limit: Option<u64>) -> Option<u8> {
        let limit = limit.and_then(StreamLimit::new);
        let previous = retry_on_contention(|| self.fixture.store.set_limit(&self.name, limit)).await;
        previous.map(StreamLimit::get)
    }
}

fn live(state: StreamState) -> Lease {
    match state {
        StreamState::Live(lease) => lease,
        other => panic!("not live: {other:?}"),
    }
}

fn inactive(state: StreamState) -> Lease {
    match state {
        StreamState::Inactive(lease) => lease,
        other => panic!("not inactive: {other:?}"),
    }
}

fn keyed(n: u8, body: u128) -> StartRequest {
    StartRequest { fingerprint: Some(Fingerprint(uuid::Uuid::from_u128(body))), ..start(n) }
}

fn evicting(n: u8) -> StartRequest {
    StartRequest { at_limit: AtLimit::EvictOldest, ..start(n) }
}
