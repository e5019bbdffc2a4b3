"""The shelf as frames: Arrow, and by it pandas and polars.

Columns are those of `export`, so that `add` of the frame gives the same products.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from kinshelf.db.arrays import BoolArray, FloatArray
from kinshelf.db.errors import UnknownColumn
from kinshelf.db.layouts.names import EMBEDDINGS, FIELDS, attribute_name
from kinshelf.store.search import fusion

if TYPE_CHECKING:
    import pyarrow as pa

    from kinshelf.db.product import StoredProduct
    from kinshelf.store.generation import AnySnapshot

_BLOCK = 4096
MORE = ("row", "added", "has_image", "has_text", "image_error", "category_source")
"""Columns that are given where they are named."""


def table(
    snapshot: AnySnapshot,
    where: str | None = None,
    columns: Sequence[str] | None = None,
    *,
    embeddings: bool = False,
) -> pa.Table:
    """The products that match as an Arrow table, by row.

    `columns` None: the fields of a product and every attribute; `MORE` are given by name. With
    `embeddings` both as lists of float32, null where one is missing. Raises FilterError or
    UnknownColumn.
    """
    import pyarrow as pa

    kinds = _kinds(snapshot)
    names = _chosen(kinds, columns, embeddings=embeddings)
    parts = []
    for products, pairs in _blocks(snapshot, where, vectors=bool(set(names) & set(EMBEDDINGS))):
        found = {name: _column(name, kinds[name], products, pairs) for name in names}
        parts.append(pa.table(found))
    empty = pa.table({name: pa.array([], _type(kinds[name])) for name in names})
    return pa.concat_tables([empty, *parts], promote_options="permissive").combine_chunks()


def _kinds(snapshot: AnySnapshot) -> dict[str, str]:
    """Every column there is and what it holds; an attribute's "@" and its type."""
    found = dict.fromkeys(FIELDS, "text") | {"price": "number"}
    types = snapshot.view.attribute_types()
    found |= {attribute_name(name): f"@{kind} {name}" for name, kind in types.items()}
    found |= dict.fromkeys(MORE, "state")
    return found | dict.fromkeys(EMBEDDINGS, "vector")


def _chosen(kinds: dict[str, str], columns: Sequence[str] | None, *, embeddings: bool) -> list[str]:
    if columns is None:
        names = [name for name in kinds if name not in (*MORE, *EMBEDDINGS)]
    else:
        names = list(dict.fromkeys(columns))
    for name in names:
        if name not in kinds:
            raise UnknownColumn(f"no column {name!r}: there are {', '.join(kinds)}")
    return list(dict.fromkeys([*names, *(EMBEDDINGS if embeddings else ())]))


def _blocks(
    snapshot: AnySnapshot, where: str | None, *, vectors: bool
) -> Iterator[tuple[list[StoredProduct], FloatArray]]:
    if vectors:
        for block in snapshot.iter_products(where, size=_BLOCK):
            yield block.products, block.pairs
        return
    rows = snapshot.view.rows(snapshot.filter(where))
    for start in range(0, len(rows), _BLOCK):
        part = rows[start : start + _BLOCK]
        found = snapshot.view.by_rows(part)
        yield [found[int(row)] for row in part], np.empty((0, 0), dtype=np.float32)


def _column(name: str, kind: str, products: list[StoredProduct], pairs: FloatArray) -> pa.Array:
    import pyarrow as pa

    if kind == "vector":
        half = EMBEDDINGS.index(name)
        given = [(s.has_image, s.has_text)[half] for s in products]
        return _vectors(fusion.split(pairs)[half], np.array(given, dtype=np.bool_))
    if name == "category_source":
        return pa.array([stored.origin("category") for stored in products], pa.string())
    if kind == "state":
        return pa.array([getattr(stored, name) for stored in products], _type_of_state(name))
    if not kind.startswith("@"):
        return pa.array([getattr(s.product, name) for s in products], _type(kind))
    values = [stored.product.attributes.get(kind.split(" ", 1)[1]) for stored in products]
    if kind.startswith("@text"):  # of values of several types too
        return pa.array([None if v is None else str(v) for v in values], pa.string())
    return pa.array(values) if any(v is not None for v in values) else pa.nulls(len(values))


def _vectors(half: FloatArray, given: BoolArray) -> pa.Array:
    """Lists of float32 over the numbers as they lie, null where a product lacks the modality."""
    import pyarrow as pa

    width = half.shape[1]
    numbers = pa.array(np.ascontiguousarray(half).reshape(-1))
    ends = pa.array(np.arange(len(half) + 1, dtype=np.int32) * width)
    missing = None if given.all() else pa.array(~given)
    return pa.ListArray.from_arrays(ends, numbers, mask=missing)


def _type(kind: str) -> pa.DataType:
    """Of a column without a row; a number's and a state's is that of the values."""
    import pyarrow as pa

    if kind == "vector":
        return pa.list_(pa.float32())
    if kind in ("text", "number"):
        return pa.string() if kind == "text" else pa.float64()
    return pa.string() if kind.startswith("@text") else pa.null()


def _type_of_state(name: str) -> pa.DataType:
    import pyarrow as pa

    if name == "image_error":
        return pa.string()
    return pa.int64() if name in ("row", "added") else pa.bool_()
