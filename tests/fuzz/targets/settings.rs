//! Fuzz target for a settings file with environment variables that override it.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| stream_manager_fuzz::settings::check(input));
