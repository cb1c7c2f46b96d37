//! Fuzzes entries and records of the log:
//! hands the fuzzer's bytes to [`terrane_fuzz::targets::entry`].
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| terrane_fuzz::targets::entry(bytes));
