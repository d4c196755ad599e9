//! Replays the fuzzers' corpus: inputs that once mattered, and what must hold of each parser.

use std::fs;
use std::path::Path;

#[path = "../fuzz/properties/mod.rs"]
mod properties;

fn replay(target: &str, check: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus").join(target);
    let mut seeds: Vec<_> =
        fs::read_dir(&folder).expect("a corpus").map(|seed| seed.expect("a seed").path()).collect();
    seeds.sort();
    assert!(!seeds.is_empty(), "{folder:?} is empty");
    for seed in seeds {
        eprintln!("{}", seed.display());
        check(&fs::read(seed).expect("a seed"));
    }
}

#[test]
fn names_hold() {
    replay("names", properties::names::check);
}

#[test]
fn items_hold() {
    replay("items", properties::items::check);
}

#[test]
fn requests_hold() {
    replay("requests", properties::requests::check);
}

#[test]
fn starts_hold() {
    replay("starts", properties::starts::check);
}

#[test]
fn settings_hold() {
    replay("settings", properties::settings::check);
}

#[test]
fn tokens_hold() {
    replay("tokens", properties::tokens::check);
}
