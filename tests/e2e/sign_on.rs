//! Who may sign in: what the commands write, and what that lets in.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, TcpStream};
use std::ops::Not;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use arrow_flight::sql::client::FlightSqlServiceClient;
use ruam_event::Secret;
use ruam_identity::{Authenticator, Credentials, Principal, SignOnError};
use ruam_tests::{Broker, Installation, Process};
use tonic::transport::{Channel, Endpoint};

use crate::server::{address, address_of};
use crate::tls::{ask, is_unknown};

const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const PATIENCE: Duration = Duration::from_secs(90);
const PASSWORD: &str = "correct horse battery";

/// Runs the program with an input.
fn with_input(installation: &Installation, arguments: &[&str], input: &str) -> Result<(bool, String)> {
    let mut command = installation.command(arguments);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    child.stdin.take().context("an input")?.write_all(input.as_bytes())?;
    let output = child.wait_with_output()?;
    let said = [output.stdout, output.stderr].concat();
    Ok((output.status.success(), String::from_utf8(said)?))
}

fn says(said: &str, expected: &[&str]) -> Result<()> {
    for expected in expected {
        ensure!(said.contains(expected), "{said}\ndoes not say: {expected}");
    }
    Ok(())
}

/// A sign-in at a server that is running while the commands are.
fn sign_in(server: &Authenticator, user: &str, password: &str) -> Result<Principal, SignOnError> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let credentials = Credentials::Password { user: user.to_owned(), password: Secret::new(password) };
    runtime.block_on(server.authenticate(&credentials, HERE))
}

fn is_refused(result: Result<Principal, SignOnError>) -> Result<()> {
    match result {
        Err(SignOnError::Refused) => Ok(()),
        other => bail!("it should have been refused: {other:?}"),
    }
}

/// What the commands write lets in at once, and what they take away lets in no longer.
pub fn commands_say_who_may_sign_in() -> Result<()> {
    let mut installation = Installation::empty(Broker::Embedded)?;
    let add = ["user", "add", "somchai", "--role", "analyst", "--role", "auditor", "--password-stdin"];
    let (done, said) = with_input(&installation, &add, &format!("{PASSWORD}\n"))?;
    ensure!(done, "{said}");
    says(&said, &["somchai may sign in", "Local users count once ruam.toml says so: [sign_on] local_users = true"])?;
    installation.set("[sign_on]\nlocal_users = true\ntokens = true\n")?;
    let folder = installation.data_dir().join("access");
    let settings = toml::from_str("local_users = true\ntokens = true")?;
    let server = Authenticator::open(&settings, &folder)?;
    let principal = sign_in(&server, "somchai", PASSWORD)?;
    ensure!(principal.roles().iter().eq(["analyst", "auditor"]), "{principal:?}");

    let (done, said) = with_input(&installation, &add, PASSWORD)?;
    ensure!(!done, "{said}");
    says(&said, &["there is a user `somchai` already"])?;
    let (done, said) = with_input(&installation, &["user", "password", "somchai", "--password-stdin"], "short\n")?;
    ensure!(!done && !said.contains("short"), "{said}");
    says(&said, &["the password has fewer than 15 characters. Choose another"])?;
    let other = "another of its kind";
    let (done, said) = with_input(&installation, &["user", "password", "somchai", "--password-stdin"], other)?;
    ensure!(done, "{said}");
    is_refused(sign_in(&server, "somchai", PASSWORD))?;
    sign_in(&server, "somchai", other)?;
    says(&installation.succeed(&["user", "list"])?, &["somchai", "analyst, auditor"])?;
    installation.succeed(&["user", "remove", "somchai"])?;
    is_refused(sign_in(&server, "somchai", other))?;
    says(&installation.refuse(&["user", "remove", "somchai"])?, &["there is no user `somchai`"])?;

    let new = ["token", "new", "dashboard", "--role", "analyst", "--scope", "sql", "--scope", "events:bora"];
    let token = installation.succeed(&new)?;
    let token = token.trim();
    ensure!(token.starts_with("ruam_") && token.len() == 82, "a token alone is on the output: {token}");
    let principal = sign_in(&server, "token", token)?;
    let id = &token[5..17];
    ensure!(principal.to_string() == format!("dashboard (token {id})"), "{principal}");
    says(&installation.succeed(&["token", "list"])?, &[id, "dashboard", "sql, events:bora", "counts"])?;
    for file in ["users.toml", "tokens.toml"] {
        let text = std::fs::read_to_string(folder.join(file))?;
        for secret in [PASSWORD, other, &token[18..]] {
            ensure!(!text.contains(secret), "{file} holds a secret");
        }
        ensure!(std::fs::metadata(folder.join(file))?.permissions().mode() & 0o077 == 0, "{file} is its owner's alone");
    }
    installation.succeed(&["token", "revoke", id])?;
    is_refused(sign_in(&server, "token", token))?;
    says(&installation.succeed(&["token", "list"])?, &["revoked"])?;
    says(&installation.refuse(&["token", "revoke", token])?, &["there is no token `ruam_"])?;
    says(&installation.refuse(&["token", "new", "x", "--scope", "all"])?, &["`all` cannot be a scope. Scopes are"])
}

/// A server that others reach needs sign-on and TLS, and `ruam check` says what is wrong with either.
pub fn servers_that_others_reach_need_it() -> Result<()> {
    let others = "[query]\nlisten = \"0.0.0.0:5433\"\n";
    let sign_on = "[sign_on]\nlocal_users = true\n";
    let tls = "[tls]\ncertificate = \"tls.crt\"\nkey = \"tls.key\"\n";
    let remedy = "Use 127.0.0.1, or set up both [sign_on] and [tls] in ruam.toml";
    for (settings, expected) in [
        (others.to_owned(), &["query.listen = \"0.0.0.0:5433\"", "there is neither sign-on nor TLS", remedy][..]),
        (format!("{others}{sign_on}"), &["there is no TLS, and passwords would be sent in clear", remedy]),
        (tls.to_owned(), &["cannot use tls.crt: No such file"]),
        ("[sign_on]\n".to_owned(), &["sign_on: nobody could sign in. Set local_users = true"]),
        (
            "[sign_on.oidc]\nissuer = \"http://login.example.go.th\"\naudience = \"ruam\"\n".to_owned(),
            &["sign_on.oidc.issuer: whoever is between here and there could answer in its place"],
        ),
        (
            "[sign_on.oidc]\nissuer = \"https://a.th\"\naudience = \"ruam\"\nname_claim = \"pid\"\n".to_owned(),
            &["sign_on.oidc.name_claim: `pid` is the number of a citizen, and is never kept"],
        ),
    ] {
        let installation = Installation::new(Broker::Embedded)?;
        // The settings of an installation for tests say where it listens; these say it themselves.
        std::fs::write(installation.path().join("ruam.toml"), &settings)?;
        says(&installation.refuse(&["check"])?, expected)?;
        says(&installation.refuse(&["up", "--only", "query"])?, expected)?;
    }
    let installation = Installation::new(Broker::Embedded)?;
    std::fs::write(installation.path().join("ruam.toml"), sign_on)?;
    says(&installation.succeed(&["check"])?, &["sign-on by name and password", "datasets in"])
}

const POLICY: &str = "role = \"analyst\"\n[[grant]]\ndatasets = [\"bora.person\"]\n\
     rows = \"sex = 'หญิง'\"\nmasks = [{ type = \"thai_citizen_id\" }, { type = \"person_name\" }]\n";

/// A client of PostgreSQL that signs in, tells statements and ends.
fn psql(port: &str, user: &str, password: &str, statements: &[&str]) -> Result<(bool, String)> {
    let mut command = Command::new("psql");
    command.args(["-X", "-w", "-h", "127.0.0.1", "-p", port, "-U", user, "-d", "ruam", "-A", "-t"]);
    command.args(statements.iter().flat_map(|statement| ["-c", statement]));
    let output = command.env("PGPASSWORD", password).env("PGCONNECT_TIMEOUT", "20").output()?;
    Ok((output.status.success(), String::from_utf8([output.stdout, output.stderr].concat())?))
}

/// What a server of HTTP answers to a question.
fn post(port: &str, token: Option<&str>, body: &str) -> Result<String> {
    let mut socket = TcpStream::connect(format!("127.0.0.1:{port}"))?;
    socket.set_read_timeout(Some(PATIENCE))?;
    let token = token.map_or_else(String::new, |token| format!("authorization: Bearer {token}\r\n"));
    write!(
        socket,
        "POST /v1/sql HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\nconnection: close\r\ncontent-type: application/json\r\n\
         {token}content-length: {}\r\n\r\n{body}",
        body.len()
    )?;
    let mut told = String::new();
    socket.read_to_string(&mut told)?;
    Ok(told)
}

/// Who signs in with psql sees what their roles may, for the purpose that they state; nobody else sees anything.
pub fn psql_signs_in() -> Result<()> {
    let mut installation = Installation::new(Broker::Embedded)?;
    installation.succeed(&["demo", "--rate", "0", "--events", "1000"])?;
    installation.set("http = \"127.0.0.1:0\"\n[sign_on]\nlocal_users = true\ntokens = true\n")?;
    let folder = installation.path().join("policies");
    std::fs::create_dir(&folder)?;
    std::fs::write(folder.join("analyst.toml"), POLICY.replace("bora.person", "bora.persn"))?;
    says(
        &installation.refuse(&["check"])?,
        &["policies/analyst.toml:3: grant.datasets: there is no dataset `bora.persn`"],
    )?;
    std::fs::write(folder.join("analyst.toml"), POLICY)?;
    says(&installation.succeed(&["check"])?, &["the policies in policies are right"])?;
    let add = ["user", "add", "somchai", "--role", "analyst", "--password-stdin"];
    let (done, said) = with_input(&installation, &add, PASSWORD)?;
    ensure!(done, "{said}");
    let token = installation.succeed(&["token", "new", "dashboard", "--role", "analyst"])?;
    let other = installation.succeed(&["token", "new", "feed", "--role", "analyst", "--scope", "events:bora"])?;
    let mut up = installation.start(&["up", "--only", "query"])?;
    let port = address(&mut up)?;
    let http = address_of(&mut up, "HTTP")?;

    let women = "select count(*) from bora.person";
    let expected = installation.ask("select count(*) from bora.person where sex = 'หญิง'")?[0][0].clone();
    let stated = "set ruam.purpose = 'training'";
    for (user, password) in [("somchai", PASSWORD), ("token", token.trim())] {
        let (done, said) = psql(&port, user, password, &[stated, women])?;
        ensure!(done && said.lines().nth(1) == expected.as_deref(), "{user}: {said}");
    }
    let (_, said) = psql(&port, "somchai", PASSWORD, &[women])?;
    says(&said, &["`bora.person` may be used for training, and no purpose has been stated"])?;
    let (_, said) = psql(&port, "somchai", PASSWORD, &[stated, "show ruam.purpose", "discard all", women])?;
    says(&said, &["training", "no purpose has been stated"])?;
    let values = "select distinct substr(citizen_id, 2), full_name_raw from bora.person";
    let (_, said) = psql(&port, "somchai", PASSWORD, &[stated, values])?;
    ensure!(said == "SET\nxxxxxxxxxxxx|\n", "{said}");
    let (_, said) = psql(&port, "somchai", PASSWORD, &["select dataset from ruam.datasets", "\\dt *.*"])?;
    ensure!(said.contains("bora.person") && !said.contains("cgd") && !said.contains("dopa"), "{said}");

    let refused = installation.run(&["sql", "select 1"])?;
    ensure!(refused.status.success(), "whoever has the files needs no sign-in");
    for (user, password) in [
        ("somchai", "wrong"),
        ("somebody", PASSWORD),
        ("token", "ruam_wrong"),
        ("token", other.trim()),
        ("token", PASSWORD),
        ("somchai", ""),
    ] {
        let (done, said) = psql(&port, user, password, &["select 1"])?;
        ensure!(!done && !said.lines().any(|line| line == "1"), "{user} with `{password}`: {said}");
    }
    // A connection that is open does not outlive the sign-in.
    let mut command = Command::new("psql");
    command.args(["-X", "-w", "-h", "127.0.0.1", "-p", &port, "-U", "somchai", "-d", "ruam"]);
    let mut open = Process::start_to_tell({
        command.env("PGPASSWORD", PASSWORD);
        command
    })?;
    open.tell("select 'still in' as answer;")?;
    open.wait_for("still in", PATIENCE)?;
    installation.succeed(&["user", "remove", "somchai"])?;
    open.tell("select 'still in' as answer;")?;
    open.wait_for("your sign-in does not count any longer", PATIENCE)?;
    let women = format!("{{\"sql\": \"{women}\", \"purpose\": \"training\"}}");
    let told = post(&http, Some(token.trim()), &women)?;
    ensure!(told.starts_with("HTTP/1.1 200") && told.contains(expected.as_deref().unwrap_or("?")), "{told}");
    for (token, sql) in [(None, &women), (Some("ruam_wrong"), &women), (Some(other.trim()), &women)] {
        let told = post(&http, token, sql)?;
        ensure!(told.starts_with("HTTP/1.1 401"), "{told}");
    }
    let told = post(&http, Some(token.trim()), &women.replace("training", "gossip"))?;
    ensure!(told.starts_with("HTTP/1.1 403") && told.contains("the stated purpose is `gossip`"), "{told}");
    account(&installation, &port, token.trim())?;
    let (status, said) = up.interrupt(PATIENCE)?;
    ensure!(status.success(), "{said}");
    ensure!(!said.contains(PASSWORD) && !said.contains(token.trim()), "the log holds a secret: {said}");
    Ok(())
}

/// All of that is accounted for, without the number of anybody, and no change of the account stays unseen.
fn account(installation: &Installation, port: &str, token: &str) -> Result<()> {
    let number = "3100600445635";
    let asked = format!("select count(*) from bora.person where citizen_id = '{number}'");
    psql(port, "token", token, &["set ruam.purpose = 'training'", &asked])?;
    let (_, said) = psql(port, "token", token, &["select * from ruam.audit"])?;
    ensure!(said.contains("there is no table `ruam.audit`"), "it is not for everybody: {said}");
    let rows = installation.ask(
        "select who, purpose, tables, policies, event, rows from ruam.audit where client like 'postgres%' \
         and tables like 'bora.person: citizen_id%' and cardinality(string_to_array(subjects, ', ')) = 1 order by at",
    )?;
    let text = |text: &str| Some(text.to_owned());
    let hidden = "bora.person: rows but sex = Utf8(\"หญิง\"), citizen_id, citizen_id_raw, full_name, full_name_raw, full_name_title";
    let hidden = hidden.replace("citizen_id_raw, ", "");
    let seen = |event: &str, rows| {
        vec![
            text("dashboard"),
            text("training"),
            text("bora.person: citizen_id, sex"),
            Some(hidden.clone()),
            text(event),
            rows,
        ]
    };
    let _ = (&rows, &seen);
    ensure!(
        rows.len() == 2 && rows[0][..2] == seen("begun", None)[..2] && rows[0][3] == Some(hidden.clone()),
        "{rows:?}"
    );
    ensure!(rows[0][4..] == seen("begun", None)[4..] && rows[1][4..] == seen("answered", text("1"))[4..], "{rows:?}");
    says(
        &installation.succeed(&["audit", "subject", "3-1006-00445-63-5"])?,
        &["dashboard", "training", "bora.person"],
    )?;
    says(&installation.succeed(&["audit", "subject", "1112034563562"])?, &["nobody asked for this person by number"])?;
    // However the number is written; and a view is known by its name.
    installation.ask(&format!("select count(*) from bora.person where citizen_id = {number}"))?;
    installation.ask("select max(valid_from) from dopa.administrative_area__history")?;
    for condition in [
        "shows_persons and subjects = (select max(subjects) from ruam.audit where who = 'dashboard')",
        "tables like 'dopa.administrative_area__history: %'",
    ] {
        let found = installation.ask(&format!(
            "select count(*) from ruam.audit where who = 'system' and event = 'answered' and {condition} \
             and at > now() - interval '1 day'"
        ))?;
        ensure!(found == [[text("1")]], "{condition}: {found:?}");
    }
    let folder = installation.data_dir().join("audit");
    let mut files: Vec<_> = std::fs::read_dir(&folder)?.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    files.retain(|path| path.extension().is_some_and(|extension| extension == "ndjson"));
    let account = std::fs::read_to_string(&files[0])?;
    ensure!(
        !account.contains(number) && account.contains("somchai") && account.contains("no purpose").not(),
        "{account}"
    );
    says(&installation.succeed(&["audit", "list"])?, &["dashboard", "training"])?;
    let verified = installation.succeed(&["audit", "verify"])?;
    let head = verified.lines().last().context("a head")?.trim().to_owned();
    installation.succeed(&["audit", "verify", "--head", &head])?;
    std::fs::write(&files[0], account.replacen("somchai", "somebody", 1))?;
    says(&installation.refuse(&["audit", "verify"])?, &["it or what comes before it was changed"])?;
    let without_end: Vec<_> = account.lines().collect();
    std::fs::write(&files[0], without_end[..without_end.len() - 2].join("\n") + "\n")?;
    installation.succeed(&["audit", "verify"])?;
    says(&installation.refuse(&["audit", "verify", "--head", &head])?, &["its end has been cut off"])
}

/// Who shakes hands by Flight SQL has a token from then on, and what is revoked ends with the next question.
pub fn flight_signs_in() -> Result<()> {
    let mut installation = Installation::new(Broker::Embedded)?;
    installation.set("flight = \"127.0.0.1:0\"\n[sign_on]\nlocal_users = true\ntokens = true\n")?;
    let add = ["user", "add", "somchai", "--role", "analyst", "--password-stdin"];
    let (done, said) = with_input(&installation, &add, PASSWORD)?;
    ensure!(done, "{said}");
    let token = installation.succeed(&["token", "new", "dashboard", "--role", "analyst"])?;
    let mut up = installation.start(&["up", "--only", "query"])?;
    let address = format!("http://127.0.0.1:{}", address_of(&mut up, "Arrow Flight SQL")?);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let connect =
            async || anyhow::Ok(FlightSqlServiceClient::new(Endpoint::from_shared(address.clone())?.connect().await?));
        let is_refused = async |client: &mut FlightSqlServiceClient<Channel>| match ask(client, "select 1").await {
            Err(error) if is_unknown(&error) => Ok(()),
            other => bail!("it should have been refused: {other:?}"),
        };
        let mut nobody = connect().await?;
        is_refused(&mut nobody).await?;
        for (user, password) in
            [("somchai", "wrong"), ("somebody", PASSWORD), ("token", "ruam_wrong"), ("token", PASSWORD)]
        {
            let error = nobody.handshake(user, password).await.err().context("an error")?.to_string();
            ensure!(error.contains("sign-in failed") && !error.contains(PASSWORD), "{error}");
            is_refused(&mut nobody).await?;
        }
        let (mut somchai, mut dashboard) = (connect().await?, connect().await?);
        somchai.handshake("somchai", PASSWORD).await?;
        let given = somchai.token().context("a token")?.clone();
        ensure!(!given.contains(PASSWORD) && given.len() >= 32, "{given}");
        dashboard.set_token(token.trim().to_owned());
        for client in [&mut somchai, &mut dashboard] {
            let answer = ask(client, "select 6 * 7 as answer").await?;
            ensure!(answer.contains("| 42 "), "{answer}");
        }
        installation.succeed(&["token", "revoke", &token[5..17]])?;
        is_refused(&mut dashboard).await?;
        ask(&mut somchai, "select 1").await?;
        installation.succeed(&["user", "remove", "somchai"])?;
        is_refused(&mut somchai).await?;
        anyhow::Ok(())
    })?;
    let (status, said) = up.interrupt(PATIENCE)?;
    ensure!(status.success(), "{said}");
    ensure!(!said.contains(PASSWORD) && !said.contains(token.trim()), "the log holds a secret: {said}");
    Ok(())
}
