//! The SDK's settings: every timeout and retry set on purpose, since the SDK's own defaults bound neither an attempt
//! nor an operation.

use std::time::Duration;

use aws_config::{BehaviorVersion, Region};
pub use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::retry::{ReconnectMode, RetryConfig, RetryPartition};
use aws_sdk_dynamodb::config::timeout::TimeoutConfig;
use aws_sdk_dynamodb::config::{
    Builder, Credentials, ProvideCredentials, SharedHttpClient, SharedInterceptor, StalledStreamProtectionConfig,
};
use thiserror::Error;

use super::errors::with_causes;
use super::metrics_interceptor::MetricsInterceptor;
use super::user_agent::SameUserAgent;

/// Where the SDK's own spans come from, one for each of its operations.
pub const SPANS_OF_OPERATIONS: &str = "aws_sdk_dynamodb::operation::";

#[derive(Clone, Debug)]
pub struct ClientSettings {
    pub endpoint_url: Option<String>,
    pub region: Option<String>,
    pub connect_timeout: Duration,
    pub attempt_timeout: Duration,
    pub operation_timeout: Duration,
    pub max_attempts: u32,
}

#[derive(Debug, Error)]
pub enum ClientError {
    #[error("no AWS region: set dynamodb.region, AWS_REGION or a profile")]
    NoRegion,
    #[error("no AWS credentials: set a task role, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a profile ({0})")]
    NoCredentials(String),
}

/// A client by the SDK's usual chain of region and credentials. Credentials are loaded once here, so that a missing
/// role shows at start and not at the first request.
pub async fn connect(settings: &ClientSettings) -> Result<Client, ClientError> {
    let mut loader = aws_config::defaults(behavior())
        .timeout_config(timeouts(settings))
        .stalled_stream_protection(stalled_streams())
        .retry_config(retries(settings.max_attempts));
    if let Some(region) = &settings.region {
        loader = loader.region(Region::new(region.clone()));
    }
    if let Some(url) = &settings.endpoint_url {
        loader = loader.endpoint_url(url);
    }
    let config = loader.load().await;
    if config.region().is_none() {
        return Err(ClientError::NoRegion);
    }
    let provider = config.credentials_provider().ok_or_else(|| ClientError::NoCredentials(String::new()))?;
    provider.provide_credentials().await.map_err(|error| ClientError::NoCredentials(with_causes(&error)))?;
    Ok(built(Builder::from(&config)))
}

/// A client whose requests go to `http` instead of the network, with dummy credentials.
pub fn in_process(settings: &ClientSettings, http: SharedHttpClient) -> Client {
    let config = Builder::new()
        .behavior_version(behavior())
        .http_client(http)
        .endpoint_url("http://embedded.invalid")
        .region(Region::new("embedded"))
        .credentials_provider(Credentials::new("embedded", "embedded", None, None, "embedded"))
        .timeout_config(timeouts(settings))
        .stalled_stream_protection(stalled_streams())
        // The SDK's quota of retries is one for the whole process otherwise, and clients would use up each other's.
        .retry_partition(RetryPartition::custom("in-process").build())
        // There is no connection to give up after a failure, and the SDK would log an error for not finding one.
        .retry_config(retries(settings.max_attempts).with_reconnect_mode(ReconnectMode::ReuseAllConnections));
    built(config)
}

fn built(mut config: Builder) -> Client {
    config.push_interceptor(SharedInterceptor::permanent(SameUserAgent::default()));
    Client::from_conf(config.build())
}

/// The same client, and `observer` sees every request of it.
pub fn observed(client: &Client, observer: MetricsInterceptor) -> Client {
    let mut config = client.config().to_builder();
    // As an interceptor that could be disabled, it would be asked before each of its hooks whether it is.
    config.push_interceptor(SharedInterceptor::permanent(observer));
    Client::from_conf(config.build())
}

/// Pinned: a newer one may change defaults, such as how retries wait.
fn behavior() -> BehaviorVersion {
    BehaviorVersion::v2026_01_12()
}

fn timeouts(settings: &ClientSettings) -> TimeoutConfig {
    TimeoutConfig::builder()
        .connect_timeout(settings.connect_timeout)
        .operation_attempt_timeout(settings.attempt_timeout)
        .operation_timeout(settings.operation_timeout)
        .build()
}

/// The SDK's guard of long bodies only costs here: an answer's body is read within the attempt's timeout.
fn stalled_streams() -> StalledStreamProtectionConfig {
    StalledStreamProtectionConfig::disabled()
}

/// Not adaptive: its rate limiter is shared by the client, so one throttled user would slow all of them.
fn retries(max_attempts: u32) -> RetryConfig {
    RetryConfig::standard()
        .with_max_attempts(max_attempts)
        .with_initial_backoff(Duration::from_millis(50))
        .with_max_backoff(Duration::from_secs(1))
}
