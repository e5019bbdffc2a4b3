"""Rows that no other row links to, and links to them: the graph's search finds every row.

FAISS shortens a full list of links, and drops a link that another one makes up for. A row may lose
all that lead to it like this, and then no search would ever meet it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kinshelf.db.arrays import BoolArray, IntArray
from kinshelf.db.threads import faiss_for

Lists = tuple[IntArray, NDArray[np.int32]]
"""Where links of some rows lie, and the links, (n, links a row) each."""
_BLOCK = 1 << 16
"""Rows whose links are counted at once."""
_NEAR, _STEPS = 16, 32
"""Rows near one that nothing links to, one of which shall, and the steps to find them."""
_TOGETHER = 1 << 12
"""Rows that are searched for at once."""


def link_all(index: Any) -> int:
    """Have every row of a FAISS HNSW index linked to on its lowest level; how many were not.

    Each is linked to from the nearest row whose list has room: the rows that it links to itself are
    often those in the middle of many, whose lists are full of what leads on. Where none has room,
    it takes the place of the row that most others link to.
    """
    levels = _Lowest(index)
    counts = levels.counts()
    lost = np.flatnonzero(counts == 0)
    for at in range(0, len(lost), _TOGETHER):
        part = lost[at : at + _TOGETHER]
        for row, near in zip(part.tolist(), _near(index, part), strict=True):
            levels.link(row, near[(near >= 0) & (near != row)], counts)
    return len(lost)


def _near(index: Any, rows: IntArray) -> IntArray:
    faiss = faiss_for(len(rows))
    steps = faiss.SearchParametersHNSW(efSearch=_STEPS)
    found: IntArray = index.search(index.reconstruct_batch(rows), _NEAR, params=steps)[1]
    return found


def unlinked(index: Any) -> int:
    """How many rows nothing links to."""
    return int(np.count_nonzero(_Lowest(index).counts() == 0))


@contextlib.contextmanager
def held_out(index: Any, rows: IntArray) -> Iterator[None]:
    """While inside, nothing links to `rows` on the lowest level, as if they had not been added."""
    levels = _Lowest(index)
    lists = levels.take_out(rows)
    try:
        yield
    finally:
        levels.put_back(lists)


class _Lowest:
    """The links of the lowest level: of each row a list that ends at its first -1."""

    def __init__(self, index: Any) -> None:
        import faiss

        graph = index.hnsw
        self._width = int(graph.nb_neighbors(0))
        size = graph.neighbors.size()
        self._links: NDArray[np.int32] = faiss.rev_swig_ptr(graph.neighbors.data(), size)
        offsets = faiss.rev_swig_ptr(graph.offsets.data(), graph.offsets.size())
        self._begins: IntArray = offsets[:-1].astype(np.int64)
        self._held = index

    def counts(self) -> IntArray:
        """How many links lead to each row."""
        counts = np.zeros(len(self._begins), dtype=np.int64)
        for at in range(0, len(self._begins), _BLOCK):
            begins = self._begins[at : at + _BLOCK, None]
            found = self._links[begins + np.arange(self._width)].ravel()
            counts += np.bincount(found[found >= 0], minlength=len(counts))
        return counts

    def take_out(self, rows: IntArray) -> list[Lists]:
        """Remove the links to these rows; the lists that had one, as they were.

        Who linked to such a row links to one of those that it linked to, as it would if the row had
        never been there: else others were lost with it.
        """
        gone, lists = np.zeros(len(self._begins) + 1, dtype=np.bool_), []
        gone[rows] = True  # the last one is what -1, the end of a list, looks up
        beyond = {row: iter([int(o) for o in self.of(row) if not gone[o]]) for row in rows.tolist()}
        for at in range(0, len(self._begins), _BLOCK):
            slots = self._begins[at : at + _BLOCK, None] + np.arange(self._width)
            slots = slots[gone[self._links[slots]].any(axis=1)]
            lists.append((slots, self._links[slots]))
            for own in slots:
                self._links[own] = _bridged(self._links[own], gone, beyond)
        return lists

    def put_back(self, lists: list[Lists]) -> None:
        """Undo `take_out`."""
        for slots, found in lists:
            self._links[slots] = found

    def of(self, row: int) -> NDArray[np.int32]:
        """The links of a row, a view."""
        begin = self._begins[row]
        return self._links[begin : begin + self._width]

    def link(self, row: int, near: IntArray, counts: IntArray) -> None:
        """Link to a row from one of those near it, the nearest first."""
        for other in near.tolist():
            links = self.of(other)
            if links[-1] < 0:
                links[np.argmax(links < 0)] = row
                counts[row] += 1
                return
        most = [(int(counts[self.of(other)].max()), other) for other in near.tolist()]
        count, other = max(most, default=(0, -1))
        if count > 1:
            links = self.of(other)
            taken = int(np.argmax(counts[links]))
            counts[links[taken]] -= 1
            counts[row] += 1
            links[taken] = row


def _bridged(
    links: NDArray[np.int32], gone: BoolArray, beyond: dict[int, Iterator[int]]
) -> NDArray[np.int32]:
    """A list of links without those that are gone, each of which the next one beyond it follows."""
    left = [each for each in links.tolist() if not gone[each] and each >= 0]
    for each in links[gone[links]].tolist():
        following = next((other for other in beyond[each] if other not in left), -1)
        left += [following] * (following >= 0)
    return np.array(left + [-1] * (len(links) - len(left)), dtype=np.int32)
