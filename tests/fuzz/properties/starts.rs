//! Checks the headers and the body of a start. A second, independent implementation of the rules computes which starts
//! must be accepted, and what is stored. A rejected start must not store anything. A heartbeat and a stop must be accepted
//! with any headers and body.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use poem::http::{HeaderName, HeaderValue, Method, Uri};
use serde_json::{Map, Value, json};
use stream_manager::domain::names::{IdempotencyKey, StreamId};

use super::json::{Member, members};
use super::service::{self, Headers, MAX_BODY_BYTES, Service};
use super::texts;

static STREAMS: LazyLock<Uri> = LazyLock::new(|| Uri::from_static("/v1/users/ann/streams"));

/// The fields of a valid start, as they must be stored.
#[derive(Default)]
struct Start {
    device_id: Option<String>,
    device_name: Option<String>,
    content_id: Option<String>,
    replaces: Value,
    at_limit: Value,
    labels: BTreeMap<String, String>,
}

/// The input is header lines, an empty line, and the body.
pub fn check(input: &[u8]) {
    let (head, body) = service::head_and_body(input);
    let headers = service::headers(head);
    let fits = body.len() <= MAX_BODY_BYTES;
    let start = start(body).filter(|_| fits && key_conforms(&headers));
    service::with(|service| {
        let response = service.send(&Method::POST, &STREAMS, &headers, body);
        match response.status {
            201 => {
                let Some(start) = start else { panic!("an invalid start was accepted: {headers:?}") };
                let stored = (&start.device_id, &start.device_name, &start.content_id);
                for (name, expected) in [("deviceId", stored.0), ("deviceName", stored.1), ("contentId", stored.2)] {
                    assert_eq!(response.body[name].as_str(), expected.as_deref(), "{name}");
                }
                let labels = if start.labels.is_empty() { Value::Null } else { json!(start.labels) };
                assert_eq!(response.body["labels"], labels);
                let id = response.body["streamId"].as_str().unwrap();
                if let Some((_, key)) = headers.iter().find(|(name, _)| name == "idempotency-key") {
                    assert_replayed(service, id, &headers, body);
                    let headers = vec![(HeaderName::from_static("idempotency-key"), key.clone())];
                    assert_replayed(service, id, &headers, &start.rewritten());
                }
                assert_usable(service, id, &headers, body, start.content_id);
            }
            400 | 413 | 415 => {
                let accepted = start.is_some() && media_type_conforms(&headers);
                assert!(!accepted, "{}: {}", response.status, response.body);
                assert_eq!(response.status == 413, !fits);
                let bare = service.send(&Method::POST, &STREAMS, &Headers::new(), b"{\"contentId\":\"a\"}");
                let id = bare.body["streamId"].as_str().unwrap();
                assert_usable(service, id, &headers, body, Some("a".to_owned()));
            }
            other => panic!("a start of a user without streams returned {other}: {}", response.body),
        }
        let list = service.send(&Method::GET, &STREAMS, &Headers::new(), b"");
        assert_eq!((list.status, &list.body["count"]), (200, &Value::from(0)));
    });
}

/// Checks that a retry with the same idempotency key returns the same stream.
fn assert_replayed(service: &mut Service, id: &str, headers: &Headers, body: &[u8]) {
    let retry = service.send(&Method::POST, &STREAMS, headers, body);
    assert_eq!((retry.status, retry.body["streamId"].as_str()), (200, Some(id)), "{}", retry.body);
}

/// Checks that a stream can be read, renewed and stopped. The heartbeat and the stop have the headers and the body of the
/// input. The heartbeat changes the content if the body contains a new one.
fn assert_usable(service: &mut Service, id: &str, headers: &Headers, body: &[u8], content: Option<String>) {
    let uri = |end: &str| format!("{}/{id}{end}", *STREAMS).parse::<Uri>().unwrap();
    assert_eq!(service.send(&Method::GET, &uri(""), &Headers::new(), b"").status, 200);
    service.advance_ms(1);
    let heartbeat = service.send(&Method::POST, &uri("/heartbeat"), headers, body);
    assert_eq!(heartbeat.status, 200, "{}", heartbeat.body);
    let expected = new_content(body).or(content);
    assert_eq!(heartbeat.body["contentId"].as_str(), expected.as_deref(), "{}", heartbeat.body);
    assert_eq!(service.send(&Method::POST, &uri("/stop"), headers, body).status, 204);
    assert_eq!(service.send(&Method::DELETE, &uri(""), headers, body).status, 204);
}

/// The new content in the body of a heartbeat.
fn new_content(body: &[u8]) -> Option<String> {
    let members = members(body).filter(|_| body.len() <= MAX_BODY_BYTES)?;
    if members.iter().any(|(name, member)| name != "contentId" && !member.is_strict()) {
        return None;
    }
    let mut contents = members.iter().filter(|(name, _)| name == "contentId");
    match (contents.next(), contents.next()) {
        (Some((_, Member::Text(text))), None) => texts::cleaned(&text.valid),
        _ => None,
    }
}

/// `None` if the body is not valid.
fn start(body: &[u8]) -> Option<Start> {
    let (mut start, members) = (Start::default(), members(body)?);
    for (name, member) in &members {
        let known = ["deviceId", "deviceName", "contentId", "replaces", "atLimit", "labels"].contains(&name.as_str());
        if known && members.iter().filter(|(other, _)| other == name).count() > 1 {
            return None;
        }
        if !known && !member.is_strict() {
            return None;
        }
        if !known || member.is_null() {
            continue;
        }
        match (name.as_str(), member) {
            ("deviceId", Member::Text(text)) if text.valid.is_empty() && text.complete => {}
            ("deviceId", Member::Text(text)) if text.complete => {
                start.device_id = Some(texts::name(&text.valid, 128)?)
            }
            ("deviceName", Member::Text(text)) => start.device_name = texts::cleaned(&text.valid),
            ("contentId", Member::Text(text)) => start.content_id = texts::cleaned(&text.valid),
            ("replaces", _) => {
                start.replaces = member.value()?;
                let ids = start.replaces.as_array().filter(|ids| ids.len() <= 10)?;
                if !ids.iter().all(|id| id.as_str().is_some_and(|id| StreamId::parse(id).is_ok())) {
                    return None;
                }
            }
            ("atLimit", Member::Text(text)) if text.valid.is_empty() && text.complete => {}
            ("atLimit", _) => {
                start.at_limit = member.value().filter(|value| *value == "reject" || *value == "evictOldest")?;
            }
            ("labels", Member::Other(json)) => start.labels = labels(json)?,
            _ => return None,
        }
    }
    Some(start)
}

/// `None` if the labels are not valid. A label with the value `null` is absent.
fn labels(json: &[u8]) -> Option<BTreeMap<String, String>> {
    let members = members(json).filter(|_| json.starts_with(b"{"))?;
    let mut labels = BTreeMap::new();
    for (name, member) in members.iter().filter(|(_, member)| !member.is_null()) {
        let Member::Text(value) = member else { return None };
        let (name, value) = texts::label(name, &value.valid).filter(|_| value.complete)?;
        if labels.insert(name, value).is_some() {
            return None;
        }
    }
    (labels.len() <= 8).then_some(labels)
}

impl Start {
    /// A body with the same meaning: the fields are in another order, and the texts in another normalization form. The device
    /// name contains characters that the service removes. There is also an unknown field.
    fn rewritten(&self) -> Vec<u8> {
        let mut fields = Map::new();
        fields.insert("atLimit".to_owned(), self.at_limit.clone());
        fields.insert("replaces".to_owned(), self.replaces.clone());
        let decomposed = |text: &String| texts::decomposed(text);
        fields.insert("contentId".to_owned(), json!(self.content_id.as_ref().map(decomposed)));
        let noisy = |text: &String| format!("\t{}\u{200F} ", texts::decomposed(text));
        fields.insert("deviceName".to_owned(), json!(self.device_name.as_ref().map_or(" \n".to_owned(), noisy)));
        fields.insert("deviceId".to_owned(), json!(self.device_id.as_ref().map_or(String::new(), decomposed)));
        let labels: BTreeMap<_, _> = self.labels.iter().map(|(name, value)| (name, decomposed(value))).collect();
        fields.insert("labels".to_owned(), json!(labels));
        fields.insert("deviceID".to_owned(), json!({ "new": [1e300, "\0"] }));
        [b"\xEF\xBB\xBF", Value::from(fields).to_string().as_bytes()].concat()
    }
}

fn key_conforms(headers: &Headers) -> bool {
    let keys: Vec<_> = headers.iter().filter(|(name, _)| name == "idempotency-key").collect();
    keys.len() <= 1 && keys.iter().all(|(_, key)| IdempotencyKey::parse(key.as_bytes()).is_ok())
}

/// Whether the service must accept the body as JSON. The service may accept or reject other media types and codings.
fn media_type_conforms(headers: &Headers) -> bool {
    let values = |wanted: &str| -> Vec<&HeaderValue> {
        headers.iter().filter(|(name, _)| name == wanted).map(|(_, value)| value).collect()
    };
    let types = values("content-type");
    types.len() <= 1
        && types.iter().all(|value| *value == "application/json")
        && values("content-encoding").is_empty()
}
