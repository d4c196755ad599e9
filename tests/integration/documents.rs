//! What is written about the service is what it does.

use std::fs;
use std::path::Path;

use serde_json::Value;
use stream_manager::http::api::openapi::openapi_document;
use stream_manager::http::api::problems::ProblemCode;

pub fn read(file: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).expect(file)
}

#[test]
fn the_openapi_document_in_the_docs_is_the_one_that_is_served() {
    let served = openapi_document();
    let written = read("docs/openapi.json");
    assert!(served.trim() == written.trim(), "run: cargo run -- openapi > docs/openapi.json");
}

#[test]
fn every_operation_is_described_with_examples_and_problems() {
    let document: Value = serde_json::from_str(&openapi_document()).expect("JSON");
    let mut operations = 0;
    for (path, methods) in document["paths"].as_object().expect("paths") {
        for (method, operation) in methods.as_object().expect("methods") {
            operations += 1;
            let name = format!("{method} {path}");
            assert!(operation["summary"].as_str().is_some_and(|summary| !summary.is_empty()), "{name}: no summary");
            assert!(operation["operationId"].is_string(), "{name}: no name");
            let responses = operation["responses"].as_object().expect("responses");
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
    assert_eq!(operations, 13);
}

#[test]
fn a_request_body_takes_no_fields_that_the_document_does_not_know() {
    let document: Value = serde_json::from_str(&openapi_document()).expect("JSON");
    let operations = document["paths"].as_object().expect("paths").values();
    let operations = operations.flat_map(|methods| methods.as_object().expect("methods").values());
    let bodies: Vec<&str> = operations
        .filter_map(|operation| operation["requestBody"]["content"]["application/json"]["schema"]["$ref"].as_str())
        .collect();
    assert_eq!(bodies.len(), 2);
    for body in bodies {
        let schema = document.pointer(body.trim_start_matches('#')).expect("a schema");
        assert_eq!(schema["additionalProperties"], false, "{body}");
    }
}

#[tokio::test]
async fn the_document_in_yaml_says_the_same() {
    let server = crate::server::TestServer::start().await;
    let yaml = server.call("GET", "/openapi.yaml").await.body;
    let yaml = yaml.as_str().expect("text");
    let json = openapi_document();
    for (key, value) in [("additionalProperties", "false"), ("nullable", "true"), ("operationId", "start")] {
        let in_yaml = yaml.lines().filter(|line| line.trim() == format!("{key}: {value}")).count();
        let in_json = json.matches(&format!("\"{key}\": {value}")).count();
        let in_json = in_json + json.matches(&format!("\"{key}\": \"{value}\"")).count();
        assert!(in_yaml > 0 && in_yaml == in_json, "{key}: {value}");
    }
}

#[tokio::test]
async fn swagger_ui_talks_to_nobody_else_and_stands_in_no_frame() {
    let server = crate::server::TestServer::start().await;
    let page = server.call("GET", "/swagger").await;
    let policy = &page.headers["content-security-policy"];
    for rule in ["default-src 'none'", "connect-src 'self'", "frame-ancestors 'none'"] {
        assert!(policy.contains(rule), "{policy}");
    }
    assert!(!policy.contains("http") && !policy.contains('*'), "{policy}");
}

/// Names of tests have many words; settings and metrics have fewer.
fn names_a_test(word: &str) -> bool {
    word.matches('_').count() >= 5 && word.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_'))
}

#[test]
fn every_test_that_the_docs_name_is_there_and_so_is_every_file() {
    let mut tests = String::new();
    for (_, text) in crate::architecture::files("tests").into_iter().chain(crate::architecture::files("src")) {
        tests.push_str(&text);
    }
    let documents = [
        "docs/ARCHITECTURE.md",
        "docs/CAPACITY.md",
        "docs/CONTAINER.md",
        "docs/CORRECTNESS.md",
        "docs/DEPLOYMENT.md",
        "docs/DEVELOPING.md",
        "docs/LOAD-TESTING.md",
        "docs/MULTI-REGION.md",
        "docs/CONFIGURATION.md",
        "docs/MONITORING.md",
        "docs/RUNBOOKS.md",
        "docs/PERFORMANCE.md",
        "docs/RELEASING.md",
        "docs/THREAT-MODEL.md",
    ];
    for document in documents {
        let text = read(document);
        let named = text.split('`').skip(1).step_by(2);
        for name in named {
            let path =
                ["tests/", "src/", "scripts/", "deploy/", "docs/"].iter().any(|folder| name.starts_with(folder));
            if names_a_test(name) {
                assert!(tests.contains(&format!("fn {name}(")), "{document}: {name}");
            } else if path && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/._-".contains(&byte)) {
                let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
                assert!(file.exists() || file.with_extension("rs").exists(), "{document}: {name}");
            }
        }
    }
}

#[test]
fn every_problem_has_its_section_and_every_section_its_problem() {
    let text = read("docs/errors.md");
    let sections: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("## ")).collect();
    let table: Vec<String> =
        ProblemCode::ALL.iter().map(|code| format!("`{}` ({})", code.code(), code.status())).collect();
    assert_eq!(sections, table);
    for code in ProblemCode::ALL {
        assert!(text.contains(code.title()), "the title of {}", code.code());
    }
}
