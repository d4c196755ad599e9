//! Pages of other origins: those that are listed may call everything that players need, and no others.

use serde_json::json;

use crate::server::{Answer, Setup, TestServer};

const STREAMS: &str = "/v1/users/ann/streams";
const PAGE: &str = "https://tv.example.com";

async fn server() -> TestServer {
    TestServer::set_up(Setup { origins: vec![PAGE.to_owned()], ..Setup::default() }).await
}

async fn preflight(server: &TestServer, origin: &str) -> Answer {
    let asked = [("origin", origin), ("access-control-request-method", "POST")];
    server.send("OPTIONS", &format!("{STREAMS}/x/heartbeat"), &asked, Vec::new()).await
}

#[tokio::test]
async fn a_listed_page_may_call_with_the_methods_and_headers_that_there_are() {
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
    assert!(!allowed.headers.contains_key("access-control-allow-credentials"), "tokens travel in a header");
}

#[tokio::test]
async fn a_listed_page_sees_the_answer_the_problem_and_the_headers_it_needs() {
    let server = server().await;
    let started = server.send("POST", STREAMS, &[("origin", PAGE)], Vec::new()).await;
    let refused = server.send("GET", "/v1/users/ann/streams/x", &[("origin", PAGE)], Vec::new()).await;
    let unknown = server.send("GET", "/nowhere", &[("origin", PAGE)], Vec::new()).await;
    for (answer, status) in [(started, 201), (refused, 400), (unknown, 404)] {
        assert_eq!(answer.status, status);
        assert_eq!(answer.headers["access-control-allow-origin"], PAGE);
        let exposed = &answer.headers["access-control-expose-headers"];
        for header in ["idempotency-replayed", "location", "retry-after", "www-authenticate", "x-request-id"] {
            assert!(exposed.contains(header), "{header}");
        }
    }
}

#[tokio::test]
async fn other_pages_and_programs_are_answered_without_a_permission() {
    let server = server().await;
    for origin in
        ["https://tv.example.com.evil.example", "http://tv.example.com", "https://TV.example.com", "null", ""]
    {
        let refused = preflight(&server, origin).await;
        let called = server.send("GET", STREAMS, &[("origin", origin)], Vec::new()).await;
        for answer in [&refused, &called] {
            let permissions = answer.headers.keys().filter(|name| name.starts_with("access-control-"));
            assert_eq!(permissions.count(), 0, "{origin}: {answer:?}");
            assert_eq!(answer.headers["vary"], "origin");
        }
        assert_eq!((refused.status, called.status), (204, 200), "{origin}: the browser refuses, not the service");
    }
    assert_eq!(server.call("GET", STREAMS).await.headers["vary"], "origin");
}

#[tokio::test]
async fn without_listed_origins_there_is_no_cross_origin_protocol() {
    let server = TestServer::start().await;
    assert_eq!(preflight(&server, PAGE).await.status, 405);
    let answer = server.send("GET", STREAMS, &[("origin", PAGE)], Vec::new()).await;
    assert!(answer.headers.keys().all(|name| name != "vary" && !name.starts_with("access-control-")), "{answer:?}");
}
