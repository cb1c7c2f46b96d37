//! Fuzzes the page verifier:
//! hands the fuzzer's bytes to [`terrane_fuzz::targets::page`].
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| terrane_fuzz::targets::page(bytes));
