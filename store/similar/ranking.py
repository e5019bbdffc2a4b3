"""Products in the order of a question's scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from kinshelf.db.arrays import FloatArray, IntArray
from kinshelf.store.search.neighbours import Neighbours


@dataclass(frozen=True, slots=True, eq=False)
class Ranking:
    """Rows (n,) int64, best first, with their scores and similarities, (n,) float each.

    `scores` never rise; `similarities` are what is shown. Parts are NaN where query or product
    lacks the modality. `exhaustive`: every product that may match was scored.
    """

    rows: IntArray
    scores: FloatArray
    similarities: FloatArray
    image_similarities: FloatArray
    text_similarities: FloatArray
    exhaustive: bool

    @classmethod
    def of(cls, found: Neighbours, query: int = 0) -> Ranking:
        """The neighbours of one query."""
        there = found.rows[query] >= 0
        whole, image, text = (
            each[query][there]
            for each in (found.similarities, found.image_similarities, found.text_similarities)
        )
        return cls(found.rows[query][there], whole, whole, image, text, found.exhaustive)

    def at(self, places: Sequence[int] | IntArray | slice) -> Ranking:
        """Those at some places, in their order."""
        places = places if isinstance(places, slice) else np.asarray(places, dtype=np.int64)
        return Ranking(
            self.rows[places], self.scores[places], self.similarities[places],
            self.image_similarities[places], self.text_similarities[places], self.exhaustive,
        )  # fmt: skip

    def neighbours(self) -> Neighbours:
        """As the answer to one query, (1, n) each."""
        arrays = (self.similarities, self.image_similarities, self.text_similarities)
        whole, image, text = (np.asarray(each, dtype=np.float32)[None] for each in arrays)
        return Neighbours(self.rows[None], whole, image, text, self.exhaustive)


@dataclass(frozen=True, slots=True, eq=False)
class Scores:
    """What a question gives n products: the score that ranks, -inf for those that it cannot find,
    the similarity that is shown, and the two cosines, (n,) each, NaN where there is none."""

    scores: FloatArray
    similarities: FloatArray
    image_similarities: FloatArray
    text_similarities: FloatArray


def cosines(query: FloatArray, pairs: FloatArray) -> FloatArray:
    """The image and the text cosine of a query (2 * d,) with pairs (n, 2 * d): (n, 2) float32, NaN
    where either lacks the modality."""
    halves, asked = pairs.reshape(len(pairs), 2, -1), query.reshape(2, -1)
    found: FloatArray = np.vecdot(halves, asked)
    place, side = np.nonzero(found == 0)  # nearly none is exactly 0 that is there
    lacking = ~(halves[place, side].any(axis=1) & asked[side].any(axis=1))
    found[place[lacking], side[lacking]] = np.nan
    return found


def weighted(parts: FloatArray, weight_image: float) -> FloatArray:
    """The weighted mean of the parts that there are, (n, 2) to (n,) float32, 0 if none counts."""
    weights = np.where(np.isnan(parts), 0, np.array([weight_image, 1 - weight_image]))
    shared = weights.sum(axis=1)
    # As `search.neighbours` computes it, to the bit.
    whole = weights[:, 0] * np.nan_to_num(parts[:, 0]) + weights[:, 1] * np.nan_to_num(parts[:, 1])
    found: FloatArray = np.where(shared > 0, whole / np.where(shared > 0, shared, 1), 0).astype(
        np.float32
    )
    return found


def ranked(rows: IntArray, scored: Sequence[Scores], k: int, *, exhaustive: bool) -> Ranking:
    """The k best of some rows, by blocks of scores; the lower row first among equals."""
    scores, shown, image, text = (
        np.concatenate([getattr(block, name) for block in scored] or [np.zeros(0)])
        for name in Scores.__slots__
    )
    order = np.lexsort((rows, -scores))[:k]
    order = order[~np.isneginf(scores[order])]
    return Ranking(
        rows[order], scores[order], np.clip(shown[order], -1, 1), image[order], text[order],
        exhaustive,
    )  # fmt: skip
