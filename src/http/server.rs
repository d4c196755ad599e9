//! The accept loop: limits the number of connections, times out slow clients, and shuts down gracefully. poem's own
//! server is not used, because it has no header read timeout and no connection limit.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_io_timeout::TimeoutStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use crate::http::pipeline::app::App;
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
    /// Maximum time for requests in flight to complete after shutdown begins.
    pub drain: Duration,
}

/// Time that clients have to read the last responses after all requests have completed.
const FLUSH_GRACE: Duration = Duration::from_secs(1);

/// Delay before a failed `accept` is retried. The usual cause is a lack of file descriptors, which takes time to clear.
const ACCEPT_RETRY: Duration = Duration::from_millis(50);

/// Serves until `stop` is cancelled, then completes the requests in flight. Returns whether all completed within
/// `settings.drain`.
pub async fn serve(listener: TcpListener, app: Arc<App>, settings: ServerSettings, stop: CancellationToken) -> bool {
    let connections = Arc::new(Semaphore::new(settings.max_connections));
    let (graceful, open, force_close) = (GracefulShutdown::new(), TaskTracker::new(), CancellationToken::new());
    if let Some(metrics) = app.metrics() {
        metrics.connections_limit.set(i64::try_from(settings.max_connections).unwrap_or(i64::MAX));
    }
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(settings.header_read_timeout)
        .half_close(true)
        .max_headers(settings.max_headers)
        .max_buf_size(settings.max_head_bytes)
        // Head and body are sent with one `send`, because the kernel takes a tenth longer for `writev` with two buffers.
        // To do this, hyper copies each frame into the connection's write buffer. Large bodies are therefore sent in
        // small frames (`pages::documentation`).
        .writev(false);

    loop {
        let (stream, permit) = tokio::select! {
            accepted = accept(&listener, &connections) => accepted,
            () = stop.cancelled() => break,
        };
        _ = stream.set_nodelay(true);
        let counted = app.metrics().map(|metrics| CountedConnection::new(Arc::clone(metrics)));
        let app = Arc::clone(&app);
        let service = service_fn(move |request| {
            let response = app.handle(request);
            async move { Ok::<_, Infallible>(poem::http::Response::from(response.await)) }
        });
        // hyper has no write timeout, so it is set on the stream.
        let mut stream = TimeoutStream::new(stream);
        stream.set_write_timeout(Some(settings.write_timeout));
        let connection = graceful.watch(http.serve_connection(TokioIo::new(Box::pin(stream)), service));
        let force_close = force_close.clone();
        open.spawn(async move {
            match force_close.run_until_cancelled_owned(connection).await {
                Some(Err(error)) => {
                    debug!(%error, "connection failed");
                    if let Some(CountedConnection(metrics)) = &counted {
                        count_parse_error(metrics, &error);
                    }
                }
                Some(Ok(())) => {}
                None => debug!("connection closed at shutdown"),
            }
            drop((counted, permit));
        });
    }
    drop(listener);
    app.tasks.close();
    open.close();
    let deadline = tokio::time::Instant::now() + settings.drain;
    tokio::spawn(graceful.shutdown());
    let completed = tokio::time::timeout_at(deadline, app.tasks.wait()).await.is_ok();
    // A client that is still connected after this wait has sent an incomplete request head or does not read its response.
    _ = tokio::time::timeout(FLUSH_GRACE, open.wait()).await;
    force_close.cancel();
    open.wait().await;
    // A client may have completed a request head during the grace period, so its handler may still be running.
    completed && tokio::time::timeout_at(deadline, app.tasks.wait()).await.is_ok()
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

/// Counts an open connection in the metrics until the value is dropped, even if the connection's task panics.
struct CountedConnection(Arc<Metrics>);

impl CountedConnection {
    fn new(metrics: Arc<Metrics>) -> Self {
        metrics.connections.inc();
        Self(metrics)
    }
}

impl Drop for CountedConnection {
    fn drop(&mut self) {
        self.0.connections.dec();
    }
}

/// Waits until fewer than `max_connections` connections are open, then accepts the next one.
async fn accept(listener: &TcpListener, connections: &Arc<Semaphore>) -> (TcpStream, OwnedSemaphorePermit) {
    loop {
        let Ok(permit) = Arc::clone(connections).acquire_owned().await else { std::future::pending().await };
        match listener.accept().await {
            Ok((stream, _)) => return (stream, permit),
            Err(error) => {
                warn!(event = "accept_failed", %error, "cannot accept connections");
                tokio::time::sleep(ACCEPT_RETRY).await;
            }
        }
    }
}
