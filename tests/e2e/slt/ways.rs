//! The ways in which SQL is asked.
//!
//! Each gives a value as PostgreSQL writes it, and so of few types: a file casts others to text.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};
use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::DataType;
use arrow::util::display::array_value_to_string;
use arrow_flight::error::FlightError;
use arrow_flight::sql::client::FlightSqlServiceClient;
use futures::TryStreamExt;
use ruam_event::DatasetSpec;
use ruam_lake::Lake;
use ruam_query::{Engine, EngineSettings, Policies};
use ruam_tests::datasets;
use tokio::runtime::{Builder, Runtime};
use tokio_postgres::types::Type;
use tokio_postgres::{Client, NoTls, Row, SimpleQueryMessage};
use tonic::transport::{Channel, Endpoint};

use super::lake::{AREAS, Asked, PLOTS, SPEC, areas_spec};
use super::{Answer, Ask, Wrong};

fn runtime() -> Result<Runtime> {
    Ok(Builder::new_multi_thread().worker_threads(1).enable_all().build()?)
}

/// The engine itself.
pub(super) fn in_process(asked: &Asked) -> Result<Ask> {
    let lake = Lake::open(&asked.installation.data_dir().join("lake").to_string_lossy(), &BTreeMap::new())?;
    let specs = [
        DatasetSpec::parse(&format!("{AREAS}.toml"), &areas_spec()?)?,
        DatasetSpec::parse(&format!("{PLOTS}.toml"), SPEC)?,
    ];
    let all = specs.into_iter().map(datasets::queried).collect::<Result<_>>()?;
    let engine = Engine::new(lake, all, Policies::default(), EngineSettings::default())?;
    let runtime = runtime()?;
    Ok(Box::new(move |sql| {
        runtime.block_on(async {
            let stream = engine.query(sql).await.map_err(|error| Wrong(error.to_string()))?;
            let batches: Vec<RecordBatch> = stream.try_collect().await.map_err(|error| Wrong(error.to_string()))?;
            rows_of_all(&batches)
        })
    }))
}

fn rows_of_all(batches: &[RecordBatch]) -> Answer {
    let rows = batches.iter().map(rows_of).collect::<Result<Vec<_>>>();
    Ok(rows.map_err(|error| Wrong(format!("{error:#}")))?.concat())
}

fn rows_of(batch: &RecordBatch) -> Result<Vec<Vec<Option<String>>>> {
    let value = |column: &dyn Array, row: usize| {
        Ok(match column.data_type() {
            _ if column.is_null(row) => None,
            DataType::Boolean => Some(boolean(column.as_boolean().value(row))),
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View | DataType::Int32 | DataType::Int64 => {
                Some(array_value_to_string(column, row)?)
            }
            other => bail!("a file casts {other} to text"),
        })
    };
    let row = |row| batch.columns().iter().map(|column| value(column.as_ref(), row)).collect();
    (0..batch.num_rows()).map(row).collect()
}

fn boolean(value: bool) -> String {
    if value { "t" } else { "f" }.to_owned()
}

fn client(asked: &Asked) -> Result<(Runtime, Client)> {
    let runtime = runtime()?;
    let settings = format!("host=127.0.0.1 port={} user=ruam dbname=ruam", asked.port);
    let (client, connection) = runtime.block_on(tokio_postgres::connect(&settings, NoTls))?;
    runtime.spawn(connection);
    Ok((runtime, client))
}

fn told(error: tokio_postgres::Error) -> Wrong {
    Wrong(error.as_db_error().map_or_else(|| format!("{error:?}"), |error| error.message().to_owned()))
}

/// PostgreSQL's simple protocol, which has all values as text.
pub(super) fn simple(asked: &Asked) -> Result<Ask> {
    let (runtime, client) = client(asked)?;
    Ok(Box::new(move |sql| -> Answer {
        let messages = runtime.block_on(client.simple_query(sql)).map_err(told)?;
        let rows = messages.iter().filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some((0..row.len()).map(|at| row.get(at).map(ToOwned::to_owned)).collect()),
            _ => None,
        });
        Ok(rows.collect())
    }))
}

/// PostgreSQL's extended protocol: prepared statements, and values of binary form.
pub(super) fn extended(asked: &Asked) -> Result<Ask> {
    let (runtime, client) = client(asked)?;
    Ok(Box::new(move |sql| -> Answer {
        let rows = runtime.block_on(client.query(sql, &[])).map_err(told)?;
        let values = |row: &Row| (0..row.len()).map(|at| value(row, at)).collect::<Result<Vec<_>>>();
        rows.iter().map(values).collect::<Result<_>>().map_err(|error| Wrong(format!("{error:#}")))
    }))
}

fn value(row: &Row, at: usize) -> Result<Option<String>> {
    Ok(match *row.columns().get(at).context("a column")?.type_() {
        Type::BOOL => row.try_get::<_, Option<bool>>(at)?.map(boolean),
        Type::INT4 => row.try_get::<_, Option<i32>>(at)?.map(|value| value.to_string()),
        Type::INT8 => row.try_get::<_, Option<i64>>(at)?.map(|value| value.to_string()),
        Type::TEXT | Type::VARCHAR => row.try_get(at)?,
        ref other => bail!("a file casts {other} to text"),
    })
}

/// Arrow Flight SQL: a ticket for each statement, and for that the batches of its answer.
pub(super) fn flight(asked: &Asked) -> Result<Ask> {
    let runtime = runtime()?;
    let endpoint = Endpoint::from_shared(format!("http://127.0.0.1:{}", asked.flight))?;
    let mut client = FlightSqlServiceClient::new(runtime.block_on(endpoint.connect())?);
    Ok(Box::new(move |sql| {
        let batches = runtime.block_on(batches(&mut client, sql)).map_err(|error| match error {
            FlightError::Tonic(status) => Wrong(status.message().to_owned()),
            error => Wrong(error.to_string()),
        });
        rows_of_all(&batches?)
    }))
}

async fn batches(client: &mut FlightSqlServiceClient<Channel>, sql: &str) -> Result<Vec<RecordBatch>, FlightError> {
    let mut batches = Vec::new();
    for ticket in
        client.execute(sql.to_owned(), None).await?.endpoint.into_iter().filter_map(|endpoint| endpoint.ticket)
    {
        batches.extend(client.do_get(ticket).await?.try_collect::<Vec<_>>().await?);
    }
    Ok(batches)
}
