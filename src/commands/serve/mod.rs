//! `serve`: creates the store, the background tasks and the servers, runs them, and stops them in order.

mod shutdown;
mod store;
mod tasks;
mod workers;

use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, Result};
use rand::SeedableRng;
use rand::rngs::{StdRng, SysRng};
use stream_manager::clock::SystemClock;
use stream_manager::config::Config;
use stream_manager::domain::rules::LimitMode;
use stream_manager::events::queue::{self, EventSender};
use stream_manager::events::writer::EventWriter;
use stream_manager::http::api::health::Readiness;
use stream_manager::http::api::rate_limits::RateLimits;
use stream_manager::http::auth::verifier::TokenVerifier;
use stream_manager::http::grants::authority::GrantAuthority;
use stream_manager::http::pages::Pages;
use stream_manager::http::pipeline::cors::Cors;
use stream_manager::http::pipeline::load_shedding::InFlightLimiter;
use stream_manager::http::server::ServerSettings;
use stream_manager::http::{self, AppDeps, server};
use stream_manager::limiter::{Limiter, Policy};
use stream_manager::live_streams::LiveStreams;
use stream_manager::store::dynamodb::metrics_interceptor::MetricsInterceptor;
use stream_manager::store::dynamodb::trace_interceptor::TraceInterceptor;
use stream_manager::telemetry::logging::{LogFormat, log_start_failure};
use stream_manager::telemetry::metrics::Metrics;
use stream_manager::telemetry::start_log::StartLog;
use stream_manager::telemetry::{self, INSTANCE_ID, TraceExporter, Tracer};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tracing::{field, info, warn};

use self::shutdown::{Service, ShutdownSettings, ShutdownSignals};
use self::store::Interceptors;
use self::tasks::BackgroundTasks;
use super::output::one_line;
use super::{runtime, settings};

/// Maximum number of open connections of the management server. Enough for a few scrapers and browsers.
const MANAGEMENT_CONNECTIONS: usize = 32;

pub fn run(file: Option<&Path>) -> Result<ExitCode> {
    let environment = settings::environment()?;
    let result = Config::load(file, environment.clone()).map_err(anyhow::Error::from).and_then(|config| {
        config.check_exposure()?;
        let exporter =
            telemetry::start(&config.log(), |name| std::env::var(name).ok()).map_err(anyhow::Error::msg)?;
        let tracer = exporter.as_ref().map(TraceExporter::tracer);
        let result = runtime::block_on(serve(&config, tracer));
        if let Some(exporter) = exporter {
            exporter.shutdown();
        }
        result
    });
    match result {
        Err(error) if Config::log_format(file, &environment) == LogFormat::Json => {
            log_start_failure(&one_line(&error));
            Ok(ExitCode::FAILURE)
        }
        result => result,
    }
}

/// Serves until SIGTERM, Ctrl-C, or the unexpected end of a background task.
async fn serve(config: &Config, tracer: Option<Tracer>) -> Result<ExitCode> {
    // Must come first: until process 1 of a container has a handler for SIGTERM, the kernel ignores the signal.
    let mut signals = ShutdownSignals::new()?;
    let service = tokio::select! {
        service = start(config, tracer) => service?,
        _ = signals.received() => return Ok(ExitCode::SUCCESS),
    };
    let settings = ShutdownSettings {
        deregistration_s: config.server.deregistration_s.get(),
        drain_s: config.server.drain_s.get(),
    };
    Ok(service.run(settings, signals).await)
}

async fn start(config: &Config, tracer: Option<Tracer>) -> Result<Service> {
    let public = listen(config.server.bind, "server.bind").await?;
    let management = listen(config.server.management_bind, "server.management_bind").await?;
    let metrics = Arc::new(Metrics::new());
    let readiness = Arc::new(Readiness::with_clock_skew(Arc::clone(&metrics.store.clock_skew)));
    let clock = Arc::new(SystemClock);
    let tasks = BackgroundTasks::new();
    let tokens = open_tokens(config, clock.clone(), Arc::clone(&metrics), &tasks).await?;
    let grants = open_grants(config, clock.clone(), Arc::clone(&metrics), &tasks).await?;
    let interceptors = Interceptors {
        metrics: MetricsInterceptor::new(metrics.store.clone(), clock.clone()),
        traces: tracer.clone().map(|tracer| TraceInterceptor::new(tracer, config.dynamodb.table.clone())),
    };
    let worker_threads = config.worker_threads().get();
    let opened = store::open(config, worker_threads, &readiness, clock.clone(), interceptors, &tasks).await?;
    raise_file_descriptor_limit(config.server.max_connections.get(), worker_threads as u64);
    let gauge = Arc::clone(&metrics.live_streams);
    let live_streams = opened.live_streams.map(|store| LiveStreams::new(store, clock.clone(), gauge));
    let start_log = Arc::new(StartLog::default());
    let (events, event_writer) = open_events(config, clock.clone(), &metrics)?.unzip();
    let rates = Arc::new(RateLimits::new(config.rate(), &(Arc::clone(&clock) as _)));
    let cors = Arc::new(Cors::new(&config.cors(), clock.clone()));
    let in_flight = InFlightLimiter::new(config.bounds().max_in_flight, &metrics);
    let app = |store| {
        let random = StdRng::try_from_rng(&mut SysRng).context("cannot read random numbers from the system")?;
        let (metrics, start_log) = (Arc::clone(&metrics), Arc::clone(&start_log));
        let limiter = Limiter::new(store, clock.clone(), random, Arc::clone(&metrics), config.policy());
        let limiter = limiter.with_start_log(start_log).with_events(events.clone());
        let app = http::app(AppDeps {
            limiter: Arc::new(limiter),
            readiness: Arc::clone(&readiness),
            metrics,
            tracer: tracer.clone(),
            tokens: tokens.clone(),
            grants: grants.clone(),
            rates: Arc::clone(&rates),
            cors: Arc::clone(&cors),
            in_flight: Arc::clone(&in_flight),
            pages: config.pages(),
            bounds: config.bounds(),
        });
        Ok(app?)
    };
    let apps = opened.handles.into_iter().map(app).collect::<Result<Vec<_>>>()?;
    let management_app =
        http::management(Arc::clone(&metrics), live_streams, Arc::clone(&readiness), config.bounds())?;
    let url = format!("http://{}", public.local_addr()?);
    let metrics_url = format!("http://{}/metrics", management.local_addr()?);

    let stop = CancellationToken::new();
    let settings = config.server();
    let public_server = workers::serve(public, apps, settings, stop.clone(), &tasks)?;
    let settings = ServerSettings { max_connections: MANAGEMENT_CONNECTIONS, ..settings };
    let management_server = server::serve(management, management_app, settings, stop.clone());
    let management_server = tasks.spawn("management_server", management_server);
    log_observed(&config.policy());
    log_listening(&url, &metrics_url, config.pages());
    let close_store = opened.close;
    Ok(Service { public_server, management_server, readiness, stop, close_store, event_writer, tasks })
}

fn log_listening(url: &str, metrics_url: &str, pages: Pages) {
    let demo_url = pages.demo.then(|| format!("{url}/demo"));
    let swagger_url = pages.swagger.then(|| format!("{url}/swagger"));
    info!(
        event = "listening",
        version = env!("CARGO_PKG_VERSION"),
        demo_url = demo_url.as_ref().map(field::display),
        url = %url,
        swagger_url = swagger_url.as_ref().map(field::display),
        metrics_url = %metrics_url,
        "listening"
    );
}

/// Nothing else in the log shows that limits are not enforced.
fn log_observed(policy: &Policy) {
    let is_observed = policy.limit_mode == LimitMode::Observe;
    let rules = policy.rules.iter().filter(|rule| rule.mode == LimitMode::Observe);
    let rules: Vec<&str> = rules.map(|rule| rule.name.as_str()).collect();
    if is_observed || !rules.is_empty() {
        let rules = (!rules.is_empty()).then(|| rules.join(", "));
        warn!(event = "limits_observed", user_limit = is_observed, rules, "limits are in observe mode");
    }
}

/// Each connection needs a file descriptor, and the usual soft limit of a process is 1024.
fn raise_file_descriptor_limit(max_connections: u64, worker_threads: u64) {
    // File descriptors for the store, its connections and the log.
    const RESERVE: u64 = 256;
    // Each runtime has an event queue, a waker and a pair of sockets for signals.
    const PER_WORKER: u64 = 4;
    let needed = max_connections + PER_WORKER * worker_threads + RESERVE;
    match rlimit::increase_nofile_limit(needed) {
        Ok(allowed) if allowed >= needed => {}
        Ok(allowed) => warn!(
            event = "file_descriptors_low",
            allowed,
            needed,
            "fewer file descriptors than server.max_connections needs; raise the hard limit (ulimit -Hn) or lower the setting"
        ),
        Err(error) => {
            warn!(event = "file_descriptors_unknown", %error, "cannot read the limit of file descriptors");
        }
    }
}

/// Loads the keys that verify tokens, and refreshes them in the background. `None` if authentication is disabled.
async fn open_tokens(
    config: &Config,
    clock: Arc<SystemClock>,
    metrics: Arc<Metrics>,
    tasks: &BackgroundTasks,
) -> Result<Option<Arc<TokenVerifier>>> {
    let bind = config.server.bind;
    let Some(settings) = config.tokens() else {
        if !config.binds_to_loopback() {
            warn!(
                event = "auth_disabled",
                %bind,
                "authentication is disabled on a non-loopback address: every client that reaches it may act for every user"
            );
        }
        return Ok(None);
    };
    let verifier = Arc::new(TokenVerifier::open(settings, clock, metrics).await?);
    let refreshed = Arc::clone(&verifier);
    tasks.spawn("jwks_refresh", async move { refreshed.refresh_regularly().await });
    Ok(Some(verifier))
}

/// Loads the keys of grants, and reloads them in the background. `None` if grants are off.
async fn open_grants(
    config: &Config,
    clock: Arc<SystemClock>,
    metrics: Arc<Metrics>,
    tasks: &BackgroundTasks,
) -> Result<Option<Arc<GrantAuthority>>> {
    let Some(settings) = config.grants() else { return Ok(None) };
    let grants = Arc::new(GrantAuthority::open(settings, clock, metrics).await?);
    let reloaded = Arc::clone(&grants);
    tasks.spawn("grant_key_reload", async move { reloaded.reload_regularly().await });
    Ok(Some(grants))
}

/// Starts the writer of events. `None` if events are off.
fn open_events(
    config: &Config,
    clock: Arc<SystemClock>,
    metrics: &Arc<Metrics>,
) -> Result<Option<(EventSender, EventWriter)>> {
    let Some(settings) = config.events() else { return Ok(None) };
    let (sender, receiver) = queue::queue(Arc::clone(metrics), clock);
    let writer = EventWriter::start(&settings, *INSTANCE_ID, receiver)?;
    info!(event = "events_opened", sink = %settings.sink, instance = %*INSTANCE_ID, "events are recorded");
    Ok(Some((sender, writer)))
}

async fn listen(address: SocketAddr, key: &str) -> Result<TcpListener> {
    TcpListener::bind(address)
        .await
        .with_context(|| format!("cannot listen on {address}; set {key} to a free address"))
}
