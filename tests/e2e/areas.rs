//! README's questions about areas, answered by the lake and, beside it, by the source's files.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use ruam_tests::{Broker, Installation};
use serde_json::Value;

const DATA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../connectors/data/geothai");
const README: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../README.md");

fn source(name: &str) -> Result<Vec<Vec<Value>>> {
    Ok(serde_json::from_slice(&std::fs::read(format!("{DATA}/{name}.json"))?)?)
}

/// A value as a table has it; the files have both null and nothing where nothing is known.
fn text(value: &Value) -> Option<String> {
    value.as_str().filter(|text| !text.is_empty()).map(ToOwned::to_owned)
}

/// The statements of README that ask about areas, in their order.
fn questions() -> Result<Vec<String>> {
    let readme = std::fs::read_to_string(README)?;
    let blocks = readme.split("```sql\n").skip(1).filter_map(|rest| rest.split("\n```").next());
    Ok(blocks.filter(|sql| sql.contains("dopa.administrative_area")).map(ToOwned::to_owned).collect())
}

pub fn answers_are_those_of_the_source() -> Result<()> {
    let installation = Installation::new(Broker::Embedded)?;
    installation.succeed(&["demo", "--rate", "0", "--events", "300"])?;
    let abolished = source("abolished")?;
    let current: Vec<_> = ["provinces", "districts", "subdistricts"].map(source).into_iter().collect::<Result<_>>()?;

    // Every row of the files, column by column. One name there has two characters that look like one
    // (SARA E twice for SARA AE), which `thai_text` mends.
    let name = |value: &Value| text(value).map(|name| name.replace("\u{0e40}\u{0e40}", "\u{0e41}"));
    let mut expected = BTreeSet::new();
    for (level, rows) in ["province", "district", "subdistrict"].into_iter().zip(&current) {
        for row in rows {
            let row = [text(&row[0]), Some(level.to_owned()), name(&row[1]), text(&row[2]), None, None, None];
            expected.insert(row);
        }
    }
    for row in &abolished {
        let code = text(&row[0]).context("a code")?;
        let level = if code.len() == 4 { "district" } else { "subdistrict" };
        let level = Some(level.to_owned());
        expected.insert([Some(code), level, name(&row[1]), text(&row[2]), text(&row[3]), text(&row[4]), text(&row[5])]);
    }
    let found = installation.ask(
        "select code, level, name_th, name_en, abolished_on, successors, succession_basis from dopa.administrative_area",
    )?;
    let found: BTreeSet<[Option<String>; 7]> = found
        .into_iter()
        .map(|row| row.try_into().map_err(|_| anyhow::anyhow!("seven columns")))
        .collect::<Result<_>>()?;
    let odd: Vec<_> = found.symmetric_difference(&expected).take(5).collect();
    ensure!(odd.is_empty(), "tables and files differ, first: {odd:#?}");

    let questions = questions()?;
    // The first is asked of the history, and has to be answered as the third.
    let [by_history, between, in_force, replaced] = &questions[..] else {
        anyhow::bail!("README asks four questions about areas, not {}", questions.len());
    };

    ensure!(between.contains("2006-01-01") && between.contains("2010-12-31"), "{between}");
    let expected: BTreeSet<_> = abolished
        .iter()
        .filter(|row| row[0].as_str().is_some_and(|code| code.len() == 6))
        .filter(|row| row[3].as_str().is_some_and(|date| ("2006-01-01"..="2010-12-31").contains(&date)))
        .map(|row| (text(&row[0]), text(&row[3])))
        .collect();
    let found: BTreeSet<_> =
        installation.ask(between)?.into_iter().map(|row| (row[0].clone(), row[2].clone())).collect();
    ensure!(!expected.is_empty() && found == expected, "{found:?} are not {expected:?}");

    ensure!([in_force, by_history].iter().all(|question| question.contains("2010-01-01")), "{questions:?}");
    let mut counts = [0; 3];
    for (count, rows) in counts.iter_mut().zip(&current) {
        *count += rows.len();
    }
    for row in abolished.iter().filter(|row| row[3].as_str().is_some_and(|date| date > "2010-01-01")) {
        counts[if row[0].as_str().is_some_and(|code| code.len() == 4) { 1 } else { 2 }] += 1;
    }
    let expected: BTreeSet<_> = ["province", "district", "subdistrict"]
        .into_iter()
        .zip(counts)
        .map(|(level, count)| (Some(level.to_owned()), Some(count.to_string())))
        .collect();
    for question in [in_force, by_history] {
        let found: BTreeSet<_> =
            installation.ask(question)?.into_iter().map(|row| (row[0].clone(), row[1].clone())).collect();
        ensure!(found == expected, "{found:?} are not {expected:?}");
    }

    let bang_sue = abolished.iter().find(|row| row[0] == "100205").context("100205 is in the source")?;
    let found = installation.ask(replaced)?;
    ensure!(found.len() == 1, "one area replaced 100205: {found:?}");
    ensure!(found[0].contains(&text(&bang_sue[4])), "{found:?} does not name {}", bang_sue[4]);

    // The history of one area: it stood there when the source was first read, and was then closed.
    let history = installation.ask(
        "select _op, abolished_on from dopa.administrative_area__changes where code = '100205' order by _position",
    )?;
    let expected = vec![vec![Some("snapshot".to_owned()), None], vec![Some("update".to_owned()), text(&bang_sue[3])]];
    ensure!(history == expected, "{history:?}");
    Ok(())
}
