//! libFuzzer's entry to [`kedge_fuzz::packet`].

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| kedge_fuzz::packet(data));
