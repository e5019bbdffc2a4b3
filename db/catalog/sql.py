"""The user's own SELECT over the catalogue: read-only, without files, bounded in time.

Four barriers, each enough for what it is there for:

1. The statement must be one SELECT of DuckDB's own parser, and its tree may hold neither a write
   (`WITH x AS (DELETE ...) SELECT` is a SELECT to DuckDB 2.0) nor a function that reads files,
   runs text as SQL, sleeps, changes state, or makes giant values from small ones.
2. The connection is locked: no files, network or extensions, and no setting can be changed back.
3. The query runs in a read-only transaction of its own, which is rolled back.
4. It is waited for so long and no longer.
"""

from __future__ import annotations

import contextlib
import json
import re
import threading
import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from kinshelf.db.errors import FilterError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import duckdb
    import pandas as pd

T = TypeVar("T")

MAX_CHARACTERS = 100_000

_ALLOWED = (
    "one SELECT is allowed (also WITH ... SELECT, VALUES, FROM, DESCRIBE, SUMMARIZE, SHOW TABLES)"
)
_QUERY_NODES = {"SELECT_NODE", "SET_OPERATION_NODE", "RECURSIVE_CTE_NODE", "CTE_NODE"}
_TABLE_FUNCTIONS = {
    "duckdb_columns", "duckdb_functions", "duckdb_tables", "duckdb_types", "generate_series",
    "histogram", "histogram_values", "json_each", "json_tree", "pragma_table_info", "range",
    "unnest",
}  # fmt: skip
_REFUSED_FUNCTIONS = {
    # they read the surroundings, or SQL in a text
    "current_setting", "getenv", "getvariable", "json_execute_serialized_sql",
    "json_serialize_plan", "query", "query_table",
    # they change something, or wait
    "currval", "nextval", "pg_sleep", "setseed", "setval", "sleep_ms", "write_log",
    # one call can fill the memory, or run for minutes without a chance to interrupt it
    "array_resize", "bar", "format", "generate_series", "list_resize", "lpad", "printf", "range",
    "repeat", "rpad",
    # they take DuckDB's internal bytes on trust
    "combine", "finalize", "to_aggregate_state", "variant_bytes_to_variant",
}  # fmt: skip
_LOCKS = (
    "SET GLOBAL temp_directory = ''",
    "SET GLOBAL python_enable_replacements = false",
    "SET GLOBAL autoinstall_known_extensions = false",
    "SET GLOBAL autoload_known_extensions = false",
    "SET GLOBAL allow_community_extensions = false",
    "SET GLOBAL enable_external_access = false",
    "SET GLOBAL lock_configuration = true",
)
_LOCKED = (
    "SELECT current_setting('lock_configuration') AND NOT current_setting('enable_external_access')"
)
_PATH_SIGNS = set("./\\\\:*?")
_SET_HINT = re.compile(r"""(, or|\. Use) ["']?SET .*""")  # settings are locked
_CHUNK_ROWS = 1_000
_GRACE_S = 1.0


@dataclass(frozen=True, slots=True)
class Table:
    """The answer to a query: column names, and the rows, which can be walked once.

    Walking the rows raises FilterError when the time is up or the query fails half-way.
    """

    columns: list[str]
    rows: Iterator[tuple[Any, ...]]

    def to_pandas(self) -> pd.DataFrame:
        """The rows that were not walked yet, one column each as named."""
        import pandas as pd

        return pd.DataFrame(list(self.rows), columns=self.columns)


def check_select(query: str) -> str:
    """The query itself, if it is one SELECT that only reads; else FilterError."""
    import duckdb

    with duckdb.connect(":memory:") as connection:
        _check(connection, query)
    return query


def _check(connection: duckdb.DuckDBPyConnection, query: str) -> None:
    import duckdb

    _check_text(query)
    try:
        _check_type(connection.extract_statements(query))
        found = connection.execute("SELECT json_serialize_sql(?)", [query]).fetchone()
    except duckdb.Error as error:
        raise _explained(error) from error
    _check_tree(str(found[0]) if found else "{}")


def _check_type(statements: Sequence[duckdb.Statement]) -> None:
    if not statements:
        raise FilterError("the query is empty; try SELECT * FROM products LIMIT 10")
    if len(statements) > 1:
        raise FilterError(f"there are {len(statements)} statements; write one SELECT")
    try:
        name = statements[0].type.name
    except ValueError:  # DuckDB has types that its Python package has no name for
        name = "that"
    if name != "SELECT":
        raise FilterError(f"{name} is not allowed; {_ALLOWED}")


def lock_down(connection: duckdb.DuckDBPyConnection) -> None:
    """Shut a database off from files, network, extensions, Python's variables and its settings.

    Holds for the whole database, all cursors included, for as long as it is open, and cannot be
    undone. Temporary files are off too: a query that needs more than the memory limit fails.
    """
    if _is_locked(connection):
        return
    for statement in _LOCKS:
        connection.execute(statement)


def run_select(
    connection: duckdb.DuckDBPyConnection,
    query: str,
    *,
    timeout_s: float = 30.0,
    max_rows: int | None = None,
) -> Table:
    """Run one SELECT on a locked connection; the first `max_rows` rows, or all.

    `timeout_s` bounds the time spent in the database, over all of the rows; what the caller does
    between them does not count. Raises FilterError for a query that is not allowed, fails or
    takes too long, here or while the rows are walked.
    """
    _check(connection.cursor(), query)
    if not _is_locked(connection):
        raise FilterError("queries run on a locked connection only: call lock_down(connection)")
    waiter = _Waiter(connection.cursor(), timeout_s)
    try:
        waiter.call(lambda: waiter.cursor.execute("BEGIN TRANSACTION READ ONLY").execute(query))
    except BaseException:
        waiter.close()
        raise
    columns = [str(column[0]) for column in waiter.cursor.description or ()]
    return Table(columns, _rows(waiter, max_rows))


def _rows(waiter: _Waiter, max_rows: int | None) -> Iterator[tuple[Any, ...]]:
    left = max_rows
    try:
        while left is None or left > 0:
            size = _CHUNK_ROWS if left is None else min(left, _CHUNK_ROWS)
            rows = waiter.call(partial(waiter.cursor.fetchmany, size))
            if not rows:
                return
            yield from rows
            left = None if left is None else left - len(rows)
    finally:
        waiter.close()


class _Call(Generic[T]):
    """A function that runs in a thread of its own."""

    def __init__(self, work: Callable[[], T]) -> None:
        self._work = work
        self._result: list[T] = []
        self._error: Exception | None = None
        # Not Thread.join: a Ctrl-C in it makes Python 3.11 take the thread for ended.
        self.done = threading.Event()
        threading.Thread(target=self._run, daemon=True, name="kinshelf-sql").start()

    def _run(self) -> None:
        try:
            self._result.append(self._work())
        except Exception as error:  # noqa: BLE001 - `result` raises it, in the thread that waits
            self._error = error
        finally:
            self.done.set()

    def result(self) -> T:
        if self._error is not None:
            raise self._error
        return self._result[0]


class _Waiter:
    """Calls into the database that share one allowance of time.

    A call runs in a thread of its own, because DuckDB hears an interrupt only between blocks of
    rows, and Ctrl-C likewise: whoever waits here is let go in any case, on time.
    """

    def __init__(self, cursor: duckdb.DuckDBPyConnection, timeout_s: float) -> None:
        self.cursor = cursor
        self.timeout_s = timeout_s
        self._left_s = timeout_s

    def call(self, work: Callable[[], T]) -> T:
        import duckdb

        began = time.monotonic()
        call = _Call(work)
        try:
            call.done.wait(max(self._left_s, 0.0))
        finally:
            if not call.done.is_set():
                self.cursor.interrupt()
                call.done.wait(_GRACE_S)
        self._left_s -= time.monotonic() - began
        if self._left_s <= 0:
            raise FilterError(
                f"the query took longer than {self.timeout_s:g} s and was stopped; "
                "narrow it with WHERE or LIMIT"
            )
        try:
            return call.result()
        except (duckdb.Error, ValueError, OverflowError) as error:
            raise _explained(error) from error

    def close(self) -> None:
        """Release the transaction, unless a call that ignored the interrupt still holds it."""
        import duckdb

        with contextlib.suppress(duckdb.Error):
            self.cursor.close()


def _is_locked(connection: duckdb.DuckDBPyConnection) -> bool:
    found = connection.cursor().execute(_LOCKED).fetchone()
    return bool(found and found[0])


def _check_text(query: str) -> None:
    if len(query) > MAX_CHARACTERS:
        raise FilterError(f"the query has {len(query)} characters; at most {MAX_CHARACTERS}")
    if "\x00" in query:
        raise FilterError(f"a NUL character at character {query.index(chr(0)) + 1}; remove it")
    try:
        query.encode()
    except UnicodeEncodeError as error:
        raise FilterError(f"no valid Unicode at character {error.start + 1}") from error


def _check_tree(text: str) -> None:
    """Check DuckDB's own syntax tree, every node of it."""
    try:
        tree = json.loads(text)
    except RecursionError as error:
        raise FilterError("the query is nested too deeply; write it flatter") from error
    if tree.get("error", True):
        raise FilterError(f"{tree.get('error_message', 'the query cannot be read')}; {_ALLOWED}")
    rest: list[Any] = [tree]
    while rest:
        node = rest.pop()
        if isinstance(node, list):
            rest.extend(node)
        elif isinstance(node, dict):
            rest.extend(_checked(node).values())


def _checked(node: dict[str, Any]) -> dict[str, Any]:
    """What remains to be checked of a node that is allowed."""
    kind = str(node.get("type"))
    if kind.endswith("_NODE") and kind not in _QUERY_NODES:
        write = kind.partition("_")[0]
        raise FilterError(f"{write} is not allowed within a query; {_ALLOWED}")
    if kind == "BASE_TABLE" and _PATH_SIGNS & set(node["table_name"]):
        raise FilterError(f"`{node['table_name']}` is not a table; a query cannot read files")
    if kind == "TABLE_FUNCTION":
        return node | _checked_table_function(node["function"])
    name = node.get("function_name")
    if isinstance(name, str) and name.lower() in _REFUSED_FUNCTIONS:
        raise FilterError(f"the function {name} is not allowed in a query")
    return node


def _checked_table_function(function: dict[str, Any]) -> dict[str, Any]:
    name = function.get("function_name")
    if not isinstance(name, str) or name.lower() not in _TABLE_FUNCTIONS:
        raise FilterError(
            f"the table function {name} is not allowed in a query; allowed are "
            + ", ".join(sorted(_TABLE_FUNCTIONS))
        )
    # Some names, such as range, are harmless as a table only: check the arguments, not the name.
    return {"function": None, "arguments": list(function.values())}


def _explained(error: Exception) -> FilterError:
    """The database's own message in one line, without its class and the quoted query."""
    text = " ".join(str(error).partition("\n\nLINE ")[0].split())
    text = _SET_HINT.sub("", text)
    kind, found, message = text.partition(" Error: ")
    short = message if found and len(kind) < 30 else text
    return FilterError(f"{short[:500]}{'...' if len(short) > 500 else ''}")
