//! Events: the outcomes that they record, and the sinks of the real process.

mod outcomes;
mod personal_data;
mod process;
mod settings;

use std::fs;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use stream_manager::events::cloud_event::CloudEvent;
use stream_manager::events::settings::{EventSettings, Identities, SinkSettings};
use tempfile::TempDir;

use crate::service::temp_dir;
use crate::test_app::{TestApp, TestServer};

const KEY: &str = "a key with at least thirty-two bytes";

/// A server that records events in a temporary folder.
struct Recording {
    server: TestServer,
    folder: TempDir,
}

impl Recording {
    async fn start(app: TestApp, identities: Identities) -> Self {
        let folder = temp_dir();
        let sink = SinkSettings::File { directory: folder.path().to_owned(), keep_days: 1 };
        let server = TestApp { events: Some(EventSettings { sink, identities }), ..app }.serve().await;
        Self { server, folder }
    }

    /// Stops the writer, and returns the events that it has written.
    fn finish(self) -> Vec<Value> {
        let Self { mut server, folder } = self;
        assert!(server.event_writer.take().unwrap().shutdown(Duration::from_secs(10)));
        events(&text(folder.path()))
    }
}

/// The content of the only file in a folder of events.
fn text(folder: &Path) -> String {
    let files: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    let [file] = &files[..] else { panic!("{files:?}") };
    fs::read_to_string(file).unwrap()
}

/// Parses lines as events. Also saves them, so that `scripts/check-events` can validate all events of the tests.
fn events(text: &str) -> Vec<Value> {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("events");
    fs::create_dir_all(&folder).unwrap();
    let thread = std::thread::current();
    let test = thread.name().unwrap_or("unnamed").replace("::", ".");
    fs::write(folder.join(format!("{test}.jsonl")), text).unwrap();
    let lines = text.lines().filter(|line| !line.is_empty());
    lines.map(|line| parse(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
}

fn parse(line: &str) -> serde_json::Result<Value> {
    let event: Value = serde_json::from_str(line)?;
    let parsed: CloudEvent = serde_json::from_str(line)?;
    assert_eq!(serde_json::to_value(parsed)?, event, "the types contain every field");
    Ok(event)
}

/// The part of the type after `stream-manager.`.
fn kind(event: &Value) -> &str {
    event["type"].as_str().unwrap().strip_prefix("stream-manager.").unwrap()
}

fn kinds(events: &[Value]) -> Vec<&str> {
    events.iter().map(kind).collect()
}
