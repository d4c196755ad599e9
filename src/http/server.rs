//! The accept loop: limits the number of connections and gives each one to the worker with the fewest. poem's own server is
//! not used, because it has no header read timeout and no connection limit.

use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::http::pipeline::app::App;
use crate::http::port;
pub use crate::http::worker::ServerSettings;
use crate::http::worker::{Worker, WorkerQueue};

/// Delay before a failed `accept` is retried. The usual cause is a lack of file descriptors, which takes time to clear.
const ACCEPT_RETRY: Duration = Duration::from_millis(50);

/// Serves with one worker on the current runtime until `stop` is cancelled, then completes the requests in flight. Returns
/// whether all completed within `settings.drain`.
pub async fn serve(listener: TcpListener, app: Arc<App>, settings: ServerSettings, stop: CancellationToken) -> bool {
    let (worker, queue) = Worker::new(app, settings);
    let ((), completed) =
        tokio::join!(accept_connections(listener, vec![queue], settings.max_connections, stop), worker.run());
    completed
}

/// Accepts connections until `stop` is cancelled. Then accepts those that are already established and closes the port. The
/// workers drain when this function returns, because it drops their queues.
pub async fn accept_connections(
    listener: TcpListener,
    workers: Vec<WorkerQueue>,
    max_connections: usize,
    stop: CancellationToken,
) {
    let permits = Arc::new(Semaphore::new(max_connections));
    let mut balancer = Balancer { workers, next: 0 };
    loop {
        let (stream, permit) = tokio::select! {
            accepted = accept(&listener, &permits) => accepted,
            () = stop.cancelled() => break,
        };
        balancer.give(stream, permit);
    }
    if let Err(error) = port::ignore_connection_requests(&listener) {
        debug!(%error, "cannot filter connection requests; one that arrives while the port closes may be lost");
    }
    // At the limit of connections, those in the kernel's queue wait. They are accepted now, because their clients may have sent
    // requests.
    permits.add_permits(port::MAX_QUEUED);
    let handshakes = tokio::time::sleep(port::HANDSHAKE_GRACE);
    tokio::pin!(handshakes);
    loop {
        let (stream, permit) = tokio::select! {
            accepted = accept(&listener, &permits) => accepted,
            () = &mut handshakes => break,
        };
        balancer.give(stream, permit);
    }
    // No `await` until the port is closed, so that few connections can arrive in between where the filter is not available.
    let Ok(listener) = listener.into_std() else { return };
    while let Some(permit) = Arc::clone(&permits).try_acquire_owned().ok()
        && let Some(stream) = port::accept_queued(&listener)
    {
        balancer.give(stream, permit);
    }
}

/// Gives each connection to the running worker with the fewest open connections. The kernel's own distribution, by a hash of the
/// addresses, leaves some workers with far more connections than others.
struct Balancer {
    workers: Vec<WorkerQueue>,
    /// The worker that is preferred among equals. It changes with each connection.
    next: usize,
}

impl Balancer {
    fn give(&mut self, stream: std::net::TcpStream, permit: OwnedSemaphorePermit) {
        let count = self.workers.len();
        let order = (0..count).map(|n| (self.next + n) % count).filter(|n| self.workers[*n].is_running());
        let Some(chosen) = order.min_by_key(|n| self.workers[*n].open_connections()) else { return };
        self.next = chosen + 1;
        self.workers[chosen].push(stream, permit);
    }
}

/// Waits until fewer than `max_connections` connections are open, then accepts the next one.
async fn accept(listener: &TcpListener, permits: &Arc<Semaphore>) -> (std::net::TcpStream, OwnedSemaphorePermit) {
    loop {
        let Ok(permit) = Arc::clone(permits).acquire_owned().await else { std::future::pending().await };
        // Detaches the socket from this runtime, because the worker may have another one.
        match listener.accept().await.and_then(|(stream, _)| stream.into_std()) {
            Ok(stream) => return (stream, permit),
            Err(error) => {
                warn!(event = "accept_failed", %error, "cannot accept connections");
                tokio::time::sleep(ACCEPT_RETRY).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpStream;
    use tokio::task::JoinHandle;

    use super::*;
    use crate::http::management;
    use crate::http::pipeline::app::Bounds;

    const SETTINGS: ServerSettings = ServerSettings {
        header_read_timeout: Duration::from_secs(60),
        write_timeout: Duration::from_secs(60),
        max_head_bytes: 8192,
        max_headers: 64,
        max_connections: 1000,
        drain: Duration::ZERO,
    };

    struct Server {
        listener: TcpListener,
        balancer: Balancer,
        permits: Arc<Semaphore>,
        workers: Vec<JoinHandle<bool>>,
    }

    impl Server {
        async fn with_workers(count: usize) -> Self {
            let app = || management(Arc::default(), None, Arc::default(), Bounds::SMALL).unwrap();
            let (mut balancer, mut workers) = (Balancer { workers: Vec::new(), next: 0 }, Vec::new());
            for _ in 0..count {
                let (worker, queue) = Worker::new(app(), SETTINGS);
                balancer.workers.push(queue);
                workers.push(tokio::spawn(worker.run()));
            }
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            Self { listener, balancer, permits: Arc::new(Semaphore::new(SETTINGS.max_connections)), workers }
        }

        /// Opens one connection and returns the client's end.
        async fn connect(&mut self) -> TcpStream {
            let client = TcpStream::connect(self.listener.local_addr().unwrap()).await.unwrap();
            let (stream, permit) = accept(&self.listener, &self.permits).await;
            self.balancer.give(stream, permit);
            client
        }

        fn open_connections(&self) -> Vec<usize> {
            self.balancer.workers.iter().map(WorkerQueue::open_connections).collect()
        }

        /// Waits until this number of connections is open.
        async fn settle(&self, total: usize) {
            let settled = async {
                while self.open_connections().iter().sum::<usize>() != total {
                    tokio::task::yield_now().await;
                }
            };
            tokio::time::timeout(Duration::from_secs(30), settled).await.unwrap();
        }
    }

    #[tokio::test]
    async fn connections_are_spread_evenly() {
        let mut server = Server::with_workers(3).await;
        let mut clients = Vec::new();
        for n in 1..=64 {
            clients.push(server.connect().await);
            let open = server.open_connections();
            assert!(open.iter().max().unwrap() - open.iter().min().unwrap() <= 1, "{n}: {open:?}");
        }
    }

    #[tokio::test]
    async fn closed_connections_make_room_on_their_worker() {
        let mut server = Server::with_workers(2).await;
        let mut clients = Vec::new();
        for _ in 0..64 {
            clients.push(server.connect().await);
        }
        // The first worker has every other connection. Close all of these.
        let mut n = 0;
        clients.retain(|_| {
            n += 1;
            n % 2 == 0
        });
        server.settle(32).await;
        assert_eq!(server.open_connections(), [0, 32]);
        for _ in 0..32 {
            clients.push(server.connect().await);
        }
        assert_eq!(server.open_connections(), [32, 32]);
    }

    #[tokio::test]
    async fn a_failed_worker_gets_no_connections() {
        let mut server = Server::with_workers(2).await;
        server.workers[0].abort();
        _ = (&mut server.workers[0]).await;
        let _clients = (server.connect().await, server.connect().await);
        assert_eq!(server.open_connections(), [0, 2]);
    }

    #[tokio::test]
    async fn connections_of_a_failed_worker_are_closed() {
        let mut server = Server::with_workers(1).await;
        server.workers[0].abort();
        _ = (&mut server.workers[0]).await;
        let _client = server.connect().await;
        assert_eq!((server.open_connections(), server.permits.available_permits()), (vec![0], 1000));
    }
}
