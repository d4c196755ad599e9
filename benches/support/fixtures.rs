//! Test data, and a client of an in-process engine with a table.

use std::collections::HashMap;
use std::sync::Arc;

use aws_sdk_dynamodb::config::SharedHttpClient;
use stream_manager::config::Config;
use stream_manager::domain::admission::{AtLimit, StartRequest};
use stream_manager::domain::labels::Labels;
use stream_manager::domain::lease::{LeaseTerms, StreamLimit, Timestamp};
use stream_manager::domain::names::{DisplayText, StreamId, UserName};
use stream_manager::domain::rules::LimitMode;
use stream_manager::migrate;
use stream_manager::store::dynamodb::client::{self, Client};

pub const NOW: Timestamp = Timestamp::from_epoch_ms(1_790_000_000_000);
pub const TERMS: LeaseTerms = LeaseTerms { duration_s: 90, heartbeat_interval_s: 30, retention_s: 3600 };
pub const TABLE: &str = "user-streams";

pub fn default_config() -> Config {
    Config::load(None, HashMap::new()).unwrap()
}

/// Creates the table in the engine behind `http`, and returns a client of this engine.
pub async fn client_with_table(http: SharedHttpClient) -> Client {
    let client = client::in_process(&default_config().client(), http);
    migrate::migrate(&client, TABLE).await.unwrap();
    client
}

pub fn user(n: u64) -> UserName {
    UserName::parse(&format!("user-{n:09}")).unwrap()
}

pub fn stream_id(n: u64) -> StreamId {
    StreamId::random(u128::from(n + 1).to_le_bytes())
}

/// A start of stream `n` without a device.
pub fn start_request(n: u64) -> StartRequest {
    StartRequest {
        stream_id: stream_id(n),
        fingerprint: None,
        device_id: None,
        device_name: None,
        content_id: DisplayText::clean("movie-007"),
        labels: Labels::default(),
        replaces: Vec::new(),
        at_limit: AtLimit::Reject,
        token_limit: None,
        default_limit: StreamLimit::DEFAULT,
        limit_mode: LimitMode::Enforce,
        hard_limit: StreamLimit::HIGHEST,
        rules: Arc::default(),
        terms: TERMS,
    }
}
