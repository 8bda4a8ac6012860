//! The history of changes as a table of them has it, asked in SQL.

use arrow::util::pretty::pretty_format_batches;
use datafusion::datasource::{ViewTable, provider_as_source};
use datafusion::prelude::{SessionConfig, SessionContext};

use super::*;

/// A change, as SQL: key, name, date, partition, position, source time, arrival, op, unchanged.
const CHANGES: &str = "
    ('a', 'first',  null,         2, '01', null,                   '2024-01-01 00:00:00Z', 'snapshot', null),
    ('a', 'second', '2024-03-01', 2, '02', '2024-02-20 00:00:00Z', '2024-02-20 00:00:05Z', 'update',   null),
    ('a', null,     '2024-02-01', 2, '03', '2024-04-01 00:00:00Z', '2024-04-01 00:00:05Z', 'update',   'name'),
    -- 18:00 in Greenwich is the next day in Thailand.
    ('a', 'second', '2024-02-01', 2, '04', '2024-05-01 18:00:00Z', '2024-05-01 18:00:05Z', 'delete',   null),
    ('b', 'timeless', null,       1, '05', null,                   '2024-01-02 20:00:00Z', 'insert',   null),
    ('c', 'other',  '2024-06-01', 0, '06', '2024-01-03 00:00:00Z', '2024-01-03 00:00:05Z', 'insert',   null),
    (null, null,    null,         0, '07', '2024-01-04 00:00:00Z', '2024-01-04 00:00:05Z', 'truncate', null),
    ('c', 'again',  '2024-01-05', 0, '08', '2024-01-05 00:00:00Z', '2024-01-05 00:00:05Z', 'insert',   null)";

async fn context(effective: Option<&str>) -> SessionContext {
    // A key's changes are not to come in one batch, or in order, by chance.
    let context = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(3).with_batch_size(2));
    let changes = format!(
        "create table changes as select column1 as key, column2 as name, cast(column3 as date) as since, \
         cast(column4 as int) as _partition, column5 as _position, \
         arrow_cast(column6, 'Timestamp(Microsecond, Some(\"UTC\"))') as _source_time, \
         arrow_cast(column7, 'Timestamp(Microsecond, Some(\"UTC\"))') as _arrived_at, \
         column8 as _op, column9 as _unchanged from (values {CHANGES}) order by column2"
    );
    context.sql(&changes).await.unwrap();
    let provider = context.table_provider("changes").await.unwrap();
    let schema = provider.schema();
    let rows = Schema::new(schema.fields()[..schema.fields().len() - 2].to_vec());
    let changes = LogicalPlanBuilder::scan("changes", provider_as_source(provider), None).unwrap().build().unwrap();
    let plan = History { rows: &rows, key: &["key".to_owned()], effective }.plan(&changes).unwrap();
    context.register_table("history", Arc::new(ViewTable::new(plan, None))).unwrap();
    context
}

async fn ask(context: &SessionContext, sql: &str) -> Vec<String> {
    let answer = context.sql(sql).await.unwrap().collect().await.unwrap();
    let table = pretty_format_batches(&answer).unwrap().to_string();
    let lines = table.lines().filter(|line| line.starts_with('|')).skip(1);
    lines.map(|line| line.split('|').map(str::trim).collect::<Vec<_>>().join(" ").trim().to_owned()).collect()
}

fn as_of(day: &str, known: &str) -> String {
    format!(
        "select key, name from history where (valid_from is null or valid_from <= date '{day}') \
         and (valid_to is null or valid_to > date '{day}') and known_from <= timestamp '{known}Z' \
         and (known_to is null or known_to > timestamp '{known}Z') order by key"
    )
}

#[tokio::test]
async fn what_was_on_a_day_depends_on_when_it_is_asked() {
    let context = context(Some("since")).await;
    for (day, known, expected) in [
        ("2024-02-15", "2024-01-01 12:00:00", &["a first"][..]),
        // A change that is known before its day.
        ("2024-02-15", "2024-03-15 00:00:00", &["a first", "b timeless", "c again"]),
        ("2024-03-15", "2024-03-15 00:00:00", &["a second", "b timeless", "c again"]),
        // A correction moves the day, and leaves the name as it was.
        ("2024-02-15", "2024-04-15 00:00:00", &["a second", "b timeless", "c again"]),
        // It arrived after midnight in Thailand, and not in Greenwich.
        ("2024-01-02", "2024-04-15 00:00:00", &["a first"]),
        ("2024-01-03", "2024-04-15 00:00:00", &["a first", "b timeless"]),
        // A deletion counts from its day in Thailand, whatever date the row had.
        ("2024-05-01", "2024-06-01 00:00:00", &["a second", "b timeless", "c again"]),
        ("2024-05-02", "2024-06-01 00:00:00", &["b timeless", "c again"]),
        // A truncation ends what was to begin later, too.
        ("2024-06-15", "2024-01-03 12:00:00", &["a first", "b timeless", "c other"]),
        ("2024-06-15", "2024-01-04 12:00:00", &["a first", "b timeless"]),
    ] {
        assert_eq!(ask(&context, &as_of(day, known)).await, expected, "{day} as known at {known}");
    }
    let current = ask(&context, "select key, name from history where is_current order by key").await;
    assert_eq!(current, ["b timeless", "c again"]);
}

#[tokio::test]
async fn without_an_effective_date_the_source_clock_is_that_of_its_changes() {
    let context = context(None).await;
    let sql = "select name, valid_from = _source_time, valid_to, known_from = _arrived_at, known_to from history \
               where key = 'a' order by valid_from nulls first, known_from";
    let expected = [
        "first   true 2024-02-20T00:00:05Z",
        "first  2024-02-20T00:00:00Z false ",
        "second true  true 2024-04-01T00:00:05Z",
        "second true 2024-04-01T00:00:00Z false ",
        "second true  true 2024-05-01T18:00:05Z",
        "second true 2024-05-01T18:00:00Z false ",
    ];
    assert_eq!(ask(&context, sql).await, expected.map(|line| line.trim().to_owned()));
}

#[tokio::test]
async fn a_filter_on_the_key_comes_before_any_sorting() {
    let context = context(Some("since")).await;
    let frame = context.sql("select name, valid_from from history where key = 'c' and known_to is null").await.unwrap();
    let plan = frame.into_optimized_plan().unwrap().display_indent().to_string();
    let (window, filter) = (plan.rfind("WindowAggr").unwrap(), plan.find("key = ").unwrap());
    assert!(window < filter, "{plan}");
}
