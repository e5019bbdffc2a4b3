"""The metadata of one generation of a shelf on an engine.

Products are asked of the engine; the small rest (commits, rejects, probes, attributes) is read from
the change log into DuckDB once and then followed, so it is answered as in a directory.
"""

from __future__ import annotations

import contextlib
import difflib
import functools
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from kinshelf.db.arrays import IntArray
from kinshelf.db.catalog.queries import (
    FIELDS,
    FILTER_COLUMNS,
    WRITTEN,
    View,
    stored_product,
    values_of,
)
from kinshelf.db.catalog.tables import COLUMNS, DECIDED, Catalog
from kinshelf.db.errors import FilterError, GenerationNotFound
from kinshelf.db.product import StoredProduct
from kinshelf.db.text import clean_key, is_key
from kinshelf.store.engines.backend import Condition, Where, lacking

if TYPE_CHECKING:
    from kinshelf.db.filters.compiler import Filter
    from kinshelf.store.engines.backend import Backend, Scanned

READ_ROWS = 200_000
"""Up to so many products are read to decide here what the engine cannot."""
PREDICT, COPY = "predict", "copy"
"""The kinds of the changes that may bring predicted categories."""
_ASKED = 4096
"""Rows or ids that one question to the engine names."""
_NEAR = 200
_TABLE = (*COLUMNS, DECIDED, "added")
_FILTERS = 16
"""Filters that a view remembers, with the rows where these were decided here."""


class EngineView(View):
    """See `View`; `log` is the change log up to `generation`."""

    def __init__(self, backend: Backend, log: Catalog, generation: int) -> None:
        super().__init__(log, generation)
        self._backend = backend
        self._resolved: dict[tuple[Any, ...], Where] = {}

    def scan(self, where: Where, columns: Sequence[str], **asked: Any) -> Iterator[Scanned]:
        """See `Backend.scan`. Raises GenerationNotFound if rows that this generation sees were
        dropped meanwhile."""
        yield from self._backend.scan(where, columns, **asked)
        if where.generation is not None and self._backend.state().base > self.generation:
            raise GenerationNotFound(
                f"generation {self.generation} was compacted away while it was read: run this again"
            )

    # ---- filters

    def checked(self, expression: str) -> Filter:
        """A filter from an expression. Raises FilterError."""
        from kinshelf.db.filters.filter import compile_where

        return compile_where(expression, FILTER_COLUMNS, self.attribute_types(), folds=True)

    def where(self, *filters: Filter | None) -> Where:
        """The products that match all of the filters. Raises FilterError."""
        wheres = [self._where(each) for each in filters if each is not None]
        rows = [where.rows for where in wheres if where.rows is not None]
        common = functools.reduce(np.intersect1d, rows) if rows else None
        conditions = tuple(c for where in wheres for c in where.conditions)
        return Where(self.generation, conditions=conditions, rows=common)

    def _where(self, wanted: Filter) -> Where:
        key = (wanted.canonical, *wanted.parameters)
        known = self._resolved.get(key)  # another thread may clear them meanwhile
        if known is None:
            translated = self._backend.translate(wanted, self.attribute_types(), self._mixed())
            rows = None if translated.exact else self._decided_here(wanted, translated)
            known = Where(self.generation, conditions=(translated,), rows=rows)
            if len(self._resolved) >= _FILTERS:
                self._resolved.clear()
            self._resolved[key] = known
        return known

    def _decided_here(self, wanted: Filter, translated: Condition) -> IntArray:
        """Rows that match, by DuckDB, among those that the engine lets through."""
        wide = Where(self.generation, conditions=(translated,))
        if self._backend.count(wide, READ_ROWS + 1) > READ_ROWS:
            raise FilterError(
                f"{self._backend.kind} cannot decide {wanted.canonical[:200]} by itself, and more"
                f" than {READ_ROWS} products would have to be read: join it by AND with conditions"
                " that leave fewer, such as category = 'Puzzles' or price < 20"
            )
        with self._read(wide) as table:
            return table.rows(wanted)

    @contextlib.contextmanager
    def _read(self, where: Where, limit: int | None = None) -> Iterator[View]:
        """A view of some products, read from the engine into DuckDB."""
        catalog = Catalog(self.generation)
        try:
            for rows, _ in self.scan(where, _TABLE, limit=limit):
                columns = zip(*rows, strict=True)
                table = dict(zip(_TABLE, map(list, columns), strict=True))
                catalog.apply_base({"products": table})
            yield View(catalog, self.generation)
        finally:
            catalog.close()

    @contextlib.contextmanager
    def tabled(self, where: Filter | None, limit: int | None = None) -> Iterator[View]:
        asked = self.where(where)
        if limit is None and self._backend.count(asked, READ_ROWS + 1) > READ_ROWS:
            raise FilterError(
                f"{self._backend.kind} cannot count by itself, and more than {READ_ROWS} products"
                " would have to be read: give a condition that leaves fewer"
            )
        with self._read(asked, limit) as table:
            yield table

    def _mixed(self) -> set[str]:
        """Attributes whose values are of several kinds."""
        query = "SELECT name FROM attributes GROUP BY name HAVING count(DISTINCT type) > 1"
        return {name for (name,) in self._run(query).fetchall()}

    # ---- products

    def count(self, where: Filter | None = None) -> int:
        return self._backend.count(self.where(where))

    def rows(self, where: Filter | None = None) -> IntArray:
        found = [row for rows, _ in self.scan(self.where(where), ("row",)) for row in rows]
        return np.array([row for (row,) in found], dtype=np.int64)

    def select(
        self, where: Filter | None = None, *, limit: int | None = None, offset: int = 0
    ) -> list[StoredProduct]:
        scanned = self.scan(self.where(where), FIELDS, limit=limit, offset=offset)
        return [stored_product(row) for rows, _ in scanned for row in rows]

    def written_after(self, row: int) -> Iterator[list[tuple[Any, ...]]]:
        for rows, _ in self.scan(Where(), ("row", *WRITTEN), after=row):
            yield [(*each[:-1], values_of(each[-1])) for each in rows]

    def any_lack(self, modality: str) -> bool:
        return self.count(self.checked(f"NOT {modality}")) > 0

    def decided(self) -> list[StoredProduct]:
        scanned = self.scan(self.where(), ("row", "decided"))
        rows = [row for block, _ in scanned for row, decided in block if decided]
        return list(self.by_rows(rows).values())

    def by_rows(self, rows: Sequence[int] | IntArray) -> dict[int, StoredProduct]:
        wanted = np.unique(np.asarray(rows, dtype=np.int64))
        found: dict[int, StoredProduct] = {}
        for start in range(0, len(wanted), _ASKED):
            part = Where(rows=wanted[start : start + _ASKED])
            for block, _ in self.scan(part, FIELDS):
                found |= {row[0]: stored_product(row) for row in block}
        if len(found) < len(wanted):
            raise lacking(len(wanted) - len(found))
        return found

    def by_ids(self, ids: Sequence[str]) -> dict[str, StoredProduct]:
        found: dict[str, StoredProduct] = {}
        distinct = list(dict.fromkeys(filter(is_key, ids)))
        for start in range(0, len(distinct), _ASKED):
            part = Where(self.generation, ids=distinct[start : start + _ASKED])
            for block, _ in self.scan(part, FIELDS):
                found |= {row[1]: stored_product(row) for row in block}
        return found

    def versions(self, product_id: str) -> list[StoredProduct]:
        scanned = self.scan(Where(ids=[product_id]), FIELDS) if is_key(product_id) else ()
        found = [stored_product(row) for rows, _ in scanned for row in rows]
        return [stored for stored in found if stored.added <= self.generation]

    @functools.cached_property
    def predicted(self) -> IntArray:
        """Rows of the products whose category a probe predicted, ascending, (n,) int64."""
        kinds = "SELECT count(*) FROM commits WHERE generation <= ? AND kind IN (?, ?)"
        if not self._one(kinds, [self.generation, PREDICT, COPY])[0]:
            return np.zeros(0, dtype=np.int64)  # Milvus would read every product for it
        return self.rows(self.checked("category_source = 'predicted'"))

    def row_by_id(self) -> dict[str, int]:
        scanned = self.scan(self.where(), ("id", "row"))
        return {name: row for rows, _ in scanned for name, row in rows}

    def near_ids(self, product_id: str, limit: int = 3) -> list[str]:
        from kinshelf.db.filters.literals import spelled

        beginning = spelled(clean_key(product_id)[: max(len(product_id) // 2, 1)])
        near = self.where(self.checked(f"starts_with(id, {beginning})"))
        for where in (near, self.where()):
            scanned = self.scan(where, ("id",), limit=_NEAR)
            ids = [name for rows, _ in scanned for (name,) in rows]
            if ids:
                return difflib.get_close_matches(product_id, ids, limit)
        return []

    def labelled(
        self, split: str | None = None, *, predicted: bool = False
    ) -> tuple[IntArray, NDArray[np.object_]]:
        from kinshelf.db.filters.literals import spelled

        wanted = self.checked("category IS NOT NULL")
        of_split = None if split is None else self.checked(f"split = {spelled(split)}")
        scanned = self.scan(self.where(wanted, of_split), ("row", "category"), size=1 << 16)
        passed = set[int]() if predicted else set(self.predicted.tolist())
        found = [row for rows, _ in scanned for row in rows if row[0] not in passed]
        categories = np.empty(len(found), dtype=object)
        categories[:] = [category for _, category in found]
        return np.array([row for row, _ in found], dtype=np.int64), categories

    def categories(self) -> dict[str | None, int]:
        counted = self._backend.categories(self.where())
        order = sorted(counted.items(), key=lambda pair: (-pair[1], pair[0] is None, pair[0]))
        return dict(order)

    def totals(self) -> dict[str, int]:
        asked = {
            "products": None, "categorised": "category IS NOT NULL", "with_image": "has_image",
            "with_text": "has_text", "image_failed": "image_error IS NOT NULL",
        }  # fmt: skip
        return {
            name: self.count(None if expression is None else self.checked(expression))
            for name, expression in asked.items()
        }

    # ---- what changed

    def changes_since(self, generation: int) -> list[tuple[int, str | None, bool, str | None]]:
        where = self.where(self.checked(f"added > {generation}"))
        scanned = self.scan(where, ("row", "id", "category"))
        new = [row for rows, _ in scanned for row in rows]
        before = self._ids_and_categories(generation, [name for _, name, _ in new])
        guessed = set(self.predicted.tolist())
        return [
            (row, None if row in guessed else one, name in before, before.get(name))
            for row, name, one in new
        ]

    def _ids_and_categories(self, generation: int, ids: list[str]) -> dict[str, str | None]:
        found: dict[str, str | None] = {}
        for start in range(0, len(ids), _ASKED):
            part = Where(generation, ids=ids[start : start + _ASKED])
            for rows, _ in self.scan(part, ("id", "category")):
                found |= dict(rows)
        return found

    def replaced_since(self, generation: int) -> tuple[IntArray, IntArray]:
        came = self.rows(self.checked(f"added > {generation}"))
        scanned = self.scan(Where(generation, gone_by=self.generation), ("row",))
        gone = [row for rows, _ in scanned for (row,) in rows]
        return came, np.array(gone, dtype=np.int64)

    def removed_since(self, generation: int) -> int:
        where = Where(generation, gone_by=self.generation)
        gone = Counter(name for rows, _ in self.scan(where, ("id",)) for (name,) in rows)
        return len(gone) - len(self._ids_and_categories(self.generation, list(gone)))
