"""Answers questions about Delta tables with one of the readers that are not Ruam's.

    read.py READER

A question is a line of three parts that tabs separate: the folder of a table, a query in which the table
is called `t`, and a folder that is to be made, with the answer in it as Parquet. A line that begins with
`reader:` says what became of it.
"""

import sys
from pathlib import Path


def delta_rs(table, query, answer):
    """The Python package of delta-rs, by the engine that it contains."""
    import pyarrow
    import pyarrow.parquet
    from deltalake import DeltaTable, QueryBuilder

    found = QueryBuilder().register("t", DeltaTable(table)).execute(query)
    pyarrow.parquet.write_table(pyarrow.table(found.read_all()), answer)


def pyarrow_dataset(table, query, answer):
    """The Python package of delta-rs, handing the files to pyarrow, which knows no deletion vectors. Pandas
    gets its tables so, too."""
    import polars
    from deltalake import DeltaTable

    scan = polars.scan_pyarrow_dataset(DeltaTable(table).to_pyarrow_dataset())
    polars.SQLContext(t=scan).execute(query, eager=True).write_parquet(answer)


def duckdb(table, query, answer):
    """DuckDB with its extension for Delta, which is loaded from where pip has put it."""
    import duckdb
    import duckdb_extension_delta

    home = Path(duckdb_extension_delta.__file__).parent
    (extension,) = home.glob(f"extensions/v{duckdb.__version__}/delta.duckdb_extension")
    connection = duckdb.connect(config={"autoinstall_known_extensions": False})
    connection.load_extension(str(extension))
    connection.execute(f"create view t as select * from delta_scan('{table}')")
    connection.execute(f"copy ({query}) to '{answer}' (format parquet)")


def polars(table, query, answer):
    """Polars, lazily: what the query asks for is pushed into the scan."""
    import polars

    polars.SQLContext(t=polars.scan_delta(table)).execute(query, eager=True).write_parquet(answer)


READERS = {reader.__name__: reader for reader in (delta_rs, pyarrow_dataset, duckdb, polars)}

if __name__ == "__main__":
    read = READERS[sys.argv[1]]
    for line in sys.stdin:
        table, query, answer = line.rstrip("\n").split("\t")
        Path(answer).mkdir()
        try:
            read(table, query, f"{answer}/rows.parquet")
            print("reader: answered", flush=True)
        except Exception as error:
            print(f"reader: refused: {error!r}", flush=True)
