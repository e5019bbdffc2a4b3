"""One generation of a shelf on an engine: the engine finds, the vectors themselves decide."""

from __future__ import annotations

import functools
import threading
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from kinshelf.db.arrays import FloatArray, IntArray
from kinshelf.db.catalog.queries import FIELDS, stored_product
from kinshelf.store.engines.backend import Where
from kinshelf.store.generation import BLOCK, Among, AnySnapshot, ProductBlock
from kinshelf.store.search import fusion
from kinshelf.store.search.neighbours import Neighbours, nearest_of, neighbours_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from kinshelf.db.filters.compiler import Filter
    from kinshelf.store.engines.backend import Backend, State
    from kinshelf.store.engines.view import EngineView

REMEMBERED_BYTES = 1 << 29
_FETCHED = 4096
_LISTED = 20_000
"""Rows that one search may name; of more, each part is searched by itself."""


class Vectors:
    """Embedding pairs by row, fetched once and remembered up to REMEMBERED_BYTES: a row never
    changes."""

    def __init__(self, fetch: Callable[[IntArray], FloatArray]) -> None:
        self._fetch = fetch
        self._place: dict[int, int] = {}
        self._held = np.zeros((0, 0), dtype=np.float32)
        self._lock = threading.Lock()

    def of(self, rows: IntArray) -> FloatArray:
        """The embedding pairs of rows, (n, width) float32, a copy."""
        with self._lock:
            missing = [row for row in dict.fromkeys(rows.tolist()) if row not in self._place]
            if missing:
                self._remember(missing, self._fetched(np.array(missing, dtype=np.int64)))
            if all(row in self._place for row in rows.tolist()):
                return self._held[[self._place[row] for row in rows.tolist()]]
        return self._fetched(rows)

    def _remember(self, rows: list[int], found: FloatArray) -> None:
        if (len(self._place) + len(rows)) * found[0].nbytes > REMEMBERED_BYTES:
            self._place, self._held = {}, np.zeros((0, found.shape[1]), dtype=np.float32)
        if found.nbytes > REMEMBERED_BYTES:
            return
        start = len(self._place)
        if start + len(found) > len(self._held):
            most = REMEMBERED_BYTES // found[0].nbytes
            size = min(2 * (start + len(found)), most)
            grown = np.zeros((size, found.shape[1]), dtype=np.float32)
            if start:
                grown[:start] = self._held[:start]
            self._held = grown
        self._held[start : start + len(found)] = found
        self._place |= {row: start + i for i, row in enumerate(rows)}

    def _fetched(self, rows: IntArray) -> FloatArray:
        parts = [self._fetch(rows[at : at + _FETCHED]) for at in range(0, len(rows), _FETCHED)]
        return np.concatenate(parts)


class EngineSnapshot(AnySnapshot):
    """See `AnySnapshot`."""

    view: EngineView

    def __init__(
        self, backend: Backend, state: State, generation: int, view: EngineView, vectors: Vectors
    ) -> None:
        self.generation = generation
        self.fingerprint = state.manifest.space
        self.view = view
        self._backend = backend
        self._vectors = vectors
        self._state = state
        self.indexed = state.indexed > 0

    def exactly(self) -> EngineSnapshot:
        """The same, whose searches score every product that matches."""
        given = (self._backend, self._state, self.generation, self.view, self._vectors)
        same = EngineSnapshot(*given)
        same.indexed = False
        return same

    @functools.cached_property
    def count(self) -> int:
        """The number of products."""
        return self.view.count()

    @property
    def dimension(self) -> int:
        """The dimension of one modality."""
        return self._state.manifest.dimension or 0

    def pairs(self, rows: IntArray | Sequence[int]) -> FloatArray:
        """Unit image and text embeddings as stored, (len(rows), 2 * dimension) float32, a copy."""
        wanted = np.asarray(rows, dtype=np.int64)
        if not len(wanted):
            return np.zeros((0, 2 * self.dimension), dtype=np.float32)
        return self._vectors.of(wanted)

    def sample(self, count: int) -> IntArray:
        """See `AnySnapshot.sample`; evenly spaced numbers, of which some may have no product."""
        wanted = np.arange(0, self._state.next_row, max(-(-self._state.next_row // count), 1))
        scanned = self.view.scan(Where(self.generation, rows=wanted), ("row",))
        return np.array([row for rows, _ in scanned for (row,) in rows], dtype=np.int64)

    def _nearest(
        self, queries: FloatArray, k: int, among: Among, weight_image: float
    ) -> Neighbours:
        weighted = fusion.Weighting(weight_image).query(queries)
        filters = [self.filter(among.where), self._labelled if among.labelled_only else None]
        wanted = self.view.where(*filters, self.filter(among.also))
        exclude = np.asarray(among.exclude, dtype=np.int64)
        if among.labelled_only and not self.include_predicted:
            exclude = np.union1d(exclude, self.view.predicted)
        parts = _parts(wanted, among.rows, exclude)
        asked = self._backend.nearest
        found = [asked(weighted, k, part, self.indexed, self.pairs) for part in parts]
        rows = np.concatenate([part.rows for part in found], axis=1)
        answer = neighbours_of(
            queries, rows, self._near(rows), weight_image,
            exhaustive=all(part.exhaustive for part in found),
        )  # fmt: skip
        return nearest_of([answer], k)

    @functools.cached_property
    def _labelled(self) -> Filter:
        return self.view.checked("category IS NOT NULL")

    def _near(self, rows: IntArray) -> FloatArray:
        """The embedding pairs of found rows, (n, k, width); zeros where there is none."""
        near = np.zeros((*rows.shape, 2 * self.dimension), dtype=np.float32)
        there = rows >= 0
        near[there] = self.pairs(rows[there])
        return near

    def iter_products(
        self, where: str | None = None, *, after: int = -1, size: int = BLOCK
    ) -> Iterator[ProductBlock]:
        """See `AnySnapshot.iter_products`; the engine is asked for a block at a time."""
        wanted = self.view.where(self.filter(where))
        scanned = self.view.scan(wanted, FIELDS, vectors=True, after=after, size=size)
        for rows, vectors in scanned:
            assert vectors is not None
            yield ProductBlock([stored_product(row) for row in rows], vectors)


def _parts(wanted: Where, among: IntArray | None, exclude: IntArray) -> list[Where]:
    """What a search goes through, in parts if it names too many rows for one."""
    rows = wanted.rows
    if among is not None:
        rows = among if rows is None else np.intersect1d(rows, among)
    if rows is not None and len(exclude):
        rows, exclude = np.setdiff1d(rows, exclude), exclude[:0]
    left_out = exclude if len(exclude) else None

    def part(rows: IntArray | None) -> Where:
        return Where(wanted.generation, conditions=wanted.conditions, rows=rows, exclude=left_out)

    if rows is None:
        return [part(None)]
    return [part(rows[at : at + _LISTED]) for at in range(0, max(len(rows), 1), _LISTED)]
