//! The accept loop: bounded connections with timeouts, and an orderly end. Knows nothing of what is answered.
//! poem's own server bounds neither a slow header nor the number of connections.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
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
use crate::http::pipeline::coalesce::CoalescingWriter;
use crate::telemetry::metrics::Metrics;

#[derive(Clone, Copy, Debug)]
pub struct ServerSettings {
    /// Also bounds how long a kept-alive connection may be idle.
    pub header_read_timeout: Duration,
    /// How long a client may leave an answer without reading any of it.
    pub write_timeout: Duration,
    pub max_head_bytes: usize,
    pub max_headers: usize,
    pub max_connections: usize,
    /// How long requests in flight may go on after the stop.
    pub drain: Duration,
}

/// How long the last answers may take to be read.
const FLUSH_GRACE: Duration = Duration::from_secs(1);

/// Serves until `stop` is cancelled, then lets the requests in flight finish. Returns whether all did in time.
pub async fn serve(
    listener: TcpListener,
    app: Arc<App>,
    metrics: Arc<Metrics>,
    settings: ServerSettings,
    stop: CancellationToken,
) -> bool {
    let connections = Arc::new(Semaphore::new(settings.max_connections));
    let (graceful, open, force_close) = (GracefulShutdown::new(), TaskTracker::new(), CancellationToken::new());
    metrics.connections_limit.set(i64::try_from(settings.max_connections).unwrap_or(i64::MAX));
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(settings.header_read_timeout)
        .half_close(true)
        .max_headers(settings.max_headers)
        .max_buf_size(settings.max_head_bytes);

    loop {
        let (stream, permit) = tokio::select! {
            accepted = accept(&listener, &connections) => accepted,
            () = stop.cancelled() => break,
        };
        _ = stream.set_nodelay(true);
        let app = Arc::clone(&app);
        let service = service_fn(move |request| {
            let answer = AssertUnwindSafe(app.answer(request)).catch_unwind();
            async move {
                // A defect ends this connection, in order.
                let answer = answer.await.map_err(|_| std::io::Error::other("a defect while answering"));
                answer.map(poem::http::Response::from)
            }
        });
        // hyper waits for ever for a client that does not read.
        let mut stream = TimeoutStream::new(stream);
        stream.set_write_timeout(Some(settings.write_timeout));
        let connection = graceful.watch(http.serve_connection(TokioIo::new(CoalescingWriter::new(stream)), service));
        let (counted, force_close) = (Counted::new(Arc::clone(&metrics)), force_close.clone());
        open.spawn(async move {
            let _counted = counted;
            match force_close.run_until_cancelled_owned(connection).await {
                Some(Err(error)) => debug!(%error, "connection broke off"),
                Some(Ok(())) => {}
                None => debug!("connection given up at the end"),
            }
            drop(permit);
        });
    }
    drop(listener);
    app.tasks.close();
    open.close();
    let until = tokio::time::Instant::now() + settings.drain;
    tokio::spawn(graceful.shutdown());
    let answered = tokio::time::timeout_at(until, app.tasks.wait()).await.is_ok();
    // Whoever is still connected after this has sent half a head, or does not read: there is nothing to wait for.
    _ = tokio::time::timeout(FLUSH_GRACE, open.wait()).await;
    force_close.cancel();
    open.wait().await;
    // The head of one more request may have come whole in between.
    answered && tokio::time::timeout_at(until, app.tasks.wait()).await.is_ok()
}

/// A connection in the metrics, until its task ends, whatever ends it.
struct Counted(Arc<Metrics>);

impl Counted {
    fn new(metrics: Arc<Metrics>) -> Self {
        metrics.connections.inc();
        Self(metrics)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.connections.dec();
    }
}

/// The next connection, once there is room for one.
async fn accept(listener: &TcpListener, connections: &Arc<Semaphore>) -> (TcpStream, OwnedSemaphorePermit) {
    loop {
        let Ok(permit) = Arc::clone(connections).acquire_owned().await else { std::future::pending().await };
        match listener.accept().await {
            Ok((stream, _)) => return (stream, permit),
            Err(error) => {
                // Out of file descriptors, most often: trying again at once would only burn a core.
                warn!(%error, "cannot accept connections");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}
