"""Rows of PostgreSQL: which ones, as a clause; and vectors as their bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from kinshelf.db.arrays import FloatArray
from kinshelf.db.catalog.tables import COLUMNS, DECIDED

if TYPE_CHECKING:
    from psycopg import Connection

    from kinshelf.store.engines.backend import Scanned, Where

_TYPES = [
    "int8", "text", "text", "text", "text", "float8", "text", "text", "text", "text", "bool",
    "bool", "text", "text", "text", "text", "int8", "vector",
]  # fmt: skip


def clauses(where: Where) -> tuple[str, list[Any]]:
    """The WHERE clause over `products p`, and its parameters in the order of their `?`."""
    clauses: list[str] = []
    parameters: list[Any] = []

    def add(clause: str, *values: Any) -> None:
        clauses.append(clause)
        parameters.extend(values)

    if where.generation is not None:
        now = where.generation
        add("p.added <= ? AND (p.removed IS NULL OR p.removed > ?)", now, now)
    if where.gone_by is not None:
        add("p.removed <= ?", where.gone_by)
    for condition in where.conditions:
        if condition.text:
            add(f"({condition.text})", *condition.parameters)
    if where.rows is not None:
        add("p.row = ANY(?::bigint[])", where.rows.tolist())
    if where.ids is not None:
        add("p.id = ANY(?::text[])", list(where.ids))
    if where.exclude is not None:
        add("p.row <> ALL(?::bigint[])", where.exclude.tolist())
    return " AND ".join(clauses) or "true", parameters


def scanned(found: list[Any], columns: int, *, vectors: bool) -> Scanned:
    rows = [row[1 : 1 + columns] for row in found]
    return rows, floats([row[-1] for row in found]) if vectors else None


def floats(sent: list[bytes]) -> FloatArray:
    """Read the output of vector_send: two 16-bit numbers, then the values, big-endian."""
    if not sent:
        return np.zeros((0, 0), dtype=np.float32)
    values = np.frombuffer(b"".join(sent), dtype=">f4").reshape(len(sent), -1)
    return values[:, 1:].astype(np.float32)


def copy_in(
    connection: Connection, generation: int, products: dict[str, list[Any]], vectors: FloatArray
) -> None:
    from pgvector import Vector

    names = ", ".join((*COLUMNS, DECIDED, "added", "embedding"))
    columns = [products[name] for name in COLUMNS]
    columns.append(products.get(DECIDED) or [None] * len(vectors))
    added = products.get("added", [generation] * len(vectors))
    statement = f"COPY products ({names}) FROM STDIN WITH (FORMAT binary)"
    with connection.cursor() as cursor, cursor.copy(statement) as copy:
        copy.set_types(_TYPES)
        for row in zip(*columns, added, map(Vector, vectors), strict=True):
            copy.write_row(row)
