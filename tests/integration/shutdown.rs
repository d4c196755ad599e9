//! The end of the real process: load balancers are told first, what is in flight is finished, and nobody can hold it up.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::process::{Service, command, folder, send};

/// Longer than any of these ends may take, and far shorter than `drain_s`.
const SOON: Duration = Duration::from_secs(8);

async fn stays(deregistration_s: &str) -> (Service, tempfile::TempDir) {
    let folder = folder();
    let mut command = command(folder.path());
    command.env("STREAM_MANAGER__SERVER__DEREGISTRATION_S", deregistration_s);
    command.env("STREAM_MANAGER__SERVER__DRAIN_S", "60");
    (Service::start(&mut command).await, folder)
}

async fn exit_code(service: &mut Service) -> Option<i32> {
    timeout(SOON, service.child.wait()).await.expect("an end").expect("an end").code()
}

async fn not_ready(service: &Service) {
    let not_ready = async { while service.call("GET", "/health/ready").await.0 != 503 {} };
    timeout(SOON, not_ready).await.expect("it says so");
}

#[tokio::test]
async fn after_sigterm_it_is_not_ready_and_still_accepts_for_a_moment() {
    let (mut service, _folder) = stays("300").await;
    send("-TERM", &service.child).await;
    not_ready(&service).await;
    assert_eq!(service.call("POST", "/v1/users/ann/streams").await.0, 201, "on a new connection");
    assert_eq!(service.call("GET", "/health/live").await.0, 200);
    send("-TERM", &service.child).await;
    assert_eq!(exit_code(&mut service).await, Some(0));
    let log = service.rest_of_the_log().await.join("\n");
    assert!(log.contains("still accepting") && log.contains("stopped"), "{log}");
}

#[tokio::test]
async fn the_moment_ends_by_itself() {
    let (mut service, _folder) = stays("1").await;
    send("-TERM", &service.child).await;
    assert_eq!(exit_code(&mut service).await, Some(0));
}

#[tokio::test]
async fn ctrl_c_does_not_wait_for_load_balancers() {
    let (mut service, _folder) = stays("300").await;
    send("-INT", &service.child).await;
    assert_eq!(exit_code(&mut service).await, Some(0));
}

#[tokio::test]
async fn half_sent_requests_and_unread_answers_do_not_hold_up_the_end() {
    let (mut service, _folder) = stays("0").await;
    let mut held = Vec::new();
    for half in [
        "GET /health HTTP/1.1\r\nHo".to_owned(),
        String::new(),
        "GET /swagger HTTP/1.1\r\nHost: x\r\n\r\n".repeat(20),
    ] {
        let mut stream = TcpStream::connect(service.address).await.expect("a connection");
        stream.write_all(half.as_bytes()).await.expect("a write");
        held.push(stream);
    }
    // Accepted in order: when the last one answers, the others are open.
    held[2].read_exact(&mut [0; 12]).await.expect("the beginning of an answer");
    send("-TERM", &service.child).await;
    assert_eq!(exit_code(&mut service).await, Some(0));
    let log = service.rest_of_the_log().await;
    assert!(log.last().is_some_and(|line| line.contains("event=\"stopped\"")), "its file is closed too: {log:?}");
}
