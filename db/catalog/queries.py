"""Questions to the catalogue, each answered as of one generation."""

from __future__ import annotations

import contextlib
import functools
import json
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from kinshelf.db.arrays import IntArray
from kinshelf.db.filters.names import PREDICTED_CATEGORY
from kinshelf.db.product import TEXT_COLUMNS, Product, StoredProduct, pictures_of
from kinshelf.db.text import is_kept

if TYPE_CHECKING:
    import duckdb

    from kinshelf.db.catalog.records import CommitRecord, ProbeRecord, RejectRecord
    from kinshelf.db.catalog.tables import Catalog
    from kinshelf.db.filters.compiler import Filter

FILTER_COLUMNS = {
    **dict.fromkeys(TEXT_COLUMNS, "text"),
    "price": "number", "row": "number", "added": "number",
    "has_image": "boolean", "has_text": "boolean", "image_error": "text",
    "category_source": "text",
}  # fmt: skip
"""The columns that a --where may name, beside attributes, and their types."""

FIELDS = (
    "row", "id", "title", "description", "category", "price", "brand", "image", "split",
    "attributes", "has_image", "has_text", "image_hash", "image_error", "content_hash", "added",
    "decided",
)  # fmt: skip
"""The columns of a stored product, `attributes` and `decided` as JSON text."""

WRITTEN = ("title", "description", "brand", "category", "id", "attributes")
"""The columns that a search for keywords reads."""

_BLOCK = 4096
_LABEL = "category IS NOT NULL AND NOT " + PREDICTED_CATEGORY
_MOST = 1 << 30
"""Rows that are asked for at most: DuckDB takes no number of more than 63 bits."""
_MET = 4096
"""Products that a catalogue remembers: asking DuckDB takes longer than searching a small shelf."""


class Tabled(Protocol):
    """What can put its products into DuckDB: the catalogue of a directory, or of an engine."""

    def attribute_types(self) -> dict[str, str]:
        """See `View`."""

    def tabled(
        self, where: Filter | None, limit: int | None = None
    ) -> contextlib.AbstractContextManager[View]:
        """See `View`."""

    def by_rows(self, rows: Sequence[int] | IntArray) -> dict[int, StoredProduct]:
        """See `View`."""

    def select(
        self, where: Filter | None = None, *, limit: int | None = None, offset: int = 0
    ) -> list[StoredProduct]:
        """See `View`."""


class View:
    """The catalogue as of one generation; later changes, and rows removed by then, do not show."""

    def __init__(self, catalog: Catalog, generation: int) -> None:
        self.catalog = catalog
        self.generation = generation

    @contextlib.contextmanager
    def tabled(self, where: Filter | None, limit: int | None = None) -> Iterator[View]:
        """A view whose products are in DuckDB: at least those that match, or so many of them."""
        yield self

    def _run(self, query: str, parameters: Sequence[Any] = ()) -> duckdb.DuckDBPyConnection:
        return self.catalog.cursor().execute(query, list(parameters))

    def _visible(self, where: Filter | None = None) -> tuple[str, list[Any]]:
        sql = "p.added <= ? AND (p.removed IS NULL OR p.removed > ?)"
        parameters: list[Any] = [self.generation, self.generation]
        if where is None:
            return sql, parameters
        return f"{sql} AND ({where.sql})", parameters + list(where.parameters)

    def count(self, where: Filter | None = None) -> int:
        """The number of products."""
        sql, parameters = self._visible(where)
        return int(self._one(f"SELECT count(*) FROM products p WHERE {sql}", parameters)[0])

    def _one(self, query: str, parameters: Sequence[Any] = ()) -> tuple[Any, ...]:
        row = self._run(query, parameters).fetchone()
        return row if row is not None else ()

    def rows(self, where: Filter | None = None) -> IntArray:
        """Row numbers of the products that match, ascending, (n,) int64."""
        sql, parameters = self._visible(where)
        found = self._run(f"SELECT row FROM products p WHERE {sql} ORDER BY row", parameters)
        return np.asarray(found.fetchnumpy()["row"], dtype=np.int64)

    def select(
        self, where: Filter | None = None, *, limit: int | None = None, offset: int = 0
    ) -> list[StoredProduct]:
        """Products that match, by row."""
        sql, parameters = self._visible(where)
        fields = ", ".join(f"p.{name}" for name in FIELDS)
        limits = [min(number, _MOST) for number in (limit, offset) if number is not None]
        if limit is None:
            query = f"SELECT {fields} FROM products p WHERE {sql} ORDER BY p.row OFFSET ?"
        else:  # whole products are read of the page alone: far pages take a tenth of the time
            page = f"SELECT row FROM products p WHERE {sql} ORDER BY row LIMIT ? OFFSET ?"
            query = f"SELECT {fields} FROM products p WHERE p.row IN ({page}) ORDER BY p.row"
        return [stored_product(row) for row in self._run(query, parameters + limits).fetchall()]

    def written_after(self, row: int) -> Iterator[list[tuple[Any, ...]]]:
        """What is written of the products of later rows, whatever became of them: blocks of rows,
        each row's number and its `WRITTEN`, attributes as the text of their values."""
        query = f"SELECT row, {', '.join(WRITTEN)} FROM products WHERE row > ? ORDER BY row"
        found = self._run(query, [row])
        while block := found.fetchmany(_BLOCK):
            yield [(*each[:-1], values_of(each[-1])) for each in block]

    def any_lack(self, modality: str) -> bool:
        """Whether there may be a product without "has_image" or "has_text": one that is there, or
        was."""
        if self.catalog.lacking is None:
            names = ("has_image", "has_text")
            found = self._one(
                "SELECT " + ", ".join(f"coalesce(bool_or(NOT {n}), false)" for n in names)
                + " FROM products"
            )  # fmt: skip
            self.catalog.lacking = {n for n, lacks in zip(names, found, strict=True) if lacks}
        return modality in self.catalog.lacking

    def decided(self) -> list[StoredProduct]:
        """Products of which a person or a probe set something, by row."""
        sql, parameters = self._visible()
        fields = ", ".join(f"p.{name}" for name in FIELDS)
        query = f"SELECT {fields} FROM products p WHERE {sql} AND p.decided IS NOT NULL"
        found = self._run(f"{query} ORDER BY p.row", parameters).fetchall()
        return [stored_product(row) for row in found]

    def pictures(self) -> tuple[set[str], set[str]]:
        """What the products of any kept generation name as their pictures, and content hashes."""
        query = "SELECT DISTINCT image, image_hash, attributes->>'images' FROM products"
        names, hashes = set[str](), set[str]()
        for image, digests, listed in self._run(query).fetchall():
            names.update(pictures_of(Product("", image=image, attributes={"images": listed})))
            hashes.update(filter(None, (digests or "").split(",")))
        return names, hashes

    def by_rows(self, rows: Sequence[int] | IntArray) -> dict[int, StoredProduct]:
        """The products of some row numbers, whatever became of them since."""
        wanted = {int(row) for row in rows}
        known = {row: p for row in wanted if (p := self.catalog.met.get(row)) is not None}
        if len(known) == len(wanted):
            return known
        found = self._by_rows(sorted(wanted - known.keys()))
        if len(found) <= _MET:  # what stands in a row never changes
            if len(self.catalog.met) > _MET:
                self.catalog.met.clear()
            self.catalog.met.update(found)
        return known | found

    def _by_rows(self, rows: list[int]) -> dict[int, StoredProduct]:
        fields = ", ".join(f"p.{name}" for name in FIELDS)
        query = f"SELECT {fields} FROM products p WHERE row IN (SELECT unnest(?::BIGINT[]))"
        return {row[0]: stored_product(row) for row in self._run(query, [rows]).fetchall()}

    def by_ids(self, ids: Sequence[str]) -> dict[str, StoredProduct]:
        """The products of some ids; an id that is not there is absent from the answer."""
        sql, parameters = self._visible()
        fields = ", ".join(f"p.{name}" for name in FIELDS)
        query = (
            f"SELECT {fields} FROM products p WHERE {sql} AND p.id IN (SELECT unnest(?::VARCHAR[]))"
        )
        found = self._run(query, [*parameters, list(filter(is_kept, ids))]).fetchall()
        return {row[1]: stored_product(row) for row in found}

    def versions(self, product_id: str) -> list[StoredProduct]:
        """All rows that an id ever had, as far as they are kept, oldest first."""
        fields = ", ".join(f"p.{name}" for name in FIELDS)
        query = f"SELECT {fields} FROM products p WHERE p.id = ? AND p.added <= ? ORDER BY p.row"
        found = self._run(query, [product_id, self.generation]) if is_kept(product_id) else None
        return [stored_product(row) for row in found.fetchall()] if found else []

    def row_by_id(self) -> dict[str, int]:
        """Every id and its row."""
        sql, parameters = self._visible()
        found = self._run(f"SELECT id, row FROM products p WHERE {sql}", parameters).fetchnumpy()
        return dict(zip(found["id"].tolist(), found["row"].tolist(), strict=True))

    def near_ids(self, product_id: str, limit: int = 3) -> list[str]:
        """Ids that look like a given one, nearest first."""
        sql, parameters = self._visible()
        query = (
            f"SELECT id, jaro_winkler_similarity(id, ?) AS alike FROM products p WHERE {sql}"
            " AND alike > 0.7 ORDER BY alike DESC, id LIMIT ?"
        )
        query_id = product_id.encode("utf-8", "replace").decode()
        return [row[0] for row in self._run(query, [query_id, *parameters, limit]).fetchall()]

    def labelled(
        self, split: str | None = None, *, predicted: bool = False
    ) -> tuple[IntArray, NDArray[np.object_]]:
        """Rows and categories of the categorised products, of one split if named; those that a
        probe predicted only if `predicted`."""
        sql, parameters = self._visible()
        if split is not None:
            sql, parameters = f"{sql} AND p.split = ?", [*parameters, split]
        label = "category IS NOT NULL" if predicted else _LABEL
        query = f"SELECT row, category FROM products p WHERE {sql} AND {label} ORDER BY row"
        found = self._run(query, parameters).fetchall()
        categories = np.empty(len(found), dtype=object)
        categories[:] = [row[1] for row in found]
        return np.array([row[0] for row in found], dtype=np.int64), categories

    def categories(self) -> dict[str | None, int]:
        """Products per category, the uncategorised under None, largest first."""
        sql, parameters = self._visible()
        query = (
            f"SELECT category, count(*) FROM products p WHERE {sql}"
            " GROUP BY category ORDER BY count(*) DESC, category"
        )
        return dict(self._run(query, parameters).fetchall())

    def totals(self) -> dict[str, int]:
        """Counts for `info`."""
        sql, parameters = self._visible()
        names = ("products", "categorised", "with_image", "with_text", "image_failed")
        query = (
            "SELECT count(*), count(category), count(*) FILTER (WHERE has_image),"
            f" count(*) FILTER (WHERE has_text), count(image_error) FROM products p WHERE {sql}"
        )
        return dict(zip(names, map(int, self._one(query, parameters)), strict=True))

    def attribute_types(self) -> dict[str, str]:
        """Attribute names and their types (`text`, `number`, `boolean`); text if they differ."""
        return self._attribute_types

    @functools.cached_property
    def _attribute_types(self) -> dict[str, str]:
        query = (
            "SELECT name, list(DISTINCT type) FROM attributes WHERE generation <= ?"
            " GROUP BY name ORDER BY name"
        )
        found = self._run(query, [self.generation]).fetchall()
        return {name: types[0] if len(types) == 1 else "text" for name, types in found}

    def changes_since(self, generation: int) -> list[tuple[int, str | None, bool, str | None]]:
        """The products that came since, by row: row, category, whether the id was there before,
        and the category that it had then; a predicted one counts as none. A compacted shelf has
        forgotten what was before."""
        sql, parameters = self._visible()
        query = (
            f"SELECT p.row, CASE WHEN {_LABEL.replace('category', 'p.category', 1)} THEN"
            " p.category END, o.id IS NOT NULL, o.category FROM products p"
            " LEFT JOIN products o ON o.id = p.id AND o.added <= ? AND o.removed > ?"
            f" WHERE {sql} AND p.added > ? ORDER BY p.row"
        )
        return self._run(query, [generation, generation, *parameters, generation]).fetchall()

    def changed_in(self, generation: int, kind: str) -> dict[str, int]:
        """Ids and rows that came in one generation, if it was of that kind: by id, all of them."""
        query = (
            "SELECT p.id, p.row FROM products p JOIN commits c ON c.generation = p.added"
            " WHERE p.added = ? AND c.kind = ? AND c.generation <= ? ORDER BY p.row"
        )
        return dict(self._run(query, [generation, kind, self.generation]).fetchall())

    def replaced_since(self, generation: int) -> tuple[IntArray, IntArray]:
        """Rows that came since and are there, and rows of then that are gone, ascending, (n,) int64
        each. Rows that came and went in between are in neither."""
        sql, parameters = self._visible()
        came = f"SELECT row FROM products p WHERE {sql} AND p.added > ? ORDER BY row"
        gone = (
            "SELECT row FROM products WHERE added <= ? AND removed > ? AND removed <= ?"
            " ORDER BY row"
        )
        asked = ((came, [*parameters, generation]), (gone, [generation] * 2 + [self.generation]))
        one, two = (self._run(*each).fetchnumpy()["row"] for each in asked)
        return np.asarray(one, dtype=np.int64), np.asarray(two, dtype=np.int64)

    def removed_since(self, generation: int) -> int:
        """Count the products removed since then, as far as the shelf keeps them."""
        sql, parameters = self._visible()
        query = (
            "SELECT count(*) FROM products o WHERE o.added <= ? AND o.removed > ?"
            f" AND o.removed <= ? AND o.id NOT IN (SELECT p.id FROM products p WHERE {sql})"
        )
        values = [generation, generation, self.generation, *parameters]
        return int(self._one(query, values)[0])

    def commits(self, limit: int | None = None) -> list[CommitRecord]:
        """Committed changes, newest first."""
        names = ("generation", "time", "kind", "command", "inserted", "updated", "removed",
                 "rejected", "operation", "who")  # fmt: skip
        query = (
            "SELECT generation, strftime(time, '%Y-%m-%dT%H:%M:%SZ'), kind, command, inserted,"
            " updated, removed, rejected, coalesce(operation, generation), coalesce(who, '')"
            " FROM commits WHERE generation <= ?"
            " ORDER BY generation DESC"
        )
        found = self._run(query, [self.generation]).fetchmany(min(limit or _MOST, _MOST))
        return [cast("CommitRecord", dict(zip(names, row, strict=True))) for row in found]

    def rejects(self, *, kept: bool | None = None) -> list[RejectRecord]:
        """Rejected rows that were not resolved since, oldest first."""
        names = ("key", "source", "position", "id", "reason", "message", "kept", "record")
        query = (
            f"SELECT {', '.join(names)} FROM rejects WHERE generation <= ?"
            " AND (resolved IS NULL OR resolved > ?)"
        )
        parameters: list[Any] = [self.generation, self.generation]
        if kept is not None:
            query, parameters = f"{query} AND kept = ?", [*parameters, kept]
        found = self._run(f"{query} ORDER BY generation, position", parameters).fetchall()
        return [cast("RejectRecord", dict(zip(names, row, strict=True))) for row in found]

    def probes(self) -> list[ProbeRecord]:
        """The probes trained by then, oldest first."""
        query = (
            "SELECT version, generation, trained_on, classes, files, metrics FROM probes"
            " WHERE generation <= ? ORDER BY version"
        )
        return [
            {
                "version": version, "generation": generation, "trained_on": trained_on,
                "classes": classes, "files": json.loads(files), "metrics": json.loads(metrics),
            }
            for version, generation, trained_on, classes, files, metrics in self._run(
                query, [self.generation]
            ).fetchall()
        ]  # fmt: skip


def values_of(attributes: str | None) -> str:
    """The values of attributes, as JSON text, in one text."""
    values = json.loads(attributes).values() if attributes else ()
    return " ".join(str(value) for value in values if value is not None)


def stored_product(row: Sequence[Any]) -> StoredProduct:
    """The product of a row of the catalogue, its columns as in `FIELDS`."""
    attributes = json.loads(row[9]) if row[9] else {}
    fields: dict[str, Any] = dict(zip(FIELDS[1:9], row[1:9], strict=True))
    product = Product(**fields, attributes=attributes)
    decided = json.loads(row[16]) if row[16] else {}
    return StoredProduct(product, row[0], *(*row[10:16], decided))
