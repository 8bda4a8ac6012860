//! A table that is being followed: what the stream tells and what the parts of the snapshot hold, in one order.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::FutureExt;
use pgwire_replication::{Lsn, ReplicationClient, ReplicationEvent};
use ruam_event::{Change, ChangeEvent, Mode, OldRow, Position, Row};

use super::Setup;
use super::chunk::{About, Chunk, FIRST_ROWS, Rows};
use super::connection::Server;
use super::layout::{Layout, Wanted};
use super::memory::{Memory, Progress, SnapshotProgress};
use super::pgoutput::{self, Datum, Message, Old};
use super::reading::{BeingRead, Reading};
use super::session::Session;
use super::table::{Column, Slot, Table};
use super::values::Kind;
use super::visibility;
use crate::source::{Feed, SourceError};

/// How long one call waits for changes.
const WAIT: Duration = Duration::from_millis(200);
/// How many messages are read at a time at most, be they about this table or not.
const MESSAGES: usize = 20_000;
/// How many parts of the snapshot may wait for being released.
const WAITING_CHUNKS: usize = 16;
/// How often it is looked whether the table and the slot are in order, and how often a quiet slot moves on.
const EXAMINE_EVERY: Duration = Duration::from_secs(60);
const MOVE_ON_EVERY: Duration = Duration::from_secs(10);
/// So much of its log a server may keep for a slot before that is a warning, in bytes.
const MUCH_WAL: i64 = 1 << 30;

/// A transaction that the stream is telling.
#[derive(Clone, Copy, Debug)]
struct Transaction {
    /// Where its commit stands.
    lsn: u64,
    id: u32,
    /// When it was committed, in microseconds since 1970-01-01 UTC.
    time: i64,
    /// How many events there have been of it.
    events: u32,
}

/// A part of the snapshot whose rows have all been told, and the last event before its end.
struct Told {
    number: u64,
    end: Option<Position>,
    opened_at: u64,
    last_key: Option<Vec<String>>,
    is_last: bool,
}

/// A table that is being followed.
pub(super) struct Following {
    setup: Setup,
    session: Arc<Session>,
    stream: ReplicationClient,
    table: Table,
    wanted: Wanted,
    memory: Memory,
    progress: Progress,
    /// Everything up to here is in the log.
    after: Option<Position>,
    /// How the stream's rows look; none before it has said so.
    layout: Option<Layout>,
    transaction: Option<Transaction>,
    /// Where the last transaction's commit stands that was read to its end.
    read: u64,
    /// Up to where the server has sent everything.
    sent: u64,
    ready: VecDeque<ChangeEvent>,
    /// The last event that was made, given out, and released.
    made: Option<Position>,
    given: Option<Position>,
    released: Option<Position>,
    /// The part of the snapshot that waits for its mark.
    chunk: Option<Chunk>,
    /// The part behind it.
    being_read: Option<BeingRead>,
    /// The part whose rows are being told.
    rows: Option<Rows>,
    told: VecDeque<Told>,
    /// How many rows the next part is to have, its number, and the key that it follows.
    next_rows: u64,
    next_number: u64,
    next_after: Option<Vec<String>>,
    /// Whether all parts have been read.
    is_read: bool,
    /// The transactions that the stream has brought and that no part's moment has seen yet.
    unseen: Vec<u32>,
    examined: Instant,
    moved_on: Instant,
}

impl Following {
    /// Begins with what follows a position.
    pub(super) async fn begin(setup: &Setup, after: Option<Position>) -> Result<Self, SourceError> {
        let settings = setup.settings.as_ref().ok_or_else(|| SourceError::Refused {
            what: setup.spec.id().to_string(),
            problem: format!("there is no connection `{}`", setup.connection),
            remedy: format!("Add [connections.{}] with url = \"postgres://…\" to ruam.toml", setup.connection),
        })?;
        let server = settings.server(&setup.connection)?;
        let session = Session::open(server, setup.target.clone()).await?;
        let (server, table) = (&session.server, session.examine(&setup.spec).await?);
        let memory = Memory::open(setup.folder.clone())?;
        let start_over = start_over(&memory);
        let mut remembered = memory.progress()?;
        if after.is_none() && remembered.as_ref().is_some_and(|progress| progress.released > 0) {
            // The log has lost what it held: the table is read again.
            tracing::warn!(dataset = %setup.spec.id(), "the log holds nothing of the table that was read before; reading it again");
            memory.clear()?;
            remembered = None;
        }
        let slot = session.slot(remembered.is_none(), &start_over).await?;
        let (stream, system) = server.stream(&setup.target.slot).await?;
        let progress = match remembered {
            Some(progress) => check(server, setup, progress, &system, &table, &slot, &start_over)?,
            None => {
                if after.is_some_and(|after| slot.is_new && after.major > slot.confirmed) {
                    return Err(server.refused(
                        "what is in the log has come from another server, whose log was further",
                        format!(
                            "Name that server in its connection, or give the dataset another topic in {}",
                            setup.spec.path()
                        ),
                    ));
                }
                memory.clear()?;
                let snapshot =
                    SnapshotProgress::new(after.is_some() && setup.spec.mode == Mode::Upsert, !setup.reads_snapshot);
                let progress = Progress { system, table: table.oid, released: 0, snapshot };
                memory.keep(&progress)?;
                progress
            }
        };
        let mut following = Self {
            setup: setup.clone(),
            session: Arc::new(session),
            stream,
            wanted: Wanted::of(&setup.spec),
            table,
            next_number: progress.snapshot.next,
            next_after: progress.snapshot.after.clone(),
            is_read: progress.snapshot.is_done,
            memory,
            progress,
            after,
            layout: None,
            transaction: None,
            read: slot.confirmed,
            sent: 0,
            ready: VecDeque::new(),
            made: None,
            given: None,
            released: None,
            chunk: None,
            being_read: None,
            rows: None,
            told: VecDeque::new(),
            next_rows: FIRST_ROWS,
            unseen: Vec::new(),
            examined: Instant::now(),
            moved_on: Instant::now(),
        };
        following.go_on().await?;
        Ok(following)
    }

    /// Goes on with the parts that were read and not released.
    async fn go_on(&mut self) -> Result<(), SourceError> {
        let first = self.next_number;
        self.chunk = self.load(first)?;
        let mut last = first;
        while self.memory.about::<About>(last)?.is_some() {
            last += 1;
        }
        // Whether the mark of the last one was written, nobody knows. The first that comes is the one that counts.
        if last > first {
            self.session.mark(&self.mark_of(last - 1)).await?;
        }
        Ok(())
    }

    fn load(&mut self, number: u64) -> Result<Option<Chunk>, SourceError> {
        let chunk = Chunk::load(&self.memory, number, &self.table.key, &self.wanted)?;
        if let Some(chunk) = &chunk {
            self.note(chunk);
        }
        Ok(chunk)
    }

    /// Takes note of what follows a part.
    fn note(&mut self, chunk: &Chunk) {
        self.next_number = chunk.about.number + 1;
        self.next_after = chunk.about.last_key.clone().or(self.next_after.take());
        self.next_rows = chunk.about.next_rows();
        self.is_read = chunk.about.is_last;
    }

    pub(super) async fn next(&mut self, limit: usize) -> Result<Feed, SourceError> {
        // Not within the transaction that a part is read in.
        if self.examined.elapsed() > EXAMINE_EVERY && self.being_read.is_none() {
            self.examined = Instant::now();
            self.examine().await?;
        }
        if self.ready.is_empty() {
            if self.rows.is_some() {
                self.tell(limit)?;
            } else {
                if self.wants_chunk() {
                    self.chunk = Some(self.next_chunk().await?);
                }
                self.receive(limit).await?;
            }
        }
        if self.ready.is_empty() {
            self.move_on()?;
            return Ok(Feed::Idle);
        }
        let events: Vec<_> = self.ready.drain(..limit.min(self.ready.len())).collect();
        self.given = events.last().map(|event| event.position);
        Ok(Feed::Events(events))
    }

    /// Whether it is time for the next part of the snapshot: between two transactions, so that the stream tells of
    /// each either before the part or behind it.
    fn wants_chunk(&self) -> bool {
        !self.is_read
            && self.chunk.is_none()
            && self.rows.is_none()
            && self.transaction.is_none()
            && (self.being_read.is_some() || self.told.len() < WAITING_CHUNKS)
    }

    /// Reads what the stream brings; waits a moment where it brings nothing.
    async fn receive(&mut self, limit: usize) -> Result<(), SourceError> {
        let mut received = tokio::time::timeout(WAIT, self.stream.recv()).await.ok();
        for _ in 0..MESSAGES {
            let Some(result) = received else { return Ok(()) };
            match result {
                Ok(Some(event)) => self.take(event).await?,
                Ok(None) => return Err(self.session.server.unreachable("it has ended the stream of changes")),
                Err(error) => return Err(self.session.server.unreachable(error.to_string())),
            }
            if self.ready.len() >= limit || self.rows.is_some() || self.wants_chunk() {
                return Ok(());
            }
            received = self.stream.recv().now_or_never();
        }
        Ok(())
    }

    async fn take(&mut self, event: ReplicationEvent) -> Result<(), SourceError> {
        match event {
            ReplicationEvent::Begin { final_lsn, xid, commit_time_micros } => {
                let time = commit_time_micros + visibility::EPOCH_MICROS;
                self.transaction = Some(Transaction { lsn: final_lsn.as_u64(), id: xid, time, events: 0 });
            }
            ReplicationEvent::Commit { .. } => {
                if let Some(transaction) = self.transaction.take() {
                    self.read = transaction.lsn;
                    if !self.is_read || self.chunk.is_some() {
                        self.unseen.push(transaction.id);
                    }
                }
            }
            ReplicationEvent::XLogData { data, .. } => {
                let message = pgoutput::parse(&data).map_err(|error| SourceError::Unreadable {
                    what: self.session.server.what(),
                    problem: error.to_string(),
                })?;
                self.change(message).await?;
            }
            ReplicationEvent::Message { prefix, content, .. } => {
                let is_mark = prefix == self.setup.target.slot
                    && self
                        .chunk
                        .as_ref()
                        .is_some_and(|chunk| self.mark_of(chunk.about.number).as_bytes() == &content[..]);
                if is_mark && let Some(chunk) = self.chunk.take() {
                    if chunk.about.truncates {
                        self.make(None, Change::Truncate);
                    }
                    // The stream is not read on before both are there: the next one's moment is this one's.
                    let has_next = !self.is_read && self.told.len() + 1 < WAITING_CHUNKS;
                    if has_next && self.memory.about::<About>(self.next_number)?.is_none() {
                        self.being_read = Some(self.begin_to_read());
                    }
                    self.rows = Some(chunk.rows()?);
                }
            }
            ReplicationEvent::KeepAlive { wal_end, .. } if self.transaction.is_none() => {
                self.sent = self.sent.max(wal_end.as_u64());
            }
            _ => {}
        }
        Ok(())
    }

    /// Makes events of a change.
    async fn change(&mut self, message: Message<'_>) -> Result<(), SourceError> {
        match message {
            Message::Relation(relation) if relation.oid == self.table.oid => {
                let mut columns = Vec::new();
                for column in &relation.columns {
                    let kind = match self.table.kinds.get(&column.type_oid) {
                        Some(kind) => *kind,
                        None => self.session.kind(column.type_oid).await?,
                    };
                    columns.push((column.name.as_str(), kind));
                }
                self.tell_new_columns(&columns);
                let Some(layout) = Layout::new(&columns, &self.table.key, &self.wanted) else {
                    return Err(self.session.server.refused(
                        format!("{} has lost a column of its key", self.setup.target.quoted()),
                        format!("Correct `key` in {}, then {}", self.setup.spec.path(), start_over(&self.memory)),
                    ));
                };
                self.layout = Some(layout);
            }
            Message::Insert { relation, new } if relation == self.table.oid => {
                let Some(layout) = self.layout.take() else { return Err(self.no_layout()) };
                let of = |place: usize| new.get(place).copied().unwrap_or(Datum::Null);
                self.tell_chunk(&layout.key_bytes(of));
                self.make(self.time(), Change::Insert(layout.row(of)));
                self.layout = Some(layout);
            }
            Message::Update { relation, old, new } if relation == self.table.oid => {
                let Some(layout) = self.layout.take() else { return Err(self.no_layout()) };
                let of = |place: usize| new.get(place).copied().unwrap_or(Datum::Null);
                let (key, is_partial) = (layout.key_bytes(of), new.contains(&Datum::Unchanged));
                let (old_key, old_row) = match &old {
                    None => (None, OldRow::None),
                    Some(old) => old_row(&layout, old),
                };
                let before = old_key.as_ref().unwrap_or(&key);
                let mut known = HashMap::new();
                if is_partial {
                    let row = self.row_of_chunk(before)?;
                    // A row of another key, or one that no part has brought yet, is not there to take it from.
                    if before != &key || (row.is_none() && !self.progress.snapshot.is_done) {
                        let id = self.transaction.map(|transaction| transaction.id);
                        known = self.session.unchanged(&self.table, &layout, &new, id).await?;
                    }
                    if let Some(row) = row {
                        self.make(None, Change::Snapshot(row));
                    }
                }
                self.tell_chunk(before);
                self.tell_chunk(&key);
                // The row is gone by now, and nobody can say what it was in between: it has left its old key.
                if is_partial && before != &key && known.is_empty() {
                    self.make(self.time(), Change::Delete(old_row));
                    self.layout = Some(layout);
                    return Ok(());
                }
                let of = |place: usize| match known.get(&place) {
                    Some(text) => text.as_deref().map_or(Datum::Null, Datum::Text),
                    None => of(place),
                };
                self.make(self.time(), Change::Update { old: old_row, new: layout.row(of) });
                self.layout = Some(layout);
            }
            Message::Delete { relation, old } if relation == self.table.oid => {
                let Some(layout) = self.layout.take() else { return Err(self.no_layout()) };
                let (key, old_row) = old_row(&layout, &old);
                if let Some(key) = key {
                    self.tell_chunk(&key);
                }
                self.make(self.time(), Change::Delete(old_row));
                self.layout = Some(layout);
            }
            Message::Truncate { relations } if relations.contains(&self.table.oid) => {
                if self.concerns_chunk()
                    && let Some(chunk) = &mut self.chunk
                {
                    chunk.tell_all();
                }
                self.make(self.time(), Change::Truncate);
            }
            _ => {}
        }
        Ok(())
    }

    fn no_layout(&self) -> SourceError {
        SourceError::Unreadable {
            what: self.session.server.what(),
            problem: "a row came before the columns of its table".to_owned(),
        }
    }

    fn time(&self) -> Option<i64> {
        self.transaction.map(|transaction| transaction.time)
    }

    /// Makes the next event of the transaction, unless it is in the log.
    fn make(&mut self, source_time: Option<i64>, change: Change) {
        let Some(transaction) = &mut self.transaction else { return };
        let position = Position { major: transaction.lsn, minor: transaction.events };
        transaction.events += 1;
        self.made = Some(position);
        if self.after.is_none_or(|after| position > after) {
            self.ready.push_back(ChangeEvent { position, source_time, change });
        }
    }

    /// Whether what the stream tells now has come after the part's moment.
    fn concerns_chunk(&self) -> bool {
        let opened_at = self.chunk.as_ref().map_or(u64::MAX, |chunk| chunk.about.opened_at);
        self.transaction.is_some_and(|transaction| transaction.lsn > opened_at)
    }

    /// The stream has told of a key: what the waiting part has of it is old.
    fn tell_chunk(&mut self, key: &[u8]) {
        if self.concerns_chunk()
            && let Some(chunk) = &mut self.chunk
        {
            chunk.tell(key);
        }
    }

    /// The row that the waiting part has of a key.
    fn row_of_chunk(&mut self, key: &[u8]) -> Result<Option<Row>, SourceError> {
        match &mut self.chunk {
            Some(chunk) if self.transaction.is_some_and(|transaction| transaction.lsn > chunk.about.opened_at) => {
                chunk.take(key)
            }
            _ => Ok(None),
        }
    }

    /// Tells rows of the part whose mark has come.
    fn tell(&mut self, limit: usize) -> Result<(), SourceError> {
        let Some(mut rows) = self.rows.take() else { return Ok(()) };
        while self.ready.len() < limit {
            match rows.next()? {
                Some(row) => self.make(None, Change::Snapshot(row)),
                None => {
                    let about = rows.chunk.about;
                    if about.is_last {
                        self.unseen = Vec::new();
                        tracing::info!(dataset = %self.setup.spec.id(), "the table as it stood has been read");
                    }
                    self.told.push_back(Told {
                        number: about.number,
                        end: self.made,
                        opened_at: about.opened_at,
                        last_key: about.last_key,
                        is_last: about.is_last,
                    });
                    return Ok(());
                }
            }
        }
        self.rows = Some(rows);
        Ok(())
    }

    /// Begins to read the next part of the snapshot.
    fn begin_to_read(&mut self) -> BeingRead {
        let reading = Reading {
            session: self.session.clone(),
            memory: self.memory.clone(),
            table: self.table.clone(),
            wanted: self.wanted.clone(),
            number: self.next_number,
            opened_at: self.read,
            seen: std::mem::take(&mut self.unseen),
            truncates: self.progress.snapshot.is_anew && self.next_number == 0,
            after: self.next_after.clone(),
            limit: self.next_rows,
            mark: self.mark_of(self.next_number),
        };
        reading.begin()
    }

    /// The next part of the snapshot.
    async fn next_chunk(&mut self) -> Result<Chunk, SourceError> {
        let being_read = match self.being_read.take() {
            Some(being_read) => being_read,
            None => match self.load(self.next_number)? {
                Some(chunk) => return Ok(chunk),
                None => self.begin_to_read(),
            },
        };
        let chunk = being_read.await.map_err(|error| self.session.server.unreachable(error.to_string()))??;
        self.note(&chunk);
        Ok(chunk)
    }

    /// What the mark of a part says.
    fn mark_of(&self, number: u64) -> String {
        format!("{}/{number}", self.progress.snapshot.id)
    }

    /// Says which columns have come and gone since the table was looked at.
    fn tell_new_columns(&mut self, columns: &[(&str, Kind)]) {
        let known = |name: &str| self.table.columns.iter().any(|column| column.name == name);
        let new: Vec<_> = columns.iter().map(|(name, _)| *name).filter(|name| !known(name)).collect();
        let is_there = |name: &str| columns.iter().any(|(column, _)| *column == name);
        let gone = self.table.columns.iter().map(|column| column.name.as_str()).filter(|name| !is_there(name));
        let gone: Vec<_> = gone.collect();
        if !(new.is_empty() && gone.is_empty()) {
            tracing::warn!(
                dataset = %self.setup.spec.id(),
                "the columns of {} have changed: new are [{}], gone are [{}]",
                self.setup.target.quoted(),
                new.join(", "),
                gone.join(", ")
            );
            self.table.columns =
                columns.iter().map(|(name, kind)| Column { name: (*name).to_owned(), kind: *kind }).collect();
        }
    }

    /// Looks whether the table and the slot are still in order.
    async fn examine(&mut self) -> Result<(), SourceError> {
        let table = self.session.examine(&self.setup.spec).await?;
        if table.oid != self.table.oid {
            return Err(replaced(&self.session.server, &self.setup, &start_over(&self.memory)));
        }
        let (kept, status) = self.session.kept().await?;
        if kept > MUCH_WAL || status == "unreserved" {
            tracing::warn!(
                dataset = %self.setup.spec.id(),
                "{} keeps {} MB of its log for the slot {}: transactions that stay open, or a log that does not take events, hold it up",
                self.session.server.what(),
                kept >> 20,
                self.setup.target.slot
            );
        }
        Ok(())
    }

    /// Lets the server forget what is safe.
    pub(super) fn release(&mut self, through: Option<Position>) -> Result<(), SourceError> {
        self.released = self.released.max(through);
        let is_safe = |told: &Told| told.end.is_none_or(|end| Some(end) <= self.released.max(self.after));
        let mut forgotten = Vec::new();
        while self.told.front().is_some_and(is_safe) {
            let Some(told) = self.told.pop_front() else { break };
            let snapshot = &mut self.progress.snapshot;
            snapshot.next = told.number + 1;
            snapshot.after = told.last_key.or(snapshot.after.take());
            snapshot.is_done = told.is_last;
            forgotten.push(told.number);
        }
        let waiting = self.told.front().map(|told| told.opened_at);
        let telling = self.rows.as_ref().map(|rows| rows.chunk.about.opened_at);
        let open = waiting.or(telling).or(self.chunk.as_ref().map(|chunk| chunk.about.opened_at));
        // The whole of a transaction comes again, if its end was not released.
        let through = self.released.map_or(0, |position| position.major);
        let is_quiet = self.given == self.released && self.ready.is_empty() && self.transaction.is_none();
        let through = if is_quiet { through.max(self.sent) } else { through };
        let through = open.map_or(through, |open| through.min(open));
        if through <= self.progress.released && forgotten.is_empty() {
            return Ok(());
        }
        // What the server is told must be remembered first: it could not be told from another's doing.
        self.progress.released = self.progress.released.max(through);
        self.memory.keep(&self.progress)?;
        for number in forgotten {
            self.memory.forget(number)?;
        }
        self.stream.update_applied_lsn(Lsn::from_u64(self.progress.released));
        Ok(())
    }

    /// On a quiet table, lets the server forget what others have written meanwhile.
    fn move_on(&mut self) -> Result<(), SourceError> {
        let has_told = self.told.front().is_some();
        if self.given != self.released || (!has_told && self.moved_on.elapsed() < MOVE_ON_EVERY) {
            return Ok(());
        }
        self.moved_on = Instant::now();
        self.release(None)
    }
}

/// The key and the row that a message tells of a row before.
fn old_row(layout: &Layout, old: &Old<'_>) -> (Option<Vec<u8>>, OldRow) {
    match old {
        Old::Key(tuple) => {
            let of = |place: usize| tuple.get(place).copied().unwrap_or(Datum::Null);
            (Some(layout.key_bytes(of)), OldRow::Key(layout.key_row(of)))
        }
        Old::Full(tuple) => {
            let of = |place: usize| tuple.get(place).copied().unwrap_or(Datum::Null);
            (Some(layout.key_bytes(of)), OldRow::Full(layout.row(of)))
        }
    }
}

/// How the table is read again from its beginning.
fn start_over(memory: &Memory) -> String {
    format!(
        "stop ruam, delete {}, and start it: the table is then read again from its beginning, and what is there before is replaced",
        memory.folder().display()
    )
}

fn replaced(server: &Server, setup: &Setup, start_over: &str) -> SourceError {
    server.refused(
        format!("{} is not the table that was read, but another of its name", setup.target.quoted()),
        format!("To read the new one, {start_over}"),
    )
}

/// Whether what is remembered is of this server, this table and this slot.
fn check(
    server: &Server,
    setup: &Setup,
    progress: Progress,
    system: &str,
    table: &Table,
    slot: &Slot,
    start_over: &str,
) -> Result<Progress, SourceError> {
    if progress.system != system {
        return Err(server.refused(
            format!(
                "it is another server (its identifier is {system}) than the one that was read ({})",
                progress.system
            ),
            format!("Name the right one in its connection; or, to read this one, {start_over}"),
        ));
    }
    if progress.table != table.oid {
        return Err(replaced(server, setup, start_over));
    }
    if progress.released > 0 && slot.confirmed > progress.released {
        return Err(server.refused(
            format!(
                "somebody else has read the slot {}: it stands at {}, and ruam has read it up to {}; the changes between are missing",
                setup.target.slot,
                Lsn::from_u64(slot.confirmed),
                Lsn::from_u64(progress.released)
            ),
            format!("Have nobody else use it; to read the whole table again, {start_over}"),
        ));
    }
    Ok(progress)
}
