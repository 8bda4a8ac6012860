//! What each role sees, on each way to a table.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use futures::TryStreamExt;
use ruam_lake::Lake;
use ruam_query::{Caller, Engine, EngineSettings, Policies, PseudonymKey, Session};
use ruam_tests::tables::values;
use ruam_tests::{Broker, Installation, datasets};

type Rows = Vec<Vec<Option<String>>>;

const CLEAR: &str = "role = \"clear\"\n[[grant]]\ndatasets = [\"*\"]\npurpose = \"any\"\n
[[grant]]\ndatasets = [\"*\"]\npurpose = \"any\"\nparts = [\"rejects\"]";
const BANGKOK: &str = "role = \"bangkok\"\n[[grant]]\ndatasets = [\"dopa.*\"]\nrows = \"code like '10%'\"";
const MASKED: &str = "role = \"masked\"\n[[grant]]\ndatasets = [\"dopa.administrative_area\"]\n\
     masks = [{ type = \"thai_text\", with = \"null\" }, { column = \"parent_code\" }, { type = \"be_date\" }, \
     { column = \"name_en\", with = \"pseudonym\" }]";
const BOUND: &str =
    "role = \"bound\"\n[[grant]]\ndatasets = [\"dopa.*\"]\npurpose = \"stated\"\n[limits]\nconcurrent = 1";

const READER: &str = "role = \"reader\"\n[[grant]]\ndatasets = [\"dopa.*\"]\n[limits]\nread_mb = 1";
const LIMITED: &str = "role = \"limited\"\n[[grant]]\ndatasets = [\"dopa.*\"]\n[limits]\nrows = 100\nconcurrent = 1";

/// The ways to the table of areas.
const PATHS: [&str; 9] = [
    "dopa.administrative_area",
    "dopa.administrative_area__changes",
    "dopa.administrative_area__history",
    "dopa.administrative_area timestamp as of now()",
    "dopa.administrative_area__changes version as of {changes}",
    "table_changes('dopa.administrative_area', 0)",
    "table_changes('dopa.administrative_area__changes', 0)",
    "(with areas as (select * from dopa.administrative_area) select * from areas)",
    "(select * from dopa.administrative_area union all select * from dopa.administrative_area)",
];

fn engine(installation: &Installation) -> Result<Engine> {
    engine_with(installation, &[CLEAR, BANGKOK, MASKED, BOUND, LIMITED, READER])
}

fn engine_with(installation: &Installation, policies: &[&str]) -> Result<Engine> {
    let of_demo = datasets::ALL.iter().map(|name| datasets::queried(datasets::spec(name, None)?));
    let datasets = of_demo.collect::<Result<Vec<_>>>()?;
    let files: Vec<_> = policies.iter().map(|text| ("policies/a.toml".to_owned(), (*text).to_owned())).collect();
    let policies = Policies::read(&files, &datasets, &PseudonymKey::new(vec![7; 32]));
    let policies = policies.map_err(|mistakes| anyhow::anyhow!("{mistakes:?}"))?;
    let lake = Lake::open(&installation.data_dir().join("lake").to_string_lossy(), &BTreeMap::new())?;
    Ok(Engine::new(lake, datasets, policies, EngineSettings::default())?)
}

fn session(engine: &Engine, roles: &[&str]) -> Result<Session> {
    let caller = match roles {
        ["system"] => Caller::system("test"),
        roles => Caller::new("somebody", roles.iter().map(|role| (*role).to_owned()), "test"),
    };
    Ok(engine.session(caller)?)
}

async fn ask(session: &Session, sql: &str) -> Result<Rows> {
    let batches: Vec<_> = session.query(sql).await?.try_collect().await?;
    values(&batches)
}

async fn refusal(session: &Session, sql: &str) -> Result<String> {
    match ask(session, sql).await {
        Ok(rows) => anyhow::bail!("`{sql}` is answered: {:?}", rows.first()),
        Err(error) => Ok(format!("{error:#}")),
    }
}

pub fn each_role_sees_what_it_may_on_each_path() -> Result<()> {
    let installation = Installation::new(Broker::Embedded)?;
    installation.succeed(&["demo", "--rate", "0", "--events", "300"])?;
    let runtime = tokio::runtime::Runtime::new()?;
    let engine = engine(&installation)?;
    runtime.block_on(async {
        let system = session(&engine, &["system"])?;
        let newest = ask(
            &system,
            "select max(version) from ruam.versions where table_name = 'dopa.administrative_area__changes'",
        )
        .await?;
        let newest = newest[0][0].clone().unwrap_or_default();
        for path in PATHS {
            let path = path.replace("{changes}", &newest);
            each_role(&engine, &system, &path).await?;
        }
        conditions(&installation, &system).await?;
        what_is_not_granted(&engine, &system).await?;
        purposes(&engine).await?;
        limits(&engine).await?;
        plans_and_errors(&engine).await
    })
}

/// What a role is told is what the system is told of just what the role may see.
async fn each_role(engine: &Engine, system: &Session, path: &str) -> Result<()> {
    let all = "code, name_th, name_th_raw, name_en, parent_code, abolished_on";
    let masked = |clear: &str| {
        format!(
            "code, case when {clear} then name_th end, case when {clear} then name_th_raw end, \
             case when {clear} then name_en else {{en}} end, case when {clear} then parent_code else substr(parent_code, 1, 2) end, \
             case when {clear} then abolished_on else date_trunc('year', abolished_on)::date end"
        )
    };
    let bangkok = "code like '10%'";
    for (roles, columns, rows) in [
        (&["clear"][..], all.to_owned(), "true"),
        (&["bangkok"][..], all.to_owned(), bangkok),
        (&["masked"][..], masked("false"), "true"),
        (&["bangkok", "masked"][..], masked(bangkok), "true"),
        (&["bangkok", "clear"][..], all.to_owned(), "true"),
    ] {
        let caller = session(engine, roles)?;
        let fail = |what: &str, seen: &Rows, expected: &Rows| {
            let differ = seen.iter().zip(expected).find(|(seen, expected)| seen != expected);
            anyhow::anyhow!(
                "{roles:?} on {path}, {what}: {} rows instead of {}, {differ:?}",
                seen.len(),
                expected.len()
            )
        };
        // Pseudonyms cannot be told beforehand: each is of one name, and is no name.
        let (all, columns) = (
            all.replace("name_en, ", ""),
            columns.split(", case when").filter(|part| !part.contains("{en}")).collect::<Vec<_>>().join(", case when"),
        );
        let columns = columns.replace("name_en, ", "");
        let order = "order by 1, 2, 3, 4, 5";
        let seen = ask(&caller, &format!("select {all} from {path} {order}")).await?;
        let expected = ask(system, &format!("select {columns} from {path} where {rows} {order}")).await?;
        ensure!(seen == expected && !seen.is_empty(), fail("rows", &seen, &expected));
        let figures = "count(*), count(name_th), min(code), max(code), count(distinct name_en)";
        let seen = ask(&caller, &format!("select {figures} from {path}")).await?;
        let none = if roles == ["masked"] { "0" } else { "count(name_th)" };
        let figures = match roles {
            ["bangkok", "masked"] => figures
                .replace("count(name_th)", &format!("count(name_th) filter (where {bangkok})"))
                .replace("count(distinct name_en)", "{}"),
            _ => figures.replace("count(name_th)", none),
        };
        if !figures.contains("{}") {
            let expected = ask(system, &format!("select {figures} from {path} where {rows}")).await?;
            ensure!(seen == expected, fail("figures", &seen, &expected));
        }
        let seen = ask(
            &caller,
            &format!(
                "select count(*) from {path} where code = '500101' or name_th = 'กรุงเทพมหานคร' or name_en = 'Bangkok'"
            ),
        )
        .await?;
        let condition = match roles {
            ["bangkok"] => "name_th = 'กรุงเทพมหานคร' or name_en = 'Bangkok'",
            ["masked"] => "code = '500101'",
            _ => "code = '500101' or name_th = 'กรุงเทพมหานคร' or name_en = 'Bangkok'",
        };
        let expected = ask(system, &format!("select count(*) from {path} where ({condition}) and {rows}")).await?;
        ensure!(seen == expected, fail("a condition", &seen, &expected));
    }
    let masked = session(engine, &["masked"])?;
    let names = ask(&masked, &format!("select distinct name_en from {path} where name_en is not null")).await?;
    ensure!(
        names
            .iter()
            .flatten()
            .flatten()
            .all(|name| name.len() == 32 && name.bytes().all(|byte| byte.is_ascii_hexdigit()))
    );
    Ok(())
}

/// Whatever the condition of a policy is, also one that is true of all rows: what it is null for is hidden.
async fn conditions(installation: &Installation, system: &Session) -> Result<()> {
    for condition in [
        "code >= '0'",
        "code not in ('10', 'x')",
        "level <> 'x'",
        "not (code < '0')",
        "code <> 'x' and code like '%'",
        "parent_code >= ''",
        "abolished_on < date '9999-01-01'",
        "abolished_on >= date '1000-01-01' or code >= '0'",
        "code not in ('x', null)",
        "code > null or code >= '0'",
        "level <> 'province' or code < 'a'",
    ] {
        let policy = format!("role = \"some\"\n[[grant]]\ndatasets = [\"dopa.*\"]\nrows = \"{condition}\"");
        let engine = engine_with(installation, &[&policy])?;
        for path in [PATHS[0], PATHS[3], PATHS[5]] {
            let seen = ask(&session(&engine, &["some"])?, &format!("select count(*), max(code) from {path}")).await?;
            let sql = format!("select count(*), max(code) from {path} where {condition}");
            let expected = ask(system, &sql).await?;
            ensure!(seen == expected, "{condition} on {path}: {seen:?} instead of {expected:?}");
        }
    }
    Ok(())
}

async fn what_is_not_granted(engine: &Engine, system: &Session) -> Result<()> {
    let bangkok = session(engine, &["bangkok"])?;
    for sql in [
        "select * from bora.person",
        "select * from bora.person__rejects",
        "select * from dopa.administrative_area__rejects",
        "select * from table_changes('bora.person', 0)",
        "select * from table_changes('dopa.administrative_area__rejects', 0)",
        "select * from bora.person version as of 0",
        "select * from ruam.bora.person",
    ] {
        let said = refusal(&bangkok, sql).await?;
        ensure!(said.contains("there is no table") || said.contains("is not a table"), "{sql}: {said}");
        ensure!(!said.contains("`bora") || sql.contains("bora"), "{sql}: {said}");
        ensure!(!said.contains("Did you mean `bora") && !said.contains("__rejects`?"), "{sql}: {said}");
    }
    for sql in [
        "select dataset from ruam.datasets",
        "select distinct dataset from ruam.columns",
        "select distinct dataset from ruam.versions",
        "select distinct table_schema || '.' || table_name from information_schema.tables where table_schema not in ('ruam', 'information_schema')",
        "select distinct table_schema || '.' || table_name from information_schema.columns where table_schema not in ('ruam', 'information_schema')",
    ] {
        let seen = ask(&bangkok, sql).await?;
        ensure!(!seen.is_empty(), "{sql}");
        let known = |row: &Vec<Option<String>>| {
            row[0].as_deref().is_some_and(|name| name.starts_with("dopa.administrative_area"))
        };
        ensure!(seen.iter().all(known), "{sql}: {seen:?}");
    }
    let rejects = ask(&bangkok, "select count(*) from ruam.rejects").await?;
    ensure!(rejects[0][0].as_deref() == Some("0"), "{rejects:?}");
    let all = ask(&session(engine, &["clear"])?, "select count(*) from ruam.rejects").await?;
    ensure!(all == ask(system, "select count(*) from ruam.rejects").await? && all != rejects, "{all:?}");
    // How many records came tells of those that are hidden.
    let counts = ask(&bangkok, "select count(*), count(records) from ruam.versions").await?;
    ensure!(counts[0][0].as_deref() != Some("0") && counts[0][1].as_deref() == Some("0"), "{counts:?}");
    let counts = ask(&session(engine, &["masked"])?, "select count(records) from ruam.versions").await?;
    ensure!(counts[0][0].as_deref() != Some("0"), "{counts:?}");
    let nobody = session(engine, &["nobody"])?;
    ensure!(ask(&nobody, "select * from ruam.datasets").await?.is_empty());
    Ok(())
}

async fn purposes(engine: &Engine) -> Result<()> {
    let bound = session(engine, &["bound"])?;
    let sql = "select count(*) from dopa.administrative_area";
    let said = refusal(&bound, sql).await?;
    ensure!(said.contains("may be used for reference, open_data, training, and no purpose has been stated. State one: set ruam.purpose = 'reference'"), "{said}");
    bound.state_purpose(Some("gossip".to_owned()));
    let said = refusal(&bound, sql).await?;
    ensure!(said.contains("the stated purpose is `gossip`"), "{said}");
    bound.state_purpose(Some("training".to_owned()));
    let seen = ask(&bound, sql).await?;
    ensure!(seen[0][0].as_deref() != Some("0"));
    // A view is a part of the question, and does not wait for a turn of its own.
    let seen = ask(&bound, "select count(*) from dopa.administrative_area__history").await?;
    ensure!(seen[0][0].as_deref() != Some("0"));
    bound.state_purpose(None);
    refusal(&bound, sql).await?;
    Ok(())
}

async fn limits(engine: &Engine) -> Result<()> {
    let limited = session(engine, &["limited"])?;
    let sql = "select code from dopa.administrative_area";
    let said = refusal(&limited, sql).await?;
    ensure!(said.contains("more than the 100 rows that you may have at a time"), "{said}");
    let most = ask(&limited, &format!("{sql} limit 100")).await?;
    ensure!(most.len() == 100);
    // Whoever has more roles may have more.
    let both = session(engine, &["limited", "clear"])?;
    ensure!(ask(&both, sql).await?.len() > 100);
    // One answer at a time: the second begins when the first is dropped.
    let mut first = limited.query(&format!("{sql} limit 10")).await?;
    ensure!(first.try_next().await?.is_some());
    let other = session(engine, &["limited"])?;
    let mut second = other.query(&format!("{sql} limit 10")).await?;
    let mut next = Box::pin(second.try_next());
    ensure!(futures::poll!(&mut next).is_pending(), "two answers at a time");
    drop(first);
    ensure!(next.await?.is_some());
    // What a condition rules out is not read, nor are columns that are not asked for.
    let reader = session(engine, &["reader"])?;
    let areas = "dopa.administrative_area";
    let all = format!("select * from {areas}");
    let often = |what: &str| (0..40).map(|_| what.to_owned()).collect::<Vec<_>>().join(" union all ");
    let said = refusal(&reader, &often(&all)).await?;
    ensure!(said.contains("the answer reads more than the 1 MB of files that yours may: what it asks for"), "{said}");
    ask(&reader, &all).await?;
    ask(&reader, &often(&format!("{all} where code = '9999999999'"))).await?;
    ensure!(ask(&session(engine, &["reader", "clear"])?, &often(&all)).await?.len() > 40);
    Ok(())
}

/// Neither how a question is carried out nor how it fails tells of what is hidden.
async fn plans_and_errors(engine: &Engine) -> Result<()> {
    let (bangkok, masked) = (session(engine, &["bangkok"])?, session(engine, &["masked"])?);
    for sql in [
        "explain select * from dopa.administrative_area where code > '5'",
        "explain analyze select * from dopa.administrative_area",
        "explain verbose select (select max(code) from dopa.administrative_area)",
        "explain format tree select * from table_changes('dopa.administrative_area', 0)",
    ] {
        for caller in [&bangkok, &masked] {
            let said = refusal(caller, sql).await?;
            ensure!(said.contains("cannot be explained"), "{sql}: {said}");
        }
    }
    ask(&session(engine, &["clear"])?, "explain analyze select * from dopa.administrative_area").await?;
    // A row that is hidden cannot make a question fail.
    for condition in [
        "1 / (code::int - 500101) >= 0 or true",
        "case when code like '50%' then cast(name_th as int) > 0 else true end",
        "cast(code as int) / (case when code = '5001' then 0 else 1 end) > 0",
    ] {
        ask(&bangkok, &format!("select count(*) from dopa.administrative_area where {condition}")).await?;
    }
    // Nor can what is masked be told by how a question fails.
    for guess in ["กรุงเทพมหานคร", "ไม่มี"] {
        let sql = format!(
            "select count(1 / (case when name_th = '{guess}' then 0 else 1 end)) from dopa.administrative_area"
        );
        ask(&masked, &sql).await?;
    }
    Ok(())
}
