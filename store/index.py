"""Nearest rows, exactly: a FAISS index while it is small, a scan of the mapped vectors beyond.

Numbers given to FAISS are places: row number minus the epoch's first row.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from kinshelf.db.catalog import read_state, seal, side_file
from kinshelf.store import files

FloatArray = NDArray[np.float32]
IntArray = NDArray[np.int64]
SNAPSHOT_BYTES = 64 << 20
"""Above this the mapped vectors are scanned: as fast, and without a copy of them in memory."""
GATHER_SHARE = 0.2
"""Below this share of kept rows, scoring just them beats scanning with a selector."""
_CHUNK = 1 << 14
_QUERIES = 256
"""Queries scored together in a scan: 16 MB of scores a chunk."""


class FlatIndex:
    """FAISS `IndexFlatIP` over the first rows of an epoch; exact, hence always exhaustive."""

    kind = "flat"

    def __init__(self, width: int) -> None:
        import faiss

        self._faiss: Any = faiss
        self._index = faiss.IndexFlatIP(width)
        self.saved_rows = 0
        # FAISS indexes may not be searched while they grow (seen to crash), so both take turns.
        self._turn = threading.Lock()

    def __len__(self) -> int:
        return int(self._index.ntotal)

    def stored(self, start: int, stop: int) -> FloatArray:
        """The rows at places `start` to `stop`, (stop - start, width) float32, as it has them."""
        rows: FloatArray = self._index.reconstruct_n(start, stop - start)
        return rows

    def extend(self, vectors: FloatArray) -> None:
        """Take in the rows of `vectors` that are not in the index yet."""
        with self._turn:
            for start in range(len(self), len(vectors), _CHUNK):
                self._index.add(np.ascontiguousarray(vectors[start : start + _CHUNK]))

    def search(
        self, queries: FloatArray, k: int, keep: NDArray[np.bool_] | None
    ) -> tuple[FloatArray, IntArray]:
        """The k places of highest inner product per query among those kept.

        `queries` (n, width) float32; `keep` one flag a place, None for all. Returns similarities
        and places, (n, k) each; -1 fills a row when fewer than k are kept.
        """
        parameters = None
        if keep is not None:
            bitmap = np.packbits(keep, bitorder="little")
            selector = self._faiss.IDSelectorBitmap(bitmap)
            parameters = self._faiss.SearchParameters(sel=selector)
        with self._turn:
            similarities, places = self._index.search(queries, k, params=parameters)
        return similarities, places

    def save(self, path: Path, vectors: FloatArray) -> None:
        """Write a snapshot and its side file; `vectors` are what the index holds."""
        data = self._faiss.serialize_index(self._index).tobytes()
        state = {"kind": self.kind, "rows": len(self), "vectors": _hash(vectors[: len(self)])}
        files.discard(side_file(path))
        files.replace(path, data)
        files.replace(side_file(path), seal(state | {"xxh3": xxhash.xxh3_128_hexdigest(data)}))
        self.saved_rows = len(self)

    @classmethod
    def load(cls, path: Path, vectors: FloatArray) -> FlatIndex | None:
        """The snapshot at `path`, or None if it is missing, damaged or not of these vectors.

        What was checked is what is loaded: FAISS may crash on a damaged file, or answer from it.
        """
        state = read_state(path)
        if state is None or _hash(vectors[: state["rows"]]) != state["vectors"]:
            return None
        try:
            data = np.fromfile(path, dtype=np.uint8)
        except OSError:
            return None
        if xxhash.xxh3_128_hexdigest(data.data) != state["xxh3"]:
            return None
        index = cls(vectors.shape[1])
        index._index = index._faiss.deserialize_index(data)
        index.saved_rows = len(index)
        return index


class Scan:
    """Exact search straight over the mapped vectors of a snapshot; the interface of FlatIndex."""

    kind = "flat"

    def __init__(self, vectors: FloatArray) -> None:
        self._vectors = vectors

    def __len__(self) -> int:
        return len(self._vectors)

    def search(
        self, queries: FloatArray, k: int, keep: NDArray[np.bool_] | None
    ) -> tuple[FloatArray, IntArray]:
        """As `FlatIndex.search`."""
        found = [
            self._search(queries[start : start + _QUERIES], k, keep)
            for start in range(0, len(queries), _QUERIES)
        ]
        return np.concatenate([f[0] for f in found]), np.concatenate([f[1] for f in found])

    def _search(
        self, queries: FloatArray, k: int, keep: NDArray[np.bool_] | None
    ) -> tuple[FloatArray, IntArray]:
        similarities = np.full((len(queries), k), -np.inf, dtype=np.float32)
        places = np.full((len(queries), k), -1, dtype=np.int64)
        for start in range(0, len(self), _CHUNK):
            scores = queries @ self._vectors[start : start + _CHUNK].T
            if keep is not None:
                scores[:, ~keep[start : start + _CHUNK]] = -np.inf
            near, at = _top(scores, np.arange(start, start + scores.shape[1]), k)
            similarities, places = _best(
                np.hstack([similarities, near]), np.hstack([places, at]), k
            )
        places[np.isneginf(similarities)] = -1
        return similarities, places


Index = FlatIndex | Scan


def _hash(vectors: FloatArray) -> str:
    return xxhash.xxh3_128_hexdigest(np.ascontiguousarray(vectors).view(np.uint8).data)


def _best(similarities: FloatArray, places: IntArray, k: int) -> tuple[FloatArray, IntArray]:
    order = np.lexsort((places, -similarities), axis=1)[:, :k]
    return np.take_along_axis(similarities, order, 1), np.take_along_axis(places, order, 1)


def exact(
    vectors: FloatArray, places: IntArray, queries: FloatArray, k: int
) -> tuple[FloatArray, IntArray]:
    """As `FlatIndex.search`, scoring the given places only; gathered in chunks."""
    scores = np.empty((len(queries), len(places)), dtype=np.float32)
    for start in range(0, len(places), _CHUNK):
        chunk = places[start : start + _CHUNK]
        scores[:, start : start + len(chunk)] = queries @ vectors[chunk].T
    return _top(scores, places, k)


def _top(scores: FloatArray, places: IntArray, k: int) -> tuple[FloatArray, IntArray]:
    best = min(k, len(places))
    chosen = (
        np.argpartition(-scores, best - 1, axis=1)[:, :best]
        if best
        else np.zeros((len(scores), 0), dtype=np.intp)
    )
    similarities = np.full((len(scores), k), -np.inf, dtype=np.float32)
    found = np.full((len(scores), k), -1, dtype=np.int64)
    similarities[:, :best] = np.take_along_axis(scores, chosen, axis=1)
    found[:, :best] = places[chosen]
    return _best(similarities, found, k)


def search_kept(
    index: Index,
    vectors: FloatArray,
    queries: FloatArray,
    k: int,
    keep: NDArray[np.bool_] | None,
) -> tuple[FloatArray, IntArray]:
    """Exact search among kept places, by whichever of the two ways is cheaper."""
    if keep is not None and np.count_nonzero(keep) < GATHER_SHARE * len(keep):
        return exact(vectors, np.flatnonzero(keep), queries, k)
    if keep is not None and len(keep) < len(index):
        keep = np.concatenate([keep, np.zeros(len(index) - len(keep), dtype=np.bool_)])
    similarities, places = index.search(queries, k, keep)
    return _best(similarities, places, k)
