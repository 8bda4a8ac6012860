//! Any bytes, by PostgreSQL's protocol.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ruam_fuzz::SERVERS;

fuzz_target!(|bytes: &[u8]| SERVERS.postgres(bytes).expect("the law is kept"));
