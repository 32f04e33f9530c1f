#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| watershed_oracle::leases::json(input));
