"""The user's own SELECT: what it answers, and that it reads nothing else and changes nothing."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kinshelf.db.catalog import sql
from kinshelf.db.catalog.sql import check_select, lock_down, run_select
from kinshelf.db.errors import FilterError

SECRET = "a-secret-that-no-query-may-see"
ENDLESS = (
    "SELECT sum(a.row * b.row * c.row * d.row) FROM products a, products b, products c, products d"
)


@contextmanager
def products() -> Iterator[duckdb.DuckDBPyConnection]:
    """A locked database of 3,000 products."""
    with duckdb.connect(":memory:") as connection:
        connection.execute(
            "CREATE TABLE products AS"
            " SELECT i AS row, 'title ' || i AS title, (i * 0.5)::DOUBLE AS price"
            " FROM range(3000) t(i)"
        )
        lock_down(connection)
        yield connection


@pytest.fixture(scope="module")
def catalogue() -> Iterator[duckdb.DuckDBPyConnection]:
    with products() as connection:
        yield connection


@pytest.fixture
def own_catalogue() -> Iterator[duckdb.DuckDBPyConnection]:
    """One that the test may change."""
    with products() as connection:
        yield connection


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files of several formats that hold a secret."""
    path = tmp_path_factory.mktemp("secrets")
    (path / "x.csv").write_text(f"a,b\n1,{SECRET}\n")
    (path / "x.json").write_text(f'{{"a": "{SECRET}"}}')
    with duckdb.connect(str(path / "x.duckdb")) as connection:
        connection.execute(f"CREATE TABLE t AS SELECT '{SECRET}' AS a")
        connection.execute(f"COPY t TO '{path / 'x.parquet'}'")
    return path


@pytest.fixture
def secrets(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same as working directory, and a secret in the environment."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("KINSHELF_TEST_SECRET", SECRET)
    return folder


def answer(connection: duckdb.DuckDBPyConnection, query: str) -> list[tuple[object, ...]]:
    return list(run_select(connection, query).rows)


@pytest.mark.parametrize(
    ("query", "rows"),
    [
        ("SELECT count(*), max(price) FROM products", [(3000, 1499.5)]),
        ("SELECT row FROM products WHERE price < 1 ORDER BY row DESC;", [(1,), (0,)]),
        ("FROM products SELECT title LIMIT 1 -- one", [("title 0",)]),
        ("WITH few AS (SELECT row FROM products LIMIT 3) SELECT count(*) FROM few", [(3,)]),
        ("WITH RECURSIVE r(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM r WHERE i < 4) FROM r",
         [(1,), (2,), (3,), (4,)]),
        ("VALUES (1, 'a'), (2, NULL)", [(1, "a"), (2, None)]),
        ("(SELECT 1) UNION ALL (SELECT 2) ORDER BY 1", [(1,), (2,)]),
        ("SELECT row, sum(row) OVER (ORDER BY row) FROM products LIMIT 2", [(0, 0), (1, 1)]),
        ("FROM range(2)", [(0,), (1,)]),
        ("SELECT unnest([1, 2])", [(1,), (2,)]),
        ("SHOW TABLES", [("products",)]),
        ("SELECT ';', 'DROP TABLE products; --'", [(";", "DROP TABLE products; --")]),
    ],
)  # fmt: skip
def test_a_query_is_answered(
    catalogue: duckdb.DuckDBPyConnection, query: str, rows: list[tuple[object, ...]]
) -> None:
    assert answer(catalogue, query) == rows


def test_the_columns_are_named_even_without_rows(catalogue: duckdb.DuckDBPyConnection) -> None:
    table = run_select(catalogue, "SELECT row, price * 2 AS twice FROM products WHERE FALSE")
    assert (table.columns, list(table.rows)) == (["row", "twice"], [])


@pytest.mark.parametrize(("limit", "count"), [(0, 0), (1, 1), (1_500, 1_500), (9_999, 3_000)])
def test_the_first_max_rows_are_given(
    catalogue: duckdb.DuckDBPyConnection, limit: int, count: int
) -> None:
    table = run_select(catalogue, "SELECT row FROM products ORDER BY row", max_rows=limit)
    assert list(table.rows) == [(row,) for row in range(count)]


def test_rows_come_from_one_moment(own_catalogue: duckdb.DuckDBPyConnection) -> None:
    table = run_select(own_catalogue, "SELECT row FROM products ORDER BY row")
    first = next(table.rows)
    own_catalogue.execute("DELETE FROM products")
    assert [first, *table.rows] == [(row,) for row in range(3_000)]


@pytest.mark.parametrize(
    "query",
    [
        "INSERT INTO products VALUES (1, 'x', 1)", "UPDATE products SET price = 0",
        "DELETE FROM products", "TRUNCATE products", "DROP TABLE products",
        "CREATE TABLE x (a INT)",
        "CREATE TABLE x AS SELECT 1", "CREATE VIEW x AS SELECT 1", "CREATE MACRO f(a) AS a",
        "CREATE SECRET s (TYPE s3)", "ALTER TABLE products DROP price", "COPY products TO 'x.out'",
        "COPY (SELECT 1) TO 'x.out'", "COPY products FROM 'x.csv'", "EXPORT DATABASE 'out'",
        "IMPORT DATABASE 'out'", "ATTACH 'x.duckdb'", "DETACH memory", "USE memory",
        "PRAGMA version", "PRAGMA table_info('products')", "SET threads = 1", "RESET threads",
        "SET VARIABLE x = 1", "CALL pragma_version()", "LOAD httpfs", "INSTALL httpfs",
        "UPDATE EXTENSIONS", "BEGIN", "COMMIT", "ROLLBACK", "CHECKPOINT", "FORCE CHECKPOINT",
        "VACUUM", "ANALYZE", "PREPARE p AS SELECT 1", "EXECUTE p", "DEALLOCATE p",
        "EXPLAIN SELECT 1", "EXPLAIN ANALYZE DELETE FROM products",
        "MERGE INTO products USING products p ON FALSE WHEN MATCHED THEN DELETE",
        "WITH x AS (DELETE FROM products RETURNING *) SELECT * FROM x",
        "WITH x AS (INSERT INTO products VALUES (1, 'x', 1) RETURNING *) FROM x",
        "WITH x AS (UPDATE products SET price = 0 RETURNING *) SELECT count(*) FROM x",
        "WITH x AS (COPY products TO 'x.out') SELECT 1",
        "SELECT * FROM (WITH x AS (DELETE FROM products RETURNING *) FROM x)",
        "SELECT 1; SELECT 2", "SELECT 1; DROP TABLE products", "; DROP TABLE products",
        "", "   ", ";", "-- nothing", "SELEC 1", "SELECT", "SELECT 'open", "SELECT 1 \x00",
        "SELECT '\ud800'",
    ],
)  # fmt: skip
def test_anything_but_one_reading_statement_is_refused(
    catalogue: duckdb.DuckDBPyConnection, secrets: Path, query: str
) -> None:
    before = sorted(path.name for path in secrets.iterdir())
    with pytest.raises(FilterError):
        check_select(query)
    with pytest.raises(FilterError):
        run_select(catalogue, query)
    assert catalogue.execute("SELECT count(*), sum(price) FROM products").fetchone() == (
        3000,
        2249250,
    )
    assert sorted(path.name for path in secrets.iterdir()) == before


READERS = [
    "SELECT * FROM 'x.csv'", "FROM 'x.json'", "FROM 'x.parquet'", 'FROM "x.csv"', "FROM 'x.duckdb'",
    "FROM 'http://localhost:1/x.csv'", "FROM 's3://bucket/x.parquet'", "FROM '*'",
    "FROM read_csv('x.csv')", "FROM read_csv_auto('x.csv')", "FROM sniff_csv('x.csv')",
    "FROM read_json('x.json')", "FROM read_json_objects('x.json')", "FROM read_ndjson('x.json')",
    "FROM read_parquet('x.parquet')", "FROM parquet_scan('x.parquet')",
    "FROM parquet_metadata('x.parquet')", "FROM parquet_kv_metadata('x.parquet')",
    "FROM read_text('x.csv')", "FROM read_blob('x.csv')", "FROM read_blob('/etc/passwd')",
    "FROM read_duckdb('x.duckdb')", "FROM glob('*')", "FROM duckdb_secrets()",
    "FROM duckdb_settings()", "FROM duckdb_logs()", "FROM duckdb_temporary_files()",
    "FROM query('SELECT 1')", "FROM query_table('x.csv')", "FROM which_secret('s3://x', 's3')",
    "FROM json_execute_serialized_sql(json_serialize_sql('FROM ''x.csv'''))",
    "FROM checkpoint()", "FROM enable_logging()", "FROM enable_profiling()",
    "FROM truncate_duckdb_logs()", "FROM repeat('x', 1000000000)",
    "SELECT getenv('KINSHELF_TEST_SECRET')", "SELECT current_setting('home_directory')",
    "SELECT getvariable('x')", "SELECT json_serialize_plan('FROM ''x.csv''')",
    "SELECT sleep_ms(60000)", "SELECT pg_catalog.pg_sleep(60)", "SELECT system.main.sleep_ms(1)",
    "SELECT title.sleep_ms() FROM products", "SELECT write_log('x')", "SELECT setseed(0.5)",
    "SELECT nextval('s')", "SELECT repeat('x', 1000000000)", "SELECT lpad('x', 1000000000, 'x')",
    "SELECT range(1000000000)", "SELECT printf('%1000000000d', 1)", "FROM range(sleep_ms(1)::INT)",
    "SELECT (SELECT content FROM read_text('x.csv'))", "SELECT 1 WHERE EXISTS (FROM 'x.csv')",
    "FROM products POSITIONAL JOIN 'x.csv'", "SELECT * FROM products, LATERAL (FROM 'x.csv')",
    "WITH x AS (FROM 'x.csv') FROM x", "SELECT 1 UNION ALL SELECT b FROM 'x.csv'",
    "DESCRIBE 'x.csv'", "SUMMARIZE 'x.csv'",
    "SELECT SUM(row) OVER (ORDER BY sleep_ms(1)) FROM products",
    "PIVOT 'x.csv' ON a USING sum(b)", "SELECT list_transform([1], lambda x: sleep_ms(x))",
]  # fmt: skip


@pytest.mark.parametrize("query", READERS)
def test_a_query_that_reads_elsewhere_is_refused(
    catalogue: duckdb.DuckDBPyConnection, secrets: Path, query: str
) -> None:
    with pytest.raises(FilterError) as error:
        list(run_select(catalogue, query).rows)
    assert SECRET not in str(error.value)


@pytest.mark.parametrize("query", READERS[:25])
def test_the_lock_alone_keeps_files_closed(
    catalogue: duckdb.DuckDBPyConnection,
    secrets: Path,
    monkeypatch: pytest.MonkeyPatch,
    query: str,
) -> None:
    monkeypatch.setattr(sql, "_check", lambda connection, query: None)
    try:
        found = str(list(run_select(catalogue, query).rows))
    except FilterError as error:
        found = str(error)
    assert SECRET not in found
    assert "x.parquet" not in found.replace(query, "") or "disabled by configuration" in found


def test_the_transaction_alone_keeps_the_tables_unchanged(
    catalogue: duckdb.DuckDBPyConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sql, "_check", lambda connection, query: None)
    with pytest.raises(FilterError, match="read-only"):
        answer(catalogue, "WITH x AS (DELETE FROM products RETURNING *) SELECT * FROM x")
    assert catalogue.execute("SELECT count(*) FROM products").fetchone() == (3000,)


def test_no_function_of_the_database_reads_a_file_through_the_lock(
    catalogue: duckdb.DuckDBPyConnection, secrets: Path
) -> None:
    before = sorted(path.name for path in secrets.iterdir())
    functions = catalogue.execute(
        "SELECT DISTINCT function_name, function_type LIKE '%table%' FROM duckdb_functions()"
        " WHERE function_type IN ('scalar', 'table', 'table_macro', 'macro')"
        " AND function_name[1] BETWEEN 'a' AND 'z'"
        " AND function_name NOT IN ('sleep_ms', 'pg_sleep') AND function_name NOT LIKE '%collate_%'"
    ).fetchall()
    assert len(functions) > 500
    for name, is_table in functions:
        files = ("'x.csv'", "'x.json'", "'x.parquet'", "'x.duckdb'", "['x.csv']", "")
        for arguments in files if is_table else ("'x.csv'",):
            query = f'{"FROM" if is_table else "SELECT"} "{name}"({arguments})'
            cursor = catalogue.cursor()
            try:
                cursor.execute("BEGIN TRANSACTION READ ONLY")
                found = str(cursor.execute(query).fetchmany(50))
            except duckdb.Error as error:
                found = str(error)
            cursor.close()
            assert SECRET not in found, query
    assert sorted(path.name for path in secrets.iterdir()) == before


def test_variables_of_the_program_are_not_tables(catalogue: duckdb.DuckDBPyConnection) -> None:
    import numpy as np

    secret = {"a": np.array([SECRET])}
    assert duckdb.connect().execute("SELECT a FROM secret").fetchone() == (secret["a"][0],)
    with pytest.raises(FilterError, match="secret does not exist"):
        answer(catalogue, "SELECT a FROM secret")


def test_a_locked_database_stays_locked(catalogue: duckdb.DuckDBPyConnection) -> None:
    lock_down(catalogue)  # a second time does nothing
    for setting in ("enable_external_access = true", "lock_configuration = false", "threads = 1"):
        with pytest.raises(duckdb.Error):
            catalogue.cursor().execute(f"SET GLOBAL {setting}")
    with pytest.raises(duckdb.Error):
        catalogue.cursor().execute("ATTACH 'x.duckdb'")


def test_an_open_database_is_not_queried() -> None:
    with duckdb.connect(":memory:") as connection, pytest.raises(FilterError, match="lock_down"):
        run_select(connection, "SELECT 1")


# ---- messages


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("SELECT titel FROM products", 'Candidate bindings: "title"'),
        ("SELECT * FROM productz", 'Did you mean "products"?'),
        ("SELECT lenght(title) FROM products", 'Did you mean "length"?'),
        ("SELEC 1", 'syntax error at or near "SELEC"'),
        ("SELECT ?", "Values were not provided"),
        ("DROP TABLE products", "DROP is not allowed; one SELECT is allowed"),
        ("WITH x AS (DELETE FROM products RETURNING *) FROM x", "DELETE is not allowed"),
        ("SELECT 1; SELECT 2", "there are 2 statements"),
        ("", "the query is empty"),
        ("FROM 'x.csv'", "`x.csv` is not a table"),
        ("FROM read_csv('x.csv')", "the table function read_csv is not allowed"),
        ("SELECT sleep_ms(1)", "the function sleep_ms is not allowed"),
        ("SELECT '" + "x" * 100_000 + "'", "100009 characters"),
        ("SELECT " + "(" * 5_000 + "1" + ")" * 5_000, "depth"),
        ("SELECT " + "+".join(["1"] * 900), "nested too deeply"),
        ("SELECT CAST(title AS INT) FROM products", "Could not convert string"),
    ],
)
def test_a_message_states_what_is_wrong_in_one_line(
    catalogue: duckdb.DuckDBPyConnection, query: str, message: str
) -> None:
    with pytest.raises(FilterError) as error:
        answer(catalogue, query)
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 600


def test_a_failure_half_way_is_reported_while_walking(
    catalogue: duckdb.DuckDBPyConnection,
) -> None:
    query = "SELECT CASE WHEN row = 2999 THEN error('half-way') ELSE row END FROM products"
    table = run_select(catalogue, query)
    with pytest.raises(FilterError, match="half-way"):
        list(table.rows)


# ---- time


def wait_for_stray_threads() -> None:
    for thread in threading.enumerate():
        if thread.name == "kinshelf-sql":
            thread.join(60)


def test_a_query_that_runs_too_long_is_stopped(catalogue: duckdb.DuckDBPyConnection) -> None:
    began = time.monotonic()
    with pytest.raises(FilterError, match=r"longer than 0\.3 s"):
        run_select(catalogue, ENDLESS, timeout_s=0.3)
    assert time.monotonic() - began < 5
    wait_for_stray_threads()
    assert answer(catalogue, "SELECT count(*) FROM products") == [(3000,)]


def test_a_long_answer_is_stopped_while_walking(catalogue: duckdb.DuckDBPyConnection) -> None:
    query = "SELECT a.title || b.title || c.title FROM products a, products b, products c"
    table = run_select(catalogue, query, timeout_s=0.5)
    with pytest.raises(FilterError, match=r"longer than 0\.5 s"):
        for _ in table.rows:
            pass


def test_the_time_of_a_slow_reader_does_not_count(catalogue: duckdb.DuckDBPyConnection) -> None:
    table = run_select(catalogue, "SELECT row FROM products", timeout_s=2.0)
    rows = []
    for row in table.rows:
        rows.append(row)
        if len(rows) == 500:
            time.sleep(2.1)
    assert len(rows) == 3_000


def test_a_query_that_hears_no_interrupt_is_left_on_time(
    catalogue: duckdb.DuckDBPyConnection,
) -> None:
    deaf = f"SELECT levenshtein('{'a' * 20_000}', '{'b' * 20_000}')"
    began = time.monotonic()
    with pytest.raises(FilterError, match=r"longer than 0\.2 s"):
        run_select(catalogue, deaf, timeout_s=0.2)
    assert time.monotonic() - began < 4
    assert answer(catalogue, "SELECT count(*) FROM products") == [(3000,)]
    wait_for_stray_threads()


def test_control_c_stops_a_query_at_once(catalogue: duckdb.DuckDBPyConnection) -> None:
    timer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))
    # a shell lets what it runs in the background ignore Ctrl-C
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    timer.start()
    began = time.monotonic()
    try:
        with pytest.raises(KeyboardInterrupt):
            run_select(catalogue, ENDLESS)
    finally:
        signal.signal(signal.SIGINT, before)
    assert time.monotonic() - began < 5
    wait_for_stray_threads()


def test_an_answer_that_is_not_walked_holds_nothing(
    own_catalogue: duckdb.DuckDBPyConnection,
) -> None:
    for _ in range(20):
        run_select(own_catalogue, "SELECT * FROM products")
        next(run_select(own_catalogue, "SELECT * FROM products").rows)
    own_catalogue.execute("DROP TABLE products")
    wait_for_stray_threads()
    assert own_catalogue.execute("SHOW TABLES").fetchall() == []


@settings(max_examples=40)
@given(st.text(max_size=40) | st.text("selctfromwh *();'\",.-/$?[]{}1\\\n", max_size=40))
def test_any_text_is_one_select_or_a_filter_error(text: str) -> None:
    try:
        assert check_select(text) == text
    except FilterError:
        return
    assert len(duckdb.extract_statements(text)) == 1
