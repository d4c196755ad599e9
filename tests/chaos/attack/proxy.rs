//! The network between one instance and the store, with faults: understands as much of HTTP as to tell where a message
//! ends, and notes of every request what was done to it. Invents and changes no byte.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::traffic::{Fault, StoreRequest};

/// What the instances are told, so that a request can be later than that without making everyone wait.
pub const ATTEMPT: Duration = Duration::from_millis(700);

pub struct Proxy {
    pub port: u16,
    store_port: u16,
    random: Mutex<StdRng>,
    /// How many in a hundred writes are hurt.
    hurt: AtomicU64,
    /// Requests that are not delivered or not answered yet.
    under_way: AtomicUsize,
    traffic: Mutex<Vec<StoreRequest>>,
    open: Mutex<CancellationToken>,
}

impl Proxy {
    pub async fn start(port: u16, store_port: u16, seed: u64) -> Arc<Self> {
        let proxy = Arc::new(Self {
            port,
            store_port,
            random: Mutex::new(StdRng::seed_from_u64(seed)),
            hurt: AtomicU64::new(0),
            under_way: AtomicUsize::new(0),
            traffic: Mutex::default(),
            open: Mutex::default(),
        });
        proxy.listen().await;
        proxy
    }

    pub fn hurt(&self, percent: u64) {
        self.hurt.store(percent, Ordering::SeqCst);
    }

    pub fn under_way(&self) -> usize {
        self.under_way.load(Ordering::SeqCst)
    }

    pub fn traffic(&self) -> MutexGuard<'_, Vec<StoreRequest>> {
        self.traffic.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Cuts every connection and refuses new ones for a while.
    pub async fn refuse(self: &Arc<Self>, duration: Duration) {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).cancel();
        // How long the fault lasts: real processes have no other clock.
        tokio::time::sleep(duration).await;
        self.listen().await;
    }

    async fn listen(self: &Arc<Self>) {
        let open = CancellationToken::new();
        let patience = Instant::now() + Duration::from_secs(5);
        // The cancelled listener closes as soon as its task has run.
        let listener = loop {
            match TcpListener::bind(("127.0.0.1", self.port)).await {
                Ok(listener) => break listener,
                Err(error) => assert!(Instant::now() < patience, "cannot listen again: {error}"),
            }
            // Connections that were cut hold the port for a moment.
            tokio::time::sleep(Duration::from_millis(5)).await;
        };
        *self.open.lock().unwrap_or_else(PoisonError::into_inner) = open.clone();
        let proxy = Arc::clone(self);
        tokio::spawn(async move {
            while let Some(Ok((client, _))) = open.run_until_cancelled(listener.accept()).await {
                _ = client.set_nodelay(true);
                let (proxy, open) = (Arc::clone(&proxy), open.clone());
                tokio::spawn(async move { open.run_until_cancelled(proxy.serve(client)).await });
            }
        });
    }

    async fn serve(self: Arc<Self>, mut client: TcpStream) {
        let mut store = None;
        while let Some(request) = read_message(&mut client).await {
            let mut noted = StoreRequest::new(&request);
            let (fault, after) = self.draw(noted.write);
            noted.fault = fault;
            let number = {
                let mut traffic = self.traffic();
                traffic.push(noted);
                traffic.len() - 1
            };
            let proxy = Arc::clone(&self);
            let under_way = UnderWay::new(&self);
            // Apart, so that what was sent arrives, whatever becomes of the connection that it came by.
            let exchanged = tokio::spawn(async move {
                let _under_way = under_way;
                if matches!(fault, Some(Fault::LateRequest | Fault::Zombie)) {
                    // The fault itself.
                    tokio::time::sleep(after).await;
                }
                proxy.exchange(number, request, store, fault).await
            });
            if matches!(fault, Some(Fault::Zombie | Fault::DropAnswer)) {
                wait_until_closed(&mut client).await;
                return;
            }
            let Ok(Some((answer, kept))) = exchanged.await else { return };
            if fault == Some(Fault::LateAnswer) {
                // The fault itself.
                tokio::time::sleep(after).await;
            }
            let whole = if fault == Some(Fault::CutAnswer) { answer.len() / 2 } else { answer.len() };
            if client.write_all(&answer[..whole]).await.is_err() || fault == Some(Fault::CutAnswer) {
                return;
            }
            self.traffic()[number].relayed = Some(Instant::now());
            store = Some(kept);
        }
    }

    /// Sends a request to the store, or half of it, and waits for the answer.
    async fn exchange(
        &self,
        number: usize,
        request: Vec<u8>,
        store: Option<TcpStream>,
        fault: Option<Fault>,
    ) -> Option<(Vec<u8>, TcpStream)> {
        let mut store = match store {
            Some(store) => store,
            None => TcpStream::connect(("127.0.0.1", self.store_port)).await.ok()?,
        };
        _ = store.set_nodelay(true);
        if fault == Some(Fault::CutRequest) {
            store.write_all(&request[..request.len() - request.len() / 3]).await.ok()?;
            return None;
        }
        self.traffic()[number].delivered = Some(Instant::now());
        store.write_all(&request).await.ok()?;
        let answer = read_message(&mut store).await?;
        self.traffic()[number].answered(&answer);
        Some((answer, store))
    }

    fn draw(&self, write: bool) -> (Option<Fault>, Duration) {
        let mut random = self.random.lock().unwrap_or_else(PoisonError::into_inner);
        let of = if write { 100 } else { 400 };
        let hit = random.random_range(0..of) < self.hurt.load(Ordering::SeqCst);
        // Half of all are late requests: they do no harm but to whoever takes what was read for what is.
        let kind = random.random_range(0..2 * Fault::ALL.len());
        let fault = Fault::ALL.get(kind).copied().unwrap_or(Fault::LateRequest);
        let attempt = ATTEMPT.as_millis() as u64;
        let after = match fault {
            Fault::Zombie => random.random_range(attempt + 100..4 * attempt),
            Fault::LateRequest => random.random_range(30..attempt - 50),
            _ => random.random_range(30..2 * attempt),
        };
        (hit.then_some(fault), Duration::from_millis(after))
    }
}

struct UnderWay(Arc<Proxy>);

impl UnderWay {
    fn new(proxy: &Arc<Proxy>) -> Self {
        proxy.under_way.fetch_add(1, Ordering::SeqCst);
        Self(Arc::clone(proxy))
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A head and as much as its `Content-Length` says. Nothing is sent ahead of an answer here, so nothing follows it.
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
