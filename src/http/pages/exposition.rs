//! The `/metrics` endpoint of the management port.

use std::sync::Arc;

use poem::endpoint::make_sync;
use poem::http::StatusCode;
use poem::{EndpointExt, Response};

use crate::http::pipeline::routes::Page;
use crate::telemetry::metrics::Metrics;

pub(crate) fn page(metrics: Arc<Metrics>) -> Page {
    let endpoint = make_sync(move |_| match metrics.encode() {
        Ok(text) => {
            Response::builder().content_type("application/openmetrics-text; version=1.0.0; charset=utf-8").body(text)
        }
        Err(_) => Response::from(StatusCode::INTERNAL_SERVER_ERROR),
    });
    Page { name: "metrics", path: "/metrics", endpoint: endpoint.boxed() }
}
