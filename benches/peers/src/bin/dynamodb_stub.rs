//! A stub of DynamoDB on bare hyper. It has one fixed response per operation, which is enough for starts and heartbeats.
//! Usage: `dynamodb_stub ADDRESS`

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Request, Response};

#[allow(dead_code, reason = "the benchmark uses the rest of this module")]
#[path = "../../../../tests/instruction_counts/canned_responses.rs"]
mod canned_responses;

#[tokio::main(flavor = "current_thread")]
async fn main() -> std::io::Result<()> {
    peers::serve(respond).await
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
