//! OpenTelemetry traces over OTLP: a span for each request and one for each of its store requests. On only when the
//! usual `OTEL_*` variables say so. Holds no name of a user, no path and no token: spans have what is listed in
//! docs/MONITORING.md, "Traces", and events of the log never become part of them.

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

use crate::store::dynamodb::client::SPANS_OF_OPERATIONS;

const SERVICE: &str = "stream-manager";
/// How long the last spans may take at the end of the process.
const FLUSH_WITHIN: Duration = Duration::from_secs(2);

/// What sends spans, on a thread of its own.
pub struct Traces(SdkTracerProvider);

impl Traces {
    /// None when no collector is named. The rest of the variables are read by the SDK itself: timeouts, headers,
    /// sampler, limits, queue.
    pub fn wanted(environment: impl Fn(&str) -> Option<String>) -> Result<Option<Self>, String> {
        if !wanted(environment)? {
            return Ok(None);
        }
        let exporter = SpanExporter::builder().with_http().with_protocol(Protocol::HttpBinary).build();
        let exporter =
            exporter.map_err(|error| format!("cannot export traces: {error}; see OTEL_EXPORTER_OTLP_*"))?;
        let exporter = Exporter { exporter, failing: AtomicBool::new(false) };
        let provider = SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource());
        Ok(Some(Self(provider.build())))
    }

    /// Sees the spans of requests and of the SDK's operations, whatever the log's filter is.
    pub fn layer<S>(&self) -> impl Layer<S> + Send + Sync + use<S>
    where
        S: Subscriber + Send + Sync + for<'span> LookupSpan<'span>,
    {
        let layer = tracing_opentelemetry::layer()
            .with_tracer(self.0.tracer(SERVICE))
            .with_location(false)
            .with_threads(false)
            .with_target(false)
            .with_tracked_inactivity(false);
        layer.with_filter(filter_fn(is_traced).with_max_level_hint(LevelFilter::DEBUG))
    }

    /// Sends what is left, if the collector takes it in time.
    pub fn end(self) {
        _ = self.0.shutdown_with_timeout(FLUSH_WITHIN);
    }
}

fn is_traced(metadata: &Metadata<'_>) -> bool {
    is_request(metadata) || (metadata.is_span() && metadata.target().starts_with(SPANS_OF_OPERATIONS))
}

/// Whether it is a request's span: of a request that has nothing to tell the log, it is at the level of `debug`.
pub fn is_request(metadata: &Metadata<'_>) -> bool {
    metadata.is_span() && metadata.target().starts_with("stream_manager::") && *metadata.level() <= Level::DEBUG
}

/// Whether the environment asks for traces; an error for what this build cannot do.
fn wanted(environment: impl Fn(&str) -> Option<String>) -> Result<bool, String> {
    // Set and empty is as good as not set, says OpenTelemetry.
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
        Some(other) => return Err(format!("OTEL_TRACES_EXPORTER = {other}: set \"otlp\" or \"none\"")),
    }
    match first(["OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"]) {
        Some((name, protocol)) if protocol != "http/protobuf" => Err(format!(
            "{name} = {protocol}: only http/protobuf is spoken; set that, and the collector's port for it (4318 mostly)"
        )),
        _ => Ok(true),
    }
}

/// As the SDK reads it from the environment, and with a name if that gives none.
fn resource() -> Resource {
    let resource = Resource::builder().build();
    let name = resource.get(&Key::from_static_str("service.name")).map(|name| name.to_string());
    if name.is_some_and(|name| !name.starts_with("unknown_service")) {
        return resource;
    }
    Resource::builder().with_service_name(SERVICE).build()
}

/// The exporter over OTLP, which says nothing of a collector that is away; and `tracing` has no word for a span's kind but a
/// field that would stand in every line of the log.
#[derive(Debug)]
struct Exporter {
    exporter: SpanExporter,
    failing: AtomicBool,
}

impl sdk::SpanExporter for Exporter {
    async fn export(&self, mut batch: Vec<SpanData>) -> OTelSdkResult {
        batch.iter_mut().for_each(|span| span.span_kind = kind(span));
        let exported = self.exporter.export(batch).await;
        match (&exported, self.failing.swap(exported.is_err(), Ordering::Relaxed)) {
            (Err(error), false) => warn!(%error, "the collector takes no traces; they are lost until it does"),
            (Ok(()), true) => info!("the collector takes traces again"),
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

/// By the attributes that OpenTelemetry's conventions give to requests that come in and calls that go out.
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

    fn asked(variables: &[(&str, &str)]) -> Result<bool, String> {
        wanted(|name| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned()))
    }

    const ENDPOINT: (&str, &str) = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318");

    #[test]
    fn traces_are_on_when_a_collector_is_named_and_nobody_turned_them_off() {
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
            assert_eq!(asked(variables), Ok(on), "{variables:?}");
        }
    }

    #[test]
    fn what_cannot_be_exported_is_refused_with_the_variable_to_set() {
        for (name, value) in [
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
            ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/json"),
            ("OTEL_TRACES_EXPORTER", "zipkin"),
        ] {
            let refused = asked(&[ENDPOINT, (name, value)]).unwrap_err();
            assert!(refused.starts_with(&format!("{name} = {value}: ")), "{refused}");
        }
    }
}
