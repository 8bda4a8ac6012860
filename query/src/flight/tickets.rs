//! What a client was given: tickets for answers, and prepared statements.
//!
//! What passes through: a [`Question`], into a ticket, and by that into the stream of its answer; errors, into
//! statuses of gRPC that say what to do.

use std::sync::{Arc, Mutex, PoisonError};

use arrow::datatypes::SchemaRef;
use arrow_flight::encode::FlightDataEncoderBuilder;
use arrow_flight::error::FlightError;
use arrow_flight::sql::{ProstMessageExt, TicketStatementQuery};
use arrow_flight::{FlightData, FlightDescriptor, FlightEndpoint, FlightInfo, Ticket};
use datafusion::common::ScalarValue;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use prost::Message;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::clients::Client;
use crate::error::{Fault, QueryError};
use crate::kept::handle;
use crate::statement::{Question, Statement};

/// A stream of messages, as arrow-flight wants it.
pub(super) type Messages = BoxStream<'static, Result<FlightData, Status>>;

/// An answer that a ticket stands for, or one that is being given.
pub(super) struct Running {
    question: Mutex<Option<Question>>,
    cancelled: CancellationToken,
}

/// A statement that is asked again and again, each time of the tables as they are then.
pub(super) struct Prepared {
    pub sql: String,
    /// The values of its parameters, which the client sends before it asks.
    pub values: Mutex<Vec<ScalarValue>>,
}

impl Prepared {
    /// The values that the client has sent last.
    pub(super) fn values(&self) -> Vec<ScalarValue> {
        self.values.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Client {
    /// Plans a statement and gives a ticket for its answer.
    ///
    /// # Errors
    /// Where the statement does not work.
    pub(super) async fn ticket(
        &self,
        sql: &str,
        values: Vec<ScalarValue>,
        descriptor: FlightDescriptor,
    ) -> Result<FlightInfo, Status> {
        let question = self.question(sql, values).await?;
        let schema = question.schema();
        let running = Running { question: Mutex::new(Some(question)), cancelled: CancellationToken::new() };
        let handle = handle();
        self.tickets.keep(handle.clone(), Arc::new(running));
        info(&schema, &TicketStatementQuery { statement_handle: handle.into() }, descriptor)
    }

    /// The answer that a ticket stands for.
    ///
    /// # Errors
    /// Where there is none of that name, or it was given already.
    pub(super) fn redeem(&self, ticket: &TicketStatementQuery) -> Result<Messages, Status> {
        let running = std::str::from_utf8(&ticket.statement_handle).ok().and_then(|handle| self.tickets.get(handle));
        let void = || Status::not_found("this ticket is void, or of another session. Ask the question again");
        let running = running.ok_or_else(void)?;
        let question = running.question.lock().unwrap_or_else(PoisonError::into_inner).take().ok_or_else(void)?;
        let answer = answer(question)?;
        // Cancelling ends the stream, and with it the work.
        let cancelled = running.cancelled.clone().cancelled_owned();
        let told = running.cancelled.clone();
        let end = futures::stream::once(async move {
            if told.is_cancelled() { Some(Err(Status::cancelled("the question was cancelled"))) } else { None }
        });
        Ok(answer.take_until(cancelled).map(Some).chain(end).filter_map(futures::future::ready).boxed())
    }

    /// Ends the work for a ticket; says whether there was such a one.
    pub(super) fn cancel(&self, info: &FlightInfo) -> bool {
        let handles = info.endpoint.iter().filter_map(|endpoint| {
            let ticket = arrow_flight::sql::Any::decode(&*endpoint.ticket.as_ref()?.ticket).ok()?;
            let ticket: TicketStatementQuery = ticket.unpack().ok()??;
            String::from_utf8(ticket.statement_handle.into()).ok()
        });
        let running: Vec<_> = handles.filter_map(|handle| self.tickets.remove(&handle)).collect();
        running.iter().for_each(|running| running.cancelled.cancel());
        !running.is_empty()
    }

    /// Plans a statement.
    ///
    /// # Errors
    /// Where it does not work.
    pub(super) async fn question(&self, sql: &str, values: Vec<ScalarValue>) -> Result<Question, Status> {
        let statement = Statement::read(&self.session, sql).await.map_err(|error| status(&error))?;
        statement.with(values).await.map_err(|error| status(&error))
    }
}

/// The messages of an answer.
///
/// # Errors
/// Where it cannot begin.
pub(super) fn answer(question: Question) -> Result<Messages, Status> {
    let schema = question.schema();
    let batches = question.answer().map_err(|error| status(&error))?;
    let batches = batches.map_err(|error| FlightError::Tonic(Box::new(status(&QueryError::from(error)))));
    Ok(FlightDataEncoderBuilder::new().with_schema(schema).build(batches).map_err(Status::from).boxed())
}

/// What a client is told of an answer: its columns, and the ticket for it.
///
/// # Errors
/// Where the columns cannot be told.
pub(super) fn info(
    schema: &SchemaRef,
    ticket: &impl ProstMessageExt,
    descriptor: FlightDescriptor,
) -> Result<FlightInfo, Status> {
    // As they are sent: without dictionaries.
    let sent = FlightDataEncoderBuilder::new().with_schema(schema.clone()).build(futures::stream::empty());
    let schema = sent.known_schema().unwrap_or_else(|| schema.clone());
    let ticket = Ticket::new(ticket.as_any().encode_to_vec());
    let info = FlightInfo::new().try_with_schema(&schema).map_err(|error| Status::internal(error.to_string()))?;
    Ok(info.with_endpoint(FlightEndpoint::new().with_ticket(ticket)).with_descriptor(descriptor).with_ordered(true))
}

/// An error, for a client.
pub(super) fn status(error: &QueryError) -> Status {
    let told = error.to_string();
    match error.fault() {
        Fault::Statement => Status::invalid_argument(told),
        Fault::Missing => Status::not_found(told),
        Fault::Permission => Status::permission_denied(told),
        Fault::Resources => Status::resource_exhausted(told),
        Fault::Server => Status::internal(told),
    }
}
