//! Logging, traces, metrics and the detection of clock skew.

pub mod clock_skew;
pub mod event_metrics;
pub mod live_streams_gauge;
pub(crate) mod log_throttle;
pub mod logging;
pub mod metrics;
mod per_worker;
mod process_metrics;
mod rule_metrics;
pub mod start_log;
pub mod store_metrics;
mod tracing;

use std::io::stderr;
use std::sync::LazyLock;

use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry;
use tracing_subscriber::util::SubscriberInitExt;
use uuid::Uuid;

use self::logging::LogSettings;
pub use self::tracing::{TraceExporter, Tracer};

/// Identifies this process in traces and events.
pub static INSTANCE_ID: LazyLock<Uuid> = LazyLock::new(Uuid::new_v4);

/// Starts logging for the lifetime of the process. Also starts trace export if the variables in `environment` enable it.
///
/// Must not be called inside the Tokio runtime, because the exporter's HTTP client blocks.
///
/// # Errors
/// An invalid filter, an `OTEL_*` variable that this build does not support, or a second call.
pub fn start(
    settings: &LogSettings,
    environment: impl Fn(&str) -> Option<String>,
) -> Result<Option<TraceExporter>, String> {
    let filter = settings.filter()?;
    let exporter = TraceExporter::from_environment(environment, *INSTANCE_ID)?;
    let started = registry().with(filter).with(logging::lines(settings.format, stderr)).try_init();
    started.map_err(|error| error.to_string())?;
    logging::install_panic_hook();
    Ok(exporter)
}
