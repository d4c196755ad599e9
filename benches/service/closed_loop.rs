//! As many requests as can be answered, on many connections of one thread. The client is the least there can be, so that it
//! is not what is measured: bytes out, and of the answer only its status and where it ends.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// One connection, kept for all its requests.
pub struct Connection {
    stream: TcpStream,
    answer: Vec<u8>,
}

impl Connection {
    pub async fn open(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.expect("a connection");
        stream.set_nodelay(true).expect("no delay");
        Self { stream, answer: Vec::with_capacity(4096) }
    }

    /// It does not block.
    pub fn into_std(self) -> std::net::TcpStream {
        self.stream.into_std().expect("a socket")
    }

    /// The status and the body.
    pub async fn call(&mut self, request: &[u8]) -> (u16, &[u8]) {
        self.stream.write_all(request).await.expect("a request");
        self.answer.clear();
        loop {
            let read = self.stream.read_buf(&mut self.answer).await.expect("an answer");
            assert!(read > 0, "hung up in {:?}", String::from_utf8_lossy(&self.answer));
            if let Some((status, head, length)) = head(&self.answer)
                && self.answer.len() >= head + length
            {
                return (status, &self.answer[head..head + length]);
            }
        }
    }
}

/// Status, length of the head and length of the body, once the head is there.
fn head(answer: &[u8]) -> Option<(u16, usize, usize)> {
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut response = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(head) = response.parse(answer).expect("HTTP") else { return None };
    let length = response.headers.iter().find(|header| header.name.eq_ignore_ascii_case("content-length"));
    let length =
        length.map_or(0, |header| std::str::from_utf8(header.value).expect("text").parse().expect("a length"));
    Some((response.code.expect("a status"), head, length))
}

pub fn request(method: &str, path: &str) -> Vec<u8> {
    let length = if method == "POST" { "content-length: 0\r\n" } else { "" };
    format!("{method} {path} HTTP/1.1\r\nhost: localhost\r\n{length}\r\n").into_bytes()
}

/// What each connection does again and again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    Heartbeat,
    StartAndStop,
    Count,
}

/// Requests a second, all of them answered as they should be. `stream`: the path of user `n`'s stream, which is started here
/// when there is none.
pub async fn requests_per_s(address: SocketAddr, connections: usize, verb: Verb, run: Duration) -> f64 {
    let ready = std::sync::Arc::new(tokio::sync::Barrier::new(connections + 1));
    let players: Vec<_> = (0..connections)
        .map(|n| {
            let ready = ready.clone();
            tokio::spawn(async move {
                let mut connection = Connection::open(address).await;
                let (streams, stream) = (streams(n), player(&mut connection, n).await);
                let heartbeat = request("POST", &format!("{stream}/heartbeat"));
                let (start, count) = (request("POST", &streams), request("GET", &format!("{streams}/count")));
                ready.wait().await;
                let (mut requests, until) = (0_u64, Instant::now() + run);
                while Instant::now() < until {
                    match verb {
                        Verb::Heartbeat => assert_eq!(connection.call(&heartbeat).await.0, 200),
                        Verb::Count => assert_eq!(connection.call(&count).await.0, 200),
                        Verb::StartAndStop => {
                            let id = started_by(&mut connection, &start).await;
                            let stop = request("DELETE", &format!("{streams}/{id}"));
                            assert_eq!(connection.call(&stop).await.0, 204);
                            requests += 1;
                        }
                    }
                    requests += 1;
                }
                connection.call(&request("DELETE", &stream)).await;
                requests
            })
        })
        .collect();
    ready.wait().await;
    let begun = Instant::now();
    let mut requests = 0;
    for player in players {
        requests += player.await.expect("a player");
    }
    requests as f64 / begun.elapsed().as_secs_f64()
}

fn streams(user: usize) -> String {
    format!("/v1/users/user-{user:04}/streams")
}

/// The path of a stream of this user; of any for a peer that knows no starts.
pub async fn player(connection: &mut Connection, user: usize) -> String {
    let streams = streams(user);
    let (status, body) = connection.call(&request("POST", &streams)).await;
    let id = if status == 201 { stream_id(body) } else { uuid::Uuid::nil().to_string() };
    format!("{streams}/{id}")
}

async fn started_by(connection: &mut Connection, start: &[u8]) -> String {
    let (status, body) = connection.call(start).await;
    assert_eq!(status, 201, "{}", String::from_utf8_lossy(body));
    stream_id(body)
}

fn stream_id(body: &[u8]) -> String {
    let body: serde_json::Value = serde_json::from_slice(body).expect("JSON");
    body["streamId"].as_str().expect("an id").to_owned()
}
