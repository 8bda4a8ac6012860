//! Values of a prepared statement, from somebody who has signed in: any messages of Arrow, and sound ones in which
//! bytes are changed.
#![no_main]

use libfuzzer_sys::arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use ruam_fuzz::SERVERS;
use ruam_fuzz::strangers::sound_values;

#[derive(Arbitrary, Debug)]
enum Values {
    Any(Vec<(Vec<u8>, Vec<u8>)>),
    Changed(Vec<Change>),
}

#[derive(Arbitrary, Debug)]
struct Change {
    message: u8,
    is_head: bool,
    place: u16,
    with: u8,
}

fuzz_target!(|values: Values| {
    let values = match values {
        Values::Any(values) => values,
        Values::Changed(changes) => {
            let mut values = sound_values().expect("values");
            for Change { message, is_head, place, with } in changes {
                let count = values.len();
                let (head, body) = &mut values[usize::from(message) % count];
                let part = if is_head { head } else { body };
                let length = part.len().max(1);
                if let Some(byte) = part.get_mut(usize::from(place) % length) {
                    *byte = with;
                }
            }
            values
        }
    };
    SERVERS.flight_values(values).expect("the server stands it");
});
