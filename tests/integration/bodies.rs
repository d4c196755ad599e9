//! Request bodies. The service ignores unknown fields, cleans texts that are only displayed, and rejects invalid names and
//! wrong types. A heartbeat or a stop is never refused because of its body.

use serde_json::{Value, json};

use crate::test_app::{BOUNDS, STREAMS, TestResponse, TestServer, UNKNOWN_ID};

const JSON: [(&str, &str); 1] = [("content-type", "application/json")];

/// Starts a stream of a new user.
async fn start(server: &TestServer, body: impl AsRef<[u8]>) -> TestResponse {
    let path = format!("/v1/users/{}/streams", uuid::Uuid::new_v4());
    server.send("POST", &path, &JSON, body.as_ref().to_vec()).await
}

fn utf16(text: &str) -> Vec<u8> {
    text.encode_utf16().flat_map(u16::to_le_bytes).collect()
}

#[tokio::test]
async fn a_start_body_is_absent_null_or_an_object() {
    let server = TestServer::start().await;
    let charset = [("content-type", "application/json; charset=utf-8")];
    let other = [("content-type", "text/plain")];
    let merge_patch = [("content-type", "application/merge-patch+json")];
    let compressed = [("content-type", "application/json"), ("content-encoding", "gzip")];
    for (headers, body, status) in [
        (&[][..], "", 201),
        (&other, "", 201),
        (&other, " \r\n", 201),
        (&compressed, "", 201),
        (&charset, "", 201),
        (&charset, "{}", 201),
        (&JSON, "null", 201),
        (&JSON, "   ", 201),
        (&JSON, "\u{FEFF}", 201),
        (&JSON, "\u{FEFF} {}", 201),
        (&JSON, "\u{FEFF}null", 201),
        (&[], "{}", 201),
        (&merge_patch, "{}", 201),
        (&JSON, r#"{"deviceId":null,"deviceName":null,"contentId":null,"replaces":null,"atLimit":null}"#, 201),
        (&JSON, r#"{"deviceId":"","deviceName":"","contentId":"","replaces":[],"atLimit":""}"#, 201),
        (&JSON, r#"{"deviceID":"x","":1,"x":{"y":["\ud83d",1e999]},"x":2}"#, 201),
        (&other, "{}", 415),
        (&compressed, "{}", 415),
        (&JSON, "[]", 400),
        (&JSON, r#" ["tv"]"#, 400),
        (&JSON, "{", 400),
        (&JSON, "{}x", 400),
        (&JSON, "{}{}", 400),
        (&JSON, "7", 400),
        (&JSON, "\"{}\"", 400),
        (&JSON, "{\u{FEFF}}", 400),
        (&JSON, "\u{FEFF}\u{FEFF}{}", 400),
    ] {
        let path = format!("/v1/users/{}/streams", uuid::Uuid::new_v4());
        let response = server.send("POST", &path, headers, body.as_bytes().to_vec()).await;
        assert_eq!(response.status, status, "{headers:?} {body}: {response:?}");
        assert_no_rust_terms(&response);
    }
}

#[tokio::test]
async fn compressed_bodies_are_refused_with_the_remedy() {
    let server = TestServer::start().await;
    let coded = |values: &[&'static str]| -> Vec<(&str, &str)> {
        values.iter().map(|value| ("content-encoding", *value)).chain(JSON).collect()
    };
    for (method, path, body, success) in [
        ("POST", "/v1/users/ann/streams", "{}", 201),
        ("PUT", "/v1/users/ann/limit", "{\"limit\":50}", 200),
        ("POST", "/v1/users/ann/evictions", "{}", 200),
    ] {
        for values in
            [&["gzip"][..], &["br"], &["nonsense"], &["identity, gzip"], &["identity", "gzip"], &["gzip", ""]]
        {
            let response = server.send(method, path, &coded(values), body.into()).await;
            response.assert_problem(415, "unsupported-media-type", &format!("{path} {values:?}"));
            assert_eq!(response.headers["accept-encoding"], "identity", "{path}");
            assert!(response.body["detail"].as_str().unwrap().contains("without Content-Encoding"), "{response:?}");
        }
        for values in [&["identity"][..], &["Identity"], &[""], &["identity, identity"]] {
            let response = server.send(method, path, &coded(values), body.into()).await;
            assert!(response.status == success || response.status == 409, "{path} {values:?}: {response:?}");
        }
    }
    let response = server.send("POST", STREAMS, &[("content-type", "text/plain")], b"{}".to_vec()).await;
    assert!(response.status == 415 && !response.headers.contains_key("accept-encoding"), "{response:?}");
}

fn assert_no_rust_terms(response: &TestResponse) {
    let text = response.body.to_string();
    let terms = ["Body", "struct", "sequence", "variant", "byte array"];
    assert!(!terms.iter().any(|word| text.contains(word)), "{text}");
}

#[tokio::test]
async fn texts_for_people_are_cleaned_and_never_refused() {
    let server = TestServer::start().await;
    let long = "テレビ".repeat(800);
    for (sent, shown) in [
        (r"Zoe\u0308’s TV", "Zoë’s TV"),
        (r" \tLiving\r\nroom\u0000 ", "Livingroom"),
        ("a\tb\nc", "abc"),
        ("\u{202E}VT\u{202C}\u{2066}\u{0627}\u{2069}", "VT\u{0627}"),
        (r"TV \ud83d", "TV"),
        (r"\ude00\ud83d\ude00\ud83d", "😀"),
        ("👨\u{200D}👩\u{200D}", "👨\u{200D}👩\u{200D}"),
        ("\u{301}", "\u{301}"),
        ("\u{958}\u{1100}\u{1161}\u{11A8}", "\u{915}\u{93C}각"),
        ("\u{1D15E} \u{1FBE}\u{308}\u{301}", "\u{1D157}\u{1D165} ΐ"),
        ("\u{FEFF}\u{FFFF}\u{FFFD}", "\u{FEFF}\u{FFFF}\u{FFFD}"),
        (&long, &long[..255]),
        (" \\n\u{3000}\u{200F}\\u0007", ""),
    ] {
        let body = format!(r#"{{"deviceName":"{sent}","contentId":"{sent}"}}"#);
        let response = start(&server, &body).await;
        let expected = if shown.is_empty() { Value::Null } else { json!(shown) };
        assert_eq!(
            (response.status, &response.body["deviceName"], &response.body["contentId"]),
            (201, &expected, &expected),
            "{sent}: {response:?}"
        );
    }
    for (bytes, shown) in [(&b"Zo\xEB"[..], "Zo"), (b"TV \xF0\x9F\x98", "TV"), (b"\xFF\xC0\xAE!", "!")] {
        let response = start(&server, [b"{\"deviceName\":\"", bytes, b"\"}"].concat()).await;
        assert_eq!((response.status, &response.body["deviceName"]), (201, &json!(shown)), "{bytes:?}");
    }
}

#[tokio::test]
async fn device_ids_are_normalized_or_refused() {
    let server = TestServer::start().await;
    let path = "/v1/users/ann/streams";
    let composed = server.json("POST", path, json!({ "deviceId": "Küche" })).await;
    let decomposed = server.json("POST", path, json!({ "deviceId": "Ku\u{308}che" })).await;
    assert_eq!(decomposed.body["deviceId"], "Küche");
    assert_eq!(decomposed.body["ended"], json!([composed.body["streamId"]]), "the same device");
    for (id, reason) in [
        (&br"tv-\ud83d"[..], "unpaired surrogate"),
        (br"\ude00", "unpaired surrogate"),
        (b"Zo\xEB", "UTF-8"),
        (b"a\tb", "control characters"),
        (br"a\u0000", "control characters"),
        ("\u{202E}".as_bytes(), "bidirectional"),
        ("é".repeat(65).as_bytes(), "at most 128 bytes"),
    ] {
        let response = start(&server, [b"{\"deviceId\":\"", id, b"\"}"].concat()).await;
        response.assert_problem(400, "invalid-request", reason);
        assert_eq!(response.body["errors"][0]["field"], "deviceId");
        assert!(response.body["errors"][0]["reason"].as_str().unwrap().contains(reason), "{response:?}");
    }
}

#[tokio::test]
async fn errors_in_a_body_name_the_field() {
    let server = TestServer::start().await;
    for (body, field, reason) in [
        (r#"{"deviceId":7}"#, "deviceId", "expected a string"),
        (r#"{"deviceName":["a"]}"#, "deviceName", "expected a string"),
        (r#"{"contentId":{}}"#, "contentId", "expected a string"),
        (r#"{"contentId":42}"#, "contentId", "expected a string"),
        (r#"{"deviceId":"x","deviceId":"x"}"#, "deviceId", "must not be repeated"),
        (r#"{"deviceId":null,"deviceId":"x"}"#, "deviceId", "must not be repeated"),
        (r#"{"contentId":"x","contentId":"y"}"#, "contentId", "must not be repeated"),
        (r#"{"atLimit":"kick"}"#, "atLimit", "\"reject\" or \"evictOldest\""),
        (r#"{"atLimit":{"reject":null}}"#, "atLimit", "\"reject\" or \"evictOldest\""),
        (r#"{"replaces":"x"}"#, "replaces", "a list of stream ids"),
        (r#"{"replaces":[7]}"#, "replaces", "a list of stream ids"),
        (r#"{"replaces":["x"]}"#, "replaces[0]", "must be a UUID"),
        (r#"{"replaces":["\ud83d"]}"#, "replaces[0]", "is not valid JSON"),
        (r#"{"deviceName":"\x41"}"#, "deviceName", "invalid escape"),
        (r#"{"deviceId":"tv"#, "deviceId", "EOF while parsing a string"),
        (r#"{"deviceId":tv}"#, "deviceId", "is not valid JSON"),
    ] {
        let response = start(&server, body).await;
        response.assert_problem(400, "invalid-request", body);
        let error = &response.body["errors"][0];
        assert_eq!(error["field"], field, "{body}: {response:?}");
        assert!(error["reason"].as_str().unwrap().contains(reason), "{body}: {response:?}");
        assert_no_rust_terms(&response);
    }
}

#[tokio::test]
async fn bodies_in_other_encodings_get_a_clear_error() {
    let server = TestServer::start().await;
    for body in [utf16("\u{FEFF}{}"), utf16("{}"), utf16("{}").into_iter().rev().collect()] {
        let response = start(&server, &body).await;
        response.assert_problem(400, "invalid-request", &format!("{body:?}"));
        assert!(response.body["detail"].as_str().unwrap().contains("UTF-8"), "{response:?}");
    }
    let utf16_label = [("content-type", "application/json; charset=utf-16")];
    let response = server.send("POST", STREAMS, &utf16_label, b"{}".to_vec()).await;
    assert_eq!(response.status, 201, "the encoding of the bytes matters, not the declared charset");
}

#[tokio::test]
async fn a_repeated_start_is_replayed_in_any_spelling() {
    let server = TestServer::start().await;
    let headers = [("content-type", "application/json"), ("idempotency-key", "play-1")];
    let mut ids = Vec::new();
    for (body, status) in [
        (r#"{"deviceId":"Küche","deviceName":"Zoë","contentId":"क़","replaces":[]}"#, 201),
        (r#"{"contentId":"\u0958","deviceName":" Zoe\u0308\n","deviceId":"Ku\u0308che","atLimit":null}"#, 200),
        ("\u{FEFF}{\"deviceId\":\"Küche\",\"deviceName\":\"Zoë\\ud83d\",\"contentId\":\"क़\",\"app\":2}", 200),
    ] {
        let response = server.send("POST", STREAMS, &headers, body.into()).await;
        assert_eq!(response.status, status, "{body}: {response:?}");
        ids.push(response.body["streamId"].clone());
    }
    assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    let other = server.send("POST", STREAMS, &headers, br#"{"deviceId":"Kuche"}"#.to_vec()).await;
    other.assert_problem(422, "idempotency-key-reused", "another device");
}

#[tokio::test]
async fn an_eviction_body_is_as_liberal_as_a_start_body() {
    let server = TestServer::start().await;
    let path = "/v1/users/ann/evictions";
    for (body, count) in [
        (&b""[..], 1),
        (b"null", 1),
        (b" ", 1),
        ("\u{FEFF}{}".as_bytes(), 1),
        (br#"{"streamIds":null,"message":null}"#, 1),
        (br#"{"message":"\ud83d\t","reason":"x"}"#, 1),
        (br#"{"streamIds":[]}"#, 0),
    ] {
        let id = server.start_stream("ann", json!({})).await;
        let response = server.send("POST", path, &JSON, body.to_vec()).await;
        let ended = vec![id; count];
        assert_eq!((response.status, &response.body["ended"]), (200, &json!(ended)), "{body:?}");
    }
    for (body, field) in [(json!({ "message": 7 }), "message"), (json!({ "streamIds": "x" }), "streamIds")] {
        let response = server.json("POST", path, body).await;
        assert_eq!((response.status, &response.body["errors"][0]["field"]), (400, &json!(field)));
    }
}

#[tokio::test]
async fn a_misspelled_list_of_streams_ends_no_stream() {
    let server = TestServer::start().await;
    let id = server.start_stream("ann", json!({})).await;
    for field in [
        "streamIDs",
        "stream_ids",
        "stream-ids",
        "stream ids",
        "streamId",
        "STREAM_ID",
        "streamIds[]",
        "streamIdsList",
        "streams",
        "stream",
        "ids",
        "id",
        "session_ids",
    ] {
        for body in [json!({ field: [id] }), json!({ field: id, "streamIds": null, "message": "Bye" })] {
            let response = server.json("POST", "/v1/users/ann/evictions", body).await;
            response.assert_problem(400, "invalid-request", field);
            assert_eq!(response.body["errors"][0]["field"], field);
            assert!(response.body["detail"].as_str().unwrap().contains("\"streamIds\""), "{response:?}");
        }
    }
    assert_eq!(server.call("GET", STREAMS).await.body["count"], 1);
    let with_list = json!({ "streamIds": [], "stream_ids": [id] });
    assert_eq!(server.json("POST", "/v1/users/ann/evictions", with_list).await.body["ended"], json!([]));
    let other = json!({ "reason": "end of the day", "devices": [] });
    assert_eq!(server.json("POST", "/v1/users/ann/evictions", other).await.body["ended"], json!([id]));
}

/// Bodies without a valid content id: empty, not an object, not JSON, not UTF-8, with a wrong or repeated field, or too large.
fn meaningless_bodies() -> Vec<Vec<u8>> {
    vec![
        Vec::new(),
        b"null".to_vec(),
        b"[\"contentId\"]".to_vec(),
        b"{\"contentId\":7}".to_vec(),
        b"{\"contentId\":\"a\",\"contentId\":\"b\"}".to_vec(),
        b"{\"contentId\":\"movie".to_vec(),
        b"contentId=movie".to_vec(),
        b"\xFF\xFE\0\x1F\x8B".to_vec(),
        utf16("\u{FEFF}{\"contentId\":\"movie\"}"),
        vec![b'x'; BOUNDS.max_body_bytes + 1],
        vec![b'['; 300_000],
    ]
}

#[tokio::test]
async fn heartbeats_and_stops_are_never_refused_for_their_bodies() {
    let server = TestServer::start().await;
    for content_type in
        ["application/json", "text/plain;charset=UTF-8", "multipart/form-data; boundary=x", "nonsense"]
    {
        let headers = [("content-type", content_type), ("content-encoding", "br")];
        for body in meaningless_bodies() {
            let id = server.start_stream("ann", json!({ "contentId": "movie-7" })).await;
            let stream = format!("{STREAMS}/{id}");
            server.clock.advance_ms(1);
            let heartbeat = server.send("POST", &format!("{stream}/heartbeat"), &headers, body.clone()).await;
            let context = format!("{content_type}: {:?}", &body[..body.len().min(20)]);
            assert_eq!((heartbeat.status, &heartbeat.body["contentId"]), (200, &json!("movie-7")), "{context}");
            assert_eq!(server.send("POST", &format!("{stream}/stop"), &headers, body.clone()).await.status, 204);
            assert_eq!(server.send("DELETE", &stream, &headers, body).await.status, 204, "{context}");
        }
    }
    assert_eq!(server.call("GET", STREAMS).await.body["count"], 0);
}

#[tokio::test]
async fn a_heartbeat_reads_its_content_from_any_json_object() {
    let server = TestServer::start().await;
    let id = server.start_stream("ann", json!({ "contentId": "movie-7" })).await;
    let heartbeat = format!("{STREAMS}/{id}/heartbeat");
    for (content_type, body, content) in [
        ("application/json", "{\"contentId\":\"Amélie\",\"position\":1}", "Amélie"),
        ("text/plain;charset=UTF-8", "{\"contentId\":\"8½\"}", "8½"),
        ("application/json", "\u{FEFF}{\"contentId\":\"Ame\u{301}lie \\ud83d\"}", "Amélie"),
        ("application/json", "{\"contentId\":\"\"}", "Amélie"),
        ("application/json", "{\"contentId\":null}", "Amélie"),
        ("application/json", "{\"contentID\":\"x\"}", "Amélie"),
    ] {
        server.clock.advance_ms(1);
        let response = server.send("POST", &heartbeat, &[("content-type", content_type)], body.into()).await;
        assert_eq!((response.status, &response.body["contentId"]), (200, &json!(content)), "{body}");
    }
}

#[tokio::test]
async fn incomplete_or_endless_bodies_do_not_prevent_a_stop() {
    let server = TestServer::start().await;
    let large = "x".repeat(100_000);
    for (header, body) in [
        ("Content-Length: 100", "{"),
        ("Content-Length: 5000000", "{"),
        ("Expect: 100-continue\r\nContent-Length: 5000000", ""),
        ("Transfer-Encoding: chunked", "5\r\n{\"a"),
        ("Transfer-Encoding: chunked", "0\r\n\r\n"),
        ("Transfer-Encoding: chunked", &format!("{:x}\r\n{large}\r\n0\r\n\r\n", large.len())),
    ] {
        let id = server.start_stream("ann", json!({})).await;
        let head = format!("POST {STREAMS}/{id}/stop HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{header}\r\n\r\n");
        let response = server.raw(&format!("{head}{body}")).await;
        assert!(response.contains("HTTP/1.1 204 "), "{header}: {response}");
    }
    assert_eq!(server.call("GET", STREAMS).await.body["count"], 0);
    let unknown = format!("POST {STREAMS}/{UNKNOWN_ID}/heartbeat HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{{");
    assert!(server.raw(&unknown).await.starts_with("HTTP/1.1 404 "));
}
