//! `information_schema` of a session, as the standard and PostgreSQL have it.
//!
//! What passes through: the tables of [`pg_catalog`](super::catalog), by a question for each view, so that
//! both say the same, and neither what the caller may not see. What PostgreSQL has no view for here is what
//! DataFusion says of itself.

use std::fmt;
use std::sync::{Arc, Weak};

use async_trait::async_trait;
use datafusion::catalog::information_schema::InformationSchemaProvider;
use datafusion::catalog::{CatalogProviderList, SchemaProvider, TableProvider};
use datafusion::common::{Result, internal_datafusion_err};
use datafusion::datasource::ViewTable;
use datafusion::prelude::SessionContext;

/// The standard's name for the schema.
pub(super) const NAME: &str = "information_schema";

/// The views, each with the question that it stands for.
const VIEWS: [(&str, &str); 12] = [
    (
        "schemata",
        "select 'ruam' as catalog_name, nspname as schema_name, 'ruam' as schema_owner, \
         cast(null as text) as default_character_set_catalog, cast(null as text) as default_character_set_schema, \
         cast(null as text) as default_character_set_name, cast(null as text) as sql_path from pg_catalog.pg_namespace",
    ),
    (
        "tables",
        "select 'ruam' as table_catalog, n.nspname as table_schema, c.relname as table_name, \
         case c.relkind when 'r' then 'BASE TABLE' else 'VIEW' end as table_type, \
         cast(null as text) as self_referencing_column_name, cast(null as text) as reference_generation, \
         cast(null as text) as user_defined_type_catalog, cast(null as text) as user_defined_type_schema, \
         cast(null as text) as user_defined_type_name, 'NO' as is_insertable_into, 'NO' as is_typed, \
         cast(null as text) as commit_action from pg_catalog.pg_class c \
         join pg_catalog.pg_namespace n on n.oid = c.relnamespace where c.relkind in ('r', 'v')",
    ),
    (
        "views",
        "select 'ruam' as table_catalog, n.nspname as table_schema, c.relname as table_name, \
         cast(null as text) as view_definition, 'NONE' as check_option, 'NO' as is_updatable, \
         'NO' as is_insertable_into, 'NO' as is_trigger_updatable, 'NO' as is_trigger_deletable, \
         'NO' as is_trigger_insertable_into from pg_catalog.pg_class c \
         join pg_catalog.pg_namespace n on n.oid = c.relnamespace where c.relkind = 'v'",
    ),
    (
        "columns",
        "select 'ruam' as table_catalog, n.nspname as table_schema, c.relname as table_name, a.attname as column_name, \
         cast(a.attnum as int) as ordinal_position, cast(null as text) as column_default, \
         case when a.attnotnull then 'NO' else 'YES' end as is_nullable, \
         format_type(a.atttypid, cast(null as int)) as data_type, cast(null as int) as character_maximum_length, \
         cast(null as int) as character_octet_length, \
         case t.typname when 'numeric' then case when a.atttypmod > 0 then (a.atttypmod - 4) / 65536 end \
         when 'int2' then 16 when 'int4' then 32 when 'int8' then 64 when 'float4' then 24 when 'float8' then 53 end \
         as numeric_precision, \
         case when t.typname = 'numeric' then 10 when t.typname in ('int2', 'int4', 'int8', 'float4', 'float8') then 2 end \
         as numeric_precision_radix, \
         case when t.typname = 'numeric' and a.atttypmod > 0 then (a.atttypmod - 4) % 65536 \
         when t.typname in ('int2', 'int4', 'int8') then 0 end as numeric_scale, \
         case when t.typname like 'time%' then 6 when t.typname = 'date' then 0 end as datetime_precision, \
         cast(null as text) as interval_type, cast(null as int) as interval_precision, \
         cast(null as text) as character_set_name, cast(null as text) as collation_catalog, \
         cast(null as text) as collation_schema, cast(null as text) as collation_name, \
         cast(null as text) as domain_catalog, cast(null as text) as domain_schema, cast(null as text) as domain_name, \
         'ruam' as udt_catalog, 'pg_catalog' as udt_schema, t.typname as udt_name, \
         cast(a.attnum as text) as dtd_identifier, 'NO' as is_self_referencing, 'NO' as is_identity, \
         cast(null as text) as identity_generation, 'NEVER' as is_generated, \
         cast(null as text) as generation_expression, 'NO' as is_updatable \
         from pg_catalog.pg_attribute a join pg_catalog.pg_class c on c.oid = a.attrelid and c.relkind in ('r', 'v') \
         join pg_catalog.pg_namespace n on n.oid = c.relnamespace join pg_catalog.pg_type t on t.oid = a.atttypid",
    ),
    (
        "table_constraints",
        "select 'ruam' as constraint_catalog, n.nspname as constraint_schema, k.conname as constraint_name, \
         'ruam' as table_catalog, n.nspname as table_schema, c.relname as table_name, 'PRIMARY KEY' as constraint_type, \
         'NO' as is_deferrable, 'NO' as initially_deferred, 'YES' as enforced from pg_catalog.pg_constraint k \
         join pg_catalog.pg_class c on c.oid = k.conrelid join pg_catalog.pg_namespace n on n.oid = c.relnamespace",
    ),
    (
        "key_column_usage",
        "select 'ruam' as constraint_catalog, n.nspname as constraint_schema, k.conname as constraint_name, \
         'ruam' as table_catalog, n.nspname as table_schema, c.relname as table_name, a.attname as column_name, \
         cast(a.attnum as int) as ordinal_position, cast(null as int) as position_in_unique_constraint \
         from pg_catalog.pg_constraint k join pg_catalog.pg_class c on c.oid = k.conrelid \
         join pg_catalog.pg_namespace n on n.oid = c.relnamespace \
         join pg_catalog.pg_attribute a on a.attrelid = k.conindid",
    ),
    (
        "constraint_column_usage",
        "select 'ruam' as table_catalog, n.nspname as table_schema, c.relname as table_name, a.attname as column_name, \
         'ruam' as constraint_catalog, n.nspname as constraint_schema, k.conname as constraint_name \
         from pg_catalog.pg_constraint k join pg_catalog.pg_class c on c.oid = k.conrelid \
         join pg_catalog.pg_namespace n on n.oid = c.relnamespace \
         join pg_catalog.pg_attribute a on a.attrelid = k.conindid",
    ),
    (
        "referential_constraints",
        "select 'ruam' as constraint_catalog, '' as constraint_schema, '' as constraint_name, \
         'ruam' as unique_constraint_catalog, '' as unique_constraint_schema, '' as unique_constraint_name, \
         'NONE' as match_option, 'NO ACTION' as update_rule, 'NO ACTION' as delete_rule where false",
    ),
    (
        "table_privileges",
        "select 'ruam' as grantor, session_user as grantee, table_catalog, table_schema, table_name, \
         'SELECT' as privilege_type, 'NO' as is_grantable, 'YES' as with_hierarchy from information_schema.tables",
    ),
    (
        "character_sets",
        "select cast(null as text) as character_set_catalog, cast(null as text) as character_set_schema, \
         'UTF8' as character_set_name, 'UCS' as character_repertoire, 'UTF8' as form_of_use, \
         'ruam' as default_collate_catalog, 'pg_catalog' as default_collate_schema, 'C' as default_collate_name",
    ),
    (
        "sequences",
        "select 'ruam' as sequence_catalog, '' as sequence_schema, '' as sequence_name, 'bigint' as data_type where false",
    ),
    (
        "triggers",
        "select 'ruam' as trigger_catalog, '' as trigger_schema, '' as trigger_name, '' as event_manipulation, \
         '' as event_object_schema, '' as event_object_table where false",
    ),
];

/// The names of the views.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    VIEWS.iter().map(|(name, _)| *name)
}

/// The schema of a session.
pub(super) struct InformationSchema {
    session: Weak<SessionContext>,
}

impl InformationSchema {
    pub(super) fn new(session: &Arc<SessionContext>) -> Self {
        Self { session: Arc::downgrade(session) }
    }
}

#[async_trait]
impl SchemaProvider for InformationSchema {
    fn table_names(&self) -> Vec<String> {
        names().map(str::to_owned).collect()
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>> {
        let session = self.session.upgrade().ok_or_else(|| internal_datafusion_err!("the session has ended"))?;
        let state = session.state();
        let Some((_, question)) = VIEWS.iter().find(|(known, _)| *known == name) else {
            let catalogs: Arc<dyn CatalogProviderList> = state.catalog_list().clone();
            return InformationSchemaProvider::new(catalogs).table(name).await;
        };
        Ok(Some(Arc::new(ViewTable::new(state.create_logical_plan(question).await?, None))))
    }

    fn table_exist(&self, name: &str) -> bool {
        ["df_settings", "routines", "parameters"].contains(&name) || names().any(|known| known == name)
    }
}

impl fmt::Debug for InformationSchema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InformationSchema").finish_non_exhaustive()
    }
}
