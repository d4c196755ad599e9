//! Logging to standard error, as text for people or as JSON for machines.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::io::{self, IsTerminal};

use serde::{Deserialize, Serialize};
use tracing::level_filters::LevelFilter;
use tracing::{Subscriber, error, field};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::{EnvFilter, Layer, fmt, registry};

#[derive(Clone, Debug)]
pub struct LogSettings {
    pub format: LogFormat,
    /// Directives of `EnvFilter`, separated by commas.
    pub filter: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// One line of text per event.
    Pretty,
    /// One JSON object per event, one event per line.
    Json,
}

impl LogSettings {
    /// Parses the filter.
    ///
    /// A directive without `=` or `[` must be a level, because `EnvFilter` treats a misspelled level as the name of a module and
    /// then logs nothing. Removes the spaces around directives. After a space, `EnvFilter` 0.3.23 reads a directive from a wrong
    /// offset, and panics if this offset is inside a multi-byte character.
    ///
    /// # Errors
    /// A description of the error in the filter.
    pub fn filter(&self) -> Result<EnvFilter, String> {
        let directives: Vec<&str> = self.filter.split(',').map(str::trim).collect();
        let mut levels = directives.iter().filter(|directive| !directive.contains(['=', '[']));
        if let Some(unknown) = levels.find(|level| level.parse::<LevelFilter>().is_err()) {
            return Err(format!("{unknown:?} is not a level; write module=level for a module"));
        }
        EnvFilter::try_new(directives.join(",")).map_err(|error| error.to_string())
    }
}

/// Logs a failed startup as one JSON line. Works before logging has started, and does not depend on the log filter.
pub fn log_start_failure(error: &str) {
    let subscriber = registry().with(lines(LogFormat::Json, io::stderr));
    tracing::subscriber::with_default(subscriber, || {
        error!(event = "start_failed", error, "the service could not start");
    });
}

/// The layer that writes log lines to `writer`.
pub(super) fn lines<S, W>(format: LogFormat, writer: W) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'span> LookupSpan<'span>,
    W: for<'writer> MakeWriter<'writer> + Send + Sync + 'static,
{
    let lines = fmt::layer().with_target(false).with_writer(writer);
    match format {
        LogFormat::Pretty => lines.with_ansi(io::stderr().is_terminal()).boxed(),
        LogFormat::Json => lines.json().flatten_event(true).with_span_list(false).boxed(),
    }
}

/// Logs each panic as one event, because Rust's own message has several lines and is not JSON.
pub(super) fn install_panic_hook() {
    std::panic::set_hook(Box::new(|panic| {
        let location = panic.location().map(ToString::to_string);
        log_panic(panic.payload_as_str(), location.as_deref(), &Backtrace::capture());
    }));
}

/// `backtrace` is empty unless RUST_BACKTRACE or RUST_LIB_BACKTRACE is set.
fn log_panic(panic: Option<&str>, location: Option<&str>, backtrace: &Backtrace) {
    let backtrace = (backtrace.status() == BacktraceStatus::Captured).then(|| field::display(backtrace));
    error!(event = "panic", panic, location, backtrace, "panic; the request or task was aborted");
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::Value;

    use super::*;

    /// The JSON line that a panic with this backtrace logs.
    fn logged(backtrace: &Backtrace) -> Value {
        let file = tempfile::NamedTempFile::new().unwrap();
        let writer = Arc::new(file.reopen().unwrap());
        let subscriber = registry().with(lines(LogFormat::Json, writer));
        tracing::subscriber::with_default(subscriber, || log_panic(Some("boom"), Some("src/x.rs:1:2"), backtrace));
        serde_json::from_slice(&std::fs::read(file.path()).unwrap()).unwrap()
    }

    #[test]
    fn a_panic_is_logged_with_message_and_location() {
        let line = logged(&Backtrace::disabled());
        assert_eq!((&line["event"], &line["level"]), (&"panic".into(), &"ERROR".into()));
        assert_eq!((&line["panic"], &line["location"]), (&"boom".into(), &"src/x.rs:1:2".into()));
        assert_eq!(line.get("backtrace"), None);
    }

    #[test]
    fn a_panic_is_logged_with_an_enabled_backtrace() {
        let line = logged(&Backtrace::force_capture());
        let backtrace = line["backtrace"].as_str().unwrap();
        assert!(backtrace.contains("a_panic_is_logged_with_an_enabled_backtrace"), "{backtrace}");
    }
}
