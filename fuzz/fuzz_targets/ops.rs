//! Fuzzes scripts of operations beside the model:
//! hands the fuzzer's bytes to [`terrane_fuzz::targets::ops`].
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| terrane_fuzz::targets::ops(bytes));
