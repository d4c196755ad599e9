//! `healthcheck`: probes /health/live of the local instance.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use stream_manager::config::Config;

use super::output::print;
use super::settings;

const TIMEOUT: Duration = Duration::from_secs(3);

pub fn run(file: Option<&Path>) -> Result<ExitCode> {
    // Reads only `server.bind`, because the health check of a container may run without the settings file of the service.
    let address = local_address(Config::bind(file, settings::environment()?)?);
    let url = format!("http://{address}/health/live");
    let response = request(address).with_context(|| format!("no response from {url}"))?;
    let status = response.lines().next().unwrap_or_default();
    if !status.starts_with("HTTP/1.1 200 ") {
        bail!("{url} returned {status:?}");
    }
    print("ok\n")?;
    Ok(ExitCode::SUCCESS)
}

/// The address to connect to. A server bound to an unspecified address also listens on loopback.
fn local_address(bind: SocketAddr) -> SocketAddr {
    let ip = match bind.ip() {
        ip if !ip.is_unspecified() => ip,
        IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
    };
    SocketAddr::new(ip, bind.port())
}

/// Sends one request without an HTTP client, which would need the Tokio runtime.
fn request(address: SocketAddr) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    write!(stream, "GET /health/live HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
    let mut response = Vec::new();
    stream.take(4096).read_to_end(&mut response)?;
    Ok(String::from_utf8_lossy(&response).into_owned())
}
