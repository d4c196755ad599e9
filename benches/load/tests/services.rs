//! What the tool is tried on: the service itself inside this process, and services that are not as they should be.

use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use rand::SeedableRng;
use rand::rngs::StdRng;
use stream_manager::clock::SystemClock;
use stream_manager::domain::admission::AtLimit;
use stream_manager::http::api::health::Readiness;
use stream_manager::http::api::rate_limits::Rates;
use stream_manager::http::pipeline::app::Bounds;
use stream_manager::http::pipeline::cors::Origins;
use stream_manager::http::server::{self, ServerSettings};
use stream_manager::http::{self, AppDeps};
use stream_manager::limiter::{Limiter, Policy};
use stream_manager::store::memory::MemoryStore;
use stream_manager::telemetry::metrics::Metrics;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// The service with a limit of three, on the memory store.
pub async fn honest(at_limit: AtLimit) -> String {
    let (listener, url) = listen().await;
    let metrics = Arc::new(Metrics::new());
    let (store, clock) = (Arc::new(MemoryStore::new()), Arc::new(SystemClock));
    let random = StdRng::seed_from_u64(7);
    let policy = Policy { at_limit, ..Policy::default() };
    let limiter = Limiter::new(store, clock, random, Arc::clone(&metrics), policy);
    let request_timeout = Duration::from_secs(10);
    let app = http::app(AppDeps {
        limiter: Arc::new(limiter),
        readiness: Arc::new(Readiness::watching(Arc::clone(&metrics.store.clock_skew))),
        metrics,
        tokens: None,
        rates: Rates::unbounded(),
        origins: Origins::new(&[]),
        demo: false,
        bounds: Bounds { max_uri_bytes: 4096, max_body_bytes: 16384, max_in_flight: 64, request_timeout },
    })
    .expect("an app");
    let settings = ServerSettings {
        header_read_timeout: request_timeout,
        write_timeout: request_timeout,
        max_head_bytes: 32 * 1024,
        max_headers: 64,
        max_connections: 100,
        drain: Duration::ZERO,
    };
    tokio::spawn(server::serve(listener, app, settings, CancellationToken::new()));
    url
}

/// One that answers by the request's path with a status and a body, always with `Retry-After: 1`.
pub async fn answering<A, F>(answer: A) -> String
where
    A: Fn(String) -> F + Clone + Send + 'static,
    F: Future<Output = (u16, String)> + Send,
{
    let (listener, url) = listen().await;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let answer = answer.clone();
            let service = service_fn(move |request: Request<Incoming>| {
                let answer = answer(request.uri().path().to_owned());
                async move {
                    let (status, body) = answer.await;
                    let response = Response::builder().status(status).header("retry-after", "1");
                    Ok::<_, Infallible>(response.body(Full::new(Bytes::from(body))).expect("a response"))
                }
            });
            let connection =
                hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
            tokio::spawn(connection);
        }
    });
    url
}

/// What a start or a heartbeat is answered.
pub fn stream(path: &str) -> (u16, String) {
    let of = path.strip_suffix("/heartbeat").and_then(|path| path.rsplit('/').next());
    let id = of.map_or_else(|| uuid::Uuid::new_v4().to_string(), str::to_owned);
    let times = r#""expiresInSeconds":90,"heartbeatIntervalSeconds":30"#;
    let status = if of.is_some() { 200 } else { 201 };
    (status, format!(r#"{{"streamId":"{id}",{times},"limit":3,"ended":[]}}"#))
}

async fn listen() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    (listener, url)
}
