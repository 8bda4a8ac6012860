//! A table that is being followed: what the stream tells and what the parts of the snapshot hold, in one order.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::FutureExt;
use pgwire_replication::{Lsn, ReplicationClient, ReplicationEvent};
use ruam_event::{Change, ChangeEvent, OldRow, Position};

use super::chunk::Chunk;
use super::layout::{Layout, Wanted};
use super::memory::{Memory, Progress};
use super::pgoutput::{self, Datum, Message, Old, at};
use super::reading::{BeingRead, Reading};
use super::session::{Kept, Session};
use super::snapshot::Snapshot;
use super::start::{self, Start};
use super::table::{Column, Table};
use super::values::Kind;
use super::{Setup, visibility};
use crate::source::{Feed, SourceError};

/// How long one call waits for changes.
const WAIT: Duration = Duration::from_millis(200);
/// How many messages are read at a time at most, be they about this table or not.
const MESSAGES: usize = 20_000;
/// How often it is looked whether the table and the slot are in order, and how often a quiet slot moves on.
const EXAMINE_EVERY: Duration = Duration::from_secs(60);
const MOVE_ON_EVERY: Duration = Duration::from_secs(10);

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

/// A table that is being followed.
pub(super) struct Following {
    setup: Setup,
    session: Arc<Session>,
    stream: ReplicationClient,
    table: Table,
    wanted: Wanted,
    memory: Memory,
    progress: Progress,
    snapshot: Snapshot,
    /// Everything up to here is in the log.
    after: Option<Position>,
    /// How the stream's rows look; none before it has said so.
    layout: Option<Arc<Layout>>,
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
    examined: Instant,
    moved_on: Instant,
}

impl Following {
    /// Begins with what follows a position.
    pub(super) async fn begin(setup: &Setup, after: Option<Position>) -> Result<Self, SourceError> {
        let Start { session, stream, confirmed, table, memory, progress } = Start::after(setup, after).await?;
        let mut following = Self {
            setup: setup.clone(),
            session: Arc::new(session),
            stream,
            wanted: Wanted::of(&setup.spec),
            table,
            memory,
            snapshot: Snapshot::new(&progress.snapshot),
            progress,
            after,
            layout: None,
            transaction: None,
            read: confirmed,
            sent: 0,
            ready: VecDeque::new(),
            made: None,
            given: None,
            released: None,
            examined: Instant::now(),
            moved_on: Instant::now(),
        };
        following.go_on().await?;
        Ok(following)
    }

    /// Goes on with the parts that were read and not released.
    async fn go_on(&mut self) -> Result<(), SourceError> {
        let mut next = self.snapshot.read.next;
        if let Some(chunk) = self.load()? {
            self.snapshot.wait(chunk);
        }
        let mut last = None;
        while let Some(about) = self.memory.about(next)? {
            next = about.number + 1;
            last = Some(about);
        }
        // One may have been on the disk before the part that it follows. That is read anew, and may end elsewhere.
        self.memory.forget(next + 1)?;
        // Whether the mark of the last one was written, nobody knows. The first that comes is the one that counts.
        match last {
            Some(last) => self.session.mark(&last.mark).await,
            None => Ok(()),
        }
    }

    /// The next part, if it was read before.
    fn load(&self) -> Result<Option<Chunk>, SourceError> {
        Chunk::load(&self.memory, self.snapshot.read.next, &self.table.key, &self.wanted)
    }

    pub(super) async fn next(&mut self, limit: usize) -> Result<Feed, SourceError> {
        // Not within the transaction that a part is read in.
        if self.examined.elapsed() > EXAMINE_EVERY && self.snapshot.being_read.is_none() {
            self.examined = Instant::now();
            self.examine().await?;
        }
        if self.ready.is_empty() {
            if self.snapshot.is_telling() {
                self.tell(limit)?;
            } else {
                if self.wants_chunk() {
                    let chunk = self.next_chunk().await?;
                    self.snapshot.wait(chunk);
                }
                self.receive(limit).await?;
            }
        }
        if self.ready.is_empty() {
            self.move_on()?;
            return Ok(Feed::Idle);
        }
        let behind = self.ready.split_off(limit.min(self.ready.len()));
        let events = Vec::from(std::mem::replace(&mut self.ready, behind));
        self.given = events.last().map(|event| event.position);
        Ok(Feed::Events(events))
    }

    /// Whether it is time for the next part of the snapshot: between two transactions, so that the stream tells of
    /// each either before the part or behind it.
    fn wants_chunk(&self) -> bool {
        self.transaction.is_none() && self.snapshot.wants_chunk()
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
            if self.ready.len() >= limit || self.snapshot.is_telling() || self.wants_chunk() {
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
                    self.snapshot.bring(transaction.id);
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
                if prefix == self.setup.target.slot
                    && let Some(chunk) = self.snapshot.marked(&content)
                {
                    if chunk.about.truncates {
                        self.make(None, Change::Truncate);
                    }
                    // The stream is not read on before both are there: the next one's moment is this one's.
                    if self.snapshot.has_next() && self.memory.about(self.snapshot.read.next)?.is_none() {
                        self.snapshot.being_read = Some(self.begin_to_read());
                    }
                    self.snapshot.tell(chunk.rows().await?);
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
                        format!("Correct `key` in {}, then {}", self.setup.spec.path(), self.memory.start_over()),
                    ));
                };
                self.layout = Some(Arc::new(layout));
            }
            Message::Insert { relation, new } if relation == self.table.oid => {
                let (layout, of) = (self.layout()?, |place| at(&new, place));
                self.tell_chunk(layout.key_bytes(of))?;
                self.make(self.time(), Change::Insert(layout.row(of)));
            }
            Message::Update { relation, old, new } if relation == self.table.oid => {
                let (layout, of) = (self.layout()?, |place| at(&new, place));
                let (key, is_partial) = (layout.key_bytes(of), new.contains(&Datum::Unchanged));
                let (old_key, old_row) = match &old {
                    None => (None, OldRow::None),
                    Some(old) => {
                        let (key, row) = old_row(&layout, old);
                        (Some(key), row)
                    }
                };
                let is_moved = old_key.as_ref().is_some_and(|old| *old != key);
                let before = old_key.as_ref().unwrap_or(&key);
                let mut known = HashMap::new();
                if is_partial {
                    let row = match self.chunk() {
                        Some(chunk) => chunk.row_of(before).await?,
                        None => None,
                    };
                    // A row of another key, or one that no part has brought yet, is not there to take it from.
                    if is_moved || (row.is_none() && !self.progress.snapshot.is_done) {
                        let id = self.transaction.map(|transaction| transaction.id);
                        known = self.session.unchanged(&self.table, &layout, &new, id).await?;
                    }
                    if let Some(row) = row {
                        self.make(None, Change::Snapshot(row));
                    }
                }
                if let Some(old) = old_key.filter(|_| is_moved) {
                    self.tell_chunk(old)?;
                }
                self.tell_chunk(key)?;
                // The row is gone by now, and nobody can say what it was in between: it has left its old key.
                if is_partial && is_moved && known.is_empty() {
                    self.make(self.time(), Change::Delete(old_row));
                    return Ok(());
                }
                let of = |place: usize| match known.get(&place) {
                    Some(text) => text.as_deref().map_or(Datum::Null, Datum::Text),
                    None => of(place),
                };
                self.make(self.time(), Change::Update { old: old_row, new: layout.row(of) });
            }
            Message::Delete { relation, old } if relation == self.table.oid => {
                let (key, old_row) = old_row(self.layout()?.as_ref(), &old);
                self.tell_chunk(key)?;
                self.make(self.time(), Change::Delete(old_row));
            }
            Message::Truncate { relations } if relations.contains(&self.table.oid) => {
                if let Some(chunk) = self.chunk() {
                    chunk.tell_all();
                }
                self.make(self.time(), Change::Truncate);
            }
            _ => {}
        }
        Ok(())
    }

    /// How the stream's rows look.
    fn layout(&self) -> Result<Arc<Layout>, SourceError> {
        self.layout.clone().ok_or_else(|| SourceError::Unreadable {
            what: self.session.server.what(),
            problem: "a row came before the columns of its table".to_owned(),
        })
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

    /// The part that waits for its mark, if what the stream tells now has come after its moment.
    fn chunk(&mut self) -> Option<&mut Chunk> {
        self.snapshot.waiting_at(self.transaction?.lsn)
    }

    /// The stream has told of a key: what the waiting part has of it is old.
    fn tell_chunk(&mut self, key: Vec<u8>) -> Result<(), SourceError> {
        self.chunk().map_or(Ok(()), |chunk| chunk.tell(key))
    }

    /// Tells rows of the part whose mark has come.
    fn tell(&mut self, limit: usize) -> Result<(), SourceError> {
        while self.ready.len() < limit {
            match self.snapshot.next_row()? {
                Some(row) => self.make(None, Change::Snapshot(row)),
                None => {
                    if self.snapshot.end_part(self.made) {
                        tracing::info!(dataset = %self.setup.spec.id(), "the table as it stood has been read");
                    }
                    break;
                }
            }
        }
        Ok(())
    }

    /// Begins to read the next part of the snapshot.
    fn begin_to_read(&mut self) -> BeingRead {
        let reading = Reading {
            session: self.session.clone(),
            memory: self.memory.clone(),
            table: self.table.clone(),
            wanted: self.wanted.clone(),
            from: self.snapshot.read.clone(),
            limit: self.snapshot.next_rows,
            opened_at: self.read,
            seen: std::mem::take(&mut self.snapshot.unseen),
            mark: uuid::Uuid::new_v4().simple().to_string(),
        };
        reading.begin()
    }

    /// The next part of the snapshot.
    async fn next_chunk(&mut self) -> Result<Chunk, SourceError> {
        let being_read = match self.snapshot.being_read.take() {
            Some(being_read) => being_read,
            None => match self.load()? {
                Some(chunk) => return Ok(chunk),
                None => self.begin_to_read(),
            },
        };
        being_read.await.map_err(|error| self.session.server.unreachable(error.to_string()))?
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
        start::is_same(&self.session.server, &self.setup, &table, &self.progress, &self.memory)?;
        if let Some(kept) = self.session.kept().await?.filter(Kept::is_much) {
            tracing::warn!(dataset = %self.setup.spec.id(), "{kept}");
        }
        Ok(())
    }

    /// Lets the server forget what is safe.
    pub(super) fn release(&mut self, through: Option<Position>) -> Result<(), SourceError> {
        self.released = self.released.max(through);
        let mut forgotten = Vec::new();
        while let Some(about) = self.snapshot.safe(self.released.max(self.after)) {
            self.progress.snapshot.pass(&about);
            forgotten.push(about.number);
        }
        let open = self.snapshot.opened_at();
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
        if self.given != self.released || (!self.snapshot.has_told() && self.moved_on.elapsed() < MOVE_ON_EVERY) {
            return Ok(());
        }
        self.moved_on = Instant::now();
        self.release(None)
    }
}

/// The key and the row that a message tells of a row before.
fn old_row(layout: &Layout, old: &Old<'_>) -> (Vec<u8>, OldRow) {
    match old {
        Old::Key(tuple) => {
            (layout.key_bytes(|place| at(tuple, place)), OldRow::Key(layout.key_row(|place| at(tuple, place))))
        }
        Old::Full(tuple) => {
            (layout.key_bytes(|place| at(tuple, place)), OldRow::Full(layout.row(|place| at(tuple, place))))
        }
    }
}
