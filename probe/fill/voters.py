"""The labelled neighbours of many stored products at once, each compared with all of them.

One matrix product a block of products and labelled rows gives every similarity. A product's own row
is not among its neighbours; its copies are, and do not vote.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from kinshelf.db.arrays import BoolArray, FloatArray, IntArray
from kinshelf.db.threads import faiss_for
from kinshelf.probe.fit.copies import alike
from kinshelf.probe.fit.data import SIMILAR, SIMILAR_EACH
from kinshelf.store.search import fusion

if TYPE_CHECKING:
    from kinshelf.store.generation import AnySnapshot

KEPT = 128 << 20
"""Bytes of labelled embeddings that are kept in memory, and as many again where votes are weighed;
of more, the shelf's own search finds the nearest, by its index if it has one."""
_CHUNK = 2048
_SPARE = 16
"""Neighbours beyond those wanted: so many copies of a product leave others to vote."""
_ROUNDING = 1e-4


@dataclass(frozen=True, slots=True, eq=False)
class Near:
    """The nearest labelled rows of n products, nearest first, their own row left out.

    `places` (n, width) int64 among the labelled rows, -1 where there are fewer; `similarities`
    (n, width) float32, the mean of the cosines that both have; `copies` (n, width) bool, those that
    are all but the product itself.
    """

    places: IntArray
    similarities: FloatArray
    copies: BoolArray

    def first(self, k: int) -> Near:
        """The k nearest."""
        return Near(self.places[:, :k], self.similarities[:, :k], self.copies[:, :k])

    def voters(self, k: int) -> Near:
        """The k nearest that vote: no copies, unless there is nothing else."""
        there = self.places >= 0
        lonely = (self.copies | ~there).all(axis=1, keepdims=True)
        order = np.argsort(~there | (self.copies & ~lonely), axis=1, kind="stable")[:, :k]
        places = np.take_along_axis(self.places, order, axis=1)
        copies = np.take_along_axis(self.copies, order, axis=1)
        similarities = np.take_along_axis(self.similarities, order, axis=1)
        return Near(np.where(copies & ~lonely, -1, places), similarities, copies)


class Voters:
    """The labelled rows (m,) of a snapshot, to be searched by embedding pairs; `place` takes fused
    embeddings (n, D) to where votes are weighed, None: as they are."""

    def __init__(
        self,
        snapshot: AnySnapshot,
        rows: IntArray,
        place: Callable[[FloatArray], FloatArray] | None,
    ) -> None:
        self.rows = rows
        self._snapshot = snapshot
        self._place = place or (lambda X: X)
        self._kept: FloatArray | None = None
        self._placed: FloatArray | None = None
        if len(rows) * snapshot.dimension * 2 * 4 <= KEPT:
            self._kept = snapshot.pairs(rows)
            parts = [self._kept[at : at + _CHUNK] for at in range(0, len(rows), _CHUNK)]
            if place is not None:
                self._placed = np.concatenate([place(fusion.fused(part)) for part in parts])

    def pairs(self, places: IntArray) -> FloatArray:
        """The embedding pairs at some places, (len(places), 2 * dimension) float32."""
        if self._kept is not None:
            return self._kept[places]
        return self._snapshot.pairs(self.rows[places])

    def placed(self, places: IntArray) -> FloatArray:
        """The embeddings at some places (n, k), where votes are weighed, (n, k, width)."""
        if self._placed is not None:
            return self._placed[places]
        found = self._place(fusion.fused(self.pairs(places.ravel())))
        return found.reshape(*places.shape, found.shape[1])

    @property
    def whole(self) -> bool:
        """Whether each has a picture and a text, as far as is known."""
        if self._kept is not None:
            return bool(self._given.all())
        view = self._snapshot.view
        return not (view.any_lack("has_image") or view.any_lack("has_text"))

    def nearest(self, pairs: FloatArray, rows: IntArray, k: int, view: str = "both") -> Near:
        """At least k of each of the products `rows` (n,) with embedding pairs (n, 2 * dimension),
        by both modalities, `image` or `text` alone."""
        seen = only(pairs, view)
        width = min(k + _SPARE, len(self.rows))
        if self._kept is None:
            found = self._snapshot.kneighbors(seen, width, labelled_only=True)
            there = found.rows >= 0
            places = np.where(there, np.searchsorted(self.rows, np.maximum(found.rows, 0)), -1)
            return self._without_own(pairs, rows, places, found.similarities.copy(), view)
        places = np.full((len(pairs), width), -1, dtype=np.int64)
        similarities = np.full((len(pairs), width), -np.inf, dtype=np.float32)
        given = _given(seen)
        for halves in np.unique(given, axis=0):
            chosen = np.flatnonzero((given == halves).all(axis=1))
            found_there = self._search(self._kept, seen[chosen], halves, width)
            similarities[chosen], places[chosen] = found_there
        return self._without_own(pairs, rows, places, similarities, view)

    def _search(
        self, kept: FloatArray, queries: FloatArray, halves: BoolArray, width: int
    ) -> tuple[FloatArray, IntArray]:
        """By the modalities that the queries (2,) and a labelled row share."""
        faiss = faiss_for(len(queries))
        found = np.empty((len(queries), width), dtype=np.float32)
        places = np.empty((len(queries), width), dtype=np.int64)
        heap = faiss.float_minheap_array_t()
        heap.nh, heap.k = places.shape
        heap.val, heap.ids = faiss.swig_ptr(found), faiss.swig_ptr(places)
        heap.heapify()
        shared = np.maximum((self._given & halves).sum(axis=1), 1).astype(np.float32)
        if equal := bool((shared == shared[0]).all()):
            queries = queries / shared[0]
        for start in range(0, len(kept), _CHUNK):
            scores = queries @ kept[start : start + _CHUNK].T
            if not equal:
                scores /= shared[start : start + _CHUNK]
            heap.addn(scores.shape[1], faiss.swig_ptr(scores), start, 0, len(queries))
        heap.reorder()
        return np.clip(found, -1, 1, out=found), places

    @cached_property
    def _given(self) -> BoolArray:
        assert self._kept is not None
        return _given(self._kept)

    def _without_own(
        self, pairs: FloatArray, rows: IntArray, places: IntArray, similarities: FloatArray,
        view: str,
    ) -> Near:  # fmt: skip
        own = (self.rows[places] == rows[:, None]) & (places >= 0)
        # equals by place, as everywhere; a product's own row goes to the end
        order = np.lexsort((places, -similarities, own | (places < 0)), axis=1)
        places = np.take_along_axis(np.where(own, -1, places), order, axis=1)
        similarities = np.take_along_axis(similarities, order, axis=1)
        similarities[places < 0] = -np.inf
        copies = np.zeros(places.shape, dtype=np.bool_)
        least = (SIMILAR if view == "both" else SIMILAR_EACH) - _ROUNDING
        likely = (similarities >= least) & (places >= 0)
        for query in np.flatnonzero(likely.any(axis=1)):
            at = np.flatnonzero(likely[query])
            copies[query, at] = alike(pairs[query, None], self.pairs(places[query, at]))[0]
        return Near(places, similarities, copies)


def only(pairs: FloatArray, view: str) -> FloatArray:
    """Pairs (n, width) as a query of `both`, or of `image` or `text` alone."""
    if view == "both":
        return pairs
    image, text = fusion.split(pairs)
    halves = (image, np.zeros_like(text)) if view == "image" else (np.zeros_like(image), text)
    return np.hstack(halves)


def _given(pairs: FloatArray) -> BoolArray:
    """Which halves of pairs (n, width) are there, (n, 2)."""
    return np.stack([half.any(axis=1) for half in fusion.split(pairs)], axis=1)
