use super::*;
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
