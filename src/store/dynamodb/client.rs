//! Configures the AWS SDK. All timeouts are set explicitly, because by default the SDK limits neither an attempt nor an
//! operation.

use std::time::Duration;

use aws_config::{BehaviorVersion, Region, SdkConfig};
pub use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::retry::{ReconnectMode, RetryConfig, RetryPartition};
use aws_sdk_dynamodb::config::timeout::TimeoutConfig;
use aws_sdk_dynamodb::config::{
    Builder, Credentials, IdentityCache, ProvideCredentials, SharedHttpClient, SharedInterceptor,
    StalledStreamProtectionConfig,
};
use thiserror::Error;

use super::errors::with_causes;
use super::metrics_interceptor::MetricsInterceptor;
use super::trace_interceptor::TraceInterceptor;

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

/// The configuration of clients for DynamoDB.
pub struct ClientFactory(SdkConfig);

/// Loads the configuration, with the SDK's default region and credential chains. Loads the credentials once, so that missing
/// credentials fail the startup and not the first request.
pub async fn load(settings: &ClientSettings) -> Result<ClientFactory, ClientError> {
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
    Ok(ClientFactory(config))
}

impl ClientFactory {
    /// Creates a client with its own connections and credentials cache, so that workers do not share their locks. All clients
    /// share the SDK's retry quota.
    pub fn client(&self) -> Client {
        let config = Builder::from(&self.0).identity_cache(IdentityCache::lazy().build());
        Client::from_conf(config.build())
    }
}

/// Creates a client with dummy credentials that sends its requests to `http` instead of the network.
pub fn in_process(settings: &ClientSettings, http: SharedHttpClient) -> Client {
    let config = Builder::new()
        .behavior_version(behavior())
        .http_client(http)
        .endpoint_url("http://embedded.invalid")
        .region(Region::new("embedded"))
        .credentials_provider(Credentials::new("embedded", "embedded", None, None, "embedded"))
        .timeout_config(timeouts(settings))
        .stalled_stream_protection(stalled_streams())
        // Without its own partition, this client would share one retry quota with all clients of the process.
        .retry_partition(RetryPartition::custom("in-process").build())
        // This client calls the store in the process, without network connections. In any other reconnect mode, the SDK
        // would try to close a connection after a failure, and log an error.
        .retry_config(retries(settings.max_attempts).with_reconnect_mode(ReconnectMode::ReuseAllConnections));
    Client::from_conf(config.build())
}

/// Returns a copy of the client whose requests are measured by `interceptor`.
pub fn with_metrics(client: &Client, interceptor: MetricsInterceptor) -> Client {
    let mut config = client.config().to_builder();
    // Permanent, because the SDK checks before each hook whether an interceptor is disabled, unless it is permanent.
    config.push_interceptor(SharedInterceptor::permanent(interceptor));
    Client::from_conf(config.build())
}

/// Returns a copy of the client whose requests are traced by `interceptor`.
pub fn with_traces(client: &Client, interceptor: TraceInterceptor) -> Client {
    let mut config = client.config().to_builder();
    config.push_interceptor(SharedInterceptor::permanent(interceptor));
    Client::from_conf(config.build())
}

/// Pinned, because a newer version may change defaults such as the retry backoff.
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

/// Disabled, because the attempt timeout already limits how long a response body may take.
fn stalled_streams() -> StalledStreamProtectionConfig {
    StalledStreamProtectionConfig::disabled()
}

/// Uses the standard retry mode. In adaptive mode, all requests of a client share one rate limiter, so one throttled
/// user would slow down all users.
fn retries(max_attempts: u32) -> RetryConfig {
    RetryConfig::standard()
        .with_max_attempts(max_attempts)
        .with_initial_backoff(Duration::from_millis(50))
        .with_max_backoff(Duration::from_secs(1))
}
