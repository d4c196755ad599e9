//! Graceful shutdown of the real process. Readiness fails first, in-flight requests complete, and no client can delay the shutdown.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::service::{Service, command, is_event, temp_dir};
use crate::support::eventually;
use crate::test_app::STREAMS;

async fn start(deregistration_s: &str) -> (Service, tempfile::TempDir) {
    let folder = temp_dir();
    let mut command = command(folder.path());
    command.env("STREAM_MANAGER__SERVER__DEREGISTRATION_S", deregistration_s);
    // The drain time is far longer than the timeout of `Service::wait`, so a test fails if the shutdown takes all of it.
    command.env("STREAM_MANAGER__SERVER__DRAIN_S", "60");
    (Service::start(&mut command).await, folder)
}

#[tokio::test]
async fn after_sigterm_readiness_fails_and_requests_are_still_served() {
    let (mut service, _folder) = start("300").await;
    service.send_signal("-TERM").await;
    eventually(async || service.call("GET", "/health/ready").await.0 == 503).await;
    assert_eq!(service.call("POST", STREAMS).await.0, 201, "on a new connection");
    assert_eq!(service.call("GET", "/health/live").await.0, 200);
    assert_eq!(service.terminate().await.code(), Some(0));
    let log = service.remaining_log().await;
    for event in ["draining", "stopped"] {
        assert!(log.iter().any(|line| is_event(line, event)), "{event}: {log:?}");
    }
}

#[tokio::test]
async fn draining_ends_after_the_deregistration_delay() {
    let (mut service, _folder) = start("1").await;
    assert_eq!(service.terminate().await.code(), Some(0));
}

#[tokio::test]
async fn sigint_skips_the_deregistration_delay() {
    let (mut service, _folder) = start("300").await;
    service.send_signal("-INT").await;
    assert_eq!(service.wait().await.code(), Some(0));
}

#[tokio::test]
async fn partial_requests_and_unread_responses_do_not_delay_shutdown() {
    let (mut service, _folder) = start("0").await;
    let mut held = Vec::new();
    for sent in [
        "GET /health HTTP/1.1\r\nHo".to_owned(),
        String::new(),
        "GET /swagger HTTP/1.1\r\nHost: x\r\n\r\n".repeat(20),
    ] {
        let mut stream = TcpStream::connect(service.address).await.unwrap();
        stream.write_all(sent.as_bytes()).await.unwrap();
        held.push(stream);
    }
    // The server accepts connections in order, so a response on the last connection shows that all are open.
    timeout(Duration::from_secs(30), held[2].read_exact(&mut [0; 12])).await.unwrap().unwrap();
    assert_eq!(service.terminate().await.code(), Some(0));
    let log = service.remaining_log().await;
    assert!(
        log.last().is_some_and(|line| is_event(line, "stopped")),
        "`stopped` is logged only if the database file is also closed: {log:?}"
    );
}
