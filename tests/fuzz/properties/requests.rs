//! Checks requests to any path: method, path, query, headers and body. Each response must match the OpenAPI document.
//! The service must decode a user name in the path exactly once.

use percent_encoding::percent_decode_str;
use poem::http::{Method, Uri};
use serde_json::Value;

use super::service::{self, Headers, Response};
use super::texts;

/// The input is `METHOD PATH`, header lines, an empty line, and the body.
pub fn check(input: &[u8]) {
    let (head, body) = service::head_and_body(input);
    let (first, headers) = head.split_at(head.iter().position(|byte| *byte == b'\n').unwrap_or(head.len()));
    let mut words = first.splitn(2, |byte| *byte == b' ');
    let method = words.next().and_then(|method| Method::from_bytes(method).ok());
    let uri = words.next().and_then(|uri| Uri::try_from(uri).ok());
    // hyper rejects an invalid method or URI before the service receives the request.
    let (Some(method), Some(uri)) = (method, uri) else { return };
    let headers = service::headers(headers);
    service::with(|service| {
        let response = service.send(&method, &uri, &headers, body);
        if let ["", "v1", "users", user, "streams", "count"] = uri.path().split('/').collect::<Vec<_>>()[..]
            && method == Method::GET
            && body.len() <= service::MAX_BODY_BYTES
        {
            assert_user(&response, user);
        }
        if is_heartbeat_or_stop(&method, &uri) && !matches!(response.status, 200 | 204) {
            // The body and the headers must not cause the error: without them, the response must be the same.
            let bare = service.send(&method, &uri, &Headers::new(), b"");
            assert_eq!((response.status, &response.body["code"]), (bare.status, &bare.body["code"]));
        }
        if method == Method::PUT && response.status == 200 {
            // The only PUT operation sets a limit.
            let limit = response.body["limit"].as_u64().unwrap();
            assert!((0..=50).contains(&limit), "{limit}");
            let set = service.send(&Method::GET, &uri, &Headers::new(), b"");
            for field in ["userName", "limit", "source"] {
                assert_eq!((set.status, &set.body[field]), (200, &response.body[field]));
            }
        }
    });
}

fn is_heartbeat_or_stop(method: &Method, uri: &Uri) -> bool {
    match uri.path().split('/').collect::<Vec<_>>()[..] {
        ["", "v1", "users", _, "streams", _, operation] => {
            method == Method::POST && matches!(operation, "heartbeat" | "stop")
        }
        ["", "v1", "users", _, "streams", _] => method == Method::DELETE,
        _ => false,
    }
}

fn assert_user(response: &Response, encoded: &str) {
    let valid = encoded.split('%').skip(1).all(|rest| {
        rest.len() >= 2 && rest.is_char_boundary(2) && rest[..2].bytes().all(|digit| digit.is_ascii_hexdigit())
    });
    let decoded =
        percent_decode_str(encoded).decode_utf8().ok().filter(|name| valid && !matches!(&**name, "." | ".."));
    match decoded.and_then(|name| texts::name(&name, 256)) {
        Some(user) => assert_eq!((response.status, response.body["userName"].as_str()), (200, Some(user.as_str()))),
        None => {
            assert_eq!((response.status, &response.body["code"]), (400, &Value::from("invalid-request")), "{encoded}")
        }
    }
}
