//! Fuzzes the frame parser of the log:
//! hands the fuzzer's bytes to [`terrane_fuzz::targets::frame`].
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| terrane_fuzz::targets::frame(bytes));
