//! The log: lines for people or JSON for machines, on standard error. And traces, when they are wanted.

pub mod clock_skew;
pub(crate) mod log_throttle;
pub mod metrics;
mod traces;

use std::io::{self, IsTerminal};
use std::panic::PanicHookInfo;

use tracing::{Subscriber, error};
use tracing_subscriber::filter::{FilterExt, filter_fn};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, fmt, registry};

pub use self::traces::Traces;
use crate::config::{Log, LogFormat};

/// Starts logging for the rest of the process, and traces if `environment` wants them. Not to be called inside the runtime.
pub fn start(log: &Log, environment: impl Fn(&str) -> Option<String>) -> Result<Option<Traces>, String> {
    let filter = log.filter()?;
    let traces = Traces::wanted(environment)?;
    let started = match &traces {
        // One filter for all costs less than one for each.
        None => registry().with(filter).with(lines(log.format)).try_init(),
        // Where there are spans anyway, each line may have its own.
        Some(traces) => {
            let filter = filter.or(filter_fn(traces::is_request));
            registry().with(lines(log.format).with_filter(filter)).with(traces.layer()).try_init()
        }
    };
    started.map_err(|error| error.to_string())?;
    std::panic::set_hook(Box::new(log_panic));
    Ok(traces)
}

/// One line like any other, where Rust would print several that no reader of JSON understands.
fn log_panic(panic: &PanicHookInfo<'_>) {
    let place = panic.location().map(ToString::to_string);
    error!(panic = panic.payload_as_str(), place, "a defect: the request or task that met it has ended");
}

fn lines<S>(format: LogFormat) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'span> LookupSpan<'span>,
{
    let lines = fmt::layer().with_target(false).with_writer(io::stderr);
    match format {
        LogFormat::Pretty => lines.with_ansi(io::stderr().is_terminal()).boxed(),
        LogFormat::Json => lines.json().flatten_event(true).with_span_list(false).boxed(),
    }
}
