//! Arrow Flight SQL, so that ADBC, JDBC and whatever else takes columns can ask without turning them into rows.
//!
//! What passes through: calls of gRPC, each of a [`Client`](clients::Client) that has signed in; questions, into
//! tickets, and tickets into streams of Arrow batches, which are worked out as fast as they are taken.
//!
//! Guaranteed: a ticket answers once, and only the client that it was given to. Nothing is answered before
//! sign-in where there is sign-on; without, the server listens on loopback only.

use std::sync::Arc;

use arrow::datatypes::{DataType, Schema};
use arrow_flight::flight_service_server::FlightServiceServer;
use ruam_identity::ServerConfig;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::engine::Engine;
use crate::sign_in::{Doorkeeper, SignIn};

mod clients;
mod keys;
mod listing;
mod service;
mod sql_info;
mod tickets;

use clients::Clients;
use service::Service;

/// The most bytes of a message of a client: a statement, or its parameters.
const MAX_MESSAGE: usize = 16 << 20;

/// A server that has not begun yet.
pub struct FlightServer {
    listener: TcpListener,
    tls: Option<Arc<ServerConfig>>,
    service: Service,
}

impl FlightServer {
    /// Prepares to answer on a listener. Without `sign_in`, whoever connects is the system; without `tls`,
    /// connections are not encrypted.
    pub fn new(
        engine: &Engine,
        listener: TcpListener,
        sign_in: Option<Arc<dyn SignIn>>,
        tls: Option<Arc<ServerConfig>>,
    ) -> Self {
        let clients = Clients::new(engine.clone(), engine.base_without_views(), Doorkeeper(sign_in));
        Self { listener, tls, service: Service::new(clients) }
    }

    /// Answers until it is stopped.
    pub async fn serve(self, stop: CancellationToken) {
        let service = FlightServiceServer::new(self.service).max_decoding_message_size(MAX_MESSAGE);
        ruam_door::serve(self.listener, "Flight SQL", self.tls, service, stop).await;
    }
}

/// Columns as answers have them, where texts are as every program knows them; JDBC's driver knows no views.
fn as_answered(columns: &Schema) -> Schema {
    let fields = columns.fields.iter().map(|field| {
        let data_type = match field.data_type() {
            DataType::Utf8View => DataType::LargeUtf8,
            DataType::BinaryView => DataType::LargeBinary,
            other => other.clone(),
        };
        field.as_ref().clone().with_data_type(data_type)
    });
    Schema::new_with_metadata(fields.collect::<Vec<_>>(), columns.metadata.clone())
}

impl std::fmt::Debug for FlightServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FlightServer").field("listener", &self.listener).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
