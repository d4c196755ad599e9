//! Mixed requests a second through HTTP on loopback, the client included: 64 connections that start, send four
//! heartbeats, count and stop. Prints each store's rate, and its share of the memory store's in the same run.
//! `cargo bench --bench requests`

#![allow(clippy::expect_used, clippy::print_stdout, clippy::disallowed_methods, reason = "a benchmark")]

use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};

const CONNECTIONS: u64 = 64;
const RUN: Duration = Duration::from_secs(8);

struct Service(Child);

impl Drop for Service {
    fn drop(&mut self) {
        _ = self.0.kill();
        _ = self.0.wait();
    }
}

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let memory = measure(&[("STORE__KIND", "memory")]).await;
        println!("memory           {memory:>7.0} requests/s");
        let normal = measure(&[("STORE__KIND", "embedded"), ("EMBEDDED__SYNC", "normal")]).await;
        println!("embedded, normal {normal:>7.0} requests/s, {:.2} of memory", normal / memory);
        let full = measure(&[("STORE__KIND", "embedded"), ("EMBEDDED__SYNC", "full")]).await;
        println!("embedded, full   {full:>7.0} requests/s, {:.2} of memory", full / memory);
    });
}

/// Requests a second of the real binary with these settings.
async fn measure(settings: &[(&str, &str)]) -> f64 {
    let folder = tempfile::tempdir().expect("a folder");
    let [public, management] = [free_port().await, free_port().await];
    let mut command = Command::new(env!("CARGO_BIN_EXE_stream-manager"));
    command.current_dir(folder.path()).stderr(Stdio::null());
    command.env("STREAM_MANAGER__SERVER__BIND", public.to_string());
    command.env("STREAM_MANAGER__SERVER__MANAGEMENT_BIND", management.to_string());
    for (name, value) in settings {
        command.env(format!("STREAM_MANAGER__{name}"), value);
    }
    let _service = Service(command.spawn().expect("the binary"));
    while TcpStream::connect(public).await.is_err() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let begun = Instant::now();
    let clients = (0..CONNECTIONS).map(|n| tokio::spawn(play(public, n, begun + RUN)));
    let clients: Vec<_> = clients.collect();
    let mut requests = 0;
    for client in clients {
        requests += client.await.expect("a client");
    }
    requests as f64 / begun.elapsed().as_secs_f64()
}

async fn free_port() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    listener.local_addr().expect("an address")
}

/// One player after the other on one connection, until the time is up.
async fn play(address: SocketAddr, n: u64, until: Instant) -> u64 {
    let stream = TcpStream::connect(address).await.expect("a connection");
    stream.set_nodelay(true).expect("no delay");
    let (mut sender, connection) = handshake(TokioIo::new(stream)).await.expect("a connection");
    tokio::spawn(connection);
    let streams = format!("/v1/users/user-{n}/streams");
    let mut requests = 0;
    while Instant::now() < until {
        let (status, body) = call(&mut sender, "POST", &streams).await;
        assert_eq!(status, 201, "{}", String::from_utf8_lossy(&body));
        let started: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
        let stream = format!("{streams}/{}", started["streamId"].as_str().expect("an id"));
        for _ in 0..4 {
            assert_eq!(call(&mut sender, "POST", &format!("{stream}/heartbeat")).await.0, 200);
        }
        assert_eq!(call(&mut sender, "GET", &format!("{streams}/count")).await.0, 200);
        assert_eq!(call(&mut sender, "DELETE", &stream).await.0, 204);
        requests += 7;
    }
    requests
}

async fn call(sender: &mut SendRequest<Empty<Bytes>>, method: &str, path: &str) -> (u16, Bytes) {
    let request = hyper::Request::builder().method(method).uri(path).header("host", "localhost").body(Empty::new());
    let response = sender.send_request(request.expect("a request")).await.expect("an answer");
    let status = response.status().as_u16();
    (status, response.into_body().collect().await.expect("a body").to_bytes())
}
