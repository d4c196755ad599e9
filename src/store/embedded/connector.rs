//! The HTTP client that the SDK uses for the embedded engine. It queues requests, and one thread executes them in
//! order.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::{fmt, thread};

use aws_sdk_dynamodb::config::http::{HttpRequest, HttpResponse};
use aws_sdk_dynamodb::config::{HttpClient, RuntimeComponents};
use aws_smithy_runtime_api::client::http::{
    HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector,
};
use aws_smithy_runtime_api::client::result::ConnectorError;
use tokio::sync::{mpsc, oneshot};

use super::engine::{Engine, Response};

/// Capacity of the request queue. Callers wait while it is full.
const QUEUE_CAPACITY: usize = 256;

/// Sends requests to the engine's thread. The thread ends when the last clone is dropped.
#[derive(Clone, Debug)]
pub(crate) struct Connector {
    requests: mpsc::Sender<Request>,
    /// Stops the sweeper thread when the last clone is dropped.
    _sweeper: Option<std::sync::mpsc::Sender<()>>,
}

struct Request {
    operation: String,
    body: Vec<u8>,
    response: oneshot::Sender<Response>,
}

impl Connector {
    /// Starts the engine's thread. The thread drops `held` after it has closed the engine.
    pub(crate) fn start(
        engine: Engine,
        held: impl Send + 'static,
        sweeper: Option<std::sync::mpsc::Sender<()>>,
    ) -> std::io::Result<Self> {
        let (requests, mut queue) = mpsc::channel::<Request>(QUEUE_CAPACITY);
        thread::Builder::new().name("embedded-dynamodb".to_owned()).spawn(move || {
            while let Some(request) = queue.blocking_recv() {
                // Skip the request if its caller was dropped and no longer waits for the response.
                if request.response.is_closed() {
                    continue;
                }
                let response = catch_unwind(AssertUnwindSafe(|| engine.execute(&request.operation, &request.body)));
                _ = request.response.send(response.unwrap_or_else(|_| Response::internal_error("panic")));
            }
            // Drop the engine first. Its last handle writes SQLite's write-ahead log into the file, which must still be
            // locked.
            drop(engine);
            drop(held);
        })?;
        Ok(Self { requests, _sweeper: sweeper })
    }
}

impl HttpClient for Connector {
    fn http_connector(&self, _: &HttpConnectorSettings, _: &RuntimeComponents) -> SharedHttpConnector {
        SharedHttpConnector::new(self.clone())
    }
}

impl HttpConnector for Connector {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let requests = self.requests.clone();
        HttpConnectorFuture::new(async move {
            let stopped = || ConnectorError::io("the embedded engine has stopped".into());
            let operation = request.headers().get("x-amz-target").and_then(|target| target.rsplit('.').next());
            let operation = operation.unwrap_or_default().to_owned();
            let body = request.body().bytes().unwrap_or_default().to_vec();
            let (sender, receiver) = oneshot::channel();
            requests.send(Request { operation, body, response: sender }).await.map_err(|_| stopped())?;
            let Response { status, body } = receiver.await.map_err(|_| stopped())?;
            let status = status.try_into().map_err(|error| ConnectorError::other(Box::new(error), None))?;
            let mut response = HttpResponse::new(status, body.into());
            response.headers_mut().insert("content-type", "application/x-amz-json-1.0");
            Ok(response)
        })
    }
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.operation)
    }
}
