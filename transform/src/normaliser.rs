//! Columns of text to the rows of a table: each column through its semantic type, as a whole.
//!
//! What passes through: a batch of raw records, into a [`Normalised`] batch. Rows keep the order of
//! the log. A record with any fault becomes a reject as a whole; its row does not appear.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, RecordBatch, StringArray, UInt32Array, new_null_array};
use arrow::buffer::BooleanBuffer;
use arrow::compute::kernels::cmp::not_distinct;
use arrow::compute::{concat_batches, filter, filter_record_batch, take_record_batch};
use arrow::datatypes::{Field, Schema, SchemaRef};
use arrow::error::ArrowError;
use ruam_event::change::Op;
use ruam_event::envelope::avro::AvroSchemas;
use ruam_event::{ColumnSpec, DatasetSpec, Records, SpecError};

use crate::decoder::{Decoder, Left, Staged};
use crate::origin;
use crate::reject::{Faults, MISSING};
use crate::types::{self, SemanticType};

/// Turns the records of one dataset into rows and rejects.
#[derive(Debug)]
pub struct Transform {
    decoder: Decoder,
    columns: Vec<Column>,
    /// Whether the dataset's events are signed.
    are_signed: bool,
    schema: SchemaRef,
}

#[derive(Debug)]
struct Column {
    semantic: Arc<dyn SemanticType>,
    required: bool,
    key: bool,
}

/// Why a batch of records cannot be transformed. No record is at fault.
#[derive(Debug, thiserror::Error)]
pub enum TransformError {
    /// Whoever has the schemas of these ids is to be asked for them first.
    #[error("{} schemas are not known", .0.len())]
    Unasked(BTreeSet<u32>),
    /// The columns do not fit together, by a bug.
    #[error("a batch cannot be put into columns: {0}")]
    Columns(#[from] ArrowError),
}

/// What became of a batch of records.
#[derive(Debug)]
pub struct Normalised {
    /// The accepted changes in the order of the log, as [`Transform::schema`] has them. A delete
    /// holds its key columns and its origin; a truncation its origin alone. At the end come deletes of
    /// the keys that updates have left, each with the origin of its update.
    pub rows: RecordBatch,
    /// What each row does.
    pub ops: Vec<Op>,
    /// For each column of `rows`, which rows leave it as it was; none where no row does.
    pub unchanged: Vec<Option<BooleanBuffer>>,
    /// The refused records, as [`reject::SCHEMA`](crate::reject::SCHEMA) has them.
    pub rejects: RecordBatch,
    /// How many records say nothing (tombstones).
    pub filtered: u64,
    /// How many rows at the end delete a key that an update has left: they are no records.
    pub left: usize,
}

impl Transform {
    /// Prepares for a dataset. Records with more than `max_bytes` bytes are rejected.
    ///
    /// # Errors
    /// Where a column's type or its options are not known, with the place in the file.
    pub fn new(spec: &DatasetSpec, max_bytes: usize) -> Result<Self, SpecError> {
        let columns = spec.columns.iter().map(|column| Column::new(spec, column)).collect::<Result<Vec<_>, _>>()?;
        let mut fields = Vec::new();
        for (column, declared) in columns.iter().zip(&spec.columns) {
            for field in column.semantic.fields(declared.name()) {
                if fields.iter().any(|known: &Field| known.name() == field.name()) {
                    return Err(spec.error_at(
                        declared.name.span(),
                        "columns.name",
                        format!("`{}` is also the name of a column that another column's type adds", field.name()),
                        "Rename one of the two",
                    ));
                }
                fields.push(field);
            }
        }
        let are_signed = spec.signatures().is_some();
        fields.extend(origin::fields(are_signed));
        let decoder = Decoder::new(spec, max_bytes);
        Ok(Self { decoder, columns, are_signed, schema: Arc::new(Schema::new(fields)) })
    }

    /// The columns of the dataset's table: its own, then those of its [`origin`].
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Turns a batch of records into rows and rejects. Records in Avro name their schemas, of which `schemas` has what
    /// their registry says.
    ///
    /// # Errors
    /// Where a record names a schema that the registry has not been asked for. Otherwise none that a record could
    /// cause: Arrow checks every column against the schema.
    pub fn apply(&self, records: &Records, schemas: &AvroSchemas) -> Result<Normalised, TransformError> {
        let staged = self.decoder.decode(records, schemas);
        let Staged { columns: texts, unchanged, ops, source_times, mut faults, left, unasked } = staged;
        if !unasked.is_empty() {
            return Err(TransformError::Unasked(unasked));
        }
        let mut arrays = Vec::with_capacity(self.schema.fields().len());
        let mut masks = Vec::with_capacity(self.schema.fields().len());
        for (index, ((column, text), unchanged)) in self.columns.iter().zip(&texts).zip(unchanged).enumerate() {
            let before = arrays.len();
            arrays.extend(column.normalise(index, text, unchanged.as_ref(), &ops, &mut faults));
            masks.extend(std::iter::repeat_n(unchanged, arrays.len() - before));
        }
        arrays.extend(origin::columns(records, source_times, self.are_signed));
        masks.resize(arrays.len(), None);

        let filtered = (0..records.len()).filter(|record| ops[*record].is_none() && !faults.has(*record)).count();
        let rejects = faults.to_batch(records, self.decoder.names())?;
        let all = RecordBatch::try_new(self.schema_with_nulls(), arrays)?;
        let left = if left.records.is_empty() { None } else { Some(self.left(left, &all, &faults)?) };
        let (rows, ops, masks) = if faults.count() + filtered == 0 {
            (all, ops.into_iter().flatten().collect(), masks)
        } else {
            let keep: BooleanArray =
                (0..records.len()).map(|record| Some(ops[record].is_some() && !faults.has(record))).collect();
            let kept = |op: (usize, Option<Op>)| op.1.filter(|_| keep.value(op.0));
            let ops = ops.into_iter().enumerate().filter_map(kept).collect();
            let masks = masks.into_iter().map(|mask| keep_mask(mask, &keep)).collect::<Result<_, _>>()?;
            (filter_record_batch(&all, &keep)?, ops, masks)
        };
        let mut normalised = Normalised { rows, ops, unchanged: masks, rejects, filtered: filtered as u64, left: 0 };
        if let Some(left) = left.filter(|left| left.num_rows() > 0) {
            normalised.leave(&left)?;
        }
        Ok(normalised)
    }

    /// A delete for each key that an accepted update has left. Spellings may differ where keys do not.
    fn left(&self, left: Left, all: &RecordBatch, faults: &Faults) -> Result<RecordBatch, ArrowError> {
        let mut is_left: Vec<_> = left.records.iter().map(|record| !faults.has(*record as usize)).collect();
        let mut is_other = vec![false; is_left.len()];
        let updates = take_record_batch(all, &UInt32Array::from(left.records))?;
        let mut columns = Vec::with_capacity(updates.num_columns());
        for (column, texts) in self.columns.iter().zip(&left.columns) {
            let first = columns.len();
            // What is wrong has never been a row.
            let arrays = column.semantic.normalise(texts, &mut |row, _| is_left[row] = false);
            if column.key {
                let same = not_distinct(&arrays[0], updates.column(first))?;
                is_other.iter_mut().zip(&same).for_each(|(other, same)| *other |= same == Some(false));
                columns.extend(arrays);
            } else {
                columns.extend(arrays.iter().map(|array| new_null_array(array.data_type(), is_left.len())));
            }
        }
        columns.extend_from_slice(&updates.columns()[columns.len()..]);
        let keep: BooleanArray = is_left.into_iter().zip(is_other).map(|(left, other)| Some(left && other)).collect();
        filter_record_batch(&RecordBatch::try_new(updates.schema(), columns)?, &keep)
    }

    /// The schema with every column nullable: refused rows and deletes have nulls anywhere.
    fn schema_with_nulls(&self) -> SchemaRef {
        let fields: Vec<_> =
            self.schema.fields().iter().map(|field| field.as_ref().clone().with_nullable(true)).collect();
        Arc::new(Schema::new(fields))
    }
}

impl Normalised {
    /// Adds deletes at the end.
    fn leave(&mut self, deletes: &RecordBatch) -> Result<(), ArrowError> {
        self.left = deletes.num_rows();
        self.rows = concat_batches(&deletes.schema(), [&self.rows, deletes])?;
        self.ops.resize(self.rows.num_rows(), Op::Delete);
        for mask in self.unchanged.iter_mut().flatten() {
            *mask = mask.iter().chain(std::iter::repeat_n(false, self.left)).collect();
        }
        Ok(())
    }
}

fn keep_mask(mask: Option<BooleanBuffer>, keep: &BooleanArray) -> Result<Option<BooleanBuffer>, ArrowError> {
    let Some(mask) = mask else { return Ok(None) };
    let kept = filter(&BooleanArray::new(mask, None), keep)?;
    Ok(kept.as_any().downcast_ref::<BooleanArray>().map(|kept| kept.values().clone()))
}

impl Column {
    fn new(spec: &DatasetSpec, column: &ColumnSpec) -> Result<Self, SpecError> {
        let key = spec.is_key(column.name());
        Ok(Self { semantic: types::of_column(spec, column)?, required: column.required || key, key })
    }

    /// Parses the whole column, and adds the faults of those records whose value counts: a delete
    /// is judged by its key alone.
    fn normalise(
        &self,
        index: usize,
        text: &StringArray,
        unchanged: Option<&BooleanBuffer>,
        ops: &[Option<Op>],
        faults: &mut Faults,
    ) -> Vec<ArrayRef> {
        let mut found = Vec::new();
        let arrays = self.semantic.normalise(text, &mut |record, reason| found.push((record, reason)));
        let counts = |record: usize| ops[record].is_some_and(|op| op.leaves_row() || (self.key && op == Op::Delete));
        for (record, reason) in found {
            if counts(record) {
                faults.add(record, reason, Some(index));
            }
        }
        let primary = &arrays[0];
        if self.required && primary.null_count() > 0 {
            for record in 0..primary.len() {
                let excused = unchanged.is_some_and(|unchanged| unchanged.value(record)) && !self.key;
                if primary.is_null(record) && counts(record) && !excused && !faults.has(record) {
                    faults.add(record, MISSING, Some(index));
                }
            }
        }
        arrays
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::origin::fields;
    use arrow::util::display::array_value_to_string;
    use ruam_event::envelope::avro::{AvroSchema, Registered};
    use ruam_event::record::Record;
    use ruam_event::{Partition, Position, Topic, TopicId};

    const SPEC: &str = r#"dataset = "bora.person"
title = { th = "บุคคล", en = "Persons" }
description = { th = "ก", en = "a" }
owner = { th = "กรมการปกครอง", en = "DOPA" }
contact = { name = "x", email = "x@example.org" }
classification = "internal"
purposes = ["training"]
mode = "upsert"
key = ["citizen_id"]
columns = [
    { name = "citizen_id", type = "thai_citizen_id", title = { th = "เลข", en = "ID" } },
    { name = "born", type = "be_date", required = true, title = { th = "วันเกิด", en = "Born" } },
    { name = "note", type = "thai_text", title = { th = "หมายเหตุ", en = "Note" } },
]
"#;

    fn transform(spec: &str) -> Transform {
        Transform::new(&DatasetSpec::parse("bora/person.toml", spec).unwrap(), 300).unwrap()
    }

    fn records<'r>(values: impl IntoIterator<Item = (&'r [u8], Option<&'r [u8]>)>) -> Records {
        let topic = Arc::new(Topic { name: "ruam.bora.person".into(), id: TopicId(7) });
        let mut records = Records::new(Partition { topic, index: 3 }, 100);
        for (index, (key, value)) in values.into_iter().enumerate() {
            let (offset, position) = (100 + index as i64, Some(Position::new(index as u64)));
            records.push(Record { offset, arrived: 1000, key: Some(key), value, id: None, position });
        }
        records
    }

    const KEY: &[u8] = br#"{"citizen_id":"3100600445635"}"#;

    fn apply(transform: &Transform, values: &[&str]) -> Normalised {
        let values = values.iter().map(|value| (KEY, (*value != "tombstone").then_some(value.as_bytes())));
        transform.apply(&records(values), &AvroSchemas::default()).unwrap()
    }

    fn column(batch: &RecordBatch, name: &str) -> Vec<String> {
        let array = batch.column_by_name(name).unwrap();
        (0..array.len()).map(|row| array_value_to_string(array, row).unwrap()).collect()
    }

    const GOOD: &str = r#"{"op":"c","after":{"citizen_id":"1-1120-34563-56-2","born":"๑๕ มี.ค. ๒๕๓๐","note":"เเม่"},"source":{"ts_ms":5}}"#;

    #[test]
    fn each_record_is_row_reject_or_filtered() {
        let normalised = apply(
            &transform(SPEC),
            &[
                GOOD,
                "tombstone",
                "not json",
                r#"{"op":"c","after":{"citizen_id":"1101700230703","born":"31/02/2530","note":null}}"#,
                r#"{"op":"u","after":{"citizen_id":"3100600445635","born":"__debezium_unavailable_value","note":"x"}}"#,
                r#"{"op":"d","before":{"citizen_id":"3100600445635","born":"31/02/2530","note":null}}"#,
                r#"{"op":"d","before":null}"#,
                r#"{"op":"c","after":{"citizen_id":"3100600445635","note":"x"}}"#,
                r#"{"op":"c","after":{"citizen_id":"3100600445635","born":"1/1/2530","extra":1}}"#,
                r#"{"op":"c","after":{"citizen_id":"3100600445635","born":"1/1/2530","born":"1/1/2530"}}"#,
                r#"{"op":"c","after":{"citizen_id":"3100600445635","born":{"d":1}}}"#,
                r#"{"op":"t"}"#,
            ],
        );
        assert_eq!(normalised.ops, [Op::Insert, Op::Update, Op::Delete, Op::Delete, Op::Truncate]);
        assert_eq!(normalised.filtered, 1);
        assert_eq!(
            column(&normalised.rows, "citizen_id"),
            ["1112034563562", "3100600445635", "3100600445635", "3100600445635", ""]
        );
        assert_eq!(column(&normalised.rows, "born")[0], "1987-03-15");
        assert_eq!(column(&normalised.rows, "note_raw")[0], "เเม่");
        assert_eq!(column(&normalised.rows, "_offset"), ["100", "104", "105", "106", "111"]);
        assert_eq!(column(&normalised.rows, "_event_id")[0], "ruam.bora.person/3/100");
        assert_eq!(column(&normalised.rows, "_source_time")[0], "1970-01-01T00:00:00.005Z");
        let born = normalised.unchanged[1].as_ref().unwrap();
        assert_eq!(born.iter().collect::<Vec<_>>(), [false, true, false, false, false]);
        assert_eq!(
            column(&normalised.rejects, "reason"),
            ["not_json", "wrong_check_digit", "missing", "unknown_column", "duplicate_column", "nested_value"]
        );
        assert_eq!(column(&normalised.rejects, "column_name")[1..3], ["citizen_id", "born"]);
        assert_eq!(
            column(&normalised.rejects, "detail")[1],
            "the last digit does not fit the other twelve (and 1 more faults)"
        );
        assert_eq!(column(&normalised.rejects, "_offset"), ["102", "103", "107", "108", "109", "110"]);
        let raw = normalised.rejects.column_by_name("raw_value").unwrap();
        assert_eq!(raw.as_any().downcast_ref::<arrow::array::BinaryArray>().unwrap().value(0), b"not json");
    }

    #[test]
    fn an_update_of_the_key_deletes_the_old_one() {
        let update = |before: &str, after: &str| {
            let row = |id: &str| format!(r#"{{"note":"x","citizen_id":{id},"born":"1/1/2530"}}"#);
            format!(r#"{{"op":"u","before":{},"after":{}}}"#, row(before), row(after))
        };
        let (old, new) = (r#""1112034563562""#, r#""3100600445635""#);
        let normalised = apply(
            &transform(SPEC),
            &[
                &update(old, new),
                // The same in another spelling, a key that cannot have been one, and one that is none.
                &update(r#""3-1006-00445-63-5""#, new),
                &update(r#""1112034563563""#, new),
                &update("null", new),
                &update(old, r#""3100600445636""#),
                &update(old, r#""3-1006-00445-63-5""#),
                GOOD,
            ],
        );
        assert_eq!(normalised.ops[..5], [Op::Update; 5]);
        assert_eq!((normalised.left, &normalised.ops[6..]), (2, &[Op::Delete; 2][..]));
        assert_eq!(column(&normalised.rows, "citizen_id")[6..], ["1112034563562", "1112034563562"]);
        assert_eq!(column(&normalised.rows, "_offset")[6..], ["100", "105"]);
        assert_eq!(column(&normalised.rows, "born")[5..], ["1987-03-15", "", ""]);
        assert_eq!(column(&normalised.rejects, "_offset"), ["104"]);
    }

    /// A row of Avro in Confluent's framing.
    fn framed(id: u8, texts: &[&str]) -> Vec<u8> {
        let mut bytes = vec![0, 0, 0, 0, id];
        for text in texts {
            bytes.push(text.len() as u8 * 2);
            bytes.extend_from_slice(text.as_bytes());
        }
        bytes
    }

    #[test]
    fn avro_is_read_by_the_schemas_that_records_name() {
        let spec = format!("topic = {{ encoding = \"avro\", format = \"rows\" }}\n{SPEC}");
        let row = framed(1, &["3100600445635", "1/1/2530"]);
        let (key, gone) = (framed(2, &["3100600445635"]), framed(2, &["1112034563562"]));
        let strange = [framed(3, &["a"]), framed(4, &["a"]), framed(1, &["a"]), b"{}".to_vec()];
        let mut all = vec![(&key[..], Some(&row[..])), (&gone, None), (KEY, None), (&[0; 8], None)];
        all.extend(strange.iter().map(|value| (KEY, Some(&value[..]))));
        let (transform, records, mut schemas) = (transform(&spec), records(all), AvroSchemas::default());
        let unasked = |schemas: &AvroSchemas| match transform.apply(&records, schemas) {
            Err(TransformError::Unasked(ids)) => ids.into_iter().collect(),
            _ => Vec::new(),
        };
        assert_eq!(unasked(&schemas), [0, 1, 2, 3, 4]);
        let schema = |names: &[&str]| {
            let fields: Vec<_> = names.iter().map(|name| format!(r#"{{"name":"{name}","type":"string"}}"#)).collect();
            let text = format!(r#"{{"type":"record","name":"r","fields":[{}]}}"#, fields.join(","));
            Registered::Schema(AvroSchema::parse(&text).unwrap().into())
        };
        schemas.learn(1, schema(&["citizen_id", "born"]));
        assert_eq!(unasked(&schemas), [0, 2, 3, 4]);
        schemas.learn(2, schema(&["citizen_id"]));
        for (id, registered) in [(0, Registered::Unknown), (3, Registered::Unknown), (4, Registered::Unreadable)] {
            schemas.learn(id, registered);
        }
        let normalised = transform.apply(&records, &schemas).unwrap();
        assert_eq!(normalised.ops, [Op::Insert, Op::Delete, Op::Delete]);
        let ids = ["3100600445635", "1112034563562", "3100600445635"];
        assert_eq!(column(&normalised.rows, "citizen_id"), ids);
        let reasons = ["unknown_schema", "unknown_schema", "unreadable_schema", "not_as_schema", "not_avro"];
        assert_eq!(column(&normalised.rejects, "reason"), reasons);
        assert_eq!(column(&normalised.rejects, "_offset"), ["103", "104", "105", "106", "107"]);
    }

    #[test]
    fn a_clean_batch_is_not_copied_and_has_the_schema() {
        let transform = transform(SPEC);
        let normalised = apply(&transform, &[GOOD, GOOD]);
        let names: Vec<_> = normalised.rows.schema().fields().iter().map(|field| field.name().clone()).collect();
        let expected: Vec<_> = transform.schema().fields().iter().map(|field| field.name().clone()).collect();
        assert_eq!(names, expected);
        assert_eq!(names[..4], ["citizen_id", "born", "note", "note_raw"]);
        assert_eq!(names.len(), 4 + fields(false).len());
        assert_eq!((normalised.rows.num_rows(), normalised.rejects.num_rows(), normalised.filtered), (2, 0, 0));
    }

    #[test]
    fn what_a_dataset_does_not_take_is_rejected() {
        let large = GOOD.replace("เเม่", &"แ".repeat(100));
        let normalised = apply(&transform(SPEC), &[&large]);
        assert_eq!(column(&normalised.rejects, "reason"), ["too_large"]);
        let delete = r#"{"op":"d","before":{"citizen_id":"3100600445635"}}"#;
        let normalised = apply(&transform(&SPEC.replace("upsert", "append")), &[delete, GOOD]);
        assert_eq!(
            (column(&normalised.rejects, "reason"), normalised.rows.num_rows()),
            (vec!["not_an_insert".to_owned()], 1)
        );
    }

    #[test]
    fn unknown_columns_can_be_ignored() {
        let spec = format!("unknown_columns = \"ignore\"\n{SPEC}");
        let event = r#"{"op":"c","after":{"extra":[1],"citizen_id":"3100600445635","born":"1/1/2530"}}"#;
        let normalised = apply(&transform(&spec), &[event]);
        assert_eq!((normalised.rows.num_rows(), normalised.rejects.num_rows()), (1, 0));
    }

    #[test]
    fn mistakes_in_the_declaration_name_their_line() {
        for (from, to, expected) in [
            (
                "be_date",
                "be_dat",
                "bora/person.toml:12: columns.type: `be_dat` is not a semantic type. Did you mean `be_date`?",
            ),
            (
                "\"be_date\", required",
                "\"be_date\", with = { centry = \"25\" }, required",
                "bora/person.toml:12: columns.with: column `born`, type `be_date`: there is no option `centry`. Did you mean `century`?",
            ),
            (
                "\"internal\"",
                "\"open\"",
                "bora/person.toml:11: columns.type: column `citizen_id` tells who a person is",
            ),
            ("\"born\"", "\"note_raw\"", "bora/person.toml:13: columns.name: `note_raw` is also the name of a column"),
        ] {
            let spec = DatasetSpec::parse("bora/person.toml", &SPEC.replacen(from, to, 1)).unwrap();
            let error = Transform::new(&spec, 300).unwrap_err().to_string();
            assert!(error.starts_with(expected), "{error}");
        }
    }
}
