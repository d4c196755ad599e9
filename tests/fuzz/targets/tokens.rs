//! Fuzz target for bearer tokens: raw tokens, and tokens signed from a header and claims.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| stream_manager_fuzz::tokens::check(input));
