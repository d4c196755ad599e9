//! Any request to any route: method, path, query, headers, body. Each is answered as the document says, and a name in the
//! path arrives as it was meant, decoded once.

use percent_encoding::percent_decode_str;
use poem::http::{Method, Uri};
use serde_json::Value;
use stream_manager::domain::names::UserName;

use super::service::{self, Answer, Headers};

/// The input reads like a request: `METHOD PATH`, lines of headers, an empty line, the body.
pub fn check(input: &[u8]) {
    let (head, body) = service::head_and_body(input);
    let (first, headers) = head.split_at(head.iter().position(|byte| *byte == b'\n').unwrap_or(head.len()));
    let mut words = first.splitn(2, |byte| *byte == b' ');
    let method = words.next().and_then(|method| Method::from_bytes(method).ok());
    let uri = words.next().and_then(|uri| Uri::try_from(uri).ok());
    // hyper refuses what is neither, before it is a request.
    let (Some(method), Some(uri)) = (method, uri) else { return };
    let headers = service::headers(headers);
    service::with(|service| {
        let answer = service.ask(&method, &uri, &headers, body);
        if let ["", "v1", "users", user, "streams", "count"] = uri.path().split('/').collect::<Vec<_>>()[..]
            && method == Method::GET
            && body.len() <= service::MAX_BODY_BYTES
        {
            names_the_user(&answer, user);
        }
        if method == Method::PUT && answer.status == 200 {
            let limit = answer.body["limit"].as_u64().expect("the only PUT sets a limit");
            assert!((1..=50).contains(&limit), "{limit}");
            let set = service.ask(&Method::GET, &uri, &Headers::new(), b"");
            assert_eq!((set.status, &set.body), (200, &answer.body));
        }
    });
}

fn names_the_user(answer: &Answer, encoded: &str) {
    let whole = encoded.split('%').skip(1).all(|after| {
        after.len() >= 2 && after.is_char_boundary(2) && after[..2].bytes().all(|digit| digit.is_ascii_hexdigit())
    });
    let decoded = percent_decode_str(encoded).decode_utf8().ok().filter(|_| whole);
    match decoded.and_then(|name| UserName::parse(&name).ok()) {
        Some(user) => assert_eq!((answer.status, answer.body["userName"].as_str()), (200, Some(user.as_str()))),
        None => {
            assert_eq!((answer.status, &answer.body["code"]), (400, &Value::from("invalid-request")), "{encoded}")
        }
    }
}
