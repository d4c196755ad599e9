//! Closed-loop HTTP load on one thread: each connection sends its next request as soon as it has received the response.
//! The client sends prepared bytes and parses only what it needs, so that it is not the bottleneck.

use std::net::SocketAddr;
use std::ops::Range;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A keep-alive HTTP/1.1 connection.
pub struct Connection {
    stream: TcpStream,
    response: Vec<u8>,
}

impl Connection {
    pub async fn open(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream, response: Vec::with_capacity(4096) }
    }

    /// The socket, in non-blocking mode.
    pub fn into_std(self) -> std::net::TcpStream {
        self.stream.into_std().unwrap()
    }

    /// Sends a request and returns the body. Panics unless the response has this status.
    pub async fn call(&mut self, request: &[u8], status: u16) -> &[u8] {
        let (actual, body) = self.send(request).await;
        assert_eq!(actual, status, "{}", String::from_utf8_lossy(body));
        body
    }

    /// Sends a request and returns status and body.
    pub async fn send(&mut self, request: &[u8]) -> (u16, &[u8]) {
        self.stream.write_all(request).await.unwrap();
        self.response.clear();
        loop {
            let read = self.stream.read_buf(&mut self.response).await.unwrap();
            assert!(read > 0, "connection closed after {:?}", String::from_utf8_lossy(&self.response));
            if let Some((status, body, end)) = parse_head(&self.response)
                && self.response.len() >= end
            {
                return (status, &self.response[body..end]);
            }
        }
    }
}

/// Returns the status, and the start and end of the body. Returns `None` until the whole head has arrived.
fn parse_head(response: &[u8]) -> Option<(u16, usize, usize)> {
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut head = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(body) = head.parse(response).unwrap() else { return None };
    let length = head.headers.iter().find(|header| header.name.eq_ignore_ascii_case("content-length"));
    let length: usize = length.map_or(0, |header| str::from_utf8(header.value).unwrap().parse().unwrap());
    Some((head.code.unwrap(), body, body + length))
}

pub fn request(method: &str, path: &str) -> Vec<u8> {
    let length = if method == "POST" { "content-length: 0\r\n" } else { "" };
    format!("{method} {path} HTTP/1.1\r\nhost: localhost\r\n{length}\r\n").into_bytes()
}

/// The requests that each connection repeats.
#[derive(Clone, Copy, Debug)]
pub enum Workload {
    Heartbeat,
    StartAndStop,
    Count,
    /// A check of the same grant, as for each segment of a player.
    GrantCheck,
    /// A start, four heartbeats, a count and a stop.
    Session,
}

/// One user with a connection and one active stream.
pub struct User {
    pub connection: Connection,
    pub heartbeat: Vec<u8>,
    streams: String,
    stream: String,
    start: Vec<u8>,
    count: Vec<u8>,
    /// `None` if the start had no grant.
    grant_check: Option<Vec<u8>>,
}

impl User {
    /// Connects as user `n` and starts a stream. Uses the nil UUID if the peer does not support starts, because such a peer accepts
    /// heartbeats of any stream.
    pub async fn connect(address: SocketAddr, n: usize) -> Self {
        let streams = format!("/v1/users/user-{n:04}/streams");
        let (start, count) = (request("POST", &streams), request("GET", &format!("{streams}/count")));
        let mut connection = Connection::open(address).await;
        let (stream, grant_check) = match connection.send(&start).await {
            (201, body) => (stream_path(&streams, body), grant_check(body)),
            _ => (format!("{streams}/{}", uuid::Uuid::nil()), None),
        };
        let heartbeat = request("POST", &format!("{stream}/heartbeat"));
        Self { connection, heartbeat, streams, stream, start, count, grant_check }
    }

    /// Runs the workload once and returns the number of requests.
    async fn run(&mut self, workload: Workload) -> u64 {
        match workload {
            Workload::Heartbeat => _ = self.connection.call(&self.heartbeat, 200).await,
            Workload::Count => _ = self.connection.call(&self.count, 200).await,
            Workload::GrantCheck => _ = self.connection.call(self.grant_check.as_ref().unwrap(), 204).await,
            Workload::StartAndStop => {
                let stream = self.start().await;
                self.connection.call(&request("DELETE", &stream), 204).await;
                return 2;
            }
            Workload::Session => {
                let stream = self.start().await;
                let heartbeat = request("POST", &format!("{stream}/heartbeat"));
                for _ in 0..4 {
                    self.connection.call(&heartbeat, 200).await;
                }
                self.connection.call(&self.count, 200).await;
                self.connection.call(&request("DELETE", &stream), 204).await;
                return 7;
            }
        }
        1
    }

    async fn start(&mut self) -> String {
        let body = self.connection.call(&self.start, 201).await;
        stream_path(&self.streams, body)
    }
}

fn stream_path(streams: &str, body: &[u8]) -> String {
    let body: serde_json::Value = serde_json::from_slice(body).unwrap();
    format!("{streams}/{}", body["streamId"].as_str().unwrap())
}

/// A check of the grant in the response to a start, as nginx sends it for a segment.
fn grant_check(body: &[u8]) -> Option<Vec<u8>> {
    let body: serde_json::Value = serde_json::from_slice(body).unwrap();
    let grant = body["grant"].as_str()?;
    let head = format!(
        "GET /v1/grants/check HTTP/1.1\r\nhost: localhost\r\nx-original-uri: /media/1.ts?grant={grant}\r\n\r\n"
    );
    Some(head.into_bytes())
}

/// Measures the requests per second of these users, each with one connection. Panics if a response has an unexpected status.
pub async fn requests_per_s(address: SocketAddr, users: Range<usize>, workload: Workload, run: Duration) -> f64 {
    let mut connected = Vec::new();
    for n in users {
        connected.push(User::connect(address, n).await);
    }
    let start = Instant::now();
    let tasks = connected.into_iter().map(|mut user| {
        tokio::spawn(async move {
            let mut requests = 0;
            while start.elapsed() < run {
                requests += user.run(workload).await;
            }
            (requests, user)
        })
    });
    let finished = join_all(tasks).await;
    let elapsed = start.elapsed();
    let mut requests = 0;
    for user in finished {
        let (sent, mut user) = user.unwrap();
        requests += sent;
        user.connection.send(&request("DELETE", &user.stream)).await;
    }
    requests as f64 / elapsed.as_secs_f64()
}
