//! Tokens. The rules, written a second time and differently, say which header and claims make a good token, and what it
//! says; whatever is not signed by the secret is refused.

use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::hmac;
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde_json::{Map, Value};
use stream_manager::clock::ManualClock;
use stream_manager::http::auth::verifier::TokenVerifier;
use stream_manager::http::auth::{Identity, KeySource, TokenSettings};
use tokio::runtime::{Builder, Runtime};

const SECRET: &str = "known to the one who signs, and to nobody else";
const ISSUER: &str = "iss";
const AUDIENCES: [&str; 2] = ["aud", "other"];

thread_local! {
    static CHECKER: (Runtime, TokenVerifier) = checker();
}

/// The input is a token, and split at its first line break a header and claims, which are then signed.
pub fn check(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    CHECKER.with(|(runtime, tokens)| {
        assert!(runtime.block_on(tokens.check(text)).is_err(), "nobody has signed it");
        let Some((header, claims)) = text.split_once('\n') else { return };
        let token = signed(header, claims);
        let identity = runtime.block_on(tokens.check(&token));
        let said = match (header_conforms(header), said(claims)) {
            (Some(known), Ok(said)) if token.len() <= 8192 => Some((known, said)),
            (_, Err(Unclear)) => return,
            _ => None,
        };
        match (identity, said) {
            (Ok(identity), said) => assert_eq!(Some(identity), said.and_then(|(_, said)| said), "{text}"),
            // Of other parameters the library has opinions of its own.
            (Err(error), Some((true, Some(_)))) => panic!("{error}: {text}"),
            (Err(error), _) => super::assert_no_jargon(&error.to_string(), input),
        }
    });
}

fn checker() -> (Runtime, TokenVerifier) {
    let runtime = Builder::new_current_thread().enable_time().build().expect("a runtime");
    let settings = TokenSettings {
        keys: KeySource::Secret(SECRET.into()),
        algorithms: Vec::new(),
        issuer: ISSUER.to_owned(),
        audience: AUDIENCES.map(str::to_owned).into(),
        user_claim: "name".to_owned(),
        limit_claim: "max".to_owned(),
        admin_scope: "admin".to_owned(),
    };
    let tokens = runtime.block_on(TokenVerifier::open(settings, std::sync::Arc::new(ManualClock::default())));
    (runtime, tokens.expect("a secret needs no fetching"))
}

fn signed(header: &str, claims: &str) -> String {
    let message = [header, claims].map(|part| BASE64_URL_SAFE_NO_PAD.encode(part)).join(".");
    let signature = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes()), message.as_bytes());
    format!("{message}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature.as_ref()))
}

/// Whether it holds nothing but what every token has; none where it must be refused.
fn header_conforms(header: &str) -> Option<bool> {
    let header = object(header)?;
    let types = ["jwt", "at+jwt", "application/jwt", "application/at+jwt"];
    let typ = header.get("typ").is_none_or(|typ| typ.as_str().is_some_and(|t| types.contains(&&*t.to_lowercase())));
    let kid = header.get("kid").is_none_or(Value::is_string);
    let good = typ && kid && header.get("alg") == Some(&"HS256".into()) && !header.contains_key("crit");
    good.then(|| header.keys().all(|name| ["alg", "typ", "kid"].contains(&&**name)))
}

/// So near to now that the answer depends on when it is asked.
struct Unclear;

/// What the claims say; none where they must be refused.
fn said(claims: &str) -> Result<Option<Identity>, Unclear> {
    let Some(claims) = object(claims) else { return Ok(None) };
    let text = |name: &str| claims.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
    let (Some(_), Some(user)) = (text("sub"), text("name")) else { return Ok(None) };
    let ours = |value: &Value| AUDIENCES.iter().any(|known| value == known);
    let audience = match (claims.get("aud"), text("token_use"), claims.get("client_id")) {
        (Some(Value::Array(all)), ..) => {
            all.iter().filter(|aud| ours(aud)).count() > 0 && all.iter().all(Value::is_string)
        }
        (None, Some("access"), Some(client)) => ours(client),
        (aud, ..) => aud.is_some_and(ours),
    };
    let limit = match claims.get("max") {
        None => None,
        Some(limit) => match (1..=50).find(|number| is_number(limit, *number)) {
            None => return Ok(None),
            limit => limit.and_then(stream_manager::domain::lease::StreamLimit::new),
        },
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs_f64();
    let Some(expires) = claims.get("exp").and_then(instant) else { return Ok(None) };
    let begins = match claims.get("nbf").map(instant) {
        Some(None) => return Ok(None),
        begins => begins.flatten().unwrap_or(0.0),
    };
    if (expires + 30.0 - now).abs() < 3.0 || (begins - 30.0 - now).abs() < 3.0 {
        return Err(Unclear);
    }
    let in_time = expires + 30.0 > now && begins - 30.0 < now;
    let scopes = [claims.get("scope"), claims.get("scp")].into_iter().flatten();
    let admin = scopes.fold(false, |admin, scopes| {
        let list = scopes.as_array().is_some_and(|list| list.contains(&"admin".into()));
        admin || list || scopes.as_str().is_some_and(|text| format!(" {text} ").contains(" admin "))
    });
    let good = audience && in_time && claims.get("iss") == Some(&ISSUER.into());
    Ok(good.then(|| Identity { user: user.to_owned(), admin, limit }))
}

fn is_number(value: &Value, number: u64) -> bool {
    let digits = |text: &str| text.len() <= 20 && text.trim_start_matches('0') == number.to_string();
    value.as_u64() == Some(number) || value.as_str().is_some_and(digits)
}

fn instant(value: &Value) -> Option<f64> {
    value.as_f64().filter(|seconds| *seconds >= 0.0 && *seconds < 18_446_744_073_709_551_615.0 || value.is_u64())
}

/// An object in which no key is repeated: outside of texts, it has a colon for each key that is left after reading.
fn object(json: &str) -> Option<Map<String, Value>> {
    let value: Value = serde_json::from_str(json).ok()?;
    let (mut colons, mut inside, mut escaped) = (0, false, false);
    for byte in json.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => inside = !inside,
            b':' if !inside => colons += 1,
            _ => {}
        }
    }
    (members(&value) == colons).then(|| value.as_object().cloned()).flatten()
}

fn members(value: &Value) -> usize {
    match value {
        Value::Object(object) => object.len() + object.values().map(members).sum::<usize>(),
        Value::Array(list) => list.iter().map(members).sum(),
        _ => 0,
    }
}
