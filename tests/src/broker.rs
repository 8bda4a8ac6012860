//! Which log a test runs against: all that is said of one holds for the other.

use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Context, Result};
use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use ruam_log::{Log, LogSettings};

use crate::Process;
use crate::kafka::Kafka;

/// How long a broker may take.
const PATIENCE: Duration = Duration::from_secs(90);

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

/// Where the broker inside a process listens, once that says so.
///
/// # Errors
/// Where it does not.
pub fn embedded_in(up: &mut Process) -> Result<String> {
    let line = up.wait_for("the log answers", PATIENCE)?;
    let address = line.split("127.0.0.1:").nth(1).context("an address")?;
    Ok(format!("127.0.0.1:{}", address.split(|c: char| !c.is_ascii_digit()).next().context("a port")?))
}

/// Publishes keys and values as they are into the one partition of a topic, which is made if it is not there.
///
/// # Errors
/// Where the broker does not take them.
pub fn publish<'r>(
    servers: &str,
    topic: &str,
    records: impl IntoIterator<Item = (Option<&'r [u8]>, Option<&'r [u8]>)>,
) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(log_at(servers.to_owned()).ensure_topic(topic, 1))?;
    let producer: BaseProducer = ClientConfig::new().set("bootstrap.servers", servers).create()?;
    for (key, value) in records {
        let mut record = BaseRecord::<[u8], [u8]>::to(topic).partition(0);
        (record.key, record.payload) = (key, value);
        producer.send(record).map_err(|(error, _)| error)?;
    }
    Ok(producer.flush(PATIENCE)?)
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
