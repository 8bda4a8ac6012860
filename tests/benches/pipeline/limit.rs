//! The limit: the same bytes, decoded by arrow-json and written as Parquet in one process on as many
//! cores, and nothing else: no log, no checks, no types, no commits.

use std::fs::File;
use std::io::Cursor;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result};
use arrow::datatypes::{Schema, SchemaRef};
use arrow_json::ReaderBuilder;
use arrow_json::reader::infer_json_schema;
use parquet::arrow::ArrowWriter;
use parquet::basic::Compression;
use parquet::file::properties::WriterProperties;
use ruam_event::envelope;
use ruam_tests::datasets;

use crate::backlog;

/// The values of a dataset's records, a line each.
pub fn values(dataset: &str, events: u64) -> Result<Vec<u8>> {
    let spec = datasets::spec(dataset, None)?;
    let mut lines = Vec::new();
    backlog::for_each_event(&spec, events, |event| {
        envelope::encode(spec.id(), event, &mut lines);
        lines.push(b'\n');
        Ok(())
    })?;
    Ok(lines)
}

/// Decodes and writes all of it, a share on each core.
pub fn events_a_second(lines: &[u8], cores: usize) -> Result<f64> {
    // What a table needs of an event: its row and its kind. The rest is skipped, which is faster.
    let (inferred, _) = infer_json_schema(Cursor::new(lines), Some(1000))?;
    let needed = inferred.fields().iter().filter(|field| ["after", "op"].contains(&field.name().as_str()));
    let schema = Arc::new(Schema::new(needed.cloned().collect::<Vec<_>>()));
    let dir = tempfile::tempdir()?;
    let begun = Instant::now();
    let events: u64 = std::thread::scope(|scope| {
        let shares: Vec<_> = shares(lines, cores)
            .into_iter()
            .enumerate()
            .map(|(index, share)| {
                let (schema, file) = (schema.clone(), dir.path().join(format!("{index}.parquet")));
                scope.spawn(move || write(share, schema, File::create(file)?))
            })
            .collect();
        shares.into_iter().map(|share| share.join().ok().context("a thread panicked")?).sum::<Result<u64>>()
    })?;
    Ok(events as f64 / begun.elapsed().as_secs_f64())
}

fn write(lines: &[u8], schema: SchemaRef, file: File) -> Result<u64> {
    let properties = WriterProperties::builder().set_compression(Compression::ZSTD(Default::default())).build();
    let mut writer = ArrowWriter::try_new(file, schema.clone(), Some(properties))?;
    let mut events = 0;
    for batch in ReaderBuilder::new(schema).with_batch_size(8192).build(Cursor::new(lines))? {
        let batch = batch?;
        events += batch.num_rows() as u64;
        writer.write(&batch)?;
    }
    writer.close()?;
    Ok(events)
}

/// Parts of about the same size that end with a line.
fn shares(lines: &[u8], count: usize) -> Vec<&[u8]> {
    let mut shares = Vec::new();
    let mut rest = lines;
    for left in (1..=count).rev() {
        let near = rest.len() / left;
        let end = rest[near..].iter().position(|byte| *byte == b'\n').map_or(rest.len(), |found| near + found + 1);
        let (share, after) = rest.split_at(end);
        shares.push(share);
        rest = after;
    }
    shares
}
