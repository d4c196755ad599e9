//! A file of settings, and the environment over it.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| stream_manager_fuzz::settings::check(input));
