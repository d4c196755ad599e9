//! An OTLP collector on loopback that keeps what the service exports, and decodes it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

/// A collector that accepts every POST and keeps the bodies.
pub struct Collector {
    pub endpoint: String,
    received: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl Collector {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let received: Arc<Mutex<Vec<Vec<u8>>>> = Arc::default();
        let bodies = Arc::clone(&received);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(receive(BufReader::new(stream), Arc::clone(&bodies)));
            }
        });
        Self { endpoint, received }
    }

    pub fn bodies(&self) -> Vec<Vec<u8>> {
        self.received.lock().unwrap().clone()
    }

    pub fn spans(&self) -> Vec<Span> {
        let resources = self.exports().into_iter().flat_map(|export| export.resource_spans);
        resources.flat_map(|resource| resource.scope_spans).flat_map(|scope| scope.spans).collect()
    }

    /// The spans with this name, ordered by start time. Panics if there are none.
    pub fn spans_named(&self, name: &str) -> Vec<Span> {
        let spans = self.spans();
        let mut found: Vec<Span> = spans.iter().filter(|span| span.name == name).cloned().collect();
        assert!(!found.is_empty(), "no {name} among {:?}", spans.iter().map(|span| &span.name).collect::<Vec<_>>());
        found.sort_by_key(|span| span.start_time_unix_nano);
        found
    }

    /// The span with this name. Panics unless there is exactly one such span.
    pub fn span(&self, name: &str) -> Span {
        let mut found = self.spans_named(name);
        assert_eq!(found.len(), 1, "{found:#?}");
        found.remove(0)
    }

    /// The attributes of the resource.
    pub fn resource(&self) -> BTreeMap<String, Value> {
        attributes(&self.exports()[0].resource_spans[0].resource.clone().unwrap().attributes)
    }

    fn exports(&self) -> Vec<ExportTraceServiceRequest> {
        self.bodies().iter().map(|body| ExportTraceServiceRequest::decode(&body[..]).unwrap()).collect()
    }
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The attributes by name. Panics if a name is not unique.
pub fn attributes(attributes: &[KeyValue]) -> BTreeMap<String, Value> {
    let mut named = BTreeMap::new();
    for KeyValue { key, value, .. } in attributes {
        let duplicate = named.insert(key.clone(), json_value(value.clone().unwrap()));
        assert_eq!(duplicate, None, "{key}");
    }
    named
}

fn json_value(value: AnyValue) -> Value {
    match value.value.unwrap() {
        any_value::Value::StringValue(text) => json!(text),
        any_value::Value::IntValue(number) => json!(number),
        any_value::Value::ArrayValue(array) => array.values.into_iter().map(json_value).collect(),
        other => panic!("{other:?}"),
    }
}

async fn receive(mut stream: BufReader<TcpStream>, received: Arc<Mutex<Vec<Vec<u8>>>>) -> Option<()> {
    loop {
        let mut length = 0;
        loop {
            let mut line = String::new();
            stream.read_line(&mut line).await.ok().filter(|read| *read > 0)?;
            let line = line.to_ascii_lowercase();
            if let Some(value) = line.strip_prefix("content-length:") {
                length = value.trim().parse().unwrap();
            }
            if line == "\r\n" {
                break;
            }
        }
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await.ok()?;
        received.lock().unwrap().push(body);
        stream.get_mut().write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await.ok()?;
    }
}
