//! Bearer tokens: raw tokens, and signed headers with claims.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| stream_manager_fuzz::tokens::check(input));
