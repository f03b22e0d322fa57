#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| argosy_fuzz::cron(data));
