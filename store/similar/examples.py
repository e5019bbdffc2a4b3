"""Several examples, liked and disliked, as one question: Qdrant's two strategies.

With s(x) the similarity of a product to an example, as `similar` gives it for that example alone:

    average      the nearest to mean(like) + mean(like) - mean(unlike), a picture and a text
                 embedding each, made units again; without `unlike` to mean(like)
    best-score   p = max s over like, n = max s over unlike; the score is
                 f(p) if p > n else -f(n), with f(x) = (1 + x / (1 + |x|)) / 2

`average` looks for what the examples have in common; `best-score` for what is near any of them, and
puts what is nearer to a disliked one last. The similarity that is shown is p.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from kinshelf.db.arrays import FloatArray, IntArray
from kinshelf.store.search import fusion
from kinshelf.store.similar.questions import Nearest, Question
from kinshelf.store.similar.ranking import Scores, cosines, weighted

if TYPE_CHECKING:
    from collections.abc import Sequence


def average(like: FloatArray, unlike: FloatArray, weight_image: float) -> Nearest:
    """The question for the mean of examples' embedding pairs, (n, 2 * dimension) each."""
    if len(like) == 1 and not len(unlike):
        return Nearest(like[0], weight_image)
    return Nearest(np.hstack(_moved(like, unlike)), weight_image)


def _moved(like: FloatArray, unlike: FloatArray) -> list[FloatArray]:
    moved: list[FloatArray] = []
    for liked, disliked in zip(fusion.split(like), fusion.split(unlike), strict=True):
        whole, away = _mean(liked), _mean(disliked)
        if away.any() and whole.any():
            whole = 2 * whole - away
        norm = np.linalg.norm(whole)
        moved.append((whole / norm if norm > 0 else whole).astype(np.float32))
    return moved


def _mean(half: FloatArray) -> FloatArray:
    there = half[half.any(axis=1)]
    found: FloatArray = there.sum(axis=0, dtype=np.float64) / max(len(there), 1)
    return found


@dataclass(frozen=True, slots=True, eq=False)
class BestScore:
    """See the module."""

    like: Sequence[Question | Nearest]
    unlike: Sequence[Question | Nearest]

    @property
    def probes(self) -> list[tuple[FloatArray, float]]:
        """The liked examples' own."""
        return [probe for each in self.like for probe in _probes(each)]

    def score(self, rows: IntArray, pairs: FloatArray) -> Scores:
        """Of the products of some rows, (n,), by their embedding pairs."""
        liked = [scores_of(each, rows, pairs) for each in self.like]
        disliked = [scores_of(each, rows, pairs) for each in self.unlike]
        positive = np.stack([each.scores for each in liked])
        nearest = positive.argmax(axis=0)
        best = positive.max(axis=0)
        worst = np.max([each.scores for each in disliked] or [np.full(len(rows), -np.inf)], axis=0)
        scores = np.where(best > worst, _squashed(best), -_squashed(worst))
        parts = np.stack([(s.image_similarities, s.text_similarities) for s in liked])
        image, text = parts[nearest, :, np.arange(len(rows))].T
        return Scores(scores, best, image, text)


def _probes(asked: Question | Nearest) -> list[tuple[FloatArray, float]]:
    if isinstance(asked, Nearest):
        return [(asked.pair[None], asked.weight_image)]
    return asked.probes


def scores_of(asked: Question | Nearest, rows: IntArray, pairs: FloatArray) -> Scores:
    """What a question gives the products of some rows, (n,), by their embedding pairs."""
    if not isinstance(asked, Nearest):
        return asked.score(rows, pairs)
    parts = cosines(asked.pair, pairs)
    whole = weighted(parts, asked.weight_image)
    return Scores(whole, whole, parts[:, 0], parts[:, 1])


def _squashed(similarity: FloatArray) -> FloatArray:
    bounded = np.maximum(similarity, -1e9)  # what an example cannot find is -inf
    squashed: FloatArray = (1 + bounded / (1 + np.abs(bounded))) / 2
    return squashed
