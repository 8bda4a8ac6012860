//! A change event in Avro, with its schema in a registry: Confluent's wire format.
//!
//! What passes through: the bytes of a record's value or key, split by [`unframe`] into the id of a schema and what
//! it describes; that, column by column into a [`RowSink`], as [`decode`](super::decode) does with JSON. Nothing here
//! asks a registry: whoever has the bytes brings their [`AvroSchema`].
//!
//! Guaranteed: no bytes break it, whatever their schema. A length is believed only as far as there are bytes for it,
//! and the work for a record is bounded by its size and that of its schema. Errors name the place and never repeat a
//! value.
//!
//! The reader is our own, since a record that is wrong has to become a reject among others that are right, and the
//! columns have to become text, which readers into Arrow's types do not offer; and since `connect.name`, by which
//! Kafka Connect says what a number means, stands beside primitive types, where the crate apache-avro drops it.
//!
//! Framing: <https://docs.confluent.io/platform/current/schema-registry/fundamentals/serdes-develop/index.html#wire-format>.
//! Encoding: <https://avro.apache.org/docs/1.12.0/specification/#binary-encoding>.

mod reader;
mod schema;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;

pub use schema::{AvroSchema, SchemaError};

use self::reader::Reader;
use super::reader::image;
use super::{DecodeError, Decoded, Image, RowSink};
use crate::change::Op;

/// The most schemas that are kept.
const MOST_KEPT: usize = 256;

/// What a registry says of an id.
#[derive(Clone, Debug)]
pub enum Registered {
    /// The schema.
    Schema(Arc<AvroSchema>),
    /// There is no schema of that id.
    Unknown,
    /// It is not a schema of Avro, or not one that can be read.
    Unreadable,
}

/// What a registry has said, by id.
#[derive(Debug, Default)]
pub struct AvroSchemas(HashMap<u32, Registered>);

impl AvroSchemas {
    /// Takes note of what a registry says.
    pub fn learn(&mut self, id: u32, registered: Registered) {
        self.0.insert(id, registered);
    }

    /// What it has said of an id; none where it has not been asked.
    pub fn get(&self, id: u32) -> Option<&Registered> {
        self.0.get(&id)
    }

    /// Forgets what may be otherwise the next time, and all where it has become much.
    pub fn trim(&mut self) {
        if self.0.len() > MOST_KEPT {
            self.0.clear();
        }
        self.0.retain(|_, registered| !matches!(registered, Registered::Unknown));
    }
}

/// The id of a schema, and the bytes that it describes; none where the bytes are not framed so.
pub fn unframe(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let (head, rest) = bytes.split_first_chunk::<5>()?;
    let [0, id @ ..] = *head else { return None };
    Some((u32::from_be_bytes(id), rest))
}

impl AvroSchema {
    /// Reads a change event into a sink: [`decode`](super::decode) in Avro.
    ///
    /// # Errors
    /// Where the schema is not that of an envelope or the bytes do not fit it; the sink's row is void then.
    pub fn decode<'a>(&self, bytes: &'a [u8], sink: &mut impl RowSink) -> Result<Decoded<'a>, DecodeError> {
        let mut reader = Reader::new(self, bytes);
        let fields = reader.record(self.root())?.ok_or(DecodeError::NotEnvelope("it is not a record"))?;
        let (mut op, mut source_time, mut before, mut has_after) = (None, None, None, false);
        for field in fields {
            let start = reader.at();
            match &*field.name {
                "after" => {
                    if let Some(row) = reader.record(field.node)? {
                        reader.read_row(row, sink)?;
                        has_after = true;
                    }
                }
                "before" => {
                    if reader.record(field.node)?.is_some() {
                        reader.go_back(start);
                        reader.skip(field.node)?;
                        before = bytes.get(start..reader.at()).map(|bytes| (field.node, bytes));
                    }
                }
                "op" => op = Some(reader.text(field.node)?.and_then(Op::from_letter).ok_or(DecodeError::UnknownOp)?),
                "source" => source_time = reader.source_time(field.node)?,
                _ => reader.skip(field.node)?,
            }
        }
        reader.finish()?;
        let Some(op) = op else {
            return Err(if self.is_boundary() {
                DecodeError::Boundary
            } else {
                DecodeError::NotEnvelope("it has no `op`")
            });
        };
        let image = image(op, has_after, before.is_some())?;
        if let (Image::Old, Some((node, bytes))) = (image, before) {
            self.read_record(node, bytes, sink)?;
        }
        let before = before.filter(|_| op == Op::Update).map(|(_, bytes)| bytes);
        Ok(Decoded { op, image, source_time, before })
    }

    /// Reads a record of columns, such as a record's key, into a sink.
    ///
    /// # Errors
    /// Where the schema is not that of a record or the bytes do not fit it; the sink's row is void then.
    pub fn decode_row(&self, bytes: &[u8], sink: &mut impl RowSink) -> Result<(), DecodeError> {
        self.read_record(self.root(), bytes, sink)
    }

    /// Reads what [`Decoded`] has as the row before an update.
    ///
    /// # Errors
    /// As for [`decode_row`](Self::decode_row).
    pub fn decode_before(&self, bytes: &[u8], sink: &mut impl RowSink) -> Result<(), DecodeError> {
        let before = self.fields(self.root()).iter().find(|field| &*field.name == "before");
        let before = before.ok_or(DecodeError::NotEnvelope("it has no `before`"))?;
        self.read_record(before.node, bytes, sink)
    }

    fn read_record(&self, node: usize, bytes: &[u8], sink: &mut impl RowSink) -> Result<(), DecodeError> {
        let mut reader = Reader::new(self, bytes);
        let fields = reader.record(node)?.ok_or(DecodeError::NotEnvelope("a row is not a record"))?;
        reader.read_row(fields, sink)?;
        reader.finish()
    }
}
