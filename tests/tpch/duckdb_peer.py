"""Answers questions with DuckDB, over the Parquet files of tables.

    duckdb_peer.py THREADS MEMORY ANSWER TABLES

MEMORY is in bytes; TABLES a list of pairs in JSON, of a table's name and its files. A question is a line.
A line that begins with `duckdb:` says how many seconds the answer took, as Arrow; it is then in ANSWER, a
file of Parquet.
"""

import json
import sys
import time

import duckdb
import pyarrow.parquet

threads, memory, answer, tables = sys.argv[1:]
connection = duckdb.connect(config={"threads": int(threads), "memory_limit": f"{int(memory)}B"})
# As Ruam does.
connection.execute("set parquet_metadata_cache = true")
connection.execute("create schema tpch")
for name, files in json.loads(tables):
    connection.execute(f"create view tpch.{name} as select * from read_parquet({files!r})")

for question in sys.stdin:
    try:
        begun = time.perf_counter()
        rows = connection.execute(question).fetch_arrow_table()
        seconds = time.perf_counter() - begun
        pyarrow.parquet.write_table(rows, answer)
        print(f"duckdb: {seconds}", flush=True)
    except Exception as error:
        print(f"duckdb: refused: {error!r}".replace("\n", " "), flush=True)
