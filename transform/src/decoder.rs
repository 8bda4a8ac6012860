//! Records to columns of text: the envelopes of a batch, read straight into Arrow builders.
//!
//! What passes through: the bytes of each record, once. What the dataset declares becomes a column
//! of text as it stood in the JSON, or as that would have it where the record is in Avro; what each
//! text means is the semantic types' business.
//!
//! Guaranteed: every column of the result has one entry per record, whatever the record held.

use std::collections::BTreeSet;

use arrow::array::{ArrayBuilder, BooleanBufferBuilder, StringArray, StringBuilder, TimestampMicrosecondBuilder};
use arrow::buffer::BooleanBuffer;
use ruam_event::change::Op;
use ruam_event::envelope::avro::{AvroSchema, AvroSchemas, Registered, unframe};
use ruam_event::envelope::{self, DecodeError, Image, RowSink, Scalar, Schemas};
use ruam_event::spec::{TopicEncoding, TopicFormat, UnknownColumns};
use ruam_event::{DatasetSpec, Mode, Records};

use crate::reject::{Faults, Reason};

const NOT_JSON: Reason = Reason::new("not_json", "the value is not JSON");
const NOT_ENVELOPE: Reason =
    Reason::new("not_an_event", "the value can be read, but is not a change event with `op` and rows");
const NOT_AVRO: Reason =
    Reason::new("not_avro", "the value does not begin with a zero byte and the id of a schema, as Confluent has it");
const UNKNOWN_SCHEMA: Reason =
    Reason::new("unknown_schema", "the schema registry has no schema of the id that the record names");
const UNREADABLE_SCHEMA: Reason =
    Reason::new("unreadable_schema", "the schema that the record names is not one of Avro that can be read");
const NOT_AS_SCHEMA: Reason = Reason::new("not_as_schema", "the bytes do not fit the schema that the record names");
const UNKNOWN_COLUMN: Reason = Reason::new("unknown_column", "the row has a column that the dataset does not declare");
const DUPLICATE_COLUMN: Reason = Reason::new("duplicate_column", "the row has a column twice");
const NESTED: Reason = Reason::new("nested_value", "an array or object stands where a single value belongs");
const TOO_LARGE: Reason = Reason::new("too_large", "the record is larger than limits.max_record_bytes");
const NOT_AN_INSERT: Reason =
    Reason::new("not_an_insert", "the dataset is only appended to, and the event updates, deletes or truncates");
const NO_KEY: Reason = Reason::new("missing_key", "a delete tells the key neither in its row nor in the record's key");

/// A batch of records as columns of text.
#[derive(Debug)]
pub(crate) struct Staged {
    /// One per declared column, one entry per record.
    pub columns: Vec<StringArray>,
    /// For each declared column, which records left it unchanged; none where no record did.
    pub unchanged: Vec<Option<BooleanBuffer>>,
    /// What each record does; none where it is filtered (a tombstone) or faulty.
    pub ops: Vec<Option<Op>>,
    /// When each change happened at its source.
    pub source_times: TimestampMicrosecondBuilder,
    /// Records that could not be read.
    pub faults: Faults,
    /// The keys that updates have left behind.
    pub left: Left,
    /// Ids of schemas that would have been needed. Where there is one, the rest is void.
    pub unasked: BTreeSet<u32>,
}

/// The keys that rows had before updates that gave them another, as far as texts can tell.
#[derive(Debug)]
pub(crate) struct Left {
    /// The records of those updates.
    pub records: Vec<u32>,
    /// One per declared column, one entry per record; empty where the column is not of the key.
    pub columns: Vec<StringArray>,
}

/// Reads records into columns.
#[derive(Debug)]
pub(crate) struct Decoder {
    names: Vec<String>,
    /// The columns by which rows are replaced; none where they never are.
    key: Vec<usize>,
    unknown: UnknownColumns,
    appends_only: bool,
    format: TopicFormat,
    encoding: TopicEncoding,
    /// What columns mean in records without a schema.
    schemas: Schemas,
    max_bytes: usize,
}

impl Decoder {
    pub(crate) fn new(spec: &DatasetSpec, max_bytes: usize) -> Self {
        let is_key = |column: &usize| spec.mode == Mode::Upsert && spec.is_key(spec.columns[*column].name());
        Self {
            names: spec.columns.iter().map(|column| column.name().to_owned()).collect(),
            key: (0..spec.columns.len()).filter(is_key).collect(),
            unknown: spec.unknown_columns,
            appends_only: spec.mode == Mode::Append,
            format: spec.topic_format(),
            encoding: spec.topic_encoding(),
            schemas: Schemas::declared(spec.topic_schema()),
            max_bytes,
        }
    }

    pub(crate) fn names(&self) -> &[String] {
        &self.names
    }

    pub(crate) fn decode(&self, records: &Records, registered: &AvroSchemas) -> Staged {
        let mut rows = Rows::new(self, records.len(), registered);
        let mut ops = Vec::with_capacity(records.len());
        let mut source_times = TimestampMicrosecondBuilder::with_capacity(records.len());
        for record in 0..records.len() {
            rows.begin(record);
            // Kafka's tombstone says that a key may be compacted away; the delete before it said
            // that the row is gone.
            let decoded = records.values.get(record).map(|value| rows.read(records, record, value));
            let (op, source_time) = match decoded {
                Some(Ok(decoded)) => (Some(decoded.op), decoded.source_time),
                Some(Err(unread)) => {
                    rows.note(unread);
                    (None, None)
                }
                // In a topic of bare rows nothing else tells of a delete.
                None if self.format == TopicFormat::Rows && !self.appends_only => {
                    match rows.read_key(records, record) {
                        Ok(()) => (Some(Op::Delete), None),
                        Err(unread) => {
                            rows.note(unread);
                            (None, None)
                        }
                    }
                }
                None => (None, None),
            };
            rows.end();
            ops.push(op);
            source_times.append_option(source_time);
        }
        rows.finish(ops, source_times)
    }
}

/// The columns under construction.
struct Rows<'a> {
    decoder: &'a Decoder,
    columns: Vec<StringBuilder>,
    unchanged: Vec<Option<BooleanBufferBuilder>>,
    faults: Faults,
    /// What the schemas beside values and keys say.
    schemas: Schemas,
    key_schemas: Schemas,
    /// What the registry has said, and what it is still to be asked.
    registered: &'a AvroSchemas,
    unasked: BTreeSet<u32>,
    old_key: OldKey<'a>,
    left_by: Vec<u32>,
    left: Vec<StringBuilder>,
    record: usize,
    records: usize,
    /// How many columns the record has had.
    filled: usize,
    /// Where the next column is expected: sources send columns in the same order each time.
    next: usize,
}

impl<'a> Rows<'a> {
    fn new(decoder: &'a Decoder, records: usize, registered: &'a AvroSchemas) -> Self {
        let column = || StringBuilder::with_capacity(records, records * 16);
        Self {
            decoder,
            columns: decoder.names.iter().map(|_| column()).collect(),
            unchanged: decoder.names.iter().map(|_| None).collect(),
            faults: Faults::none(records),
            schemas: decoder.schemas.clone(),
            key_schemas: decoder.schemas.clone(),
            registered,
            unasked: BTreeSet::new(),
            old_key: OldKey { decoder, texts: vec![String::new(); decoder.key.len()], known: 0 },
            left_by: Vec::new(),
            left: decoder.names.iter().map(|_| StringBuilder::with_capacity(0, 0)).collect(),
            record: 0,
            records,
            filled: 0,
            next: 0,
        }
    }

    fn begin(&mut self, record: usize) {
        self.record = record;
        self.filled = 0;
        self.next = 0;
    }

    /// Takes note of why a record is not read.
    fn note(&mut self, unread: Unread) {
        match unread {
            Unread::Fault(reason) => self.faults.add(self.record, reason, None),
            Unread::NoChange => {}
            Unread::Unasked(id) => {
                self.unasked.insert(id);
            }
        }
    }

    fn read<'r>(&mut self, records: &Records, record: usize, value: &'r [u8]) -> Result<envelope::Decoded<'r>, Unread> {
        if value.len() > self.decoder.max_bytes {
            return Err(TOO_LARGE.into());
        }
        let (schema, decoded) = match self.decoder.encoding {
            TopicEncoding::Json => (None, self.read_json(value)),
            TopicEncoding::Avro => {
                let (id, value) = unframe(value).ok_or(NOT_AVRO)?;
                let schema = registered(self.registered, id)?;
                (Some(schema), self.read_avro(schema, value))
            }
        };
        let decoded = decoded?;
        if self.decoder.appends_only && !matches!(decoded.op, Op::Snapshot | Op::Insert) {
            return Err(NOT_AN_INSERT.into());
        }
        if decoded.op == Op::Delete && decoded.image == Image::None {
            self.read_key(records, record)?;
        }
        if let Some(before) = decoded.before {
            self.note_old_key(schema, before);
        }
        Ok(decoded)
    }

    fn read_json<'r>(&mut self, value: &'r [u8]) -> Result<envelope::Decoded<'r>, DecodeError> {
        let mut schemas = std::mem::take(&mut self.schemas);
        let decoded = match self.decoder.format {
            TopicFormat::Envelope => envelope::decode(value, &mut schemas, self),
            TopicFormat::Rows => envelope::decode_bare_row(value, &mut schemas, self),
            TopicFormat::CloudEvents => envelope::decode_cloud_event(value, &mut schemas, self),
        };
        self.schemas = schemas;
        decoded
    }

    fn read_avro<'r>(&mut self, schema: &AvroSchema, value: &'r [u8]) -> Result<envelope::Decoded<'r>, DecodeError> {
        match self.decoder.format {
            TopicFormat::Envelope => schema.decode(value, self),
            TopicFormat::Rows | TopicFormat::CloudEvents => {
                schema.decode_row(value, self)?;
                Ok(envelope::Decoded::new_row())
            }
        }
    }

    /// Reads the columns that a record's key tells. In a topic of Avro it may be in JSON all the same, which begins
    /// with no zero byte.
    fn read_key(&mut self, records: &Records, record: usize) -> Result<(), Unread> {
        let key = records.keys.get(record).ok_or(NO_KEY)?;
        if self.decoder.encoding == TopicEncoding::Avro
            && let Some((id, key)) = unframe(key)
        {
            let schema = registered(self.registered, id)?;
            return schema.decode_row(key, self).map_err(|_| NO_KEY.into());
        }
        let mut schemas = std::mem::take(&mut self.key_schemas);
        let read = envelope::decode_row(key, &mut schemas, self).map_err(|_| NO_KEY.into());
        self.key_schemas = schemas;
        read
    }

    /// Notes the key of a row before an update, where it was another. A source that does not tell all of
    /// it says by that that it is the same.
    fn note_old_key(&mut self, schema: Option<&AvroSchema>, before: &[u8]) {
        let key = &self.decoder.key;
        self.old_key.known = 0;
        if key.is_empty() {
            return;
        }
        let read = match schema {
            Some(schema) => schema.decode_before(before, &mut self.old_key),
            None => envelope::decode_before(before, &mut self.schemas, &mut self.old_key),
        };
        let is_same = |(column, text): (&usize, &String)| last(&self.columns[*column], self.record) == text.as_bytes();
        if read.is_err() || self.old_key.known < key.len() || key.iter().zip(&self.old_key.texts).all(is_same) {
            return;
        }
        self.left_by.push(self.record as u32);
        for (column, text) in key.iter().zip(&self.old_key.texts) {
            self.left[*column].append_value(text);
        }
    }

    /// Fills the columns that the record did not have.
    fn end(&mut self) {
        if self.filled == self.columns.len() {
            return;
        }
        for column in &mut self.columns {
            if column.len() == self.record {
                column.append_null();
            }
        }
    }

    fn index_of(&self, name: &str) -> Option<usize> {
        let names = &self.decoder.names;
        if names.get(self.next).is_some_and(|expected| expected == name) {
            return Some(self.next);
        }
        names.iter().position(|known| known == name)
    }

    fn mark_unchanged(&mut self, column: usize) {
        let records = self.records;
        let unchanged = self.unchanged[column].get_or_insert_with(|| {
            let mut bits = BooleanBufferBuilder::new(records);
            bits.append_n(records, false);
            bits
        });
        unchanged.set_bit(self.record, true);
    }

    fn finish(mut self, ops: Vec<Option<Op>>, source_times: TimestampMicrosecondBuilder) -> Staged {
        Staged {
            columns: self.columns.iter_mut().map(StringBuilder::finish).collect(),
            unchanged: self.unchanged.into_iter().map(|bits| bits.map(|mut bits| bits.finish())).collect(),
            ops,
            source_times,
            faults: self.faults,
            left: Left { records: self.left_by, columns: self.left.iter_mut().map(StringBuilder::finish).collect() },
            unasked: self.unasked,
        }
    }
}

/// The text that a column has for a record, which is its last; empty where that is null, or none.
fn last(column: &StringBuilder, record: usize) -> &[u8] {
    let ends = column.offsets_slice();
    match (ends.get(record), ends.get(record + 1)) {
        (Some(start), Some(end)) => &column.values_slice()[*start as usize..*end as usize],
        _ => &[],
    }
}

/// The key of a row before an update.
struct OldKey<'a> {
    decoder: &'a Decoder,
    /// One per key column.
    texts: Vec<String>,
    /// How many of them are known.
    known: usize,
}

impl RowSink for OldKey<'_> {
    fn column(&mut self, name: &str, value: Scalar<'_>) {
        let Decoder { names, key, .. } = self.decoder;
        let Some(index) = key.iter().position(|column| names[*column] == name) else { return };
        let text = match value {
            Scalar::Bool(true) => "true",
            Scalar::Bool(false) => "false",
            Scalar::Number(text) | Scalar::Text(text) => text,
            Scalar::Null | Scalar::Unchanged | Scalar::Nested(_) => return,
        };
        text.clone_into(&mut self.texts[index]);
        self.known += 1;
    }

    fn wants_more(&self) -> bool {
        self.known < self.decoder.key.len()
    }
}

impl RowSink for Rows<'_> {
    fn column(&mut self, name: &str, value: Scalar<'_>) {
        let Some(index) = self.index_of(name) else {
            if self.decoder.unknown == UnknownColumns::Reject {
                self.faults.add(self.record, UNKNOWN_COLUMN, None);
            }
            return;
        };
        self.next = index + 1;
        let column = &mut self.columns[index];
        if column.len() > self.record {
            self.faults.add(self.record, DUPLICATE_COLUMN, Some(index));
            return;
        }
        self.filled += 1;
        match value {
            Scalar::Null => column.append_null(),
            Scalar::Bool(true) => column.append_value("true"),
            Scalar::Bool(false) => column.append_value("false"),
            Scalar::Number(text) | Scalar::Text(text) => column.append_value(text),
            Scalar::Unchanged => {
                column.append_null();
                self.mark_unchanged(index);
            }
            Scalar::Nested(_) => {
                column.append_null();
                self.faults.add(self.record, NESTED, Some(index));
            }
        }
    }
}

/// Why a record is not read.
enum Unread {
    /// Something is wrong with it.
    Fault(Reason),
    /// It tells of no change.
    NoChange,
    /// Whoever has its schema is to be asked first.
    Unasked(u32),
}

impl From<Reason> for Unread {
    fn from(reason: Reason) -> Self {
        Self::Fault(reason)
    }
}

impl From<DecodeError> for Unread {
    fn from(error: DecodeError) -> Self {
        Self::Fault(match error {
            DecodeError::NotJson { .. } => NOT_JSON,
            DecodeError::NotAsSchema { .. } => NOT_AS_SCHEMA,
            DecodeError::NotEnvelope(_) | DecodeError::UnknownOp | DecodeError::WrongRows { .. } => NOT_ENVELOPE,
            DecodeError::Boundary => return Self::NoChange,
        })
    }
}

/// The schema of an id.
fn registered(schemas: &AvroSchemas, id: u32) -> Result<&AvroSchema, Unread> {
    match schemas.get(id) {
        Some(Registered::Schema(schema)) => Ok(schema),
        Some(Registered::Unknown) => Err(UNKNOWN_SCHEMA.into()),
        Some(Registered::Unreadable) => Err(UNREADABLE_SCHEMA.into()),
        None => Err(Unread::Unasked(id)),
    }
}
