//! Tickets, and who may use them.

use std::net::SocketAddr;

use arrow::array::RecordBatch;
use arrow_flight::decode::FlightRecordBatchStream;
use arrow_flight::error::FlightError;
use arrow_flight::flight_service_server::FlightService;
use arrow_flight::sql::{
    ActionCreatePreparedStatementRequest, CommandGetTables, CommandPreparedStatementQuery, CommandStatementQuery,
    ProstMessageExt, TicketStatementQuery,
};
use arrow_flight::{Action, Criteria, FlightDescriptor, Ticket};
use async_trait::async_trait;
use futures::TryStreamExt;
use proptest::prelude::*;
use prost::Message;
use ruam_lake::Lake;
use tonic::{Code, Request, Status};

use super::*;
use crate::caller::Caller;
use crate::engine::EngineSettings;
use crate::policy::Policies;
use crate::sign_in::{Refused, SignedIn};
use ruam_door::Peer;

/// Lets in whoever names themselves.
#[derive(Debug)]
struct ByName;

#[async_trait]
impl SignIn for ByName {
    async fn sign_in(&self, authorization: &[u8], _: SocketAddr, client: String) -> Result<SignedIn, Refused> {
        let name = std::str::from_utf8(authorization).ok().and_then(|header| header.strip_prefix("Bearer is-"));
        let name = name.ok_or_else(|| Refused("nobody".to_owned()))?;
        Ok(SignedIn { caller: Caller::new(name, [], client), counts: Arc::new(|| true) })
    }
}

/// A server without datasets.
fn service(sign_in: Option<Arc<dyn SignIn>>) -> (tempfile::TempDir, Service) {
    let folder = tempfile::tempdir().unwrap();
    let lake = Lake::open(&folder.path().to_string_lossy(), &Default::default()).unwrap();
    let engine = Engine::new(lake, Vec::new(), Policies::default(), EngineSettings::default()).unwrap();
    let clients = Clients::new(engine.clone(), engine.base(), Doorkeeper(sign_in));
    (folder, Service::new(clients))
}

/// A call from a connection, with a header where there is one.
fn call<T>(message: T, connection: &str, header: Option<&str>) -> Request<T> {
    let mut request = Request::new(message);
    let address = SocketAddr::from(([127, 0, 0, 1], 1));
    request.extensions_mut().insert(Peer { address, connection: connection.into() });
    if let Some(header) = header {
        request.metadata_mut().insert("authorization", header.parse().unwrap());
    }
    request
}

fn descriptor(command: &impl ProstMessageExt) -> FlightDescriptor {
    FlightDescriptor::new_cmd(command.as_any().encode_to_vec())
}

fn select(number: u32) -> FlightDescriptor {
    descriptor(&CommandStatementQuery { query: format!("select {number}"), transaction_id: None })
}

async fn ticket(service: &Service, connection: &str, header: Option<&str>) -> Ticket {
    let info = service.get_flight_info(call(select(1), connection, header)).await.unwrap().into_inner();
    info.endpoint[0].ticket.clone().unwrap()
}

/// How many messages a ticket is answered with.
async fn redeem(service: &Service, ticket: Ticket, connection: &str, header: Option<&str>) -> Result<usize, Status> {
    let answer = service.do_get(call(ticket, connection, header)).await?.into_inner();
    Ok(answer.try_collect::<Vec<_>>().await?.len())
}

#[tokio::test]
async fn a_ticket_answers_once_and_its_client_alone() {
    let (_folder, service) = service(None);
    let given = ticket(&service, "a", None).await;
    assert_eq!(redeem(&service, given.clone(), "b", None).await.unwrap_err().code(), Code::NotFound);
    assert!(redeem(&service, given.clone(), "a", None).await.unwrap() > 1);
    assert_eq!(redeem(&service, given, "a", None).await.unwrap_err().code(), Code::NotFound);
}

#[tokio::test]
async fn the_parts_of_an_answer_are_read_at_the_same_time() {
    let (_folder, service) = service(None);
    let query = "select value % 7, count(*) from generate_series(1, 100000) group by 1".to_owned();
    let asked = descriptor(&CommandStatementQuery { query, transaction_id: None });
    let info = service.get_flight_info(call(asked, "a", None)).await.unwrap().into_inner();
    let tickets: Vec<_> = info.endpoint.into_iter().filter_map(|endpoint| endpoint.ticket).collect();
    let part = async |ticket: Ticket| {
        let messages = service.do_get(call(ticket, "a", None)).await.unwrap().into_inner();
        let batches = FlightRecordBatchStream::new_from_flight_data(messages.map_err(FlightError::from));
        batches.try_collect::<Vec<_>>().await.unwrap().iter().map(RecordBatch::num_rows).sum::<usize>()
    };
    let rows = futures::future::join_all(tickets.iter().cloned().map(part)).await;
    assert_eq!(rows.iter().sum::<usize>(), 7, "{rows:?}");
    for ticket in tickets {
        assert_eq!(redeem(&service, ticket, "a", None).await.unwrap_err().code(), Code::NotFound);
    }
}

#[tokio::test]
async fn a_client_is_who_signs_in_whatever_the_connection() {
    let (_folder, service) = service(Some(Arc::new(ByName)));
    let (a, b) = (Some("Bearer is-a"), Some("Bearer is-b"));
    let given = ticket(&service, "1", a).await;
    assert_eq!(redeem(&service, given.clone(), "1", b).await.unwrap_err().code(), Code::NotFound);
    assert!(redeem(&service, given, "2", a).await.is_ok());
}

#[tokio::test]
async fn nothing_is_answered_before_sign_in() {
    let (_folder, service) = service(Some(Arc::new(ByName)));
    let tables = CommandGetTables::default();
    let prepare = ActionCreatePreparedStatementRequest { query: "select 1".to_owned(), transaction_id: None };
    let prepare =
        Action { r#type: "CreatePreparedStatement".to_owned(), body: prepare.as_any().encode_to_vec().into() };
    for header in [None, Some("Bearer x"), Some("Basic eDp5"), Some("is-a")] {
        let unknown = |call: Result<(), Status>| assert_eq!(call.unwrap_err().code(), Code::Unauthenticated);
        unknown(service.get_flight_info(call(select(1), "1", header)).await.map(drop));
        unknown(service.get_flight_info(call(descriptor(&tables), "1", header)).await.map(drop));
        let listed = Ticket::new(tables.as_any().encode_to_vec());
        unknown(redeem(&service, listed, "1", header).await.map(drop));
        unknown(service.do_action(call(prepare.clone(), "1", header)).await.map(drop));
        let flights = service.list_flights(call(Criteria::default(), "1", header)).await;
        assert!(flights.is_err());
    }
}

#[tokio::test]
async fn a_purpose_is_its_clients() {
    let (_folder, service) = service(None);
    let ask = |query: &str| descriptor(&CommandStatementQuery { query: query.to_owned(), transaction_id: None });
    service.get_flight_info(call(ask("set ruam.purpose = 'planning'"), "a", None)).await.unwrap();
    for (connection, expected) in [("a", Some("planning")), ("b", None)] {
        let request = call((), connection, None);
        let client = service.client(&request).await.unwrap();
        assert_eq!(client.session.scope.purpose.stated().as_deref(), expected, "{connection}");
    }
    let refused = service.get_flight_info(call(ask("set datafusion.execution.batch_size = 1"), "a", None)).await;
    assert_eq!(refused.unwrap_err().code(), Code::PermissionDenied);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Of all bytes, none is a ticket but one that was given.
    #[test]
    fn no_bytes_crash_it_nor_are_answered(
        bytes in prop::collection::vec(any::<u8>(), 0..200),
        change in (any::<prop::sample::Index>(), 1..=u8::MAX),
        kind in 0..4,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let answered = runtime.block_on(async {
            let (_folder, service) = service(None);
            let mut given = ticket(&service, "a", None).await.ticket.to_vec();
            let bytes = match kind {
                0 => bytes,
                1 => TicketStatementQuery { statement_handle: bytes.into() }.as_any().encode_to_vec(),
                2 => CommandPreparedStatementQuery { prepared_statement_handle: bytes.into() }.as_any().encode_to_vec(),
                _ => {
                    // One of the last bytes, which are the handle: what is before them, protobuf may skip.
                    let handle = given.len() - 34;
                    let at = handle + change.0.index(34);
                    given[at] ^= change.1;
                    given
                }
            };
            redeem(&service, Ticket::new(bytes), "a", None).await.is_ok()
        });
        prop_assert!(!answered);
    }
}
