//! Clients that are slow or silent, or send malformed requests, on raw sockets. The service closes their connections and enforces its
//! bounds, and other clients are not affected.

use std::time::Duration;

use stream_manager::http::server::ServerSettings;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, interval, timeout};

use crate::service::{Service, command, temp_dir};
use crate::support::eventually;
use crate::test_app::{BOUNDS, SETTINGS, TestApp, TestServer};

const CLOSED_WITHIN: Duration = Duration::from_secs(5);

/// Reads until the server closes the connection. Panics if the server does not close it in time.
async fn read_until_closed(stream: &mut (impl AsyncReadExt + Unpin)) -> String {
    let mut response = Vec::new();
    _ = timeout(CLOSED_WITHIN, stream.read_to_end(&mut response)).await.unwrap();
    String::from_utf8_lossy(&response).into_owned()
}

async fn connect(server: &TestServer) -> TcpStream {
    TcpStream::connect(server.address).await.unwrap()
}

async fn serve_with(settings: ServerSettings) -> TestServer {
    TestApp { settings, ..TestApp::default() }.serve().await
}

/// Sends `first`, and then `more` every 50 ms until the server closes the connection.
async fn drip(server: &TestServer, first: &str, more: &[u8]) -> String {
    let (mut reader, mut writer) = connect(server).await.into_split();
    writer.write_all(first.as_bytes()).await.unwrap();
    let dripping = async {
        let mut tick = interval(Duration::from_millis(50));
        loop {
            tick.tick().await;
            if writer.write_all(more).await.is_err() {
                return std::future::pending().await;
            }
        }
    };
    tokio::select! {
        response = read_until_closed(&mut reader) => response,
        response = dripping => response,
    }
}

#[tokio::test]
async fn a_silent_connection_is_closed() {
    let server = TestServer::start().await;
    assert_eq!(read_until_closed(&mut connect(&server).await).await, "");
}

#[tokio::test]
async fn a_slow_request_head_times_out() {
    let server = TestServer::start().await;
    let begun = Instant::now();
    let response = drip(&server, "GET /health HTTP/1.1\r\n", b"X-A: b\r\n").await;
    assert!(!response.contains(" 200 ") && begun.elapsed() < CLOSED_WITHIN, "{response}");
}

#[tokio::test]
async fn a_slow_request_body_times_out() {
    let server = TestServer::start().await;
    let head = "POST /v1/users/ann/streams HTTP/1.1\r\nHost: x\r\nContent-Length: 16000\r\n\r\n{";
    let response = drip(&server, head, b" ").await;
    assert!(response.starts_with("HTTP/1.1 400 ") && response.contains("did not arrive in time"), "{response}");
    assert_eq!(server.call("GET", "/v1/users/ann/streams/count").await.body["count"], 0);
}

#[tokio::test]
async fn an_idle_connection_is_reused_and_later_closed() {
    let server = TestServer::start().await;
    let mut stream = connect(&server).await;
    for _ in 0..2 {
        stream.write_all(b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        let mut response = [0; 4096];
        let read = stream.read(&mut response).await.unwrap();
        assert!(response[..read].starts_with(b"HTTP/1.1 200 "));
    }
    assert_eq!(read_until_closed(&mut stream).await, "");
}

#[tokio::test]
async fn other_protocols_are_closed_immediately() {
    // The timeout is far longer than the test, so that it does not close the connections.
    let server = serve_with(ServerSettings { header_read_timeout: Duration::from_secs(600), ..SETTINGS }).await;
    let http2 = &b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00"[..];
    let tls = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n";
    for hello in [http2, tls, b"\0\0\0\0\r\n\r\n", b"SSH-2.0-OpenSSH_9.2\r\n\r\n"] {
        let mut stream = connect(&server).await;
        stream.write_all(hello).await.unwrap();
        let response = read_until_closed(&mut stream).await;
        assert!(response.is_empty() || response.starts_with("HTTP/1.1 400 "), "{response}");
    }
}

#[tokio::test]
async fn a_client_that_reads_no_responses_is_closed() {
    let server = TestServer::start().await;
    let mut stream = connect(&server).await;
    // Each response of Swagger UI is larger than a megabyte, so the responses do not fit into the socket buffers.
    let requests = "GET /swagger HTTP/1.1\r\nHost: x\r\n\r\n".repeat(20);
    stream.write_all(requests.as_bytes()).await.unwrap();
    eventually(async || server.metrics.connections.get() > 0).await;
    timeout(CLOSED_WITHIN, eventually(async || server.metrics.connections.get() == 0)).await.unwrap();
}

#[tokio::test]
async fn oversized_request_heads_are_refused() {
    let server = TestServer::start().await;
    // The parser checks the bound only when its buffer is full, so it may accept a head of almost twice the bound.
    let long = "x".repeat(2 * SETTINGS.max_head_bytes);
    for head in [
        format!("GET /{long} HTTP/1.1\r\nHost: x\r\n\r\n"),
        format!("GET / HTTP/1.1\r\nHost: x\r\nX-Long: {long}\r\n\r\n"),
        format!("GET / HTTP/1.1\r\nHost: x\r\n{}\r\n", "X-A: b\r\n".repeat(64)),
    ] {
        let response = server.raw(&head).await;
        let status = response.split(' ').nth(1).unwrap_or_default();
        assert!(["414", "431"].contains(&status), "{status}: {}", &head[..40]);
    }
    let path = format!("/{}", "x".repeat(BOUNDS.max_uri_bytes));
    let response = server.call("GET", &path).await;
    response.assert_problem(400, "invalid-request", "a long path");
    assert!(response.body["detail"].as_str().unwrap().contains("4096 bytes"), "{response:?}");
    let many =
        format!("GET /health/live HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{}\r\n", "X-A: b\r\n".repeat(62));
    assert!(server.raw(&many).await.starts_with("HTTP/1.1 200 "), "64 headers are allowed");
}

/// Sends a request for this target with these header lines.
async fn get_with(server: &TestServer, target: &str, version: &str, headers: &str) -> String {
    server.raw(&format!("GET {target} HTTP/{version}\r\n{headers}Connection: close\r\n\r\n")).await
}

#[tokio::test]
async fn requests_need_exactly_one_valid_host_header() {
    let server = TestServer::start().await;
    let url = "http://streams.example.com/health/live";
    for (target, version, headers) in [
        ("/health/live", "1.1", ""),
        ("/health/live", "1.1", "Host: a\r\nHost: b\r\n"),
        ("/health/live", "1.1", "Host: a\r\nHost: a\r\n"),
        ("/health/live", "1.0", "Host: a\r\nHost: a\r\n"),
        ("/health/live", "1.1", "Host: a, b\r\n"),
        ("/health/live", "1.1", "Host: user@a\r\n"),
        ("/health/live", "1.1", "Host: a/b\r\n"),
        ("/health/live", "1.1", "Host: a:http\r\n"),
        ("/health/live", "1.1", "Host: bücher.example\r\n"),
        ("/health/live", "1.0", "Host: [::1\r\n"),
        (url, "1.1", ""),
        (url, "1.1", "Host: a b\r\n"),
    ] {
        let response = get_with(&server, target, version, headers).await;
        assert!(response.contains(" 400 ") && response.contains("\"field\":\"Host\""), "{headers}: {response}");
    }
    for (target, version, headers) in [
        ("/health/live", "1.0", ""),
        ("/health/live", "1.0", "Host: a\r\n"),
        ("/health/live", "1.1", "Host: 10.0.0.5:8080\r\n"),
        ("/health/live", "1.1", "Host: [2001:db8::7]:8080\r\n"),
        ("/health/live", "1.1", "Host: stream_manager-1:8080\r\n"),
        ("/health/live", "1.1", "Host:  streams.example.com \r\n"),
        ("/health/live", "1.1", "Host:\r\n"),
        (url, "1.1", "Host: other.example\r\n"),
        (url, "1.0", ""),
    ] {
        let response = get_with(&server, target, version, headers).await;
        assert!(response.starts_with(&format!("HTTP/{version} 200 ")), "{target} {headers}: {response}");
    }
}

#[tokio::test]
async fn a_smuggled_request_gets_no_response() {
    let server = TestServer::start().await;
    let smuggled = "GET /v1/users/ann/limit HTTP/1.1\r\nHost: x\r\n\r\n";
    let start = "POST /v1/users/ann/streams/nonsense/heartbeat HTTP/1.1\r\nHost: x\r\n";
    for (headers, body) in [
        // Two lengths, a length with a transfer coding, an unknown coding, and malformed headers.
        (format!("Content-Length: 0\r\nContent-Length: {}\r\n", smuggled.len()), smuggled.to_owned()),
        ("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n".to_owned(), format!("0\r\n\r\n{smuggled}")),
        ("Transfer-Encoding: chunked, identity\r\n".to_owned(), format!("0\r\n\r\n{smuggled}")),
        ("Transfer-Encoding : chunked\r\nContent-Length: 0\r\n".to_owned(), smuggled.to_owned()),
        ("Content-Length: +0\r\n".to_owned(), smuggled.to_owned()),
        ("Content-Length: 0x0\r\n".to_owned(), smuggled.to_owned()),
    ] {
        let response = server.raw(&format!("{start}{headers}\r\n{body}")).await;
        assert!(!response.contains("\"source\""), "{headers}: {response}");
    }
}

#[tokio::test]
async fn connections_over_the_limit_wait_until_one_closes() {
    let header_read_timeout = Duration::from_secs(600);
    let server = serve_with(ServerSettings { max_connections: 2, header_read_timeout, ..SETTINGS }).await;
    let idle = [connect(&server).await, connect(&server).await];
    eventually(async || server.metrics.connections.get() == 2).await;
    let mut third = connect(&server).await;
    third.write_all(b"GET /health/live HTTP/1.0\r\n\r\n").await.unwrap();
    let mut byte = [0; 1];
    assert!(timeout(Duration::from_millis(100), third.read(&mut byte)).await.is_err(), "the third must wait");
    drop(idle);
    assert!(read_until_closed(&mut third).await.starts_with("HTTP/1.0 200 "));
}

#[tokio::test]
async fn partial_requests_do_not_delay_shutdown() {
    let long = Duration::from_secs(600);
    let server = serve_with(ServerSettings { header_read_timeout: long, drain: long, ..SETTINGS }).await;
    let mut half_head = connect(&server).await;
    half_head.write_all(b"GET /health HTTP/1.1\r\nHo").await.unwrap();
    let mut half_body = connect(&server).await;
    let head = b"POST /v1/users/ann/streams HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\nExpect: 100-continue\r\n\r\n";
    half_body.write_all(head).await.unwrap();
    let mut interim = [0; 25];
    timeout(CLOSED_WITHIN, half_body.read_exact(&mut interim)).await.unwrap().unwrap();
    assert!(interim.starts_with(b"HTTP/1.1 100 "), "the server waits for the body");
    half_body.write_all(b"{").await.unwrap();
    server.stop.cancel();
    assert!(timeout(CLOSED_WITHIN, server.serving).await.unwrap().unwrap());
    let response = read_until_closed(&mut half_body).await;
    assert!(response.starts_with("HTTP/1.1 400 "), "the server responds before it ends: {response}");
}

/// The resident memory of the process in kB.
async fn resident_kb(service: &Service) -> u64 {
    let id = service.child.id().unwrap();
    let status = tokio::fs::read_to_string(format!("/proc/{id}/status")).await.unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[tokio::test]
async fn a_body_in_single_bytes_needs_no_extra_memory() {
    const BYTES: usize = 4000;
    let folder = temp_dir();
    let service = Service::start(command(folder.path()).env("STREAM_MANAGER__STORE__KIND", "memory")).await;
    let head = format!(
        "POST /v1/users/ann/streams HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        BYTES + 2
    );
    // The first request allocates memory that all requests share, so send it before the measurement.
    let mut stream = TcpStream::connect(service.address).await.unwrap();
    stream.write_all(format!("{head}{}{{}}", " ".repeat(BYTES)).as_bytes()).await.unwrap();
    assert!(read_until_closed(&mut stream).await.starts_with("HTTP/1.1 201 "));
    let mut stream = TcpStream::connect(service.address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    stream.write_all(head.as_bytes()).await.unwrap();
    let before = resident_kb(&service).await;
    for _ in 0..BYTES {
        stream.write_all(b" ").await.unwrap();
        // Let the server read this byte before the next byte arrives.
        std::thread::yield_now();
        tokio::task::yield_now().await;
    }
    let grown_kb = resident_kb(&service).await.saturating_sub(before);
    stream.write_all(b"{}").await.unwrap();
    assert!(read_until_closed(&mut stream).await.starts_with("HTTP/1.1 201 "));
    assert!(grown_kb < 4096, "{BYTES} bytes took {grown_kb} kB");
}
