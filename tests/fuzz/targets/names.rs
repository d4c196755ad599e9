//! Fuzz target for user names, device ids, display texts, idempotency keys and stream ids.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| stream_manager_fuzz::names::check(input));
