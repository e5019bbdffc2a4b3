"""The nearest-neighbour graph of a whole shelf, computed once, from which all audits read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from kinshelf.db.arrays import BoolArray, FloatArray, IntArray
from kinshelf.db.errors import EmptyShelf

if TYPE_CHECKING:
    from kinshelf.store.generation import AnySnapshot

_BLOCK = 1024

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True, eq=False)
class Graph:
    """The k nearest other products of each of n products, nearest first.

    `rows` (n,) int64 are row numbers, ascending. `places` (n, k) int64 point into `rows`, -1 where
    there are fewer; `similarities`, `image_similarities` and `text_similarities` (n, k) float32
    are as in `Neighbours`; those of a place that is -1 mean nothing.
    """

    rows: IntArray
    places: IntArray
    similarities: FloatArray
    image_similarities: FloatArray
    text_similarities: FloatArray
    exhaustive: bool

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def present(self) -> BoolArray:
        """A mask of the neighbours that exist, (n, k) bool."""
        return np.greater_equal(self.places, 0)

    def mean_cosines(self) -> FloatArray:
        """The similarities, (n, k); NaN where two products have no modality in common."""
        apart = np.isnan(self.image_similarities) & np.isnan(self.text_similarities)
        return np.where(apart, np.float32(np.nan), self.similarities)


def build_graph(
    snapshot: AnySnapshot, k: int = 20, progress: Progress = lambda _done, _all: None
) -> Graph:
    """Search the shelf with its own products, a block at a time.

    In memory at once: a block of queries, what the index keeps there, and the answer, 20 bytes
    for each of its n * k edges. Raises EmptyShelf.
    """
    rows = snapshot.view.rows()
    if not len(rows):
        raise EmptyShelf("the shelf holds no products: add some with `kinshelf add SOURCE`")
    width = min(k, len(rows) - 1)
    places = np.full((len(rows), width), -1, dtype=np.int64)
    fused, image, text = np.full((3, len(rows), width), np.nan, dtype=np.float32)
    graph = Graph(rows, places, fused, image, text, exhaustive=True)
    exhaustive = True
    for start in range(0, len(rows), _BLOCK):
        exhaustive &= _fill(graph, snapshot, start, width)
        progress(min(start + _BLOCK, len(rows)), len(rows))
    return replace(graph, exhaustive=exhaustive)


def _fill(graph: Graph, snapshot: AnySnapshot, start: int, width: int) -> bool:
    part = slice(start, start + _BLOCK)
    own = graph.rows[part]
    found = snapshot.kneighbors(snapshot.pairs(own), width + 1)
    # of copies of one embedding any may come first, so the own row is looked for
    mine = found.rows == own[:, None]
    order = np.argsort(mine, axis=1, kind="stable")[:, :width]
    rows = np.take_along_axis(found.rows, order, axis=1)
    places = np.searchsorted(graph.rows, np.maximum(rows, graph.rows[0]))
    graph.places[part] = np.where(rows < 0, -1, places)
    for name in ("similarities", "image_similarities", "text_similarities"):
        getattr(graph, name)[part] = np.take_along_axis(getattr(found, name), order, axis=1)
    return found.exhaustive
