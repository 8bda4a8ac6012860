//! Where each of some rows is, after they were sorted.
//!
//! What passes through: one number per row, in lines of [`LINE`] bytes, so that one row's can be read by
//! itself: by a compaction of an upsert table into a file beside it, and from there into the key index.
//!
//! Guaranteed: what was damaged, or belongs to another line, is an error and no place: each line has a
//! checksum.
//!
//! Such a file is of no use once the index has read it, and no version of the table names it but in a
//! tag. So a vacuum takes it away after the retention, and whoever comes later reads keys instead.

use deltalake::DeltaTable;
use object_store::path::Path;
use object_store::{ObjectStoreExt, PutPayload};
use xxhash_rust::xxh3::xxh3_64;

use crate::error::BoxError;

/// How many places share a checksum.
pub(crate) const PLACES: usize = 15;
/// The bytes of so many places and their checksum.
pub(crate) const LINE: usize = BARE + size_of::<u32>();
const BARE: usize = PLACES * size_of::<u32>();
/// No row is there: what the last line is filled with.
pub(crate) const NOWHERE: u32 = u32::MAX;

/// The bytes of some places.
pub(crate) fn encode(places: &[u32]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(places.len().div_ceil(PLACES) * LINE);
    for (number, places) in places.chunks(PLACES).enumerate() {
        let start = bytes.len();
        bytes.extend(places.iter().flat_map(|place| place.to_le_bytes()));
        bytes.extend(std::iter::repeat_n(NOWHERE, PLACES - places.len()).flat_map(u32::to_le_bytes));
        let checksum = checksum(&bytes[start..], number);
        bytes.extend(checksum);
    }
    bytes
}

/// The places that some bytes hold.
///
/// # Errors
/// Where they are damaged.
pub(crate) fn decode(bytes: &[u8]) -> Result<Vec<u32>, BoxError> {
    let (lines, rest) = bytes.as_chunks::<LINE>();
    if !rest.is_empty() {
        return Err("places of rows were cut off".into());
    }
    let mut places = Vec::with_capacity(lines.len() * PLACES);
    for (number, line) in lines.iter().enumerate() {
        places.extend(decode_line(line, number)?);
    }
    while places.last() == Some(&NOWHERE) {
        places.pop();
    }
    Ok(places)
}

/// The places that a line holds.
///
/// # Errors
/// Where it is damaged, or another line.
pub(crate) fn decode_line(line: &[u8; LINE], number: usize) -> Result<[u32; PLACES], BoxError> {
    let (bare, found) = line.split_at(BARE);
    if checksum(bare, number) != *found {
        return Err(format!("line {number} of places of rows is damaged").into());
    }
    let (bare, _) = bare.as_chunks::<4>();
    let mut places = [NOWHERE; PLACES];
    places.iter_mut().zip(bare).for_each(|(place, bytes)| *place = u32::from_le_bytes(*bytes));
    Ok(places)
}

fn checksum(bare: &[u8], number: usize) -> [u8; 4] {
    (xxh3_64(bare) as u32).wrapping_add(number as u32).to_le_bytes()
}

/// Writes places into a file of their own beside a table; returns its name.
pub(crate) async fn write(table: &DeltaTable, places: &[u32]) -> Result<String, BoxError> {
    let name = format!("places_{}.bin", uuid::Uuid::new_v4());
    let store = table.log_store().object_store(None);
    store.put(&Path::from(name.as_str()), PutPayload::from(encode(places))).await?;
    Ok(name)
}

/// Reads a file of places.
pub(crate) async fn read(table: &DeltaTable, name: &str) -> Result<Vec<u32>, BoxError> {
    let file = table.log_store().object_store(None).get(&Path::from(name)).await?;
    decode(&file.bytes().await?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn come_back_as_they_were(places in prop::collection::vec(0..NOWHERE, 0..70)) {
            let bytes = encode(&places);
            prop_assert_eq!(decode(&bytes).unwrap(), places.clone());
            for (row, place) in places.iter().enumerate() {
                let line = bytes[row / PLACES * LINE..][..LINE].try_into().unwrap();
                prop_assert_eq!(decode_line(line, row / PLACES).unwrap()[row % PLACES], *place);
            }
        }

        #[test]
        fn damage_is_told(places in prop::collection::vec(0..NOWHERE, 1..70), at in any::<prop::sample::Index>(), bit in 0..8_u32) {
            let mut bytes = encode(&places);
            let at = at.index(bytes.len());
            bytes[at] ^= 1_u8 << bit;
            prop_assert!(decode(&bytes).is_err());
            prop_assert!(decode(&bytes[1..]).is_err());
        }
    }

    #[test]
    fn a_line_in_the_place_of_another_is_damage() {
        let bytes = encode(&(0..30).collect::<Vec<_>>());
        assert!(decode(&[&bytes[LINE..], &bytes[..LINE]].concat()).is_err());
    }
}
