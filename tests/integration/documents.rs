//! The OpenAPI document and the docs match the code: operations, problems, and the file paths in the docs.

use std::fs;
use std::path::Path;

use serde_json::{Map, Value};
use stream_manager::http::api::openapi::openapi_document;
use stream_manager::http::api::problems::ProblemCode;

use crate::test_app::{TestServer, openapi};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// The text of the file at this path in the repository.
pub fn read(file: &str) -> String {
    fs::read_to_string(Path::new(ROOT).join(file)).expect(file)
}

/// The text between a second-level heading and the next one.
pub fn section<'a>(text: &'a str, heading: &str) -> &'a str {
    text.split("\n## ").find_map(|section| section.strip_prefix(&format!("{heading}\n"))).expect(heading)
}

#[test]
fn docs_openapi_json_equals_the_served_document() {
    let served = openapi_document().unwrap().json;
    let written = read("docs/openapi.json");
    assert!(served.trim() == written.trim(), "run `just bless`");
}

#[test]
fn every_operation_has_a_summary_and_problem_examples() {
    let document = openapi();
    let mut operations = 0;
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            operations += 1;
            let name = format!("{method} {path}");
            assert!(operation["summary"].as_str().is_some_and(|summary| !summary.is_empty()), "{name}: no summary");
            assert!(operation["operationId"].is_string(), "{name}: no operation id");
            let responses = operation["responses"].as_object().unwrap();
            assert!(responses.keys().any(|status| status.starts_with('2')), "{name}: no success");
            for (status, response) in responses {
                assert!(response["description"].as_str().is_some_and(|text| !text.is_empty()), "{name} {status}");
                if status.as_str() >= "400" {
                    let example = &response["content"]["application/problem+json"]["example"];
                    assert_eq!(example["status"].to_string(), *status, "{name}");
                }
            }
        }
    }
    assert_eq!(operations, 17);
}

/// All objects in the document.
fn objects(value: &Value) -> Vec<&Map<String, Value>> {
    match value {
        Value::Object(object) => std::iter::once(object).chain(object.values().flat_map(objects)).collect(),
        Value::Array(elements) => elements.iter().flat_map(objects).collect(),
        _ => Vec::new(),
    }
}

#[test]
fn the_document_avoids_what_client_generators_misread() {
    let document = openapi();
    for object in objects(&document) {
        let complete = object.keys().all(|key| !["allOf", "anyOf", "oneOf"].contains(&key.as_str()));
        let reference = !object.contains_key("$ref") || object.len() == 1;
        assert!(complete && reference, "{object:?}");
    }
    for (name, schema) in document["components"]["schemas"].as_object().unwrap() {
        assert!(schema["nullable"].is_null(), "{name} is nullable, so a generated client could not omit such a body");
        for required in schema["required"].as_array().into_iter().flatten() {
            assert!(schema["properties"].get(required.as_str().unwrap()).is_some(), "{name}: {required}");
        }
        for (field, property) in schema["properties"].as_object().into_iter().flatten() {
            assert!(property["enum"].is_null(), "{name}.{field}: move the inline enum to a named schema");
            let unbounded = property["type"] == "array" && property["maxItems"].is_null();
            assert!(!unbounded, "{name}.{field} has no maxItems");
        }
    }
}

#[test]
fn parameters_and_headers_are_described() {
    let document = openapi();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            for parameter in operation["parameters"].as_array().into_iter().flatten() {
                assert!(parameter["description"].is_string(), "{method} {path}: {parameter}");
            }
            for (status, response) in operation["responses"].as_object().unwrap() {
                let headers = response["headers"].as_object().unwrap();
                assert!(headers.contains_key("X-Request-Id"), "{method} {path} {status}");
                for name in headers.keys() {
                    let usual = [
                        "Accept-Encoding",
                        "Cache-Control",
                        "Idempotency-Replayed",
                        "Location",
                        "Retry-After",
                        "WWW-Authenticate",
                        "X-Request-Id",
                    ];
                    assert!(usual.contains(&name.as_str()), "{method} {path} {status}: {name}");
                }
            }
        }
    }
}

#[test]
fn request_bodies_allow_additional_properties() {
    let document = openapi();
    let operations = document["paths"].as_object().unwrap().values();
    let operations = operations.flat_map(|methods| methods.as_object().unwrap().values());
    let bodies: Vec<&str> = operations
        .filter_map(|operation| operation["requestBody"]["content"]["application/json"]["schema"]["$ref"].as_str())
        .collect();
    assert_eq!(bodies.len(), 4);
    for body in bodies {
        let schema = document.pointer(body.trim_start_matches('#')).unwrap();
        assert!(schema["additionalProperties"].is_null(), "{body}: a newer player must work with an older service");
    }
}

#[test]
fn every_document_has_the_same_rule_for_players() {
    let protocol = read("docs/PROTOCOL.md");
    let rules = protocol.lines().filter_map(|line| line.strip_prefix("- **")?.strip_suffix("**"));
    let rules: Vec<&str> = rules.collect();
    assert_eq!(rules.len(), 6, "{rules:?}");
    let document = openapi();
    let start = document["paths"]["/v1/users/{userName}/streams"]["post"]["description"].as_str().unwrap();
    let (description, readme) = (document["info"]["description"].as_str().unwrap(), read("README.md"));
    for (name, text, rules) in
        [("OpenAPI", description, &rules[..]), ("README.md", &readme, &rules[..]), ("start", start, &rules[5..])]
    {
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        for rule in rules {
            assert!(text.contains(rule), "{name}: {rule}");
        }
    }
}

#[tokio::test]
async fn the_yaml_and_json_documents_are_equal() {
    let server = TestServer::start().await;
    let yaml = server.call("GET", "/openapi.yaml").await;
    assert!(serde_yaml::from_str::<Value>(yaml.text()).unwrap() == openapi());
}

#[tokio::test]
async fn swagger_ui_connects_only_to_itself_and_cannot_be_framed() {
    let server = TestServer::start().await;
    let page = server.call("GET", "/swagger").await;
    let policy = &page.headers["content-security-policy"];
    for rule in ["default-src 'none'", "connect-src 'self'", "frame-ancestors 'none'"] {
        assert!(policy.contains(rule), "{policy}");
    }
    assert!(!policy.contains("http") && !policy.contains('*'), "{policy}");
}

/// The paths of the Markdown documents in the repository.
fn documents() -> Vec<String> {
    let mut found: Vec<String> =
        ["README.md", "CONTRIBUTING.md", "SECURITY.md", "tests/README.md"].map(str::to_owned).into();
    let mut folders = vec!["docs".to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(Path::new(ROOT).join(&folder)).unwrap() {
            let path = entry.unwrap().path();
            let name = format!("{folder}/{}", path.file_name().unwrap().to_str().unwrap());
            match path.is_dir() {
                true => folders.push(name),
                false if name.ends_with(".md") => found.push(name),
                false => {}
            }
        }
    }
    found.retain(|file| Path::new(ROOT).join(file).exists());
    found
}

/// The file paths in the code spans of a text. Skips paths with a placeholder, such as `tests/fuzz/corpus/TARGET`.
fn paths(text: &str) -> impl Iterator<Item = &str> {
    const FOLDERS: [&str; 11] = [
        ".ci/",
        ".github/",
        "benches/",
        "clients/",
        "deploy/",
        "docs/",
        "migrations/",
        "scripts/",
        "src/",
        "tests/",
        "tools/",
    ];
    let spans = text.split('`').skip(1).step_by(2);
    let words = spans.filter_map(|span| span.split([' ', '\n', '#']).next());
    let placeholder = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_uppercase());
    words.filter(move |word| {
        FOLDERS.iter().any(|folder| word.starts_with(folder)) && !word.split('/').any(placeholder)
    })
}

#[test]
fn every_path_in_the_docs_exists() {
    let documents = documents();
    assert!(documents.len() > 10, "{documents:?}");
    for document in documents {
        for path in paths(&read(&document)) {
            assert!(Path::new(ROOT).join(path).exists(), "{document}: {path}");
        }
    }
}

#[test]
fn errors_md_has_one_section_per_problem() {
    let text = read("docs/errors.md");
    let headings: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("## ")).collect();
    let problems: Vec<String> =
        ProblemCode::ALL.iter().map(|code| format!("`{}` ({})", code.code(), code.status())).collect();
    assert_eq!(headings, problems);
    for code in ProblemCode::ALL {
        assert!(text.contains(code.title()), "errors.md lacks the title of {}", code.code());
    }
}
