//! A proxy between one instance and the store. It injects network faults, and records every request with its fault. It
//! never changes the bytes that it forwards.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::store_request::{NetworkFault, StoreRequest};

/// The attempt timeout of the instances. It is short, so that injected delays can exceed it in a short run.
pub const ATTEMPT_TIMEOUT: Duration = Duration::from_millis(700);

pub struct Proxy {
    pub port: u16,
    store_port: u16,
    random: Mutex<StdRng>,
    /// Percentage of the writes that get a fault.
    fault_percent: AtomicU64,
    /// Number of requests that are not forwarded yet or have no response yet.
    in_flight: AtomicUsize,
    requests: Mutex<Vec<StoreRequest>>,
    /// Cancelled to close the listener and all connections.
    connected: Mutex<CancellationToken>,
}

impl Proxy {
    pub async fn start(port: u16, store_port: u16, seed: u64) -> Arc<Self> {
        let proxy = Arc::new(Self {
            port,
            store_port,
            random: Mutex::new(StdRng::seed_from_u64(seed)),
            fault_percent: AtomicU64::new(0),
            in_flight: AtomicUsize::new(0),
            requests: Mutex::default(),
            connected: Mutex::default(),
        });
        proxy.listen().await;
        proxy
    }

    pub fn set_fault_percent(&self, percent: u64) {
        self.fault_percent.store(percent, Ordering::SeqCst);
    }

    pub fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::SeqCst)
    }

    pub fn requests(&self) -> MutexGuard<'_, Vec<StoreRequest>> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Closes every connection, and refuses new connections for `duration`. The pause is real, because the instances are
    /// processes with real timeouts.
    pub async fn disconnect(self: &Arc<Self>, duration: Duration) {
        self.connected.lock().unwrap_or_else(PoisonError::into_inner).cancel();
        tokio::time::sleep(duration).await;
        self.listen().await;
    }

    async fn listen(self: &Arc<Self>) {
        let connected = CancellationToken::new();
        let deadline = Instant::now() + Duration::from_secs(5);
        // After a disconnect, the old listener and the closed connections may still use the port for a moment.
        let listener = loop {
            match TcpListener::bind(("127.0.0.1", self.port)).await {
                Ok(listener) => break listener,
                Err(error) => assert!(Instant::now() < deadline, "cannot listen again: {error}"),
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        };
        *self.connected.lock().unwrap_or_else(PoisonError::into_inner) = connected.clone();
        let proxy = Arc::clone(self);
        tokio::spawn(async move {
            while let Some(Ok((client, _))) = connected.run_until_cancelled(listener.accept()).await {
                _ = client.set_nodelay(true);
                let (proxy, connected) = (Arc::clone(&proxy), connected.clone());
                tokio::spawn(async move { connected.run_until_cancelled(proxy.serve(client)).await });
            }
        });
    }

    async fn serve(self: Arc<Self>, mut client: TcpStream) {
        let mut store = None;
        while let Some(message) = read_message(&mut client).await {
            let mut request = StoreRequest::new(&message);
            let (fault, delay) = self.random_fault(request.write);
            request.fault = fault;
            let number = {
                let mut requests = self.requests();
                requests.push(request);
                requests.len() - 1
            };
            let proxy = Arc::clone(&self);
            let in_flight = InFlight::new(&self);
            // A separate task sends the request, so that the store receives it even if the instance closes its connection.
            let forwarded = tokio::spawn(async move {
                let _in_flight = in_flight;
                if matches!(fault, Some(NetworkFault::DelayRequest | NetworkFault::DeliverAfterTimeout)) {
                    tokio::time::sleep(delay).await;
                }
                proxy.forward(number, message, store, fault).await
            });
            if matches!(fault, Some(NetworkFault::DeliverAfterTimeout | NetworkFault::DropResponse)) {
                wait_until_closed(&mut client).await;
                return;
            }
            let Ok(Some((response, store_connection))) = forwarded.await else { return };
            if fault == Some(NetworkFault::DelayResponse) {
                tokio::time::sleep(delay).await;
            }
            let truncated = fault == Some(NetworkFault::TruncateResponse);
            let length = if truncated { response.len() / 2 } else { response.len() };
            if client.write_all(&response[..length]).await.is_err() || truncated {
                return;
            }
            self.requests()[number].returned = Some(Instant::now());
            store = Some(store_connection);
        }
    }

    /// Sends the request to the store and reads the response. With `TruncateRequest`, sends only two thirds of the
    /// request.
    async fn forward(
        &self,
        number: usize,
        request: Vec<u8>,
        store: Option<TcpStream>,
        fault: Option<NetworkFault>,
    ) -> Option<(Vec<u8>, TcpStream)> {
        let mut store = match store {
            Some(store) => store,
            None => TcpStream::connect(("127.0.0.1", self.store_port)).await.ok()?,
        };
        _ = store.set_nodelay(true);
        if fault == Some(NetworkFault::TruncateRequest) {
            store.write_all(&request[..request.len() - request.len() / 3]).await.ok()?;
            return None;
        }
        self.requests()[number].forwarded = Some(Instant::now());
        store.write_all(&request).await.ok()?;
        let response = read_message(&mut store).await?;
        self.requests()[number].complete(&response);
        Some((response, store))
    }

    fn random_fault(&self, write: bool) -> (Option<NetworkFault>, Duration) {
        let mut random = self.random.lock().unwrap_or_else(PoisonError::into_inner);
        let range = if write { 100 } else { 400 };
        let has_fault = random.random_range(0..range) < self.fault_percent.load(Ordering::SeqCst);
        // More than half of the faults are delayed requests, because these delays reveal code that relies on an outdated
        // read.
        let kind = random.random_range(0..2 * NetworkFault::ALL.len());
        let fault = NetworkFault::ALL.get(kind).copied().unwrap_or(NetworkFault::DelayRequest);
        let timeout_ms = ATTEMPT_TIMEOUT.as_millis() as u64;
        let delay_ms = match fault {
            NetworkFault::DeliverAfterTimeout => random.random_range(timeout_ms + 100..4 * timeout_ms),
            NetworkFault::DelayRequest => random.random_range(30..timeout_ms - 50),
            _ => random.random_range(30..2 * timeout_ms),
        };
        (has_fault.then_some(fault), Duration::from_millis(delay_ms))
    }
}

/// Counts a request as in flight until this value is dropped.
struct InFlight(Arc<Proxy>);

impl InFlight {
    fn new(proxy: &Arc<Proxy>) -> Self {
        proxy.in_flight.fetch_add(1, Ordering::SeqCst);
        Self(Arc::clone(proxy))
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Reads one HTTP message: a head, and a body of `Content-Length` bytes. Neither side pipelines, so nothing follows the
/// body.
async fn read_message(stream: &mut TcpStream) -> Option<Vec<u8>> {
    let mut message = Vec::new();
    loop {
        if let Some(head) = message.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
            let text = String::from_utf8_lossy(&message[..head]).to_ascii_lowercase();
            let length = text.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok());
            if message.len() >= head + 4 + length.unwrap_or(0) {
                return Some(message);
            }
        }
        if stream.read_buf(&mut message).await.ok()? == 0 {
            return None;
        }
    }
}

async fn wait_until_closed(stream: &mut TcpStream) {
    let mut byte = [0];
    while stream.read(&mut byte).await.is_ok_and(|read| read > 0) {}
}
