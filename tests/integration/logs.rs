//! The JSON log of the real binary: every line is one valid event, for any input.

use serde_json::Value;

use crate::service::{Service, command, http_client, temp_dir};
use crate::test_app::UNKNOWN_ID;

#[tokio::test]
async fn every_log_line_is_json_without_tokens_or_line_breaks() {
    let folder = temp_dir();
    let mut command = command(folder.path());
    command.env("STREAM_MANAGER__LOG__FORMAT", "json").env("STREAM_MANAGER__LOG__FILTER", "debug");
    let mut service = Service::start(&mut command).await;
    let client = http_client();
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
        let streams = service.url(&format!("/v1/users/{name}/streams"));
        let stream = format!("{streams}/{UNKNOWN_ID}");
        for request in [client.post(&streams), client.get(&streams), client.delete(&stream)] {
            request.bearer_auth("a-token-of-somebody").send().await.unwrap();
        }
    }
    assert_eq!(service.terminate().await.code(), Some(0));
    let log = service.remaining_log().await;
    assert!(log.len() > 3 * names.len());
    for line in service.first_lines.iter().chain(&log) {
        let event: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line:?}"));
        assert!(event["timestamp"].is_string() && event["level"].is_string(), "{line}");
        // Some log readers treat these characters as line ends. The last character starts a terminal control sequence.
        assert!(!line.contains(['\r', '\u{85}', '\u{2028}', '\u{2029}', '\u{1b}']), "{line:?}");
        assert!(!line.contains("a-token"), "{line}");
    }
}
