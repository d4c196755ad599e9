//! Known attacks on tokens. The service refuses each attack with 401 and a challenge.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use super::issuer::{Key, base64, hs256, token, token_from_text};
use super::keys::{JwksServer, key_set};
use super::{
    AUDIENCE, ISSUER, SECRET, assert_accepted, assert_refused, assert_token_refused, claims_with, hs256_settings,
    now_s, send, serve, serve_with_keys, sign_hs256, token_with_header, valid_claims,
};
use crate::test_app::STREAMS;

const PATH: &str = "/v1/users/ann/streams/count";

#[tokio::test]
async fn unsigned_tokens_and_unknown_algorithms_are_refused() {
    let key = Key::rsa("k");
    let with_key = serve_with_keys(&[key.jwk()], &["RS256"]).await;
    let with_secret = serve(hs256_settings()).await;
    for algorithm in ["none", "None", "NONE", "nOnE", "", "HS256 ", "hs256", "ES512", "RSA-OAEP", "null"] {
        for server in [&with_key, &with_secret] {
            for kid in [json!("k"), Value::Null] {
                let mut header = json!({ "alg": algorithm, "typ": "JWT" });
                if !kid.is_null() {
                    header["kid"] = kid;
                }
                let unsigned = token(&header, &valid_claims(), |_| Vec::new());
                assert_token_refused(server, &unsigned, algorithm).await;
                let signed = token_with_header(&header, &valid_claims());
                assert_token_refused(server, &signed, algorithm).await;
            }
        }
    }
    for header in
        [json!({ "typ": "JWT" }), json!({ "alg": null }), json!({ "alg": ["HS256"] }), json!({ "alg": 256 })]
    {
        let signed = token_with_header(&header, &valid_claims());
        assert_token_refused(&with_secret, &signed, &header.to_string()).await;
    }
}

#[tokio::test]
async fn a_public_key_cannot_sign_as_hmac_secret() {
    let key = Key::rsa("k");
    let mut published = key.jwk();
    published["alg"] = "RS256".into();
    let server = serve_with_keys(&[published.clone(), Key::p256("e").jwk()], &["RS256", "ES256"]).await;
    let secrets = [
        key.pem().into_bytes(),
        key.pem().trim_end().as_bytes().to_vec(),
        key.modulus(),
        base64(&key.modulus()).into_bytes(),
        published.to_string().into_bytes(),
        Vec::new(),
    ];
    for secret in secrets {
        for algorithm in ["HS256", "HS384", "RS256", "ES256"] {
            let header = json!({ "alg": algorithm, "kid": "k", "typ": "JWT" });
            let forged = token(&header, &valid_claims(), |message| hs256(&secret, message));
            assert_token_refused(&server, &forged, algorithm).await;
        }
    }
    assert_accepted(&server, &key.token(&valid_claims()), "RS256").await;
    let forged = token(&json!({ "alg": "ES256", "kid": "e" }), &valid_claims(), |_| vec![0; 64]);
    assert_token_refused(&server, &forged, "r = s = 0").await;
}

#[tokio::test]
async fn the_key_and_its_configured_algorithm_must_match() {
    let key = Key::rsa("k");
    let server = serve_with_keys(&[key.jwk(), Key::p256("e").jwk()], &["RS256", "ES256"]).await;
    for (context, token) in [
        ("another key with a known id", Key::other_rsa("k").token(&valid_claims())),
        ("an unknown id", Key::rsa("unknown").token(&valid_claims())),
        ("no id, and two keys", key.token_with(&json!({ "alg": "RS256" }), &valid_claims())),
        ("an id that is not a string", key.token_with(&json!({ "alg": "RS256", "kid": 1 }), &valid_claims())),
        ("an algorithm that is not configured", key.token_by("RS512", &valid_claims())),
        ("the same hash with other padding", key.token_by("PS256", &valid_claims())),
        ("the other key's algorithm", key.token_with(&json!({ "alg": "ES256", "kid": "k" }), &valid_claims())),
        ("RSA with the other key's id", key.token_with(&json!({ "alg": "RS256", "kid": "e" }), &valid_claims())),
    ] {
        assert_token_refused(&server, &token, context).await;
    }

    // The `alg` of a key restricts its algorithms more than its type does.
    let mut restricted = key.jwk();
    restricted["alg"] = "PS256".into();
    let server = serve_with_keys(&[restricted], &["RS256", "PS256"]).await;
    assert_token_refused(&server, &key.token_by("RS256", &valid_claims()), "the key is for PS256").await;
    assert_accepted(&server, &key.token_by("PS256", &valid_claims()), "the key is for PS256").await;

    let server = serve_with_keys(&[key.jwk()], &["RS256"]).await;
    let nameless = key.token_with(&json!({ "alg": "RS256" }), &valid_claims());
    assert_accepted(&server, &nameless, "the only key needs no id").await;
}

#[tokio::test]
async fn keys_and_key_urls_in_the_header_are_ignored() {
    let (known, own) = (Key::rsa("k"), Key::other_rsa("own"));
    let server = serve_with_keys(&[known.jwk()], &["RS256"]).await;
    let attacker = JwksServer::start(key_set(&[own])).await;
    for (kid, jwk_kid) in [("own", "own"), ("k", "k"), ("k", "own")] {
        let mut jwk = own.jwk();
        jwk["kid"] = jwk_kid.into();
        let header = json!({
            "alg": "RS256", "typ": "JWT", "kid": kid, "jwk": jwk, "jku": attacker.url,
            "x5u": attacker.url, "x5c": ["AAAA"]
        });
        assert_token_refused(&server, &own.token_with(&header, &valid_claims()), kid).await;
        let mut header = header;
        header["kid"] = "k".into();
        assert_accepted(&server, &known.token_with(&header, &valid_claims()), "a good signature").await;
    }
    assert_eq!(attacker.request_count(), 0);
}

#[tokio::test]
async fn critical_headers_and_other_token_types_are_refused() {
    let server = serve(hs256_settings()).await;
    for header in [
        json!({ "alg": "HS256", "crit": ["exp"], "exp": 1 }),
        json!({ "alg": "HS256", "crit": ["b64"], "b64": false }),
        json!({ "alg": "HS256", "crit": [] }),
        json!({ "alg": "HS256", "crit": null }),
        json!({ "alg": "HS256", "typ": "logout+jwt" }),
        json!({ "alg": "HS256", "typ": "secevent+jwt" }),
        json!({ "alg": "HS256", "typ": "" }),
        json!({ "alg": "HS256", "typ": null }),
        json!(["HS256"]),
        json!("HS256"),
    ] {
        assert_token_refused(&server, &token_with_header(&header, &valid_claims()), &header.to_string()).await;
    }
    for typ in ["JWT", "jwt", "at+jwt", "application/at+jwt", "AT+JWT", "application/JWT"] {
        let token = token_with_header(&json!({ "alg": "HS256", "typ": typ }), &valid_claims());
        assert_accepted(&server, &token, typ).await;
    }
}

#[tokio::test]
async fn missing_or_invalid_claims_are_refused_by_name() {
    let server = serve(hs256_settings()).await;
    assert_accepted(&server, &sign_hs256(&valid_claims()), "valid claims").await;
    let now = now_s();
    let wrong: [(&str, &[Value]); 5] = [
        (
            "iss",
            &[
                json!(null),
                json!(""),
                json!("https://evil.example.com/"),
                json!([ISSUER]),
                json!(1),
                json!(ISSUER.trim_end_matches('/')),
                json!({}),
            ],
        ),
        (
            "aud",
            &[
                json!(null),
                json!(""),
                json!("other"),
                json!([]),
                json!(["other"]),
                json!([AUDIENCE, 1]),
                json!([[AUDIENCE]]),
                json!({ AUDIENCE: 1 }),
                json!(1),
                json!(format!("{AUDIENCE} ")),
            ],
        ),
        ("sub", &[json!(null), json!(""), json!(["ann"]), json!(1), json!({ "ann": 1 })]),
        (
            "exp",
            &[
                json!(null),
                json!((now + 600).to_string()),
                json!("9999999999"),
                json!(-1),
                json!([now + 600]),
                json!(true),
                json!({}),
                json!(1e300),
            ],
        ),
        ("nbf", &[json!("0"), json!((now - 60).to_string()), json!(-1), json!([0]), json!(false), json!(1e300)]),
    ];
    for (claim, values) in wrong {
        for value in values {
            let detail =
                assert_token_refused(&server, &sign_hs256(&claims_with(json!({ claim: value }))), claim).await;
            // The JWT library does not name the claim if it is a list or an object.
            let unnamed = value.is_array() || value.is_object();
            assert!(detail.contains(claim) || unnamed, "{claim} = {value}: {detail}");
        }
    }
    // `claims_with` cannot set a claim to null.
    for claim in ["iss", "aud", "sub", "exp", "nbf"] {
        let mut claims = valid_claims();
        claims[claim] = Value::Null;
        let token = sign_hs256(&claims);
        assert_token_refused(&server, &token, claim).await;
    }
    for claims in [json!({ "aud": ["other", AUDIENCE] }), json!({ "aud": "another-audience" })] {
        assert_accepted(&server, &sign_hs256(&claims_with(claims)), "aud").await;
    }
    // The service accepts `client_id` as the audience only in access tokens of Cognito.
    for claims in [
        json!({ "aud": null, "client_id": AUDIENCE }),
        json!({ "aud": null, "client_id": AUDIENCE, "token_use": "id" }),
        json!({ "aud": null, "client_id": [AUDIENCE], "token_use": "access" }),
        json!({ "aud": null, "token_use": "access" }),
        json!({ "aud": "other", "client_id": AUDIENCE, "token_use": "access" }),
        json!({ "aud": [], "client_id": AUDIENCE, "token_use": "access" }),
    ] {
        assert_token_refused(&server, &sign_hs256(&claims_with(claims.clone())), &claims.to_string()).await;
    }
}

#[tokio::test]
async fn validity_times_have_a_leeway_of_30_s() {
    let server = serve(hs256_settings()).await;
    let now = now_s();
    for (claims, expected) in [
        (json!({ "exp": now - 40 }), "the token has expired; get a new one"),
        (json!({ "exp": 0 }), "the token has expired; get a new one"),
        (json!({ "exp": 1.5 }), "the token has expired; get a new one"),
        (json!({ "nbf": now + 90 }), "the token is not valid yet"),
        (json!({ "nbf": u64::MAX }), "the token is not valid yet"),
    ] {
        let detail = assert_token_refused(&server, &sign_hs256(&claims_with(claims.clone())), expected).await;
        assert_eq!(detail, expected, "{claims}");
    }
    for claims in [
        json!({ "exp": now - 10 }),
        json!({ "exp": now as f64 + 60.5 }),
        json!({ "nbf": now + 10 }),
        json!({ "nbf": now - 10 }),
        json!({ "exp": u64::MAX }),
    ] {
        assert_accepted(&server, &sign_hs256(&claims_with(claims.clone())), &claims.to_string()).await;
    }
}

#[tokio::test]
async fn ambiguous_json_is_refused() {
    let server = serve(hs256_settings()).await;
    let sign = |message: &[u8]| hs256(SECRET.as_bytes(), message);
    let header = r#"{"alg":"HS256","typ":"JWT"}"#;
    let claims = valid_claims().to_string();
    let with = |more: &str| format!("{},{more}}}", claims.trim_end_matches('}'));
    let unambiguous = token_from_text(header, &with(r#""more":{"a":1}"#), sign);
    assert_accepted(&server, &unambiguous, "unambiguous").await;
    for (header, claims) in [
        (header, with(r#""sub":"bob""#)),
        (header, with(r#""sub":"ann""#)),
        (header, with(r#""su\u0062":"bob""#)),
        (header, with(r#""exp":9999999999"#)),
        (header, with(r#""scope":"","scope":"streams:admin""#)),
        (header, with(r#""other":1,"other":1"#)),
        (header, with(r#""nested":{"a":1,"a":2}"#)),
        (header, with(r#""nested":[{"a":1,"a":2}]"#)),
        (header, with(r#""huge":1e999"#)),
        (header, with("\"lone\":\"\\ud800\"")),
        (r#"{"alg":"HS256","alg":"none"}"#, claims.clone()),
        (r#"{"alg":"none","alg":"HS256"}"#, claims.clone()),
        (r#"{"alg":"HS256","kid":"a","kid":"b"}"#, claims.clone()),
        (r#"{"alg":"HS256","other":1,"other":1}"#, claims.clone()),
        (r#"{"alg":"HS256","\u0061lg":"HS256"}"#, claims.clone()),
        ("", claims.clone()),
        ("{}{}", claims.clone()),
        (header, String::new()),
        (header, "null".to_owned()),
        (header, "[]".to_owned()),
        (header, format!("{claims}{claims}")),
        (header, format!("\u{feff}{claims}")),
        (header, "[".repeat(4000)),
    ] {
        assert_token_refused(&server, &token_from_text(header, &claims, sign), &format!("{header} {claims}")).await;
    }
}

#[tokio::test]
async fn modified_tokens_are_refused() {
    let server = serve(hs256_settings()).await;
    let good = sign_hs256(&valid_claims());
    let parts: Vec<&str> = good.split('.').collect();
    let [header, _, signature] = parts[..] else { panic!("three parts") };
    let bobs = base64(claims_with(json!({ "sub": "bob" })).to_string().as_bytes());
    for (context, token) in [
        ("claims of another user", format!("{header}.{bobs}.{signature}")),
        ("no signature", format!("{header}.{bobs}.")),
        ("two parts", format!("{header}.{bobs}")),
        ("four parts", format!("{good}.{signature}")),
        ("five parts, as an encrypted token", format!("{good}.a.b")),
        ("padding", format!("{good}=")),
        ("half a signature", good[..good.len() - 10].to_owned()),
        ("the standard Base64 alphabet", good.replace(['-', '_'], "+") + "+/"),
        ("dots alone", "..".to_owned()),
        ("nothing", String::new()),
        ("white space inside", good.replacen('.', ". ", 1)),
        ("white space and text after", format!("{good} x")),
        ("a tab", good.replacen('.', "\t.", 1)),
        ("two tokens", format!("{good},{good}")),
        ("quotes", format!("\"{good}\"")),
        ("not ASCII", format!("{good}é")),
    ] {
        assert_token_refused(&server, &token, context).await;
    }
}

#[tokio::test]
async fn tokens_over_8_kib_are_refused_before_parsing() {
    let server = serve(hs256_settings()).await;
    let of_size = |pad: usize| sign_hs256(&claims_with(json!({ "pad": "x".repeat(pad) })));
    let fits = (0..).map(|n| of_size(5800 + n)).take_while(|token| token.len() <= 8192).last().unwrap();
    assert!(fits.len() > 8188);
    assert_accepted(&server, &fits, "at most 8 KiB").await;
    let detail = assert_token_refused(&server, &of_size(6200), "oversized").await;
    assert!(detail.contains("8192"), "{detail}");
    let detail = assert_token_refused(&server, &"x".repeat(8193), "oversized and malformed").await;
    assert!(detail.contains("8192"), "{detail}");
}

#[tokio::test]
async fn only_a_single_bearer_header_is_accepted() {
    let server = serve(hs256_settings()).await;
    let good = sign_hs256(&valid_claims());
    for authorization in
        [format!("Bearer {good}"), format!("bearer {good}"), format!("BEARER {good}"), format!("Bearer  {good}")]
    {
        assert_eq!(send(&server, "GET", PATH, &authorization, None).await.status, 200, "{authorization}");
    }
    let basic = format!("Basic {}", base64(b"ann:secret"));
    for authorization in [
        good.clone(),
        format!("Bearer{good}"),
        format!("Bearer\t{good}"),
        format!("Token {good}"),
        basic,
        "Bearer".to_owned(),
        String::new(),
    ] {
        assert_refused(&send(&server, "GET", PATH, &authorization, None).await, &authorization);
    }
    let bearer = format!("Bearer {good}");
    let twice = [("authorization", bearer.as_str()), ("authorization", bearer.as_str())];
    assert_refused(&server.send("GET", PATH, &twice, Vec::new()).await, "two headers");
    for query in ["access_token", "token", "authorization"] {
        assert_refused(&server.call("GET", &format!("{PATH}?{query}={good}")).await, query);
    }
    let cookie = [("cookie", format!("token={good}; access_token={good}"))];
    assert_refused(&server.send("GET", PATH, &[(cookie[0].0, &cookie[0].1)], Vec::new()).await, "a cookie");
    let form = format!("access_token={good}").into_bytes();
    let form = server.send("POST", STREAMS, &[("content-type", "application/x-www-form-urlencoded")], form);
    assert_refused(&form.await, "a form");
}

#[tokio::test]
async fn a_header_with_invalid_utf8_is_refused() {
    let server = serve(hs256_settings()).await;
    let mut stream = tokio::net::TcpStream::connect(server.address).await.unwrap();
    let head = format!("GET {PATH} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer ");
    stream.write_all(&[head.as_bytes(), b"\xff\xfe.a.b\r\n\r\n"].concat()).await.unwrap();
    let mut response = Vec::new();
    timeout(Duration::from_secs(30), stream.read_to_end(&mut response)).await.unwrap().unwrap();
    assert!(response.starts_with(b"HTTP/1.1 401 "), "{}", String::from_utf8_lossy(&response));
}
