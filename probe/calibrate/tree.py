"""Categories that are paths, such as "Toys | Puzzles", as one tree."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from kinshelf.db.arrays import BoolArray, Float64Array, IntArray
from kinshelf.db.text import LEVEL

_BLOCK = 512
NONE = -1


@dataclass(frozen=True, slots=True, eq=False)
class Paths:
    """The likeliest path of each of n answers: `nodes` (n, L) int64, places in `Tree.nodes` from
    the top down, `NONE` behind a path's end; `probabilities` (n, L) float64, 0 there."""

    nodes: IntArray
    probabilities: Float64Array

    @property
    def lengths(self) -> IntArray:
        """The levels of each path, (n,)."""
        return np.asarray((self.nodes != NONE).sum(axis=1), dtype=np.int64)


def ancestry(category: str) -> list[str]:
    """A category and all that it stands under, from the top down.

    >>> ancestry("Toys | Puzzles")
    ['Toys', 'Toys | Puzzles']
    """
    steps = category.split(LEVEL)
    return [LEVEL.join(steps[:end]) for end in range(1, len(steps) + 1)]


class Tree:
    """The tree whose leaves are `classes`; its `nodes` are these and all that they stand under."""

    def __init__(self, classes: Sequence[str]) -> None:
        self.classes = tuple(classes)
        lines = [ancestry(name) for name in self.classes]
        self.nodes = tuple(sorted({node for line in lines for node in line}))
        self._place = {node: i for i, node in enumerate(self.nodes)}
        self._lines = [[self._place[node] for node in line] for line in lines]
        above = [node.rpartition(LEVEL)[0] for node in self.nodes]
        self._parents = np.array([self._place.get(name, NONE) for name in above], dtype=np.int64)
        self._own = np.array([self._place[name] for name in self.classes], dtype=np.int64)

    @property
    def is_deep(self) -> bool:
        """Whether any category stands under another."""
        return bool((self._parents != NONE).any())

    @cached_property
    def _under(self) -> Any:
        """Which classes are in which nodes, sparse (n_classes, n_nodes)."""
        from scipy.sparse import csr_array

        sizes = [len(line) for line in self._lines]
        columns = np.concatenate([np.array(line) for line in self._lines])
        starts = np.concatenate([[0], np.cumsum(sizes)])
        return csr_array((np.ones(len(columns)), columns, starts), (len(sizes), len(self.nodes)))

    def sums(self, proba: Float64Array) -> Float64Array:
        """Each node's probability, (n, n_nodes), from that of the classes (n, n_classes)."""
        return np.asarray(proba @ self._under, dtype=np.float64)

    def paths(self, proba: Float64Array) -> Paths:
        """From the likeliest category at the top down to the likeliest one within each.

        A path ends at a category of its own that is likelier than each that stands under it.
        """
        depth = max(len(line) for line in self._lines)
        nodes = np.full((len(proba), depth), NONE, dtype=np.int64)
        probabilities = np.zeros((len(proba), depth))
        for start in range(0, len(proba), _BLOCK):
            part = slice(start, start + _BLOCK)
            self._descend(proba[part], nodes[part], probabilities[part])
        return Paths(nodes, probabilities)

    def _descend(self, proba: Float64Array, nodes: IntArray, probabilities: Float64Array) -> None:
        sums, rows = self.sums(proba), np.arange(len(proba))
        ends = np.zeros((len(proba), len(self.nodes) + 1))  # the last is of no node
        ends[:, self._own] = proba
        at = np.full(len(proba), NONE, dtype=np.int64)
        for level in range(nodes.shape[1]):
            below = np.where(self._parents == at[:, None], sums, -1.0)
            best = below.argmax(axis=1)
            found = below[rows, best]
            goes_on = found >= ends[rows, at]
            nodes[goes_on, level], probabilities[goes_on, level] = best[goes_on], found[goes_on]
            at = np.where(goes_on, best, len(self.nodes))

    def holds(self, nodes: IntArray, categories: Sequence[str]) -> BoolArray:
        """Whether each category is a node of its path (n, L) or stands under it, (n, L)."""
        lines = [[self._place.get(name) for name in ancestry(each)] for each in categories]
        found = [[node in line for node in path] for path, line in zip(nodes, lines, strict=True)]
        return np.array(found, dtype=np.bool_).reshape(nodes.shape)
