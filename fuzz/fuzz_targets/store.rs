//! Fuzzes the loader of META, map and log:
//! hands the fuzzer's bytes to [`terrane_fuzz::targets::store`].
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| terrane_fuzz::targets::store(bytes));
