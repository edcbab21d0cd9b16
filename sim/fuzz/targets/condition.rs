//! libFuzzer's entry to [`kedge_fuzz::condition`].

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| kedge_fuzz::condition(data));
