"""A shelf in PostgreSQL, its vectors in pgvector's type.

Vectors are kept as float32, to the bit; the approximate index is over a halfvec copy of them, and
what it proposes is ranked again by the vectors. So a query over `embedding` itself is exact
whatever the planner does, and only one over `embedding::halfvec` can be approximate.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from kinshelf.db.arrays import FloatArray, IntArray
from kinshelf.db.errors import (
    KinshelfError,
    ShelfExists,
    ShelfLocked,
)
from kinshelf.db.logs import tolerated
from kinshelf.store.engines.backend import (
    EXACT_ROWS,
    SPARE,
    Backend,
    Batch,
    Candidates,
    Condition,
    Fetch,
    Scanned,
    State,
    Where,
    entry_text,
    lacking,
    no_shelf,
    overtaken,
    padded,
)
from kinshelf.store.engines.postgres.connection import Link
from kinshelf.store.engines.postgres.filters import to_postgres
from kinshelf.store.engines.postgres.rows import clauses, copy_in, floats, scanned
from kinshelf.store.engines.postgres.schema import INDEX, create_tables
from kinshelf.store.log.manifest import Manifest

if TYPE_CHECKING:
    from psycopg import Connection

    from kinshelf.db.catalog.tables import Change
    from kinshelf.db.filters.compiler import Filter
    from kinshelf.store.engines.address import Address

_SEARCH = 200
"""Of pgvector's hnsw.ef_search; more for queries of one half, which the graph was not built for."""
_SEARCH_ONE_HALF = 800
_SCANNED = 40_000
"""Rows that an iterative scan may visit; then the search is done again exactly."""


class PostgresBackend(Backend):
    """See `Backend`."""

    kind = "PostgreSQL"

    def __init__(self, address: Address) -> None:
        self._address = address
        self._link = Link(address)

    def close(self) -> None:
        self._link.close()

    # ---- the shelf as a whole

    def create(self, manifest: Manifest) -> None:
        def work(connection: Connection) -> None:
            if self._is_there(connection):
                raise ShelfExists(
                    f"{self._address.shown} holds a shelf already: choose another ?schema=, or drop"
                    f" that schema"
                )
            with connection.transaction():
                create_tables(connection, self._address.place)
                connection.execute(
                    "INSERT INTO state VALUES (true, 0, 0, 0, 0, %s)", [_text(manifest)]
                )

        self._link.run(work)
        self._link.close()  # the next connection knows the new types and functions

    def _is_there(self, connection: Connection) -> bool:
        found = connection.execute(
            "SELECT to_regclass(%s) IS NOT NULL", [f'"{self._address.place}".state']
        ).fetchone()
        return bool(found and found[0])

    def state(self) -> State:
        def work(connection: Connection) -> State:
            if not self._is_there(connection):
                raise no_shelf(self._address.shown)
            return _state(connection)

        return self._link.run(work)

    def log(self, after: int, upto: int) -> list[Change]:
        query = (
            "SELECT generation, head, body FROM log WHERE generation > ? AND generation <= ?"
            " ORDER BY generation"
        )
        found = self._all(query, [after, upto])
        return [
            (generation, json.loads(head), json.loads(body)) for generation, head, body in found
        ]

    def files(self, version: int) -> dict[str, bytes]:
        found = self._all("SELECT name, bytes FROM files WHERE version = ?", [version])
        return {name: bytes(content) for name, content in found}

    # ---- writing

    def lock(self, wait: float) -> None:
        deadline = time.monotonic() + wait
        while True:
            try:
                self._link.run(self._link.lock_here)
            except ShelfLocked:
                if time.monotonic() >= deadline:
                    raise
                time.sleep(min(0.2, wait))
                continue
            self._link.locked = True
            return

    def unlock(self) -> None:
        self._link.locked = False
        with tolerated(KinshelfError, room="store", then="the lock goes with its connection"):
            self._link.run(self._link.unlock_here)

    def undo(self, state: State) -> None:
        """A transaction that was not committed has left nothing."""

    def commit(self, batch: Batch) -> None:
        self._link.run(lambda connection: self._commit(connection, batch))

    def _commit(self, connection: Connection, batch: Batch) -> None:
        with connection.transaction():
            now = connection.execute("SELECT generation FROM state FOR UPDATE").fetchone()
            generation = now[0] if now else -1
            if generation == batch.generation and self._is_done(connection, batch):
                return  # the answer to an earlier try was lost, the change was not
            if generation != batch.generation - 1:
                raise overtaken(self._address.shown, generation, batch.generation - 1)
            self._write(connection, batch)

    def _is_done(self, connection: Connection, batch: Batch) -> bool:
        found = connection.execute("SELECT token FROM log ORDER BY generation DESC LIMIT 1")
        return bool(found.fetchone() == (batch.token,))

    def _write(self, connection: Connection, batch: Batch) -> None:
        generation = batch.generation
        if removed := batch.head.get("removed"):
            connection.execute(
                "UPDATE products SET removed = %s WHERE row = ANY(%s)", [generation, removed]
            )
        if products := batch.body.get("products"):
            assert batch.vectors is not None
            copy_in(connection, generation, products, batch.vectors)
        for name, content in batch.files.items():
            connection.execute(
                "INSERT INTO files VALUES (%s, %s, %s)",
                [batch.head["probe"]["version"], name, content],
            )
        body = {name: part for name, part in batch.body.items() if name != "products"}
        connection.execute(
            "INSERT INTO log VALUES (%s, %s, %s, %s)",
            [generation, batch.token, entry_text(batch.head), entry_text(body)],
        )
        connection.execute(
            "UPDATE state SET generation = %s, next_row = %s", [generation, batch.next_row]
        )

    def set_manifest(self, manifest: Manifest) -> None:
        text = _text(manifest)
        self._link.run(lambda c: c.execute("UPDATE state SET manifest = %s", [text]))

    # ---- reading

    def translate(self, where: Filter, attributes: dict[str, str], mixed: set[str]) -> Condition:
        link = self._link
        return to_postgres(where, attributes, folds=link.folds, normalizes=link.normalizes)

    def _all(self, query: str, parameters: Sequence[Any], *, binary: bool = False) -> list[Any]:
        sql = query.replace("?", "%s")

        def work(connection: Connection) -> list[Any]:
            with connection.cursor(binary=binary) as cursor:
                return list(cursor.execute(sql, list(parameters)).fetchall())

        return self._link.run(work)

    def count(self, where: Where, upto: int | None = None) -> int:
        sql, parameters = clauses(where)
        query = f"SELECT count(*) FROM products p WHERE {sql}"
        if upto is not None:
            inner = f"SELECT 1 FROM products p WHERE {sql} LIMIT ?"
            query, parameters = f"SELECT count(*) FROM ({inner}) q", [*parameters, upto]
        return int(self._all(query, parameters)[0][0])

    def categories(self, where: Where) -> dict[str | None, int]:
        sql, parameters = clauses(where)
        query = f"SELECT category, count(*) FROM products p WHERE {sql} GROUP BY category"
        return dict(self._all(query, parameters))

    def scan(
        self,
        where: Where,
        columns: Sequence[str],
        *,
        vectors: bool = False,
        after: int = -1,
        limit: int | None = None,
        offset: int = 0,
        size: int = 4096,
    ) -> Iterator[Scanned]:
        sql, parameters = clauses(where)
        names = ["row", *columns] + (["vector"] if vectors else [])
        read = {"vector": "vector_send(p.embedding)"}
        fields = ", ".join(read.get(name, f"p.{name}") for name in names)
        query = f"SELECT {fields} FROM products p WHERE {sql} AND p.row > ? ORDER BY p.row"
        left = limit
        while left is None or left > 0:
            wanted = size if left is None else min(size, left)
            part = f"{query} LIMIT ? OFFSET ?"
            found = self._all(part, [*parameters, after, wanted, offset], binary=vectors)
            if found:
                after, offset = found[-1][0], 0
                left = None if left is None else left - len(found)
                yield scanned(found, len(columns), vectors=vectors)
            if len(found) < wanted:
                return

    def vectors(self, rows: IntArray) -> FloatArray:
        distinct, places = np.unique(rows, return_inverse=True)
        query = (
            "SELECT row, vector_send(embedding) FROM products WHERE row = ANY(?::bigint[])"
            " ORDER BY row"
        )
        found = self._all(query, [distinct.tolist()], binary=True)
        if len(found) != len(distinct):
            raise lacking(len(distinct) - len(found))
        return floats([row[1] for row in found])[places]

    def nearest(
        self, queries: FloatArray, k: int, where: Where, indexed: bool, fetch: Fetch
    ) -> Candidates:
        matching = self.count(where, EXACT_ROWS + 1) if indexed else 0
        if not indexed or matching <= EXACT_ROWS:
            return Candidates(padded(self._exact(queries, k, where), k + SPARE), exhaustive=True)
        found = self._approximate(queries, k, where)
        few = [i for i, rows in enumerate(found) if len(rows) < k]
        for i, rows in zip(few, self._exact(queries[few], k, where), strict=True):
            found[i] = rows
        return Candidates(padded(found, k + SPARE), exhaustive=len(few) == len(queries))

    def _exact(self, queries: FloatArray, k: int, where: Where) -> list[list[int]]:
        sql, parameters = clauses(where)
        query = (
            f"SELECT p.row FROM products p WHERE {sql} ORDER BY p.embedding <#> ?::vector, p.row"
            " LIMIT ?"
        )
        return self._each(query, [[*parameters, q, k + SPARE] for q in queries], {})

    def _approximate(self, queries: FloatArray, k: int, where: Where) -> list[list[int]]:
        sql, parameters = clauses(where)
        kind = f"halfvec({queries.shape[1]})"
        query = (
            f"WITH c AS MATERIALIZED (SELECT p.row, p.embedding FROM products p WHERE {sql}"
            f" ORDER BY p.embedding::{kind} <#> ?::vector::{kind} LIMIT ?)"
            " SELECT row FROM c ORDER BY embedding <#> ?::vector, row LIMIT ?"
        )
        given = queries.reshape(len(queries), 2, -1).any(axis=2)
        effort = _SEARCH if given.all() else _SEARCH_ONE_HALF
        settings = {
            "hnsw.ef_search": max(effort, min(1000, 4 * k)),
            "hnsw.iterative_scan": "strict_order",
            "hnsw.max_scan_tuples": _SCANNED,
        }
        wide = 4 * k + SPARE
        asked = [[*parameters, q, wide, q, k + SPARE] for q in queries]
        return self._each(query, asked, settings)

    def _each(
        self, query: str, asked: list[list[Any]], settings: dict[str, Any]
    ) -> list[list[int]]:
        """The rows that one query gives for each list of parameters, in one round trip."""
        sql = query.replace("?", "%s")

        def work(connection: Connection) -> list[list[int]]:
            with connection.transaction(), connection.pipeline():
                for name, value in settings.items():
                    connection.execute(f"SET LOCAL {name} = {value}")
                cursors = [connection.execute(sql, parameters) for parameters in asked]
                return [[row[0] for row in cursor.fetchall()] for cursor in cursors]

        return self._link.run(work) if asked else []

    # ---- care

    def build_index(self, rows: int) -> None:
        def work(connection: Connection) -> None:
            width = connection.execute("SELECT vector_dims(embedding) FROM products LIMIT 1")
            dimensions = (width.fetchone() or (0,))[0]
            with connection.transaction():
                connection.execute("SET LOCAL statement_timeout = 0")
                connection.execute(INDEX.format(width=int(dimensions)))
                connection.execute("UPDATE state SET indexed = %s", [rows])

        self._link.run(work)

    def index_bytes(self) -> int:
        query = "SELECT coalesce(pg_relation_size(to_regclass('products_embedding')), 0)"
        return int(self._all(query, [])[0][0])

    def compact(self, base: int) -> int:
        def work(connection: Connection) -> int:
            with connection.transaction():
                connection.execute("SET LOCAL statement_timeout = 0")
                gone = connection.execute("DELETE FROM products WHERE removed <= %s", [base])
                connection.execute("UPDATE state SET base = %s", [base])
            return int(gone.rowcount)

        return self._link.run(work)


def _state(connection: Connection) -> State:
    row = connection.execute(
        "SELECT generation, next_row, base, indexed, manifest FROM state"
    ).fetchone()
    assert row is not None, "made with the schema, in one transaction"
    generation, next_row, base, indexed, manifest = row
    return State(generation, next_row, base, indexed, Manifest(**json.loads(manifest)))


def _text(manifest: Manifest) -> str:
    return json.dumps(asdict(manifest), sort_keys=True)
