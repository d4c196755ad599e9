//! Every known attack on tokens: each is answered 401 with a challenge, whatever the attacker signs with.

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::issuer::{Key, base64, hs256, token, written};
use super::keys::{Published, keys};
use super::{
    AUDIENCE, ISSUER, SECRET, anns, anns_but, assert_refused, by_secret, count, now_s, secretly, send, served,
    server_with,
};

const PATH: &str = "/v1/users/ann/streams/count";

#[tokio::test]
async fn a_token_that_says_it_is_not_signed_is_refused() {
    let key = Key::rsa("k");
    let by_key = server_with(&[key.jwk()], &["RS256"]).await;
    let by_secret = served(by_secret()).await;
    for algorithm in ["none", "None", "NONE", "nOnE", "", "HS256 ", "hs256", "ES512", "RSA-OAEP", "null"] {
        for server in [&by_key, &by_secret] {
            for kid in [json!("k"), Value::Null] {
                let mut header = json!({ "alg": algorithm, "typ": "JWT" });
                if !kid.is_null() {
                    header["kid"] = kid;
                }
                let unsigned = token(&header, &anns(), |_| Vec::new());
                assert_refused(&count(server, "ann", &unsigned).await, algorithm);
                let signed = token(&header, &anns(), |message| hs256(SECRET.as_bytes(), message));
                assert_refused(&count(server, "ann", &signed).await, algorithm);
            }
        }
    }
    for header in
        [json!({ "typ": "JWT" }), json!({ "alg": null }), json!({ "alg": ["HS256"] }), json!({ "alg": 256 })]
    {
        let signed = token(&header, &anns(), |message| hs256(SECRET.as_bytes(), message));
        assert_refused(&count(&by_secret, "ann", &signed).await, &header.to_string());
    }
}

#[tokio::test]
async fn a_public_key_is_no_secret_to_sign_with() {
    let key = Key::rsa("k");
    let mut published = key.jwk();
    published["alg"] = "RS256".into();
    let server = server_with(&[published.clone(), Key::p256("e").jwk()], &["RS256", "ES256"]).await;
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
            let forged = token(&header, &anns(), |message| hs256(&secret, message));
            assert_refused(&count(&server, "ann", &forged).await, algorithm);
        }
    }
    assert_eq!(count(&server, "ann", &key.token(&anns())).await.status, 200);
    let forged = token(&json!({ "alg": "ES256", "kid": "e" }), &anns(), |_| vec![0; 64]);
    assert_refused(&count(&server, "ann", &forged).await, "r = s = 0");
}

#[tokio::test]
async fn a_token_is_signed_by_a_key_of_the_issuer_in_the_way_that_is_configured_for_it() {
    let key = Key::rsa("k");
    let server = server_with(&[key.jwk(), Key::p256("e").jwk()], &["RS256", "ES256"]).await;
    for (what, token) in [
        ("another key under a known name", Key::other_rsa("k").token(&anns())),
        ("an unknown name", Key::rsa("unknown").token(&anns())),
        ("no name, and two keys", key.token_with(&json!({ "alg": "RS256" }), &anns())),
        ("a name that is no text", key.token_with(&json!({ "alg": "RS256", "kid": 1 }), &anns())),
        ("an algorithm that is not configured", key.token_by("RS512", &anns())),
        ("the same with other padding", key.token_by("PS256", &anns())),
        ("the other key's algorithm", key.token_with(&json!({ "alg": "ES256", "kid": "k" }), &anns())),
        ("RSA under the other key's name", key.token_with(&json!({ "alg": "RS256", "kid": "e" }), &anns())),
    ] {
        assert_refused(&count(&server, "ann", &token).await, what);
    }

    // A key whose own `alg` says more than its type.
    let mut other = key.jwk();
    other["alg"] = "PS256".into();
    let server = server_with(&[other], &["RS256", "PS256"]).await;
    assert_refused(&count(&server, "ann", &key.token_by("RS256", &anns())).await, "the key is for PS256");
    assert_eq!(count(&server, "ann", &key.token_by("PS256", &anns())).await.status, 200);

    let server = server_with(&[key.jwk()], &["RS256"]).await;
    let nameless = key.token_with(&json!({ "alg": "RS256" }), &anns());
    assert_eq!(count(&server, "ann", &nameless).await.status, 200, "the only key needs no name");
}

#[tokio::test]
async fn a_key_that_a_token_brings_along_is_not_looked_at() {
    let (known, own) = (Key::rsa("k"), Key::other_rsa("own"));
    let server = server_with(&[known.jwk()], &["RS256"]).await;
    let published = Published::saying(keys(&[own])).await;
    for (kid, brought) in [("own", "own"), ("k", "k"), ("k", "own")] {
        let mut jwk = own.jwk();
        jwk["kid"] = brought.into();
        let header = json!({
            "alg": "RS256", "typ": "JWT", "kid": kid, "jwk": jwk, "jku": published.url,
            "x5u": published.url, "x5c": ["AAAA"]
        });
        assert_refused(&count(&server, "ann", &own.token_with(&header, &anns())).await, kid);
        let mut header = header;
        header["kid"] = "k".into();
        let answer = count(&server, "ann", &known.token_with(&header, &anns())).await;
        assert_eq!(answer.status, 200, "nor does it spoil a good signature: {answer:?}");
    }
    assert_eq!(published.asked(), 0);
}

#[tokio::test]
async fn a_header_says_nothing_that_this_service_would_have_to_know() {
    let server = served(by_secret()).await;
    let sign = |message: &[u8]| hs256(SECRET.as_bytes(), message);
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
        assert_refused(&count(&server, "ann", &token(&header, &anns(), sign)).await, &header.to_string());
    }
    for typ in ["JWT", "jwt", "at+jwt", "application/at+jwt", "AT+JWT", "application/JWT"] {
        let answer = count(&server, "ann", &token(&json!({ "alg": "HS256", "typ": typ }), &anns(), sign)).await;
        assert_eq!(answer.status, 200, "{typ}");
    }
}

#[tokio::test]
async fn claims_that_are_missing_wrong_or_of_another_type_are_refused_by_name() {
    let server = served(by_secret()).await;
    assert_eq!(count(&server, "ann", &secretly(&anns())).await.status, 200);
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
                assert_refused(&count(&server, "ann", &secretly(&anns_but(json!({ claim: value })))).await, claim);
            // The library gives up on a list or an object in place of these.
            let given_up = value.is_array() || value.is_object();
            assert!(detail.contains(claim) || given_up, "{claim} = {value}: {detail}");
        }
    }
    // What `anns_but` cannot write: a claim that is there and null.
    for claim in ["iss", "aud", "sub", "exp", "nbf"] {
        let mut claims = anns();
        claims[claim] = Value::Null;
        let token = secretly(&claims);
        assert_refused(&count(&server, "ann", &token).await, claim);
    }
    for claims in [json!({ "aud": ["other", AUDIENCE] }), json!({ "aud": "another-audience" })] {
        assert_eq!(count(&server, "ann", &secretly(&anns_but(claims))).await.status, 200);
    }
    // A client is an audience only in an access token of Cognito's.
    for claims in [
        json!({ "aud": null, "client_id": AUDIENCE }),
        json!({ "aud": null, "client_id": AUDIENCE, "token_use": "id" }),
        json!({ "aud": null, "client_id": [AUDIENCE], "token_use": "access" }),
        json!({ "aud": null, "token_use": "access" }),
        json!({ "aud": "other", "client_id": AUDIENCE, "token_use": "access" }),
        json!({ "aud": [], "client_id": AUDIENCE, "token_use": "access" }),
    ] {
        assert_refused(&count(&server, "ann", &secretly(&anns_but(claims.clone()))).await, &claims.to_string());
    }
}

#[tokio::test]
async fn a_token_is_good_from_its_beginning_to_its_end_give_or_take_half_a_minute() {
    let server = served(by_secret()).await;
    let now = now_s();
    for (claims, what) in [
        (json!({ "exp": now - 40 }), "the token has expired: get a new one"),
        (json!({ "exp": 0 }), "the token has expired: get a new one"),
        (json!({ "exp": 1.5 }), "the token has expired: get a new one"),
        (json!({ "nbf": now + 90 }), "the token is not valid yet"),
        (json!({ "nbf": u64::MAX }), "the token is not valid yet"),
    ] {
        let detail = assert_refused(&count(&server, "ann", &secretly(&anns_but(claims.clone()))).await, what);
        assert_eq!(detail, what, "{claims}");
    }
    for claims in [
        json!({ "exp": now - 10 }),
        json!({ "exp": now as f64 + 60.5 }),
        json!({ "nbf": now + 10 }),
        json!({ "nbf": now - 10 }),
        json!({ "exp": u64::MAX }),
    ] {
        assert_eq!(count(&server, "ann", &secretly(&anns_but(claims.clone()))).await.status, 200, "{claims}");
    }
}

#[tokio::test]
async fn what_two_parsers_could_read_differently_is_refused() {
    let server = served(by_secret()).await;
    let sign = |message: &[u8]| hs256(SECRET.as_bytes(), message);
    let header = r#"{"alg":"HS256","typ":"JWT"}"#;
    let claims = anns().to_string();
    let with = |more: &str| format!("{},{more}}}", claims.trim_end_matches('}'));
    assert_eq!(count(&server, "ann", &written(header, &with(r#""more":{"a":1}"#), sign)).await.status, 200);
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
        assert_refused(&count(&server, "ann", &written(header, &claims, sign)).await, &format!("{header} {claims}"));
    }
}

#[tokio::test]
async fn a_token_that_was_changed_on_its_way_is_refused() {
    let server = served(by_secret()).await;
    let good = secretly(&anns());
    let parts: Vec<&str> = good.split('.').collect();
    let [header, _, signature] = parts[..] else { panic!("three parts") };
    let bobs = base64(anns_but(json!({ "sub": "bob" })).to_string().as_bytes());
    for (what, token) in [
        ("another's claims", format!("{header}.{bobs}.{signature}")),
        ("no signature", format!("{header}.{bobs}.")),
        ("two parts", format!("{header}.{bobs}")),
        ("four parts", format!("{good}.{signature}")),
        ("five parts, an encrypted one", format!("{good}.a.b")),
        ("padding", format!("{good}=")),
        ("half a signature", good[..good.len() - 10].to_owned()),
        ("the other alphabet", good.replace(['-', '_'], "+") + "+/"),
        ("dots alone", "..".to_owned()),
        ("nothing", String::new()),
        ("white space inside", good.replacen('.', ". ", 1)),
        ("white space after, and more", format!("{good} x")),
        ("a tab", good.replacen('.', "\t.", 1)),
        ("two tokens", format!("{good},{good}")),
        ("quotes", format!("\"{good}\"")),
        ("not ASCII", format!("{good}é")),
    ] {
        assert_refused(&count(&server, "ann", &token).await, what);
    }
}

#[tokio::test]
async fn a_token_beyond_8_kib_is_refused_before_it_is_read() {
    let server = served(by_secret()).await;
    let of_size = |pad: usize| secretly(&anns_but(json!({ "pad": "x".repeat(pad) })));
    let fits = (0..).map(|n| of_size(5800 + n)).take_while(|token| token.len() <= 8192).last().expect("one");
    assert!(fits.len() > 8188);
    assert_eq!(count(&server, "ann", &fits).await.status, 200);
    let detail = assert_refused(&count(&server, "ann", &of_size(6200)).await, "oversized");
    assert!(detail.contains("8192"), "{detail}");
    let detail = assert_refused(&count(&server, "ann", &"x".repeat(8193)).await, "oversized, and no token at all");
    assert!(detail.contains("8192"), "{detail}");
}

#[tokio::test]
async fn only_one_bearer_token_in_the_header_counts() {
    let server = served(by_secret()).await;
    let good = secretly(&anns());
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
    let form =
        server.send("POST", "/v1/users/ann/streams", &[("content-type", "application/x-www-form-urlencoded")], form);
    assert_refused(&form.await, "a form");
}

#[tokio::test]
async fn a_header_that_is_not_utf8_is_refused() {
    let server = served(by_secret()).await;
    let mut stream = tokio::net::TcpStream::connect(server.address).await.expect("a connection");
    let head = format!("GET {PATH} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer ");
    stream.write_all(&[head.as_bytes(), b"\xff\xfe.a.b\r\n\r\n"].concat()).await.expect("a write");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.expect("an answer");
    assert!(answer.starts_with(b"HTTP/1.1 401 "), "{}", String::from_utf8_lossy(&answer));
}
