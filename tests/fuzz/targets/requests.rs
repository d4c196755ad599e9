//! Fuzz target for whole requests: method, path, query, headers and body.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| stream_manager_fuzz::requests::check(input));
