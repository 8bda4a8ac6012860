//! Any body, in each way in which agencies send.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ruam_fuzz::GATEWAY;

fuzz_target!(|sent: (u8, &[u8])| GATEWAY.send(sent.0, sent.1));
