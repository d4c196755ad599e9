//! Retries and reads after store errors: the number of store requests per operation.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_sdk_dynamodb::config::http::{HttpRequest, HttpResponse};
use aws_sdk_dynamodb::config::{HttpClient, RuntimeComponents, SharedHttpClient};
use aws_smithy_runtime_api::client::http::{
    HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector,
};
use serde_json::{Value, json};
use stream_manager::domain::admission::StartOutcome;
use stream_manager::limiter::{Limiter, StartOptions};
use stream_manager::store::dynamodb::DynamoStore;
use stream_manager::store::dynamodb::client::{self, ClientSettings};
use stream_manager::store::{Refusal, StoreError};

use crate::support::{client_settings, stream, user};
use crate::test_app::TestApp;

const SDK_ATTEMPTS: usize = 3;
const LIMITER_ATTEMPTS: usize = 5;

/// An SDK transport that responds to the first `failures` requests with `error`, and to all later ones with an empty success.
#[derive(Clone, Debug)]
struct FailingTable {
    error: Value,
    failures: usize,
    requests: Arc<AtomicUsize>,
    operations: Arc<Mutex<Vec<String>>>,
}

impl FailingTable {
    fn new(error: Value, failures: usize) -> Self {
        Self { error, failures, requests: Arc::default(), operations: Arc::default() }
    }

    fn limiter(&self) -> Arc<Limiter> {
        let settings = ClientSettings {
            attempt_timeout: Duration::from_secs(10),
            operation_timeout: Duration::from_secs(60),
            max_attempts: SDK_ATTEMPTS as u32,
            ..client_settings()
        };
        let client = client::in_process(&settings, SharedHttpClient::new(self.clone()));
        let store = Arc::new(DynamoStore::new(client, "user-streams"));
        TestApp { store, ..TestApp::default() }.build().limiter
    }

    /// The operations of all requests since the last call.
    fn take_operations(&self) -> Vec<String> {
        std::mem::take(&mut self.operations.lock().unwrap())
    }
}

impl HttpClient for FailingTable {
    fn http_connector(&self, _: &HttpConnectorSettings, _: &RuntimeComponents) -> SharedHttpConnector {
        SharedHttpConnector::new(self.clone())
    }
}

impl HttpConnector for FailingTable {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let target = request.headers().get("x-amz-target").unwrap();
        self.operations.lock().unwrap().push(target.rsplit('.').next().unwrap().to_owned());
        let fails = self.requests.fetch_add(1, Ordering::SeqCst) < self.failures;
        let (status, body) = if fails { (400, self.error.to_string()) } else { (200, "{}".to_owned()) };
        let response = HttpResponse::new(status.try_into().unwrap(), body.into());
        HttpConnectorFuture::ready(Ok(response))
    }
}

fn error(code: &str) -> Value {
    json!({ "__type": format!("com.amazonaws.dynamodb.v20120810#{code}"), "message": "injected" })
}

fn cancelled(code: &str) -> Value {
    let mut error = error("TransactionCanceledException");
    error["CancellationReasons"] = json!([{ "Code": "None" }, { "Code": code, "Message": "injected" }]);
    error
}

fn refusal(error: &StoreError) -> Refusal {
    match error {
        StoreError::NotApplied { refusal, .. } => *refusal,
        other => panic!("{other}"),
    }
}

#[tokio::test(start_paused = true)]
async fn throttled_transactions_get_five_attempts_without_reads() {
    for code in ["ThrottlingError", "ProvisionedThroughputExceeded"] {
        let table = FailingTable::new(cancelled(code), usize::MAX);
        let limiter = table.limiter();
        let failed = limiter.start(&user("ann"), StartOptions::default()).await.unwrap_err();
        assert_eq!(refusal(&failed), Refusal::ThrottledTransaction);
        assert_eq!(table.take_operations(), ["TransactWriteItems"; LIMITER_ATTEMPTS]);

        let failed = limiter.stop(&user("ann"), stream(1)).await.unwrap_err();
        assert_eq!(refusal(&failed), Refusal::ThrottledTransaction);
        assert_eq!(table.take_operations(), ["TransactWriteItems"; LIMITER_ATTEMPTS]);
    }
}

#[tokio::test(start_paused = true)]
async fn throttled_start_succeeds_after_the_throttling_ends() {
    let table = FailingTable::new(cancelled("ThrottlingError"), LIMITER_ATTEMPTS - 1);
    let started = table.limiter().start(&user("ann"), StartOptions::default()).await.unwrap();
    assert!(matches!(started.value, StartOutcome::Started(_)));
    assert_eq!(table.take_operations(), ["TransactWriteItems"; LIMITER_ATTEMPTS]);
}

#[tokio::test(start_paused = true)]
async fn limiter_does_not_multiply_the_sdk_retries() {
    let table = FailingTable::new(error("ThrottlingException"), usize::MAX);
    let limiter = table.limiter();
    let failed = limiter.heartbeat(&user("ann"), stream(1), None).await.unwrap_err();
    assert_eq!(refusal(&failed), Refusal::Throttled);
    assert_eq!(table.take_operations(), ["UpdateItem"; SDK_ATTEMPTS]);

    let failed = limiter.start(&user("ann"), StartOptions::default()).await.unwrap_err();
    assert_eq!(refusal(&failed), Refusal::Throttled);
    assert_eq!(table.take_operations(), ["TransactWriteItems"; SDK_ATTEMPTS]);
}

#[tokio::test(start_paused = true)]
async fn missing_table_and_denied_access_cause_no_reads() {
    for error in [error("ResourceNotFoundException"), error("AccessDeniedException"), cancelled("AccessDenied")] {
        let table = FailingTable::new(error, usize::MAX);
        let limiter = table.limiter();
        let failed = limiter.start(&user("ann"), StartOptions::default()).await.unwrap_err();
        assert_eq!(refusal(&failed), Refusal::Rejected);
        assert_eq!(table.take_operations(), ["TransactWriteItems"]);

        limiter.stop(&user("ann"), stream(1)).await.unwrap_err();
        assert_eq!(table.take_operations(), ["TransactWriteItems"]);
    }
}

#[tokio::test(start_paused = true)]
async fn validation_errors_cause_one_read() {
    for error in [error("ValidationException"), cancelled("ValidationError")] {
        let table = FailingTable::new(error, 1);
        let limiter = table.limiter();
        let failed = limiter.start(&user("ann"), StartOptions::default()).await.unwrap_err();
        assert_eq!(refusal(&failed), Refusal::Rejected);
        assert_eq!(table.take_operations(), ["TransactWriteItems", "Query"]);
    }
}
