//! A stub of DynamoDB on bare hyper. It has one fixed response per operation, which is enough for starts and heartbeats.
//! Usage: `dynamodb_stub ADDRESS [THREADS]`

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Request, Response};
use tokio::runtime::Builder;

#[allow(dead_code, reason = "the benchmark uses the rest of this module")]
#[path = "../../../../tests/instruction_counts/canned_responses.rs"]
mod canned_responses;

fn main() -> std::io::Result<()> {
    let threads = std::env::args().nth(2).and_then(|threads| threads.parse().ok()).unwrap_or(1);
    let runtime = match threads {
        1 => Builder::new_current_thread().enable_all().build()?,
        _ => Builder::new_multi_thread().worker_threads(threads).enable_all().build()?,
    };
    runtime.block_on(peers::serve(respond))
}

async fn respond(request: Request<Incoming>) -> Response<Full<Bytes>> {
    let target = request.headers().get("x-amz-target").and_then(|target| target.to_str().ok());
    let body =
        canned_responses::response_body(target.and_then(|target| target.rsplit('.').next()).unwrap_or_default());
    // Read the body, because otherwise hyper closes the connection.
    _ = request.into_body().collect().await;
    let mut response = Response::new(Full::from(body));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/x-amz-json-1.0"));
    response
}
