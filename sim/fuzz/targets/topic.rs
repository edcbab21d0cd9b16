//! libFuzzer's entry to [`kedge_fuzz::topic`].

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| kedge_fuzz::topic(data));
