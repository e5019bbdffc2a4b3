"""The catalogue: a shelf's metadata as DuckDB tables, derived from the log.

A handle works on a copy in memory, so that no process ever holds the file `catalog.duckdb`: it is
a snapshot, replaced as a whole, that spares the next opening the replay of the log. Its side
file states the generation, the epoch and the checksum; when these do not fit, the snapshot is
ignored and the catalogue is rebuilt.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kinshelf.db.catalog.migrations import migrate
from kinshelf.db.catalog.records import Body, Head, ProbeRecord
from kinshelf.db.catalog.statement import fault_of, file_hash, read_state
from kinshelf.db.files import reading
from kinshelf.db.text import compatible, is_kept

if TYPE_CHECKING:
    import duckdb

    from kinshelf.db.product import StoredProduct

COLUMNS = (
    "row", "id", "title", "description", "category", "price", "brand", "image", "split",
    "attributes", "has_image", "has_text", "image_hash", "image_error", "content_hash",
)  # fmt: skip
"""What the log keeps of a product; `added` and `removed` follow from the generation."""
DECIDED = "decided"
"""A further column, which the frames of earlier versions lack: see `db.product.Decisions`."""

Change = tuple[int, Head, Body]
"""A generation, and the head and body of its frame."""

_ON_DISK = "512MB"
"""Of memory for tables that lie on the disk, of which a part is read at a time."""
_DTYPES = {"row": np.int64, "price": np.float64, "has_image": np.bool_, "has_text": np.bool_}
_TABLES = "SELECT database_name, table_name, sql FROM duckdb_tables() ORDER BY ALL"
_OTHERS = (
    "SELECT (SELECT count(*) FROM duckdb_functions() WHERE database_name = $1 AND NOT internal)"
    " + (SELECT count(*) FROM duckdb_views() WHERE database_name = $1 AND NOT internal)"
    " + (SELECT count(*) FROM duckdb_types() WHERE database_name = $1 AND NOT internal)"
    " + (SELECT count(*) FROM duckdb_schemas() WHERE database_name = $1 AND NOT internal)"
)
_REJECT = ("key", "source", "position", "id", "reason", "message", "kept", "record")


def connect(path: Path | None = None) -> duckdb.DuckDBPyConnection:
    """A database at `path`, or an empty one in memory, that installs and loads nothing itself."""
    import duckdb

    config: dict[str, Any] = {
        "autoinstall_known_extensions": "false",
        "autoload_known_extensions": "false",
        "pandas_analyze_sample": 0,  # otherwise it guesses a column's type from its first rows
    }
    if path is not None:
        config["memory_limit"] = _ON_DISK
    connection = duckdb.connect(path or ":memory:", config=config)
    # Filters compare texts in NFKC (see `db.filters.compiler`).
    connection.create_function("kin_nfkc", compatible, ["VARCHAR"], "VARCHAR")
    return connection


@contextlib.contextmanager
def on_disk(path: Path) -> Iterator[None]:
    """Raise OSError where DuckDB fails on a file, such as on a full disk."""
    import duckdb

    if not is_kept(str(path)):
        raise OSError(f"{path}: DuckDB takes no file whose name is not UTF-8")
    try:
        yield
    except duckdb.Error as error:
        raise OSError(f"{path}: {error}") from error


class Catalog:
    """The tables `products`, `commits`, `rejects` and `probes` as of `generation`, in memory.

    `saved_generation` is that of the snapshot that it was loaded from or last saved to. With a
    `path`, a new file, the tables lie there: larger than memory, and for one process alone.
    `met` are products that were asked for, by row, and `lacking` the modalities that some product
    of any generation lacks, None until somebody asks (see `db.queries`).
    """

    def __init__(self, generation: int = 0, path: Path | None = None) -> None:
        self.connection = connect(path)
        self.generation = generation
        self.saved_generation: int | None = None
        self.met: dict[int, StoredProduct] = {}
        self.lacking: set[str] | None = None
        migrate(self.connection)

    def cursor(self) -> duckdb.DuckDBPyConnection:
        """A connection of its own to the same tables: threads must not read each other's results.

        Its progress bar is off: DuckDB draws it on stdout, where only data belongs.
        """
        return self.connection.cursor().execute("SET enable_progress_bar = false")

    def close(self) -> None:
        """Release the memory."""
        self.connection.close()

    def apply(self, generation: int, head: Head, body: Body) -> None:
        """Apply one committed change; changes come in order, each once."""
        self.apply_all([(generation, head, body)])

    def apply_all(self, changes: Sequence[Change]) -> None:
        """Apply committed changes, (generation, head, body) each, as one transaction."""
        connection = self.connection.cursor()
        connection.execute("BEGIN")
        _insert_products(connection, changes)
        _insert_attributes(connection, changes)
        _mark_removed(connection, changes)
        _insert_rejects(connection, changes)
        _resolve_rejects(connection, changes)
        for generation, head, _ in changes:
            if probe := head.get("probe"):
                _insert_probe(connection, generation, probe)
        _insert_commits(connection, changes)
        connection.execute("COMMIT")
        self.generation = changes[-1][0]
        for products in (body.get("products") for _, _, body in changes):
            if products and self.lacking is not None:
                self.lacking |= {n for n in ("has_image", "has_text") if not all(products[n])}

    def apply_base(self, body: Body) -> None:
        """Take in a part of the state that a compacted log begins with.

        Each entry bears the generation that it came in with: products as the column `added`,
        rejects, probes and commits as `generation`; attributes are (name, type, generation).
        """
        connection = self.connection.cursor()
        commits: list[Change] = [(c["generation"], c, {}) for c in body.get("commits", ())]
        connection.execute("BEGIN")
        _insert_products(connection, [(0, {}, body)])
        kinds: list[Change] = [
            (generation, {"attributes": {name: [kind]}}, {})
            for name, kind, generation in body.get("attributes", ())
        ]
        _insert_attributes(connection, kinds)
        _insert_rejects(connection, [(0, {}, body)])
        for probe in body.get("probes", ()):
            _insert_probe(connection, probe["generation"], probe)
        if commits:
            _insert_commits(connection, commits)
        connection.execute("COMMIT")

    def save(self, path: Path) -> dict[str, Any]:
        """Write a snapshot to `path` (a new file); returns what its side file has to state."""
        target = str(path).replace("'", "''")
        self.connection.execute(f"ATTACH '{target}' AS disk")
        try:
            self.connection.execute("COPY FROM DATABASE memory TO disk")
        finally:
            self.connection.execute("DETACH disk")
        return self._state(path)

    def _state(self, path: Path) -> dict[str, Any]:
        return {"generation": self.generation, "xxh3": file_hash(path)}

    def finish(self, path: Path) -> dict[str, Any]:
        """Close the tables that lie at `path`; returns what its side file has to state."""
        self.connection.execute("CHECKPOINT")
        self.close()
        return self._state(path)

    @classmethod
    def begin(
        cls, path: Path, copy: Path, fits: Callable[[dict[str, Any]], bool]
    ) -> Catalog | None:
        """Like `load`, but with the tables in `copy`, a new file, where they may be changed."""
        state = read_state(path)
        if state is None or not fits(state):
            return None
        if fault_of(path, state["xxh3"]):
            return None
        with reading(path) as source, copy.open("xb") as target:
            shutil.copyfileobj(source, target, 1 << 20)
        if file_hash(copy) != state["xxh3"]:
            copy.unlink()
            return None
        if not _only_ours(copy):
            copy.unlink()
            return None
        return cls._of(connect(copy), int(state["generation"]))

    @classmethod
    def _of(cls, connection: duckdb.DuckDBPyConnection, generation: int) -> Catalog:
        catalog = cls.__new__(cls)
        catalog.connection = connection
        catalog.generation = catalog.saved_generation = generation
        catalog.met = {}
        catalog.lacking = None
        migrate(connection)
        return catalog

    @classmethod
    def load(cls, path: Path, fits: Callable[[dict[str, Any]], bool]) -> Catalog | None:
        """The snapshot at `path`, or None if it is missing, damaged or does not fit the log.

        `fits` judges what its side file states, before the file is opened.
        """
        state = read_state(path)
        if state is None or not fits(state):
            return None
        stamp = path.stat()
        if fault_of(path, state["xxh3"]):
            return None
        connection = connect()
        if not _copy_in(connection, path):
            connection.close()
            return None
        # A writer may replace the file between its being checked and its being read.
        if not os.path.samestat(stamp, path.stat()):
            return None
        return cls._of(connection, int(state["generation"]))


@contextlib.contextmanager
def _attached(connection: duckdb.DuckDBPyConnection, path: Path) -> Iterator[None]:
    source = str(path).replace("'", "''")
    connection.execute(f"ATTACH '{source}' AS disk (READ_ONLY)")
    try:
        yield
    finally:
        connection.execute("DETACH disk")


def _only_ours(path: Path) -> bool:
    """Whether the database at `path` holds our tables, and nothing that could read files."""
    import duckdb

    try:
        with connect() as connection, _attached(connection, path):
            migrate(connection)
            others = connection.execute(_OTHERS, ["disk"]).fetchone()
            return others == (0,) and bool(_same_tables(connection))
    except duckdb.Error:
        return False


def _same_tables(connection: duckdb.DuckDBPyConnection) -> list[str]:
    """The tables of what is attached, if they and its version are those of this one; else none."""
    tables: dict[str, list[tuple[str, str]]] = {"disk": [], "memory": []}
    for database, name, sql in connection.execute(_TABLES).fetchall():
        tables.setdefault(database, []).append((name, sql))
    if tables["disk"] != tables["memory"]:
        return []
    versions = "SELECT version FROM {}.main.schema_version ORDER BY version"
    theirs, ours = (
        connection.execute(versions.format(name)).fetchall() for name in ("disk", "memory")
    )
    return [name for name, _ in tables["disk"]] if theirs == ours else []


def _copy_in(connection: duckdb.DuckDBPyConnection, path: Path) -> bool:
    """Copy our own tables from the database at `path`; False if it has others, or is damaged.

    A view or a macro in it, from a stranger, would read files when it is asked: neither is copied.
    """
    import duckdb

    try:
        with _attached(connection, path):
            migrate(connection)
            names = _same_tables(connection)
            if names:
                connection.execute("DELETE FROM schema_version")
            for name in names:
                connection.execute(f"INSERT INTO memory.{name} SELECT * FROM disk.main.{name}")
    except duckdb.Error:
        return False
    return bool(names)


def _column(name: str, values: list[Any]) -> np.ndarray[Any, Any]:
    if name in _DTYPES:
        return np.array(values, dtype=_DTYPES[name])  # None becomes NaN, which DuckDB reads as NULL
    column = np.empty(len(values), dtype=object)
    column[:] = values
    return column


def _insert(
    connection: duckdb.DuckDBPyConnection, table: str, columns: dict[str, np.ndarray[Any, Any]]
) -> None:
    casts = {"position": "::BIGINT", "kept": "::BOOLEAN"}
    selected = ", ".join(name + casts.get(name, "") for name in columns)
    connection.register("batch", columns)
    connection.execute(f"INSERT INTO {table} ({', '.join(columns)}) SELECT {selected} FROM batch")
    connection.unregister("batch")


def _insert_products(connection: duckdb.DuckDBPyConnection, changes: Sequence[Change]) -> None:
    tables = [(g, p) for g, _, body in changes if (p := body.get("products"))]
    if not tables:
        return
    columns = {n: _column(n, [v for _, p in tables for v in p[n]]) for n in COLUMNS}
    decided = [v for _, p in tables for v in p.get(DECIDED) or [None] * len(p["row"])]
    columns[DECIDED] = _column(DECIDED, decided)
    added = [g for generation, p in tables for g in p.get("added", [generation] * len(p["row"]))]
    columns["added"] = np.array(added, dtype=np.int64)
    _insert(connection, "products", columns)


def _insert_attributes(connection: duckdb.DuckDBPyConnection, changes: Sequence[Change]) -> None:
    found: dict[tuple[str, str], int] = {}
    for generation, head, _ in changes:
        for name, types in head.get("attributes", {}).items():
            for kind in types:
                found.setdefault((name, kind), generation)
    if found:
        names, kinds = zip(*found, strict=True)
        connection.execute(
            "INSERT INTO attributes SELECT * FROM (SELECT unnest(?::VARCHAR[]) AS name,"
            " unnest(?::VARCHAR[]) AS type, unnest(?::BIGINT[]) AS generation) n WHERE NOT EXISTS"
            " (SELECT 1 FROM attributes a WHERE a.name = n.name AND a.type = n.type)",
            [list(names), list(kinds), list(found.values())],
        )


def _mark_removed(connection: duckdb.DuckDBPyConnection, changes: Sequence[Change]) -> None:
    gone = [(row, g) for g, head, _ in changes for row in head.get("removed") or ()]
    if gone:
        connection.execute(
            "UPDATE products SET removed = gone.generation"
            " FROM (SELECT unnest(?::BIGINT[]) AS row, unnest(?::BIGINT[]) AS generation) gone"
            " WHERE products.row = gone.row",
            [[row for row, _ in gone], [generation for _, generation in gone]],
        )


def _insert_rejects(connection: duckdb.DuckDBPyConnection, changes: Sequence[Change]) -> None:
    rejects = [(g, reject) for g, _, body in changes for reject in body.get("rejects", ())]
    if not rejects:
        return
    columns = {n: _column(n, [reject.get(n) for _, reject in rejects]) for n in _REJECT}
    came = [reject.get("generation", generation) for generation, reject in rejects]
    columns["generation"] = np.array(came, dtype=np.int64)
    _insert(connection, "rejects", columns)


def _resolve_rejects(connection: duckdb.DuckDBPyConnection, changes: Sequence[Change]) -> None:
    settled = [(key, g) for g, _, body in changes for key in body.get("resolved", ())]
    if settled:
        # A key that was settled may be rejected again: each settles what came before it.
        connection.execute(
            "WITH settled AS"
            " (SELECT unnest(?::VARCHAR[]) AS key, unnest(?::BIGINT[]) AS generation)"
            " UPDATE rejects SET resolved = (SELECT min(s.generation) FROM settled s"
            " WHERE s.key = rejects.key AND s.generation > rejects.generation)"
            " WHERE resolved IS NULL AND key IN (SELECT key FROM settled)",
            [[key for key, _ in settled], [generation for _, generation in settled]],
        )


def _insert_probe(
    connection: duckdb.DuckDBPyConnection, generation: int, probe: ProbeRecord
) -> None:
    connection.execute(
        "INSERT INTO probes VALUES (?, ?, ?, ?, ?, ?)",
        [
            probe["version"], generation, probe["trained_on"], probe["classes"],
            json.dumps(probe["files"]), json.dumps(probe["metrics"]),
        ],
    )  # fmt: skip


def _insert_commits(connection: duckdb.DuckDBPyConnection, changes: Sequence[Change]) -> None:
    names = ("inserted", "updated", "removed", "rejected")
    heads = [head for _, head, _ in changes]
    columns = {"generation": np.array([g for g, _, _ in changes], dtype=np.int64)}
    columns["time"] = np.array([head["time"] for head in heads], dtype=np.float64)
    columns["kind"] = _column("kind", [head["kind"] for head in heads])
    columns["command"] = _column("command", [head.get("command", "") for head in heads])
    for name in names:
        counts = [head.get("counts", {}).get(name, 0) for head in heads]
        columns[name] = np.array(counts, dtype=np.int64)
    operations = [head.get("operation", g) for g, head, _ in changes]
    columns["operation"] = np.array(operations, dtype=np.int64)
    columns["who"] = _column("who", [head.get("who", "") for head in heads])
    connection.register("batch", columns)
    connection.execute(
        "INSERT INTO commits SELECT generation, make_timestamp((time * 1000000)::BIGINT), kind,"
        " command, inserted, updated, removed, rejected, operation, who FROM batch"
    )
    connection.unregister("batch")
