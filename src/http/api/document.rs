//! Completes the OpenAPI document of poem-openapi, so that linters accept it and client generators understand it.

use serde_yaml::{Mapping, Value};

/// Maps the operation ids in the code to those in the document. Client generators turn the ids in the document into method
/// names, so these ids also name the object, such as `Stream`. The ids in the code label metrics, log lines and traces.
const OPERATION_IDS: [(&str, &str); 12] = [
    ("start", "startStream"),
    ("list", "listStreams"),
    ("count", "countStreams"),
    ("get", "getStream"),
    ("heartbeat", "sendHeartbeat"),
    ("stop", "stopStream"),
    ("stopByPost", "stopStreamByPost"),
    ("evict", "evictStreams"),
    ("grantKeys", "getGrantKeys"),
    ("live", "getLiveness"),
    ("ready", "getReadiness"),
    ("health", "getHealth"),
];

const REQUEST_ID: &str = "X-Request-Id";

/// Makes these changes, which poem-openapi's macros cannot express:
/// - Operations get their [`OPERATION_IDS`], and `security: []` if they need no token.
/// - A parameter without a description gets the description of its schema.
/// - The example of a response moves out of its schema, and the schema becomes a plain reference.
/// - Response headers get their usual case, and each response gets `X-Request-Id`.
pub(super) fn complete(mut document: Mapping) -> Mapping {
    for operation in objects_in(&mut document, "paths").flat_map(objects) {
        complete_operation(operation);
    }
    if let Some(components) = object_at(&mut document, "components")
        && let Some(headers) = object_at(components, "headers")
    {
        insert(headers, REQUEST_ID, request_id_header());
    }
    document
}

fn complete_operation(operation: &mut Mapping) {
    if let Some(Value::String(id)) = operation.get_mut("operationId")
        && let Some((_, name)) = OPERATION_IDS.iter().find(|(in_code, _)| in_code == id)
    {
        *id = (*name).to_owned();
    }
    if !operation.contains_key("security") {
        insert(operation, "security", Value::Sequence(Vec::new()));
    }
    for parameter in elements_in(operation, "parameters").filter(|parameter| !parameter.contains_key("description")) {
        move_out_of_schema(parameter, "description");
    }
    for response in objects_in(operation, "responses") {
        for media_type in objects_in(response, "content") {
            move_out_of_schema(media_type, "example");
            unwrap_single_all_of(media_type);
        }
        complete_headers(response);
    }
}

/// Moves a property of the schema of `owner` to `owner`.
fn move_out_of_schema(owner: &mut Mapping, property: &str) {
    let schema = owner.get_mut("schema").and_then(Value::as_mapping_mut);
    if let Some(value) = schema.and_then(|schema| schema.shift_remove(property)) {
        insert(owner, property, value);
    }
}

/// Replaces the schema `{"allOf": [element]}` by the element.
fn unwrap_single_all_of(owner: &mut Mapping) {
    if let Some(Value::Mapping(schema)) = owner.get("schema")
        && schema.len() == 1
        && let Some([element]) = schema.get("allOf").and_then(Value::as_sequence).map(Vec::as_slice)
    {
        insert(owner, "schema", element.clone());
    }
}

fn complete_headers(response: &mut Mapping) {
    let Some(headers) = object_at(response, "headers") else { return };
    let renamed = std::mem::take(headers).into_iter().map(|(name, header)| match name {
        Value::String(name) => (Value::String(usual_case(&name)), header),
        name => (name, header),
    });
    headers.extend(renamed);
    insert(headers, REQUEST_ID, object([("$ref", text(&format!("#/components/headers/{REQUEST_ID}")))]));
}

/// Converts a header name, which poem-openapi writes in upper case, to its usual case: `RETRY-AFTER` becomes `Retry-After`.
/// Does not change names with lower-case letters, such as `WWW-Authenticate`.
fn usual_case(name: &str) -> String {
    if name.bytes().any(|byte| byte.is_ascii_lowercase()) {
        return name.to_owned();
    }
    let word = |word: &str| word.chars().take(1).chain(word.to_lowercase().chars().skip(1)).collect::<String>();
    name.split('-').map(word).collect::<Vec<_>>().join("-")
}

fn request_id_header() -> Value {
    object([
        ("description", text("Identifies the request in the log of the service.")),
        ("required", Value::Bool(true)),
        ("schema", object([("type", text("string")), ("format", text("uuid"))])),
    ])
}

/// The object at `key`. Inserts an empty one if there is none.
fn object_at<'a>(owner: &'a mut Mapping, key: &str) -> Option<&'a mut Mapping> {
    owner.entry(text(key)).or_insert_with(|| object([])).as_mapping_mut()
}

fn objects_in<'a>(owner: &'a mut Mapping, key: &str) -> impl Iterator<Item = &'a mut Mapping> {
    owner.get_mut(key).and_then(Value::as_mapping_mut).into_iter().flat_map(objects)
}

fn elements_in<'a>(owner: &'a mut Mapping, key: &str) -> impl Iterator<Item = &'a mut Mapping> {
    let elements = owner.get_mut(key).and_then(Value::as_sequence_mut);
    elements.into_iter().flatten().filter_map(Value::as_mapping_mut)
}

fn objects(owner: &mut Mapping) -> impl Iterator<Item = &mut Mapping> {
    owner.values_mut().filter_map(Value::as_mapping_mut)
}

fn insert(owner: &mut Mapping, key: &str, value: Value) {
    owner.insert(text(key), value);
}

fn object<const N: usize>(entries: [(&str, Value); N]) -> Value {
    Value::Mapping(entries.into_iter().map(|(key, value)| (text(key), value)).collect())
}

fn text(text: &str) -> Value {
    Value::String(text.to_owned())
}

#[cfg(test)]
mod tests {
    use poem_openapi::OpenApi;

    use super::*;
    use crate::http::api::openapi::Apis;

    fn parse(json: &str) -> Mapping {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn operation_ids_are_unique_and_name_existing_operations() {
        let operations = Apis::meta().into_iter().flat_map(|api| api.paths).flat_map(|path| path.operations);
        let in_code: Vec<&str> = operations.filter_map(|operation| operation.operation_id).collect();
        for (index, (id, name)) in OPERATION_IDS.iter().enumerate() {
            assert!(in_code.contains(id), "{id}");
            let names = in_code.iter().chain(OPERATION_IDS[..index].iter().map(|(_, name)| name));
            assert!(!names.into_iter().any(|other| other == name), "{name}");
        }
    }

    #[test]
    fn a_document_is_completed() {
        let document = parse(
            r##"{"paths": {"/v1": {"post": {
                "operationId": "start",
                "parameters": [{"schema": {"type": "string", "description": "of the schema"}}],
                "responses": {"409": {
                    "headers": {"RETRY-AFTER": {}, "WWW-Authenticate": {}},
                    "content": {"json": {"schema": {"allOf": [{"$ref": "#/a"}], "example": {"b": 1}}}}
                }}
            }}}, "components": {}}"##,
        );
        let completed = parse(
            r##"{"paths": {"/v1": {"post": {
                "operationId": "startStream",
                "parameters": [{"schema": {"type": "string"}, "description": "of the schema"}],
                "responses": {"409": {
                    "headers": {"Retry-After": {}, "WWW-Authenticate": {}, "X-Request-Id": {"$ref": "#/components/headers/X-Request-Id"}},
                    "content": {"json": {"schema": {"$ref": "#/a"}, "example": {"b": 1}}}
                }},
                "security": []
            }}}, "components": {"headers": {"X-Request-Id": {
                "description": "Identifies the request in the log of the service.",
                "required": true,
                "schema": {"type": "string", "format": "uuid"}
            }}}}"##,
        );
        assert_eq!(complete(document), completed);
    }

    #[test]
    fn what_is_complete_stays() {
        let document = parse(
            r##"{"paths": {"/v1": {"get": {
                "operationId": "getLimit",
                "parameters": [{"schema": {"type": "string"}, "description": "of the parameter"}],
                "security": [{"token": []}]
            }}}, "components": {"headers": {}}}"##,
        );
        let paths = document["paths"].clone();
        assert_eq!(complete(document)["paths"], paths);
    }
}
