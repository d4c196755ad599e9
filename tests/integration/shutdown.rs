//! Graceful shutdown of the real process. Readiness fails first, in-flight requests complete, and no client can delay the shutdown.

use std::net::SocketAddr;
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
    let folder = temp_dir();
    let mut command = command(folder.path());
    command.env("STREAM_MANAGER__SERVER__DEREGISTRATION_S", "0");
    command.env("STREAM_MANAGER__SERVER__DRAIN_S", "60");
    command.env("STREAM_MANAGER__SERVER__WORKER_THREADS", "1");
    let mut service = Service::start(&mut command).await;
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
    // A worker opens connections in order, so a response on the last one shows that all are open.
    timeout(Duration::from_secs(30), held[2].read_exact(&mut [0; 12])).await.unwrap().unwrap();
    assert_eq!(service.terminate().await.code(), Some(0));
    let log = service.remaining_log().await;
    assert!(
        log.last().is_some_and(|line| is_event(line, "stopped")),
        "`stopped` is logged only if the database file is also closed: {log:?}"
    );
}

/// Counts the requests of clients that repeat a request until the port is closed.
#[derive(Default)]
struct Requests {
    answered: usize,
    /// Requests that were sent on an open connection and got no response.
    lost: usize,
}

/// Repeats a request on a keep-alive connection. Connects again after each response that closes the connection.
async fn repeat_requests(address: SocketAddr) -> Requests {
    let mut requests = Requests::default();
    while let Ok(mut stream) = TcpStream::connect(address).await {
        loop {
            let Some(closes) = request_once(&mut stream).await else {
                requests.lost += 1;
                break;
            };
            requests.answered += 1;
            if closes {
                break;
            }
        }
    }
    requests
}

/// Sends a request and reads the response. Returns whether the response closes the connection, or `None` without a response.
async fn request_once(stream: &mut TcpStream) -> Option<bool> {
    stream.write_all(b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n").await.ok()?;
    let mut response = Vec::new();
    // The body is a JSON object without objects in it.
    while !response.ends_with(b"}") {
        if timeout(Duration::from_secs(30), stream.read_buf(&mut response)).await.ok()?.ok()? == 0 {
            return None;
        }
    }
    let response = String::from_utf8_lossy(&response);
    assert!(response.starts_with("HTTP/1.1 200"), "{response}");
    Some(response.to_ascii_lowercase().contains("\r\nconnection: close\r\n"))
}

#[tokio::test]
async fn no_request_on_64_busy_connections_is_lost() {
    for (workers, deregistration_s) in [("1", "0"), ("2", "0"), ("1", "1"), ("2", "1")] {
        // Repeat, because the requests that SIGTERM interrupts differ in each run.
        for _ in 0..3 {
            let folder = temp_dir();
            let mut command = command(folder.path());
            command.env("STREAM_MANAGER__SERVER__DEREGISTRATION_S", deregistration_s);
            command.env("STREAM_MANAGER__SERVER__WORKER_THREADS", workers);
            let mut service = Service::start(&mut command).await;
            let clients: Vec<_> = (0..64).map(|_| tokio::spawn(repeat_requests(service.address))).collect();
            let mut stream = TcpStream::connect(service.address).await.unwrap();
            for _ in 0..100 {
                assert_eq!(request_once(&mut stream).await, Some(false));
            }
            assert_eq!(service.terminate().await.code(), Some(0));
            for client in clients {
                let Requests { answered, lost } = client.await.unwrap();
                assert!(
                    answered > 0 && lost == 0,
                    "{workers} workers, {deregistration_s} s: {answered} answered, {lost} lost"
                );
            }
        }
    }
}

#[tokio::test]
async fn after_sigterm_each_response_closes_its_connection() {
    let (mut service, _folder) = start("300").await;
    let mut open = TcpStream::connect(service.address).await.unwrap();
    assert_eq!(request_once(&mut open).await, Some(false));
    service.send_signal("-TERM").await;
    eventually(async || service.call("GET", "/health/ready").await.0 == 503).await;
    assert_eq!(request_once(&mut open).await, Some(true), "on a connection that was open before");
    let mut new = TcpStream::connect(service.address).await.unwrap();
    assert_eq!(request_once(&mut new).await, Some(true));
    assert_eq!(new.read(&mut [0]).await.unwrap(), 0, "the connection is closed");
    assert_eq!(service.terminate().await.code(), Some(0));
}

#[tokio::test]
async fn connections_that_wait_at_the_limit_are_served_at_shutdown() {
    let folder = temp_dir();
    let mut command = command(folder.path());
    command.env("STREAM_MANAGER__SERVER__DEREGISTRATION_S", "0");
    command.env("STREAM_MANAGER__SERVER__MAX_CONNECTIONS", "1");
    let mut service = Service::start(&mut command).await;
    let mut held = TcpStream::connect(service.address).await.unwrap();
    assert_eq!(request_once(&mut held).await, Some(false));
    let mut waiting = TcpStream::connect(service.address).await.unwrap();
    let response = tokio::spawn(async move { request_once(&mut waiting).await });
    assert_eq!(service.terminate().await.code(), Some(0));
    assert_eq!(response.await.unwrap(), Some(true));
}
