use super::*;

const SPEC: &str = r#"dataset = "bora.person"
title = { th = "บุคคล", en = "Persons" }
description = { th = "ก", en = "a" }
owner = { th = "กรมการปกครอง", en = "DOPA" }
contact = { name = "x", email = "x@example.org" }
classification = "internal"
purposes = ["training"]
mode = "upsert"
key = ["citizen_id"]
cluster_by = ["pay", "citizen_id"]

[topic]
partitions = 2

[[columns]]
name = "citizen_id"
type = "thai_citizen_id"
title = { th = "เลข", en = "ID" }

[[columns]]
name = "pay"
type = "money"
with = { precision = 12 }
title = { th = "เงิน", en = "Pay" }
"#;

fn parse(text: &str) -> Result<DatasetSpec, SpecError> {
    DatasetSpec::parse("specs/bora/person.toml", text)
}

#[test]
fn reads_a_file() {
    let spec = parse(SPEC).unwrap();
    assert_eq!(spec.id().to_string(), "bora.person");
    assert_eq!((spec.topic(), spec.partitions()), ("ruam.bora.person".to_owned(), 2));
    assert!(spec.is_key("citizen_id") && !spec.is_key("pay"));
    assert_eq!(spec.cluster_by(), ["pay", "citizen_id"]);
    assert_eq!(spec.columns[1].with.get_ref()["precision"].as_integer(), Some(12));
}

#[test]
fn each_mistake_has_its_place_and_remedy() {
    for (from, to, expected) in [
        (
            "mode = ",
            "modus = ",
            "specs/bora/person.toml:8: modus: `modus` is not a key that is known here. Did you mean `mode`?",
        ),
        (
            "\"upsert\"",
            "\"upset\"",
            "specs/bora/person.toml:8: mode: `upset` is not a value that is known here. Did you mean `upsert`?",
        ),
        ("mode = \"upsert\"\n", "", "specs/bora/person.toml:1: mode: it is missing. Add `mode = ...`"),
        (
            "key = [\"citizen_id\"]",
            "key = [\"citizen\"]",
            "specs/bora/person.toml:9: key: there is no column `citizen`. The columns are: citizen_id, pay",
        ),
        ("key = [\"citizen_id\"]\n", "", "specs/bora/person.toml:1: key: mode `upsert` needs to know"),
        (
            "[\"pay\", \"citizen_id\"]",
            "[\"pay\", \"area_code\"]",
            "specs/bora/person.toml:10: cluster_by: there is no column `area_code`. The columns are: citizen_id, pay",
        ),
        (
            "[\"pay\", \"citizen_id\"]",
            "[\n  \"pay\",\n  \"pay\",\n]",
            "specs/bora/person.toml:12: cluster_by: `pay` is named twice. Remove one of the two",
        ),
        (
            "[\"pay\", \"citizen_id\"]",
            "[\"a\", \"b\", \"c\", \"d\", \"e\"]",
            "specs/bora/person.toml:10: cluster_by: rows cannot lie together by more than 4 columns. Name those",
        ),
        (
            "name = \"pay\"",
            "name = \"citizen_id\"",
            "specs/bora/person.toml:21: columns.name: `citizen_id` is declared twice",
        ),
        ("name = \"pay\"", "name = \"_pay\"", "specs/bora/person.toml:21: columns.name: `_pay` cannot name a column"),
        (
            "partitions = 2",
            "partitions = 0",
            "specs/bora/person.toml:13: topic.partitions: 0 is not a number of partitions",
        ),
        (
            "\"bora.person\"",
            "\"bora.people\"",
            "specs/bora/person.toml:1: dataset: the file of `bora.people` has to be called `bora/people.toml`",
        ),
        ("\"bora.person\"", "\"Bora\"", "specs/bora/person.toml:1: dataset: `Bora` does not name a dataset"),
        ("partitions = 2", "partitions 2", "specs/bora/person.toml:13: file:"),
    ] {
        assert!(SPEC.contains(from), "{from}");
        let error = parse(&SPEC.replacen(from, to, 1)).unwrap_err().to_string();
        assert!(error.starts_with(expected), "{error}");
    }
}

#[test]
fn an_effective_date_is_a_date_of_a_history() {
    let dated = SPEC.replacen("type = \"money\"\nwith = { precision = 12 }", "type = \"be_date\"", 1);
    let with = |text: &str, lines: &str| parse(&text.replacen("mode =", &format!("{lines}\nmode ="), 1));
    let spec = with(&dated, "history = true\neffective = \"pay\"").unwrap();
    assert_eq!((spec.effective(), parse(&dated).unwrap().effective()), (Some("pay"), None));
    for (text, lines, expected) in [
        (&dated[..], "history = false\neffective = \"pay\"", "9: effective: an effective date needs the history"),
        (
            SPEC,
            "history = true\neffective = \"pay\"",
            "9: effective: column `pay` is of type `money`, which is no date. Name a column of type be_date or timestamp",
        ),
        (
            &dated,
            "history = true\neffective = \"paid\"",
            "9: effective: there is no column `paid`. The columns with dates are: pay",
        ),
    ] {
        let error = with(text, lines).unwrap_err().to_string();
        assert!(error.starts_with(&format!("specs/bora/person.toml:{expected}")), "{error}");
    }
    let clash = dated.replace("\"pay\"", "\"valid_to\"");
    let error = with(&clash, "history = true").unwrap_err().to_string();
    assert!(error.starts_with("specs/bora/person.toml:22: columns.name: `valid_to` is also the name"), "{error}");
    assert!(parse(&clash).is_ok());
}

#[test]
fn a_topic_that_others_fill_says_how() {
    let with = |lines: &str| parse(&SPEC.replacen("partitions = 2", lines, 1));
    let spec = with("encoding = \"avro\"\nformat = \"rows\"").unwrap();
    assert_eq!((spec.topic_encoding(), spec.topic_format()), (TopicEncoding::Avro, TopicFormat::Rows));
    assert_eq!(spec.without_registry().line, 13);
    let spec = with("[topic.schema]\npay = { decimal = 2 }\ncitizen_id = \"micro_timestamp\"").unwrap();
    let schema: Vec<_> = spec.topic_schema().collect();
    assert_eq!(schema, [("citizen_id", ConnectType::MicroTimestamp), ("pay", ConnectType::Decimal(2))]);
    let source = |lines: &str| {
        let text = SPEC.replacen("partitions = 2", lines, 1).replacen("mode =", "source.kind = \"x\"\nmode =", 1);
        parse(&text)
    };
    for (parsed, expected) in [
        (with("encoding = \"xml\""), "13: encoding: `xml` is not a value that is known here. Known are: json, avro"),
        (
            with("encoding = \"avro\"\nformat = \"cloud_events\""),
            "13: topic.encoding: CloudEvents in structured mode are in JSON. Remove `encoding`",
        ),
        (source("encoding = \"avro\""), "14: topic.encoding: the topic of a dataset with a source is in JSON"),
        (source("schema.pay = \"date\""), "14: topic.schema: the records of this topic say themselves"),
        (with("encoding = \"avro\"\nschema.pay = \"date\""), "14: topic.schema: the records of this topic say"),
        (
            with("schema.paid = \"date\""),
            "13: topic.schema: there is no column `paid`. The columns are: citizen_id, pay",
        ),
        (with("schema.pay = \"day\""), "13: schema.pay: `day` is not a value that is known here. Did you mean `date`?"),
    ] {
        let error = parsed.unwrap_err().to_string();
        assert!(error.starts_with(&format!("specs/bora/person.toml:{expected}")), "{error}");
    }
}

#[test]
fn only_open_data_is_published() {
    let text = format!("{SPEC}\n[[extracts]]\nname = \"all\"\nsql = \"select 1\"\nformats = [\"csv\"]\n");
    assert_eq!(parse(&text).unwrap_err().key, "extracts");
    assert!(parse(&text.replace("\"internal\"", "\"open\"")).is_ok());
}
