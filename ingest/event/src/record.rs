//! Records as they lie in the log, many at a time.

use crate::position::{OffsetRange, Partition, Position};

/// A run of records of one partition, in the order of their offsets, in a handful of allocations.
///
/// This is what the log hands to the decoder. Nothing in it is interpreted yet.
#[derive(Clone, Debug)]
pub struct Records {
    /// Where they come from.
    pub partition: Partition,
    /// The offsets covered. May hold more offsets than records: Kafka leaves gaps where a
    /// transaction ended or a topic was compacted.
    pub range: OffsetRange,
    /// Each record's offset.
    pub offsets: Vec<i64>,
    /// When each record reached the log, in milliseconds since 1970-01-01 UTC.
    pub arrived: Vec<i64>,
    /// Each record's key.
    pub keys: ByteColumn,
    /// Each record's value; none is Kafka's tombstone.
    pub values: ByteColumn,
    /// Each record's CloudEvents id; none where a record has no such header.
    pub ids: ByteColumn,
    /// Each record's place in the order of its source; none where a record does not say.
    pub positions: Vec<Option<Position>>,
    /// Each record's signature, where the dataset's records are signed ([`Records::sign`]).
    pub signatures: ByteColumn,
}

impl Records {
    /// No records yet, to be read from `start` on.
    pub fn new(partition: Partition, start: i64) -> Self {
        Self {
            partition,
            range: OffsetRange { start, end: start },
            offsets: Vec::new(),
            arrived: Vec::new(),
            keys: ByteColumn::default(),
            values: ByteColumn::default(),
            ids: ByteColumn::default(),
            positions: Vec::new(),
            signatures: ByteColumn::default(),
        }
    }

    /// How many records.
    pub fn len(&self) -> usize {
        self.offsets.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.offsets.is_empty()
    }

    /// How many bytes of memory the records hold.
    pub fn bytes(&self) -> usize {
        let columns = [&self.keys, &self.values, &self.ids, &self.signatures];
        columns.iter().map(|column| column.bytes.len()).sum::<usize>() + self.len() * 48
    }

    /// Adds the next record.
    pub fn push(&mut self, record: Record<'_>) {
        self.offsets.push(record.offset);
        self.arrived.push(record.arrived);
        self.keys.push(record.key);
        self.values.push(record.value);
        self.ids.push(record.id);
        self.positions.push(record.position);
        self.range.end = record.offset + 1;
    }

    /// Gives the record that was added last its signature, if it has one. It is done for each record or for none.
    pub fn sign(&mut self, signature: Option<&[u8]>) {
        self.signatures.push(signature);
    }
}

/// One record, borrowed.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// Its offset.
    pub offset: i64,
    /// When it reached the log, in milliseconds since 1970-01-01 UTC.
    pub arrived: i64,
    /// Its key.
    pub key: Option<&'a [u8]>,
    /// Its value.
    pub value: Option<&'a [u8]>,
    /// Its CloudEvents id.
    pub id: Option<&'a [u8]>,
    /// Its place in the order of its source.
    pub position: Option<Position>,
}

/// Byte strings one after another in one allocation, any of which may be missing.
#[derive(Clone, Debug, Default)]
pub struct ByteColumn {
    bytes: Vec<u8>,
    ends: Vec<usize>,
    present: Vec<bool>,
}

impl ByteColumn {
    /// Adds a byte string.
    pub fn push(&mut self, value: Option<&[u8]>) {
        self.bytes.extend_from_slice(value.unwrap_or_default());
        self.ends.push(self.bytes.len());
        self.present.push(value.is_some());
    }

    /// The byte string at `index`; `None` where it is missing or past the end.
    pub fn get(&self, index: usize) -> Option<&[u8]> {
        if !*self.present.get(index)? {
            return None;
        }
        let start = index.checked_sub(1).map_or(0, |before| self.ends[before]);
        Some(&self.bytes[start..self.ends[index]])
    }
}

#[cfg(test)]
mod tests {
    use super::ByteColumn;

    #[test]
    fn missing_is_not_empty() {
        let mut column = ByteColumn::default();
        for value in [Some(&b"a"[..]), None, Some(b""), Some(b"bc")] {
            column.push(value);
        }
        let read: Vec<_> = (0..5).map(|index| column.get(index)).collect();
        assert_eq!(read, [Some(&b"a"[..]), None, Some(b""), Some(b"bc"), None]);
    }
}
