"""Rows that no other row links to, and links to them: the graph's search finds every row.

FAISS shortens a full list of links, and drops a link that another one makes up for. A row may lose
all that lead to it like this, and then no search would ever meet it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from kinshelf.db.arrays import IntArray

_BLOCK = 1 << 16
"""Rows whose links are counted at once."""


def link_all(index: Any) -> int:
    """Have every row of a FAISS HNSW index linked to on its lowest level; how many were not.

    A row that nothing links to is linked from the rows that it links to itself, its nearest. Where
    their lists are full it takes the place of the row there that most others link to.
    """
    levels = _Lowest(index)
    counts = levels.counts()
    lost = np.flatnonzero(counts == 0)
    for row in lost.tolist():
        levels.link(row, counts)
    return len(lost)


def unlinked(index: Any) -> int:
    """How many rows nothing links to."""
    return int(np.count_nonzero(_Lowest(index).counts() == 0))


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

    def of(self, row: int) -> NDArray[np.int32]:
        """The links of a row, a view."""
        begin = self._begins[row]
        return self._links[begin : begin + self._width]

    def link(self, row: int, counts: IntArray) -> None:
        """Link to a row from one near it."""
        own = self.of(row)
        near = own[own >= 0]
        if not len(near):  # an only row, or one that was added first
            near = np.array([each for each in (row - 1, row + 1) if 0 <= each < len(counts)])
        for other in near:
            links = self.of(int(other))
            free = np.flatnonzero(links < 0)
            if len(free):
                links[free[0]] = row
                counts[row] += 1
                return
        most = [(int(counts[self.of(int(other))].max()), int(other)) for other in near]
        count, other = max(most, default=(0, -1))
        if count > 1:
            links = self.of(other)
            taken = int(np.argmax(counts[links]))
            counts[links[taken]] -= 1
            counts[row] += 1
            links[taken] = row
