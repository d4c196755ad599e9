//! Applications in this process, without a network.

use std::sync::Arc;

use rand::SeedableRng;
use rand::rngs::StdRng;
use stream_manager::clock::ManualClock;
use stream_manager::http::api::health::Readiness;
use stream_manager::http::api::rate_limits::RateLimits;
use stream_manager::http::pages::Pages;
use stream_manager::http::pipeline::app::App;
use stream_manager::http::pipeline::load_shedding::InFlightLimiter;
use stream_manager::http::{self, AppDeps};
use stream_manager::limiter::Limiter;
use stream_manager::store::memory::MemoryStore;
use stream_manager::telemetry::metrics::Metrics;

use super::fixtures::{NOW, default_config};

/// One application per worker, all on one memory store. They share the same parts as the workers of the service.
pub fn apps(workers: usize) -> Vec<Arc<App>> {
    let config = default_config();
    let (clock, metrics) = (Arc::new(ManualClock::at(NOW)), Arc::new(Metrics::new()));
    let (store, readiness) = (Arc::new(MemoryStore::new()), Arc::new(Readiness::default()));
    let (rates, cors) = (Arc::new(RateLimits::unbounded()), Arc::default());
    let in_flight = InFlightLimiter::new(config.bounds().max_in_flight, &metrics);
    let app = |seed| {
        let (store, random) = (Arc::clone(&store) as _, StdRng::seed_from_u64(seed));
        let limiter = Limiter::new(store, clock.clone(), random, Arc::clone(&metrics), config.policy());
        let app = http::app(AppDeps {
            limiter: Arc::new(limiter),
            readiness: Arc::clone(&readiness),
            metrics: Arc::clone(&metrics),
            tracer: None,
            tokens: None,
            grants: None,
            rates: Arc::clone(&rates),
            cors: Arc::clone(&cors),
            in_flight: Arc::clone(&in_flight),
            pages: Pages { demo: false, swagger: true },
            bounds: config.bounds(),
        });
        app.unwrap()
    };
    (0..workers as u64).map(app).collect()
}
