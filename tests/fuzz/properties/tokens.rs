//! Checks bearer tokens. A second, independent implementation of the rules computes which headers and claims are valid, and
//! which identity they contain. An invalid limit must be ignored and counted. A token that is not signed with the secret
//! must always be rejected.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::hmac;
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde_json::{Map, Value};
use stream_manager::clock::ManualClock;
use stream_manager::domain::labels::{LabelName, LabelValue, Labels};
use stream_manager::domain::lease::StreamLimit;
use stream_manager::http::auth::verifier::TokenVerifier;
use stream_manager::http::auth::{Identity, KeySource, TokenSettings};
use stream_manager::telemetry::metrics::Metrics;
use tokio::runtime::{Builder, Runtime};
use unicode_normalization::UnicodeNormalization;

use super::texts;

const SECRET: &str = "a secret known only to the issuer and the service";
const ISSUER: &str = "iss";
const AUDIENCES: [&str; 2] = ["aud", "other"];

thread_local! {
    static VERIFIER: (Runtime, TokenVerifier, Arc<Metrics>) = verifier();
}

/// The input is a token. If it contains a line break, the parts before and after the first line break are also
/// a header and claims, which the test signs.
pub fn check(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    VERIFIER.with(|(runtime, tokens, metrics)| {
        assert!(runtime.block_on(tokens.verify(text)).is_err(), "an unsigned token was accepted");
        let Some((header, claims)) = text.split_once('\n') else { return };
        let token = signed(header, claims);
        let ignored_before = metrics.token_limit_claims_ignored.get();
        let identity = runtime.block_on(tokens.verify(&token));
        let ignored = metrics.token_limit_claims_ignored.get() - ignored_before;
        let expected = match (check_header(header), expected_identity(claims)) {
            (Some(standard), Ok(expected)) if token.len() <= 8192 => Some((standard, expected)),
            (_, Err(TooCloseToNow)) => return,
            _ => None,
        };
        match (identity, expected) {
            (Ok(identity), expected) => {
                assert_eq!(Some((identity, ignored)), expected.and_then(|(_, expected)| expected), "{text}")
            }
            // The JWT library may also reject headers with nonstandard parameters.
            (Err(error), Some((true, Some(_)))) => panic!("{error}: {text}"),
            (Err(error), _) => super::assert_no_jargon(&error.to_string(), input),
        }
    });
}

fn verifier() -> (Runtime, TokenVerifier, Arc<Metrics>) {
    let runtime = Builder::new_current_thread().enable_time().build().unwrap();
    let settings = TokenSettings {
        keys: KeySource::Secret(SECRET.into()),
        algorithms: Vec::new(),
        issuer: ISSUER.to_owned(),
        audience: AUDIENCES.map(str::to_owned).into(),
        user_claim: "name".to_owned(),
        limit_claim: "max".to_owned(),
        labels_claim: Some("labels".to_owned()),
        admin_scope: "admin".to_owned(),
    };
    let metrics = Arc::new(Metrics::new());
    let tokens =
        runtime.block_on(TokenVerifier::open(settings, Arc::new(ManualClock::default()), metrics.clone())).unwrap();
    (runtime, tokens, metrics)
}

fn signed(header: &str, claims: &str) -> String {
    let message = [header, claims].map(|part| BASE64_URL_SAFE_NO_PAD.encode(part)).join(".");
    let signature = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes()), message.as_bytes());
    format!("{message}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature.as_ref()))
}

/// Returns `None` if the header must be rejected. Otherwise, returns whether it contains only the parameters `alg`,
/// `typ` and `kid`.
fn check_header(header: &str) -> Option<bool> {
    let header = object(header)?;
    let types = ["jwt", "at+jwt", "application/jwt", "application/at+jwt"];
    let typ = header.get("typ").is_none_or(|typ| typ.as_str().is_some_and(|t| types.contains(&&*t.to_lowercase())));
    let kid = header.get("kid").is_none_or(Value::is_string);
    let valid = typ && kid && header.get("alg") == Some(&"HS256".into()) && !header.contains_key("crit");
    valid.then(|| header.keys().all(|name| ["alg", "typ", "kid"].contains(&&**name)))
}

/// The token expires or becomes valid so close to the current time that the result depends on timing.
struct TooCloseToNow;

/// The identity in the claims and the number of ignored limits, or `None` if the claims must be rejected.
fn expected_identity(claims: &str) -> Result<Option<(Identity, u64)>, TooCloseToNow> {
    let Some(claims) = object(claims) else { return Ok(None) };
    let text = |name: &str| claims.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
    let (Some(_), Some(user)) = (text("sub"), text("name")) else { return Ok(None) };
    let is_audience = |value: &Value| AUDIENCES.iter().any(|known| value == known);
    let audience = match (claims.get("aud"), text("token_use"), claims.get("client_id")) {
        (Some(Value::Array(all)), ..) => {
            all.iter().filter(|aud| is_audience(aud)).count() > 0 && all.iter().all(Value::is_string)
        }
        (None, Some("access"), Some(client)) => is_audience(client),
        (aud, ..) => aud.is_some_and(is_audience),
    };
    let limit_claim = claims.get("max").unwrap_or(&Value::Null);
    let limit = limit(limit_claim);
    let ignored = u64::from(limit.is_none() && !limit_claim.is_null());
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
    let Some(expires) = claims.get("exp").and_then(instant) else { return Ok(None) };
    let begins = match claims.get("nbf").map(instant) {
        Some(None) => return Ok(None),
        begins => begins.flatten().unwrap_or(0.0),
    };
    if (expires + 30.0 - now).abs() < 3.0 || (begins - 30.0 - now).abs() < 3.0 {
        return Err(TooCloseToNow);
    }
    let in_time = expires + 30.0 > now && begins - 30.0 < now;
    let scopes = [claims.get("scope"), claims.get("scp")].into_iter().flatten();
    let admin = scopes.fold(false, |admin, scopes| {
        let list = scopes.as_array().is_some_and(|list| list.contains(&"admin".into()));
        admin || list || scopes.as_str().is_some_and(|text| format!(" {text} ").contains(" admin "))
    });
    let valid = audience && in_time && claims.get("iss") == Some(&ISSUER.into());
    let Some(labels) = labels(claims.get("labels").unwrap_or(&Value::Null)) else { return Ok(None) };
    let user = user.nfc().collect();
    Ok(valid.then_some((Identity { user, admin, limit, labels }, ignored)))
}

/// At most 8 valid labels, or `null`.
fn labels(value: &Value) -> Option<Labels> {
    if value.is_null() {
        return Some(Labels::default());
    }
    let labels = texts::labels(value)?;
    let label =
        |(name, value): (String, String)| (LabelName::parse(&name).unwrap(), LabelValue::parse(&value).unwrap());
    Some(Labels::new(labels.into_iter().map(label).collect()).unwrap())
}

/// Parses a limit: a whole number of at least 0, or a string of decimal digits. A limit above 50 counts as 50.
fn limit(value: &Value) -> Option<StreamLimit> {
    let whole = match value {
        Value::String(text) if !text.is_empty() && text.chars().all(|c| c.is_ascii_digit()) => {
            text.parse::<f64>().ok()
        }
        Value::String(_) => None,
        value => value.as_f64().filter(|number| *number >= 0.0 && number.floor() == *number),
    };
    whole.and_then(|number| StreamLimit::new(number.min(50.0) as u64))
}

fn instant(value: &Value) -> Option<f64> {
    value.as_f64().filter(|seconds| *seconds >= 0.0 && *seconds < 18_446_744_073_709_551_615.0 || value.is_u64())
}

/// Parses a JSON object. Returns `None` if it has duplicate keys: without duplicates, the number of colons outside of
/// strings equals the number of keys after parsing.
fn object(json: &str) -> Option<Map<String, Value>> {
    let value: Value = serde_json::from_str(json).ok()?;
    let (mut colons, mut in_string, mut escaped) = (0, false, false);
    for byte in json.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => in_string = !in_string,
            b':' if !in_string => colons += 1,
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
