//! What a client was given: tickets for answers, and prepared statements.
//!
//! What passes through: a [`Question`], into a ticket for each part of its answer, and by that into its stream; errors, into
//! statuses of gRPC that say what to do.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::datatypes::SchemaRef;
use arrow_flight::encode::FlightDataEncoderBuilder;
use arrow_flight::error::FlightError;
use arrow_flight::sql::{ProstMessageExt, TicketStatementQuery};
use arrow_flight::{FlightData, FlightDescriptor, FlightEndpoint, FlightInfo, Ticket};
use datafusion::common::ScalarValue;
use datafusion::execution::SendableRecordBatchStream;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use prost::Message;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::clients::Client;
use crate::error::{Fault, QueryError};
use crate::kept::handle;
use crate::statement::{Question, Statement};

/// What lies between an answer's handle and the part of it in a ticket.
const PART: char = '/';

/// A stream of messages, as arrow-flight wants it.
pub(super) type Messages = BoxStream<'static, Result<FlightData, Status>>;

/// An answer that tickets stand for, one for each of its parts, or one that is being given.
pub(super) struct Running {
    unread: Mutex<Option<Unread>>,
    cancelled: CancellationToken,
}

/// A question, with the parts of its answer that nobody has asked for yet. It goes with the last of them.
struct Unread {
    question: Question,
    parts: BTreeSet<usize>,
}

impl Running {
    /// Begins a part of the answer, which is given once.
    fn begin(&self, part: usize) -> Option<Result<Messages, Status>> {
        let mut unread = self.unread.lock().unwrap_or_else(PoisonError::into_inner);
        let Unread { question, parts } = unread.as_mut()?;
        if !parts.remove(&part) {
            return None;
        }
        let answer = messages(&question.schema(), question.part(part));
        if parts.is_empty() {
            *unread = None;
        }
        Some(answer)
    }
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
    /// Plans a statement and gives tickets for its answer, which may be redeemed at the same time.
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
        let (schema, handle) = (question.schema(), handle());
        let of_part = |part: usize| TicketStatementQuery { statement_handle: format!("{handle}{PART}{part}").into() };
        let parts = 0..question.parts();
        let tickets: Vec<_> = parts.clone().map(of_part).collect();
        let unread = Mutex::new(Some(Unread { question, parts: parts.collect() }));
        self.tickets.keep(handle, Arc::new(Running { unread, cancelled: CancellationToken::new() }));
        info(&schema, &tickets, descriptor)
    }

    /// The part of an answer that a ticket stands for.
    ///
    /// # Errors
    /// Where there is none of that name, or it was given already.
    pub(super) fn redeem(&self, ticket: &TicketStatementQuery) -> Result<Messages, Status> {
        let void = || Status::not_found("this ticket is void, or of another session. Ask the question again");
        let (handle, part) = read(&ticket.statement_handle).ok_or_else(void)?;
        let running = self.tickets.get(handle).ok_or_else(void)?;
        let answer = running.begin(part).ok_or_else(void)??;
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
            read(&ticket.statement_handle).map(|(handle, _)| handle.to_owned())
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

/// The handle of an answer, and the part of it, that a ticket names.
fn read(ticket: &[u8]) -> Option<(&str, usize)> {
    let (handle, part) = std::str::from_utf8(ticket).ok()?.rsplit_once(PART)?;
    Some((handle, part.parse().ok()?))
}

/// The messages of a whole answer.
///
/// # Errors
/// Where it cannot begin.
pub(super) fn answer(question: Question) -> Result<Messages, Status> {
    messages(&question.schema(), question.answer())
}

fn messages(schema: &SchemaRef, batches: Result<SendableRecordBatchStream, QueryError>) -> Result<Messages, Status> {
    let batches = batches.map_err(|error| status(&error))?;
    let batches = batches.map_err(|error| FlightError::Tonic(Box::new(status(&QueryError::from(error)))));
    Ok(FlightDataEncoderBuilder::new().with_schema(schema.clone()).build(batches).map_err(Status::from).boxed())
}

/// What a client is told of an answer: its columns, and the tickets for its parts.
///
/// # Errors
/// Where the columns cannot be told.
pub(super) fn info(
    schema: &SchemaRef,
    tickets: &[impl ProstMessageExt],
    descriptor: FlightDescriptor,
) -> Result<FlightInfo, Status> {
    // As they are sent: without dictionaries.
    let sent = FlightDataEncoderBuilder::new().with_schema(schema.clone()).build(futures::stream::empty());
    let schema = sent.known_schema().unwrap_or_else(|| schema.clone());
    let info = FlightInfo::new().try_with_schema(&schema).map_err(|error| Status::internal(error.to_string()))?;
    let info = info.with_descriptor(descriptor).with_ordered(tickets.len() == 1);
    Ok(tickets.iter().fold(info, |info, ticket| {
        let ticket = Ticket::new(ticket.as_any().encode_to_vec());
        info.with_endpoint(FlightEndpoint::new().with_ticket(ticket))
    }))
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
