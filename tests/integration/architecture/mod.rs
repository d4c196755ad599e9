//! Architecture rules: module order, no import cycles, short files, and external crates only where they are allowed.

mod imports;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use self::imports::Sources;

/// Modules from the bottom up. A module may use modules on the same line and on earlier lines. If several prefixes match a file,
/// the longest prefix applies.
const ORDER: [&[&str]; 14] = [
    &["domain"],
    &["clock"],
    &["telemetry"],
    &["events"],
    &["store"],
    &["limiter", "live_streams", "migrate"],
    &["http/auth", "http/grants"],
    &["http/api"],
    &["http/pipeline"],
    &["http"],
    &["config"],
    &["text_table"],
    &["planning", "report"],
    &["commands", "main", "lib"],
];

/// Crates and functions, and the only files and modules that may use them.
const ONLY_IN: [(&str, &[&str]); 19] = [
    ("aws_sdk_dynamodb", &["store/dynamodb", "store/embedded", "migrate.rs"]),
    ("aws_config", &["store/dynamodb/client.rs"]),
    ("dynoxide", &["store/embedded/engine.rs"]),
    ("poem", &["http"]),
    ("jsonwebtoken", &["http/auth", "http/grants"]),
    ("aws_lc_rs", &["events/personal_data.rs", "http/grants"]),
    ("rustls_pki_types", &["http/grants/key_parser.rs"]),
    ("reqwest", &["http/auth/jwks_cache.rs"]),
    ("SystemTime::now", &["clock.rs"]),
    ("Instant::now", &["clock.rs", "http/worker.rs"]),
    ("anyhow", &["main.rs", "commands"]),
    ("opentelemetry", &["telemetry", "http/pipeline", "store/dynamodb/trace_interceptor.rs"]),
    ("opentelemetry_sdk", &["telemetry/tracing.rs", "http/pipeline/request_span.rs"]),
    ("opentelemetry_otlp", &["telemetry/tracing.rs"]),
    ("prometheus_client", &["telemetry"]),
    ("socket2", &["http/port.rs"]),
    ("metrics_process", &["telemetry/process_metrics.rs"]),
    ("plotters", &["report/html/chart.rs"]),
    ("maud", &["report/html"]),
];

const MAX_LINES: usize = 400;
const MAX_MEDIAN_LINES: usize = 150;

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

/// The path, relative to `folder`, and the text of each Rust file in `folder`.
pub fn files(folder: &str) -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let mut paths = Vec::new();
    if root.exists() {
        collect(&root, &mut paths);
    }
    let name = |path: &Path| path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned();
    paths.iter().map(|path| (name(path), fs::read_to_string(path).unwrap())).collect()
}

/// The files in `src`, without files that contain only tests.
fn sources() -> Sources {
    let files: Vec<_> = files("src").into_iter().filter(|(file, _)| !file.ends_with("tests.rs")).collect();
    assert!(!files.is_empty());
    Sources::new(files)
}

fn rank(file: &str) -> Option<usize> {
    let prefixes =
        ORDER.iter().enumerate().flat_map(|(rank, modules)| modules.iter().map(move |module| (rank, module)));
    let matching = prefixes.filter(|(_, module)| file.starts_with(**module));
    matching.max_by_key(|(_, module)| module.len()).map(|(rank, _)| rank)
}

#[test]
fn modules_use_only_modules_below_them() {
    let sources = sources();
    let mut violations = Vec::new();
    for (file, _) in sources.iter() {
        let own = rank(file).unwrap_or_else(|| panic!("{file} is not in ORDER"));
        for (used, path) in sources.used_by(file) {
            if rank(used) > Some(own) {
                violations.push(format!("{file} uses {path} of {used}"));
            }
        }
    }
    assert!(violations.is_empty(), "{violations:#?}");
}

#[test]
fn migrate_uses_only_the_dynamodb_store() {
    let sources = sources();
    let others: Vec<_> =
        sources.used_by("migrate.rs").into_keys().filter(|used| !used.starts_with("store/dynamodb/")).collect();
    assert!(others.is_empty(), "{others:?}");
}

#[test]
fn no_files_import_each_other_in_a_cycle() {
    let sources = sources();
    let uses: BTreeMap<&str, Vec<&str>> =
        sources.iter().map(|(file, _)| (file, sources.used_by(file).into_keys().collect())).collect();
    let cycles: BTreeSet<String> = uses.keys().filter_map(|file| shortest_cycle(file, &uses)).collect();
    assert!(cycles.is_empty(), "{cycles:#?}");
}

/// The shortest cycle through a file. The text starts at the first file in alphabetical order, so that equal cycles have equal texts.
fn shortest_cycle(file: &str, uses: &BTreeMap<&str, Vec<&str>>) -> Option<String> {
    let mut reached_from: BTreeMap<&str, &str> = BTreeMap::new();
    let mut queue = std::collections::VecDeque::from([file]);
    while let Some(at) = queue.pop_front() {
        for &next in &uses[at] {
            if reached_from.contains_key(next) {
                continue;
            }
            reached_from.insert(next, at);
            queue.push_back(next);
        }
    }
    let mut cycle = vec![*reached_from.get(file)?];
    while cycle[cycle.len() - 1] != file {
        cycle.push(reached_from[cycle[cycle.len() - 1]]);
    }
    cycle.reverse();
    let first = (0..cycle.len()).min_by_key(|at| cycle[*at])?;
    cycle.rotate_left(first);
    cycle.push(cycle[0]);
    Some(cycle.join(" → "))
}

#[test]
fn outside_crates_and_clocks_are_used_only_in_their_places() {
    let sources = sources();
    for (file, _) in sources.iter() {
        let tokens = sources.tokens(file);
        for (name, places) in ONLY_IN {
            let parts: Vec<&str> = name.split("::").flat_map(|part| ["::", part]).skip(1).collect();
            let found = tokens.windows(parts.len()).any(|window| window.iter().eq(parts.iter()));
            assert!(!found || places.iter().any(|place| file.starts_with(place)), "{file} must not use {name}");
        }
    }
}

#[test]
fn files_begin_with_a_summary_and_are_short() {
    for folder in ["src", "tests", "benches", "tools"] {
        for (file, text) in files(folder) {
            assert!(text.starts_with("//! "), "{folder}/{file} does not begin with `//! `");
            let lines = text.lines().count();
            assert!(lines <= MAX_LINES, "{folder}/{file} has {lines} lines");
        }
    }
    let mut lengths: Vec<usize> = sources().iter().map(|(_, text)| text.lines().count()).collect();
    lengths.sort_unstable();
    let median = lengths[lengths.len() / 2];
    assert!(median <= MAX_MEDIAN_LINES, "the median length of files in src is {median} lines");
}
