"""The bytes of a graph's file, checked before FAISS reads them.

FAISS follows what a file states: a link to a node that is not there reads foreign memory, a length
that is too large allocates it. A hash does not help, since whoever made the file made the hash. So
each field is compared with the one that kinshelf writes, and each link with the nodes that are
there. That takes about as long as the hash: 1.7 ms for 30,000 rows.
"""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
_LINKED = 1 << 20
"""Links compared at a time."""


class OddGraph(ValueError):
    """A file of an index that kinshelf did not write like this."""


class _Reader:
    """Takes one field after the other."""

    def __init__(self, data: Bytes) -> None:
        self._data, self.at = data, 0

    def fields(self, form: str) -> tuple[Any, ...]:
        size = struct.calcsize("<" + form)
        if self.at + size > len(self._data):
            raise OddGraph("it ends too soon")
        found = struct.unpack_from("<" + form, self._data.data, self.at)
        self.at += size
        return found

    def expect(self, form: str, *values: Any) -> None:
        if (found := self.fields(form)) != values:
            raise OddGraph(f"it states {found}, not {values}")

    def array(self, kind: str, count: int) -> NDArray[Any]:
        """An array of exactly so many numbers; a view of the file."""
        self.expect("Q", count)
        end = self.at + count * np.dtype(kind).itemsize
        if end > len(self._data):
            raise OddGraph("it ends too soon")
        found = self._data[self.at : end].view(kind)
        self.at = end
        return found


def check_graphs(data: Bytes, empties: list[tuple[Any, int]]) -> None:
    """Check a file that holds graphs, one behind the other, and nothing else.

    `empties` has for each a FAISS index without rows that was made like it, and its number of rows.
    Raises OddGraph.
    """
    reader = _Reader(data)
    for empty, rows in empties:
        _check_graph(reader, empty, rows)
    if reader.at != len(data):
        raise OddGraph("more stands behind it")


def _check_graph(reader: _Reader, empty: Any, rows: int) -> None:
    import faiss

    hnsw = empty.hnsw
    _check_head(reader, b"IHNs", empty, rows)
    for kind, known in (("<f8", hnsw.assign_probas), ("<i4", hnsw.cum_nneighbor_per_level)):
        expected = faiss.vector_to_array(known)
        if not np.array_equal(reader.array(kind, len(expected)), expected):
            raise OddGraph("its levels are shared out otherwise")
    slots = faiss.vector_to_array(hnsw.cum_nneighbor_per_level).astype(np.int64)
    levels, offsets = reader.array("<i4", rows), reader.array("<u8", rows + 1)
    if rows and not 1 <= levels.min() <= levels.max() < len(slots):
        raise OddGraph("a node is on a level that there is not")
    ends = np.cumsum(slots[levels])
    if offsets[0] or not np.array_equal(offsets[1:], ends.astype(np.uint64)):
        raise OddGraph("the links of its nodes lie elsewhere")
    links = reader.array("<i4", int(ends[-1]) if rows else 0)
    _check_links(links, levels, ends, slots)
    entry, highest = reader.fields("ii")
    top = int(levels.max()) - 1 if rows else -1
    if highest != top or (rows and not (0 <= entry < rows and levels[entry] == top + 1)):
        raise OddGraph("it is entered at a node that there is not")
    reader.expect("iii", hnsw.efConstruction, hnsw.efSearch, 1)
    _check_codes(reader, faiss.downcast_index(empty.storage), rows)


def _check_head(reader: _Reader, kind: bytes, empty: Any, rows: int) -> None:
    unused = 1 << 20
    reader.expect("4siqqqBi", kind, empty.d, rows, unused, unused, 1, empty.metric_type)


def _check_links(
    links: NDArray[Any], levels: NDArray[Any], ends: NDArray[Any], slots: NDArray[Any]
) -> None:
    """Each link is to a node, and above the lowest level to one that is on that level too."""
    for start in range(0, len(links), _LINKED):
        part = links[start : start + _LINKED]
        if part.min() < -1 or part.max() >= len(levels):
            raise OddGraph("a link is to a node that there is not")
    high = np.flatnonzero(levels > 1)
    for level in range(1, int(levels.max(initial=1))):
        nodes = high[levels[high] > level]
        begins = ends[nodes] - slots[levels[nodes]] + slots[level]
        found = links[begins[:, None] + np.arange(slots[level + 1] - slots[level])]
        if np.any((found >= 0) & (levels[np.maximum(found, 0)] <= level)):
            raise OddGraph("a link is to a node that is not on its level")


def _check_codes(reader: _Reader, storage: Any, rows: int) -> None:
    width = storage.d
    _check_head(reader, b"IxSQ", storage, rows)
    quantizer = storage.sq
    reader.expect("iifQQ", quantizer.qtype, quantizer.rangestat, quantizer.rangestat_arg, width,
                  quantizer.code_size)  # fmt: skip
    if not np.isfinite(reader.array("<f4", 2 * width)).all():
        raise OddGraph("its bytes stand for no numbers")
    reader.array("u1", rows * quantizer.code_size)
