//! Checks the headers and the body of a start. A second, independent implementation of the rules computes which starts
//! must be accepted. The response to an accepted start must repeat its fields. A rejected start must not store
//! anything.

use std::fmt;

use poem::http::{Method, Uri};
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::Value;
use stream_manager::domain::names::{IdempotencyKey, Label, StreamId};

use super::service::{self, Headers, MAX_BODY_BYTES, Service};

/// The input is header lines, an empty line, and the body.
pub fn check(input: &[u8]) {
    let (head, body) = service::head_and_body(input);
    let headers = service::headers(head);
    let streams = Uri::from_static("/v1/users/ann/streams");
    service::with(|service| {
        let response = service.send(&Method::POST, &streams, &headers, body);
        match response.status {
            201 => {
                let members = members(body).filter(|members| conforms(members) && key_conforms(&headers));
                let Some(members) = members else { panic!("an invalid start was accepted: {headers:?}") };
                assert!(body.len() <= MAX_BODY_BYTES);
                for name in ["deviceId", "deviceName", "contentId"] {
                    let sent = members
                        .iter()
                        .find(|(sent_name, _)| sent_name == name)
                        .map_or(&Value::Null, |(_, value)| value);
                    assert_eq!(&response.body[name], sent);
                }
                let id = response.body["streamId"].as_str().unwrap();
                assert_usable(service, &format!("{streams}/{id}"), &headers, body);
            }
            400 | 413 | 415 => {
                let conforms = members(body).is_some_and(|members| conforms(&members)) && key_conforms(&headers);
                let fits = body.len() <= MAX_BODY_BYTES;
                assert!(
                    !conforms || !fits || !media_type_conforms(&headers),
                    "{}: {}",
                    response.status,
                    response.body
                );
            }
            other => panic!("a start of a user without streams returned {other}: {}", response.body),
        }
        let list = service.send(&Method::GET, &streams, &Headers::new(), b"");
        assert_eq!((list.status, &list.body["count"]), (200, &Value::from(0)));
    });
}

/// Checks that a retry with the same idempotency key returns the same stream, and that the stream can be read, renewed
/// and stopped.
fn assert_usable(service: &mut Service, path: &str, headers: &Headers, body: &[u8]) {
    let path: Uri = path.parse().unwrap();
    if headers.iter().any(|(name, _)| name == "idempotency-key") {
        let retry = service.send(&Method::POST, &Uri::from_static("/v1/users/ann/streams"), headers, body);
        assert_eq!(retry.status, 200, "{}", retry.body);
        assert!(path.path().ends_with(retry.body["streamId"].as_str().unwrap()));
    }
    let heartbeat: Uri = format!("{path}/heartbeat").parse().unwrap();
    for (method, uri, status) in
        [(Method::GET, &path, 200), (Method::POST, &heartbeat, 200), (Method::DELETE, &path, 204)]
    {
        assert_eq!(service.send(&method, uri, &Headers::new(), b"").status, status, "{method} {uri}");
    }
}

/// The members of a JSON object in order, including duplicates. An empty body and `null` have no members.
fn members(body: &[u8]) -> Option<Vec<(String, Value)>> {
    if body.is_empty() {
        return Some(Vec::new());
    }
    let members: Option<Members> = serde_json::from_slice(body).ok()?;
    Some(members.map_or_else(Vec::new, |members| members.0))
}

fn conforms(members: &[(String, Value)]) -> bool {
    let duplicate = |name: &str| members.iter().filter(|(other, _)| other == name).count() > 1;
    members.iter().all(|(name, value)| {
        let valid = match name.as_str() {
            "deviceId" => value.as_str().is_some_and(|text| Label::<128>::parse(text).is_ok()),
            "deviceName" | "contentId" => value.as_str().is_some_and(|text| Label::<256>::parse(text).is_ok()),
            "replaces" => value.as_array().is_some_and(|ids| {
                ids.len() <= 10 && ids.iter().all(|id| id.as_str().is_some_and(|id| StreamId::parse(id).is_ok()))
            }),
            "atLimit" => value == "reject" || value == "evictOldest",
            _ => return false,
        };
        (valid || value.is_null()) && !duplicate(name)
    })
}

fn key_conforms(headers: &Headers) -> bool {
    let keys: Vec<_> = headers.iter().filter(|(name, _)| name == "idempotency-key").collect();
    keys.len() <= 1 && keys.iter().all(|(_, key)| IdempotencyKey::parse(key.as_bytes()).is_ok())
}

/// Whether the service must accept the media type as JSON. It may accept or reject other media types.
fn media_type_conforms(headers: &Headers) -> bool {
    let mut types = headers.iter().filter(|(name, _)| name == "content-type").map(|(_, value)| value.as_bytes());
    match (types.next(), types.next()) {
        (first, None) => first.is_none_or(|value| value == b"application/json"),
        _ => false,
    }
}

struct Members(Vec<(String, Value)>);

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;

        impl<'de> Visitor<'de> for Object {
            type Value = Members;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Members, M::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }

        deserializer.deserialize_map(Object)
    }
}
