"""One committed generation of a shelf, from which every answer is computed.

A snapshot never changes. It takes no lock and waits for no writer, so an answer cannot mix
metadata and vectors of different states.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from kinshelf.db.arrays import BoolArray, FloatArray, IntArray
from kinshelf.db.catalog.queries import View
from kinshelf.db.mapping import check_whole, is_whole
from kinshelf.store.generation import Among, AnySnapshot
from kinshelf.store.search import fusion
from kinshelf.store.search.neighbours import Neighbours, neighbours_of
from kinshelf.store.search.paging import looked_at
from kinshelf.store.search.planner import Rows, nearest, unranked

if TYPE_CHECKING:
    from kinshelf.db.product import StoredProduct
    from kinshelf.store.search.hnsw import Hnsw

_FILTERS = 16
"""Filters whose matches a snapshot remembers, a byte a row each."""
_IDS = 4096
"""Ids whose row it remembers."""
_FEW = 4096
"""Products that lack a modality, of which it remembers the other one's embeddings."""
_ROUNDING = 1e-5
"""Of a cosine in float32, with room to spare."""


@dataclass(frozen=True, slots=True)
class Parts:
    """The parts of a snapshot; arrays are shared with the shelf and only ever grow."""

    generation: int
    fingerprint: str
    vectors: FloatArray
    first_row: int
    removed_at: IntArray


class Snapshot(AnySnapshot):
    """A shelf as of `generation`."""

    view: View

    def __init__(
        self, parts: Parts, view: View, index: Callable[[FloatArray], Hnsw | None]
    ) -> None:
        self.generation = parts.generation
        self.fingerprint = parts.fingerprint
        self._parts = parts
        self._index_of = index
        self._matched: dict[str, BoolArray] = {}
        self._row_of: dict[str, int] = {}
        self.view = view

    @property
    def whole(self) -> bool:
        """Whether all that was read of its vectors was there; see `db.mapping`."""
        return is_whole(self._parts.vectors)

    def searched(self, keep: BoolArray | None = None) -> Rows:
        """The rows that a search covers: all products, or those whose places are flagged."""
        if keep is None and self.count < len(self._live):
            keep = self._live
        return Rows(self._vectors, self._index_of(self._vectors), keep)

    @functools.cached_property
    def _vectors(self) -> FloatArray:
        """No longer a memmap, of which each view takes ten times as long."""
        return np.asarray(self._parts.vectors)

    @functools.cached_property
    def _live(self) -> BoolArray:
        removed = self._parts.removed_at[: len(self._parts.vectors)]
        return np.greater(removed, self.generation)

    @functools.cached_property
    def count(self) -> int:
        """The number of products."""
        return int(np.count_nonzero(self._live))

    @property
    def dimension(self) -> int:
        """The dimension of one modality."""
        return int(self._parts.vectors.shape[1]) // 2

    def pairs(self, rows: IntArray | Sequence[int]) -> FloatArray:
        """Unit image and text embeddings as stored, (len(rows), 2 * dimension) float32, a copy."""
        places = np.asarray(rows, dtype=np.int64) - self._parts.first_row
        found = self._vectors[places].astype(np.float32, copy=False)
        looked_at(self._vectors, len(places), apart=True)
        check_whole(self._vectors)
        return found

    def _nearest(
        self, queries: FloatArray, k: int, among: Among, weight_image: float
    ) -> Neighbours:
        weighted = fusion.Weighting(weight_image).query(queries)
        searched = self.searched(self._kept(among))
        places, exhaustive = _found(searched, weighted, k)
        if searched.graph and not searched.graph.whole:
            searched = replace(searched, graph=None)
            places, exhaustive = _found(searched, weighted, k)
        looked_at(self._vectors, places.size, apart=True)
        rows = np.where(places < 0, -1, places + self._parts.first_row)
        near = searched.at(np.maximum(places, 0))
        check_whole(self._vectors)
        found = neighbours_of(queries, rows, near, weight_image, exhaustive=exhaustive)
        return found if places.shape[1] <= k else found.first(k)

    def _may_come_among(self, found: Neighbours, alone: FloatArray, lacking: str) -> bool:
        if lacking not in self._alone:
            rows = np.flatnonzero(self._matching(lacking) & self._live)
            few = None if len(rows) > _FEW else self.pairs(rows + self._parts.first_row)
            self._alone[lacking] = few
        pairs = self._alone[lacking]
        if pairs is None or not pairs.size or not found.rows.shape[1]:
            return pairs is None
        nearest_of_them = (alone @ pairs.T).max(axis=1)
        last = np.where(found.rows[:, -1] < 0, -np.inf, found.similarities[:, -1])
        return bool((nearest_of_them > last - _ROUNDING).any())

    @functools.cached_property
    def _alone(self) -> dict[str, FloatArray | None]:
        return {}

    @functools.cached_property
    def _labelled(self) -> BoolArray:
        return self._mask(self.labelled()[0])

    def _mask(self, rows: IntArray | Sequence[int]) -> BoolArray:
        mask = np.zeros(len(self._live), dtype=np.bool_)
        mask[np.asarray(rows, dtype=np.int64) - self._parts.first_row] = True
        return mask

    def _kept(self, among: Among) -> BoolArray | None:
        filters = [each for each in (among.where, among.also) if each is not None]
        if not filters and among.rows is None and not among.labelled_only and not among.exclude:
            return None
        keep = self._labelled if among.labelled_only else self._live
        for each in filters:
            keep = keep & self._matching(each)
        if among.rows is not None:
            keep = keep & self._mask(among.rows)
        if among.exclude:
            keep = keep.copy()
            keep[np.asarray(among.exclude, dtype=np.int64) - self._parts.first_row] = False
        return None if keep.all() else keep

    def _matching(self, where: str) -> BoolArray:
        """The rows that match a filter; the newest filters are remembered."""
        known = self._matched.get(where)
        if known is None:
            known = self._mask(self.view.rows(self.filter(where)))
            if len(self._matched) >= _FILTERS:
                self._matched.clear()
            self._matched[where] = known
        return known

    def rows(self, where: str | None = None) -> IntArray:
        """See `AnySnapshot.rows`."""
        kept = self._live if where is None else self._live & self._matching(where)
        return np.flatnonzero(kept) + self._parts.first_row

    def sample(self, count: int) -> IntArray:
        """See `AnySnapshot.sample`."""
        rows = np.flatnonzero(self._live) + self._parts.first_row
        return rows[:: max(-(-len(rows) // count), 1)]

    def get(self, product_id: str) -> StoredProduct:
        """The product of an id. Raises ProductNotFound, naming ids that look like it."""
        if (row := self._row_of.get(product_id)) is not None:
            return self.view.by_rows([row])[row]
        found = super().get(product_id)
        if len(self._row_of) >= _IDS:
            self._row_of.clear()
        self._row_of[product_id] = found.row
        return found


def _found(rows: Rows, queries: FloatArray, k: int) -> tuple[IntArray, bool]:
    """Places of which the k nearest are some, (n, k or more), and whether all were scored."""
    if len(queries) == 1 and (likely := unranked(rows, queries, k)) is not None:
        return likely, False
    found = nearest(rows, queries, k)
    return found.places, found.exhaustive
