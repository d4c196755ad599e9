//! CORS: pages of allowed origins may use the API, and pages of other origins may not.

use serde_json::{Value, json};
use stream_manager::http::pipeline::cors::CorsSettings;

use crate::captured_log::CapturedLog;
use crate::test_app::{STREAMS, TestApp, TestResponse, TestServer};

const PAGE: &str = "https://tv.example.com";

const OWN_HEADERS: &str = "authorization, baggage, content-type, idempotency-key, traceparent, tracestate";

async fn server() -> TestServer {
    server_with(&[PAGE], &[]).await
}

async fn server_with(origins: &[&str], headers: &[&str]) -> TestServer {
    let list = |items: &[&str]| items.iter().map(ToString::to_string).collect();
    let cors = CorsSettings { allowed_origins: list(origins), allowed_headers: list(headers) };
    TestApp { cors, ..TestApp::default() }.serve().await
}

async fn preflight(server: &TestServer, origin: &str) -> TestResponse {
    preflight_with(server, origin, &[]).await
}

/// A preflight request with these values of `Access-Control-Request-Headers`.
async fn preflight_with(server: &TestServer, origin: &str, requested: &[&str]) -> TestResponse {
    let mut headers = vec![("origin", origin), ("access-control-request-method", "POST")];
    headers.extend(requested.iter().map(|names| ("access-control-request-headers", *names)));
    server.send("OPTIONS", &format!("{STREAMS}/x/heartbeat"), &headers, Vec::new()).await
}

/// The names in `Access-Control-Allow-Headers`, without the headers that are always allowed.
async fn added_headers(server: &TestServer, requested: &[&str]) -> String {
    let response = preflight_with(server, PAGE, requested).await;
    let allowed = &response.headers["access-control-allow-headers"];
    allowed.strip_prefix(OWN_HEADERS).unwrap().trim_start_matches(", ").to_owned()
}

#[tokio::test]
async fn preflight_from_an_allowed_origin_lists_methods_and_headers() {
    let server = server().await;
    let allowed = preflight(&server, PAGE).await;
    assert_eq!((allowed.status, &allowed.body), (204, &json!("")));
    for (name, value) in [
        ("access-control-allow-origin", PAGE),
        ("access-control-allow-methods", "GET, POST, PUT, DELETE"),
        ("access-control-allow-headers", OWN_HEADERS),
        ("access-control-max-age", "86400"),
        ("vary", "origin"),
    ] {
        assert_eq!(allowed.headers.get(name).map(String::as_str), Some(value), "{name}");
    }
    assert!(
        !allowed.headers.contains_key("access-control-allow-credentials"),
        "tokens are in a header, not in cookies"
    );
}

#[tokio::test]
async fn only_options_with_origin_and_requested_method_is_a_preflight() {
    let server = server().await;
    let (origin, method) = (("origin", PAGE), ("access-control-request-method", "POST"));
    for headers in [&[origin][..], &[method][..], &[][..]] {
        let response = server.send("OPTIONS", STREAMS, headers, Vec::new()).await;
        response.assert_problem(405, "method-not-allowed", &format!("{headers:?}"));
    }
    for (called, status) in [("GET", 200), ("POST", 201)] {
        let response = server.send(called, STREAMS, &[origin, method], Vec::new()).await;
        assert_eq!(response.status, status, "{called} reaches its operation");
    }
}

#[tokio::test]
async fn allowed_origins_can_read_every_response_and_its_headers() {
    let server = server().await;
    let started = server.send("POST", STREAMS, &[("origin", PAGE)], Vec::new()).await;
    let refused = server.send("GET", "/v1/users/ann/streams/x", &[("origin", PAGE)], Vec::new()).await;
    let unknown = server.send("GET", "/nowhere", &[("origin", PAGE)], Vec::new()).await;
    for (response, status) in [(started, 201), (refused, 400), (unknown, 404)] {
        assert_eq!(response.status, status);
        assert_eq!(response.headers["access-control-allow-origin"], PAGE);
        let exposed = &response.headers["access-control-expose-headers"];
        for header in ["idempotency-replayed", "location", "retry-after", "www-authenticate", "x-request-id"] {
            assert!(exposed.contains(header), "{header}");
        }
    }
}

#[tokio::test]
async fn other_origins_get_no_cors_headers() {
    let server = server().await;
    for origin in
        ["https://tv.example.com.evil.example", "http://tv.example.com", "https://TV.example.com", "null", ""]
    {
        let refused = preflight(&server, origin).await;
        let called = server.send("GET", STREAMS, &[("origin", origin)], Vec::new()).await;
        for response in [&refused, &called] {
            let permissions = response.headers.keys().filter(|name| name.starts_with("access-control-"));
            assert_eq!(permissions.count(), 0, "{origin}: {response:?}");
            assert_eq!(response.headers["vary"], "origin");
        }
        // The service responds to the page's request, but the browser hides the response from the page.
        assert_eq!((refused.status, called.status), (204, 200), "{origin}");
    }
    assert_eq!(server.call("GET", STREAMS).await.headers["vary"], "origin");
}

#[tokio::test]
async fn without_allowed_origins_cors_is_off() {
    let server = TestServer::start().await;
    assert_eq!(preflight(&server, PAGE).await.status, 405);
    let response = server.send("GET", STREAMS, &[("origin", PAGE)], Vec::new()).await;
    assert!(
        response.headers.keys().all(|name| name != "vary" && !name.starts_with("access-control-")),
        "{response:?}"
    );
}

#[tokio::test]
async fn listed_headers_are_allowed_and_others_are_not() {
    let server = server_with(&[PAGE], &["sentry-trace", "traceparent", "x-datadog-trace-id"]).await;
    let requested = ["authorization,baggage,sentry-trace", "x-other"];
    assert_eq!(added_headers(&server, &requested).await, "sentry-trace, x-datadog-trace-id");
}

#[tokio::test]
async fn a_star_echoes_the_requested_headers() {
    let server = server_with(&[PAGE], &["*", "x-listed"]).await;
    assert_eq!(added_headers(&server, &[]).await, "x-listed");
    let requested = ["authorization,b3, Sentry-Trace ,baggage", "b3,,x y,newrelic,\u{e9}"];
    assert_eq!(added_headers(&server, &requested).await, "x-listed, b3, sentry-trace, newrelic");
    let refused = preflight_with(&server, "https://other.example", &requested).await;
    assert!(!refused.headers.contains_key("access-control-allow-headers"), "{refused:?}");
}

#[tokio::test]
async fn echoed_headers_are_bounded_in_number_and_length() {
    let server = server_with(&[PAGE], &["*"]).await;
    let many: Vec<String> = (0..500).map(|number| format!("x-{number}")).collect();
    assert_eq!(added_headers(&server, &[&many.join(",")]).await, many[..64].join(", "));
    let long = format!("x-{}", "a".repeat(1498));
    let other = format!("x-{}", "b".repeat(1498));
    assert_eq!(added_headers(&server, &[&format!("{long},{other},x-short")]).await, long);
}

#[tokio::test]
async fn origins_of_web_views_are_compared_exactly() {
    let origins = ["capacitor://localhost", "app://-", "file://", "null"];
    let server = server_with(&origins, &[]).await;
    for origin in origins {
        let allowed = preflight(&server, origin).await;
        assert_eq!(allowed.headers["access-control-allow-origin"], origin);
    }
    for origin in ["capacitor://localhost/", "capacitor://LOCALHOST", "ionic://localhost", "app://", "Null"] {
        assert!(!preflight(&server, origin).await.headers.contains_key("access-control-allow-origin"), "{origin}");
    }
}

#[tokio::test]
async fn refused_headers_and_origins_are_logged_once_a_minute() {
    let (log, _guard) = CapturedLog::start();
    let server = server().await;
    let requested = ["baggage,x-a", "x-b,authorization"];
    let other = "https://other.example";
    for _ in 0..3 {
        preflight_with(&server, PAGE, &requested).await;
        preflight_with(&server, other, &requested).await;
    }
    server.clock.advance_ms(60_000);
    preflight_with(&server, PAGE, &requested).await;
    preflight_with(&server, &format!("{other}/{}", "a".repeat(1000)), &requested).await;
    preflight_with(&server, PAGE, &["baggage"]).await;
    let text = |line: &Value, field| line[field].as_str().unwrap_or_default().to_owned();
    let lines = log.take();
    let of = |event| lines.iter().filter(|line| line["event"] == event).collect::<Vec<_>>();
    let headers = of("cors_headers_refused");
    assert_eq!(headers.iter().map(|line| text(line, "headers")).collect::<Vec<_>>(), ["x-a, x-b", "x-a, x-b"]);
    let origins = of("cors_origin_refused");
    assert_eq!(text(origins[0], "origin"), other);
    assert_eq!((origins.len(), text(origins[1], "origin").len()), (2, 256));
    assert_eq!((&headers[1]["suppressed"], &origins[1]["suppressed"]), (&json!(2), &json!(2)));
}
