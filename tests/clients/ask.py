"""Asks the same questions with clients of Python, by each protocol, and prints what each is told.

Called with the ports of PostgreSQL's protocol, Arrow Flight SQL and HTTP, and a file of questions: a list of
statements, each with its parameters as [type, text]. Prints one line of JSON for each client: its name, and the rows of each answer as text.
"""

import asyncio
import datetime
import decimal
import io
import json
import re
import sys
import urllib.error
import urllib.request

import adbc_driver_flightsql.dbapi
import adbc_driver_manager
import asyncpg
import psycopg
import pyarrow.ipc
import sqlalchemy

TYPES = {"text": str, "integer": int, "decimal": decimal.Decimal, "date": datetime.date.fromisoformat}
SERVER = {"host": "127.0.0.1", "port": int(sys.argv[1]), "user": "ruam"}

FLIGHT = f"grpc://127.0.0.1:{sys.argv[2]}"
HTTP = f"http://127.0.0.1:{sys.argv[3]}"

with open(sys.argv[4], encoding="utf-8") as file:
    QUESTIONS = [(sql, [TYPES[kind](text) for kind, text in parameters]) for sql, parameters in json.load(file)]


def refused(ask, expected):
    try:
        ask()
    except Exception as error:
        assert expected in str(error), f"{expected!r} is not in {error}"
    else:
        raise AssertionError(f"not refused: {expected}")


def texts(rows):
    return [[None if value is None else str(value) for value in row] for row in rows]


def tell(client, answers):
    print(json.dumps({"client": client, "answers": answers}, ensure_ascii=False), flush=True)


def by_psycopg(binary):
    with psycopg.connect(**SERVER, dbname="ruam") as connection:
        cursor = psycopg.RawCursor(connection)
        answers = []
        for sql, parameters in QUESTIONS:
            # In a savepoint: something fails in it, and the transaction goes on.
            try:
                with connection.transaction():
                    cursor.execute("select no_such_column from bora.person")
            except psycopg.Error:
                pass
            answers.append(texts(cursor.execute(sql, parameters or None, binary=binary).fetchall()))
        return answers


def copies_by_psycopg():
    question = "select code, name_th, abolished_on, successors is null from dopa.administrative_area order by code"
    with psycopg.connect(**SERVER, dbname="ruam", autocommit=True) as connection, connection.cursor() as cursor:
        expected = cursor.execute(question).fetchall()
        for options in ["", "(format binary)"]:
            with cursor.copy(f"copy ({question}) to stdout {options}") as copy:
                copy.set_types(["text", "text", "date", "bool"])
                assert list(copy.rows()) == expected, options
        assert cursor.rowcount == len(expected) > 5000
        # What is not taken is not worked out: this would never end.
        with cursor.copy("copy (select value from generate_series(1, 100000000000)) to stdout") as copy:
            assert next(copy.rows()) == ("1",)
            connection.cancel()
            try:
                for _ in copy:
                    pass
            except psycopg.errors.QueryCanceled:
                pass
        assert cursor.execute("select 1").fetchone() == (1,)


async def copies_by_asyncpg():
    connection = await asyncpg.connect(**SERVER, database="ruam")
    question = "select code, name_en from dopa.administrative_area where level = 'province' order by code"
    expected = await connection.fetch(question)
    taken = io.BytesIO()
    assert await connection.copy_from_query(question, output=taken, format="binary") == f"COPY {len(expected)}"
    taken, rows = memoryview(taken.getvalue()), []
    assert taken[:11] == b"PGCOPY\n\xff\r\n\0" and taken[-2:] == b"\xff\xff"
    at = 19
    while taken[at : at + 2] != b"\xff\xff":
        row, at = [], at + 2
        for _ in range(2):
            length = int.from_bytes(taken[at : at + 4], signed=True)
            row.append(None if length < 0 else bytes(taken[at + 4 : at + 4 + length]).decode())
            at += 4 + max(length, 0)
        rows.append(tuple(row))
    assert rows == [tuple(row) for row in expected]
    taken = io.BytesIO()
    await connection.copy_from_table("administrative_area", schema_name="dopa", columns=["code", "level"], output=taken, format="csv", header=True)
    assert taken.getvalue().startswith(b"code,level\n")
    await connection.close()


async def by_asyncpg():
    connection = await asyncpg.connect(**SERVER, database="ruam")
    answers = []
    for sql, parameters in QUESTIONS:
        statement = await connection.prepare(sql)
        answers.append(texts(tuple(row) for row in await statement.fetch(*parameters)))
        # A cursor, which takes rows as they are wanted.
        async with connection.transaction():
            taken = [tuple(row) async for row in connection.cursor(sql, *parameters, prefetch=2)]
        assert texts(taken) == answers[-1], (sql, taken)
    await connection.close()
    return answers


def by_sqlalchemy():
    engine = sqlalchemy.create_engine(f"postgresql+psycopg://ruam@127.0.0.1:{SERVER['port']}/ruam")
    with engine.connect() as connection:
        answers = []
        for sql, parameters in QUESTIONS:
            named = re.sub(r"\$(\d+)", r":p\1", sql)
            values = {f"p{number}": value for number, value in enumerate(parameters, 1)}
            answers.append(texts(connection.execute(sqlalchemy.text(named), values).fetchall()))
        return answers


def sqlalchemy_looks_around():
    """As Superset does, before anybody has asked."""
    found = sqlalchemy.inspect(sqlalchemy.create_engine(f"postgresql+psycopg://ruam@127.0.0.1:{SERVER['port']}/ruam"))
    assert {"bora", "dopa", "ruam"} <= set(found.get_schema_names())
    assert found.default_schema_name == "ruam"
    assert {"person", "person__rejects"} <= set(found.get_table_names("bora"))
    assert "administrative_area__history" in found.get_view_names("dopa")
    assert found.has_table("person", "bora") and not found.has_table("persn", "bora")
    columns = {column["name"]: column for column in found.get_columns("person", "bora")}
    assert str(columns["citizen_id"]["type"]) == "TEXT" and not columns["citizen_id"]["nullable"], columns["citizen_id"]
    assert str(columns["birth_date"]["type"]) == "DATE", columns["birth_date"]
    amount = {column["name"]: column for column in found.get_columns("disbursement", "cgd")}["amount"]["type"]
    assert isinstance(amount, sqlalchemy.Numeric) and amount.scale == 2, amount
    assert found.get_pk_constraint("person", "bora")["constrained_columns"] == ["citizen_id"]
    assert "ทะเบียน" in found.get_table_comment("person", "bora")["text"]
    assert found.get_foreign_keys("person", "bora") == found.get_indexes("person", "bora") == []


def by_adbc(**options):
    with adbc_driver_flightsql.dbapi.connect(FLIGHT, db_kwargs=options, autocommit=True) as connection:
        answers = []
        with connection.cursor() as cursor:
            for sql, parameters in QUESTIONS:
                # One with parameters is prepared first.
                cursor.execute(sql, parameters or None)
                answers.append(texts(cursor.fetchall()))
            cursor.execute("set ruam.purpose = 'ways in'")
            cursor.execute("show ruam.purpose")
            assert cursor.fetchall() == [("ways in",)]
            refused(lambda: cursor.execute("delete from bora.person"), "SQL only reads here")
            refused(lambda: cursor.execute("select * from bora.persons"), "Did you mean `bora.person`?")
            refused(lambda: cursor.execute("select $1 + 1", [1, 2]), "has 1 parameters, and 2 values came")
            # What is not taken is not worked out: this would never end.
            cursor.execute("select value from generate_series(1, 100000000000)")
            assert cursor.fetchone() is not None
            cursor.adbc_cancel()
        tables = {
            (schema["db_schema_name"], table["table_name"])
            for catalog in connection.adbc_get_objects(depth="tables").read_all().to_pylist()
            for schema in catalog["catalog_db_schemas"]
            for table in schema["db_schema_tables"]
        }
        assert {("bora", "person"), ("dopa", "administrative_area__history"), ("ruam", "datasets")} <= tables, tables
        columns = connection.adbc_get_table_schema("person", db_schema_filter="bora").names
        assert columns[0] == "citizen_id", columns
        assert connection.adbc_get_info()["vendor_name"] == "Ruam"
        return answers


def sent(path, body=None, method=None, accept="application/json", kind="application/json"):
    data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    headers = {"accept": accept} | ({"content-type": kind} if data is not None else {})
    return urllib.request.urlopen(urllib.request.Request(HTTP + path, data, headers, method=method))


def problem(status, expected, *arguments, **options):
    try:
        sent(*arguments, **options)
    except urllib.error.HTTPError as error:
        told = json.load(error)
        assert error.headers["content-type"] == "application/problem+json", error.headers
        assert (error.code, told["status"]) == (status, status) and expected in told["detail"], (error.code, told)
    else:
        raise AssertionError(f"no problem: {expected}")


def plain(value):
    return value if isinstance(value, (int, type(None))) else str(value)


def rows(response):
    return texts(tuple(row.values()) for row in pyarrow.ipc.open_stream(response).read_all().to_pylist())


def by_http(is_job):
    arrow, answers = "application/vnd.apache.arrow.stream", []
    for sql, parameters in QUESTIONS:
        body = {"sql": sql, "parameters": [plain(value) for value in parameters]}
        if is_job:
            begun = sent("/v1/jobs", body)
            place = begun.headers["location"]
            assert begun.status == 202 and json.load(begun)["id"] in place
            while (job := json.load(sent(place)))["state"] == "running":
                pass
            assert job["state"] == "done", job
            answers.append(rows(sent(job["result"], accept=arrow)))
            assert len(answers[-1]) == job["rows"], job
            assert sent(place, method="DELETE").status == 204
            problem(404, "no such job", place)
        else:
            answers.append(rows(sent("/v1/sql", body, accept=arrow)))
    return answers


def other_ways_of_http():
    one = {"sql": "select 1 as n, 'ไทย' as t"}
    for name, expected in [("json", '[{"n":1,"t":"ไทย"}]\n'), ("ndjson", '{"n":1,"t":"ไทย"}\n'), ("csv", "n,t\n1,ไทย\n")]:
        assert sent("/v1/sql", one | {"format": name}).read().decode() == expected, name
        assert sent(f"/v1/sql?format={name}", b"select 1 as n, '\xe0\xb9\x84\xe0\xb8\x97\xe0\xb8\xa2' as t", kind="text/plain").read().decode() == expected, name
    assert sent("/v1/sql", one | {"format": "parquet"}).read()[:4] == b"PAR1"
    assert json.load(sent("/v1/sql", {"sql": "show ruam.purpose", "purpose": "ways in"})) == [{"ruam.purpose": "ways in"}]
    problem(400, "SQL only reads here", "/v1/sql", {"sql": "delete from bora.person"})
    problem(404, "Did you mean `bora.person`?", "/v1/sql", {"sql": "select * from bora.persons"})
    problem(400, "unknown field `q`", "/v1/sql", {"q": "select 1"})
    problem(406, "accept one of", "/v1/sql", one, accept="image/png")
    problem(413, "Send less", "/v1/sql", b" " * (2 << 20))
    problem(415, "text/plain", "/v1/sql", b"select 1", kind="text/html")
    problem(405, "/openapi.json", "/v1/sql")
    problem(404, "/openapi.json", "/v2/sql")
    problem(404, "no such job", "/v1/jobs/00000000000000000000000000000000/result")
    begun = sent("/v1/jobs", {"sql": "select sum(value % 7) from generate_series(1, 100000000000)"})
    place = begun.headers["location"]
    problem(409, "still running", f"{place}/result")
    assert sent(place, method="DELETE").status == 204
    assert set(json.load(sent("/openapi.json"))["paths"]) >= {"/v1/sql", "/v1/jobs/{id}"}


tell("psycopg, text", by_psycopg(False))
tell("psycopg, binary", by_psycopg(True))
tell("asyncpg", asyncio.run(by_asyncpg()))
tell("SQLAlchemy", by_sqlalchemy())
sqlalchemy_looks_around()
tell("ADBC", by_adbc())
tell("ADBC, after a handshake", by_adbc(username="ruam", password="ruam"))
tell("HTTP", by_http(False))
tell("HTTP, jobs", by_http(True))
other_ways_of_http()
copies_by_psycopg()
asyncio.run(copies_by_asyncpg())
