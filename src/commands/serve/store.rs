//! Opens the store that the settings select.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use stream_manager::clock::{Clock, SystemClock};
use stream_manager::config::{Config, StoreKind};
use stream_manager::http::api::health::Readiness;
use stream_manager::migrate;
use stream_manager::store::dynamodb::DynamoStore;
use stream_manager::store::dynamodb::client::{self, Client};
use stream_manager::store::dynamodb::metrics_interceptor::MetricsInterceptor;
use stream_manager::store::dynamodb::trace_interceptor::TraceInterceptor;
use stream_manager::store::memory::MemoryStore;
use stream_manager::store::{CountLiveStreams, LeaseStore};
use tracing::{error, info, warn};

use super::tasks::BackgroundTasks;

/// Pause between the sweeps of two shards. With this pause, a sweep of all shards takes less than a minute.
const MEMORY_SWEEP_INTERVAL: Duration = Duration::from_millis(50);
/// Pause between checks of a store that did not respond at startup.
const STORE_RETRY: Duration = Duration::from_secs(2);

pub struct OpenedStore {
    /// One handle per worker. Each has its own client, so that workers do not share connections.
    pub handles: Vec<Arc<dyn LeaseStore>>,
    /// Counts the live streams. `None` if other processes can use the same store.
    pub live_streams: Option<Arc<dyn CountLiveStreams>>,
    pub close: Option<CloseStore>,
}

/// The interceptors for requests to DynamoDB or the embedded engine: metrics and, optionally, traces.
pub struct Interceptors {
    pub metrics: MetricsInterceptor,
    pub traces: Option<TraceInterceptor>,
}

impl Interceptors {
    fn add_to(&self, client: &Client) -> Client {
        let client = client::with_metrics(client, self.metrics.clone());
        match &self.traces {
            Some(traces) => client::with_traces(&client, traces.clone()),
            None => client,
        }
    }
}

/// Closes the store. Blocks for at most the given time, and returns whether the file was flushed and closed in this time.
pub type CloseStore = Box<dyn FnOnce(Duration) -> bool + Send>;

/// Opens the store for this number of workers, and marks it as available in `readiness`. If a DynamoDB table does not respond
/// yet, a task marks it later.
pub async fn open(
    config: &Config,
    workers: usize,
    readiness: &Arc<Readiness>,
    clock: Arc<SystemClock>,
    interceptors: Interceptors,
    tasks: &BackgroundTasks,
) -> Result<OpenedStore> {
    match config.store.kind {
        StoreKind::Memory => {
            let store = Arc::new(MemoryStore::new());
            tasks.spawn("memory_sweep", sweep(Arc::clone(&store), clock));
            info!(event = "store_opened", store = "memory", "store opened; it keeps nothing when the process ends");
            readiness.mark_store_seen();
            let handles = (0..workers).map(|_| Arc::clone(&store) as _).collect();
            Ok(OpenedStore { handles, live_streams: Some(store), close: None })
        }
        StoreKind::Embedded => open_embedded(config, workers, readiness, interceptors).await,
        StoreKind::DynamoDb => open_dynamodb(config, workers, readiness, interceptors).await,
    }
}

#[cfg(feature = "embedded")]
async fn open_embedded(
    config: &Config,
    workers: usize,
    readiness: &Readiness,
    interceptors: Interceptors,
) -> Result<OpenedStore> {
    use stream_manager::store::embedded::Embedded;

    let path = &config.embedded.path;
    let engine = Embedded::open(path, config.embedded.sync)?;
    let uncounted = client::in_process(&config.client(), engine.http_client());
    // A new database has no table. The check for it must not count as a rejected request.
    migrate::migrate(&uncounted, &config.dynamodb.table).await?;
    let path = std::path::absolute(path).unwrap_or_else(|_| path.clone());
    info!(event = "store_opened", store = "embedded", path = %path.display(), "store opened");
    readiness.mark_store_seen();
    let handles = (0..workers).map(|_| {
        let client = client::in_process(&config.client(), engine.http_client());
        Arc::new(DynamoStore::new(interceptors.add_to(&client), &config.dynamodb.table)) as _
    });
    let handles = handles.collect();
    // Counts use the client without interceptors, so that their scans do not change the metrics of the store requests.
    let live_streams = Arc::new(DynamoStore::new(uncounted, &config.dynamodb.table));
    let live_streams = Some(live_streams as _);
    Ok(OpenedStore { handles, live_streams, close: Some(Box::new(move |timeout| engine.close(timeout))) })
}

#[cfg(not(feature = "embedded"))]
async fn open_embedded(_: &Config, _: usize, _: &Readiness, _: Interceptors) -> Result<OpenedStore> {
    anyhow::bail!("store.kind = \"embedded\": this build has no embedded store; set \"dynamodb\" or \"memory\"")
}

async fn open_dynamodb(
    config: &Config,
    workers: usize,
    readiness: &Arc<Readiness>,
    interceptors: Interceptors,
) -> Result<OpenedStore> {
    let factory = client::load(&config.client()).await?;
    let client = interceptors.add_to(&factory.client());
    let table = config.dynamodb.table.clone();
    info!(event = "store_opened", store = "dynamodb", table, "store opened");
    match migrate::check(&client, &table).await {
        Ok(()) => readiness.mark_store_seen(),
        Err(error) if error.is_transient() => {
            warn!(event = "store_unavailable", %error, "store unavailable at startup; not ready until it responds");
            tokio::spawn(wait_for_table(client, table.clone(), Arc::clone(readiness), error.to_string()));
        }
        Err(error) => return Err(error.into()),
    }
    let handles =
        (0..workers).map(|_| Arc::new(DynamoStore::new(interceptors.add_to(&factory.client()), &table)) as _);
    Ok(OpenedStore { handles: handles.collect(), live_streams: None, close: None })
}

/// Logs an error only if it differs from the previous one, so that an outage does not cause one log line per check.
async fn wait_for_table(client: Client, table: String, readiness: Arc<Readiness>, mut logged: String) {
    loop {
        tokio::time::sleep(STORE_RETRY).await;
        match migrate::check(&client, &table).await {
            Ok(()) => {
                info!(event = "store_ready", "store responds; ready");
                return readiness.mark_store_seen();
            }
            Err(error) if error.to_string() == logged => {}
            Err(error) => {
                logged = error.to_string();
                if error.is_transient() {
                    warn!(event = "store_unavailable", %error, "store still unavailable; not ready");
                } else {
                    error!(event = "store_check_failed", %error, "store check failed; not ready");
                }
            }
        }
    }
}

/// Deletes leases whose retention has passed, one shard after the other.
async fn sweep(store: Arc<MemoryStore>, clock: Arc<SystemClock>) {
    let mut interval = tokio::time::interval(MEMORY_SWEEP_INTERVAL);
    loop {
        for shard in 0..store.shards() {
            interval.tick().await;
            store.sweep_shard(shard, clock.now());
        }
    }
}
