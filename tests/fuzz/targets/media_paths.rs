//! Fuzz target for the paths of media requests, which the check of grants compares with the granted content.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| stream_manager_fuzz::media_paths::check(input));
