//! Messages of PostgreSQL's protocol in any order, of strangers and of somebody who has signed in.
#![no_main]

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use ruam_fuzz::SERVERS;
use ruam_fuzz::strangers::{TOKEN_USER, USER, first_of_sasl, message, start};

#[derive(Arbitrary, Debug)]
enum Talk<'a> {
    Token(Vec<Said<'a>>),
    User(Vec<Said<'a>>),
    Somebody(&'a str, Vec<Said<'a>>),
    Known(Vec<Said<'a>>),
}

#[derive(Arbitrary, Debug)]
enum Said<'a> {
    Query(&'a str),
    Parse { name: &'a str, sql: &'a str, types: Vec<u32> },
    Bind { portal: &'a str, name: &'a str, formats: Vec<u16>, values: Vec<Option<&'a [u8]>>, results: Vec<u16> },
    Describe { is_portal: bool, name: &'a str },
    Close { is_portal: bool, name: &'a str },
    Execute { portal: &'a str, rows: u32 },
    Sync,
    Flush,
    Password(&'a str),
    FirstOfSasl(&'a [u8]),
    Sasl(&'a [u8]),
    Any { kind: u8, body: &'a [u8] },
    Bytes(&'a [u8]),
}

fn text(text: &str) -> Vec<u8> {
    [text.replace('\0', "").as_bytes(), b"\0"].concat()
}

fn list<T>(all: &[T], one: impl Fn(&T) -> Vec<u8>) -> Vec<u8> {
    let count = u16::try_from(all.len()).unwrap_or(u16::MAX);
    [count.to_be_bytes().to_vec(), all.iter().take(count.into()).flat_map(one).collect()].concat()
}

fn value(value: &Option<&[u8]>) -> Vec<u8> {
    match value {
        Some(value) => [&u32::to_be_bytes(value.len() as u32)[..], value].concat(),
        None => vec![0xff; 4],
    }
}

impl Said<'_> {
    fn bytes(&self) -> Vec<u8> {
        let target = |is_portal: bool, name: &str| [&[if is_portal { b'P' } else { b'S' }][..], &text(name)].concat();
        match self {
            Self::Query(sql) => message(b'Q', &text(sql)),
            Self::Parse { name, sql, types } => {
                message(b'P', &[text(name), text(sql), list(types, |oid| oid.to_be_bytes().to_vec())].concat())
            }
            Self::Bind { portal, name, formats, values, results } => {
                let codes = |codes: &[u16]| list(codes, |code| code.to_be_bytes().to_vec());
                let body = [text(portal), text(name), codes(formats), list(values, value), codes(results)];
                message(b'B', &body.concat())
            }
            Self::Describe { is_portal, name } => message(b'D', &target(*is_portal, name)),
            Self::Close { is_portal, name } => message(b'C', &target(*is_portal, name)),
            Self::Execute { portal, rows } => message(b'E', &[text(portal), rows.to_be_bytes().to_vec()].concat()),
            Self::Sync => message(b'S', b""),
            Self::Flush => message(b'H', b""),
            Self::Password(password) => message(b'p', &text(password)),
            Self::FirstOfSasl(data) => first_of_sasl(data),
            Self::Sasl(data) => message(b'p', data),
            Self::Any { kind, body } => message(*kind, body),
            Self::Bytes(bytes) => bytes.to_vec(),
        }
    }
}

fuzz_target!(|talk: Talk<'_>| {
    let (user, said) = match &talk {
        Talk::Token(said) => (Some(TOKEN_USER.to_owned()), said),
        Talk::User(said) => (Some(USER.to_owned()), said),
        Talk::Somebody(name, said) => (Some(name.replace('\0', "")), said),
        Talk::Known(said) => (None, said),
    };
    let said: Vec<u8> = said.iter().flat_map(Said::bytes).collect();
    let kept = match user {
        Some(user) => SERVERS.postgres(&[start(&user), said].concat()),
        None => SERVERS.postgres_known(&said).map(drop),
    };
    kept.expect("the law is kept");
});
