//! The shape of the code: dependencies run one way, and each outside thing is known in one place.

use std::fs;
use std::path::{Path, PathBuf};

/// Modules from the bottom up; each may use only its own rank and those below. Modules of one rank stand on one line.
const ORDER: [&[&str]; 8] = [
    &["domain"],
    &["clock"],
    &["telemetry"],
    &["store"],
    &["limiter"],
    &["http", "migrate"],
    &["config"],
    &["planning"],
];

/// What is allowed only in some places.
const ONLY: [(&str, &[&str]); 14] = [
    ("aws_sdk_dynamodb", &["store/dynamodb", "store/embedded", "migrate.rs"]),
    ("aws_config", &["store/dynamodb/client.rs"]),
    ("dynoxide", &["store/embedded/engine.rs"]),
    ("poem", &["http"]),
    ("jsonwebtoken", &["http/auth"]),
    ("reqwest", &["http/auth/jwks_cache.rs"]),
    ("SystemTime::now", &["clock.rs"]),
    ("Instant::now", &["clock.rs", "http/server.rs"]),
    ("anyhow", &["main.rs", "commands"]),
    ("opentelemetry", &["telemetry/tracing.rs", "http/pipeline/trace_attributes.rs"]),
    ("opentelemetry_sdk", &["telemetry/tracing.rs", "http/pipeline/trace_attributes.rs"]),
    ("opentelemetry_otlp", &["telemetry/tracing.rs"]),
    ("tracing_opentelemetry", &["telemetry/tracing.rs", "http/pipeline/trace_attributes.rs"]),
    ("prometheus_client", &["telemetry/metrics.rs", "telemetry/store_metrics.rs"]),
];

fn sources(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            sources(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

/// Every source file below `folder`, by its path inside it, with its text.
pub fn files(folder: &str) -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let mut paths = Vec::new();
    sources(&root, &mut paths);
    let name = |path: &Path| path.strip_prefix(&root).expect("inside").to_str().expect("UTF-8").to_owned();
    let mut files: Vec<_> =
        paths.iter().map(|path| (name(path), fs::read_to_string(path).expect("a source file"))).collect();
    files.sort();
    assert!(!files.is_empty());
    files
}

fn code(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter(|line| !line.trim_start().starts_with("//"))
}

#[test]
fn dependencies_run_one_way() {
    let rank = |module: &str| ORDER.iter().position(|names| names.contains(&module));
    for (file, text) in files("src") {
        let module = file.split(['/', '.']).next().expect("a module");
        let Some(own) = rank(module) else {
            assert!(["lib", "main", "commands"].contains(&module), "{file} is not in the order of modules");
            continue;
        };
        for line in code(&text) {
            for used in line.split("crate::").skip(1) {
                let used = used.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').next().expect("a word");
                let used = rank(used).unwrap_or_else(|| panic!("{file}: {line}"));
                assert!(used <= own, "{file} must not use what comes after it: {line}");
            }
        }
    }
}

#[test]
fn each_outside_thing_is_known_in_one_place() {
    for (file, text) in files("src") {
        for (thing, places) in ONLY {
            if places.iter().any(|place| file.starts_with(place)) {
                continue;
            }
            let word = |line: &&str| {
                line.split(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != ':').any(|word| {
                    word == thing || word.starts_with(&format!("{thing}::")) || word.ends_with(&format!("::{thing}"))
                })
            };
            assert_eq!(code(&text).find(word), None, "{file} must not know {thing}");
        }
    }
}

#[test]
fn every_file_says_what_it_is_and_is_short_enough_to_read() {
    for folder in ["src", "tests", "benches", "tools"] {
        for (file, text) in files(folder) {
            assert!(text.starts_with("//! "), "{folder}/{file} begins with what it is");
            let lines = text.lines().count();
            assert!(lines <= 400, "{folder}/{file} has {lines} lines: is there a second concern in it?");
        }
    }
}
