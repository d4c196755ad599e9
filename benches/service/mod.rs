//! The real binary as a process with settings of its own, and a client that keeps its connection. For benchmarks only.

#![allow(dead_code, reason = "each benchmark uses some of it")]

pub mod closed_loop;
pub mod cores;

use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};

/// Killed when it goes out of scope.
pub struct Service {
    pub address: SocketAddr,
    child: Child,
    _folder: tempfile::TempDir,
}

impl Service {
    /// `settings` by their names after the prefix, as in `STORE__KIND`.
    pub async fn start(settings: &[(&str, &str)]) -> Self {
        Self::start_by(Command::new(env!("CARGO_BIN_EXE_stream-manager")), settings).await
    }

    /// Started by another command, which ends in the binary.
    pub async fn start_by(mut command: Command, settings: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let [address, management] = [free_port().await, free_port().await];
        command.current_dir(folder.path()).stderr(Stdio::null());
        command.env("STREAM_MANAGER__SERVER__BIND", address.to_string());
        command.env("STREAM_MANAGER__SERVER__MANAGEMENT_BIND", management.to_string());
        for (name, value) in settings {
            command.env(format!("STREAM_MANAGER__{name}"), value);
        }
        let child = command.spawn().expect("the binary");
        listening(address).await;
        Self { address, child, _folder: folder }
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

/// Until something listens there.
pub async fn listening(address: SocketAddr) {
    while TcpStream::connect(address).await.is_err() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

pub async fn free_port() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    listener.local_addr().expect("an address")
}

/// One connection, kept for all its requests.
pub struct Client(SendRequest<Empty<Bytes>>);

impl Client {
    pub async fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.expect("a connection");
        stream.set_nodelay(true).expect("no delay");
        let (sender, connection) = handshake(TokioIo::new(stream)).await.expect("a connection");
        tokio::spawn(connection);
        Self(sender)
    }

    pub async fn call(&mut self, method: &str, path: &str) -> (u16, Bytes) {
        let request =
            hyper::Request::builder().method(method).uri(path).header("host", "localhost").body(Empty::new());
        let response = self.0.send_request(request.expect("a request")).await.expect("an answer");
        let status = response.status().as_u16();
        (status, response.into_body().collect().await.expect("a body").to_bytes())
    }

    /// Starts a stream and gives its path.
    pub async fn started(&mut self, streams: &str) -> String {
        let (status, body) = self.call("POST", streams).await;
        assert_eq!(status, 201, "{}", String::from_utf8_lossy(&body));
        let started: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
        format!("{streams}/{}", started["streamId"].as_str().expect("an id"))
    }
}
