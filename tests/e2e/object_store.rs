//! The lake on an object store, over real HTTP.

use anyhow::{Result, ensure};
use ruam_tests::model::Models;
use ruam_tests::s3::S3Server;
use ruam_tests::{Broker, Installation};

const EVENTS: u64 = 2000;

pub fn the_lake_lies_on_s3() -> Result<()> {
    let server = S3Server::start()?;
    let mut installation = Installation::new(Broker::Embedded)?;
    installation.set(&server.settings("one"))?;
    let events = EVENTS.to_string();
    // Killed once on its way, as soon as a table is there to be gone on with.
    let mut demo = installation.start(&["demo", "--events", &events, "--rate", "300"])?;
    let running = demo.run_for(std::time::Duration::from_secs(3));
    ensure!(running, "ended by itself:\n{}", demo.said());
    demo.kill()?;
    let said = installation.succeed(&["demo", "--rate", "0", "--events", &events])?;
    ensure!(said.contains("s3://lake/one/"), "{said}");
    Models::of(EVENTS)?.check(&installation)?;
    installation.succeed(&["verify"])?;
    ensure!(!installation.data_dir().join("lake").exists(), "nothing of the lake is on the disk");
    Ok(())
}

pub fn a_secret_never_prints() -> Result<()> {
    let server = S3Server::start()?;
    let mut installation = Installation::new(Broker::Embedded)?;
    installation.set(&server.settings("two"))?;
    let mut said = installation.succeed(&["check"])?;
    // A wrong key and a server that is gone: errors of the store are where a secret would slip out.
    let settings = server.settings("two").replace("a-secret-", "another-secret-");
    let mut elsewhere = Installation::new(Broker::Embedded)?;
    elsewhere.set(&settings)?;
    said += &elsewhere.refuse(&["demo", "--events", "10"])?;
    drop(server);
    said += &elsewhere.refuse(&["sql", "select * from bora.person"])?;
    ensure!(!said.contains("secret-that-must-not-print"), "{said}");
    ensure!(said.contains("s3://lake/two"), "the message says where: {said}");
    Ok(())
}
