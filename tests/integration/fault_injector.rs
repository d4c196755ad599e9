//! An SDK transport that wraps another transport, records the requests and injects faults.

use std::convert::Infallible;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_sdk_dynamodb::config::http::{HttpRequest, HttpResponse};
use aws_sdk_dynamodb::config::{HttpClient, RuntimeComponents, SharedHttpClient};
use aws_smithy_runtime_api::client::http::{
    HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector,
};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_types::body::SdkBody;
use futures_util::stream::{self, StreamExt};
use http_body_util::StreamBody;
use hyper::body::{Bytes, Frame};
use stream_manager::store::dynamodb::DynamoStore;
use stream_manager::store::dynamodb::client::{self, ClientSettings};

use crate::support::{Fixture, TABLE, client_settings};

pub const CONFLICT: Fault = Fault::Rejected(400, "TransactionConflictException");

/// A fault that the injector applies to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    None,
    /// The connection breaks before the request is applied.
    Lost,
    /// The request is applied, and its response is lost.
    ResponseLost,
    /// The request is not applied, and the response has this status and error type.
    Rejected(u16, &'static str),
    /// The request is applied, and the response is a 500.
    AppliedThen500,
    /// The request is not applied, and no response ever arrives.
    Hang,
    /// The request is applied, and the body of the response stops halfway.
    Stall,
}

/// A request that reached the inner transport.
#[derive(Clone, Debug)]
pub struct RecordedRequest {
    pub operation: String,
    /// The body of the response.
    pub response: serde_json::Value,
}

#[derive(Clone, Debug)]
pub struct FaultInjector {
    inner: SharedHttpClient,
    recorded: Arc<Mutex<Vec<RecordedRequest>>>,
    /// The fault, and the operation that it affects (`None`: every operation).
    fault: Arc<Mutex<(Fault, Option<&'static str>)>>,
    /// A fault for the next request only. It replaces `fault` for that request.
    next: Arc<Mutex<Option<Fault>>>,
    rejected: Arc<AtomicUsize>,
}

impl FaultInjector {
    pub fn new(inner: SharedHttpClient) -> Self {
        Self {
            inner,
            recorded: Arc::default(),
            fault: Arc::new(Mutex::new((Fault::None, None))),
            next: Arc::default(),
            rejected: Arc::default(),
        }
    }

    /// An empty embedded engine, and a fault injector in front of it.
    pub async fn on_embedded() -> (Self, Fixture) {
        let fixture = Fixture::embedded().await;
        (Self::new(fixture.engine().http_client()), fixture)
    }

    pub fn http_client(&self) -> SharedHttpClient {
        SharedHttpClient::new(self.clone())
    }

    /// A store that sends its requests through this transport. Its timeouts are short enough for tests.
    pub fn store(&self, max_attempts: u32) -> DynamoStore {
        self.store_with(ClientSettings {
            attempt_timeout: Duration::from_millis(400),
            operation_timeout: Duration::from_millis(1600),
            max_attempts,
            ..client_settings()
        })
    }

    /// A store that sends each request once, with a timeout of `attempt_timeout`.
    pub fn store_with_timeout(&self, attempt_timeout: Duration) -> DynamoStore {
        self.store_with(ClientSettings { attempt_timeout, max_attempts: 1, ..client_settings() })
    }

    fn store_with(&self, settings: ClientSettings) -> DynamoStore {
        DynamoStore::new(client::in_process(&settings, self.http_client()), TABLE)
    }

    /// Injects `fault` into every operation.
    pub fn set(&self, fault: Fault) {
        *self.fault.lock().unwrap() = (fault, None);
    }

    /// Injects `fault` into one operation.
    pub fn set_on(&self, operation: &'static str, fault: Fault) {
        *self.fault.lock().unwrap() = (fault, Some(operation));
    }

    /// Injects `fault` into the next request only.
    pub fn set_next(&self, fault: Fault) {
        *self.next.lock().unwrap() = Some(fault);
    }

    /// The number of requests that `Fault::Rejected` affected.
    pub fn rejected_count(&self) -> usize {
        self.rejected.load(Ordering::SeqCst)
    }

    /// The requests recorded since the last call.
    pub fn take_requests(&self) -> Vec<RecordedRequest> {
        std::mem::take(&mut self.recorded.lock().unwrap())
    }

    fn fault_on(&self, operation: &str) -> Fault {
        if let Some(next) = self.next.lock().unwrap().take() {
            return next;
        }
        let (fault, only) = *self.fault.lock().unwrap();
        if only.is_none_or(|only| only == operation) { fault } else { Fault::None }
    }
}

impl HttpClient for FaultInjector {
    fn http_connector(
        &self,
        settings: &HttpConnectorSettings,
        components: &RuntimeComponents,
    ) -> SharedHttpConnector {
        let inner = self.inner.http_connector(settings, components);
        SharedHttpConnector::new(FaultyConnector { injector: self.clone(), inner })
    }
}

#[derive(Debug)]
struct FaultyConnector {
    injector: FaultInjector,
    inner: SharedHttpConnector,
}

impl HttpConnector for FaultyConnector {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let operation = request.headers().get("x-amz-target").and_then(|target| target.rsplit('.').next());
        let operation = operation.unwrap_or_default().to_owned();
        let fault = self.injector.fault_on(&operation);
        if matches!(fault, Fault::Rejected(..)) {
            self.injector.rejected.fetch_add(1, Ordering::SeqCst);
        }
        let (recorded, inner) = (Arc::clone(&self.injector.recorded), self.inner.clone());
        HttpConnectorFuture::new(async move {
            let lost = || Err(ConnectorError::io("the connection broke".into()));
            match fault {
                Fault::Lost => return lost(),
                Fault::Hang => std::future::pending().await,
                Fault::Rejected(status, code) => return Ok(rejection(status, code)),
                Fault::None | Fault::ResponseLost | Fault::AppliedThen500 | Fault::Stall => {}
            }
            let mut response = inner.call(request).await?;
            let body = response.body().bytes().unwrap_or_default();
            let body = serde_json::from_slice(body).unwrap_or_default();
            recorded.lock().unwrap().push(RecordedRequest { operation, response: body });
            match fault {
                Fault::ResponseLost => lost(),
                Fault::AppliedThen500 => Ok(rejection(500, "InternalServerError")),
                Fault::Stall => {
                    *response.body_mut() = stalled(response.body().bytes().unwrap_or_default());
                    Ok(response)
                }
                _ => Ok(response),
            }
        })
    }
}

/// A body that sends its first half and never ends.
fn stalled(body: &[u8]) -> SdkBody {
    let half = Frame::data(Bytes::copy_from_slice(&body[..body.len() / 2]));
    let frames = stream::iter([Ok::<_, Infallible>(half)]).chain(stream::pending());
    SdkBody::from_body_1_x(StreamBody::new(frames))
}

fn rejection(status: u16, code: &str) -> HttpResponse {
    let body = format!(r#"{{"__type":"com.amazonaws.dynamodb.v20120810#{code}","message":"injected"}}"#);
    HttpResponse::new(status.try_into().unwrap(), body.into())
}
