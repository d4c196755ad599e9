//! An HTTP client for the SDK that returns canned DynamoDB responses without a network.

use aws_sdk_dynamodb::config::http::{HttpRequest, HttpResponse};
use aws_sdk_dynamodb::config::{HttpClient, RuntimeComponents};
use aws_smithy_runtime_api::client::http::{
    HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector,
};

use crate::canned_responses::response_body;

#[derive(Clone, Copy, Debug)]
pub struct CannedTable;

impl HttpClient for CannedTable {
    fn http_connector(&self, _: &HttpConnectorSettings, _: &RuntimeComponents) -> SharedHttpConnector {
        SharedHttpConnector::new(*self)
    }
}

impl HttpConnector for CannedTable {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let operation = request.headers().get("x-amz-target").and_then(|target| target.rsplit('.').next());
        let body = response_body(operation.unwrap_or_default());
        let mut response = HttpResponse::new(200.try_into().unwrap(), body.into());
        for (name, value) in [
            ("content-type", "application/x-amz-json-1.0"),
            ("date", "Mon, 21 Sep 2026 14:13:20 GMT"),
            ("x-amzn-requestid", "QB4K1KPM4J8VDV2FLJK1U6U8CJVV4KQNSO5AEMVJF66Q9ASUAAJG"),
        ] {
            response.headers_mut().insert(name, value);
        }
        HttpConnectorFuture::ready(Ok(response))
    }
}
