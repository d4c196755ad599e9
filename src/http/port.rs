//! Closes the port without resetting established connections. A client may already have sent a request on a connection that the
//! service has not accepted yet, and closing the port resets all of these.

use std::io::{self, ErrorKind};
use std::time::Duration;

use tokio::net::TcpListener;

/// How long connections that are being established when the port begins to close have to become established. Must be below a second,
/// the time after which clients repeat their connection requests.
pub(crate) const HANDSHAKE_GRACE: Duration = Duration::from_millis(300);

/// The maximum number of established connections that wait to be accepted: the backlog that tokio sets.
pub(crate) const MAX_QUEUED: usize = 1024;

/// Makes the kernel ignore further connection requests (TCP segments with the flag SYN). A client repeats an unanswered request
/// after a second. By then the port is closed, so the client is refused and has sent nothing. Without this filter, a connection
/// could be established between the last `accept` and the closing of the port.
#[cfg(target_os = "linux")]
pub(crate) fn ignore_connection_requests(listener: &TcpListener) -> io::Result<()> {
    use socket2::{SockFilter, SockRef};

    /// The offset of the flags in a TCP header (RFC 9293, section 3.1), and the flag SYN.
    const FLAGS_OFFSET: u32 = 13;
    const SYN: u32 = 0x02;
    /// Instructions of the classic Berkeley Packet Filter: `BPF_LD | BPF_B | BPF_ABS`, `BPF_JMP | BPF_JSET | BPF_K`, `BPF_RET | BPF_K`.
    const LOAD_BYTE: u16 = 0x30;
    const JUMP_IF_SET: u16 = 0x45;
    const RETURN: u16 = 0x06;

    SockRef::from(listener).attach_filter(&[
        SockFilter::new(LOAD_BYTE, 0, 0, FLAGS_OFFSET),
        SockFilter::new(JUMP_IF_SET, 0, 1, SYN),
        SockFilter::new(RETURN, 0, 0, 0),
        SockFilter::new(RETURN, 0, 0, u32::MAX),
    ])
}

/// Other systems have no such filter.
#[cfg(not(target_os = "linux"))]
pub(crate) fn ignore_connection_requests(_: &TcpListener) -> io::Result<()> {
    Ok(())
}

/// Accepts a connection that is already established. Returns `None` if there is none.
pub(crate) fn accept_queued(listener: &std::net::TcpListener) -> Option<std::net::TcpStream> {
    loop {
        match listener.accept() {
            Ok((stream, _)) if stream.set_nonblocking(true).is_ok() => return Some(stream),
            Ok(_) => {}
            // This connection failed before it was accepted.
            Err(error) if matches!(error.kind(), ErrorKind::ConnectionAborted | ErrorKind::Interrupted) => {}
            Err(_) => return None,
        }
    }
}
