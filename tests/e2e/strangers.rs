//! Whatever strangers send to servers with sign-on, they are told nothing. The fuzz targets in `tests/fuzz` hold
//! the same law for longer.

use anyhow::{Result, anyhow, ensure};
use arrow_flight::sql::{
    ActionCreatePreparedStatementRequest, CommandGetTables, CommandStatementQuery, ProstMessageExt,
    TicketStatementQuery,
};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseError, TestRunner};
use prost::Message;
use ruam_tests::strangers::{Asker, Servers, TOKEN_USER, USER, first_of_sasl, message, sound_values, start};

/// Tries what a strategy gives, so many times.
fn each<S: Strategy>(cases: u32, strategy: &S, try_one: impl Fn(S::Value) -> Result<()>) -> Result<()> {
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    let tried = TestRunner::new(config)
        .run(strategy, |value| try_one(value).map_err(|error| TestCaseError::fail(format!("{error:#}"))));
    tried.map_err(|error| anyhow!("{error}"))
}

fn some_bytes() -> impl Strategy<Value = Vec<u8>> {
    // Few of them are no zeros, which end texts and begin numbers.
    vec(prop_oneof![Just(0_u8), 0..4_u8, any::<u8>()], 0..40)
}

/// Messages in any order, most of them of types that there are, and some as they should be.
fn messages() -> impl Strategy<Value = Vec<u8>> {
    let known = proptest::sample::select(b"QPBDECSHXcdfp".to_vec());
    let any_body = (prop_oneof![9 => known, 1 => any::<u8>()], some_bytes());
    let any_body = any_body.prop_map(|(kind, body)| message(kind, &body));
    let well_formed = proptest::sample::select(vec![
        message(b'Q', b"select 1\0"),
        message(b'Q', b";\0"),
        message(b'P', b"\0select 1\0\0\0"),
        message(b'P', b"\0\0\0\0"),
        message(b'B', b"\0\0\0\0\0\0\0\0"),
        message(b'D', b"P\0"),
        message(b'D', b"S\0"),
        message(b'E', b"\0\0\0\0\0"),
        message(b'C', b"S\0"),
        message(b'S', b""),
        message(b'H', b""),
        message(b'p', b"ruam_000000000000_0\0"),
        message(b'p', b"\0"),
        first_of_sasl(b"n,,n=,r=abcdefgh"),
        first_of_sasl(b"y,,"),
        message(b'p', b"c=biws,r=abcdefgh,p=AAAA"),
    ]);
    vec(prop_oneof![any_body, well_formed], 0..6).prop_map(|messages| messages.concat())
}

pub fn by_postgres_are_told_nothing() -> Result<()> {
    let servers = Servers::start()?;
    each(100, &vec(any::<u8>(), 0..60), |bytes| servers.postgres(&bytes))?;
    let user = proptest::sample::select(vec![TOKEN_USER, USER, "nobody", ""]);
    each(400, &(user, messages()), |(user, messages)| servers.postgres(&[start(user), messages].concat()))?;
    // Nor does it harm to hear them from somebody who has signed in.
    each(100, &messages(), |messages| servers.postgres_known(&messages).map(drop))
}

/// Nobody is kept room for that asks for more rows than any machine holds.
pub fn no_row_has_room_before_it_comes() -> Result<()> {
    let servers = Servers::start()?;
    let query = |sql: &str| message(b'Q', &[sql.as_bytes(), b"\0"].concat());
    let parse = message(b'P', b"\0select value as found from generate_series(1, 3)\0\0\0");
    let bind = message(b'B', b"\0\0\0\0\0\0\0\0");
    let execute = |rows: i32| message(b'E', &[&b"\0"[..], &rows.to_be_bytes()].concat());
    let asked = |messages: &[Vec<u8>]| -> Result<String> {
        let told = servers.postgres_known(&messages.concat())?;
        Ok(told.iter().map(|byte| char::from(*byte)).filter(|c| c.is_ascii_graphic()).collect())
    };
    for rows in [i32::MAX, 0, -1] {
        let told = asked(&[parse.clone(), bind.clone(), execute(rows), message(b'S', b"")])?;
        ensure!(told.contains("SELECT3"), "{rows}: {told}");
    }
    // Two, and after them what is left.
    let told = asked(&[parse, bind, execute(2), execute(2), message(b'S', b"")])?;
    ensure!(told.contains("sD") && told.contains("SELECT1"), "{told}");
    let declared = query("declare a cursor for select value as found from generate_series(1, 3)");
    for (limit, expected) in [("1", "SELECT1"), ("all", "SELECT3"), ("1000000000000", "SELECT3"), ("0", "SELECT0")] {
        let told = asked(&[query("begin"), declared.clone(), query(&format!("fetch {limit} from a"))])?;
        ensure!(told.contains(expected), "{limit}: {told}");
    }
    let told = asked(&[query("begin"), declared, query("fetch 2 from a"), query("fetch 2 from a")])?;
    ensure!(told.contains("SELECT2") && told.contains("SELECT1"), "{told}");
    Ok(())
}

pub fn by_flight_are_told_nothing() -> Result<()> {
    let servers = Servers::start()?;
    let query = CommandStatementQuery { query: "select 1".to_owned(), transaction_id: None }.as_any();
    let prepare = ActionCreatePreparedStatementRequest { query: "select 1".to_owned(), transaction_id: None };
    let well_formed = [query, prepare.as_any(), CommandGetTables::default().as_any()].map(|any| any.encode_to_vec());
    let body = prop_oneof![proptest::sample::select(well_formed.to_vec()), some_bytes()];
    let header = prop_oneof![
        Just(None),
        proptest::sample::select(vec!["Bearer ", "Bearer ruam_000000000000_0", "Basic c29tY2hhaTp4", "Basic "])
            .prop_map(|header| Some(header.as_bytes().to_vec())),
        vec(any::<u8>(), 0..40).prop_map(Some),
    ];
    let action = proptest::sample::select(vec!["CreatePreparedStatement", "CancelFlightInfo", "CancelQuery", "x"]);
    each(200, &(header, 0..9_u8, action, body), |(header, method, action, body)| {
        servers.flight(Asker::Stranger(header.as_deref()), method, action, &body).map(drop)
    })?;
    // Nor is a ticket of use that nobody was given.
    each(100, &(some_bytes(), any::<bool>()), |(bytes, is_ticket)| {
        let ticket = TicketStatementQuery { statement_handle: bytes.clone().into() };
        let body = if is_ticket { ticket.as_any().encode_to_vec() } else { bytes };
        servers.flight(Asker::Known, 1, "", &body).map(drop)
    })?;
    ensure!(servers.flight_values(sound_values()?)?, "values are not taken");
    // Somebody who may is answered, so that it is not for another reason that nobody is.
    let tables = CommandGetTables::default().as_any().encode_to_vec();
    ensure!(servers.flight(Asker::Known, 1, "", &tables)?, "somebody who has signed in is not answered");
    Ok(())
}
