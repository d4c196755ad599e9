//! The limit in a token. A claim that is not a limit is ignored and reported. It does not cause a 401, because a player may keep
//! playing after a 401.

use std::sync::Arc;

use serde_json::{Value, json};
use stream_manager::clock::ManualClock;
use stream_manager::http::auth::verifier::TokenVerifier;
use stream_manager::telemetry::metrics::Metrics;

use super::{call, claims_with, hs256_settings, sign_hs256, valid_claims};
use crate::captured_log::CapturedLog;

/// A verifier with its clock and metrics.
struct Setup {
    clock: Arc<ManualClock>,
    metrics: Arc<Metrics>,
    verifier: TokenVerifier,
}

impl Setup {
    async fn new() -> Self {
        let (clock, metrics) = (Arc::new(ManualClock::default()), Arc::new(Metrics::new()));
        let verifier = TokenVerifier::open(hs256_settings(), clock.clone(), metrics.clone()).await.unwrap();
        Self { clock, metrics, verifier }
    }

    /// The limit in a token with this claim.
    async fn limit(&self, claim: &str) -> Option<u8> {
        let mut claims = valid_claims();
        claims["max_streams"] = serde_json::from_str(claim).unwrap();
        let identity = self.verifier.verify(&sign_hs256(&claims)).await.unwrap();
        identity.limit.map(|limit| limit.get())
    }

    fn ignored(&self) -> u64 {
        self.metrics.token_limit_claims_ignored.get()
    }
}

#[tokio::test]
async fn whole_numbers_and_their_digits_are_limits() {
    let setup = Setup::new().await;
    for (claim, limit) in [
        ("0", 0),
        ("1", 1),
        ("50", 50),
        ("51", 50),
        ("18446744073709551615", 50),
        ("18446744073709551616", 50),
        ("1e300", 50),
        ("3.0", 3),
        ("1e1", 10),
        ("-0", 0),
        (r#""0""#, 0),
        (r#""3""#, 3),
        (r#""007""#, 7),
        (r#""51""#, 50),
        (r#""99999999999999999999""#, 50),
    ] {
        assert_eq!(setup.limit(claim).await, Some(limit), "{claim}");
    }
    assert_eq!(setup.limit("null").await, None, "null counts as absent");
    assert_eq!(setup.ignored(), 0);
}

#[tokio::test]
async fn claims_that_are_no_limits_are_ignored_and_counted() {
    let setup = Setup::new().await;
    let claims = [
        "-1",
        "2.5",
        "-1e300",
        "true",
        "false",
        "[3]",
        "[]",
        r#"{"max":3}"#,
        r#""""#,
        r#""+3""#,
        r#""-1""#,
        r#""3.0""#,
        r#""1e1""#,
        r#"" 3""#,
        r#""0x3""#,
        r#""three""#,
        r#""unlimited""#,
        r#""٣""#,
    ];
    for (count, claim) in (1..).zip(claims) {
        assert_eq!((setup.limit(claim).await, setup.ignored()), (None, count), "{claim}");
    }
}

#[tokio::test]
async fn an_ignored_claim_leaves_the_stored_limit() {
    let server = super::serve(hs256_settings()).await;
    let admin = sign_hs256(&claims_with(json!({ "sub": "support", "scope": "streams:admin" })));
    let limit = "/v1/users/ann/limit";
    let body = Some(json!({ "limit": 5 }));
    super::send(&server, "PUT", limit, &format!("Bearer {admin}"), body).await;
    for (claim, expected, source) in
        [(json!("many"), 5, "user"), (json!(-1), 5, "user"), (json!("2"), 2, "token"), (json!(99), 50, "token")]
    {
        let token = sign_hs256(&claims_with(json!({ "max_streams": claim })));
        let response = call(&server, "GET", limit, &token).await;
        let seen = (response.status, &response.body["limit"], &response.body["source"]);
        assert_eq!(seen, (200, &json!(expected), &json!(source)), "{claim}");
    }
}

#[tokio::test]
async fn ignored_claims_are_logged_once_a_minute() {
    let setup = Setup::new().await;
    let (log, _guard) = CapturedLog::start();
    let events = || -> Vec<Value> {
        let ignored = log.take().into_iter().filter(|event| event["event"] == "token_limit_claim_ignored");
        ignored.map(|event| json!([event["level"], event["claim"], event["suppressed"]])).collect()
    };
    for _ in 0..3 {
        setup.limit("\"sesame\"").await;
    }
    assert_eq!(events(), [json!(["WARN", "max_streams", 0])]);
    setup.clock.advance_ms(59_999);
    setup.limit("-1").await;
    assert!(events().is_empty());
    setup.clock.advance_ms(1);
    setup.limit("-1").await;
    assert_eq!(events(), [json!(["WARN", "max_streams", 3])]);
}

#[tokio::test]
async fn the_log_contains_no_part_of_the_claim() {
    let setup = Setup::new().await;
    let (log, _guard) = CapturedLog::start();
    setup.limit("\"sesame\"").await;
    let text = json!(log.take()).to_string();
    assert!(text.contains("token_limit_claim_ignored") && !text.contains("sesame"), "{text}");
}
