//! Tokens: raw ones, and headers and claims that are signed.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| stream_manager_fuzz::tokens::check(input));
