//! The check for gateways: where it finds the grant, content, live leases, and what it counts.

use std::sync::Arc;

use serde_json::json;
use stream_manager::http::grants::GrantSettings;
use stream_manager::http::grants::content_path::ContentPath;

use super::{CHECK, Granting, assert_refused, assert_valid, secret_settings};
use crate::fault_injector::{Fault, FaultInjector};
use crate::test_app::{STREAMS, TestApp};

/// A server that finds the content in paths such as `/media/movie-7/1.ts`.
async fn with_content_path() -> Granting {
    let content_path = Some(ContentPath::parse("/media/{content}/").unwrap());
    Granting::start(GrantSettings { content_path, ..secret_settings() }).await
}

/// Checks a grant for a path that the gateway forwards.
async fn check_path(granting: &Granting, grant: &str, path: &str) -> crate::test_app::TestResponse {
    let authorization = format!("Bearer {grant}");
    granting.check_with(CHECK, &[("authorization", &authorization), ("x-original-uri", path)]).await
}

#[tokio::test]
async fn a_grant_is_found_in_query_cookie_and_authorization() {
    let granting = Granting::with_secret().await;
    let grant = granting.grant(json!({})).await;
    let (query, cookie) = (format!("/a.ts?x=1&grant={grant}"), format!("theme=dark; grant={grant}"));
    let authorization = format!("bearer {grant}");
    for header in [
        ("x-original-uri", query.as_str()),
        ("x-forwarded-uri", &query),
        ("cookie", &cookie),
        ("authorization", &authorization),
    ] {
        assert_valid(&granting.check_with(CHECK, &[header]).await, header.0);
    }
    let refused = granting.check_with(CHECK, &[("x-original-uri", "/a.ts?grant=x"), ("cookie", &cookie)]).await;
    assert_refused(&refused, "the query precedes the cookie");
    granting.assert_count("valid", 4.0);
    granting.assert_count("invalid", 1.0);
}

#[tokio::test]
async fn cookie_and_parameter_names_are_settings() {
    let settings =
        GrantSettings { cookie: "media-grant".to_owned(), query_parameter: "g".to_owned(), ..secret_settings() };
    let granting = Granting::start(settings).await;
    let grant = granting.grant(json!({})).await;
    assert_valid(&granting.check_with(CHECK, &[("cookie", &format!("media-grant={grant}"))]).await, "cookie");
    assert_valid(&granting.check_with(CHECK, &[("x-original-uri", &format!("/a?g={grant}"))]).await, "query");
    assert_refused(&granting.check_with(CHECK, &[("cookie", &format!("grant={grant}"))]).await, "default name");
}

#[tokio::test]
async fn without_a_grant_the_challenge_names_no_error() {
    let granting = Granting::with_secret().await;
    let missing = granting.check_with(CHECK, &[("x-original-uri", "/a.ts")]).await;
    insta::assert_json_snapshot!(missing, @r#"
    {
      "status": 401,
      "headers": {
        "content-type": "application/problem+json",
        "www-authenticate": "Bearer realm=\"stream-manager\""
      },
      "body": {
        "code": "unauthorized",
        "detail": "a grant is required in the query, a cookie or Authorization",
        "instance": "urn:stream-manager:request:…",
        "status": 401,
        "title": "A valid token is needed",
        "type": "urn:stream-manager:problem:unauthorized"
      }
    }
    "#);
    granting.assert_count("missing", 1.0);
}

#[tokio::test]
async fn a_grant_expires_without_tolerance() {
    let granting = Granting::with_secret().await;
    let grant = granting.grant(json!({})).await;
    granting.server.clock.advance_ms(89_999);
    assert_valid(&granting.check(&grant).await, "before the expiry");
    granting.server.clock.advance_ms(1);
    let detail = assert_refused(&granting.check(&grant).await, "at the expiry");
    assert_eq!(detail, "the grant has expired");
    granting.assert_count("expired", 1.0);
}

#[tokio::test]
async fn the_path_must_contain_the_content_of_the_grant() {
    let granting = with_content_path().await;
    let grant = granting.grant(json!({ "contentId": "movie 7" })).await;
    assert_valid(&check_path(&granting, &grant, "/media/movie%207/hd/1.ts?x=/media/other/").await, "own content");
    for path in [
        "/media/other/1.ts",
        "/media/movie%207",
        "/other/movie%207/1.ts",
        "/media/movie%207/../other/1.ts",
        "/media/movie%207/%2e%2e/other/1.ts",
        "/media/movie%207/..%2fother/1.ts",
        "/media/movie%207//1.ts",
        "http://cdn.example.com/media/movie%207/1.ts",
        "*",
        "",
    ] {
        assert_refused(&check_path(&granting, &grant, path).await, path);
    }
    assert_refused(&granting.check(&grant).await, "without a path");
    let without_content = granting.grant(json!({})).await;
    assert_refused(&check_path(&granting, &without_content, "/media//1.ts").await, "a grant without content");
    granting.assert_count("other_content", 12.0);
}

#[tokio::test]
async fn contents_are_compared_after_normalization() {
    let granting = with_content_path().await;
    let grant = granting.grant(json!({ "contentId": "caf\u{e9}" })).await;
    for path in ["/media/caf%C3%A9/1.ts", "/media/cafe%CC%81/1.ts"] {
        assert_valid(&check_path(&granting, &grant, path).await, path);
    }
    assert_refused(&check_path(&granting, &grant, "/media/cafe/1.ts").await, "another letter");
}

#[tokio::test]
async fn the_content_parameter_never_replaces_the_path() {
    let granting = with_content_path().await;
    let grant = granting.grant(json!({ "contentId": "a/b" })).await;
    let authorization = format!("Bearer {grant}");
    let check = async |query: &str, uri: &[(&str, &str)]| {
        let headers = [&[("authorization", authorization.as_str())], uri].concat();
        granting.check_with(&format!("{CHECK}?content={query}"), &headers).await
    };
    assert_valid(&check("a%2Fb", &[]).await, "no path");
    assert_refused(&check("a/b", &[("x-original-uri", "/x/1.ts")]).await, "a path without content");
    assert_refused(&check("a/b", &[("x-original-uri", "/media/other/1.ts")]).await, "a path of other content");
    assert_refused(&check("a%2Fb", &[("x-original-uri", "/x/../1.ts")]).await, "dot segment");
    assert_refused(&check("a", &[]).await, "other content");
    assert_refused(&check("", &[]).await, "empty content");
    let without_content = granting.grant(json!({})).await;
    let header = format!("Bearer {without_content}");
    let refused = granting.check_with(&format!("{CHECK}?content="), &[("authorization", &header)]).await;
    assert_refused(&refused, "no content is not the empty content");
}

#[tokio::test]
async fn invalid_parameters_are_named() {
    let granting = Granting::with_secret().await;
    for (query, field) in [("live=yes", "live"), ("live=true&live=true", "live"), ("content=a&content=b", "content")]
    {
        let response = granting.check_with(&format!("{CHECK}?{query}"), &[]).await;
        response.assert_problem(400, "invalid-request", query);
        assert_eq!(response.body["errors"][0]["field"], field, "{query}");
    }
}

#[tokio::test]
async fn live_refuses_an_ended_stream_within_a_second() {
    let granting = Granting::with_secret().await;
    let started = granting.start_stream(json!({})).await;
    let header = format!("Bearer {}", started.grant());
    let check = async || granting.check_with(&format!("{CHECK}?live=true"), &[("authorization", &header)]).await;
    assert_valid(&check().await, "live");
    let stream = format!("{STREAMS}/{}", started.body["streamId"].as_str().unwrap());
    assert_eq!(granting.server.call("DELETE", &format!("{stream}?evict=true")).await.status, 204);
    granting.server.clock.advance_ms(1000);
    assert_eq!(assert_refused(&check().await, "evicted"), "the stream of the grant is not live");
    granting.assert_count("not_live", 1.0);
    assert_valid(&granting.check(&started.grant()).await, "without a lookup");
}

#[tokio::test]
async fn live_refuses_a_grant_of_a_stopped_stream() {
    let granting = Granting::with_secret().await;
    let started = granting.start_stream(json!({})).await;
    let stream = format!("{STREAMS}/{}", started.body["streamId"].as_str().unwrap());
    assert_eq!(granting.server.call("DELETE", &stream).await.status, 204);
    assert_valid(&granting.check(&started.grant()).await, "without a lookup");
    let header = format!("Bearer {}", started.grant());
    assert_refused(
        &granting.check_with(&format!("{CHECK}?live=true"), &[("authorization", &header)]).await,
        "stopped",
    );
}

#[tokio::test]
async fn live_requires_the_content_that_the_stream_plays() {
    let granting = Granting::with_secret().await;
    let started = granting.start_stream(json!({ "contentId": "a" })).await;
    let heartbeat = format!("{STREAMS}/{}/heartbeat", started.body["streamId"].as_str().unwrap());
    let check = async |grant: String| {
        let header = format!("Bearer {grant}");
        granting.check_with(&format!("{CHECK}?live=true"), &[("authorization", &header)]).await
    };
    granting.server.clock.advance_ms(100);
    assert_valid(&check(started.grant()).await, "before the change");
    let renewed = granting.server.json("POST", &heartbeat, json!({ "contentId": "b" })).await;
    assert_valid(&check(renewed.grant()).await, "new content in the same second");
    granting.server.clock.advance_ms(1000);
    assert_refused(&check(started.grant()).await, "previous content");
}

#[tokio::test]
async fn live_reads_a_lease_once_a_second() {
    let (faults, fixture) = FaultInjector::on_embedded().await;
    let app = TestApp { store: Arc::new(faults.store(1)), clock: fixture.clock, ..TestApp::default() };
    let granting = Granting::start_in(tempfile::tempdir().unwrap(), secret_settings(), app).await;
    let header = format!("Bearer {}", granting.grant(json!({})).await);
    let check = async || granting.check_with(&format!("{CHECK}?live=true"), &[("authorization", &header)]).await;
    faults.take_requests();
    futures_util::future::join_all((0..8).map(|_| check())).await;
    assert_eq!(faults.take_requests().len(), 1);
    granting.server.clock.advance_ms(1000);
    assert_valid(&check().await, "after a second");
    assert_eq!(faults.take_requests().len(), 1);
    assert_valid(&granting.check_with(CHECK, &[("authorization", &header)]).await, "without live");
    assert_eq!(faults.take_requests().len(), 0, "only live reads");
}

#[tokio::test]
async fn a_store_failure_is_503_and_not_remembered() {
    let (faults, fixture) = FaultInjector::on_embedded().await;
    let app = TestApp { store: Arc::new(faults.store(1)), clock: fixture.clock, ..TestApp::default() };
    let granting = Granting::start_in(tempfile::tempdir().unwrap(), secret_settings(), app).await;
    let header = format!("Bearer {}", granting.grant(json!({})).await);
    let check = async || granting.check_with(&format!("{CHECK}?live=true"), &[("authorization", &header)]).await;
    faults.set(Fault::Rejected(500, "InternalServerError"));
    check().await.assert_problem(503, "store-unavailable", "store failure");
    granting.assert_count("failed", 1.0);
    faults.set(Fault::None);
    assert_valid(&check().await, "after the failure");
}

#[tokio::test]
async fn live_is_not_possible_with_hashed_subjects() {
    let subject_key = Some("one key for the hashes of subjects".into());
    let granting = Granting::start(GrantSettings { subject_key, ..secret_settings() }).await;
    let grant = granting.grant(json!({})).await;
    assert_valid(&granting.check(&grant).await, "without live");
    let header = format!("Bearer {grant}");
    let response = granting.check_with(&format!("{CHECK}?live=true"), &[("authorization", &header)]).await;
    response.assert_problem(400, "invalid-request", "live");
}
