//! Fuzz target for the headers and the body of a start.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| stream_manager_fuzz::starts::check(input));
