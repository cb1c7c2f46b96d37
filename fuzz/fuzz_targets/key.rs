//! Fuzzes the key codec:
//! hands the fuzzer's bytes to [`terrane_fuzz::targets::key`].
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| terrane_fuzz::targets::key(bytes));
