//! `docs/events.schema.json` matches the types of events.

use std::fs;

use schemars::generate::SchemaSettings;
use serde_json::Value;

use super::cloud_event::CloudEvent;

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/events.schema.json");

/// Set by `just bless`, which writes the file.
const BLESS: &str = "BLESS_EVENTS_SCHEMA";

#[test]
fn docs_events_schema_json_matches_the_types() {
    let schema = SchemaSettings::draft2020_12().for_serialize().into_generator().into_root_schema_for::<CloudEvent>();
    let mut schema = schema.to_value();
    remove_null(&mut schema);
    let text = format!("{:#}\n", schema);
    if std::env::var_os(BLESS).is_some() {
        fs::write(FILE, &text).unwrap();
    }
    assert!(fs::read_to_string(FILE).unwrap_or_default() == text, "run `just bless`");
}

/// Absent values are omitted, never `null`, but the generator allows `null` for each optional field.
fn remove_null(schema: &mut Value) {
    match schema {
        Value::Object(object) => {
            if let Some(Value::Array(types)) = object.get_mut("type") {
                types.retain(|name| name != "null");
                if let [single] = &types[..] {
                    object["type"] = single.clone();
                }
            }
            object.values_mut().for_each(remove_null);
        }
        Value::Array(elements) => elements.iter_mut().for_each(remove_null),
        _ => {}
    }
}
