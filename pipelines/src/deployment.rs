//! An installation, opened: its settings, its data directory, its datasets, its log and its lake.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use ruam_lake::Lake;
use ruam_log::embedded::{EmbeddedBroker, EmbeddedSettings};
use ruam_log::{Log, LogSettings};
use ruam_query::{AuditLog, Engine, EngineSettings, QueryDataset, SpillSettings};

use crate::config::{DEFAULT_FILE, Settings};
use crate::data_dir::{DataDir, DataDirError, Part, PartLock};
use crate::specs::Datasets;
use crate::{policies, port};

/// How long a broker may take to answer at the beginning.
const REACH: Duration = Duration::from_secs(10);

/// Where the settings come from, as the command line has it.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct Place {
    /// The settings of the installation [default: ruam.toml, if there is one]
    #[arg(long, global = true, value_name = "FILE", env = "RUAM_CONFIG", help_heading = "Installation")]
    pub(crate) config: Option<PathBuf>,
    /// The folder that holds the embedded log, the lake and the extracts [default: ruam-data]
    #[arg(long, global = true, value_name = "DIR", env = "RUAM_DATA_DIR", help_heading = "Installation")]
    pub(crate) data_dir: Option<PathBuf>,
    /// The folder of dataset files [default: specs or pipelines/specs, or those built in]
    #[arg(long, global = true, value_name = "DIR", env = "RUAM_SPECS", help_heading = "Installation")]
    pub(crate) specs: Option<PathBuf>,
}

impl Place {
    /// The settings, with what the command line says over the file.
    ///
    /// # Errors
    /// Where the file is wrong.
    pub(crate) fn settings(&self) -> Result<Settings> {
        let environment = |name: &str| std::env::var(name).ok();
        let mut settings = match &self.config {
            Some(path) => Settings::read(path, environment)?,
            None if PathBuf::from(DEFAULT_FILE).exists() => Settings::read(DEFAULT_FILE.as_ref(), environment)?,
            None => Settings::default(),
        };
        if let Some(data_dir) = &self.data_dir {
            settings.data_dir.clone_from(data_dir);
        }
        if let Some(specs) = &self.specs {
            settings.specs = Some(specs.clone());
        }
        Ok(settings)
    }
}

/// An installation.
#[derive(Debug)]
pub(crate) struct Deployment {
    pub(crate) settings: Settings,
    pub(crate) data_dir: DataDir,
    pub(crate) datasets: Datasets,
    pub(crate) lake: Lake,
}

/// The log, and the broker if it runs in this process.
#[derive(Debug)]
pub(crate) struct OpenLog {
    pub(crate) log: Log,
    /// Whose broker it is, for people.
    pub(crate) place: String,
    broker: Option<(EmbeddedBroker, PartLock)>,
}

impl OpenLog {
    /// Stops the broker, if it runs here.
    pub(crate) async fn close(self) {
        if let Some((broker, _lock)) = self.broker {
            broker.stop().await;
        }
    }
}

impl Deployment {
    /// Opens an installation.
    ///
    /// # Errors
    /// Where its settings or dataset files are wrong, or its data directory cannot be used.
    pub(crate) fn open(settings: Settings) -> Result<Self> {
        let datasets = Datasets::load(settings.specs.as_deref(), settings.limits.max_record_bytes)?;
        let data_dir = DataDir::open(&settings.data_dir)?;
        let address = match &settings.lake.url {
            Some(url) => url.clone(),
            None => data_dir.lake().to_string_lossy().into_owned(),
        };
        let lake = Lake::open(&address, &settings.lake.options)?;
        Ok(Self { settings, data_dir, datasets, lake })
    }

    /// Whether the log is the embedded one.
    pub(crate) fn is_embedded(&self) -> bool {
        self.settings.log.bootstrap_servers.is_none()
    }

    /// Opens the log: connects to Kafka, or starts the embedded broker, or connects to the one that
    /// another process of this installation runs.
    ///
    /// # Errors
    /// Where no broker answers or the embedded one cannot start.
    pub(crate) async fn open_log(&self) -> Result<OpenLog> {
        let section = &self.settings.log;
        let connect = |servers: String| {
            Log::new(LogSettings {
                bootstrap_servers: servers,
                properties: section.properties.clone(),
                replication: section.replication,
            })
        };
        if let Some(servers) = &section.bootstrap_servers {
            let log = connect(servers.clone());
            log.reach(REACH).await?;
            return Ok(OpenLog { log, place: format!("Kafka at {servers}"), broker: None });
        }
        let embedded = |address: std::net::SocketAddr| {
            // Clients of the embedded broker need no settings of a cluster.
            Log::new(LogSettings {
                bootstrap_servers: address.to_string(),
                properties: BTreeMap::new(),
                replication: 1,
            })
        };
        match self.data_dir.take(Part::Broker) {
            Ok(lock) => {
                port::only_here(section.listen, "log.listen")?;
                let settings = EmbeddedSettings {
                    listen: section.listen,
                    retention: Duration::from_secs(section.retention_hours * 3600),
                    ..EmbeddedSettings::default()
                };
                let broker = match EmbeddedBroker::start(&self.data_dir.log(), settings).await {
                    Ok(broker) => broker,
                    Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {
                        return Err(port::in_use(section.listen, "log.listen").await.into());
                    }
                    Err(error) => {
                        let place = self.data_dir.log();
                        return Err(error)
                            .with_context(|| format!("cannot start the embedded broker in {}", place.display()));
                    }
                };
                lock.tell(Some(broker.address()))?;
                let (log, place) = (embedded(broker.address()), format!("embedded broker at {}", broker.address()));
                Ok(OpenLog { log, place, broker: Some((broker, lock)) })
            }
            Err(DataDirError::InUse { holder, path }) => {
                let Some(address) = holder.address else { return Err(DataDirError::InUse { holder, path }.into()) };
                let log = embedded(address);
                log.reach(REACH).await?;
                let place = format!("embedded broker of process {} at {address}", holder.pid);
                Ok(OpenLog { log, place, broker: None })
            }
            Err(error) => Err(error.into()),
        }
    }

    /// The datasets as queries see them.
    pub(crate) fn query_datasets(&self) -> Vec<Arc<QueryDataset>> {
        self.datasets.all.values().map(|dataset| Arc::new(dataset.queried())).collect()
    }

    /// The engine that answers SQL.
    ///
    /// # Errors
    /// Where it cannot be set up.
    pub(crate) fn engine(&self) -> Result<Engine> {
        let query = &self.settings.query;
        let spill = SpillSettings { folder: self.data_dir.spill(), bytes: query.spill_mb << 20 };
        let (memory, result_cache) = (query.memory_mb << 20, query.result_cache_mb << 20);
        let settings = EngineSettings { memory, spill: Some(spill), result_cache };
        let (datasets, key) = (self.query_datasets(), policies::key(&self.data_dir.pseudonym_key())?);
        let folder = policies::folder(self.settings.policies.as_deref(), &self.datasets.place);
        let policies = policies::load(folder.as_deref(), &datasets, &key)?;
        Ok(Engine::new(self.lake.clone(), datasets, policies, settings)?.with_audit(Arc::new(self.audit()?)))
    }

    /// The account of what was asked.
    ///
    /// # Errors
    /// Where it cannot be kept.
    pub(crate) fn audit(&self) -> Result<AuditLog> {
        Ok(AuditLog::open(&self.data_dir.audit(), policies::key(&self.data_dir.pseudonym_key())?)?)
    }
}
