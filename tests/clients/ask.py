"""Asks the same questions with each client of PostgreSQL that Python has, and prints what each is told.

Called with the port of the server and a file of questions: a list of statements, each with its parameters as
[type, text]. Prints one line of JSON for each client: its name, and the rows of each answer as text.
"""

import asyncio
import datetime
import decimal
import json
import re
import sys

import asyncpg
import psycopg
import sqlalchemy

TYPES = {"text": str, "integer": int, "decimal": decimal.Decimal, "date": datetime.date.fromisoformat}
SERVER = {"host": "127.0.0.1", "port": int(sys.argv[1]), "user": "ruam"}

with open(sys.argv[2], encoding="utf-8") as file:
    QUESTIONS = [(sql, [TYPES[kind](text) for kind, text in parameters]) for sql, parameters in json.load(file)]


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


tell("psycopg, text", by_psycopg(False))
tell("psycopg, binary", by_psycopg(True))
tell("asyncpg", asyncio.run(by_asyncpg()))
tell("SQLAlchemy", by_sqlalchemy())
