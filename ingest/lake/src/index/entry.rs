//! What an index knows of a key: where its row is, and which change it comes from.

use ruam_event::Position;
use unsigned_varint::{decode, encode};

use crate::error::BoxError;

/// The row of a key, as it was when it was entered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// The file's number in the index.
    pub file: u32,
    /// The row's number in the file.
    pub row: u32,
    /// The partition of the change.
    pub partition: i32,
    position: Stood,
}

/// The row's place in the order of its source: as numbers, or as any text of another writer.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Stood {
    At(Position),
    Text(String),
}

impl Entry {
    pub(super) fn new(file: u32, row: u32, partition: i32, position: &str) -> Self {
        let position = Position::parse(position.as_bytes()).map_or_else(|| Stood::Text(position.to_owned()), Stood::At);
        Self { file, row, partition, position }
    }

    /// Whether a change comes after the row.
    pub(super) fn is_before(&self, change: &str) -> bool {
        match &self.position {
            Stood::At(position) => position.to_text().as_slice() < change.as_bytes(),
            Stood::Text(text) => text.as_str() < change,
        }
    }

    /// Puts the entry's bytes in the place of what is there. Numbers are as long as they are large:
    /// the store keeps values of up to 20 bytes without an allocation.
    pub(super) fn encode(&self, bytes: &mut Vec<u8>) {
        bytes.clear();
        for number in [self.file, self.row, self.partition.cast_unsigned()] {
            bytes.extend(encode::u32(number, &mut encode::u32_buffer()));
        }
        match &self.position {
            Stood::At(position) => {
                bytes.push(0);
                bytes.extend(encode::u64(position.major, &mut encode::u64_buffer()));
                bytes.extend(encode::u32(position.minor, &mut encode::u32_buffer()));
            }
            Stood::Text(text) => {
                bytes.push(1);
                bytes.extend(text.as_bytes());
            }
        }
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, BoxError> {
        let (file, rest) = decode::u32(bytes)?;
        let (row, rest) = decode::u32(rest)?;
        let (partition, rest) = decode::u32(rest)?;
        let position = match rest.split_first() {
            Some((0, numbers)) => {
                let (major, rest) = decode::u64(numbers)?;
                let (minor, rest) = decode::u32(rest)?;
                rest.is_empty().then_some(Stood::At(Position { major, minor }))
            }
            Some((1, text)) => Some(Stood::Text(std::str::from_utf8(text)?.to_owned())),
            _ => None,
        };
        let position = position.ok_or("a damaged entry of a key")?;
        Ok(Self { file, row, partition: partition.cast_signed(), position })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn comes_back_as_it_was(
            (file, row, partition) in any::<(u32, u32, i32)>(),
            position in prop_oneof![
                any::<(u64, u32)>().prop_map(|(major, minor)| {
                    String::from_utf8(Position { major, minor }.to_text().to_vec()).unwrap()
                }),
                ".*",
            ],
        ) {
            let (entry, mut bytes) = (Entry::new(file, row, partition, &position), vec![7]);
            entry.encode(&mut bytes);
            prop_assert_eq!(Entry::decode(&bytes).unwrap(), entry);
        }

        #[test]
        fn other_bytes_are_an_error_and_no_crash(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            if let Ok(entry) = Entry::decode(&bytes) {
                let mut again = Vec::new();
                entry.encode(&mut again);
                prop_assert_eq!(again, bytes);
            }
        }
    }
}
