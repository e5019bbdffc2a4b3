"""Rows that came after the graph: scored by signed bytes first, then the best by their vectors.

Each query scores all of them, and their vectors would be the most of what it reads. Bytes are a
quarter of it, and take a third of the time; what they are off is measured at each answer.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kinshelf.db.arrays import BoolArray, FloatArray, IntArray
from kinshelf.db.threads import faiss_for
from kinshelf.store.search.exact import best, products_by_place

Answer = tuple[FloatArray, IntArray]
LEAST = 256
"""Rows; fewer are scored at once by their vectors."""
_PAYS = 40
"""Queries whose saving makes up for turning the rows that they score into bytes."""
_SPARE = 22
"""Rows looked at closely beyond k."""
_DOUBTED = 2
"""Bytes may be off by so many times what they were for the best; see `doubtful`."""
_TOP = 127
_BLOCK = 32
"""Rows turned into bytes at once, which leave what queries need in the cache."""


@dataclass(frozen=True, slots=True)
class _Coded:
    """Rows `first` to `stop` of an epoch: a FAISS index of their bytes, which never changes."""

    index: Any
    codes: NDArray[np.uint8]
    largest: float
    first: int
    stop: int


class UnindexedRows:
    """The bytes of rows from `first` on, as far as it has paid to make them."""

    def __init__(self, first: int) -> None:
        self._coded = _Coded(None, np.empty((0, 0), np.uint8), 0.0, first, first)
        self._turn = threading.Lock()
        self._plainly = 0

    @property
    def stop(self) -> int:
        """The place after the last row that there are bytes of."""
        return self._coded.stop

    def scored_plainly(self, vectors: FloatArray) -> None:
        """The vectors of rows without bytes were scored for a query: often enough, and have them.

        `vectors`: the epoch's, (rows, width) float32.
        """
        rows = len(vectors) - self.stop
        self._plainly += rows
        if rows >= LEAST and self._plainly >= _PAYS * rows:
            self.take_in(vectors)

    def take_in(self, vectors: FloatArray) -> None:
        """Make the bytes of the rows that have none, unless another thread is at it."""
        if len(vectors) - self.stop < LEAST or not self._turn.acquire(blocking=False):
            return
        try:
            self._coded = _extended(self._coded, vectors)
            self._plainly = 0
        finally:
            self._turn.release()

    def nearest(
        self, vectors: FloatArray, queries: FloatArray, least: FloatArray, k: int, keep: Any
    ) -> tuple[Answer | None, int]:
        """The k nearest rows that there are bytes of and that are kept, and the place after them.

        `least` (n,): the similarity that counts, from each query's k-th of other rows; `keep` flags
        of all `vectors` or None. No answer where bytes leave doubt, or there are none.
        """
        coded = self._coded
        if coded.stop == coded.first or len(vectors) < coded.stop:
            return None, coded.first
        kept = None if keep is None else keep[coded.first : coded.stop]
        rough, places = _searched(coded, queries, k + _SPARE, kept)
        places[places >= 0] += coded.first
        scores = products_by_place(vectors, places, queries)
        found = best(scores, places, k)
        if doubtful(rough, scores, places, np.maximum(least, found[0][:, -1])):
            return None, coded.first
        return found, coded.stop


def doubtful(rough: FloatArray, scores: FloatArray, places: IntArray, least: FloatArray) -> bool:
    """Whether a row that was passed over may count: be nearer to its query than `least` (n,).

    `rough` and `scores`: similarities by bytes and by vectors, (n, m) in the order of `rough`. A
    row passed over is no nearer by its bytes than the last one, give or take what bytes are off.
    """
    full = places[:, -1] >= 0
    if not full.any():
        return False
    off = np.abs(rough[full] - scores[full]).max(axis=1)
    return bool((rough[full, -1] + _DOUBTED * off >= least[full]).any())


def _searched(coded: _Coded, queries: FloatArray, count: int, keep: BoolArray | None) -> Answer:
    """Similarities by bytes and places after `first`, (n, count or fewer) each, nearest first."""
    faiss = faiss_for(len(queries))
    count = min(count, coded.stop - coded.first)
    largest = np.abs(queries).max(axis=1, keepdims=True)
    largest[largest == 0] = 1  # then every row is as near
    bytes_ = np.rint(queries / largest * np.float32(_TOP))
    chosen = None
    if keep is not None:
        selector = faiss.IDSelectorBitmap(np.packbits(keep, bitorder="little"))
        chosen = faiss.SearchParameters(sel=selector)
    rough, places = coded.index.search(bytes_, count, params=chosen)
    return rough * (largest * (coded.largest / _TOP**2)), places


def _extended(coded: _Coded, vectors: FloatArray) -> _Coded:
    added = vectors[coded.stop :]
    largest = max(coded.largest, *(float(np.abs(block).max()) for block in _blocks(added)))
    kept = coded.codes
    if largest > coded.largest:  # then all of them are of another scale
        added, kept = vectors[coded.first :], kept[:0]
    codes = np.empty((len(vectors) - coded.first, vectors.shape[1]), dtype=np.uint8)
    codes[: len(kept)] = kept.reshape(-1, codes.shape[1])
    into = codes[len(kept) :]
    for at, block in zip(range(0, len(into), _BLOCK), _blocks(added), strict=True):
        scaled = np.rint(block * (_TOP / (largest or 1.0)))
        scaled += _TOP + 1
        into[at : at + _BLOCK] = scaled
    faiss = faiss_for(1)
    signed = faiss.ScalarQuantizer.QT_8bit_direct_signed
    index = faiss.IndexScalarQuantizer(codes.shape[1], signed, faiss.METRIC_INNER_PRODUCT)
    index.add_sa_codes(codes)
    return _Coded(index, codes, largest, coded.first, len(vectors))


def _blocks(vectors: FloatArray) -> Iterator[FloatArray]:
    return (np.array(vectors[at : at + _BLOCK]) for at in range(0, len(vectors), _BLOCK))
