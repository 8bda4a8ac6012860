//! A session for SQL beside the stream: rows as they stand at a moment, and marks in the stream.

use std::collections::HashMap;
use std::fmt::{self, Display, Formatter};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::Stream;
use ruam_event::DatasetSpec;
use tokio::sync::OnceCell;
use tokio_postgres::{Client, Error, SimpleQueryMessage};

use super::connection::Server;
use super::layout::Layout;
use super::pgoutput::Datum;
use super::table::{self, Slot, Table, Target, literal, quoted};
use super::values::{Kind, kind_of};
use super::visibility::Moment;
use crate::source::SourceError;

/// How often a moment is looked for at which all that the stream has brought is visible, and how long.
const VISIBLE_EVERY: Duration = Duration::from_millis(20);
const VISIBLE_WITHIN: Duration = Duration::from_secs(10);

/// So much of its log a server may keep for a slot before that is a warning, in bytes.
const MUCH_WAL: i64 = 1 << 30;

/// How much of its log a server keeps for a slot.
pub(super) struct Kept {
    server: String,
    slot: String,
    bytes: i64,
    /// What the server calls that state.
    status: String,
}

impl Kept {
    /// Whether somebody has to look after it.
    pub(super) fn is_much(&self) -> bool {
        self.bytes > MUCH_WAL || matches!(self.status.as_str(), "unreserved" | "lost")
    }
}

impl Display for Kept {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{} keeps {} MB of its log for the slot {}", self.server, self.bytes >> 20, self.slot)?;
        if self.is_much() {
            f.write_str(
                ", which is much: transactions that stay open, a log that does not take events, or that nobody reads the slot, hold it up",
            )?;
        }
        Ok(())
    }
}

/// A session.
pub(super) struct Session {
    pub(super) server: Server,
    pub(super) target: Target,
    client: Client,
    /// Another, from the first mark on: marks are written while rows are read.
    marks: OnceCell<Client>,
}

impl Session {
    /// Connects.
    ///
    /// # Errors
    /// Where the server cannot be reached, or does not let the user in.
    pub(super) async fn open(server: Server, target: Target) -> Result<Self, SourceError> {
        let client = server.connect().await?;
        Ok(Self { server, target, client, marks: OnceCell::new() })
    }

    /// Looks whether the table can be followed, and how its rows look.
    ///
    /// # Errors
    /// Everything that is not in order, with the SQL that mends it.
    pub(super) async fn examine(&self, spec: &DatasetSpec) -> Result<Table, SourceError> {
        table::examine(&self.server, &self.client, &self.target, spec).await
    }

    /// Looks after the slot; makes it where there is none, if `may_create`.
    ///
    /// # Errors
    /// Where it is another's, has been lost, or is gone though something was read of it.
    pub(super) async fn slot(&self, may_create: bool, start_over: &str) -> Result<Slot, SourceError> {
        table::slot(&self.server, &self.client, &self.target, may_create, start_over).await
    }

    /// How much of its log the server keeps for the slot; none where there is no slot.
    ///
    /// # Errors
    /// Where it cannot be asked.
    pub(super) async fn kept(&self) -> Result<Option<Kept>, SourceError> {
        let sql = "select coalesce(pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn), 0)::bigint, \
            coalesce(wal_status, '') from pg_replication_slots where slot_name = $1";
        let slot = self.client.query_opt(sql, &[&self.target.slot]).await.map_err(|error| self.failed(&error))?;
        Ok(slot.map(|slot| Kept {
            server: self.server.what(),
            slot: self.target.slot.clone(),
            bytes: slot.get(0),
            status: slot.get(1),
        }))
    }

    /// How the texts of a type are read.
    ///
    /// # Errors
    /// Where the server cannot be asked.
    pub(super) async fn kind(&self, oid: u32) -> Result<Kind, SourceError> {
        let sql = format!("select {}", table::base_of("$1::oid"));
        let base = self.client.query_one(&sql, &[&oid]).await.map_err(|error| self.failed(&error))?;
        Ok(kind_of(base.get::<_, Option<u32>>(0).unwrap_or(oid)))
    }

    /// Marks a place in the stream. In a transaction of its own, so that it is sent at once.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub(super) async fn mark(&self, text: &str) -> Result<(), SourceError> {
        let marks = self.marks.get_or_try_init(|| self.server.connect()).await?;
        let marked = marks.execute("select pg_logical_emit_message(true, $1, $2)", &[&self.target.slot, &text]).await;
        marked.map(drop).map_err(|error| self.failed(&error))
    }

    /// Begins to read at a moment that sees transactions which the stream has brought: that may be a little before
    /// others see them.
    ///
    /// # Errors
    /// Where they are not seen in time.
    pub(super) async fn begin(&self, transactions: &[u32]) -> Result<(), SourceError> {
        let waited = Instant::now();
        loop {
            self.run("begin isolation level repeatable read read only").await?;
            let moment = self.client.query_one("select pg_current_snapshot()::text", &[]).await;
            let moment = moment.map_err(|error| self.failed(&error))?;
            let moment: Moment = moment.get::<_, String>(0).parse().map_err(|()| SourceError::Unreadable {
                what: self.server.what(),
                problem: "its snapshot is not as PostgreSQL writes it".to_owned(),
            })?;
            let Some(hidden) = transactions.iter().find(|id| !moment.sees(**id)) else { return Ok(()) };
            self.run("rollback").await?;
            if waited.elapsed() > VISIBLE_WITHIN {
                return Err(self.server.unreachable(format!(
                    "transaction {hidden} is in the stream and not visible: it waits for a standby"
                )));
            }
            tokio::time::sleep(VISIBLE_EVERY).await;
        }
    }

    /// Ends the reading.
    ///
    /// # Errors
    /// Where the server cannot be reached.
    pub(super) async fn end(&self) -> Result<(), SourceError> {
        self.run("commit").await
    }

    /// The next rows of the table by key, after one of them, in the text format of `COPY`.
    ///
    /// # Errors
    /// Where they cannot be read.
    pub(super) async fn copy(
        &self,
        table: &Table,
        after: Option<&[String]>,
        limit: u64,
    ) -> Result<impl Stream<Item = Result<Bytes, Error>> + use<>, SourceError> {
        let names: Vec<_> = table.columns.iter().map(|column| quoted(&column.name)).collect();
        let key: Vec<_> = table.key.iter().map(|name| quoted(name)).collect();
        let beyond = after.map_or_else(String::new, |after| {
            let after: Vec<_> = after.iter().map(|text| literal(text)).collect();
            format!(" WHERE ({}) > ({})", key.join(", "), after.join(", "))
        });
        let sql = format!(
            "COPY (SELECT {} FROM {}{beyond} ORDER BY {} LIMIT {limit}) TO STDOUT",
            names.join(", "),
            self.target.quoted(),
            key.join(", "),
        );
        self.client.copy_out(&sql).await.map_err(|error| self.failed(&error))
    }

    /// The values, by place, that an update has left unchanged, as the row has them by now: if it has got others since,
    /// the stream will tell. None where the row is not there any more.
    ///
    /// # Errors
    /// Where they cannot be read.
    pub(super) async fn unchanged(
        &self,
        table: &Table,
        layout: &Layout,
        new: &[Datum<'_>],
        transaction: Option<u32>,
    ) -> Result<HashMap<usize, Option<String>>, SourceError> {
        let of = |place: usize| new.get(place).copied().unwrap_or(Datum::Null);
        let places: Vec<_> = (0..new.len()).filter(|place| new[*place] == Datum::Unchanged).collect();
        let names: Vec<_> = places.iter().filter_map(|place| layout.name(*place)).map(quoted).collect();
        let Some(key) = layout.key_texts(of) else { return Ok(HashMap::new()) };
        let is_it = |(name, text): (&String, &String)| format!("{} = {}", quoted(name), literal(text));
        let is_it: Vec<_> = table.key.iter().zip(&key).map(is_it).collect();
        let sql = format!("SELECT {} FROM {} WHERE {}", names.join(", "), self.target.quoted(), is_it.join(" AND "));
        self.begin(transaction.as_slice()).await?;
        let messages = self.client.simple_query(&sql).await.map_err(|error| self.failed(&error))?;
        self.end().await?;
        let row = messages.iter().find_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some(row),
            _ => None,
        });
        let Some(row) = row else { return Ok(HashMap::new()) };
        let text = |(index, place): (usize, &usize)| (*place, row.get(index).map(str::to_owned));
        Ok(places.iter().enumerate().map(text).collect())
    }

    async fn run(&self, sql: &str) -> Result<(), SourceError> {
        self.client.batch_execute(sql).await.map_err(|error| self.failed(&error))
    }

    pub(super) fn failed(&self, error: &Error) -> SourceError {
        self.server.failed(error)
    }
}
