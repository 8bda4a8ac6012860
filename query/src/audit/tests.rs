use super::*;
use std::sync::Arc;
use tempfile::TempDir;

fn log(dir: &TempDir) -> AuditLog {
    AuditLog::open(dir.path(), PseudonymKey::new(vec![1; 32])).unwrap()
}

fn record(query: &str) -> Record {
    Record { query: query.to_owned(), sql: "select 'ไทย'".to_owned(), ..Record::default() }
}

/// An account of four records, by two processes in turn.
fn account() -> (TempDir, PathBuf) {
    let dir = TempDir::new().unwrap();
    let (one, other) = (log(&dir), log(&dir));
    for (log, query) in [(&one, "a"), (&other, "b"), (&one, "c"), (&one, "d")] {
        log.append(&record(query)).unwrap();
    }
    let file = files(dir.path()).unwrap().remove(0);
    (dir, file)
}

#[test]
fn what_was_written_is_there() {
    let (dir, _) = account();
    let head = verify(dir.path(), None).unwrap();
    assert_eq!(head.records(), 4);
    assert_eq!(verify(dir.path(), Some(head)).unwrap(), head.to_string().parse().unwrap());
    let queries: Vec<_> = log(&dir).records().unwrap().map(|record| record.unwrap().query).collect();
    assert_eq!(queries, ["a", "b", "c", "d"]);
}

#[test]
fn each_change_shows() {
    for (what, left) in [
        ("a line is left out", &[0, 2, 3][..]),
        ("two change places", &[0, 2, 1, 3]),
        ("one is there twice", &[0, 1, 1, 2, 3]),
        ("the first is missing", &[1, 2, 3]),
    ] {
        let (dir, file) = account();
        let text = fs::read_to_string(&file).unwrap();
        let lines: Vec<_> = text.lines().collect();
        fs::write(&file, left.iter().map(|at| format!("{}\n", lines[*at])).collect::<String>()).unwrap();
        assert!(matches!(verify(dir.path(), None), Err(AuditError::Changed { .. })), "{what}");
    }
}

#[test]
fn each_byte_counts() {
    let (dir, file) = account();
    let (head, bytes) = (verify(dir.path(), None).unwrap(), fs::read(&file).unwrap());
    for at in 0..bytes.len() {
        let mut changed = bytes.clone();
        changed[at] ^= 1;
        fs::write(&file, changed).unwrap();
        assert!(verify(dir.path(), Some(head)).is_err(), "byte {at}");
    }
}

#[test]
fn what_is_cut_off_shows_against_a_head() {
    let (dir, file) = account();
    let head = verify(dir.path(), None).unwrap();
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, text.lines().take(3).map(|line| format!("{line}\n")).collect::<String>()).unwrap();
    assert_eq!(verify(dir.path(), None).unwrap().records(), 3);
    assert!(matches!(verify(dir.path(), Some(head)), Err(AuditError::Cut(_))));
}

#[test]
fn a_torn_line_is_gone_on_after() {
    let (dir, file) = account();
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, &text[..text.len() - 5]).unwrap();
    log(&dir).append(&record("e")).unwrap();
    assert_eq!(verify(dir.path(), None).unwrap().records(), 4);
}

/// An account of small files, by two processes at the same time.
fn of_many_files(dir: &TempDir) -> Vec<PathBuf> {
    let (one, other) = (log(dir), log(dir));
    std::thread::scope(|scope| {
        for log in [&one, &other] {
            log.end.lock().unwrap().full = 2000;
            scope.spawn(move || {
                for number in 0..40 {
                    log.append(&record(&number.to_string())).unwrap();
                }
            });
        }
    });
    files(dir.path()).unwrap()
}

#[test]
fn two_processes_write_one_account_of_many_files() {
    let dir = TempDir::new().unwrap();
    let files = of_many_files(&dir);
    assert!(files.len() > 5, "{files:?}");
    let head = verify(dir.path(), None).unwrap();
    assert_eq!(head.records(), 80);
    // Each wrote all of its own, in their order.
    let log = log(&dir);
    let mut left: [Vec<_>; 2] = [(0..40).collect(), (0..40).collect()];
    for record in log.records().unwrap() {
        let query: i32 = record.unwrap().query.parse().unwrap();
        let own = left.iter_mut().find(|left| left.first() == Some(&query)).unwrap();
        own.remove(0);
    }
    assert!(left.iter().all(Vec::is_empty));
    // One that comes later goes on where they ended.
    log.append(&record("z")).unwrap();
    assert_eq!(verify(dir.path(), Some(head)).unwrap().records(), 81);
}

#[test]
fn what_is_kept_open_is_looked_at_anew_where_somebody_has_moved_it() {
    let (dir, file) = account();
    let log = log(&dir);
    log.append(&record("e")).unwrap();
    fs::remove_file(dir.path().join("lock")).unwrap();
    fs::copy(&file, dir.path().join("copy")).unwrap();
    fs::rename(dir.path().join("copy"), &file).unwrap();
    log.append(&record("f")).unwrap();
    assert!(dir.path().join("lock").exists(), "others would not wait where this one does");
    assert_eq!(verify(dir.path(), None).unwrap().records(), 6);
    // Where all of it is gone, another account begins, which no head of the first is in.
    let head = verify(dir.path(), None).unwrap();
    fs::remove_file(&file).unwrap();
    log.append(&record("g")).unwrap();
    assert_eq!(verify(dir.path(), None).unwrap().records(), 1);
    assert!(matches!(verify(dir.path(), Some(head)), Err(AuditError::Cut(_))));
}

#[test]
fn a_crash_may_come_between_a_file_and_its_first_line() {
    let dir = TempDir::new().unwrap();
    of_many_files(&dir);
    fs::write(dir.path().join(format!("{:012}.ndjson", 80)), "{\"number\":80,\"ha").unwrap();
    log(&dir).append(&record("y")).unwrap();
    assert_eq!(verify(dir.path(), None).unwrap().records(), 81);
    // One that says that more came before than did is no crash's.
    fs::write(dir.path().join(format!("{:012}.ndjson", 90)), "").unwrap();
    assert!(matches!(log(&dir).append(&record("z")), Err(AuditError::Changed { .. })));
}

#[test]
fn lines_longer_than_what_is_read_of_an_end_are_found() {
    let dir = TempDir::new().unwrap();
    let long = Record { sql: "x".repeat(3 * TAIL as usize), ..record("a") };
    for _ in 0..2 {
        log(&dir).append(&long).unwrap();
        log(&dir).append(&record("b")).unwrap();
    }
    assert_eq!(verify(dir.path(), None).unwrap().records(), 4);
}

#[tokio::test]
async fn files_of_other_times_are_not_read() {
    use datafusion::prelude::SessionContext;
    let dir = TempDir::new().unwrap();
    let writing = log(&dir);
    writing.end.lock().unwrap().full = 1;
    for day in 1..=9 {
        writing.append(&Record { at: format!("2026-03-0{day}T08:00:00.000000Z"), ..record(&day.to_string()) }).unwrap();
    }
    // Whoever reads another one fails.
    let all = files(dir.path()).unwrap();
    let context = SessionContext::new();
    context.register_table("audit", Arc::new(Account::new(Some(Arc::new(log(&dir)))).unwrap())).unwrap();
    let ask = async |condition: &str| {
        let sql = format!("select query from audit where {condition} order by query");
        let batches = context.sql(&sql).await.unwrap().collect().await?;
        let numbers = batches.iter().flat_map(|batch| {
            let queries: &arrow::array::StringArray = batch.column(0).as_any().downcast_ref().unwrap();
            queries.iter().map(|query| query.unwrap().to_owned()).collect::<Vec<_>>()
        });
        Ok::<_, datafusion::error::DataFusionError>(numbers.collect::<String>())
    };
    assert_eq!(ask("true").await.unwrap(), "123456789");
    assert_eq!(ask("who <> '' or query < '3'").await.unwrap(), "12");
    for broken in [&all[1], &all[8]] {
        let text = fs::read_to_string(broken).unwrap();
        fs::write(broken, format!("{text}no record\n")).unwrap();
    }
    assert!(ask("true").await.is_err());
    let some = "at >= timestamp '2026-03-05' and at < timestamp '2026-03-07'";
    assert_eq!(ask(some).await.unwrap(), "56");
    assert_eq!(ask(&format!("{some} and query <> '5'")).await.unwrap(), "6");
    assert!(ask("at > timestamp '2026-03-08'").await.is_err(), "the last goes on");
}
