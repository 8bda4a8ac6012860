//! The rows of a change, written before it is known where it will stand.
//!
//! What passes through: a row of whoever reads rows, as the bytes that the log will hold of it, in one piece of memory.
//! A [`Row`] has one for each of its values; those are costly to hand from the thread that reads to the one that
//! publishes, which would find none of them in its caches and give each back to another thread's heap.

use super::{encode_key, write_rest, write_rows};
use crate::change::{Occurrence, Op, Row};
use crate::dataset::DatasetId;

/// A change of one row of which nothing is told but this row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WrittenChange {
    op: Op,
    /// The key of its record, and the beginning of the envelope behind it.
    text: Vec<u8>,
    key_bytes: usize,
}

impl WrittenChange {
    /// Writes a change: of an insert, an update or a snapshot with the row after it, of a delete with the one before.
    /// `key`: the names of the key columns, which the row has to have.
    pub fn new(op: Op, row: &Row, key: &[String]) -> Self {
        let bytes = row.iter().map(|(name, value)| name.len() + value.about_bytes() + 6).sum::<usize>();
        let mut text = Vec::with_capacity(32 + if key.is_empty() { bytes } else { 2 * bytes });
        if !key.is_empty() {
            encode_key(row, key, &mut text);
        }
        let key_bytes = text.len();
        let (before, after) = if op.leaves_row() { (None, Some(row)) } else { (Some(row), None) };
        write_rows(before, after, &mut text);
        Self { op, text, key_bytes }
    }

    /// What happened.
    pub fn op(&self) -> Op {
        self.op
    }

    /// The key of the record that carries it, as [`encode_key`] writes it; empty where there are no key columns.
    pub fn key(&self) -> &[u8] {
        &self.text[..self.key_bytes]
    }

    /// Writes the value of the record that carries it, as [`super::encode`] does.
    pub fn encode(&self, dataset: &DatasetId, event: Occurrence, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.text[self.key_bytes..]);
        write_rest(dataset, event, out);
    }
}
