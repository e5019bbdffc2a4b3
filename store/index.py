"""Nearest rows. One interface; flat (exact) is the only kind as yet.

Numbers given to FAISS are places: row number minus the epoch's first row.
"""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kinshelf.db.catalog import file_hash, side_file
from kinshelf.store import files

FloatArray = NDArray[np.float32]
IntArray = NDArray[np.int64]
SNAPSHOT_BYTES = 64 << 20
"""Above this a flat index is rebuilt from the mapped vectors, which takes less than reading it."""
GATHER_SHARE = 0.2
"""Below this share of kept rows, scoring just them beats scanning with a selector."""
_CHUNK = 1 << 14


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

    def save(self, path: Path, epoch: int) -> None:
        """Write a snapshot and its side file, unless rebuilding is cheaper than reading it."""
        if len(self) * self._index.d * 4 > SNAPSHOT_BYTES:
            return
        temporary = path.with_name(f".{path.name}.tmp")
        self._faiss.write_index(self._index, str(temporary))
        state = {"kind": self.kind, "epoch": epoch, "rows": len(self)}
        state["xxh3"] = file_hash(temporary)
        files.rename(temporary, path)
        files.replace(side_file(path), json.dumps(state).encode())
        self.saved_rows = len(self)

    @classmethod
    def load(cls, path: Path, epoch: int, width: int, rows: int) -> FlatIndex | None:
        """The snapshot at `path`, or None if it is missing, stale or damaged.

        The checksum is read first: FAISS may crash on a damaged file, or answer from it.
        """
        try:
            state: dict[str, Any] = json.loads(side_file(path).read_bytes())
            fits = state["kind"] == cls.kind and state["epoch"] == epoch and state["rows"] <= rows
            if not fits or file_hash(path) != state["xxh3"]:
                return None
        except (OSError, ValueError, KeyError, TypeError):
            return None
        index = cls(width)
        stored = index._faiss.read_index(str(path))
        if stored.d != width or stored.ntotal != state["rows"]:
            return None
        index._index, index.saved_rows = stored, state["rows"]
        return index


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
    order = np.lexsort((found, -similarities), axis=1)
    return np.take_along_axis(similarities, order, 1), np.take_along_axis(found, order, 1)


def search_kept(
    index: FlatIndex,
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
    order = np.lexsort((places, -similarities), axis=1)
    return np.take_along_axis(similarities, order, 1), np.take_along_axis(places, order, 1)
