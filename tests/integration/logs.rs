//! The JSON log of the real binary: every line is one valid event, for any input. Also tests client request ids and probes.

use serde_json::Value;

use crate::service::{Service, command, dynamodb_command, http_client, is_event, temp_dir, unused_url};
use crate::test_app::{STREAMS, UNKNOWN_ID};

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

#[tokio::test]
async fn client_request_ids_are_logged_but_not_returned() {
    let folder = temp_dir();
    let mut command = dynamodb_command(folder.path(), &unused_url());
    let mut service = Service::start(command.env("STREAM_MANAGER__LOG__FORMAT", "json")).await;
    let request = reqwest::Client::new().get(service.url(&format!("{STREAMS}/count")));
    let response = request.header("x-request-id", "client id \"1\"").send().await.unwrap();
    assert_eq!(response.status(), 503);
    let returned = response.headers()["x-request-id"].to_str().unwrap();
    service.terminate().await;
    let log = service.remaining_log().await;
    let failure = log.iter().find(|line| is_event(line, "request_failed")).unwrap();
    let failure: Value = serde_json::from_str(failure).unwrap();
    assert_eq!(failure["span"]["client_request_id"], "client?id?\"1\"");
    assert_eq!(failure["span"]["request_id"], returned);
}

#[tokio::test]
async fn probes_of_an_unready_service_are_not_logged() {
    let folder = temp_dir();
    let mut service = Service::start(&mut dynamodb_command(folder.path(), &unused_url())).await;
    for path in ["/health/ready", "/health", "/health/ready"] {
        assert_eq!(service.call("GET", path).await.0, 503);
    }
    service.terminate().await;
    let log = service.remaining_log().await;
    let is_warning = |line: &&String| line.contains(" WARN ") || line.contains(" ERROR ");
    let warnings: Vec<&String> = service.first_lines.iter().chain(&log).filter(is_warning).collect();
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(is_event(warnings[0], "store_unavailable"), "{warnings:?}");
}
