//! Clients that mean no good, or no longer can, on raw sockets: none holds a connection for ever, none gets more than the
//! bounds allow, and none changes what the others get.

use std::time::Duration;

use serde_json::json;
use stream_manager::http::server::ServerSettings;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, interval, timeout};

use crate::process::{Service, command, folder};
use crate::server::{BOUNDS, SETTINGS, Setup, TestServer};

const SHUT: Duration = Duration::from_secs(5);

/// Whatever comes until the server closes, which it must.
async fn until_closed(stream: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    _ = timeout(SHUT, stream.read_to_end(&mut answer)).await.expect("the server closes it");
    String::from_utf8_lossy(&answer).into_owned()
}

async fn connect(server: &TestServer) -> TcpStream {
    TcpStream::connect(server.address).await.expect("a connection")
}

/// Sends `first`, then `more` again and again, until the server closes.
async fn drip(server: &TestServer, first: &str, more: &[u8]) -> String {
    let (mut reader, mut writer) = connect(server).await.into_split();
    writer.write_all(first.as_bytes()).await.expect("a write");
    let dripping = async {
        let mut tick = interval(Duration::from_millis(50));
        loop {
            tick.tick().await;
            if writer.write_all(more).await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    };
    let mut answer = Vec::new();
    tokio::select! {
        closed = timeout(SHUT, reader.read_to_end(&mut answer)) => {
            _ = closed.expect("the server closes it");
        }
        () = dripping => {}
    }
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn a_connection_that_says_nothing_is_closed() {
    let server = TestServer::start().await;
    assert_eq!(until_closed(&mut connect(&server).await).await, "");
}

#[tokio::test]
async fn a_head_that_comes_byte_by_byte_is_given_up() {
    let server = TestServer::start().await;
    let begun = Instant::now();
    let answer = drip(&server, "GET /health HTTP/1.1\r\n", b"X-A: b\r\n").await;
    assert!(!answer.contains(" 200 ") && begun.elapsed() < SHUT, "{answer}");
}

#[tokio::test]
async fn a_body_that_comes_byte_by_byte_is_given_up() {
    let server = TestServer::start().await;
    let head = "POST /v1/users/ann/streams HTTP/1.1\r\nHost: x\r\nContent-Length: 16000\r\n\r\n{";
    let answer = drip(&server, head, b" ").await;
    assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains("did not arrive in time"), "{answer}");
    assert_eq!(server.call("GET", "/v1/users/ann/streams/count").await.body["count"], 0);
}

#[tokio::test]
async fn an_idle_connection_is_kept_for_a_while_and_then_closed() {
    let server = TestServer::start().await;
    let mut stream = connect(&server).await;
    for _ in 0..2 {
        stream.write_all(b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n").await.expect("a write");
        let mut answer = [0; 4096];
        let read = stream.read(&mut answer).await.expect("an answer");
        assert!(answer[..read].starts_with(b"HTTP/1.1 200 "), "the same connection answers again");
    }
    assert_eq!(until_closed(&mut stream).await, "");
}

#[tokio::test]
async fn other_protocols_are_closed_at_once() {
    // Far longer than the test waits: it is not the timeout that closes them.
    let settings = ServerSettings { header_read_timeout: Duration::from_secs(600), ..SETTINGS };
    let server = TestServer::set_up(Setup { settings, ..Setup::default() }).await;
    let http2 = &b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00"[..];
    let tls = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n";
    for hello in [http2, tls, b"\0\0\0\0\r\n\r\n", b"SSH-2.0-OpenSSH_9.2\r\n\r\n"] {
        let mut stream = connect(&server).await;
        stream.write_all(hello).await.expect("a write");
        let answer = until_closed(&mut stream).await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 400 "), "{answer}");
    }
}

#[tokio::test]
async fn a_client_that_does_not_read_its_answers_is_closed() {
    let server = TestServer::start().await;
    let mut stream = connect(&server).await;
    // Swagger UI's page has over a megabyte: more than the kernel buffers for both sides.
    let greedy = "GET /swagger HTTP/1.1\r\nHost: x\r\n\r\n".repeat(20);
    stream.write_all(greedy.as_bytes()).await.expect("a write");
    let open = || server.metrics.connections.get();
    let opened = async {
        while open() == 0 {
            tokio::task::yield_now().await
        }
    };
    timeout(SHUT, opened).await.expect("it is accepted");
    let closed = async {
        while open() > 0 {
            tokio::task::yield_now().await
        }
    };
    timeout(SHUT, closed).await.expect("it is closed though it never reads");
}

#[tokio::test]
async fn a_head_beyond_its_bounds_is_refused_by_the_parser() {
    let server = TestServer::start().await;
    // The parser looks at the bound when it has filled its buffer: at the latest at twice of it.
    let long = "x".repeat(2 * SETTINGS.max_head_bytes);
    for head in [
        format!("GET /{long} HTTP/1.1\r\nHost: x\r\n\r\n"),
        format!("GET / HTTP/1.1\r\nHost: x\r\nX-Long: {long}\r\n\r\n"),
        format!("GET / HTTP/1.1\r\nHost: x\r\n{}\r\n", "X-A: b\r\n".repeat(64)),
    ] {
        let answer = server.raw(&head).await;
        let status = answer.split(' ').nth(1).unwrap_or_default();
        assert!(["414", "431"].contains(&status), "{status}: {}", &head[..40]);
    }
    let path = format!("/{}", "x".repeat(BOUNDS.max_uri_bytes));
    let answer = server.call("GET", &path).await;
    assert_eq!((answer.status, &answer.body["code"]), (400, &json!("invalid-request")));
    assert!(answer.body["detail"].as_str().expect("a detail").contains("4096 bytes"), "{answer:?}");
    let many =
        format!("GET /health/live HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{}\r\n", "X-A: b\r\n".repeat(62));
    assert!(server.raw(&many).await.starts_with("HTTP/1.1 200 "), "64 headers are allowed");
}

#[tokio::test]
async fn exactly_one_host_is_asked_for() {
    let server = TestServer::start().await;
    for hosts in ["", "Host: a\r\nHost: b\r\n"] {
        let answer = server.raw(&format!("GET /health/live HTTP/1.1\r\n{hosts}Connection: close\r\n\r\n")).await;
        assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains("\"field\":\"Host\""), "{answer}");
    }
    let old = server.raw("GET /health/live HTTP/1.0\r\n\r\n").await;
    assert!(old.starts_with("HTTP/1.0 200 "), "HTTP/1.0 knew no Host: {old}");
}

#[tokio::test]
async fn a_request_hidden_in_another_ones_body_is_not_answered() {
    let server = TestServer::start().await;
    let hidden = "GET /v1/users/ann/limit HTTP/1.1\r\nHost: x\r\n\r\n";
    let start = "POST /v1/users/ann/streams/nonsense/heartbeat HTTP/1.1\r\nHost: x\r\n";
    for (headers, body) in [
        // Two lengths, two ways to say it, and a coding that nobody knows.
        (format!("Content-Length: 0\r\nContent-Length: {}\r\n", hidden.len()), hidden.to_owned()),
        ("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n".to_owned(), format!("0\r\n\r\n{hidden}")),
        ("Transfer-Encoding: chunked, identity\r\n".to_owned(), format!("0\r\n\r\n{hidden}")),
        ("Transfer-Encoding : chunked\r\nContent-Length: 0\r\n".to_owned(), hidden.to_owned()),
        ("Content-Length: +0\r\n".to_owned(), hidden.to_owned()),
        ("Content-Length: 0x0\r\n".to_owned(), hidden.to_owned()),
    ] {
        let answer = server.raw(&format!("{start}{headers}\r\n{body}")).await;
        assert!(!answer.contains("\"source\""), "{headers}: {answer}");
    }
}

#[tokio::test]
async fn connections_beyond_the_bound_wait_until_one_closes() {
    let settings = ServerSettings { max_connections: 2, header_read_timeout: Duration::from_secs(600), ..SETTINGS };
    let server = TestServer::set_up(Setup { settings, ..Setup::default() }).await;
    let idle = [connect(&server).await, connect(&server).await];
    let accepted = async {
        while server.metrics.connections.get() < 2 {
            tokio::task::yield_now().await
        }
    };
    timeout(SHUT, accepted).await.expect("both are accepted");
    let mut third = connect(&server).await;
    third.write_all(b"GET /health/live HTTP/1.0\r\n\r\n").await.expect("a write");
    let mut byte = [0; 1];
    assert!(timeout(Duration::from_millis(100), third.read(&mut byte)).await.is_err(), "it waits");
    drop(idle);
    assert!(until_closed(&mut third).await.starts_with("HTTP/1.0 200 "));
}

#[tokio::test]
async fn half_a_request_does_not_hold_up_the_end() {
    let server = TestServer::set_up(Setup {
        settings: ServerSettings {
            header_read_timeout: Duration::from_secs(600),
            drain: Duration::from_secs(600),
            ..SETTINGS
        },
        ..Setup::default()
    })
    .await;
    let mut half_a_head = connect(&server).await;
    half_a_head.write_all(b"GET /health HTTP/1.1\r\nHo").await.expect("a write");
    let mut half_a_body = connect(&server).await;
    let head = b"POST /v1/users/ann/streams HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\nExpect: 100-continue\r\n\r\n";
    half_a_body.write_all(head).await.expect("a write");
    let mut go_on = [0; 25];
    half_a_body.read_exact(&mut go_on).await.expect("the server is reading the body");
    assert!(go_on.starts_with(b"HTTP/1.1 100 "));
    half_a_body.write_all(b"{").await.expect("a write");
    server.stop.cancel();
    let finished = timeout(SHUT, server.serving).await.expect("long before the time to drain is over");
    assert!(finished.expect("an end"));
    let answer = until_closed(&mut half_a_body).await;
    assert!(answer.starts_with("HTTP/1.1 400 "), "it is answered before: {answer}");
}

/// Kilobytes that the process has in memory.
async fn resident_kb(service: &Service) -> u64 {
    let id = service.child.id().expect("it runs");
    let status = tokio::fs::read_to_string(format!("/proc/{id}/status")).await.expect("its status");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("its memory");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

#[tokio::test]
async fn a_body_that_comes_byte_by_byte_takes_no_more_memory_than_one_that_comes_at_once() {
    const BYTES: usize = 4000;
    let folder = folder();
    let service = Service::start(command(folder.path()).env("STREAM_MANAGER__STORE__KIND", "memory")).await;
    let head = format!(
        "POST /v1/users/ann/streams HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        BYTES + 2
    );
    // One that comes at once first, so that what any request needs for the first time is there.
    let mut stream = TcpStream::connect(service.address).await.expect("a connection");
    stream.write_all(format!("{head}{}{{}}", " ".repeat(BYTES)).as_bytes()).await.expect("a write");
    assert!(until_closed(&mut stream).await.starts_with("HTTP/1.1 201 "));
    let mut stream = TcpStream::connect(service.address).await.expect("a connection");
    stream.set_nodelay(true).expect("no delay");
    stream.write_all(head.as_bytes()).await.expect("a write");
    let before = resident_kb(&service).await;
    for _ in 0..BYTES {
        stream.write_all(b" ").await.expect("a write");
        // Whoever is waiting gets to run, so that it reads this byte before the next one comes.
        std::thread::yield_now();
        tokio::task::yield_now().await;
    }
    let grown_kb = resident_kb(&service).await.saturating_sub(before);
    stream.write_all(b"{}").await.expect("a write");
    assert!(until_closed(&mut stream).await.starts_with("HTTP/1.1 201 "));
    assert!(grown_kb < 4096, "{BYTES} bytes took {grown_kb} kB");
}
