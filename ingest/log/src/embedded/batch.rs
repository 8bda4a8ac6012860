//! Kafka's record batch (format 2) from the outside: its header is read and checked, the records
//! in it are stored and sent as the producer compressed them.
//!
//! Format: <https://kafka.apache.org/documentation/#recordbatch>.

use kafka_protocol::error::ResponseError;

/// The bytes before the records.
pub(super) const HEADER_LEN: usize = 61;
/// The bytes before those that the batch's length counts.
const LENGTH_END: usize = 12;
const CRC_END: usize = 21;
const TRANSACTIONAL_OR_CONTROL: i16 = 0b11_0000;

/// What a batch's header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    /// The offset of the first record.
    pub base_offset: i64,
    /// The length of the whole batch in bytes.
    pub len: usize,
    /// The latest time of a record, in milliseconds since 1970.
    pub max_timestamp: i64,
    /// Who sent it; -1 where the producer is not idempotent.
    pub producer_id: i64,
    /// Which life of the producer.
    pub producer_epoch: i16,
    /// The producer's count of the first record.
    pub base_sequence: i32,
    /// How many records.
    pub records: i32,
    attributes: i16,
    last_offset_delta: i32,
    magic: i8,
    crc: u32,
}

impl Header {
    /// Reads the header at the front of some bytes; none where they are too few.
    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        let header: &[u8; HEADER_LEN] = bytes.first_chunk()?;
        let i16_at = |at: usize| i16::from_be_bytes([header[at], header[at + 1]]);
        let i32_at = |at: usize| i32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        let i64_at = |at: usize| (i64::from(i32_at(at)) << 32) | i64::from(i32_at(at + 4) as u32);
        Some(Self {
            base_offset: i64_at(0),
            len: LENGTH_END + usize::try_from(i32_at(8)).ok()?,
            magic: header[16] as i8,
            crc: i32_at(17) as u32,
            attributes: i16_at(21),
            last_offset_delta: i32_at(23),
            max_timestamp: i64_at(35),
            producer_id: i64_at(43),
            producer_epoch: i16_at(51),
            base_sequence: i32_at(53),
            records: i32_at(57),
        })
    }

    /// The same batch at another offset.
    pub(super) fn at(self, base_offset: i64) -> Self {
        Self { base_offset, ..self }
    }

    /// The offset after the last record.
    pub(super) fn end_offset(&self) -> i64 {
        self.base_offset + i64::from(self.last_offset_delta) + 1
    }

    /// The producer's count of the last record.
    pub(super) fn last_sequence(&self) -> i32 {
        sequence_after(self.base_sequence, self.records - 1)
    }

    /// Whether the bytes of the batch are those that were sent.
    pub(super) fn is_intact(&self, batch: &[u8]) -> bool {
        self.magic == 2
            && self.len >= HEADER_LEN
            && batch.len() >= self.len
            && crc32c::crc32c(&batch[CRC_END..self.len]) == self.crc
    }

    /// Whether a producer may append this batch.
    pub(super) fn check(&self, batch: &[u8], max_len: usize) -> Result<(), ResponseError> {
        if self.magic != 2 {
            Err(ResponseError::UnsupportedForMessageFormat)
        } else if self.len > max_len {
            Err(ResponseError::MessageTooLarge)
        } else if !self.is_intact(batch) {
            Err(ResponseError::CorruptMessage)
        } else if self.records < 1
            || self.last_offset_delta != self.records - 1
            || self.attributes & TRANSACTIONAL_OR_CONTROL != 0
        {
            Err(ResponseError::InvalidRecord)
        } else {
            Ok(())
        }
    }
}

/// Producers count their records from 0 to i32::MAX and then from 0 again.
pub(super) fn sequence_after(sequence: i32, by: i32) -> i32 {
    ((i64::from(sequence) + i64::from(by)) & i64::from(i32::MAX)) as i32
}

/// Writes the offset that the log gives a batch; the checksum does not cover it.
pub(super) fn set_base_offset(batch: &mut [u8], offset: i64) {
    if let Some(head) = batch.first_chunk_mut::<8>() {
        *head = offset.to_be_bytes();
    }
}

#[cfg(test)]
pub(super) mod testing {
    use super::*;

    /// A batch of so many records, with so many bytes of records that nobody reads.
    pub(in super::super) fn batch(records: i32, payload: usize, producer: Option<(i64, i16, i32)>) -> Vec<u8> {
        let mut bytes = vec![7_u8; HEADER_LEN + payload];
        let (producer_id, epoch, sequence) = producer.unwrap_or((-1, -1, -1));
        bytes[0..8].copy_from_slice(&0_i64.to_be_bytes());
        let len = (bytes.len() - LENGTH_END) as i32;
        bytes[8..12].copy_from_slice(&len.to_be_bytes());
        bytes[12..16].copy_from_slice(&0_i32.to_be_bytes());
        bytes[16] = 2;
        bytes[21..23].copy_from_slice(&0_i16.to_be_bytes());
        bytes[23..27].copy_from_slice(&(records - 1).to_be_bytes());
        bytes[27..35].copy_from_slice(&1000_i64.to_be_bytes());
        bytes[35..43].copy_from_slice(&(1000 + i64::from(records)).to_be_bytes());
        bytes[43..51].copy_from_slice(&producer_id.to_be_bytes());
        bytes[51..53].copy_from_slice(&epoch.to_be_bytes());
        bytes[53..57].copy_from_slice(&sequence.to_be_bytes());
        bytes[57..61].copy_from_slice(&records.to_be_bytes());
        let crc = crc32c::crc32c(&bytes[CRC_END..]);
        bytes[17..21].copy_from_slice(&crc.to_be_bytes());
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_batch_is_checked() {
        let good = testing::batch(3, 20, Some((9, 0, 5)));
        let header = Header::read(&good).unwrap();
        assert_eq!((header.len, header.records, header.end_offset(), header.last_sequence()), (good.len(), 3, 3, 7));
        assert_eq!(header.check(&good, 1000), Ok(()));
        assert_eq!(header.check(&good, 10), Err(ResponseError::MessageTooLarge));
        let mut bad = good.clone();
        bad[70] ^= 1;
        assert_eq!(header.check(&bad, 1000), Err(ResponseError::CorruptMessage));
        assert_eq!(header.check(&good[..good.len() - 1], 1000), Err(ResponseError::CorruptMessage));
    }

    #[test]
    fn sequences_wrap() {
        assert_eq!(sequence_after(i32::MAX, 1), 0);
        assert_eq!(sequence_after(i32::MAX - 1, 3), 1);
    }

    proptest! {
        #[test]
        fn no_bytes_break_it(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Some(header) = Header::read(&bytes) {
                let _ = header.check(&bytes, 100);
            }
        }
    }
}
