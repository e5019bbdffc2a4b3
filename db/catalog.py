"""The catalogue: a shelf's metadata as DuckDB tables, derived from the log.

A handle works on a copy in memory, so that no process ever holds the file `catalog.duckdb`: it is
a snapshot, replaced as a whole, that spares the next opening the replay of the log. Its side
file states the generation, the epoch and the checksum; when these do not fit, the snapshot is
ignored and the catalogue is rebuilt.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xxhash

from kinshelf.db.migrations import migrate

if TYPE_CHECKING:
    import duckdb

COLUMNS = (
    "row", "id", "title", "description", "category", "price", "brand", "image", "split",
    "attributes", "has_image", "has_text", "image_hash", "image_error", "content_hash",
)  # fmt: skip
"""What the log keeps of a product; `added` and `removed` follow from the generation."""

_DTYPES = {"row": np.int64, "price": np.float64, "has_image": np.bool_, "has_text": np.bool_}
_REJECT = ("key", "source", "position", "id", "reason", "message", "kept", "record")


def connect() -> duckdb.DuckDBPyConnection:
    """An empty database in memory that installs and loads nothing by itself."""
    import duckdb

    return duckdb.connect(
        ":memory:",
        config={
            "autoinstall_known_extensions": "false",
            "autoload_known_extensions": "false",
            "pandas_analyze_sample": 0,  # otherwise it guesses a column's type from its first rows
        },
    )


class Catalog:
    """The tables `products`, `commits`, `rejects` and `probes` as of `generation`.

    `saved_generation` is that of the snapshot that it was loaded from or last saved to.
    """

    def __init__(self, generation: int = 0) -> None:
        self.connection = connect()
        self.generation = generation
        self.saved_generation: int | None = None
        migrate(self.connection)

    def close(self) -> None:
        """Let go of the memory."""
        self.connection.close()

    def apply(self, generation: int, head: dict[str, Any], body: dict[str, Any]) -> None:
        """Apply one committed change; changes come in order, each once."""
        connection = self.connection.cursor()
        connection.execute("BEGIN")
        if products := body.get("products"):
            _insert_products(connection, generation, products)
        _insert_attributes(connection, generation, head.get("attributes", {}))
        if removed := head.get("removed"):
            _mark_removed(connection, generation, removed)
        _insert_rejects(connection, generation, body.get("rejects", []))
        _resolve_rejects(connection, generation, body.get("resolved", []))
        if probe := head.get("probe"):
            _insert_probe(connection, generation, probe)
        _insert_commit(connection, generation, head)
        connection.execute("COMMIT")
        self.generation = generation

    def save(self, path: Path, epoch: int) -> dict[str, Any]:
        """Write a snapshot to `path` (a new file); returns what its side file has to state."""
        target = str(path).replace("'", "''")
        self.connection.execute(f"ATTACH '{target}' AS disk")
        try:
            self.connection.execute("COPY FROM DATABASE memory TO disk")
        finally:
            self.connection.execute("DETACH disk")
        return {"epoch": epoch, "generation": self.generation, "xxh3": file_hash(path)}

    @classmethod
    def load(cls, path: Path, epoch: int, newest: int) -> Catalog | None:
        """The snapshot at `path`, or None if it is missing, stale, damaged or too new."""
        state = _read_state(path)
        if state is None or state.get("epoch") != epoch or not state["generation"] <= newest:
            return None
        if file_hash(path) != state["xxh3"]:
            return None
        catalog = cls.__new__(cls)
        catalog.connection = connect()
        catalog.generation = catalog.saved_generation = int(state["generation"])
        _copy_in(catalog.connection, path)
        migrate(catalog.connection)
        return catalog


def side_file(path: Path) -> Path:
    """Where the checksum and generation of a snapshot stand."""
    return path.with_name(path.name + ".json")


def file_hash(path: Path) -> str:
    """xxh3-128 of a file's bytes, read in blocks."""
    digest = xxhash.xxh3_128()
    with path.open("rb") as file:
        while block := file.read(1 << 22):
            digest.update(block)
    return digest.hexdigest()


def _read_state(path: Path) -> dict[str, Any] | None:
    try:
        state = json.loads(side_file(path).read_bytes())
        well_formed = isinstance(state["generation"], int) and isinstance(state["xxh3"], str)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return state if well_formed and path.is_file() else None


def _copy_in(connection: duckdb.DuckDBPyConnection, path: Path) -> None:
    source = str(path).replace("'", "''")
    connection.execute(f"ATTACH '{source}' AS disk (READ_ONLY)")
    try:
        connection.execute("COPY FROM DATABASE disk TO memory")
    finally:
        connection.execute("DETACH disk")


def _column(name: str, values: list[Any]) -> np.ndarray[Any, Any]:
    if name in _DTYPES:
        return np.array(values, dtype=_DTYPES[name])  # None becomes NaN, which DuckDB reads as NULL
    column = np.empty(len(values), dtype=object)
    column[:] = values
    return column


def _insert_products(
    connection: duckdb.DuckDBPyConnection, generation: int, products: dict[str, list[Any]]
) -> None:
    batch = {name: _column(name, products[name]) for name in COLUMNS}
    connection.register("batch", batch)
    selected = ", ".join(COLUMNS)
    connection.execute(
        f"INSERT INTO products ({selected}, added, removed) SELECT {selected}, ?, NULL FROM batch",
        [generation],
    )
    connection.unregister("batch")


def _insert_attributes(
    connection: duckdb.DuckDBPyConnection, generation: int, attributes: dict[str, list[str]]
) -> None:
    for name, types in attributes.items():
        for kind in types:
            connection.execute(
                "INSERT INTO attributes SELECT ?, ?, ? WHERE NOT EXISTS"
                " (SELECT 1 FROM attributes WHERE name = ? AND type = ?)",
                [name, kind, generation, name, kind],
            )


def _mark_removed(connection: duckdb.DuckDBPyConnection, generation: int, rows: list[int]) -> None:
    connection.execute(
        "UPDATE products SET removed = ? WHERE row IN (SELECT unnest(?::BIGINT[]))",
        [generation, rows],
    )


def _insert_rejects(
    connection: duckdb.DuckDBPyConnection, generation: int, rejects: list[dict[str, Any]]
) -> None:
    if not rejects:
        return
    batch = {name: _column(name, [reject[name] for reject in rejects]) for name in _REJECT}
    connection.register("batch", batch)
    names = ", ".join(_REJECT)
    connection.execute(
        f"INSERT INTO rejects ({names}, generation, resolved)"
        " SELECT key, source, position::BIGINT, id, reason, message, kept::BOOLEAN, record, ?, NULL"
        " FROM batch",
        [generation],
    )
    connection.unregister("batch")


def _resolve_rejects(
    connection: duckdb.DuckDBPyConnection, generation: int, keys: list[str]
) -> None:
    if keys:
        connection.execute(
            "UPDATE rejects SET resolved = ?"
            " WHERE resolved IS NULL AND key IN (SELECT unnest(?::VARCHAR[]))",
            [generation, keys],
        )


def _insert_probe(
    connection: duckdb.DuckDBPyConnection, generation: int, probe: dict[str, Any]
) -> None:
    connection.execute(
        "INSERT INTO probes VALUES (?, ?, ?, ?, ?, ?)",
        [
            probe["version"], generation, probe["trained_on"], probe["classes"],
            json.dumps(probe["files"]), json.dumps(probe["metrics"]),
        ],
    )  # fmt: skip


def _insert_commit(
    connection: duckdb.DuckDBPyConnection, generation: int, head: dict[str, Any]
) -> None:
    counts = head.get("counts", {})
    numbers = [counts.get(name, 0) for name in ("inserted", "updated", "removed", "rejected")]
    connection.execute(
        "INSERT INTO commits VALUES (?, to_timestamp(?), ?, ?, ?, ?, ?, ?)",
        [generation, head["time"], head["kind"], head.get("command", ""), *numbers],
    )
