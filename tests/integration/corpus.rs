//! Replays the fuzz corpus, and checks the properties of each parser for every input.

use std::fs;
use std::path::Path;

#[path = "../fuzz/properties/mod.rs"]
mod properties;

fn replay(target: &str, check: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus").join(target);
    let mut seeds: Vec<_> = fs::read_dir(&folder).unwrap().map(|seed| seed.unwrap().path()).collect();
    seeds.sort();
    assert!(!seeds.is_empty(), "{folder:?} is empty");
    for seed in seeds {
        eprintln!("{}", seed.display());
        check(&fs::read(seed).unwrap());
    }
}

macro_rules! replay_each {
    ($($target:ident),*) => {
        $(
            #[test]
            fn $target() {
                replay(stringify!($target), properties::$target::check);
            }
        )*
    };
}

replay_each!(names, items, media_paths, requests, starts, settings, tokens);
