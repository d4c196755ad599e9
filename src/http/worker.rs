//! A worker: serves connections on one single-threaded runtime, times out slow clients, and shuts down gracefully.

use std::convert::Infallible;
use std::net::TcpStream as StdTcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use poem::http::{HeaderValue, header};
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio_io_timeout::TimeoutStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use crate::http::pipeline::app::App;
use crate::http::port::HANDSHAKE_GRACE;
use crate::telemetry::metrics::Metrics;

#[derive(Clone, Copy, Debug)]
pub struct ServerSettings {
    /// Maximum time to receive a request head. It is also the keep-alive idle timeout.
    pub header_read_timeout: Duration,
    /// Maximum time without progress while a response is sent.
    pub write_timeout: Duration,
    pub max_head_bytes: usize,
    pub max_headers: usize,
    pub max_connections: usize,
    /// Maximum time for requests in flight to complete after the server has been told to stop.
    pub drain: Duration,
}

/// How long idle connections stay open after the port is closed. Each of their clients may be sending a request at this moment,
/// which would be lost if the connection were closed. The response to this request closes the connection.
const IDLE_GRACE: Duration = Duration::from_secs(1);

/// Time that clients have to read the last responses after all requests have completed.
const FLUSH_GRACE: Duration = Duration::from_secs(1);

pub struct Worker {
    app: Arc<App>,
    settings: ServerSettings,
    accepted: UnboundedReceiver<Connection>,
}

/// Gives connections to a worker. The worker drains when this value is dropped. Its length is bounded by `max_connections`.
pub struct WorkerQueue {
    sender: UnboundedSender<Connection>,
    open: Arc<AtomicUsize>,
    metrics: Option<Arc<Metrics>>,
}

/// An accepted connection that no runtime has registered yet.
struct Connection {
    stream: StdTcpStream,
    guard: ConnectionGuard,
}

/// Counts an open connection until the value is dropped, even if the connection's task panics.
struct ConnectionGuard {
    open: Arc<AtomicUsize>,
    metrics: Option<Arc<Metrics>>,
    _permit: OwnedSemaphorePermit,
}

impl Worker {
    pub fn new(app: Arc<App>, settings: ServerSettings) -> (Self, WorkerQueue) {
        let (sender, accepted) = unbounded_channel();
        let queue = WorkerQueue { sender, open: Arc::default(), metrics: app.metrics.clone() };
        if let Some(metrics) = &app.metrics {
            metrics.connections_limit.set(i64::try_from(settings.max_connections).unwrap_or(i64::MAX));
        }
        (Self { app, settings, accepted }, queue)
    }

    /// Serves until the queue is dropped, then completes the requests in flight. Returns whether all completed within
    /// `settings.drain`.
    pub async fn run(mut self) -> bool {
        let (graceful, open, force_close) = (GracefulShutdown::new(), TaskTracker::new(), CancellationToken::new());
        // Closes the connections if this future is dropped.
        let _guard = force_close.clone().drop_guard();
        let http = self.http();
        while let Some(Connection { stream, guard }) = self.accepted.recv().await {
            let stream = match TcpStream::from_std(stream) {
                Ok(stream) => stream,
                Err(error) => {
                    warn!(event = "accept_failed", %error, "cannot accept connections");
                    continue;
                }
            };
            _ = stream.set_nodelay(true);
            let app = Arc::clone(&self.app);
            let service = service_fn(move |request| {
                let (response, app) = (app.handle(request), Arc::clone(&app));
                async move {
                    let mut response = response.await;
                    if app.readiness.is_draining() {
                        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
                    }
                    Ok::<_, Infallible>(poem::http::Response::from(response))
                }
            });
            // hyper has no write timeout, so it is set on the stream.
            let mut stream = TimeoutStream::new(stream);
            stream.set_write_timeout(Some(self.settings.write_timeout));
            let connection = graceful.watch(http.serve_connection(TokioIo::new(Box::pin(stream)), service));
            let force_close = force_close.clone();
            open.spawn(async move {
                match force_close.run_until_cancelled_owned(connection).await {
                    Some(Err(error)) => {
                        debug!(%error, "connection failed");
                        if let Some(metrics) = &guard.metrics {
                            count_parse_error(metrics, &error);
                        }
                    }
                    Some(Ok(())) => {}
                    None => debug!("connection closed at shutdown"),
                }
                drop(guard);
            });
        }
        self.drain(graceful, open, force_close).await
    }

    async fn drain(self, graceful: GracefulShutdown, open: TaskTracker, force_close: CancellationToken) -> bool {
        // The time for the handshakes is over when the queue is dropped.
        let (tasks, drain) = (&self.app.tasks, self.settings.drain.saturating_sub(HANDSHAKE_GRACE));
        self.app.readiness.drain();
        tasks.close();
        open.close();
        let deadline = tokio::time::Instant::now() + drain;
        _ = tokio::time::timeout(IDLE_GRACE.min(drain), open.wait()).await;
        tokio::spawn(graceful.shutdown());
        let completed = tokio::time::timeout_at(deadline, tasks.wait()).await.is_ok();
        // A client that is still connected after this wait has sent an incomplete request head or does not read its response.
        _ = tokio::time::timeout(FLUSH_GRACE, open.wait()).await;
        force_close.cancel();
        open.wait().await;
        // A client may have completed a request head during the grace period, so its handler may still be running.
        completed && tokio::time::timeout_at(deadline, tasks.wait()).await.is_ok()
    }

    fn http(&self) -> http1::Builder {
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new())
            .header_read_timeout(self.settings.header_read_timeout)
            .half_close(true)
            .max_headers(self.settings.max_headers)
            .max_buf_size(self.settings.max_head_bytes)
            // Head and body are sent with one `send`, because the kernel takes a tenth longer for `writev` with two buffers.
            // To do this, hyper copies each frame into the connection's write buffer. Large bodies are therefore sent in
            // small frames (`pages::documentation`).
            .writev(false);
        http
    }
}

impl WorkerQueue {
    /// The connections of the worker, queued ones included.
    pub(crate) fn open_connections(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// False if the worker has panicked.
    pub(crate) fn is_running(&self) -> bool {
        !self.sender.is_closed()
    }

    pub(crate) fn push(&self, stream: StdTcpStream, permit: OwnedSemaphorePermit) {
        self.open.fetch_add(1, Ordering::Relaxed);
        if let Some(metrics) = &self.metrics {
            metrics.connections.inc();
        }
        let guard = ConnectionGuard { open: Arc::clone(&self.open), metrics: self.metrics.clone(), _permit: permit };
        // Fails only if the worker has panicked. The connection is closed then.
        _ = self.sender.send(Connection { stream, guard });
    }
}

impl Drop for ConnectionGuard {
    fn drop(&mut self) {
        self.open.fetch_sub(1, Ordering::Relaxed);
        if let Some(metrics) = &self.metrics {
            metrics.connections.dec();
        }
    }
}

/// Counts a request head that the parser refused. hyper has responded with 400, 414 or 431, or has closed the connection
/// without a response if the client uses HTTP/2.
fn count_parse_error(metrics: &Metrics, error: &hyper::Error) {
    let counters = &metrics.parse_errors;
    let counter = match error {
        error if error.is_parse_too_large() => &counters.too_large,
        error if error.is_parse_version_h2() => &counters.http2,
        error if error.is_parse() => &counters.malformed,
        _ => return,
    };
    counter.inc();
}
