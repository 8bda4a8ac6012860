//! Flight SQL's calls, each for the client that has signed in.

use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::{Arc, PoisonError};

use arrow::array::RecordBatch;
use arrow::datatypes::{Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow_flight::decode::FlightRecordBatchStream;
use arrow_flight::encode::FlightDataEncoderBuilder;
use arrow_flight::error::FlightError;
use arrow_flight::flight_service_server::FlightService;
use arrow_flight::sql::server::{FlightSqlService, PeekableFlightDataStream};
use arrow_flight::sql::{
    ActionCancelQueryRequest, ActionCancelQueryResult, ActionClosePreparedStatementRequest,
    ActionCreatePreparedStatementRequest, ActionCreatePreparedStatementResult, Any, CommandGetCatalogs,
    CommandGetCrossReference, CommandGetDbSchemas, CommandGetExportedKeys, CommandGetImportedKeys,
    CommandGetPrimaryKeys, CommandGetSqlInfo, CommandGetTableTypes, CommandGetTables, CommandPreparedStatementQuery,
    CommandPreparedStatementUpdate, CommandStatementQuery, CommandStatementUpdate, DoPutPreparedStatementResult,
    ProstMessageExt, SqlInfo, TicketStatementQuery,
};
use arrow_flight::{
    Action, ActionType, CancelFlightInfoRequest, CancelFlightInfoResult, CancelStatus, FlightDescriptor, FlightInfo,
    HandshakeRequest, HandshakeResponse, IpcMessage, SchemaAsIpc, Ticket,
};
use bytes::Bytes;
use datafusion::common::ScalarValue;
use futures::{FutureExt, Stream, StreamExt, TryStreamExt};
use prost::Message;
use tonic::metadata::MetadataValue;
use tonic::{Request, Response, Status, Streaming};

use super::clients::{Client, Clients, bearer};
use super::tickets::{Messages, Prepared, answer, info, status};
use super::{as_answered, keys, listing, sql_info};
use crate::kept::handle;
use crate::statement::Statement;

/// An action of Flight itself, beside those of Flight SQL.
const CANCEL: &str = "CancelFlightInfo";
/// The most rows of parameters that are read before it is said that there is to be one.
const ONE_ROW: usize = 1;

/// Answers calls.
pub(super) struct Service {
    clients: Clients,
}

type Info = Result<Response<FlightInfo>, Status>;
type Answer = Result<Response<Messages>, Status>;
type Handshakes = Pin<Box<dyn Stream<Item = Result<HandshakeResponse, Status>> + Send>>;

impl Service {
    pub(super) fn new(clients: Clients) -> Self {
        Self { clients }
    }

    /// Whose call it is.
    #[cfg(test)]
    pub(super) async fn client<T>(&self, request: &Request<T>) -> Result<Arc<Client>, Status> {
        self.clients.of(request).await
    }

    /// What is told of an answer about what there is, which has a ticket of its own: the question. It is
    /// answered for whoever brings it.
    async fn about(&self, asked: &impl ProstMessageExt, schema: SchemaRef, request: Request<FlightDescriptor>) -> Info {
        self.clients.of(&request).await?;
        Ok(Response::new(info(&schema, std::slice::from_ref(asked), request.into_inner())?))
    }

    /// The prepared statement of a name, which is the client's own.
    async fn prepared<T>(&self, name: &[u8], request: &Request<T>) -> Result<(Arc<Client>, Arc<Prepared>), Status> {
        let client = self.clients.of(request).await?;
        let prepared = std::str::from_utf8(name).ok().and_then(|name| client.prepared.get(name));
        let prepared = prepared.ok_or_else(|| {
            Status::not_found("this prepared statement is closed, or of another session. Prepare it again")
        })?;
        Ok((client, prepared))
    }

    /// Carries out a statement that a client thinks changes something.
    async fn update(client: &Client, sql: &str) -> Result<i64, Status> {
        let statement = Statement::read(&client.session, sql).await.map_err(|error| status(&error))?;
        if !statement.is_setting() {
            let told = "the lake is read-only: rows come in as change events. Ask this as a query";
            return Err(Status::invalid_argument(told));
        }
        statement.with(Vec::new()).await.map_err(|error| status(&error))?;
        Ok(0)
    }
}

/// Batches that are there already, as messages.
fn whole(batch: Result<RecordBatch, FlightError>) -> Answer {
    let batch = batch.map_err(Status::from)?;
    let encoder = FlightDataEncoderBuilder::new().with_schema(batch.schema());
    Ok(Response::new(encoder.build(futures::stream::iter([Ok(batch)])).map_err(Status::from).boxed()))
}

fn arrow(error: &ArrowError) -> Status {
    Status::internal(error.to_string())
}

/// Columns, as a message that tells them.
fn told(schema: &Schema) -> Result<Bytes, Status> {
    let options = arrow_ipc::writer::IpcWriteOptions::default();
    let IpcMessage(told) =
        SchemaAsIpc::new(&as_answered(schema), &options).try_into().map_err(|error| arrow(&error))?;
    Ok(told)
}

/// The one row of values that a client has sent.
async fn values(sent: PeekableFlightDataStream) -> Result<Vec<ScalarValue>, Status> {
    // Where a message is not sound, the reader of Arrow may panic.
    let read = AssertUnwindSafe(read_values(sent)).catch_unwind().await;
    read.unwrap_or_else(|_| {
        Err(Status::invalid_argument("the values are no sound messages of Arrow. Update the client"))
    })
}

async fn read_values(sent: PeekableFlightDataStream) -> Result<Vec<ScalarValue>, Status> {
    let sent = sent.map_err(|error| FlightError::Tonic(Box::new(error)));
    let mut batches = FlightRecordBatchStream::new_from_flight_data(sent);
    let mut values = None;
    while let Some(batch) = batches.next().await {
        let batch = batch.map_err(Status::from)?;
        match (batch.num_rows(), &values) {
            (0, _) => {}
            (ONE_ROW, None) => {
                let row = batch.columns().iter().map(|column| ScalarValue::try_from_array(column, 0));
                let row: Result<Vec<_>, _> = row.collect();
                values = Some(row.map_err(|error| Status::invalid_argument(error.strip_backtrace()))?);
            }
            _ => return Err(Status::invalid_argument("there is more than one row of values. Ask once for each")),
        }
    }
    Ok(values.unwrap_or_default())
}

#[tonic::async_trait]
impl FlightSqlService for Service {
    type FlightService = Self;

    async fn do_handshake(
        &self,
        request: Request<Streaming<HandshakeRequest>>,
    ) -> Result<Response<Handshakes>, Status> {
        let token = self.clients.shake_hands(&request).await?;
        let header = MetadataValue::try_from(bearer(&token)).map_err(|error| Status::internal(error.to_string()))?;
        let answer = HandshakeResponse { protocol_version: 0, payload: token.into() };
        let mut response = Response::new(futures::stream::iter([Ok(answer)]).boxed() as Handshakes);
        response.metadata_mut().insert("authorization", header);
        Ok(response)
    }

    async fn get_flight_info_statement(
        &self,
        asked: CommandStatementQuery,
        request: Request<FlightDescriptor>,
    ) -> Info {
        let client = self.clients.of(&request).await?;
        Ok(Response::new(client.ticket(&asked.query, Vec::new(), request.into_inner()).await?))
    }

    async fn do_get_statement(&self, ticket: TicketStatementQuery, request: Request<Ticket>) -> Answer {
        Ok(Response::new(self.clients.of(&request).await?.redeem(&ticket)?))
    }

    async fn do_action_create_prepared_statement(
        &self,
        asked: ActionCreatePreparedStatementRequest,
        request: Request<Action>,
    ) -> Result<ActionCreatePreparedStatementResult, Status> {
        let client = self.clients.of(&request).await?;
        let statement = Statement::read(&client.session, &asked.query).await.map_err(|error| status(&error))?;
        let (name, prepared) = (handle(), Prepared { sql: asked.query, values: Default::default() });
        client.prepared.keep(name.clone(), Arc::new(prepared));
        Ok(ActionCreatePreparedStatementResult {
            prepared_statement_handle: name.into(),
            dataset_schema: told(statement.schema())?,
            parameter_schema: told(&statement.parameters())?,
        })
    }

    async fn do_action_close_prepared_statement(
        &self,
        asked: ActionClosePreparedStatementRequest,
        request: Request<Action>,
    ) -> Result<(), Status> {
        let client = self.clients.of(&request).await?;
        // One that is closed already is closed.
        let name = std::str::from_utf8(&asked.prepared_statement_handle).unwrap_or_default();
        client.prepared.remove(name);
        Ok(())
    }

    async fn do_put_prepared_statement_query(
        &self,
        asked: CommandPreparedStatementQuery,
        request: Request<PeekableFlightDataStream>,
    ) -> Result<DoPutPreparedStatementResult, Status> {
        let (_, prepared) = self.prepared(&asked.prepared_statement_handle, &request).await?;
        let values = values(request.into_inner()).await?;
        *prepared.values.lock().unwrap_or_else(PoisonError::into_inner) = values;
        Ok(DoPutPreparedStatementResult { prepared_statement_handle: Some(asked.prepared_statement_handle) })
    }

    async fn get_flight_info_prepared_statement(
        &self,
        asked: CommandPreparedStatementQuery,
        request: Request<FlightDescriptor>,
    ) -> Info {
        let (client, prepared) = self.prepared(&asked.prepared_statement_handle, &request).await?;
        let values = prepared.values();
        Ok(Response::new(client.ticket(&prepared.sql, values, request.into_inner()).await?))
    }

    async fn do_get_prepared_statement(
        &self,
        asked: CommandPreparedStatementQuery,
        request: Request<Ticket>,
    ) -> Answer {
        let (client, prepared) = self.prepared(&asked.prepared_statement_handle, &request).await?;
        Ok(Response::new(answer(client.question(&prepared.sql, prepared.values()).await?)?))
    }

    async fn do_put_statement_update(
        &self,
        asked: CommandStatementUpdate,
        request: Request<PeekableFlightDataStream>,
    ) -> Result<i64, Status> {
        let client = self.clients.of(&request).await?;
        Self::update(&client, &asked.query).await
    }

    async fn do_put_prepared_statement_update(
        &self,
        asked: CommandPreparedStatementUpdate,
        request: Request<PeekableFlightDataStream>,
    ) -> Result<i64, Status> {
        let (client, prepared) = self.prepared(&asked.prepared_statement_handle, &request).await?;
        Self::update(&client, &prepared.sql).await
    }

    async fn do_action_cancel_query(
        &self,
        asked: ActionCancelQueryRequest,
        request: Request<Action>,
    ) -> Result<ActionCancelQueryResult, Status> {
        let client = self.clients.of(&request).await?;
        let info = FlightInfo::decode(&*asked.info).map_err(|error| Status::invalid_argument(error.to_string()))?;
        Ok(ActionCancelQueryResult { result: cancelled(client.cancel(&info)) as i32 })
    }

    async fn do_action_fallback(
        &self,
        request: Request<Action>,
    ) -> Result<Response<<Self as FlightService>::DoActionStream>, Status> {
        let client = self.clients.of(&request).await?;
        let action = request.into_inner();
        if action.r#type != CANCEL {
            return Err(Status::unimplemented(format!(
                "the action {} is not known here",
                action.r#type.escape_debug()
            )));
        }
        let asked = CancelFlightInfoRequest::decode(&*action.body);
        let asked = asked.map_err(|error| Status::invalid_argument(error.to_string()))?;
        let result =
            CancelFlightInfoResult { status: cancelled(client.cancel(&asked.info.unwrap_or_default())) as i32 };
        let result = arrow_flight::Result { body: result.encode_to_vec().into() };
        Ok(Response::new(futures::stream::iter([Ok(result)]).boxed()))
    }

    async fn list_custom_actions(&self) -> Option<Vec<Result<ActionType, Status>>> {
        let description =
            "Ends the work for an answer\nRequest: CancelFlightInfoRequest\nResponse: CancelFlightInfoResult";
        Some(vec![Ok(ActionType { r#type: CANCEL.to_owned(), description: description.to_owned() })])
    }

    async fn get_flight_info_catalogs(&self, asked: CommandGetCatalogs, request: Request<FlightDescriptor>) -> Info {
        self.about(&asked, asked.into_builder().schema(), request).await
    }

    async fn do_get_catalogs(&self, asked: CommandGetCatalogs, request: Request<Ticket>) -> Answer {
        let _client = self.clients.of(&request).await?;
        whole(listing::catalogs(asked))
    }

    async fn get_flight_info_schemas(&self, asked: CommandGetDbSchemas, request: Request<FlightDescriptor>) -> Info {
        self.about(&asked, asked.clone().into_builder().schema(), request).await
    }

    async fn do_get_schemas(&self, asked: CommandGetDbSchemas, request: Request<Ticket>) -> Answer {
        let client = self.clients.of(&request).await?;
        whole(listing::schemas(&client.session, asked))
    }

    async fn get_flight_info_tables(&self, asked: CommandGetTables, request: Request<FlightDescriptor>) -> Info {
        self.about(&asked, asked.clone().into_builder().schema(), request).await
    }

    async fn do_get_tables(&self, asked: CommandGetTables, request: Request<Ticket>) -> Answer {
        let client = self.clients.of(&request).await?;
        whole(listing::tables(&client.session, asked).await)
    }

    async fn get_flight_info_primary_keys(
        &self,
        asked: CommandGetPrimaryKeys,
        request: Request<FlightDescriptor>,
    ) -> Info {
        self.about(&asked, keys::primary_schema(), request).await
    }

    async fn do_get_primary_keys(&self, asked: CommandGetPrimaryKeys, request: Request<Ticket>) -> Answer {
        let client = self.clients.of(&request).await?;
        whole(keys::primary(&client.session, &asked).map_err(FlightError::from))
    }

    async fn get_flight_info_exported_keys(
        &self,
        asked: CommandGetExportedKeys,
        request: Request<FlightDescriptor>,
    ) -> Info {
        self.about(&asked, keys::foreign_schema(), request).await
    }

    async fn do_get_exported_keys(&self, _asked: CommandGetExportedKeys, request: Request<Ticket>) -> Answer {
        let _client = self.clients.of(&request).await?;
        whole(Ok(RecordBatch::new_empty(keys::foreign_schema())))
    }

    async fn get_flight_info_imported_keys(
        &self,
        asked: CommandGetImportedKeys,
        request: Request<FlightDescriptor>,
    ) -> Info {
        self.about(&asked, keys::foreign_schema(), request).await
    }

    async fn do_get_imported_keys(&self, _asked: CommandGetImportedKeys, request: Request<Ticket>) -> Answer {
        let _client = self.clients.of(&request).await?;
        whole(Ok(RecordBatch::new_empty(keys::foreign_schema())))
    }

    async fn get_flight_info_cross_reference(
        &self,
        asked: CommandGetCrossReference,
        request: Request<FlightDescriptor>,
    ) -> Info {
        self.about(&asked, keys::foreign_schema(), request).await
    }

    async fn do_get_cross_reference(&self, _asked: CommandGetCrossReference, request: Request<Ticket>) -> Answer {
        let _client = self.clients.of(&request).await?;
        whole(Ok(RecordBatch::new_empty(keys::foreign_schema())))
    }

    async fn get_flight_info_table_types(
        &self,
        asked: CommandGetTableTypes,
        request: Request<FlightDescriptor>,
    ) -> Info {
        self.about(&asked, asked.into_builder().schema(), request).await
    }

    async fn do_get_table_types(&self, asked: CommandGetTableTypes, request: Request<Ticket>) -> Answer {
        self.clients.of(&request).await?;
        let mut types = asked.into_builder();
        types.append(listing::TABLE);
        types.append(listing::VIEW);
        whole(types.build())
    }

    async fn get_flight_info_sql_info(&self, asked: CommandGetSqlInfo, request: Request<FlightDescriptor>) -> Info {
        let schema = sql_info::sql_info().map_err(Status::from)?.schema();
        self.about(&asked, schema, request).await
    }

    async fn do_get_sql_info(&self, asked: CommandGetSqlInfo, request: Request<Ticket>) -> Answer {
        self.clients.of(&request).await?;
        let known = sql_info::sql_info().map_err(Status::from)?;
        whole(asked.into_builder(&known).build())
    }

    async fn do_get_fallback(&self, request: Request<Ticket>, _: Any) -> Answer {
        self.clients.of(&request).await?;
        Err(Status::invalid_argument("this is no ticket that this server gives"))
    }

    async fn register_sql_info(&self, _: i32, _: &SqlInfo) {}
}

fn cancelled(was: bool) -> CancelStatus {
    if was { CancelStatus::Cancelled } else { CancelStatus::NotCancellable }
}
