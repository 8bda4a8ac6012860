//! Calls of Flight with any body, of strangers and of somebody who has signed in.
#![no_main]

use arrow_flight::sql::{
    Any, CommandPreparedStatementQuery, CommandStatementQuery, ProstMessageExt, TicketStatementQuery,
};
use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use prost::Message;
use ruam_fuzz::SERVERS;
use ruam_fuzz::strangers::Asker;

#[derive(Arbitrary, Debug)]
struct Call<'a> {
    asker: Who<'a>,
    method: u8,
    action: &'a str,
    body: Body<'a>,
}

#[derive(Arbitrary, Debug)]
enum Who<'a> {
    Known,
    Nobody,
    Bearer(&'a str),
    Basic(&'a str),
    Any(&'a [u8]),
}

#[derive(Arbitrary, Debug)]
enum Body<'a> {
    Any(&'a [u8]),
    Named(&'a str, &'a [u8]),
    Statement(&'a str),
    Ticket(&'a [u8]),
    Prepared(&'a [u8]),
}

impl Body<'_> {
    fn bytes(&self) -> Vec<u8> {
        let bytes = |bytes: &[u8]| bytes.to_vec().into();
        let any = match self {
            Self::Any(all) => return all.to_vec(),
            Self::Named(name, value) => {
                let type_url = format!("type.googleapis.com/arrow.flight.protocol.sql.{name}");
                Any { type_url, value: bytes(value) }
            }
            Self::Statement(sql) => CommandStatementQuery { query: (*sql).to_owned(), transaction_id: None }.as_any(),
            Self::Ticket(handle) => TicketStatementQuery { statement_handle: bytes(handle) }.as_any(),
            Self::Prepared(handle) => {
                CommandPreparedStatementQuery { prepared_statement_handle: bytes(handle) }.as_any()
            }
        };
        any.encode_to_vec()
    }
}

fuzz_target!(|call: Call<'_>| {
    let header = match call.asker {
        Who::Known | Who::Nobody => None,
        Who::Bearer(token) => Some(format!("Bearer {token}").into_bytes()),
        Who::Basic(words) => Some(format!("Basic {words}").into_bytes()),
        Who::Any(header) => Some(header.to_vec()),
    };
    let asker = match call.asker {
        Who::Known => Asker::Known,
        _ => Asker::Stranger(header.as_deref()),
    };
    SERVERS.flight(asker, call.method, call.action, &call.body.bytes()).expect("the law is kept");
});
