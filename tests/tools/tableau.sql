-- Tableau, by the ODBC driver of PostgreSQL: its settings, and the tables, columns and keys of its pane.

SET DateStyle = 'ISO'

SET extra_float_digits = 2

show transaction_isolation

select oid, typbasetype from pg_type where typname = 'lo'

-- reads: relname, nspname, relkind
-- finds: person | bora | r
-- finds: administrative_area__history | dopa | v
select relname, nspname, relkind from pg_catalog.pg_class c, pg_catalog.pg_namespace n where relkind in ('r', 'v', 'm', 'f', 'p') and nspname not in ('pg_catalog', 'information_schema', 'pg_toast', 'pg_temp_1') and n.oid = relnamespace order by nspname, relname

-- reads: nspname
-- finds: bora
select nspname from pg_catalog.pg_namespace n where nspname not in ('pg_catalog', 'information_schema', 'pg_toast', 'pg_temp_1') order by nspname

-- reads: nspname, relname, attname, atttypid, typname, attnum
-- finds: bora | person | citizen_id | 25 | text | 1
-- finds: bora | person | birth_date | 1082 | date
select n.nspname, c.relname, a.attname, a.atttypid, t.typname, a.attnum, a.attlen, a.atttypmod, a.attnotnull, c.relhasrules, c.relkind, c.oid, pg_get_expr(d.adbin, d.adrelid), case t.typtype when 'd' then t.typbasetype else 0 end, t.typtypmod, 0, attidentity, c.relhassubclass from (((pg_catalog.pg_class c inner join pg_catalog.pg_namespace n on n.oid = c.relnamespace and c.relname = E'person' and n.nspname = E'bora') inner join pg_catalog.pg_attribute a on (not a.attisdropped) and a.attnum > 0 and a.attrelid = c.oid) inner join pg_catalog.pg_type t on t.oid = a.atttypid) left outer join pg_attrdef d on a.atthasdef and d.adrelid = a.attrelid and d.adnum = a.attnum order by n.nspname, c.relname, attnum

-- reads: attname, attnum, relname, nspname
-- finds: citizen_id | 1 | person_pkey | bora | person
select ta.attname, ia.attnum, ic.relname, n.nspname, tc.relname from pg_catalog.pg_attribute ta, pg_catalog.pg_attribute ia, pg_catalog.pg_class tc, pg_catalog.pg_index i, pg_catalog.pg_namespace n, pg_catalog.pg_class ic where tc.relname = 'person' AND n.nspname = 'bora' AND tc.oid = i.indrelid AND n.oid = tc.relnamespace AND i.indisprimary = 't' AND ia.attrelid = i.indexrelid AND ta.attrelid = i.indrelid AND ta.attnum = i.indkey[ia.attnum-1] AND (NOT ta.attisdropped) AND (NOT ia.attisdropped) AND ic.oid = i.indexrelid order by ia.attnum

-- finds: 1
SELECT 1 AS "COL"

BEGIN

DECLARE "SQL_CUR1" CURSOR FOR SELECT "person"."sex" AS "sex", COUNT(*) AS "cnt" FROM "bora"."person" "person" GROUP BY 1

-- reads: sex, cnt
FETCH 2048 IN "SQL_CUR1"

CLOSE "SQL_CUR1"

COMMIT
