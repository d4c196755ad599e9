//! Fuzz target for table items in DynamoDB's JSON format.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| stream_manager_fuzz::items::check(input));
