"""What is asked, as a score for each product, and the ranking by it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from kinshelf.db.arrays import FloatArray, IntArray
from kinshelf.store.generation import BLOCK
from kinshelf.store.query import CANDIDATES
from kinshelf.store.similar.ranking import Ranking, Scores, ranked

if TYPE_CHECKING:
    from kinshelf.store.generation import AnySnapshot

EXACT_ROWS = 20_000
"""Up to so many products that match are all scored; of more, candidates are."""


class Question(Protocol):
    """What products are scored by."""

    @property
    def probes(self) -> list[tuple[FloatArray, float]]:
        """Pairs to search for candidates with, (1, 2 * dimension), and the picture's weight."""

    def score(self, rows: IntArray, pairs: FloatArray) -> Scores:
        """The scores of products of some rows, (n,), by their embedding pairs."""


@dataclass(frozen=True, slots=True, eq=False)
class Nearest:
    """The nearest to one embedding pair, (2 * dimension,): the search of `AnySnapshot`."""

    pair: FloatArray
    weight_image: float


def ranking(
    now: AnySnapshot,
    asked: Question | Nearest,
    k: int,
    *,
    where: str | None = None,
    exclude: Sequence[int] = (),
) -> Ranking:
    """The k best products among those that match. Raises FilterError, EmptyShelf or InputError."""
    if isinstance(asked, Nearest):
        found = now.kneighbors(
            asked.pair[None], k, where=where, exclude=exclude, weight_image=asked.weight_image
        )
        return Ranking.of(found)
    rows, exhaustive = _covered(now, asked, max(2 * k, CANDIDATES), where, exclude)
    blocks = [rows[at : at + BLOCK] for at in range(0, len(rows), BLOCK)]
    scored = [asked.score(block, now.pairs(block)) for block in blocks]
    return ranked(rows, scored, k, exhaustive=exhaustive)


def _covered(
    now: AnySnapshot, asked: Question, depth: int, where: str | None, exclude: Sequence[int]
) -> tuple[IntArray, bool]:
    """The rows to score, ascending, and whether they are all that match."""
    if now.count <= EXACT_ROWS or (
        where is not None and now.view.count(now.filter(where)) <= EXACT_ROWS
    ):
        return np.setdiff1d(now.rows(where), np.asarray(exclude, dtype=np.int64)), True
    found = [
        now.kneighbors(pair, depth, where=where, exclude=exclude, weight_image=weight).rows[0]
        for pair, weight in asked.probes
    ]
    rows = np.unique(np.concatenate(found))
    return rows[rows >= 0], False
