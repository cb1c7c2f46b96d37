//! Fuzzes the record and schema codec:
//! hands the fuzzer's bytes to [`terrane_fuzz::targets::record`].
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| terrane_fuzz::targets::record(bytes));
