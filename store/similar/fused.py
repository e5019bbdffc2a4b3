"""Rankings by keywords, and by keywords and meaning together."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from kinshelf.db.arrays import FloatArray, IntArray
from kinshelf.store.query import CANDIDATES
from kinshelf.store.similar.examples import scores_of
from kinshelf.store.similar.keywords import Keywords
from kinshelf.store.similar.questions import ranking
from kinshelf.store.similar.ranking import Ranking

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kinshelf.store.generation import AnySnapshot
    from kinshelf.store.query import Query
    from kinshelf.store.similar.questions import Nearest, Question

_RANK = 60
"""Of reciprocal rank fusion, as Cormack et al. (2009) chose it."""


def by_keywords(
    now: AnySnapshot, words: str, asked: Query, k: int, exclude: Sequence[int]
) -> Ranking:
    """The k products of highest BM25 that have any of the words; as similarity the share of the
    best one's."""
    index = Keywords.of(now, asked.stem)
    kept = np.setdiff1d(now.rows(asked.where), np.asarray(exclude, dtype=np.int64))
    rows, scores = index.best(index.any_of(words), k, kept)
    none = np.full(len(rows), np.nan, dtype=np.float32)
    return Ranking(rows, scores, scores / max(scores.max(initial=0), 1e-9), none, none, True)


def hybrid(
    now: AnySnapshot,
    words: str,
    asked: Query,
    question: Question | Nearest,
    k: int,
    exclude: Sequence[int],
) -> Ranking:
    """The k best by the weighted sum of 1 / (60 + rank) in both rankings, each 200 deep or 2 k;
    the similarity is that of meaning."""
    depth = max(CANDIDATES, 2 * k)
    near = ranking(now, question, depth, where=asked.where, exclude=exclude)
    written = by_keywords(now, words, asked, depth, exclude)
    rows = np.union1d(near.rows, written.rows)
    weight = asked.weight_keywords
    scores = (1 - weight) * _shares(near.rows, rows) + weight * _shares(written.rows, rows)
    order = np.lexsort((rows, -scores))[:k]
    rows, scores = rows[order], scores[order]
    shown = scores_of(question, rows, now.pairs(rows))
    whole = np.clip(np.where(np.isneginf(shown.similarities), 0, shown.similarities), -1, 1)
    return Ranking(
        rows, scores, whole, shown.image_similarities, shown.text_similarities, near.exhaustive
    )


def _shares(ranked: IntArray, rows: IntArray) -> FloatArray:
    """1 / (60 + rank) of each row, ascending, 0 where a ranking lacks it."""
    shares = np.zeros(len(rows), dtype=np.float32)
    shares[np.searchsorted(rows, ranked)] = 1 / (_RANK + 1 + np.arange(len(ranked)))
    return shares
