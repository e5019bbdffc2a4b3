"""Nearest rows, exactly: every row that may match is scored, straight from the mapped vectors.

Places are row numbers minus the epoch's first row.
"""

from __future__ import annotations

import sys

import numpy as np

from kinshelf.db.arrays import BoolArray, FloatArray, IntArray
from kinshelf.db.threads import faiss_for
from kinshelf.store.search.paging import looked_at

GATHER_SHARE = 0.2
"""Below this share of kept rows, scoring just them beats scanning all and hiding the rest."""
_CHUNK = 1 << 14
_APART = 1 << 11
"""Rows here and there that are scored before the best are kept; see `store.search.paging`."""
_GATHERED, _GATHERED_FOR_FEW = 1 << 10, 1 << 6
"""Rows gathered at once: 4 MB at 1024 floats a row for many queries, 256 KB for few, so that the
copy stays in the cache."""
FEW = 4
"""Up to so many queries are scored one by one: each is as fast as memory allows on one thread,
while BLAS wakes others for it, and on a busy machine waits for them ten times as long."""
_QUERIES = 256
"""Queries scored together in a scan: 16 MB of scores a chunk."""


def exact(
    vectors: FloatArray, queries: FloatArray, k: int, keep: BoolArray | None = None
) -> tuple[FloatArray, IntArray]:
    """The k places of highest inner product per query among those kept, the lower place first.

    `vectors` (rows, width) and `queries` (n, width) float32; `keep` one flag a row, None for all.
    Returns similarities and places, (n, k) each; -inf and -1 where fewer than k are kept.
    """
    if keep is not None and np.count_nonzero(keep) < GATHER_SHARE * len(keep):
        return exact_among(vectors, np.flatnonzero(keep), queries, k)
    found = [
        _scan(vectors, queries[start : start + _QUERIES], k, keep)
        for start in range(0, len(queries), _QUERIES)
    ]
    return _stacked(found, k)


def exact_among(
    vectors: FloatArray, places: IntArray, queries: FloatArray, k: int
) -> tuple[FloatArray, IntArray]:
    """Search like `exact`, scoring the given places only."""
    found = [
        _gather(vectors, places, queries[start : start + _QUERIES], k)
        for start in range(0, len(queries), _QUERIES)
    ]
    return _stacked(found, k)


def best(similarities: FloatArray, places: IntArray, k: int) -> tuple[FloatArray, IntArray]:
    """The k highest of each row, highest first and then by place; both (n, k or fewer)."""
    if len(places) == 1:  # the same in half the time
        at = np.lexsort((places[0], -similarities[0]))[:k]
        return similarities[:, at], places[:, at]
    order = np.lexsort((places, -similarities), axis=1)[:, :k]
    return np.take_along_axis(similarities, order, 1), np.take_along_axis(places, order, 1)


def products(queries: FloatArray, rows: FloatArray) -> FloatArray:
    """The inner product of each query with each row, (n, m) float32."""
    scores = np.empty((len(queries), len(rows)), dtype=np.float32)
    if len(queries) > FEW:
        return np.matmul(queries, rows.T, out=scores)
    for query, into in zip(queries, scores, strict=True):
        np.vecdot(rows, query, out=into)
    return scores


def merged(
    answer: tuple[FloatArray, IntArray], scores: FloatArray, places: IntArray, k: int
) -> tuple[FloatArray, IntArray]:
    """The k best so far after one more block: the `scores` (n, m) of the m `places`.

    `answer` is what this returned for the blocks before, `nothing` before the first.
    """
    chosen = np.argpartition(-scores, min(k, len(places)) - 1, axis=1)[:, :k]
    similarities = np.hstack([answer[0], np.take_along_axis(scores, chosen, axis=1)])
    return best(similarities, np.hstack([answer[1], places[chosen]]), k)


def nothing(queries: int, k: int) -> tuple[FloatArray, IntArray]:
    """An answer in which nothing was found."""
    return (
        np.full((queries, k), -np.inf, dtype=np.float32),
        np.full((queries, k), -1, dtype=np.int64),
    )


def _scan(
    vectors: FloatArray, queries: FloatArray, k: int, keep: BoolArray | None
) -> tuple[FloatArray, IntArray]:
    answer = nothing(len(queries), k)
    for start in range(0, len(vectors), _CHUNK):
        scores = products(queries, vectors[start : start + _CHUNK])
        if keep is not None:
            scores[:, ~keep[start : start + _CHUNK]] = -np.inf
        answer = merged(answer, scores, np.arange(start, start + scores.shape[1]), k)
        looked_at(vectors, scores.shape[1], apart=False)
    similarities, places = answer
    places[np.isneginf(similarities)] = -1
    return answer


def _gather(
    vectors: FloatArray, places: IntArray, queries: FloatArray, k: int
) -> tuple[FloatArray, IntArray]:
    answer = nothing(len(queries), k)
    for start in range(0, len(places), _APART):
        part = places[start : start + _APART]
        answer = merged(answer, _products_at(vectors, part, queries), part, k)
    return answer


def _products_at(vectors: FloatArray, places: IntArray, queries: FloatArray) -> FloatArray:
    """The inner product of each query with each of the rows at `places`, (n, m) float32."""
    if len(queries) <= FEW and where_they_lie(vectors):
        return products_by_place(vectors, np.tile(places, (len(queries), 1)), queries)
    scores = np.empty((len(queries), len(places)), dtype=np.float32)
    size = _GATHERED_FOR_FEW if len(queries) <= FEW else _GATHERED
    for at in range(0, len(places), size):
        chosen = places[at : at + size]
        scores[:, at : at + len(chosen)] = products(queries, vectors[chosen])
        looked_at(vectors, len(chosen), apart=True)
    return scores


def where_they_lie(vectors: FloatArray) -> bool:
    """Whether `products_by_place` can score them: FAISS is there already (importing it takes
    longer than it saves) and the rows lie whole, one after the other."""
    return "faiss" in sys.modules and vectors.flags.c_contiguous


def products_by_place(vectors: FloatArray, places: IntArray, queries: FloatArray) -> FloatArray:
    """The inner products of query i with the rows at `places[i]`, (n, m) float32; -inf for -1.

    Three times as fast as NumPy, which copies the rows together first.
    """
    faiss = faiss_for(len(queries))
    scores = np.empty(places.shape, dtype=np.float32)
    arrays = scores, np.ascontiguousarray(queries), vectors, np.ascontiguousarray(places)
    faiss.fvec_inner_products_by_idx(
        *map(faiss.swig_ptr, arrays), vectors.shape[1], *places.shape
    )  # `arrays` keeps them alive: FAISS is handed bare pointers
    looked_at(vectors, places.size, apart=True)
    return scores


def _stacked(found: list[tuple[FloatArray, IntArray]], k: int) -> tuple[FloatArray, IntArray]:
    if not found:
        return nothing(0, k)
    return np.concatenate([f[0] for f in found]), np.concatenate([f[1] for f in found])
