//! Exports OpenTelemetry traces over OTLP: one span per request, with a child span per store request.
//!
//! Disabled unless the standard `OTEL_*` variables enable it. `http::pipeline` and `store::dynamodb` create the spans. These are
//! not spans of the crate `tracing`, which serve only the log.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use opentelemetry::trace::TracerProvider;
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{self as sdk, SdkTracerProvider, SpanData};
use tracing::{info, warn};
use uuid::Uuid;

const SERVICE_NAME: &str = "stream-manager";
const VERSION: &str = env!("CARGO_PKG_VERSION");
/// The version of the semantic conventions that the spans follow.
const SCHEMA_URL: &str = "https://opentelemetry.io/schemas/1.44.0";
/// Time limit for the last export at shutdown.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(2);

/// Starts spans. Clones share one exporter.
pub type Tracer = sdk::SdkTracer;

/// Exports spans in batches on a separate thread.
pub struct TraceExporter(SdkTracerProvider);

impl TraceExporter {
    /// Returns `None` if the environment does not enable traces. The SDK itself reads the variables for timeouts, headers,
    /// sampler, limits and queue.
    pub(super) fn from_environment(
        environment: impl Fn(&str) -> Option<String>,
        instance: Uuid,
    ) -> Result<Option<Self>, String> {
        if !is_enabled(environment)? {
            return Ok(None);
        }
        let exporter = SpanExporter::builder().with_http().with_protocol(Protocol::HttpBinary).build();
        let exporter =
            exporter.map_err(|error| format!("cannot export traces: {error}; see OTEL_EXPORTER_OTLP_*"))?;
        let exporter = LoggingExporter { exporter, failing: AtomicBool::new(false) };
        let provider = SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource(instance));
        Ok(Some(Self(provider.build())))
    }

    pub fn tracer(&self) -> Tracer {
        let scope = InstrumentationScope::builder(SERVICE_NAME).with_version(VERSION).with_schema_url(SCHEMA_URL);
        self.0.tracer_with_scope(scope.build())
    }

    /// Exports the remaining spans. Blocks for at most 2 s.
    pub fn shutdown(self) {
        _ = self.0.shutdown_with_timeout(FLUSH_TIMEOUT);
    }
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

/// Describes this process. Attributes from the environment variables override the defaults.
fn resource(instance: Uuid) -> Resource {
    let given = Resource::builder().build();
    let defaults = [
        ("service.name", SERVICE_NAME.to_owned()),
        ("service.version", VERSION.to_owned()),
        ("service.instance.id", instance.to_string()),
    ];
    let is_given = |name: &'static str| {
        // The SDK's own default for the name starts with `unknown_service`.
        given.get(&name.into()).is_some_and(|value| !value.as_str().starts_with("unknown_service"))
    };
    let missing = defaults.into_iter().filter(|(name, _)| !is_given(name));
    Resource::builder().with_attributes(missing.map(|(name, value)| KeyValue::new(name, value))).build()
}

/// An OTLP exporter that logs failures, because the SDK does not.
#[derive(Debug)]
struct LoggingExporter {
    exporter: SpanExporter,
    failing: AtomicBool,
}

impl sdk::SpanExporter for LoggingExporter {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
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
