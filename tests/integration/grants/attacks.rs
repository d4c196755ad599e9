//! Attacks on grants. The service refuses each attack with 401.

use serde_json::{Value, json};
use stream_manager::http::auth::verifier::TokenVerifier;

use super::{CHECK, Granting, JWKS, SECRET, TestKey, assert_refused, assert_valid, claims, part, pem};
use crate::test_app::{STREAMS, TestApp};
use crate::tokens::issuer::{hs256, token, token_from_text};

/// The header of a grant with changes. `null` removes a field.
fn header_with(grant: &str, changes: Value) -> Value {
    with(part(grant, 0), changes)
}

fn claims_with(grant: &str, changes: Value) -> Value {
    with(claims(grant), changes)
}

fn with(mut object: Value, changes: Value) -> Value {
    for (name, value) in changes.as_object().unwrap() {
        match value {
            Value::Null => _ = object.as_object_mut().unwrap().remove(name),
            value => object[name] = value.clone(),
        }
    }
    object
}

#[tokio::test]
async fn unsigned_grants_and_other_algorithms_are_refused() {
    let key = TestKey::p256();
    let granting = Granting::with_key(&key).await;
    let grant = granting.grant(json!({})).await;
    for algorithm in ["none", "None", "NONE", "", "ES384", "EdDSA", "RS256", "HS256", "HS512", "es256"] {
        let header = header_with(&grant, json!({ "alg": algorithm }));
        for sign in [|_: &[u8]| Vec::new(), |_: &[u8]| vec![0; 64]] {
            assert_refused(&granting.check(&token(&header, &claims(&grant), sign)).await, algorithm);
        }
        let signed = token(&header, &claims(&grant), |message| key.sign(message));
        assert_refused(&granting.check(&signed).await, algorithm);
    }
    let unsigned = grant.rsplit_once('.').unwrap().0;
    for token in [format!("{unsigned}."), unsigned.to_owned(), format!("{grant}."), format!(".{unsigned}.")] {
        assert_refused(&granting.check(&token).await, &token);
    }
}

#[tokio::test]
async fn a_published_key_cannot_sign_as_hmac_secret() {
    for key in [TestKey::p256(), TestKey::ed25519()] {
        let granting = Granting::with_key(&key).await;
        let grant = granting.grant(json!({})).await;
        let jwks = granting.server.call("GET", JWKS).await.body;
        let secrets = [
            key.public(),
            key.public_pem().into_bytes(),
            key.public_pem().trim_end().as_bytes().to_vec(),
            jwks.to_string().into_bytes(),
            jwks["keys"][0].to_string().into_bytes(),
            jwks["keys"][0]["x"].as_str().unwrap().as_bytes().to_vec(),
            Vec::new(),
        ];
        for secret in secrets {
            for algorithm in ["HS256", part(&grant, 0)["alg"].as_str().unwrap()] {
                let header = header_with(&grant, json!({ "alg": algorithm }));
                let forged = token(&header, &claims(&grant), |message| hs256(&secret, message));
                assert_refused(&granting.check(&forged).await, &format!("{algorithm} {secret:?}"));
            }
        }
    }
}

#[tokio::test]
async fn only_known_keys_sign() {
    let (key, other) = (TestKey::p256(), TestKey::p256());
    let granting = Granting::with_key(&key).await;
    let grant = granting.grant(json!({})).await;
    let signed_by = |key: &TestKey, header: &Value| token(header, &claims(&grant), |message| key.sign(message));
    assert_valid(&granting.check(&signed_by(&key, &part(&grant, 0))).await, "the right key");
    for changes in [
        json!({}),
        json!({ "kid": null }),
        json!({ "kid": "unknown" }),
        json!({ "kid": "../../dev/null" }),
        json!({ "jwk": other.public_jwk() }),
        json!({ "kid": null, "jwk": other.public_jwk() }),
        json!({ "jku": "http://127.0.0.1:1/jwks.json" }),
        json!({ "x5c": [pem("CERTIFICATE", b"x")] }),
    ] {
        let header = header_with(&grant, changes.clone());
        assert_refused(&granting.check(&signed_by(&other, &header)).await, &changes.to_string());
    }
    for kid in [Value::Null, json!("unknown"), json!(1), json!(["a"])] {
        let header = header_with(&grant, json!({ "kid": kid }));
        assert_refused(&granting.check(&signed_by(&key, &header)).await, &kid.to_string());
    }
}

#[tokio::test]
async fn changed_grants_are_refused() {
    for key in [TestKey::p256(), TestKey::ed25519()] {
        let granting = Granting::with_key(&key).await;
        let grant = granting.grant(json!({ "contentId": "mine" })).await;
        let parts: Vec<&str> = grant.split('.').collect();
        for changes in [
            json!({ "content": "other" }),
            json!({ "exp": 4_000_000_000_u32 }),
            json!({ "sub": "bob" }),
            json!({ "aud": "other" }),
        ] {
            let changed = super::base64_url(claims_with(&grant, changes).to_string().as_bytes());
            let forged = format!("{}.{changed}.{}", parts[0], parts[2]);
            assert_refused(&granting.check(&forged).await, &forged);
        }
        let spaced = format!("{} ", claims(&grant));
        let forged = format!("{}.{}.{}", parts[0], super::base64_url(spaced.as_bytes()), parts[2]);
        assert_refused(&granting.check(&forged).await, "an equal object in other bytes");
        assert_valid(&granting.check(&grant).await, "unchanged");
    }
}

#[tokio::test]
async fn tokens_for_other_purposes_are_refused() {
    let key = TestKey::p256();
    let granting = Granting::with_key(&key).await;
    let grant = granting.grant(json!({})).await;
    let header = part(&grant, 0);
    let sign = |claims: &Value| token(&header, claims, |message| key.sign(message));
    assert_valid(&granting.check(&sign(&claims(&grant))).await, "unchanged claims");
    for changes in [
        json!({ "iss": "other" }),
        json!({ "iss": null }),
        json!({ "aud": "other" }),
        json!({ "aud": null }),
        json!({ "aud": [] }),
        json!({ "exp": null }),
        json!({ "exp": "4000000000" }),
        json!({ "exp": -1 }),
        json!({ "exp": 0 }),
        json!({ "sub": null }),
        json!({ "sub": 1 }),
        json!({ "jti": null }),
        json!({ "jti": "x" }),
        json!({ "content": 1 }),
    ] {
        assert_refused(&granting.check(&sign(&claims_with(&grant, changes.clone()))).await, &changes.to_string());
    }
    let twice = claims(&grant).to_string().replacen('{', "{\"content\":\"a\",\"content\":\"b\",", 1);
    let repeated = token_from_text(&header.to_string(), &twice, |message| key.sign(message));
    assert_refused(&granting.check(&repeated).await, "repeated claim");
}

#[tokio::test]
async fn a_leaked_grant_is_limited_to_its_content_and_time() {
    let granting = Granting::with_secret().await;
    let grant = granting.grant(json!({ "contentId": "mine" })).await;
    let header = format!("Bearer {grant}");
    let check = async |content: &str| {
        granting.check_with(&format!("{CHECK}?content={content}"), &[("authorization", &header)]).await
    };
    assert_valid(&check("mine").await, "its own content");
    assert_refused(&check("other").await, "other content");
    granting.server.clock.advance_ms(90_000);
    assert_refused(&check("mine").await, "expired");
    granting.server.clock.advance_ms(-90_000);
    assert_valid(&check("mine").await, "the remembered grant is still known");
}

#[tokio::test]
async fn huge_grants_are_refused_before_they_are_decoded() {
    let granting = Granting::with_secret().await;
    let grant = granting.grant(json!({})).await;
    let header = part(&grant, 0);
    for bytes in [5500, 8000, 20_000] {
        let padded = claims_with(&grant, json!({ "padding": "x".repeat(bytes) }));
        let huge = token(&header, &padded, |message| hs256(SECRET.as_bytes(), message));
        let response = granting.check(&huge).await;
        match huge.len() {
            0..=8192 => assert_valid(&response, "the longest grant"),
            _ => assert!(assert_refused(&response, "huge").contains("longer than 8192 bytes")),
        }
    }
    for token in ["a.".repeat(4000), ".".repeat(8192), "=".repeat(8000), "..".to_owned(), "é.é.é".to_owned()] {
        let uri = format!("/a?grant={token}");
        assert_refused(&granting.check_with(CHECK, &[("x-original-uri", &uri)]).await, &uri);
    }
}

#[tokio::test]
async fn a_player_cannot_replace_the_uri_of_the_gateway() {
    let settings = super::GrantSettings {
        content_path: Some(stream_manager::http::grants::content_path::ContentPath::parse("/{content}/").unwrap()),
        ..super::secret_settings()
    };
    let granting = Granting::start(settings).await;
    let header = format!("Bearer {}", granting.grant(json!({ "contentId": "mine" })).await);
    let check = async |headers: &[(&str, &str)]| {
        let headers = [&[("authorization", header.as_str())], headers].concat();
        granting.check_with(CHECK, &headers).await
    };
    assert_valid(&check(&[("x-forwarded-uri", "/mine/1")]).await, "the gateway's header");
    let both = [("x-original-uri", "/mine/1"), ("x-forwarded-uri", "/other/1")];
    for headers in [
        &both[..],
        &[both[1], both[0]],
        &[("x-original-uri", "/mine/1"), ("x-original-uri", "/other/1")],
        &[("x-original-uri", "/mine/1, /other/1")],
        &[("x-original-uri", "/mine/1#"), ("x-forwarded-uri", "/mine/1")],
    ] {
        assert_refused(&check(headers).await, &format!("{headers:?}"));
    }
    assert_valid(&check(&[("x-original-uri", "/mine/1"), ("x-forwarded-uri", "/mine/1")]).await, "equal headers");
}

#[tokio::test]
async fn odd_headers_are_refused_and_do_no_harm() {
    let granting = Granting::with_secret().await;
    let grant = granting.grant(json!({})).await;
    let long = format!("grant={}", "a".repeat(20_000));
    let many = "grant;".repeat(3000);
    for header in [
        ("cookie", "grant"),
        ("cookie", "=;=;=;;;"),
        ("cookie", "grant=\""),
        ("cookie", &long),
        ("cookie", &many),
        ("authorization", "Bearer"),
        ("authorization", "Bearer "),
        ("authorization", "Basic YTpi"),
        ("x-original-uri", "?grant"),
        ("x-original-uri", "?grant=%"),
        ("x-original-uri", "?grant=%00%ff"),
        ("x-forwarded-uri", "????&&&&===="),
    ] {
        assert_refused(&granting.check_with(CHECK, &[header]).await, &format!("{header:?}"));
    }
    let twice = [("authorization", format!("Bearer {grant}")), ("authorization", "Bearer other".to_owned())];
    let twice: Vec<(&str, &str)> = twice.iter().map(|(name, value)| (*name, value.as_str())).collect();
    assert_refused(&granting.check_with(CHECK, &twice).await, "two Authorization headers");
    let raw = format!(
        "GET {CHECK} HTTP/1.1\r\nHost: x\r\nX-Original-URI: /\u{e9}?grant={grant}\r\nConnection: close\r\n\r\n"
    );
    assert!(granting.server.raw(&raw).await.starts_with("HTTP/1.1 204"), "UTF-8 in a path is allowed");
    assert_valid(&granting.check(&grant).await, "still works");
}

#[tokio::test]
async fn grants_and_tokens_are_not_interchangeable() {
    let tokens = TokenVerifier::open(
        crate::tokens::hs256_settings(),
        std::sync::Arc::new(stream_manager::clock::ManualClock::default()),
        std::sync::Arc::default(),
    );
    let app = TestApp { tokens: Some(std::sync::Arc::new(tokens.await.unwrap())), ..TestApp::default() };
    let granting = Granting::start_in(tempfile::tempdir().unwrap(), super::secret_settings(), app).await;
    let user_token = crate::tokens::sign_hs256(&crate::tokens::valid_claims());
    let headers = [("authorization", format!("Bearer {user_token}"))];
    let headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let started = granting.server.send("POST", STREAMS, &headers, Vec::new()).await;
    assert_eq!(started.status, 201, "{started:?}");
    assert_refused(&granting.check(&user_token).await, "a token is no grant");
    assert_valid(&granting.check(&started.grant()).await, "the check needs no token");
    let bearer = format!("Bearer {}", started.grant());
    let refused = granting.server.send("GET", STREAMS, &[("authorization", &bearer)], Vec::new()).await;
    refused.assert_problem(401, "unauthorized", "a grant is no token");
    assert_eq!(granting.server.call("GET", JWKS).await.status, 200, "the key set needs no token");
}
