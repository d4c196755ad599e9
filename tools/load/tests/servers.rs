//! Servers for the tests: the service itself, which runs in this process, and stubs.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use rand::SeedableRng;
use rand::rngs::StdRng;
use stream_manager::clock::SystemClock;
use stream_manager::config::Config;
use stream_manager::domain::admission::AtLimit;
use stream_manager::http::api::health::Readiness;
use stream_manager::http::api::rate_limits::RateLimits;
use stream_manager::http::pages::Pages;
use stream_manager::http::pipeline::load_shedding::InFlightLimiter;
use stream_manager::http::server;
use stream_manager::http::{self, AppDeps};
use stream_manager::limiter::{Limiter, Policy};
use stream_manager::store::memory::MemoryStore;
use stream_manager::telemetry::metrics::Metrics;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// Starts the service on the memory store with the default limit of 3. Returns its URL.
pub async fn service(at_limit: AtLimit) -> String {
    let (listener, url) = listen().await;
    let config = Config::load(None, HashMap::new()).unwrap();
    let (metrics, clock) = (Arc::new(Metrics::new()), Arc::new(SystemClock));
    let (store, random) = (Arc::new(MemoryStore::new()), StdRng::seed_from_u64(7));
    let policy = Policy { at_limit, ..config.policy() };
    let app = http::app(AppDeps {
        limiter: Arc::new(Limiter::new(store, clock, random, Arc::clone(&metrics), policy)),
        readiness: Arc::new(Readiness::default()),
        in_flight: InFlightLimiter::new(config.bounds().max_in_flight, &metrics),
        metrics,
        tracer: None,
        tokens: None,
        grants: None,
        rates: Arc::new(RateLimits::unbounded()),
        cors: Arc::default(),
        pages: Pages { demo: false, swagger: true },
        bounds: config.bounds(),
    })
    .unwrap();
    tokio::spawn(server::serve(listener, app, config.server(), CancellationToken::new()));
    url
}

/// Starts a stub that maps the path of a request to status and body. Its responses always have `Retry-After: 1`. Returns its URL.
pub async fn stub<R, F>(respond: R) -> String
where
    R: Fn(String) -> F + Clone + Send + 'static,
    F: Future<Output = (u16, String)> + Send,
{
    let (listener, url) = listen().await;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let respond = respond.clone();
            let service = service_fn(move |request: Request<Incoming>| {
                let response = respond(request.uri().path().to_owned());
                async move {
                    let (status, body) = response.await;
                    let response = Response::builder().status(status).header("retry-after", "1");
                    Ok::<_, Infallible>(response.body(Full::new(Bytes::from(body))).unwrap())
                }
            });
            tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
        }
    });
    url
}

/// A successful response to a start or a heartbeat.
pub fn stream(path: &str) -> (u16, String) {
    let stream_id = path.strip_suffix("/heartbeat").and_then(|path| path.rsplit('/').next());
    let status = if stream_id.is_some() { 200 } else { 201 };
    let stream_id = stream_id.map_or_else(|| uuid::Uuid::new_v4().to_string(), str::to_owned);
    let times = r#""expiresInSeconds":90,"heartbeatIntervalSeconds":30"#;
    (status, format!(r#"{{"streamId":"{stream_id}",{times},"limit":3,"ended":[]}}"#))
}

async fn listen() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    (listener, url)
}
