//! Exports OpenTelemetry traces over OTLP: one span per request, with a child span per store request.
//!
//! Disabled unless the standard `OTEL_*` variables enable it. docs/MONITORING.md, "Traces", lists the attributes of the spans. No
//! attribute contains a user name, a path or a token. Log events are not added to spans.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use opentelemetry::Key;
use opentelemetry::trace::{SpanKind, TracerProvider};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{self as sdk, SdkTracerProvider, SpanData};
use tracing::level_filters::LevelFilter;
use tracing::{Level, Metadata, Subscriber, info, warn};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::registry::LookupSpan;

const SERVICE_NAME: &str = "stream-manager";
/// Prefix of the targets of the AWS SDK's operation spans.
const SDK_SPAN_TARGET: &str = "aws_sdk_dynamodb::operation::";
/// Time limit for the last export at shutdown.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(2);

/// Exports spans in batches on a separate thread.
pub struct TraceExporter(SdkTracerProvider);

impl TraceExporter {
    /// Returns `None` if the environment does not enable traces. The SDK reads the variables for timeouts, headers, sampler,
    /// limits and queue.
    pub(super) fn from_environment(environment: impl Fn(&str) -> Option<String>) -> Result<Option<Self>, String> {
        if !is_enabled(environment)? {
            return Ok(None);
        }
        let exporter = SpanExporter::builder().with_http().with_protocol(Protocol::HttpBinary).build();
        let exporter =
            exporter.map_err(|error| format!("cannot export traces: {error}; see OTEL_EXPORTER_OTLP_*"))?;
        let exporter = LoggingExporter { exporter, failing: AtomicBool::new(false) };
        let provider = SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource());
        Ok(Some(Self(provider.build())))
    }

    /// Records the spans of requests and of the SDK's operations, independently of the log filter.
    pub(super) fn layer<S>(&self) -> impl Layer<S> + Send + Sync + use<S>
    where
        S: Subscriber + Send + Sync + for<'span> LookupSpan<'span>,
    {
        let layer = tracing_opentelemetry::layer()
            .with_tracer(self.0.tracer(SERVICE_NAME))
            .with_location(false)
            .with_threads(false)
            .with_target(false)
            .with_tracked_inactivity(false);
        layer.with_filter(filter_fn(is_exported).with_max_level_hint(LevelFilter::DEBUG))
    }

    /// Exports the remaining spans. Blocks for at most 2 s.
    pub fn shutdown(self) {
        _ = self.0.shutdown_with_timeout(FLUSH_TIMEOUT);
    }
}

fn is_exported(metadata: &Metadata<'_>) -> bool {
    is_request_span(metadata) || (metadata.is_span() && metadata.target().starts_with(SDK_SPAN_TARGET))
}

/// Request spans have the level `info`, or `debug` if the request logs nothing at `info`.
pub(super) fn is_request_span(metadata: &Metadata<'_>) -> bool {
    metadata.is_span() && metadata.target().starts_with("stream_manager::") && *metadata.level() <= Level::DEBUG
}

/// Returns whether the environment enables traces, or an error for a value that this build does not support.
fn is_enabled(environment: impl Fn(&str) -> Option<String>) -> Result<bool, String> {
    // OpenTelemetry treats an empty variable as unset.
    let variable = |name: &str| environment(name).map(|value| value.trim().to_owned()).filter(|v| !v.is_empty());
    let first = |names: [&'static str; 2]| names.into_iter().find_map(|name| Some((name, variable(name)?)));
    let endpoint = first(["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"]);
    let disabled = variable("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true"));
    if endpoint.is_none() || disabled {
        return Ok(false);
    }
    match variable("OTEL_TRACES_EXPORTER").as_deref() {
        Some("none") => return Ok(false),
        None | Some("otlp") => {}
        Some(other) => {
            return Err(format!("OTEL_TRACES_EXPORTER = {other}: not supported; set \"otlp\" or \"none\""));
        }
    }
    match first(["OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"]) {
        Some((name, protocol)) if protocol != "http/protobuf" => Err(format!(
            "{name} = {protocol}: not supported; set http/protobuf, and the collector's port for it (usually 4318)"
        )),
        _ => Ok(true),
    }
}

/// The OpenTelemetry resource attributes from the environment variables. The default service name is
/// [`SERVICE_NAME`].
fn resource() -> Resource {
    let resource = Resource::builder().build();
    let name = resource.get(&Key::from_static_str("service.name")).map(|name| name.to_string());
    if name.is_some_and(|name| !name.starts_with("unknown_service")) {
        return resource;
    }
    Resource::builder().with_service_name(SERVICE_NAME).build()
}

/// An OTLP exporter that logs failures, because the SDK does not. It also sets the kind of each span, because a span field for
/// the kind would appear in every log line.
#[derive(Debug)]
struct LoggingExporter {
    exporter: SpanExporter,
    failing: AtomicBool,
}

impl sdk::SpanExporter for LoggingExporter {
    async fn export(&self, mut batch: Vec<SpanData>) -> OTelSdkResult {
        batch.iter_mut().for_each(|span| span.span_kind = kind(span));
        let exported = self.exporter.export(batch).await;
        match (&exported, self.failing.swap(exported.is_err(), Ordering::Relaxed)) {
            (Err(error), false) => {
                warn!(event = "trace_export_failed", %error, "trace export fails; spans are dropped");
            }
            (Ok(()), true) => info!(event = "trace_export_resumed", "trace export works again"),
            _ => {}
        }
        exported
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.exporter.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}

/// Derives the kind from the attributes that OpenTelemetry's conventions require for incoming requests and outgoing calls.
fn kind(span: &SpanData) -> SpanKind {
    let has = |name: &str| span.attributes.iter().any(|attribute| attribute.key.as_str() == name);
    if has("http.request.method") {
        SpanKind::Server
    } else if has("rpc.method") {
        SpanKind::Client
    } else {
        span.span_kind.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn enabled(variables: &[(&str, &str)]) -> Result<bool, String> {
        is_enabled(|name| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned()))
    }

    const ENDPOINT: (&str, &str) = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318");

    #[test]
    fn traces_are_on_if_a_collector_is_named() {
        let traces = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://127.0.0.1:4318/v1/traces");
        for (variables, on) in [
            (&[][..], false),
            (&[("OTEL_EXPORTER_OTLP_ENDPOINT", " ")], false),
            (&[ENDPOINT], true),
            (&[traces], true),
            (&[ENDPOINT, ("OTEL_SDK_DISABLED", "True")], false),
            (&[ENDPOINT, ("OTEL_SDK_DISABLED", "false")], true),
            (&[ENDPOINT, ("OTEL_TRACES_EXPORTER", "none")], false),
            (&[ENDPOINT, ("OTEL_TRACES_EXPORTER", "otlp")], true),
            (&[ENDPOINT, ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")], true),
            (&[("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")], false),
        ] {
            assert_eq!(enabled(variables), Ok(on), "{variables:?}");
        }
    }

    #[test]
    fn unsupported_exporters_and_protocols_are_rejected() {
        for (name, value) in [
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
            ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/json"),
            ("OTEL_TRACES_EXPORTER", "zipkin"),
        ] {
            let error = enabled(&[ENDPOINT, (name, value)]).unwrap_err();
            assert!(error.starts_with(&format!("{name} = {value}: ")), "{error}");
        }
    }
}
