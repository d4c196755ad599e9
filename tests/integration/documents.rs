//! The OpenAPI document and the docs match the code: operations, problems, and the file paths in the docs.

use std::fs;
use std::path::Path;

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
    let served = openapi_document();
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
                    let example = &response["content"]["application/problem+json"]["schema"]["example"];
                    assert_eq!(example["status"].to_string(), *status, "{name}");
                }
            }
        }
    }
    assert_eq!(operations, 15);
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
        assert!(schema["additionalProperties"].is_null(), "{body}: a newer player works with an older service");
    }
}

#[tokio::test]
async fn the_yaml_and_json_documents_have_the_same_constraints() {
    let server = TestServer::start().await;
    let yaml = server.call("GET", "/openapi.yaml").await;
    let yaml = yaml.text();
    let json = openapi_document();
    for (key, value) in [("nullable", "true"), ("operationId", "start")] {
        let in_yaml = yaml.lines().filter(|line| line.trim() == format!("{key}: {value}")).count();
        let in_json = json.matches(&format!("\"{key}\": {value}")).count();
        let in_json = in_json + json.matches(&format!("\"{key}\": \"{value}\"")).count();
        assert!(in_yaml > 0 && in_yaml == in_json, "{key}: {value}");
    }
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
        assert!(text.contains(code.title()), "the title of {}", code.code());
    }
}
