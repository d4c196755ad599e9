//! Wires the real clock, store and servers together, and stops them in order.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use rand::SeedableRng;
use rand::rngs::{StdRng, SysRng};
use stream_manager::clock::{Clock, SystemClock};
use stream_manager::config::{Config, StoreKind};
use stream_manager::http::api::health::Readiness;
use stream_manager::http::api::rate_limits::Rates;
use stream_manager::http::auth::verifier::TokenVerifier;
use stream_manager::http::pipeline::cors::Origins;
use stream_manager::http::server::ServerSettings;
use stream_manager::http::{self, AppDeps, server};
use stream_manager::limiter::Limiter;
use stream_manager::migrate;
use stream_manager::store::LeaseStore;
use stream_manager::store::dynamodb::DynamoStore;
use stream_manager::store::dynamodb::client::{self, Client};
use stream_manager::store::dynamodb::metrics_interceptor::MetricsInterceptor;
use stream_manager::store::memory::MemoryStore;
use stream_manager::telemetry::metrics::Metrics;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

/// One shard after the other; all of them in under a minute.
const MEMORY_SWEEP_INTERVAL: Duration = Duration::from_millis(50);
const STORE_RETRY: Duration = Duration::from_secs(2);

/// Scrapers, and somebody who looks.
const MANAGEMENT_CONNECTIONS: usize = 32;

/// How long the embedded store may take to write everything into its file at the end.
const CLOSE_WITHIN: Duration = Duration::from_secs(5);

/// Serves until SIGTERM or ctrl-C, then finishes what is in flight. Each further signal skips what is being waited for.
pub async fn serve(config: &Config) -> Result<()> {
    // First of all: without a handler, the first process of a container would ignore SIGTERM while it starts.
    let mut stop = StopSignal::new()?;
    let service = tokio::select! {
        service = Service::start(config) => service?,
        _ = stop.received() => return Ok(()),
    };
    let Service { mut players, operators, readiness, stopping, engine } = service;
    let signal = tokio::select! {
        signal = stop.received() => signal,
        ended = &mut players => anyhow::bail!("the server ended by itself: {ended:?}"),
    };
    readiness.drain();
    // Nobody balances load to a terminal.
    if signal == SignalKind::terminate() && config.server.deregistration_s > 0 {
        info!(deregistration_s = config.server.deregistration_s, "not ready any more: still accepting for a moment");
        tokio::select! {
            () = tokio::time::sleep(Duration::from_secs(config.server.deregistration_s)) => {}
            _ = stop.received() => {}
        }
    }
    info!("stopping: finishing what is in flight");
    stopping.cancel();
    let finished = tokio::select! {
        finished = players => finished?,
        _ = stop.received() => false,
    };
    operators.abort();
    _ = operators.await;
    // What is still at work keeps the file open; the next start finds everything in its log.
    let within = if finished { CLOSE_WITHIN } else { Duration::ZERO };
    let closing = tokio::task::spawn_blocking(move || engine.is_none_or(|close| close(within)));
    let closed = tokio::select! {
        closed = closing => closed?,
        _ = stop.received() => false,
    };
    if finished && closed {
        info!("stopped");
    } else {
        warn!(drain_s = config.server.drain_s, "stopped with requests or connections still open");
    }
    Ok(())
}

/// What runs between the start and the stop.
struct Service {
    players: JoinHandle<bool>,
    operators: JoinHandle<bool>,
    readiness: Arc<Readiness>,
    stopping: CancellationToken,
    engine: Option<CloseEngine>,
}

/// Waits until the store has let go of its file; whether it has.
type CloseEngine = Box<dyn FnOnce(Duration) -> bool + Send>;

impl Service {
    async fn start(config: &Config) -> Result<Self> {
        let public = listen(config.server.bind, "server.bind").await?;
        let management = listen(config.server.management_bind, "server.management_bind").await?;
        if config.demo() {
            // First of all: who tries the service wants to see it. Connections wait until it serves.
            info!("demo: http://{}/demo", public.local_addr()?);
        }
        let metrics = Arc::new(Metrics::new());
        let readiness = Arc::new(Readiness::watching(Arc::clone(&metrics.store.clock_skew)));
        let clock = Arc::new(SystemClock);
        let tokens = open_tokens(config, clock.clone()).await?;
        let observer = MetricsInterceptor::new(metrics.store.clone(), clock.clone());
        let (store, engine) = open_store(config, &readiness, clock.clone(), observer).await?;
        allow_connections(config.server.max_connections);
        let random = StdRng::try_from_rng(&mut SysRng).context("the system gives no random numbers")?;
        let rates = Rates::new(config.rate(), &(Arc::clone(&clock) as _));
        let limiter = Arc::new(Limiter::new(store, clock, random, Arc::clone(&metrics), config.policy()));
        let app = http::app(AppDeps {
            limiter,
            readiness: Arc::clone(&readiness),
            metrics: Arc::clone(&metrics),
            tokens,
            demo: config.demo(),
            rates,
            origins: Origins::new(&config.cors.allowed_origins),
            bounds: config.bounds(),
        })?;
        let operators = http::management(metrics, config.bounds())?;

        let address = public.local_addr()?;
        info!("stream-manager {} on http://{address}", env!("CARGO_PKG_VERSION"));
        info!("Swagger UI: http://{address}/swagger");
        info!("metrics: http://{}/metrics", management.local_addr()?);

        let stopping = CancellationToken::new();
        let settings = config.server();
        let few = ServerSettings { max_connections: MANAGEMENT_CONNECTIONS, ..settings };
        let operators = tokio::spawn(server::serve(management, operators, few, stopping.clone()));
        let players = tokio::spawn(server::serve(public, app, settings, stopping.clone()));
        Ok(Self { players, operators, readiness, stopping, engine })
    }
}

/// Each connection takes a file descriptor, and many systems allow a process a thousand unless it asks for more.
fn allow_connections(max_connections: u64) {
    // For the store, its own connections, and the log.
    const OTHERS: u64 = 256;
    let needed = max_connections + OTHERS;
    match rlimit::increase_nofile_limit(needed) {
        Ok(allowed) if allowed >= needed => {}
        Ok(allowed) => warn!(
            allowed,
            "fewer file descriptors than server.max_connections needs: raise the limit (ulimit -Hn), or lower the setting"
        ),
        Err(error) => warn!(%error, "cannot tell how many file descriptors are allowed"),
    }
}

/// The keys that tokens are checked with, kept fresh from here on. None when no tokens are asked for.
async fn open_tokens(config: &Config, clock: Arc<SystemClock>) -> Result<Option<Arc<TokenVerifier>>> {
    let bind = config.server.bind;
    let Some(settings) = config.tokens() else {
        if !bind.ip().is_loopback() {
            warn!(%bind, "whoever reaches this address can act for every user: set auth.mode = \"jwt\"");
        }
        return Ok(None);
    };
    let tokens = Arc::new(TokenVerifier::open(settings, clock).await?);
    let kept = Arc::clone(&tokens);
    tokio::spawn(async move { kept.keep_fresh().await });
    Ok(Some(tokens))
}

async fn listen(address: SocketAddr, key: &str) -> Result<TcpListener> {
    TcpListener::bind(address)
        .await
        .with_context(|| format!("cannot listen on {address}, set {key} to a free address"))
}

/// SIGTERM and ctrl-C.
struct StopSignal {
    terminate: Signal,
    interrupt: Signal,
}

impl StopSignal {
    fn new() -> Result<Self> {
        let on = |kind| signal(kind).context("cannot listen for signals");
        Ok(Self { terminate: on(SignalKind::terminate())?, interrupt: on(SignalKind::interrupt())? })
    }

    async fn received(&mut self) -> SignalKind {
        tokio::select! {
            _ = self.terminate.recv() => SignalKind::terminate(),
            _ = self.interrupt.recv() => SignalKind::interrupt(),
        }
    }
}

async fn open_store(
    config: &Config,
    readiness: &Arc<Readiness>,
    clock: Arc<SystemClock>,
    observer: MetricsInterceptor,
) -> Result<(Arc<dyn LeaseStore>, Option<CloseEngine>)> {
    match config.store.kind {
        StoreKind::Memory => {
            let store = Arc::new(MemoryStore::new());
            tokio::spawn(sweep(Arc::clone(&store), clock));
            info!("store: memory; nothing is kept when this process ends");
            readiness.store_seen();
            Ok((store, None))
        }
        StoreKind::Embedded => open_embedded(config, readiness, observer).await,
        StoreKind::DynamoDb => {
            let client = client::with_metrics(&client::connect(&config.client()).await?, observer);
            let table = config.dynamodb.table.clone();
            info!("store: DynamoDB table {table:?}");
            match migrate::check(&client, &table).await {
                Ok(()) => readiness.store_seen(),
                Err(error) if error.is_transient() => {
                    warn!(%error, "the store does not answer yet: not ready until it does");
                    tokio::spawn(look_for_table(client.clone(), table.clone(), Arc::clone(readiness)));
                }
                Err(error) => return Err(error.into()),
            }
            Ok((Arc::new(DynamoStore::new(client, table)), None))
        }
    }
}

#[cfg(feature = "embedded")]
async fn open_embedded(
    config: &Config,
    readiness: &Readiness,
    observer: MetricsInterceptor,
) -> Result<(Arc<dyn LeaseStore>, Option<CloseEngine>)> {
    use stream_manager::config::SyncMode;
    use stream_manager::store::embedded::{self, Embedded};

    let path = &config.embedded.path;
    let sync = match config.embedded.sync {
        SyncMode::Normal => embedded::SyncMode::Normal,
        SyncMode::Full => embedded::SyncMode::Full,
    };
    let engine = Embedded::open(path, sync)?;
    let client = client::with_metrics(&client::in_process(&config.client(), engine.http_client()), observer);
    migrate::migrate(&client, &config.dynamodb.table).await?;
    let shown = std::path::absolute(path).unwrap_or_else(|_| path.clone());
    info!("store: embedded; the state is in {}", shown.display());
    readiness.store_seen();
    let store = Arc::new(DynamoStore::new(client, &config.dynamodb.table));
    Ok((store, Some(Box::new(move |within| engine.close(within)))))
}

#[cfg(not(feature = "embedded"))]
async fn open_embedded(
    _: &Config,
    _: &Readiness,
    _: MetricsInterceptor,
) -> Result<(Arc<dyn LeaseStore>, Option<CloseEngine>)> {
    anyhow::bail!("store.kind = \"embedded\": this build has no embedded store; set \"dynamodb\" or \"memory\"")
}

async fn look_for_table(client: Client, table: String, readiness: Arc<Readiness>) {
    loop {
        tokio::time::sleep(STORE_RETRY).await;
        match migrate::check(&client, &table).await {
            Ok(()) => {
                info!("the store answers: ready");
                return readiness.store_seen();
            }
            Err(error) => error!(%error, "not ready"),
        }
    }
}

async fn sweep(store: Arc<MemoryStore>, clock: Arc<SystemClock>) {
    let mut interval = tokio::time::interval(MEMORY_SWEEP_INTERVAL);
    loop {
        for shard in 0..store.shards() {
            interval.tick().await;
            store.sweep_shard(shard, clock.now());
        }
    }
}
