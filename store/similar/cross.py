"""A text against pictures, a picture against texts: cosines of two kinds on one scale.

The cosine of a text with a picture lies elsewhere than that of two texts: of a title with its own
picture it is 0.3 with CLIP, with a stranger's title 0.6. So each kind is standardised by the
shelf's own statistics for this very query, and the cross kind is shown on the scale of the own one:

    s_cross = q . x - r(x) / 2                       r(x): mean of x's 10 highest cosines with
                                                     the sample's other modality, its own left out
    mapped  = m_own + d_own * (s_cross - m_cross) / d_cross      m, d: mean and spread over a sample
    similarity = weighted mean of mapped and own, over what the product has

A picture whose `against` nobody gave is compared with pictures, and with the title of a product
that has none: who asks with a picture wants what looks like it.

The subtracted half is CSLS (Conneau et al. 2018): pictures that lie near every text would else be
found by any. Mean and spread are of the query, not of the shelf: queries that resemble nothing
would else find only products without a title. Rank fusion loses products that lack a modality:
they are in one list of the two. `bench/words.py` measured these on three sets.

Where a product's own picture and text are no nearer to each other than to a stranger's, the two are
not of one model, and the cross kind is left out.
"""

from __future__ import annotations

import functools
import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from kinshelf.db.arrays import BoolArray, FloatArray, IntArray
from kinshelf.db.errors import InputError
from kinshelf.store.search import fusion
from kinshelf.store.similar.ranking import Scores, cosines, weighted

if TYPE_CHECKING:
    from kinshelf.store.generation import AnySnapshot
    from kinshelf.store.query import Against

SAMPLE = 1024
"""Products whose embeddings stand for the shelf: 400 gave the same recall as all of 660."""
_HUBS = 10
"""Neighbours of CSLS; 5 to 50 differ by 0.01 in recall@1 on the three sets of `bench/words.py`."""
_FEWEST = 8
"""Products with a modality, or with both, from which on their statistics are used."""
_OF_ONE_MODEL = 0.75
"""The share of strange pictures that lie farther than a product's own; 0.5 by chance."""
_IDENTICAL = 1 - 1e-5
_KINDS = ("image", "text")


class Space:
    """The statistics of one generation that compare its pictures with its texts.

    `pairs` (m, 2 * dimension) float32 are those of a sample's `rows` (m,).
    """

    def __init__(self, rows: IntArray, pairs: FloatArray) -> None:
        self.rows = rows
        self.halves = fusion.split(pairs)
        self.there: list[BoolArray] = [np.any(half != 0, axis=1) for half in self.halves]
        self.known = [
            (rows[there], np.ascontiguousarray(half[there]))
            for half, there in zip(self.halves, self.there, strict=True)
        ]
        """Of each side the sample's rows and embeddings, of products that have it."""
        self._hubs: list[FloatArray] = [np.zeros(0, dtype=np.float32) for _ in _KINDS]

    @classmethod
    def of(cls, now: AnySnapshot) -> Space:
        """Of a generation; computed once."""
        if (known := _SPACES.get(now)) is None:
            rows = now.sample(SAMPLE)
            known = _SPACES[now] = cls(rows, now.pairs(rows))
        return known

    @functools.cached_property
    def of_one_model(self) -> bool:
        """Whether pictures and texts can be compared; True where too few products show it."""
        both = self.there[0] & self.there[1]
        if np.count_nonzero(both) < _FEWEST:
            return True
        image, text = (half[both] for half in self.halves)
        nearness = text @ image.T
        own = np.diagonal(nearness)[:, None]
        farther = (nearness < own).sum() + (nearness == own).sum() / 2 - len(image) / 2
        return bool(farther >= _OF_ONE_MODEL * len(image) * (len(image) - 1))

    def has(self, side: int) -> bool:
        """Whether enough products of the sample have a modality for statistics."""
        return int(np.count_nonzero(self.there[side])) >= _FEWEST

    def hubness(self, side: int, rows: IntArray, halves: FloatArray) -> FloatArray:
        """r(x) of embeddings of one side, (n, dimension), of products of those rows: (n,)."""
        known = self._hubs[side]
        if len(rows) and rows.max() >= len(known):
            known = np.append(known, np.full(rows.max() + 1 - len(known), np.nan, np.float32))
        new = np.isnan(known[rows])
        if new.any():
            owners, bank = self.known[1 - side]
            known = known.copy()  # another thread may read it
            known[rows[new]] = _hubness(halves[new], rows[new], bank, owners)
            self._hubs[side] = known
        return known[rows]


_SPACES: weakref.WeakKeyDictionary[AnySnapshot, Space] = weakref.WeakKeyDictionary()


def _hubness(halves: FloatArray, rows: IntArray, bank: FloatArray, owners: IntArray) -> FloatArray:
    found = np.zeros(len(halves), dtype=np.float32)
    count = min(_HUBS, len(bank) - 1)
    if count < 1:
        return found
    for start in range(0, len(halves), SAMPLE):
        block = slice(start, start + SAMPLE)
        nearness = halves[block] @ bank.T
        own = rows[block, None] == owners
        nearness[own] = -np.inf
        found[block] = np.partition(nearness, -count, axis=1)[:, -count:].mean(axis=1)
    return found


@dataclass(frozen=True, eq=False)
class CrossModal:
    """A text alone or a picture alone, asked of what products have of both modalities."""

    query: FloatArray
    side: int
    """The query's own: 0 a picture, 1 a text."""
    against: Against
    weight_image: float
    space: Space
    own_first: bool = False
    """Whether the other kind counts only of products that lack the query's own."""

    @property
    def probes(self) -> list[tuple[FloatArray, float]]:
        """Pairs to search for candidates with, (1, 2 * dimension), and the picture's weight."""
        blank = np.zeros_like(self.query)
        image, text = np.hstack([self.query, blank]), np.hstack([blank, self.query])
        wanted = _KINDS if self.against == "both" else (self.against,)
        return [
            ((image, text)[_KINDS.index(kind)][None], float(kind == "image")) for kind in wanted
        ]

    def score(self, rows: IntArray, pairs: FloatArray) -> Scores:
        """Of the products of some rows, (n,), by their embedding pairs."""
        parts = cosines(np.hstack([self.query, self.query]), pairs)
        scaled = parts.copy()
        cross = 1 - self.side
        there = ~np.isnan(parts[:, cross])
        if not there.all():
            rows, pairs = rows[there], pairs[there]
        scaled[there, cross] = self._mapped(parts[there, cross], rows, fusion.split(pairs)[cross])
        own = parts[:, self.side]
        if self.against != "both":
            scaled[:, 1 - _KINDS.index(self.against)] = np.nan
        elif self.own_first:
            scaled[~np.isnan(own), cross] = np.nan
        whole = weighted(scaled, self._weight)
        if self.against == "both" and self._weight not in (0.0, 1.0):
            whole[own >= _IDENTICAL] = 1  # nothing resembles it more, whatever else it has
        whole[np.isnan(scaled).all(axis=1)] = 0 if self.against == "both" else -np.inf
        return Scores(whole, whole, parts[:, 0], parts[:, 1])

    @property
    def _weight(self) -> float:
        return self.weight_image if self.against == "both" else float(self.against == "image")

    def _mapped(self, nearness: FloatArray, rows: IntArray, halves: FloatArray) -> FloatArray:
        """Cross cosines on the scale of the own kind; as they are where the shelf has no scale."""
        if not (self.space.has(0) and self.space.has(1)):
            return nearness
        side = 1 - self.side
        lowered = nearness - self.space.hubness(side, rows, halves) / 2
        (own, spread), (mean, width) = self._scales
        mapped = own + (lowered - mean) * (spread / max(width, 1e-6))
        return np.minimum(mapped, 1).astype(np.float32)

    @functools.cached_property
    def _scales(self) -> tuple[tuple[float, float], tuple[float, float]]:
        """Mean and spread of this query's cosines with the sample: of its own kind, and of the
        other."""
        cross, space = 1 - self.side, self.space
        own = space.known[self.side][1] @ self.query
        rows, halves = space.known[cross]
        other = halves @ self.query - space.hubness(cross, rows, halves) / 2
        return (float(own.mean()), float(own.std())), (float(other.mean()), float(other.std()))


def crossing(
    now: AnySnapshot, pair: FloatArray, against: Against | None, weight_image: float
) -> CrossModal | None:
    """The question of a pair (2 * dimension,) that has one modality; None where comparing it with
    its own kind alone is what is wanted, or all that the shelf allows.

    Raises InputError where the other kind is asked for and cannot be compared.
    """
    image, text = (bool(half[0].any()) for half in fusion.split(pair[None]))
    side = int(text)
    if image == text or against == _KINDS[side]:
        return None
    space = Space.of(now)
    other = _KINDS[1 - side]
    if space.there[1 - side].any() and space.of_one_model:
        query = fusion.split(pair[None])[side][0]
        own_first = against is None and side == 0  # a picture finds what looks like it
        return CrossModal(query, side, against or "both", weight_image, space, own_first)
    if against == other:
        raise InputError(_refusal(other, there=bool(space.there[1 - side].any())))
    return None


def _refusal(other: str, *, there: bool) -> str:
    if not there:
        what = "a picture" if other == "image" else "a text"
        return f"against is {other!r} and no product has {what}: leave it out"
    return (
        f"against is {other!r}, but the shelf's pictures and texts were not embedded by one model:"
        " their cosines say nothing, so leave it out"
    )
