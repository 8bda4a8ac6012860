//! An installation at work: connectors, workers and the SQL server, each until it is stopped.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use ruam_connectors::Surroundings;
use ruam_connectors::gateway::GatewayServer;
use ruam_event::DatasetId;
use ruam_identity::Signers;
use ruam_log::{Log, SchemaRegistry};
use ruam_query::flight::FlightServer;
use ruam_query::http::HttpServer;
use ruam_query::pg::PgServer;
use ruam_query::sign_in::{BySignOn, SignIn};
use ruam_query::{CacheFigures, Engine};
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use crate::console;
use crate::data_dir::{Part, PartLock};
use crate::deployment::Deployment;
use crate::fault::{Patience, supervise};
use crate::feed::Feed;
use crate::gateway;
use crate::guard::Guard;
use crate::intake::{Inlet, Intakes};
use crate::meter::Meter;
use crate::port;
use crate::specs::Dataset;
use crate::worker::Worker;

/// How often the lag is looked at, and how often the log tells how far each dataset is.
const LAG_EVERY: Duration = Duration::from_secs(1);
const TELL_EVERY: Duration = Duration::from_secs(60);

/// What is running.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) meters: BTreeMap<DatasetId, Arc<Meter>>,
    pub(crate) stop: CancellationToken,
    /// Where SQL is served.
    pub(crate) query_address: Option<SocketAddr>,
    /// Where Arrow Flight SQL and HTTP are.
    pub(crate) flight_address: Option<SocketAddr>,
    pub(crate) http_address: Option<SocketAddr>,
    /// Where agencies send their events.
    pub(crate) gateway_address: Option<SocketAddr>,
    threads: Vec<JoinHandle<()>>,
    query_runtime: Option<tokio::runtime::Runtime>,
    locks: Vec<PartLock>,
}

/// How connectors run.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Pacing {
    /// How many events the generated sources come to, all together.
    pub(crate) generated_total: Option<u64>,
    /// The most events a second of each source.
    pub(crate) rate: Option<u32>,
}

impl Running {
    /// Nothing yet.
    pub(crate) fn new(deployment: &Deployment, stop: CancellationToken) -> Self {
        let meters = deployment.datasets.all.keys().map(|id| (id.clone(), Arc::new(Meter::new(id.clone())))).collect();
        Self {
            meters,
            stop,
            query_address: None,
            flight_address: None,
            http_address: None,
            gateway_address: None,
            threads: Vec::new(),
            query_runtime: None,
            locks: Vec::new(),
        }
    }

    /// Begins to feed topics from their sources.
    ///
    /// # Errors
    /// Where another process of this installation does, or a thread cannot be started.
    pub(crate) fn start_connectors(
        &mut self,
        deployment: &Deployment,
        log: &Log,
        pacing: Pacing,
        patience: &Patience,
    ) -> Result<()> {
        self.locks.push(deployment.data_dir.take(Part::Connectors)?);
        let surroundings = Surroundings {
            generated_total: pacing.generated_total,
            connections: deployment.settings.connections.clone(),
            state: deployment.data_dir.sources(),
        };
        let is_read = |dataset: &Dataset| dataset.spec.source.is_some() && !ruam_connectors::is_sent(&dataset.spec);
        for (id, dataset) in deployment.datasets.all.iter().filter(|(_, dataset)| is_read(dataset)) {
            let meter = self.meter(id);
            let feed = Feed {
                dataset: dataset.clone(),
                log: log.clone(),
                installation: deployment.data_dir.installation.clone(),
                surroundings: surroundings.clone(),
                rate: pacing.rate,
                meter: meter.clone(),
                stop: self.stop.clone(),
                runtime: Handle::current(),
            };
            let (stop, patience) = (self.stop.clone(), patience.clone());
            self.spawn(&format!("feed {id}"), move || supervise("connector", &meter, &stop, &patience, || feed.run()))?;
        }
        Ok(())
    }

    /// Begins to take what agencies send, if the settings have a gateway.
    ///
    /// # Errors
    /// Where another process of this installation does, its address cannot be listened at, or a setting is wrong.
    pub(crate) async fn start_gateway(
        &mut self,
        deployment: &Deployment,
        log: &Log,
        patience: &Patience,
    ) -> Result<()> {
        let Some(section) = &deployment.settings.gateway else { return Ok(()) };
        section.check(&deployment.datasets)?;
        let guard = section.guard(&deployment.settings, &deployment.data_dir.access())?;
        let listener = port::listen(section.listen, "gateway.listen").await?;
        let address = listener.local_addr()?;
        let lock = deployment.data_dir.take(Part::Gateway)?;
        lock.tell(Some(address))?;
        self.locks.push(lock);
        let (mut intakes, mut offered) = (Intakes::default(), Vec::new());
        for dataset in gateway::sent(&deployment.datasets) {
            let id = dataset.spec.id();
            let meter = self.meter(id);
            let inlet = Inlet {
                dataset: dataset.clone(),
                log: log.clone(),
                installation: deployment.data_dir.installation.clone(),
                window: section.window,
                folder: deployment.data_dir.sources().join(id.to_string()),
                batches: intakes.open(id),
                meter: meter.clone(),
                stop: self.stop.clone(),
                runtime: Handle::current(),
            };
            offered.push(gateway::offered(dataset)?);
            let (stop, patience) = (self.stop.clone(), patience.clone());
            self.spawn(&format!("take {id}"), move || supervise("gateway", &meter, &stop, &patience, || inlet.run()))?;
        }
        let (limits, signers) = (section.limits(), Signers::open(&deployment.data_dir.access()));
        let server =
            GatewayServer::new(listener, offered, Arc::new(intakes), limits, guard.sign_on, signers, guard.tls);
        tokio::spawn(server.serve(self.stop.clone()));
        self.gateway_address = Some(address);
        Ok(())
    }

    /// Begins to work on the datasets.
    ///
    /// # Errors
    /// Where another process of this installation does, or a thread cannot be started.
    pub(crate) fn start_workers(&mut self, deployment: &Deployment, log: &Log, patience: &Patience) -> Result<()> {
        self.locks.push(deployment.data_dir.take(Part::Workers)?);
        let registry = deployment.settings.registry.as_ref().map(SchemaRegistry::open).transpose()?.map(Arc::new);
        for (id, dataset) in &deployment.datasets.all {
            let meter = self.meter(id);
            let worker = Worker {
                dataset: dataset.clone(),
                log: log.clone(),
                lake: deployment.lake.clone(),
                registry: registry.clone(),
                installation: deployment.data_dir.installation.clone(),
                settings: deployment.settings.worker.clone(),
                indexes: deployment.data_dir.indexes(),
                meter: meter.clone(),
                stop: self.stop.clone(),
                runtime: Handle::current(),
            };
            let (stop, patience) = (self.stop.clone(), patience.clone());
            self.spawn(&format!("work {id}"), move || supervise("worker", &meter, &stop, &patience, || worker.run()))?;
        }
        let topics =
            deployment.datasets.all.iter().map(|(id, dataset)| (dataset.spec.topic(), self.meter(id))).collect();
        tokio::spawn(watch_lag(topics, log.clone(), self.stop.clone()));
        Ok(())
    }

    /// Begins to answer SQL, on threads of its own, so that a heavy query does not hold up the log.
    ///
    /// # Errors
    /// Where the address cannot be listened at.
    pub(crate) async fn start_query(&mut self, deployment: &Deployment) -> Result<()> {
        let address = deployment.settings.query.listen;
        let guard = Guard::open(&deployment.settings, &deployment.data_dir.access())?;
        guard.admits(address, "query.listen")?;
        let listener = port::listen(address, "query.listen").await?;
        let flight = also(deployment.settings.query.flight, "query.flight", &guard).await?;
        let http = also(deployment.settings.query.http, "query.http", &guard).await?;
        let lock = deployment.data_dir.take(Part::Query)?;
        let address = listener.local_addr()?;
        lock.tell(Some(address))?;
        let runtime = tokio::runtime::Builder::new_multi_thread().thread_name("ruam-query").enable_all().build();
        let runtime = runtime.context("cannot start the threads that answer SQL")?;
        let listener = listener.into_std()?;
        let engine = deployment.engine()?;
        let _entered = runtime.enter();
        let sign_in = guard.sign_on.clone().map(|who| Arc::new(BySignOn(who)) as Arc<dyn SignIn>);
        let server = PgServer::new(&engine, TcpListener::from_std(listener)?, guard.clone().admission())?;
        runtime.spawn(server.serve(self.stop.clone()));
        if let Some(listener) = flight {
            self.flight_address = Some(listener.local_addr()?);
            let server =
                FlightServer::new(&engine, TcpListener::from_std(listener)?, sign_in.clone(), guard.tls.clone());
            runtime.spawn(server.serve(self.stop.clone()));
        }
        if let Some(listener) = http {
            self.http_address = Some(listener.local_addr()?);
            let server = HttpServer::new(&engine, TcpListener::from_std(listener)?, sign_in, guard.tls.clone());
            runtime.spawn(server.serve(self.stop.clone()));
        }
        runtime.spawn(watch_answers(engine, self.stop.clone()));
        self.locks.push(lock);
        self.query_runtime = Some(runtime);
        self.query_address = Some(address);
        Ok(())
    }

    fn meter(&self, id: &DatasetId) -> Arc<Meter> {
        self.meters.get(id).cloned().unwrap_or_else(|| Arc::new(Meter::new(id.clone())))
    }

    fn spawn(&mut self, name: &str, run: impl FnOnce() + Send + 'static) -> Result<()> {
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(run);
        self.threads.push(thread.context("cannot start a thread")?);
        Ok(())
    }

    /// Stops everything; what waits is committed.
    pub(crate) async fn close(mut self) {
        self.stop.cancel();
        let threads = std::mem::take(&mut self.threads);
        let joined = tokio::task::spawn_blocking(move || threads.into_iter().for_each(|thread| drop(thread.join())));
        if joined.await.is_err() {
            tracing::error!("a thread ended by a bug; please report this with the log");
        }
        if let Some(runtime) = self.query_runtime.take() {
            console::announce_end();
            runtime.shutdown_background();
        }
    }
}

/// Listens where SQL is served in another way as well, if that is asked for.
async fn also(
    address: Option<SocketAddr>,
    setting: &'static str,
    guard: &Guard,
) -> Result<Option<std::net::TcpListener>> {
    let Some(address) = address else { return Ok(None) };
    guard.admits(address, setting)?;
    Ok(Some(port::listen(address, setting).await?.into_std()?))
}

/// Tells every so often how many questions were answered by what was kept in memory, where some were asked.
async fn watch_answers(engine: Engine, stop: CancellationToken) {
    let mut told = CacheFigures::default();
    while tokio::time::timeout(TELL_EVERY, stop.cancelled()).await.is_err() {
        let now = engine.cache_figures();
        if (now.hits, now.misses) != (told.hits, told.misses) {
            let CacheFigures { hits, misses, answers, bytes } = now;
            tracing::info!(hits, misses, answers, bytes, "asked again since the start, and kept for that");
            told = now;
        }
    }
}

/// Looks every so often how many records of each dataset are in the log and not committed.
async fn watch_lag(topics: Vec<(String, Arc<Meter>)>, log: Log, stop: CancellationToken) {
    let mut told = Instant::now();
    let mut told_records = vec![0; topics.len()];
    while tokio::time::timeout(LAG_EVERY, stop.cancelled()).await.is_err() {
        for (topic, meter) in &topics {
            let lag = lag_of(&log, topic, meter).await;
            meter.lag.store(lag.unwrap_or(-1), Ordering::Relaxed);
        }
        if told.elapsed() >= TELL_EVERY {
            told = Instant::now();
            for ((_, meter), told_records) in topics.iter().zip(&mut told_records) {
                let records = meter.records.load(Ordering::Relaxed);
                // Where nothing came there is nothing to tell.
                if records > *told_records {
                    let (rejects, lag) = (meter.rejected.load(Ordering::Relaxed), meter.lag.load(Ordering::Relaxed));
                    let commits = meter.commits.load(Ordering::Relaxed);
                    tracing::info!(dataset = %meter.id(), records, rejects, commits, lag, "committed since the start");
                    *told_records = records;
                }
            }
        }
    }
}

async fn lag_of(log: &Log, topic: &str, meter: &Meter) -> Option<i64> {
    let held = log.held(&log.topic(topic).await.ok()??).await.ok()?;
    let offsets = meter.offsets();
    let lag = held.iter().zip(0..).filter_map(|(held, index)| Some(held.end - offsets.get(&index)?));
    (!offsets.is_empty()).then(|| lag.sum())
}
