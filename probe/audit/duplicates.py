"""Products that are there more than once: exact copies, then complete-link groups of near ones.

Complete link: every two products of a group are alike, so a chain of small steps (puzzle of 500
pieces, of 1000, of 1500 ...) does not become one group.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from kinshelf.db.arrays import BoolArray, IntArray
from kinshelf.probe.audit.facts import Facts
from kinshelf.probe.audit.graph import Graph
from kinshelf.probe.fit.copies import alike
from kinshelf.probe.fit.data import SIMILAR

if TYPE_CHECKING:
    from kinshelf.store.generation import AnySnapshot


@dataclass(frozen=True, slots=True, eq=False)
class Duplicates:
    """`group` (n,) int64: the place of the group's first product, -1 for a product alone.

    `exact` (n,) bool: has the same picture and the same text as another product.
    """

    group: IntArray
    exact: BoolArray

    @property
    def flagged(self) -> BoolArray:
        """Which products are in a group."""
        return np.greater_equal(self.group, 0)


def copies(graph: Graph, facts: Facts) -> BoolArray:
    """Which neighbours have the product's own picture and text, (n, k) bool."""
    neighbour = facts.content[np.maximum(graph.places, 0)]
    return np.asarray((neighbour == facts.content[:, None]) & graph.present)


def find_duplicates(
    snapshot: AnySnapshot, graph: Graph, facts: Facts, similar: float = SIMILAR
) -> Duplicates:
    """Exact copies form groups; groups whose every two products are near-duplicates are joined."""
    first, inverse, counts = np.unique(
        facts.content, return_index=True, return_inverse=True, return_counts=True
    )[1:]
    representative = first[inverse]
    links = _Links(snapshot, facts, similar)
    for one, other in _edges(graph, similar, representative):
        links.join(one, other)
    group = np.array([links.root(int(place)) for place in representative], dtype=np.int64)
    size = np.bincount(group, minlength=len(facts))[group]
    # numbered by the first of their products
    lowest = np.full(len(facts), len(facts), dtype=np.int64)
    np.minimum.at(lowest, group, np.arange(len(facts)))
    return Duplicates(np.where(size > 1, lowest[group], -1), counts[inverse] > 1)


def _edges(graph: Graph, similar: float, representative: IntArray) -> list[tuple[int, int]]:
    """Pairs of representatives alike enough, most alike first, each once."""
    cosine = graph.mean_cosines()
    row, column = np.nonzero(graph.present & (np.nan_to_num(cosine, nan=-1) >= similar))
    strength = cosine[row, column]
    ends = np.sort(representative[np.stack([row, graph.places[row, column]], axis=1)], axis=1)
    order = np.lexsort((ends[:, 1], ends[:, 0], -strength))
    pairs = [(int(a), int(b)) for a, b in ends[order] if a != b]
    return list(dict.fromkeys(pairs))


@dataclass(slots=True)
class _Links:
    """Groups that grow by joining; two that do not fit together never will, grown or not."""

    snapshot: AnySnapshot
    facts: Facts
    similar: float
    parent: dict[int, int] = field(default_factory=dict)
    members: dict[int, list[int]] = field(default_factory=dict)
    apart: dict[int, set[int]] = field(default_factory=lambda: defaultdict(set))

    def root(self, place: int) -> int:
        while (above := self.parent.get(place, place)) != place:
            place = above
        return place

    def join(self, one: int, other: int) -> None:
        a, b = self.root(one), self.root(other)
        if a == b or b in self.apart[a]:
            return
        left, right = self.members.get(a, [a]), self.members.get(b, [b])
        if not self._alike(left, right):
            self.apart[a].add(b)
            self.apart[b].add(a)
            return
        self.parent[b] = a
        self.members[a] = left + right
        for foreign in self.apart.pop(b, set()):
            self.apart[a].add(foreign)
            self.apart[foreign].add(a)

    def _alike(self, left: list[int], right: list[int]) -> bool:
        rows = self.facts.rows
        one, other = (self.snapshot.pairs(rows[places]) for places in (left, right))
        return bool(alike(one, other, self.similar).all())
