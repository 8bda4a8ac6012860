//! The table that a dataset is read from, and all that has to be in order before it is.
//!
//! What passes through: the catalogue of the server into a [`Table`]. Guaranteed: whatever is not in order is
//! told at once and together, each with the SQL that mends it; a publication and a slot that are not there are
//! made.

use std::collections::BTreeMap;

use ruam_event::spec::UnknownColumns;
use ruam_event::{DatasetSpec, Mode};
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use super::connection::Server;
use super::values::{Kind, kind_of};
use crate::source::SourceError;

/// The first version whose slots bring logical messages, which snapshots need.
const OLDEST: i32 = 140_000;
/// How long a new slot may wait for transactions that have begun before it.
const SLOT_PATIENCE: &str = "10s";

/// Which table, and how it is to be followed.
#[derive(Clone, Debug)]
pub(super) struct Target {
    pub(super) schema: String,
    pub(super) name: String,
    /// The name of both the slot and the publication.
    pub(super) slot: String,
}

/// A table that is in order.
#[derive(Clone, Debug)]
pub(super) struct Table {
    pub(super) oid: u32,
    /// All columns that replication brings.
    pub(super) columns: Vec<Column>,
    /// The columns by which the server tells one row from another, in the order of their index.
    pub(super) key: Vec<String>,
    /// For each type, the one below it where it is a domain.
    pub(super) kinds: BTreeMap<u32, Kind>,
}

/// A column of a table.
#[derive(Clone, Debug)]
pub(super) struct Column {
    pub(super) name: String,
    pub(super) kind: Kind,
}

/// Where a slot stands.
#[derive(Clone, Debug)]
pub(super) struct Slot {
    /// Everything before has been confirmed by whoever reads it.
    pub(super) confirmed: u64,
    /// Whether it was made just now.
    pub(super) is_new: bool,
}

impl Target {
    /// The table as SQL names it.
    pub(super) fn quoted(&self) -> String {
        format!("{}.{}", quoted(&self.schema), quoted(&self.name))
    }
}

/// A name as SQL has it.
pub(super) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A text as SQL has it.
pub(super) fn literal(text: &str) -> String {
    let text = text.replace('\'', "''");
    // A backslash is itself in neither spelling unless it is said to be.
    if text.contains('\\') { format!("E'{}'", text.replace('\\', "\\\\")) } else { format!("'{text}'") }
}

/// What is not in order, each with what mends it.
#[derive(Default)]
struct Findings(Vec<(String, String)>);

impl Findings {
    fn add(&mut self, problem: impl Into<String>, remedy: impl Into<String>) {
        self.0.push((problem.into(), remedy.into()));
    }

    fn told(self, server: &Server) -> Result<(), SourceError> {
        if self.0.is_empty() {
            return Ok(());
        }
        let (problems, remedies): (Vec<_>, Vec<_>) = self.0.into_iter().unzip();
        Err(server.refused(problems.join("; "), remedies.join("; ")))
    }
}

/// Looks whether a table can be followed, and how its rows look.
///
/// # Errors
/// Everything that is not in order, with the SQL that mends it.
pub(super) async fn examine(
    server: &Server,
    client: &Client,
    target: &Target,
    spec: &DatasetSpec,
) -> Result<Table, SourceError> {
    let failed = |error: tokio_postgres::Error| server.failed(&error);
    let mut findings = Findings::default();
    let row = client.query_one(SERVER, &[]).await.map_err(failed)?;
    let (version, wal_level, may_replicate, is_standby): (i32, String, bool, bool) =
        (row.get(0), row.get(1), row.get(2), row.get(3));
    if version < OLDEST {
        findings.add(format!("its version is {}, before 14", version / 10_000), "Upgrade it to 14 or later");
    }
    if is_standby {
        findings.add("it is a standby", "Name the primary in its connection");
    }
    if wal_level != "logical" {
        findings.add(
            format!("wal_level is {wal_level}"),
            "Run as a superuser, and restart the server: ALTER SYSTEM SET wal_level = 'logical'",
        );
    }
    if !may_replicate {
        let user = quoted(server.user());
        findings.add(format!("{user} may not replicate"), format!("Run as a superuser: ALTER ROLE {user} REPLICATION"));
    }
    let found = client.query_opt(TABLE, &[&target.schema, &target.name]).await.map_err(failed)?;
    let Some(found) = found else {
        findings.add(
            format!("there is no table {}", target.quoted()),
            format!("Correct source.with.table in {}, or create the table", spec.path()),
        );
        findings.told(server)?;
        return Err(server.unreachable("it has no such table"));
    };
    let (oid, relkind, identity, may_read, has_usage): (u32, String, String, bool, bool) =
        (found.get(0), found.get(1), found.get(2), found.get(3), found.get(4));
    let has_children: bool = found.get(5);
    if relkind != "r" && relkind != "p" {
        findings.add(
            format!("{} is no table", target.quoted()),
            format!("Name a table, not a view or the like, in source.with.table of {}", spec.path()),
        );
    }
    if has_children {
        findings.add(
            format!("other tables inherit from {}, and their rows would be taken for its own", target.quoted()),
            "Follow each of them as a dataset, or make them partitions of it",
        );
    }
    if !may_read || !has_usage {
        findings.add(
            format!("{} may not be read by {}", target.quoted(), quoted(server.user())),
            format!(
                "Run as its owner: GRANT USAGE ON SCHEMA {} TO {user}; GRANT SELECT ON {} TO {user}",
                quoted(&target.schema),
                target.quoted(),
                user = quoted(server.user())
            ),
        );
    }
    let table = columns(server, client, target, spec, oid, &identity, &mut findings).await?;
    publication(server, client, target, &mut findings).await?;
    findings.told(server)?;
    Ok(table)
}

const SERVER: &str = "select current_setting('server_version_num')::int, current_setting('wal_level'), \
    (select rolsuper or rolreplication from pg_roles where rolname = current_user) \
    or exists (select from pg_roles where rolname = 'rds_replication' and pg_has_role(oid, 'member')), \
    pg_is_in_recovery()";
const TABLE: &str = "select c.oid, c.relkind::text, c.relreplident::text, has_table_privilege(c.oid, 'select'), \
    has_schema_privilege(n.oid, 'usage'), \
    c.relkind = 'r' and exists (select from pg_inherits i where i.inhparent = c.oid) \
    from pg_class c join pg_namespace n on n.oid = c.relnamespace where n.nspname = $1 and c.relname = $2";
/// Columns, with the type below domains and the place in the replica identity or, where that is all of the row,
/// in the primary key.
const COLUMNS: &str = "select a.attname::text, a.atttypid, {base}, a.attgenerated <> '', \
    (select array_position(i.indkey::int2[], a.attnum) from pg_index i where i.indrelid = a.attrelid \
     and case $2 when 'i' then i.indisreplident else i.indisprimary end) \
    from pg_attribute a where a.attrelid = $1 and a.attnum > 0 and not a.attisdropped order by a.attnum";

/// The type below a domain, and below the domain below that, as SQL; of any other type, that itself.
pub(super) fn base_of(oid: &str) -> String {
    format!(
        "(with recursive base(oid, below) as (\
            select t.oid, t.typbasetype from pg_type t where t.oid = {oid} \
            union all select t.oid, t.typbasetype from pg_type t join base on t.oid = base.below) \
        select oid from base where below = 0)"
    )
}

async fn columns(
    server: &Server,
    client: &Client,
    target: &Target,
    spec: &DatasetSpec,
    oid: u32,
    identity: &str,
    findings: &mut Findings,
) -> Result<Table, SourceError> {
    let sql = COLUMNS.replace("{base}", &base_of("a.atttypid"));
    let rows = client.query(&sql, &[&oid, &identity]).await.map_err(|error| server.failed(&error))?;
    let (mut columns, mut kinds, mut key, mut generated) = (Vec::new(), BTreeMap::new(), Vec::new(), Vec::new());
    for row in rows {
        let (name, type_oid, base): (String, u32, u32) = (row.get(0), row.get(1), row.get(2));
        let (is_generated, place): (bool, Option<i32>) = (row.get(3), row.get(4));
        let kind = kind_of(base);
        kinds.insert(type_oid, kind);
        if is_generated {
            generated.push(name);
            continue;
        }
        if let Some(place) = place {
            key.push((place, name.clone()));
        }
        columns.push(Column { name, kind });
    }
    key.sort();
    let mut key: Vec<_> = key.into_iter().map(|(_, name)| name).collect();
    let is_full = identity == "f";
    let declared = spec.key();
    let tells_key = is_full || (identity != "n" && !key.is_empty() && declared.iter().all(|name| key.contains(name)));
    if spec.mode == Mode::Upsert && !tells_key {
        findings.add(
            format!(
                "updates and deletes of {} do not tell the key ({}) of the row they concern",
                target.quoted(),
                declared.join(", ")
            ),
            format!(
                "Run as its owner: ALTER TABLE {table} ADD PRIMARY KEY ({key}), or, where that cannot be: ALTER TABLE {table} REPLICA IDENTITY FULL",
                table = target.quoted(),
                key = declared.iter().map(|name| quoted(name)).collect::<Vec<_>>().join(", ")
            ),
        );
    }
    if key.is_empty() {
        key = declared;
    }
    if key.is_empty() {
        findings.add(
            format!("{} has no primary key, by which its rows could be read in parts", target.quoted()),
            format!("Add a primary key, or key = [\"column\", ...] to {}", spec.path()),
        );
    }
    let has = |name: &str| columns.iter().any(|column| column.name == name);
    let missing: Vec<_> = spec.columns.iter().filter(|column| !has(column.name())).collect();
    let is_needed = |column: &&ruam_event::ColumnSpec| column.required || spec.is_key(column.name());
    let (missing, absent): (Vec<_>, Vec<_>) = missing.into_iter().partition(is_needed);
    let [missing, absent] =
        [missing, absent].map(|columns| columns.into_iter().map(ruam_event::ColumnSpec::name).collect::<Vec<_>>());
    if !absent.is_empty() {
        tracing::warn!(dataset = %spec.id(), "{} has no columns {}: they stay empty", target.quoted(), absent.join(", "));
    }
    if !missing.is_empty() {
        let why = match generated.iter().any(|name| missing.contains(&name.as_str())) {
            true => ", or the server makes them itself and does not replicate them",
            false => "",
        };
        findings.add(
            format!("{} has no columns {}{why}", target.quoted(), missing.join(", ")),
            format!("Correct their names in {}, or declare them not required there", spec.path()),
        );
    }
    let is_declared = |name: &&str| spec.columns.iter().any(|column| column.name() == *name);
    let names = columns.iter().map(|column| column.name.as_str());
    let undeclared: Vec<_> = names.filter(|name| !is_declared(name)).collect();
    if !undeclared.is_empty() && spec.unknown_columns == UnknownColumns::Reject {
        findings.add(
            format!("the dataset does not declare the columns {} of {}", undeclared.join(", "), target.quoted()),
            format!("Declare them in {}, or leave them unread by unknown_columns = \"ignore\" there", spec.path()),
        );
    }
    Ok(Table { oid, columns, key, kinds })
}

/// Looks after the publication, and makes it where there is none.
async fn publication(
    server: &Server,
    client: &Client,
    target: &Target,
    findings: &mut Findings,
) -> Result<(), SourceError> {
    let create = format!(
        "CREATE PUBLICATION {} FOR TABLE {} WITH (publish_via_partition_root = true)",
        quoted(&target.slot),
        target.quoted()
    );
    let failed = |error: tokio_postgres::Error| server.failed(&error);
    let sql = "select pubinsert and pubupdate and pubdelete and pubtruncate, \
        exists (select from pg_publication_tables t where t.pubname = p.pubname and t.schemaname = $2 and t.tablename = $3) \
        from pg_publication p where p.pubname = $1";
    let found = client.query_opt(sql, &[&target.slot, &target.schema, &target.name]).await.map_err(failed)?;
    let Some(found) = found else {
        return match client.batch_execute(&create).await {
            Ok(()) => Ok(()),
            // That there is no table, or no right to it, is told already.
            Err(error) if error.code() == Some(&SqlState::INSUFFICIENT_PRIVILEGE) => {
                findings.add(
                    format!("there is no publication of {}, and making one is not allowed", target.quoted()),
                    format!("Run as the owner of the table: {create}"),
                );
                Ok(())
            }
            Err(error) if error.code() == Some(&SqlState::DUPLICATE_OBJECT) => Ok(()),
            Err(error) => Err(failed(error)),
        };
    };
    let (publishes_all, has_table): (bool, bool) = (found.get(0), found.get(1));
    let name = quoted(&target.slot);
    if !publishes_all {
        findings.add(
            format!("publication {name} leaves out some kinds of changes"),
            format!("Run as its owner: ALTER PUBLICATION {name} SET (publish = 'insert, update, delete, truncate')"),
        );
    }
    if !has_table {
        findings.add(
            format!("publication {name} does not have {}", target.quoted()),
            format!("Run as its owner: ALTER PUBLICATION {name} ADD TABLE {}", target.quoted()),
        );
    }
    Ok(())
}

/// Looks after the slot; makes it where there is none, if `may_create`.
///
/// # Errors
/// Where it is another's, has been lost, or is gone though something was read of it.
pub(super) async fn slot(
    server: &Server,
    client: &Client,
    target: &Target,
    may_create: bool,
    start_over: &str,
) -> Result<Slot, SourceError> {
    let failed = |error: tokio_postgres::Error| server.failed(&error);
    let sql = "select coalesce(plugin = 'pgoutput' and database = current_database(), false), \
        coalesce(wal_status, ''), (confirmed_flush_lsn - '0/0')::text from pg_replication_slots where slot_name = $1";
    let name = &target.slot;
    if let Some(found) = client.query_opt(sql, &[name]).await.map_err(failed)? {
        let (is_ours, wal_status, confirmed): (bool, String, Option<String>) =
            (found.get(0), found.get(1), found.get(2));
        if !is_ours {
            return Err(server.refused(
                format!("the replication slot {name} belongs to another plugin or database"),
                "Name another by source.with.slot",
            ));
        }
        if wal_status == "lost" {
            return Err(server.refused(
                format!("it has deleted changes that the slot {name} had not brought yet (max_slot_wal_keep_size)"),
                format!("Run: SELECT pg_drop_replication_slot('{name}'); then {start_over}"),
            ));
        }
        let confirmed = confirmed.and_then(|lsn| lsn.parse().ok()).unwrap_or(0);
        return Ok(Slot { confirmed, is_new: false });
    }
    if !may_create {
        return Err(server.refused(
            format!(
                "the replication slot {name} is gone, and with it the changes since it was read last: it was dropped, or this is another server"
            ),
            format!("Name the right server in its connection; or, to read the whole table again, {start_over}"),
        ));
    }
    client.batch_execute(&format!("set statement_timeout = '{SLOT_PATIENCE}'")).await.map_err(failed)?;
    let made = client
        .query_one("select (lsn - '0/0')::text from pg_create_logical_replication_slot($1, 'pgoutput')", &[name])
        .await;
    client.batch_execute("reset statement_timeout").await.map_err(failed)?;
    match made {
        Ok(row) => Ok(Slot { confirmed: row.get::<_, String>(0).parse().unwrap_or(0), is_new: true }),
        Err(error) if error.code() == Some(&SqlState::QUERY_CANCELED) => Err(server
            .unreachable("a slot cannot be made while transactions that have begun before are open; waiting for them")),
        Err(error) if error.code() == Some(&SqlState::CONFIGURATION_LIMIT_EXCEEDED) => Err(server.refused(
            "all replication slots are in use",
            "Run as a superuser, and restart the server: ALTER SYSTEM SET max_replication_slots = 20",
        )),
        Err(error) => Err(failed(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_texts_are_quoted() {
        let target = Target { schema: "public".into(), name: "a\"b".into(), slot: "s".into() };
        assert_eq!(target.quoted(), "\"public\".\"a\"\"b\"");
        assert_eq!(literal("it's"), "'it''s'");
        assert_eq!(literal("a\\b'"), "E'a\\\\b'''");
    }
}
