"""The neighbours' vote: how the k nearest products speak for categories."""

from __future__ import annotations

import numpy as np
import xxhash

from kinshelf.db.arrays import BoolArray, Float64Array, FloatArray, IntArray
from kinshelf.store.search.exact import exact

NO_VOTE = -1
"""Label of a neighbour that does not vote: it is missing, or has no category."""


def knn_distribution(
    similarities: FloatArray | Float64Array, labels: IntArray, tau: float, n_classes: int
) -> Float64Array:
    """Each class's share of the neighbour weight `exp(similarity / tau)`.

    `similarities` and `labels` are (n, k), a label a class in [0, n_classes) or `NO_VOTE`.
    Returns (n, n_classes) float64; a row sums to 1, or to 0 where nobody votes.
    """
    voting = labels != NO_VOTE
    scores = np.where(voting, np.asarray(similarities, dtype=np.float64) / tau, -np.inf)
    # the largest weight of a row becomes 1: nothing overflows, and shares do not change
    top = np.max(scores, axis=1, initial=-np.inf, keepdims=True)
    weights = np.exp(scores - np.where(voting.any(axis=1, keepdims=True), top, 0.0))
    votes = np.zeros((len(labels), n_classes), dtype=np.float64)
    row, place = np.nonzero(voting)
    np.add.at(votes, (row, labels[row, place]), weights[row, place])
    total = votes.sum(axis=1, keepdims=True)
    votes /= np.where(total > 0, total, 1.0)
    return votes


def identical(queries: FloatArray, neighbours: FloatArray) -> BoolArray:
    """Mark the neighbours (n, k, D) with the very embedding of their query (n, D): (n, k) bool.

    They are the query's own row or a copy of it, and do not vote for it.
    """
    width = queries.shape[1]
    # Nearly always one number of each half tells that none is.
    few = neighbours[:, :, :: max(width // 2, 1)] == queries[:, None, :: max(width // 2, 1)]
    same: BoolArray = few.all(axis=2)
    query, at = np.nonzero(same)
    same[query, at] = (neighbours[query, at] == queries[query]).all(axis=1)
    return same


class ExactNeighbours:
    """Exact search in fused embeddings in memory, (n, D) float32, by inner product."""

    def __init__(self, embeddings: FloatArray) -> None:
        # adding 0 turns -0.0 into 0.0, so that equal rows have equal bytes
        self._embeddings = np.ascontiguousarray(embeddings + np.float32(0))
        self._copies: dict[int, int] = {}
        keys = [_key(row) for row in self._embeddings]
        self._group = np.array(
            [self._copies.setdefault(key, len(self._copies)) for key in keys], dtype=np.int64
        )
        self._group_size = np.bincount(self._group, minlength=1)

    def kneighbors(
        self, queries: FloatArray, k: int, *, with_identical: bool = True
    ) -> tuple[FloatArray, IntArray]:
        """Similarities (n, k) float32 and places (n, k) int64, nearest first.

        `with_identical=False` leaves out rows of the very same embedding as the query: its own
        row and exact duplicates. Where fewer than k are left: similarity -inf, place -1.
        """
        queries = np.ascontiguousarray(queries + np.float32(0), dtype=np.float32)
        own = np.full(len(queries), -2, dtype=np.int64)
        if not with_identical:
            own[:] = [self._copies.get(_key(row), -2) for row in queries]
        spare = np.where(own >= 0, self._group_size[np.maximum(own, 0)], 0)
        similarities = np.full((len(queries), k), -np.inf, dtype=np.float32)
        places = np.full((len(queries), k), -1, dtype=np.int64)
        for extra in np.unique(spare):
            chosen = spare == extra
            found = self._search(queries[chosen], own[chosen], k, int(extra))
            similarities[chosen, : found[0].shape[1]] = found[0]
            places[chosen, : found[1].shape[1]] = found[1]
        return similarities, places

    def _search(
        self, queries: FloatArray, own: IntArray, k: int, extra: int
    ) -> tuple[FloatArray, IntArray]:
        """At most k columns: the nearest rows, `extra` of which are the query's own and go."""
        width = min(k + extra, len(self._embeddings))
        similarities, places = exact(self._embeddings, queries, width)
        others_first = np.argsort(self._group[places] == own[:, None], axis=1, kind="stable")
        kept = others_first[:, : width - extra]
        return (
            np.take_along_axis(similarities, kept, axis=1),
            np.take_along_axis(places, kept, axis=1),
        )


def _key(row: FloatArray) -> int:
    return xxhash.xxh3_128_intdigest(row.tobytes())
