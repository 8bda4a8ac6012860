//! A small lake of which all is known: some areas of Thailand, and plots of land, of which each event is a commit
//! of its own.

use std::time::Duration;

use anyhow::{Result, ensure};
use ruam_tests::broker::{embedded_in, publish};
use ruam_tests::{Broker, Installation, Process, datasets};

use crate::server::{address, address_of};

const PATIENCE: Duration = Duration::from_secs(90);

pub(super) const AREAS: &str = "dopa/administrative_area";
pub(super) const PLOTS: &str = "test/plot";

/// The key of all records.
const KEY: &[u8] = b"one";
/// Where the areas lie in the log.
const AREAS_TOPIC: &str = "ruam.dopa.administrative_area";

/// Areas as they are declared, but for their source: here it is the log.
pub(super) fn areas_spec() -> Result<String> {
    let text = datasets::text(AREAS, None)?;
    let without = text.replace("[source]\nkind = \"administrative_areas\"\n", "");
    ensure!(without != text, "{AREAS} has another source");
    Ok(without)
}

/// Plots of land.
pub(super) const SPEC: &str = r#"dataset = "test.plot"
title = { th = "แปลงที่ดิน", en = "Plots of land" }
description = { th = "ก", en = "a" }
owner = { th = "กรม", en = "Department" }
contact = { name = "x", email = "x@example.org" }
classification = "internal"
purposes = ["training"]
mode = "upsert"
key = ["number"]
history = true
effective = "since"
topic = { name = "plots", partitions = 1 }
columns = [
    { name = "number", type = "integer", title = { th = "เลขที่", en = "Number" } },
    { name = "place", type = "thai_text", required = true, title = { th = "สถานที่", en = "Place" } },
    { name = "area_code", type = "area_code", title = { th = "รหัสเขต", en = "Area code" } },
    { name = "price", type = "money", classification = "confidential", title = { th = "ราคา", en = "Price" } },
    { name = "since", type = "be_date", title = { th = "ตั้งแต่", en = "Since" } },
]
"#;

/// What is asked: an installation that runs.
pub(super) struct Asked {
    pub installation: Installation,
    pub port: String,
    pub flight: String,
    up: Process,
}

impl Asked {
    /// Stops it.
    pub(super) fn stop(self) -> Result<()> {
        let (status, said) = self.up.interrupt(PATIENCE)?;
        ensure!(status.success(), "{said}");
        Ok(())
    }
}

/// Starts an installation, and fills its lake.
pub(super) fn build() -> Result<Asked> {
    let mut installation = Installation::empty(Broker::Embedded)?;
    installation.set("flight = \"127.0.0.1:0\"\n")?;
    installation.write_spec(AREAS, &areas_spec()?)?;
    installation.write_spec(PLOTS, SPEC)?;
    let mut up = installation.start(&["up"])?;
    let log = embedded_in(&mut up)?;
    let port = address(&mut up)?;
    let flight = address_of(&mut up, "Arrow Flight SQL")?;
    let has = |sql: &str, count: usize| Ok(installation.ask(sql)?[0][0].as_deref() == Some(&count.to_string()));
    let areas = areas();
    publish(&log, AREAS_TOPIC, areas.iter().map(|event| (Some(KEY), Some(event.as_bytes()))))?;
    for (number, event) in events().iter().enumerate() {
        publish(&log, "plots", [(Some(KEY), Some(event.as_bytes()))])?;
        let arrived = "select (select count(*) from test.plot__changes) + (select count(*) from test.plot__rejects)";
        up.run_until(|| has(arrived, number + 1), PATIENCE)?;
    }
    up.run_until(|| has("select count(*) from dopa.administrative_area__changes", areas.len()), PATIENCE)?;
    Ok(Asked { installation, port, flight, up })
}

/// What is told of plots, each on a day of 2024 of its own.
fn events() -> Vec<String> {
    let plot = |number: u32, place: &str, area: &str, price: &str, since: &str| {
        format!(r#"{{"number":{number},"place":"{place}","area_code":"{area}","price":"{price}","since":"{since}"}}"#)
    };
    let event = |op: &str, before: &str, after: &str, day: i64| {
        // Days after 2024-01-01.
        let micros = 1_704_067_200_000_000 + day * 86_400_000_000;
        format!(r#"{{"op":"{op}","before":{before},"after":{after},"source":{{"ts_us":{micros}}}}}"#)
    };
    let bang_sue = plot(1, "ใกล้ตลาดบางซื่อ", "100205", "1500000.00", "1/2/2567");
    let sold = plot(1, "ใกล้ตลาดบางซื่อ", "100205", "1750000.50", "1/3/2567");
    let mae_rim = plot(2, "ที่ว่าการอำเภอเเม่ริม", "500714", "900000.00", "1/2/2567");
    let chiang_mai = plot(3, "เขตเมืองเชียงใหม่", "500108", "21.00", "1/4/2567");
    vec![
        event("c", "null", &bang_sue, 31),
        event("c", "null", &mae_rim, 31),
        event("c", "null", &plot(4, "ไม่มีวัน", "100205", "1", "31 กุมภาพันธ์ 2567"), 32),
        event("u", &bang_sue, &sold, 60),
        event("d", &mae_rim, "null", 75),
        event("c", "null", &chiang_mai, 91),
        event("c", "null", &plot(5, "รหัสสั้น", "1", "1", "1/5/2567"), 92),
    ]
}

/// What is told of areas: those that were there when somebody looked first, and that one was abolished.
fn areas() -> Vec<String> {
    let area = |code: &str, level: &str, name: &str, abolished: &str| {
        format!(r#"{{"code":"{code}","level":"{level}","name_th":"{name}"{abolished}}}"#)
    };
    let event = |op: &str, after: &str| format!(r#"{{"op":"{op}","before":null,"after":{after}}}"#);
    let provinces = [
        ("10", "กรุงเทพมหานคร"),
        ("62", "กำแพงเพชร"),
        ("50", "เชียงใหม่"),
        ("46", "กาฬสินธุ์"),
        ("81", "กระบี่"),
        ("71", "กาญจนบุรี"),
    ];
    let subdistricts = [("100205", "บางซื่อ"), ("102901", "บางซื่อ"), ("500108", "สุเทพ")];
    let there = provinces.map(|(code, name)| area(code, "province", name, "")).into_iter();
    let there = there.chain(subdistricts.map(|(code, name)| area(code, "subdistrict", name, "")));
    let abolished = r#","abolished_on":"2006-01-01","successors":"102901","succession_basis":"notice""#;
    let abolished = area("100205", "subdistrict", "บางซื่อ", abolished);
    there.map(|area| event("r", &area)).chain([event("u", &abolished)]).collect()
}
