//! libFuzzer's entry to [`kedge_fuzz::websocket`].

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| kedge_fuzz::websocket(data));
