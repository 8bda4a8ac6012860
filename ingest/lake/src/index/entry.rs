//! What an index knows of a key: where its row is, and which change it comes from.

use ruam_event::Position;

/// The row of a key, as it was when it was entered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// The file's number in the index.
    pub file: u32,
    /// The row's number in the file.
    pub row: u32,
    /// The partition of the change.
    pub partition: i32,
    /// The row's place in the order of its source.
    position: Position,
}

impl Entry {
    /// How many bytes it has.
    pub(super) const LEN: usize = 24;

    /// A position that is not one comes before all others: its row was written by somebody else.
    pub(super) fn new(file: u32, row: u32, partition: i32, position: &str) -> Self {
        Self { file, row, partition, position: Position::parse(position.as_bytes()).unwrap_or_default() }
    }

    /// Whether a change comes after the row.
    pub(super) fn is_before(&self, change: &str) -> bool {
        self.position.to_text().as_slice() < change.as_bytes()
    }

    pub(super) fn encode(&self) -> [u8; Self::LEN] {
        let mut bytes = [0; Self::LEN];
        bytes[..4].copy_from_slice(&self.file.to_le_bytes());
        bytes[4..8].copy_from_slice(&self.row.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.partition.to_le_bytes());
        bytes[12..20].copy_from_slice(&self.position.major.to_le_bytes());
        bytes[20..].copy_from_slice(&self.position.minor.to_le_bytes());
        bytes
    }

    pub(super) fn decode(bytes: &[u8; Self::LEN]) -> Self {
        let four = |at: usize| [bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]];
        let [low, high] = [four(12), four(16)].map(|half| u64::from(u32::from_le_bytes(half)));
        Self {
            file: u32::from_le_bytes(four(0)),
            row: u32::from_le_bytes(four(4)),
            partition: i32::from_le_bytes(four(8)),
            position: Position { major: high << 32 | low, minor: u32::from_le_bytes(four(20)) },
        }
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
            (major, minor) in any::<(u64, u32)>(),
        ) {
            let position = Position { major, minor };
            let entry = Entry::new(file, row, partition, &position.to_string());
            prop_assert_eq!(Entry::decode(&entry.encode()), entry);
        }
    }

    #[test]
    fn comes_before_what_follows_and_not_itself() {
        let at = |major: u64| Position::new(major).to_string();
        let entry = Entry::new(0, 0, 0, &at(9));
        assert!(entry.is_before(&at(10)) && !entry.is_before(&at(9)) && !entry.is_before(&at(8)));
        assert!(Entry::new(0, 0, 0, "text").is_before(&at(1)));
    }
}
