//! Fuzzes what control entries of a shard say:
//! hands the fuzzer's bytes to [`terrane_fuzz::targets::control`].
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| terrane_fuzz::targets::control(bytes));
