"""One committed generation of a shelf: what every answer is computed from.

A snapshot never changes. It takes no lock and waits for no writer, so an answer cannot mix
metadata and vectors of different states.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from kinshelf.db.errors import EmptyShelf, InvalidEmbeddings, ProductNotFound
from kinshelf.db.queries import FILTER_COLUMNS, StoredProduct, View
from kinshelf.store import fusion
from kinshelf.store.searching import Found, Rows, nearest

if TYPE_CHECKING:
    from kinshelf.db.filters import Filter
    from kinshelf.store.hnsw import Hnsw

FloatArray = NDArray[np.float32]
IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]
_FILTERS = 16
"""Filters whose matches a snapshot remembers, a byte a row each."""
_IDS = 4096
"""Ids whose row it remembers."""


@dataclass(frozen=True, slots=True)
class Neighbours:
    """Nearest rows of n queries, (n, k) each, nearest first.

    `rows` int64, -1 where fewer than k products match; `similarities` float32, the inner product
    of fused embeddings; `image_similarities` and `text_similarities` the two cosines, NaN where
    query or neighbour lacks the modality. `exhaustive`: every product that may match was scored,
    for every query; else an approximate index proposed the candidates of some.
    """

    rows: IntArray
    similarities: FloatArray
    image_similarities: FloatArray
    text_similarities: FloatArray
    exhaustive: bool


@dataclass(frozen=True, slots=True)
class Parts:
    """What a snapshot is made of; arrays are shared with the shelf and only ever grow."""

    generation: int
    fingerprint: str
    vectors: FloatArray
    first_row: int
    removed_at: IntArray


class Snapshot:
    """A shelf as of `generation`."""

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

    def searched(self, keep: BoolArray | None = None) -> Rows:
        """What a search goes through: all products, or those whose places are flagged."""
        if keep is None and self.count < len(self._live):
            keep = self._live
        return Rows(np.asarray(self._parts.vectors), self._index_of(self._parts.vectors), keep)

    @functools.cached_property
    def _live(self) -> BoolArray:
        removed = self._parts.removed_at[: len(self._parts.vectors)]
        return np.greater(removed, self.generation)

    @functools.cached_property
    def count(self) -> int:
        """How many products there are."""
        return int(np.count_nonzero(self._live))

    @property
    def dimension(self) -> int:
        """Of one modality."""
        return int(self._parts.vectors.shape[1]) // 2

    def halves(self, rows: IntArray | Sequence[int]) -> FloatArray:
        """Unit image and text halves as stored, (len(rows), 2 * dimension) float32, a copy."""
        places = np.asarray(rows, dtype=np.int64) - self._parts.first_row
        return np.array(self._parts.vectors[places], dtype=np.float32)

    def fused(self, rows: IntArray | Sequence[int]) -> FloatArray:
        """Fused embeddings, (len(rows), 2 * dimension) float32."""
        return fusion.fused(self.halves(rows))

    def labelled(self, split: str | None = None) -> tuple[IntArray, NDArray[np.object_]]:
        """Rows that have a category, and the categories; of one split if named."""
        return self.view.labelled(split)

    def filter(self, where: str | None) -> Filter | None:
        """A user's expression, checked; raises FilterError."""
        if where is None:
            return None
        from kinshelf.db.filters import compile_where

        return compile_where(where, FILTER_COLUMNS, self.view.attribute_types())

    def kneighbors(
        self,
        queries: FloatArray,
        k: int,
        *,
        where: str | None = None,
        labelled_only: bool = False,
        among: IntArray | None = None,
        exclude: Sequence[int] = (),
        weight_image: float = 0.5,
    ) -> Neighbours:
        """The k products nearest to each query.

        `queries` are halves, (n, 2 * dimension) float32; `labelled_only` leaves out products
        without a category, `among` names the rows to choose from, `exclude` those to leave out.
        Fewer than k come back only if fewer match. Raises FilterError, EmptyShelf or
        InvalidEmbeddings.
        """
        if not self.count:
            raise EmptyShelf("the shelf holds no products: add some with `kinshelf add SOURCE`")
        if queries.shape[1] != self._parts.vectors.shape[1]:
            raise InvalidEmbeddings(
                f"the query has embeddings of dimension {queries.shape[1] // 2}, the shelf of"
                f" {self.dimension}: use the encoder that the shelf was built with"
            )
        weighted = fusion.Weighting(weight_image).query(queries)
        keep = self._kept(where, exclude, labelled_only=labelled_only, among=among)
        found = nearest(self.searched(keep), weighted, min(k, self.count))
        return self._told(queries, found, weight_image)

    def _told(self, queries: FloatArray, found: Found, weight_image: float) -> Neighbours:
        cosines = self._cosines(queries, found.places)
        # From the parts: the same to the bit, whichever way the rows were found.
        whole = weight_image * cosines[..., 0] + (1 - weight_image) * cosines[..., 1]
        none = found.places < 0
        whole = np.where(none, -np.inf, whole).astype(np.float32)
        cosines[none] = np.nan
        self._mark_missing(queries, found.places, cosines)
        at = (_column(len(whole)), np.lexsort((found.places, -whole), axis=1))
        rows = np.where(none, -1, found.places + self._parts.first_row)[at]
        # Rounding may carry a product's similarity to itself past 1.
        whole, cosines = np.minimum(whole[at], 1), np.minimum(cosines[at], 1)
        np.maximum(whole, -1, out=whole)
        np.maximum(cosines, -1, out=cosines)
        return Neighbours(rows, whole, cosines[..., 0], cosines[..., 1], found.exhaustive)

    @functools.cached_property
    def _labelled(self) -> BoolArray:
        return self._mask(self.labelled()[0])

    def _mask(self, rows: IntArray | Sequence[int]) -> BoolArray:
        mask = np.zeros(len(self._live), dtype=np.bool_)
        mask[np.asarray(rows, dtype=np.int64) - self._parts.first_row] = True
        return mask

    def _kept(
        self,
        where: str | None,
        exclude: Sequence[int],
        *,
        labelled_only: bool,
        among: IntArray | None,
    ) -> BoolArray | None:
        if where is None and among is None and not labelled_only and not len(exclude):
            return None
        keep = self._labelled if labelled_only else self._live
        if where is not None:
            keep = keep & self._matching(where)
        if among is not None:
            keep = keep & self._mask(among)
        if len(exclude):
            keep = keep.copy()
            keep[np.asarray(exclude, dtype=np.int64) - self._parts.first_row] = False
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

    def _cosines(self, queries: FloatArray, places: IntArray) -> FloatArray:
        """Of the pictures and of the texts, (n, k, 2) float32, 0 where there is none."""
        neighbours = np.asarray(self._parts.vectors)[np.maximum(places, 0)]
        halves = (2, self.dimension)
        found = neighbours.reshape(*places.shape, *halves)
        cosines: FloatArray = np.vecdot(found, queries.reshape(-1, 1, *halves))
        return cosines

    def _mark_missing(self, queries: FloatArray, places: IntArray, cosines: FloatArray) -> None:
        """Make a cosine NaN where a half is missing: nearly always none is exactly 0."""
        query, at, half = np.nonzero(cosines == 0)
        if not len(query):
            return
        asked = queries.reshape(-1, 2, self.dimension)[query, half]
        stored = np.asarray(self._parts.vectors).reshape(-1, 2, self.dimension)
        there = asked.any(axis=1) & stored[places[query, at], half].any(axis=1)
        cosines[query[~there], at[~there], half[~there]] = np.nan

    def get(self, product_id: str) -> StoredProduct:
        """The product of an id. Raises ProductNotFound, naming ids that look like it."""
        if (row := self._row_of.get(product_id)) is not None:
            return self.view.by_rows([row])[row]
        found = self.view.by_ids([product_id])
        if product_id not in found:
            near = self.view.near_ids(product_id)
            hint = f"; did you mean {', '.join(near)}?" if near else ": the shelf is empty"
            raise ProductNotFound(f"no product has the id {product_id!r}{hint}")
        if len(self._row_of) >= _IDS:
            self._row_of.clear()
        self._row_of[product_id] = found[product_id].row
        return found[product_id]

    def select(
        self, where: str | None = None, *, limit: int | None = None, offset: int = 0
    ) -> list[StoredProduct]:
        """Products that match, in the order they were added. Raises FilterError."""
        return self.view.select(self.filter(where), limit=limit, offset=offset)


def _column(count: int) -> IntArray:
    return np.arange(count)[:, None]
