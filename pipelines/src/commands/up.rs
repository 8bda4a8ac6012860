//! `ruam up`

use std::process::ExitCode;

use anyhow::{Result, bail};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::deployment::{Deployment, Place};
use crate::fault::Patience;
use crate::run::{Pacing, Running};

/// Run the installation: connectors, gateway, workers and the SQL server.
///
/// Runs until it is stopped (Ctrl-C, or SIGTERM); what has been read is committed then. It goes on
/// where it was, however it ended. Parts may run in processes of their own, on one machine or, with
/// Kafka and an object store, on several.
#[derive(Debug, clap::Args)]
pub(crate) struct Up {
    /// Run one part only
    #[arg(long, value_name = "PART")]
    only: Option<Only>,
    /// Serve SQL here [default: query.listen, 127.0.0.1:5433]
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<std::net::SocketAddr>,
    /// How to write the log
    #[arg(long, default_value = "text", value_name = "FORMAT")]
    log_format: LogFormat,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Only {
    /// Bring events from sources into the log
    Connectors,
    /// Take the events that agencies send into the log
    Gateway,
    /// Bring events from the log into tables
    Workers,
    /// Answer SQL over PostgreSQL's protocol
    Query,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum LogFormat {
    /// For reading
    Text,
    /// One JSON object a line
    Json,
}

impl Up {
    pub(crate) fn json_log(&self) -> bool {
        self.log_format == LogFormat::Json
    }

    pub(crate) async fn run(&self, place: &Place) -> Result<ExitCode> {
        let mut settings = place.settings()?;
        if let Some(listen) = self.listen {
            settings.query.listen = listen;
        }
        let deployment = Deployment::open(settings)?;
        let wants = |part| self.only.is_none_or(|only| only == part);
        let stop = CancellationToken::new();
        stop_on_signals(stop.clone())?;
        let mut running = Running::new(&deployment, stop.clone());
        let log = if wants(Only::Connectors) || wants(Only::Gateway) || wants(Only::Workers) {
            Some(deployment.open_log().await?)
        } else {
            None
        };
        if let Some(log) = &log {
            tracing::info!(log = %log.place, "the log answers");
        }
        if wants(Only::Workers) {
            deployment.lake.check_writable().await?;
        }
        tracing::info!(lake = deployment.lake.url(), datasets = deployment.datasets.all.len(), "the lake is open");
        let started = async {
            if wants(Only::Query) {
                running.start_query(&deployment).await?;
            }
            if let (Some(log), true) = (&log, wants(Only::Workers)) {
                running.start_workers(&deployment, &log.log, &Patience::Wait)?;
            }
            if let (Some(log), true) = (&log, wants(Only::Connectors)) {
                running.start_connectors(&deployment, &log.log, Pacing::default(), &Patience::Wait)?;
            }
            if let (Some(log), true) = (&log, wants(Only::Gateway)) {
                running.start_gateway(&deployment, &log.log, &Patience::Wait).await?;
            }
            Ok::<_, anyhow::Error>(())
        };
        let started = started.await;
        if let (Ok(()), Some(address)) = (&started, running.query_address) {
            tracing::info!("SQL is served at {address}: psql -h {} -p {} ruam", address.ip(), address.port());
        }
        let is_encrypted = deployment.settings.tls.is_some();
        if let (Ok(()), Some(address)) = (&started, running.flight_address) {
            tracing::info!(
                "Arrow Flight SQL is served at {address}: {}://{address}",
                if is_encrypted { "grpc+tls" } else { "grpc" }
            );
        }
        if let (Ok(()), Some(address)) = (&started, running.http_address) {
            tracing::info!(
                "HTTP is served at {address}: {}://{address}/openapi.json",
                if is_encrypted { "https" } else { "http" }
            );
        }
        if let (Ok(()), Some(address)) = (&started, running.gateway_address) {
            let scheme = if is_encrypted { "https" } else { "http" };
            tracing::info!("The gateway is served at {address}: {scheme}://{address}/");
        }
        if started.is_ok() {
            tracing::info!("running; Ctrl-C stops");
            stop.cancelled().await;
            tracing::info!("stopping; what has been read is committed");
        }
        running.close().await;
        if let Some(log) = log {
            log.close().await;
        }
        if let Err(error) = started {
            bail!(error);
        }
        tracing::info!("stopped");
        Ok(ExitCode::SUCCESS)
    }
}

/// Stops on the first Ctrl-C or SIGTERM, and ends the process at once on the second.
pub(crate) fn stop_on_signals(stop: CancellationToken) -> Result<()> {
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            if stop.is_cancelled() {
                // Nothing is lost by that: what is not committed is read again.
                std::process::exit(130);
            }
            stop.cancel();
        }
    });
    Ok(())
}
