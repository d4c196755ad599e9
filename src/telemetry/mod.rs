//! Logging, traces, metrics and the detection of clock skew.

pub mod clock_skew;
pub(crate) mod log_throttle;
pub mod logging;
pub mod metrics;
pub mod store_metrics;
mod tracing;

use std::io::stderr;

use tracing_subscriber::filter::{FilterExt, filter_fn};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, registry};

use self::logging::LogSettings;
pub use self::tracing::TraceExporter;

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
    let exporter = TraceExporter::from_environment(environment)?;
    let format = settings.format;
    let started = match &exporter {
        // A filter for the whole registry costs less than a filter for each layer.
        None => registry().with(filter).with(logging::lines(format, stderr)).try_init(),
        // The log layer also records request spans that the filter excludes, so that log lines can contain the request id.
        Some(exporter) => {
            let filter = filter.or(filter_fn(tracing::is_request_span));
            let lines = logging::lines(format, stderr).with_filter(filter);
            registry().with(lines).with(exporter.layer()).try_init()
        }
    };
    started.map_err(|error| error.to_string())?;
    logging::install_panic_hook();
    Ok(exporter)
}
