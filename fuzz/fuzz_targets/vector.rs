//! Fuzzes the records of vector indexes:
//! hands the fuzzer's bytes to [`terrane_fuzz::targets::vector`].
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| terrane_fuzz::targets::vector(bytes));
