//! Which log a test runs against: all that is said of one holds for the other.

use std::sync::OnceLock;

use anyhow::Result;
use ruam_log::{Log, LogSettings};

use crate::kafka::Kafka;

/// A kind of broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broker {
    /// The one within the program.
    Embedded,
    /// Apache Kafka: that of `RUAM_TEST_KAFKA`, or one that is started for the tests.
    Kafka,
}

/// The log at some addresses.
pub fn log_at(servers: String) -> Log {
    Log::new(LogSettings { bootstrap_servers: servers, properties: Default::default(), replication: 1 })
}

static KAFKA: OnceLock<Result<Kafka, String>> = OnceLock::new();

impl Broker {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Embedded, Self::Kafka];

    /// Its name in names of tests.
    pub fn name(self) -> &'static str {
        match self {
            Self::Embedded => "embedded",
            Self::Kafka => "kafka",
        }
    }

    /// The addresses of Kafka, started at the first call; none for the embedded broker.
    ///
    /// # Errors
    /// Where Kafka cannot be had or started.
    pub fn servers(self) -> Result<Option<String>> {
        match self {
            Self::Embedded => Ok(None),
            Self::Kafka => {
                if let Ok(servers) = std::env::var("RUAM_TEST_KAFKA") {
                    return Ok(Some(servers));
                }
                let kafka = KAFKA.get_or_init(|| Kafka::start().map_err(|error| format!("{error:#}")));
                let kafka = kafka.as_ref().map_err(|error| anyhow::anyhow!("{error}"))?;
                Ok(Some(kafka.servers()))
            }
        }
    }

    /// Stops what was started for the tests.
    pub fn stop_all() {
        if let Some(Ok(kafka)) = KAFKA.get() {
            kafka.stop();
        }
    }
}
