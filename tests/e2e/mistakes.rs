//! Mistakes that people make, and what the program says: what happened, where, and what to do.

use std::fs;
use std::net::TcpListener;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ruam_tests::installation::program;
use ruam_tests::model::Models;
use ruam_tests::{Broker, Installation};

const PATIENCE: Duration = Duration::from_secs(90);
const SMALL: [&str; 5] = ["demo", "--rate", "0", "--events", "300"];

fn says(said: &str, expected: &[&str]) -> Result<()> {
    for text in expected {
        ensure!(said.contains(text), "does not say `{text}`:\n{said}");
    }
    ensure!(!said.contains("panicked"), "{said}");
    Ok(())
}

/// Changes a dataset's file.
fn change(installation: &Installation, name: &str, from: &str, to: &str) -> Result<()> {
    let text = fs::read_to_string(installation.spec_path(name))?;
    ensure!(text.contains(from), "{name} has no `{from}`");
    installation.write_spec(name, &text.replacen(from, to, 1))
}

pub fn in_a_dataset_file() -> Result<()> {
    for (from, to, expected) in [
        ("classification =", "clasification =", &["clasification", "Did you mean `classification`?"][..]),
        ("type = \"be_date\"", "type = \"be_dat\"", &["be_dat", "Did you mean `be_date`?"]),
        ("key = [\"citizen_id\"]", "key = [\"citizen\"]", &["citizen", "citizen_id"]),
        ("mode = \"upsert\"", "mode = \"merge\"", &["merge", "append"]),
        ("kind = \"generated_persons\"", "kind = \"generated_person\"", &["generated_person", "generated_persons"]),
        ("dataset = \"bora.person\"", "dataset = \"bora.person", &["bora/person.toml:3"]),
    ] {
        let installation = Installation::new(Broker::Embedded)?;
        change(&installation, "bora/person", from, to)?;
        let text = fs::read_to_string(installation.spec_path("bora/person"))?;
        let line = text.lines().position(|line| line.contains(to)).context("the line")? + 1;
        let place = format!("bora/person.toml:{line}");
        for command in [&["check"][..], &SMALL[..]] {
            let said = installation.refuse(command)?;
            says(&said, &[place.as_str()])?;
            says(&said, expected)?;
        }
        ensure!(!installation.data_dir().join("lake").exists(), "nothing was begun");
    }
    Ok(())
}

pub fn two_files_for_one_dataset() -> Result<()> {
    let installation = Installation::new(Broker::Embedded)?;
    let text = fs::read_to_string(installation.spec_path("bora/person"))?;
    // Under another name, or under the right one in a second folder.
    installation.write_spec("bora/population", &text)?;
    let said = installation.refuse(&["check"])?;
    says(
        &said,
        &["bora/population.toml:3: dataset: the file of `bora.person`", "`bora/person.toml`", "Move the file"],
    )?;
    fs::remove_file(installation.spec_path("bora/population"))?;
    installation.write_spec("old/bora/person", &text)?;
    let said = installation.refuse(&["check"])?;
    says(&said, &["old/bora/person.toml", "`bora.person` is declared in", "specs/bora/person.toml", "Remove one"])
}

pub fn a_dataset_that_does_not_fit_its_table() -> Result<()> {
    for (from, to, expected) in [
        ("mode = \"append\"", "mode = \"upsert\"", &["`mode` is now `upsert` and was `append`"][..]),
        ("type = \"money\"", "type = \"text\"", &["column `amount` is now stored as Utf8"]),
        ("partitions = 2", "partitions = 3", &["has 2 partitions and the dataset declares 3", "topic.partitions = 2"]),
    ] {
        let installation = Installation::new(Broker::Embedded)?;
        installation.succeed(&SMALL)?;
        let before = installation.ask("select count(*), sum(_offset) from cgd.disbursement")?;
        let file = installation.spec_path("cgd/disbursement");
        let text = fs::read_to_string(&file)?;
        change(&installation, "cgd/disbursement", from, to)?;
        let said = installation.refuse(&SMALL)?;
        says(&said, expected)?;
        if !to.starts_with("partitions") {
            says(&said, &["specs/cgd/disbursement.toml: ", "Undo the change, or begin a new table"])?;
        }
        // Undone, all is as it was.
        fs::write(&file, text)?;
        installation.succeed(&SMALL)?;
        let after = installation.ask("select count(*), sum(_offset) from cgd.disbursement")?;
        ensure!(before == after, "{before:?} became {after:?}");
    }
    // A column more is no conflict.
    let installation = Installation::new(Broker::Embedded)?;
    installation.succeed(&SMALL)?;
    let file = installation.spec_path("cgd/disbursement");
    let more =
        "\n[[columns]]\nname = \"remark\"\ntype = \"thai_text\"\ntitle = { th = \"หมายเหตุ\", en = \"Remark\" }\n";
    fs::write(&file, fs::read_to_string(&file)? + more)?;
    installation.succeed(&SMALL)?;
    let remarks = installation.ask("select count(*), count(remark) from cgd.disbursement")?;
    ensure!(remarks[0][0].as_deref() != Some("0") && remarks[0][1].as_deref() == Some("0"), "{remarks:?}");
    Ok(())
}

pub fn in_the_settings() -> Result<()> {
    for (settings, expected) in [
        ("[worker]\ncommit_interval = 5\n", &["ruam.toml:", "unknown key `commit_interval`", "commit_interval_ms"][..]),
        ("[gateway]\nwindows = 5\n", &["ruam.toml:", "unknown key `windows`", "window"]),
        ("[lake]\nurl = \"ftp://x/y\"\n", &["lake.url = `ftp://x/y` does not work", "s3://bucket/path"]),
        ("[lake.options]\naws_secret_access_key = \"${RUAM_NO_SUCH}\"\n", &["`RUAM_NO_SUCH` is not set", "ruam.toml:"]),
    ] {
        let mut installation = Installation::new(Broker::Embedded)?;
        installation.set(settings)?;
        says(&installation.refuse(&SMALL)?, expected)?;
    }
    let installation = Installation::new(Broker::Embedded)?;
    let said = installation.refuse(&["up", "--listen", "0.0.0.0:5433"])?;
    says(&said, &["query.listen = \"0.0.0.0:5433\"", "there is neither sign-on nor TLS", "127.0.0.1"])?;
    for (settings, expected) in [
        ("listen = \"0.0.0.0:8282\"", "gateway.listen = \"0.0.0.0:8282\""),
        ("window = 0", "gateway.window: without a window"),
        ("client_certificates = \"ca.pem\"", "clients show certificates by TLS only"),
        ("[gateway.quotas.nobody]\nevents_per_second = 5", "gateway.quotas.nobody: there is no dataset of this agency"),
    ] {
        let mut installation = Installation::new(Broker::Embedded)?;
        installation.set(&format!("[gateway]\n{settings}\n"))?;
        says(&installation.refuse(&["check"])?, &[expected])?;
    }
    let mut installation = Installation::new(Broker::Embedded)?;
    installation.set("[log]\nlisten = \"0.0.0.0:9092\"\n")?;
    says(&installation.refuse(&SMALL)?, &["log.listen = \"0.0.0.0:9092\"", "the broker inside ruam has no sign-on"])
}

pub fn no_broker_answers() -> Result<()> {
    let mut installation = Installation::new(Broker::Embedded)?;
    let free = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    installation.set(&format!("[log]\nbootstrap_servers = \"{free}\"\n"))?;
    let said = installation.refuse(&SMALL)?;
    says(&said, &[&format!("no Kafka broker answers at {free}"), "log.bootstrap_servers"])
}

pub fn the_port_is_in_use() -> Result<()> {
    let installation = Installation::new(Broker::Embedded)?;
    let taken = TcpListener::bind("127.0.0.1:0")?;
    let address = taken.local_addr()?;
    let said = installation.refuse(&["up", "--listen", &address.to_string()])?;
    let by = format!("(process {})", std::process::id());
    says(&said, &[&format!("{address} is in use by "), &by, " is free: set query.listen = \"127.0.0.1:"])?;
    let mut installation = Installation::new(Broker::Embedded)?;
    installation.set(&format!("[log]\nlisten = \"{address}\"\n"))?;
    says(&installation.refuse(&SMALL)?, &[&format!("{address} is in use by "), &by, "log.listen"])
}

pub fn the_data_is_of_another_version() -> Result<()> {
    let installation = Installation::new(Broker::Embedded)?;
    installation.succeed(&SMALL)?;
    let file = installation.data_dir().join("ruam.json");
    let mut layout: serde_json::Value = serde_json::from_slice(&fs::read(&file)?)?;
    layout["format"] = 999.into();
    fs::write(&file, layout.to_string())?;
    for command in [&["up"][..], &SMALL[..], &["demo", "--fresh"], &["sql", "select 1"]] {
        let said = installation.refuse(command)?;
        says(&said, &["has layout 999", "--data-dir", &*installation.data_dir().to_string_lossy()])?;
    }
    // Nor is somebody else's folder taken for one of ours, least of all to be deleted.
    let photos = installation.path().join("photos");
    fs::create_dir(&photos)?;
    fs::write(photos.join("a.jpg"), "x")?;
    let said = installation.refuse(&["demo", "--fresh", "--data-dir", "photos"])?;
    says(&said, &["is not empty and not a data directory of ruam"])?;
    ensure!(photos.join("a.jpg").exists(), "nothing of it was touched");
    Ok(())
}

pub fn the_data_is_in_use() -> Result<()> {
    let installation = Installation::new(Broker::Embedded)?;
    let mut up = installation.start(&["up"])?;
    up.wait_for("running", PATIENCE)?;
    for command in [&["up", "--listen", "127.0.0.1:0"][..], &SMALL[..], &["demo", "--fresh"]] {
        let said = installation.refuse(command)?;
        says(&said, &[&format!("in use by process {}", up.id()), "--data-dir"])?;
    }
    let (status, said) = up.interrupt(PATIENCE)?;
    ensure!(status.success(), "{said}");
    Ok(())
}

pub fn the_lake_cannot_be_written_to() -> Result<()> {
    let mut installation = Installation::new(Broker::Embedded)?;
    // Not even root may write there.
    installation.set("[lake]\nurl = \"/proc/ruam\"\n")?;
    says(&installation.refuse(&SMALL)?, &["cannot write to the lake at /proc/ruam", "lake.url"])
}

/// Whether a file system of its own can be mounted for a test.
pub fn can_mount() -> bool {
    let tried = Command::new("unshare").args(["--user", "--map-root-user", "--mount", "true"]).output();
    tried.is_ok_and(|output| output.status.success())
}

/// The lake's disk fills up while events flow; when there is room again, all goes on.
pub fn the_disk_is_full() -> Result<()> {
    const EVENTS: u64 = 3000;
    let mut installation = Installation::new(Broker::Embedded)?;
    let disk = installation.path().join("disk");
    fs::create_dir(&disk)?;
    installation.set(&format!("[lake]\nurl = \"{}\"\n", disk.join("lake").display()))?;
    // In a mount namespace of its own, on a small disk that is all but full: the demo runs until it
    // complains, then gets room, and comes to its end by itself.
    let script = r#"
        set -e
        mount -t tmpfs -o size=64m tmpfs "$2"
        head -c 67000000 /dev/zero > "$2/ballast"
        "$1" demo --rate 0 --events "$3" > "$4/full.out" 2>&1 &
        until grep -q "is full" "$4/full.out"; do kill -0 $!; done
        rm "$2/ballast"
        wait $!
        "$1" verify
        cp -r "$2/lake" "$4/lake-afterwards"
    "#;
    let binary = program().get_program().to_owned();
    let output = Command::new("unshare")
        .args(["--user", "--map-root-user", "--mount", "sh", "-c", script, "sh"])
        .arg(binary)
        .arg(&disk)
        .arg(EVENTS.to_string())
        .arg(installation.path())
        .current_dir(installation.path())
        .env(ruam_tests::AS_RUAM, "1")
        .output()?;
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "{}: {said}", output.status);
    let full = fs::read_to_string(installation.path().join("full.out"))?;
    says(&full, &["the disk of the lake at", "Make room", "nothing is lost"])?;
    fs::rename(installation.path().join("lake-afterwards"), disk.join("lake"))?;
    Models::of(EVENTS)?.check(&installation)
}
