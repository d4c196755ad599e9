//! CORS: pages of allowed origins may use the API, and pages of other origins may not.

use serde_json::json;

use crate::test_app::{STREAMS, TestApp, TestResponse, TestServer};

const PAGE: &str = "https://tv.example.com";

async fn server() -> TestServer {
    TestApp { origins: vec![PAGE.to_owned()], ..TestApp::default() }.serve().await
}

async fn preflight(server: &TestServer, origin: &str) -> TestResponse {
    let headers = [("origin", origin), ("access-control-request-method", "POST")];
    server.send("OPTIONS", &format!("{STREAMS}/x/heartbeat"), &headers, Vec::new()).await
}

#[tokio::test]
async fn preflight_from_an_allowed_origin_lists_methods_and_headers() {
    let server = server().await;
    let allowed = preflight(&server, PAGE).await;
    assert_eq!((allowed.status, &allowed.body), (204, &json!("")));
    for (name, value) in [
        ("access-control-allow-origin", PAGE),
        ("access-control-allow-methods", "GET, POST, PUT, DELETE"),
        ("access-control-allow-headers", "authorization, content-type, idempotency-key, traceparent"),
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
