//! The log of the real binary as a machine reads it: a line an event, whatever requests hold.

use serde_json::Value;

use crate::process::{Service, command, folder};

#[tokio::test]
async fn every_line_is_json_whatever_a_user_is_called_and_none_holds_a_token() {
    let folder = folder();
    let mut command = command(folder.path());
    command.env("STREAM_MANAGER__LOG__FORMAT", "json").env("STREAM_MANAGER__LOG__FILTER", "debug");
    let mut service = Service::start(&mut command).await;
    let client = reqwest::Client::new();
    let names = [
        "a%22b",
        "a%5Cb%5C%22%7D",
        "a%0Ab",
        "a%0D%0A%7B%22level%22:%22ERROR%22%7D",
        "a%E2%80%A8b%E2%80%A9c",
        "a%C2%85b",
        "a%00b%1B%5B31m",
        "a%E2%80%AEb",
        "%F0%9F%8E%AC",
        "a%FFb",
    ];
    for name in names {
        for (method, path) in [("POST", ""), ("GET", ""), ("DELETE", "/6fa459ea-ee8a-4ca4-894e-db77e160355e")] {
            let method = reqwest::Method::from_bytes(method.as_bytes()).expect("a method");
            let url = format!("http://{}/v1/users/{name}/streams{path}", service.address);
            let request = client.request(method, url).bearer_auth("a-token-of-somebody");
            request.send().await.expect("an answer");
        }
    }
    assert_eq!(service.terminate().await.code(), Some(0));
    let log = service.rest_of_the_log().await;
    assert!(log.len() > 3 * names.len());
    for line in service.first_lines.iter().chain(&log) {
        let event: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line:?}"));
        assert!(event["timestamp"].is_string() && event["level"].is_string(), "{line}");
        // What other readers of lines than ours take for the end of one.
        assert!(!line.contains(['\r', '\u{85}', '\u{2028}', '\u{2029}', '\u{1b}']), "{line:?}");
        assert!(!line.contains("a-token"), "{line}");
    }
}
