//! A broker in this process, for a single machine.
//!
//! What passes through: Kafka's protocol over TCP, from librdkafka or any other client. Record
//! batches are stored and sent as the producer made them, in append-only files; a produce request
//! is answered once the disk has confirmed.
//!
//! Guaranteed: what was acknowledged is there after a crash; a partition's order is the order of
//! acknowledgement; an idempotent producer's repeated batch is stored once. Not offered:
//! replication, transactions, sign-on. It listens where it is told to, by default on loopback only,
//! and should stay there: whoever reaches it can write, and a request that claims an array of billions
//! makes kafka-protocol 0.18 ask for the memory before it looks whether the bytes are there.
//!
//! Why our own: the one embeddable broker for this Rust version (tansu-broker 0.6 on SQLite) took
//! 7,600 records a second with the six CloudEvents headers, looks headers up without an index,
//! sleeps in every fetch, and can skip a batch when a fetch begins inside one. The protocol's
//! messages are the crate kafka-protocol's.

mod api;
mod batch;
mod groups;
mod partition;
mod segment;
mod server;
mod syncer;
mod topics;

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use groups::Groups;
use partition::Limits;
use syncer::Syncer;
use topics::Topics;

/// How often groups are looked after.
const GROUP_TICK: Duration = Duration::from_millis(200);
/// How often old segments are looked for.
const EXPIRY_TICK: Duration = Duration::from_secs(60);

/// Settings of the embedded broker.
#[derive(Clone, Copy, Debug)]
pub struct EmbeddedSettings {
    /// Where to listen; port 0 takes any free one.
    pub listen: SocketAddr,
    /// How long records are kept.
    pub retention: Duration,
    /// The largest record batch, in bytes.
    pub max_batch: usize,
}

impl Default for EmbeddedSettings {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            retention: Duration::from_secs(7 * 24 * 3600),
            max_batch: 16 << 20,
        }
    }
}

/// The running broker. It stops when it is dropped; [`stop`](Self::stop) waits until it has.
#[derive(Debug)]
pub struct EmbeddedBroker {
    address: SocketAddr,
    stop: CancellationToken,
    tasks: TaskTracker,
}

/// What all connections share.
#[derive(Debug)]
struct Broker {
    address: SocketAddr,
    topics: Topics,
    groups: Groups,
    syncer: Syncer,
}

impl EmbeddedBroker {
    /// Opens the log in `dir`, which no other process may be using, and listens.
    ///
    /// # Errors
    /// Where the directory cannot be read or written, or the address is in use.
    pub async fn start(dir: &Path, settings: EmbeddedSettings) -> io::Result<Self> {
        let limits = Limits {
            batch: settings.max_batch,
            segment: 128 << 20,
            retention: i64::try_from(settings.retention.as_millis()).unwrap_or(i64::MAX),
        };
        let dir = dir.to_owned();
        let (topics, groups) = tokio::task::spawn_blocking(move || {
            let topics = Topics::open(&dir, limits)?;
            Ok::<_, io::Error>((topics, Groups::open(&dir)?))
        })
        .await??;
        let listener = TcpListener::bind(settings.listen).await?;
        let address = listener.local_addr()?;
        let broker = Arc::new(Broker { address, topics, groups, syncer: Syncer::start()? });
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        tasks.spawn(server::accept(broker.clone(), listener, stop.clone(), tasks.clone()));
        tasks.spawn(broker.maintain(stop.clone()));
        Ok(Self { address, stop, tasks })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Stops, and waits until the files are closed.
    pub async fn stop(self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

impl Drop for EmbeddedBroker {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Broker {
    /// Looks after groups and old segments until it is stopped.
    async fn maintain(self: Arc<Self>, stop: CancellationToken) {
        let mut expiry = Instant::now();
        loop {
            let stopped = tokio::time::timeout(GROUP_TICK, stop.cancelled()).await.is_ok();
            let expire = expiry.elapsed() >= EXPIRY_TICK;
            if expire {
                expiry = Instant::now();
            }
            let broker = self.clone();
            let looked_after = tokio::task::spawn_blocking(move || broker.look_after(expire)).await;
            if let Ok(Err(error)) = looked_after {
                tracing::error!(%error, "the embedded broker cannot look after its files");
            }
            if stopped {
                return;
            }
        }
    }

    fn look_after(&self, expire: bool) -> io::Result<()> {
        self.groups.tick(Instant::now())?;
        if expire {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
            for partition in self.topics.all().iter().flat_map(|topic| &topic.partitions) {
                partition.expire(i64::try_from(now).unwrap_or(i64::MAX))?;
            }
        }
        Ok(())
    }
}
