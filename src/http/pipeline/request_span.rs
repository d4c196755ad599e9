//! The OpenTelemetry span of a request, according to the semantic conventions for HTTP servers. docs/MONITORING.md,
//! "Traces", lists its attributes. No attribute contains a user name, a path or a query.

use opentelemetry::propagation::{Extractor, TextMapPropagator};
use opentelemetry::trace::{SpanBuilder, SpanKind, Status, TraceContextExt};
use opentelemetry::{Context, ContextGuard, KeyValue};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use poem::http::request::Parts;
use poem::http::uri::Authority;
use poem::http::{HeaderMap, Method, StatusCode, Version, header};
use uuid::Uuid;

use crate::http::pipeline::routes::Route;
use crate::telemetry::Tracer;

const TRACEPARENT: &str = "traceparent";
const X_FORWARDED_PROTO: &str = "x-forwarded-proto";
/// The maximum length of a DNS name.
const MAX_HOST_BYTES: usize = 253;

/// Clones share one span. If [`RequestSpan::end`] is not called, the span ends when the last clone is dropped.
#[derive(Clone)]
pub(crate) struct RequestSpan(Context);

impl RequestSpan {
    /// Continues the trace in the request's `traceparent` header, or starts a new trace.
    pub(crate) fn start(tracer: &Tracer, route: &Route, request: &Parts, request_id: Uuid) -> Self {
        let headers = &request.headers;
        let parent = if headers.contains_key(TRACEPARENT) { parent_context(headers) } else { Context::new() };
        let method = known_method(&request.method);
        let mut attributes = vec![
            KeyValue::new("http.request.method", method.unwrap_or("_OTHER")),
            KeyValue::new("url.scheme", scheme(headers)),
            KeyValue::new("request_id", request_id.to_string()),
            KeyValue::new("route", route.name),
        ];
        if let Some(template) = &route.template {
            attributes.push(KeyValue::new("http.route", template.clone()));
        }
        if let Some(version) = protocol_version(request.version) {
            attributes.push(KeyValue::new("network.protocol.version", version));
        }
        if let Some(authority) = authority(request) {
            // IPv6 addresses have brackets only in URIs.
            let host = authority.host().trim_start_matches('[').trim_end_matches(']');
            attributes.push(KeyValue::new("server.address", host.to_owned()));
            attributes.extend(authority.port_u16().map(|port| KeyValue::new("server.port", i64::from(port))));
        }
        let method = method.unwrap_or("HTTP");
        let name = route.template.as_ref().map_or_else(|| method.to_owned(), |path| format!("{method} {path}"));
        let span = SpanBuilder::from_name(name).with_kind(SpanKind::Server).with_attributes(attributes);
        Self(parent.with_span(span.start_with_context(tracer, &parent)))
    }

    /// Log lines and store requests belong to the span until the guard is dropped.
    pub(crate) fn attach(&self) -> ContextGuard {
        self.0.clone().attach()
    }

    pub(crate) fn context(&self) -> &Context {
        &self.0
    }

    pub(crate) fn end(&self, status: StatusCode) {
        let span = self.0.span();
        span.set_attribute(KeyValue::new("http.response.status_code", i64::from(status.as_u16())));
        if status.is_server_error() {
            span.set_attribute(KeyValue::new("error.type", status.as_str().to_owned()));
            span.set_status(Status::error(""));
        }
        span.end();
    }
}

/// The method, if the conventions define it. Clients can invent methods, so all other methods share one value.
fn known_method(method: &Method) -> Option<&'static str> {
    const KNOWN: [&str; 10] =
        ["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH", "QUERY"];
    KNOWN.into_iter().find(|known| *known == method.as_str())
}

/// The service itself receives only plain HTTP. A load balancer reports the client's scheme in `X-Forwarded-Proto`.
fn scheme(headers: &HeaderMap) -> &'static str {
    match headers.get(X_FORWARDED_PROTO) {
        Some(scheme) if scheme == "https" => "https",
        _ => "http",
    }
}

fn protocol_version(version: Version) -> Option<&'static str> {
    match version {
        Version::HTTP_10 => Some("1.0"),
        Version::HTTP_11 => Some("1.1"),
        _ => None,
    }
}

/// The host and the port to which the client sent the request.
fn authority(request: &Parts) -> Option<Authority> {
    let host = || Authority::try_from(request.headers.get(header::HOST)?.as_bytes()).ok();
    let authority = request.uri.authority().cloned().or_else(host)?;
    (authority.host().len() <= MAX_HOST_BYTES).then_some(authority)
}

fn parent_context(headers: &HeaderMap) -> Context {
    TraceContextPropagator::new().extract_with_context(&Context::new(), &TraceparentOnly(headers))
}

/// Hides the `tracestate` header, because it is free text from the caller that the exporter would forward.
struct TraceparentOnly<'a>(&'a HeaderMap);

impl Extractor for TraceparentOnly<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        let value = (key == TRACEPARENT).then(|| self.0.get(key)).flatten()?;
        value.to_str().ok()
    }

    fn keys(&self) -> Vec<&str> {
        vec![TRACEPARENT]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(uri: &str, host: &str) -> Parts {
        poem::http::Request::builder().uri(uri).header("host", host).body(()).unwrap().into_parts().0
    }

    #[test]
    fn the_server_address_is_the_requested_host() {
        let long = "x".repeat(MAX_HOST_BYTES + 1);
        for (uri, host, expected) in [
            ("/", "example.com:8080", Some("example.com:8080")),
            ("/", "[::1]:80", Some("[::1]:80")),
            ("http://a.example/", "b.example", Some("a.example")),
            ("/", "two hosts", None),
            ("/", long.as_str(), None),
        ] {
            let authority = authority(&request(uri, host));
            assert_eq!(authority.as_ref().map(Authority::as_str), expected, "{uri} {host}");
        }
    }

    #[test]
    fn invented_methods_and_schemes_are_not_recorded() {
        let query = Method::from_bytes(b"QUERY").unwrap();
        assert_eq!((known_method(&query), known_method(&Method::PATCH)), (Some("QUERY"), Some("PATCH")));
        assert_eq!(known_method(&Method::from_bytes(b"get").unwrap()), None);
        for (forwarded, expected) in [("https", "https"), ("http", "http"), ("ann", "http")] {
            let mut headers = HeaderMap::new();
            headers.insert(X_FORWARDED_PROTO, forwarded.parse().unwrap());
            assert_eq!(scheme(&headers), expected);
        }
    }
}
