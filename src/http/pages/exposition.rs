//! The `/metrics` endpoint of the management port.

use std::sync::Arc;

use poem::endpoint::make;
use poem::http::StatusCode;
use poem::web::Accept;
use poem::{EndpointExt, FromRequest, Request, Response};

use crate::http::pipeline::routes::Page;
use crate::live_streams::LiveStreams;
use crate::telemetry::metrics::{Metrics, TextFormat};

/// The page with the metrics. `live_streams` is `None` if other processes may use the same store.
pub(crate) fn page(metrics: Arc<Metrics>, live_streams: Option<Arc<LiveStreams>>) -> Page {
    let endpoint = make(move |request| {
        let (metrics, live_streams) = (Arc::clone(&metrics), live_streams.clone());
        async move {
            if let Some(live_streams) = live_streams {
                live_streams.refresh().await;
            }
            let format = preferred_format(&request).await;
            match metrics.encode(format) {
                Ok(text) => Response::builder().content_type(format.content_type()).body(text),
                Err(_) => Response::from(StatusCode::INTERNAL_SERVER_ERROR),
            }
        }
    });
    Page { name: "metrics", path: "/metrics", endpoint: endpoint.boxed() }
}

/// The format with the highest quality value in the `Accept` header. If the header names neither format, plain text, which
/// every scraper reads.
async fn preferred_format(request: &Request) -> TextFormat {
    let Ok(Accept(accepted)) = Accept::from_request_without_body(request).await else {
        return TextFormat::Prometheus;
    };
    // `accepted` is sorted by quality value. The quality value 0 refuses a type.
    let refused = |value: &str| value.parse::<f32>().is_ok_and(|quality| quality <= 0.0);
    let accepted = accepted.iter().filter(|mime| !mime.get_param("q").is_some_and(|value| refused(value.as_str())));
    let mut formats = accepted.filter_map(|mime| match mime.essence_str() {
        "application/openmetrics-text" => Some(TextFormat::OpenMetrics),
        "text/plain" | "text/*" | "*/*" => Some(TextFormat::Prometheus),
        _ => None,
    });
    formats.next().unwrap_or(TextFormat::Prometheus)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn format(accept: &str) -> TextFormat {
        preferred_format(&Request::builder().header("accept", accept).finish()).await
    }

    #[tokio::test]
    async fn prometheus_gets_the_format_with_the_highest_quality() {
        // The `Accept` header of Prometheus 3 with its default settings.
        let by_default = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,\
            application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,\
            text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
        let text_first = "text/plain;version=0.0.4;q=0.5,application/openmetrics-text;version=1.0.0;q=0.4,*/*;q=0.1";
        assert_eq!(format(by_default).await, TextFormat::OpenMetrics);
        assert_eq!(format(text_first).await, TextFormat::Prometheus);
        assert_eq!(format("application/openmetrics-text, text/plain;q=0.9").await, TextFormat::OpenMetrics);
    }

    #[tokio::test]
    async fn other_clients_get_plain_text() {
        assert_eq!(preferred_format(&Request::default()).await, TextFormat::Prometheus);
        for accept in ["", "*/*", "text/*", "text/html", "application/json", "application/openmetrics-text;q=0"] {
            assert_eq!(format(accept).await, TextFormat::Prometheus, "{accept}");
        }
    }
}
