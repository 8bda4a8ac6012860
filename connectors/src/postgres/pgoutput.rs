//! The messages of `pgoutput`, PostgreSQL's own plugin of logical replication, version 1 of its protocol.
//!
//! What passes through: the bytes of a message into a [`Message`] that borrows from them. Guaranteed: no bytes
//! make it panic or reserve what they do not hold; a message that is cut or has something else where a field
//! belongs is an error.
//!
//! <https://www.postgresql.org/docs/current/protocol-logicalrep-message-formats.html>

use std::str;

/// A message about a table. Those that begin and end a transaction are read by the replication client.
#[derive(Debug, PartialEq)]
pub(super) enum Message<'a> {
    /// How a table's rows look from here on.
    Relation(Relation),
    /// A row was inserted.
    Insert { relation: u32, new: Tuple<'a> },
    /// A row was changed; what is told of it before.
    Update { relation: u32, old: Option<Old<'a>>, new: Tuple<'a> },
    /// A row was deleted.
    Delete { relation: u32, old: Old<'a> },
    /// Tables were emptied.
    Truncate { relations: Vec<u32> },
    /// Something that changes no row.
    Other,
}

/// A table as the stream knows it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Relation {
    pub(super) oid: u32,
    pub(super) columns: Vec<RelationColumn>,
}

/// A column of a table.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct RelationColumn {
    pub(super) name: String,
    pub(super) is_key: bool,
    pub(super) type_oid: u32,
}

/// A row before a change.
#[derive(Debug, PartialEq)]
pub(super) enum Old<'a> {
    /// Its replica identity; other columns are null.
    Key(Tuple<'a>),
    /// All of it.
    Full(Tuple<'a>),
}

/// The values of a row, in the order of the relation's columns.
pub(super) type Tuple<'a> = Vec<Datum<'a>>;

/// The value at a place of a row.
pub(super) fn at<'a>(tuple: &Tuple<'a>, place: usize) -> Datum<'a> {
    tuple.get(place).copied().unwrap_or(Datum::Null)
}

/// A value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Datum<'a> {
    Null,
    /// Stored apart, and not changed: not sent.
    Unchanged,
    Text(&'a str),
}

/// Bytes that are not a message.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[error("a message of pgoutput is not as its protocol has it: {0}")]
pub(super) struct Malformed(&'static str);

/// Reads a message.
///
/// # Errors
/// Where the bytes are not one.
pub(super) fn parse(bytes: &[u8]) -> Result<Message<'_>, Malformed> {
    let mut reader = Reader(bytes);
    let message = match reader.u8()? {
        b'R' => {
            let oid = reader.u32()?;
            let (_schema, _name, _identity) = (reader.text()?, reader.text()?, reader.u8()?);
            let count = reader.u16()?;
            let mut columns = Vec::new();
            for _ in 0..count {
                let flags = reader.u8()?;
                let name = reader.text()?.to_owned();
                let (type_oid, _modifier) = (reader.u32()?, reader.u32()?);
                columns.push(RelationColumn { name, is_key: flags & 1 == 1, type_oid });
            }
            Message::Relation(Relation { oid, columns })
        }
        b'I' => {
            let relation = reader.u32()?;
            reader.expect(b'N')?;
            Message::Insert { relation, new: reader.tuple()? }
        }
        b'U' => {
            let relation = reader.u32()?;
            let old = match reader.u8()? {
                b'K' => Some(Old::Key(reader.tuple()?)),
                b'O' => Some(Old::Full(reader.tuple()?)),
                b'N' => None,
                _ => return Err(Malformed("an update has neither an old row nor a new one")),
            };
            if old.is_some() {
                reader.expect(b'N')?;
            }
            Message::Update { relation, old, new: reader.tuple()? }
        }
        b'D' => {
            let relation = reader.u32()?;
            let old = match reader.u8()? {
                b'K' => Old::Key(reader.tuple()?),
                b'O' => Old::Full(reader.tuple()?),
                _ => return Err(Malformed("a delete has no old row")),
            };
            Message::Delete { relation, old }
        }
        b'T' => {
            let count = reader.u32()?;
            let _options = reader.u8()?;
            let mut relations = Vec::new();
            for _ in 0..count {
                relations.push(reader.u32()?);
            }
            Message::Truncate { relations }
        }
        // Types and origins.
        b'Y' | b'O' => return Ok(Message::Other),
        _ => return Err(Malformed("its kind is not known")),
    };
    if reader.0.is_empty() { Ok(message) } else { Err(Malformed("there is something behind its end")) }
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(Malformed("it is cut"))?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        self.take(N)?.try_into().map_err(|_| Malformed("it is cut"))
    }

    fn u8(&mut self) -> Result<u8, Malformed> {
        self.array().map(u8::from_be_bytes)
    }

    fn u16(&mut self) -> Result<u16, Malformed> {
        self.array().map(u16::from_be_bytes)
    }

    fn u32(&mut self) -> Result<u32, Malformed> {
        self.array().map(u32::from_be_bytes)
    }

    fn expect(&mut self, kind: u8) -> Result<(), Malformed> {
        if self.u8()? == kind { Ok(()) } else { Err(Malformed("a row is not where it belongs")) }
    }

    /// A text that ends with a zero.
    fn text(&mut self) -> Result<&'a str, Malformed> {
        let end = self.0.iter().position(|byte| *byte == 0).ok_or(Malformed("a name does not end"))?;
        let text = self.take(end)?;
        self.take(1)?;
        utf8(text)
    }

    fn tuple(&mut self) -> Result<Tuple<'a>, Malformed> {
        let count = self.u16()?;
        let mut tuple = Vec::with_capacity(usize::from(count).min(self.0.len()));
        for _ in 0..count {
            tuple.push(match self.u8()? {
                b'n' => Datum::Null,
                b'u' => Datum::Unchanged,
                b't' => {
                    let length = self.u32()?;
                    Datum::Text(utf8(self.take(usize::try_from(length).unwrap_or(usize::MAX))?)?)
                }
                _ => return Err(Malformed("a value is neither null nor unchanged nor a text")),
            });
        }
        Ok(tuple)
    }
}

fn utf8(bytes: &[u8]) -> Result<&str, Malformed> {
    str::from_utf8(bytes).map_err(|_| Malformed("a text is not in UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A message as the server writes it.
    fn bytes(parts: &[&[u8]]) -> Vec<u8> {
        parts.concat()
    }

    #[test]
    fn messages_are_read() {
        let relation = bytes(&[b"R\0\0\0\x07public\0person\0d\0\x01\x01", b"id\0\0\0\0\x17\xff\xff\xff\xff"]);
        let columns = vec![RelationColumn { name: "id".into(), is_key: true, type_oid: 23 }];
        assert_eq!(parse(&relation), Ok(Message::Relation(Relation { oid: 7, columns })));
        let row: &[u8] = b"\0\x03t\0\0\0\x02\xc3\xa4nu";
        let tuple = || vec![Datum::Text("ä"), Datum::Null, Datum::Unchanged];
        assert_eq!(parse(&bytes(&[b"I\0\0\0\x07N", row])), Ok(Message::Insert { relation: 7, new: tuple() }));
        assert_eq!(
            parse(&bytes(&[b"U\0\0\0\x07K", row, b"N", row])),
            Ok(Message::Update { relation: 7, old: Some(Old::Key(tuple())), new: tuple() })
        );
        assert_eq!(
            parse(&bytes(&[b"D\0\0\0\x07O", row])),
            Ok(Message::Delete { relation: 7, old: Old::Full(tuple()) })
        );
        assert_eq!(parse(b"T\0\0\0\x01\0\0\0\0\x07"), Ok(Message::Truncate { relations: vec![7] }));
    }

    proptest! {
        #[test]
        fn no_bytes_break_it(kind in prop::sample::select(b"RIUDTYO?".to_vec()), rest: Vec<u8>) {
            let _ = parse(&bytes(&[&[kind], &rest]));
        }

        #[test]
        fn no_cut_passes_for_a_message(at in 0_usize..20) {
            let whole = b"I\0\0\0\x07N\0\x02t\0\0\0\x03abcn";
            prop_assume!(at < whole.len());
            prop_assert!(parse(&whole[..at]).is_err());
        }
    }
}
