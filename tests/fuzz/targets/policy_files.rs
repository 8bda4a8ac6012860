//! Any text as a policy file: it is read, or its mistakes are named.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ruam_fuzz::DATASETS;
use ruam_query::{Policies, PseudonymKey};

fuzz_target!(|text: &str| {
    let files = [("policies/any.toml".to_owned(), text.to_owned())];
    if let Err(mistakes) = Policies::read(&files, &DATASETS, &PseudonymKey::default()) {
        assert!(!mistakes.is_empty() && mistakes.iter().all(|mistake| !mistake.to_string().is_empty()));
    }
});
