//! What the tables have to hold, worked out in the simplest way there is: one event after another, in
//! the order of the source, into a map.
//!
//! It shares with the program the source and the rules for one record; not the log, the batches, the
//! order of arrival, the fold, the commits or the tables.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Result, ensure};
use arrow::array::{Array, RecordBatch};
use arrow::util::display::array_value_to_string;
use ruam_event::change::Op;
use ruam_event::envelope::avro::AvroSchemas;
use ruam_event::record::Record;
use ruam_event::{ChangeEvent, DatasetSpec, Mode, Partition, Records, Topic, TopicId, envelope};
use ruam_transform::Transform;

use crate::installation::Installation;
use crate::{datasets, tables};

/// What the tables of a dataset have to hold, as [`tables::lines`].
#[derive(Clone, Debug, Default)]
pub struct Model {
    /// How many events there were.
    pub events: usize,
    /// The table.
    pub rows: Vec<String>,
    /// Its rejects.
    pub rejects: Vec<String>,
    /// Its changes; empty where it keeps no history.
    pub changes: Vec<String>,
}

/// The models of the datasets that come with the program.
#[derive(Clone, Debug)]
pub struct Models(BTreeMap<&'static str, Model>);

impl Models {
    /// Works them out for a number of generated events.
    ///
    /// # Errors
    /// Where a source cannot be read.
    pub fn of(events: u64) -> Result<Self> {
        let model = |name: &'static str| {
            let spec = datasets::spec(name, None)?;
            let events = datasets::events(&spec, events)?;
            Ok((name, Model::of(&spec, &events)?))
        };
        Ok(Self(datasets::ALL.into_iter().map(model).collect::<Result<_>>()?))
    }

    /// How many events all datasets have.
    pub fn events(&self) -> usize {
        self.0.values().map(|model| model.events).sum()
    }

    /// Checks every table of an installation.
    ///
    /// # Errors
    /// Where one does not hold what it has to.
    pub fn check(&self, installation: &Installation) -> Result<()> {
        for (name, model) in &self.0 {
            model.check(installation, name)?;
        }
        Ok(())
    }
}

impl Model {
    /// What becomes of events.
    ///
    /// # Errors
    /// Where the dataset's file does not fit the program.
    pub fn of(spec: &DatasetSpec, events: &[ChangeEvent]) -> Result<Self> {
        let transform = Transform::new(spec, 1 << 20)?;
        let mut model = Self { events: events.len(), ..Self::default() };
        let mut by_key: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
        for event in events {
            let normalised = transform.apply(&record_of(spec, event)?, &AvroSchemas::default())?;
            model.rejects.extend(tables::lines(&[normalised.rejects])?);
            let [op] = normalised.ops[..] else { continue };
            let lines = tables::lines(std::slice::from_ref(&normalised.rows))?;
            if spec.mode == Mode::Append {
                model.rows.extend(lines);
                continue;
            }
            if spec.history {
                let unchanged = normalised.unchanged.iter().flatten().any(|mask| mask.value(0));
                ensure!(!unchanged, "the model of a history knows no partial rows");
                model.changes.extend(lines.iter().map(|line| format!("{line} | _op={}", op.word())));
            }
            let row = named_values(&normalised.rows)?;
            let key: Vec<_> = spec.key().iter().map(|name| row.get(name).cloned().unwrap_or_default()).collect();
            let key = key.join("\u{1f}");
            match op {
                Op::Delete => {
                    by_key.remove(&key);
                }
                Op::Truncate => by_key.clear(),
                Op::Snapshot | Op::Insert | Op::Update => {
                    let before = by_key.remove(&key).unwrap_or_default();
                    let kept = unchanged_names(&normalised.rows, &normalised.unchanged);
                    let kept = kept.iter().filter_map(|name| Some((name.clone(), before.get(name)?.clone())));
                    by_key.insert(key, row.into_iter().chain(kept).collect());
                }
            }
        }
        let order = transform.schema().clone();
        model.rows.extend(by_key.into_values().map(|row| {
            let parts = order.fields().iter().filter_map(|field| Some((field.name(), row.get(field.name())?)));
            parts.map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" | ")
        }));
        Ok(model)
    }

    /// Checks the tables of a dataset, by `agency/dataset`.
    ///
    /// # Errors
    /// Where one does not hold what it has to.
    pub fn check(&self, installation: &Installation, name: &str) -> Result<()> {
        let table = name.replace('/', ".");
        let mut kinds = vec![("", &self.rows), ("__rejects", &self.rejects)];
        if !self.changes.is_empty() {
            kinds.push(("__changes", &self.changes));
        }
        for (suffix, expected) in kinds {
            let batches = installation.query(&format!("select * from {table}{suffix}"))?;
            tables::check_same(&format!("{table}{suffix}"), tables::lines(&batches)?, expected.clone())?;
            // Exactly once also means that no record of the log stands behind two rows.
            let doubled = installation
                .ask(&format!("select count(*) - count(distinct _partition || '/' || _offset) from {table}{suffix}"))?;
            ensure!(doubled == [[Some("0".to_owned())]], "{table}{suffix} has records twice: {doubled:?}");
        }
        Ok(())
    }
}

/// The record that carries an event, alone.
fn record_of(spec: &DatasetSpec, event: &ChangeEvent) -> Result<Records> {
    let (mut key, mut value) = (Vec::new(), Vec::new());
    envelope::encode(spec.id(), event, &mut value);
    let row = match &event.change {
        ruam_event::Change::Snapshot(row) | ruam_event::Change::Insert(row) => Some(row),
        ruam_event::Change::Update { new, .. } => Some(new),
        ruam_event::Change::Delete(old) => old.row(),
        ruam_event::Change::Truncate => None,
    };
    let has_key = row.is_some_and(|row| envelope::encode_key(row, &spec.key(), &mut key));
    let mut id = String::new();
    envelope::write_id(event.position, &mut id);
    let topic = Arc::new(Topic { name: spec.topic(), id: TopicId(1) });
    let mut records = Records::new(Partition { topic, index: 0 }, 0);
    records.push(Record {
        offset: 0,
        arrived: 0,
        key: has_key.then_some(&key[..]),
        value: Some(&value),
        id: Some(id.as_bytes()),
        position: Some(event.position),
    });
    Ok(records)
}

fn named_values(rows: &RecordBatch) -> Result<BTreeMap<String, String>> {
    let mut named = BTreeMap::new();
    for (field, column) in rows.schema().fields().iter().zip(rows.columns()) {
        if !column.is_null(0) {
            named.insert(field.name().clone(), array_value_to_string(column, 0)?);
        }
    }
    for of_the_log in tables::OF_THE_LOG {
        named.remove(of_the_log);
    }
    Ok(named)
}

fn unchanged_names(rows: &RecordBatch, unchanged: &[Option<arrow::buffer::BooleanBuffer>]) -> Vec<String> {
    let schema = rows.schema();
    let masked = unchanged.iter().zip(schema.fields()).filter(|(mask, _)| mask.as_ref().is_some_and(|m| m.value(0)));
    masked.map(|(_, field)| field.name().clone()).collect()
}
