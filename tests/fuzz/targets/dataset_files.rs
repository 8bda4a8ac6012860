//! Any text as the file of a dataset: it is read, or its mistake is named.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ruam_event::DatasetSpec;
use ruam_transform::Transform;

fuzz_target!(|text: &str| {
    let read = DatasetSpec::parse("bora/person.toml", text).and_then(|spec| Transform::new(&spec, 1 << 20).map(drop));
    if let Err(mistake) = read {
        assert!(!mistake.to_string().is_empty());
    }
});
