//! Logging to standard error, as text for people or as JSON for machines. Lines of a traced request have the ids of its trace.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::io::{self, IsTerminal};

use opentelemetry::Context;
use opentelemetry::trace::TraceContextExt;
use serde::{Deserialize, Serialize};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Subscriber, error, field};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, MakeWriter};
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
    /// then logs nothing. Removes the spaces around directives, because `EnvFilter` 0.3.23 reads a directive after a space from a
    /// wrong offset, and panics if this offset is inside a multi-byte character.
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
        LogFormat::Pretty => {
            let ansi = io::stderr().is_terminal();
            let lines = lines.with_ansi(ansi);
            lines.map_event_format(|line| WithTraceIds { line: line.with_ansi(ansi), format }).boxed()
        }
        LogFormat::Json => {
            let lines = lines.json().flatten_event(true).with_span_list(false);
            lines.map_event_format(|line| WithTraceIds { line, format }).boxed()
        }
    }
}

/// Adds the ids of the current OpenTelemetry span to each line. In JSON they are top-level fields with the names and the
/// encoding of the OpenTelemetry specification, "Trace Context in non-OTLP Log Formats".
struct WithTraceIds<F> {
    line: F,
    format: LogFormat,
}

impl<S, N, F> FormatEvent<S, N> for WithTraceIds<F>
where
    S: Subscriber + for<'span> LookupSpan<'span>,
    N: for<'writer> FormatFields<'writer> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> std::fmt::Result {
        let span = Context::map_current(|current| current.span().span_context().clone());
        if !span.is_valid() {
            return self.line.format_event(context, writer, event);
        }
        let mut line = String::new();
        self.line.format_event(context, Writer::new(&mut line), event)?;
        let (trace, id, flags) = (span.trace_id(), span.span_id(), span.trace_flags().to_u8());
        match (self.format, line.strip_prefix('{')) {
            (LogFormat::Json, Some(fields)) => {
                write!(writer, r#"{{"trace_id":"{trace}","span_id":"{id}","trace_flags":"{flags:02x}",{fields}"#)
            }
            _ => writeln!(writer, "{} trace_id={trace} span_id={id}", line.trim_end()),
        }
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

    use opentelemetry::trace::{SpanContext, SpanId, TraceFlags, TraceId, TraceState};
    use serde_json::Value;

    use super::*;

    /// The text that `log` logs.
    fn text(format: LogFormat, log: impl FnOnce()) -> String {
        let file = tempfile::NamedTempFile::new().unwrap();
        let writer = Arc::new(file.reopen().unwrap());
        tracing::subscriber::with_default(registry().with(lines(format, writer)), log);
        std::fs::read_to_string(file.path()).unwrap()
    }

    /// The JSON line that a panic with this backtrace logs.
    fn logged(backtrace: &Backtrace) -> Value {
        let line = text(LogFormat::Json, || log_panic(Some("boom"), Some("src/x.rs:1:2"), backtrace));
        serde_json::from_str(&line).unwrap()
    }

    #[test]
    fn lines_have_the_ids_of_the_current_trace() {
        let (trace, id) = (TraceId::from_bytes([0xab; 16]), SpanId::from_bytes([1; 8]));
        let span = SpanContext::new(trace, id, TraceFlags::NOT_SAMPLED, true, TraceState::NONE);
        let _guard = Context::new().with_remote_span_context(span).attach();
        let log = || error!(event = "panic", "a message");
        let line: Value = serde_json::from_str(&text(LogFormat::Json, log)).unwrap();
        assert_eq!([&line["trace_id"], &line["trace_flags"]], ["abababababababababababababababab", "00"]);
        assert_eq!([&line["span_id"], &line["message"]], ["0101010101010101", "a message"]);
        let pretty = text(LogFormat::Pretty, log);
        let ids = " trace_id=abababababababababababababababab span_id=0101010101010101\n";
        assert!(pretty.ends_with(ids) && pretty.contains("a message"), "{pretty}");
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
