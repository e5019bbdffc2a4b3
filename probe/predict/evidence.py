"""Choose the neighbours that are shown with an answer, and what each supports.

Neighbours of the predicted category alone lead people to trust a wrong answer; a few of the
runner-up make them look (arXiv 2308.13651). So some places are kept for these.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np

from kinshelf.db.arrays import BoolArray, FloatArray, IntArray
from kinshelf.probe.fit.data import SIMILAR, SIMILAR_EACH
from kinshelf.probe.predict.prediction import Evidence
from kinshelf.store.search.neighbours import Neighbours

if TYPE_CHECKING:
    from kinshelf.store.generation import AnySnapshot
    from kinshelf.store.results import Neighbour

RUNNERS_UP = 2
"""Neighbours of the second most probable category that are shown, if there are as many."""

_PAIRS = 2**20
"""Pairs of neighbours that are compared together: they take some 20 bytes each."""


def gather(
    snapshot: AnySnapshot,
    pairs: FloatArray,
    found: Neighbours,
    labels: IntArray,
    runner_up: IntArray,
    members: dict[int, IntArray],
    k: int,
    where: str | None,
) -> Neighbours:
    """The k neighbours to show of each query, nearest first.

    `found` are the nearest (n, width) with their `labels`, `runner_up` (n,) codes of the second
    category or -1; `members` the rows of each code. The farthest of the k nearest give way to the
    nearest of the runner-up where these are not among them.
    """
    wanted = np.where(_lacks(found, labels, runner_up, k), runner_up, -1)
    extra = _nearest_of(snapshot, pairs, wanted, members, where)
    whole = _side_by_side(found, extra)
    codes = np.hstack([labels, np.where(extra.rows < 0, -1, runner_up[:, None])])
    chosen = np.stack(
        [
            _choose(rows, own, int(code), k)
            for rows, own, code in zip(whole.rows, codes, runner_up, strict=True)
        ]
    )
    return _take(whole, chosen)


def _lacks(found: Neighbours, labels: IntArray, runner_up: IntArray, k: int) -> BoolArray:
    """Of which queries (n,) too few of the runner-up are among those found; else they are its
    nearest."""
    own = (labels == runner_up[:, None]) & (found.rows >= 0)
    return np.asarray(own.sum(axis=1) < _places(k), dtype=np.bool_)


def _places(k: int) -> int:
    """How many of k are kept for the runner-up."""
    return min(RUNNERS_UP, k // 3)


def _nearest_of(
    snapshot: AnySnapshot,
    pairs: FloatArray,
    runner_up: IntArray,
    members: dict[int, IntArray],
    where: str | None,
) -> Neighbours:
    shape = (len(pairs), RUNNERS_UP)
    missing = np.full(shape, -np.inf, dtype=np.float32)
    found = Neighbours(np.full(shape, -1), missing, missing.copy(), missing.copy(), exhaustive=True)
    for code in np.unique(runner_up[runner_up >= 0]):
        places = np.flatnonzero(runner_up == code)
        rows = members.get(int(code))
        if rows is None:
            continue
        near = snapshot.kneighbors(pairs[places], RUNNERS_UP, where=where, among=rows)
        width = near.rows.shape[1]
        for name in _ARRAYS:
            getattr(found, name)[places, :width] = getattr(near, name)
    return found


_ARRAYS = ("rows", "similarities", "image_similarities", "text_similarities")


def _side_by_side(one: Neighbours, other: Neighbours) -> Neighbours:
    arrays: dict[str, Any] = {
        name: np.hstack([getattr(one, name), getattr(other, name)]) for name in _ARRAYS
    }
    return replace(one, **arrays)


def _take(found: Neighbours, columns: IntArray) -> Neighbours:
    def taken(name: str) -> Any:
        values = np.take_along_axis(getattr(found, name), np.maximum(columns, 0), axis=1)
        return np.where(columns < 0, -1, values) if name == "rows" else values

    return replace(found, **{name: taken(name) for name in _ARRAYS})


def _choose(rows: IntArray, codes: IntArray, runner_up: int, k: int) -> IntArray:
    """Columns to show, at most k, ascending by rank; -1 where there are fewer."""
    first = [i for i in range(min(k, len(rows) - RUNNERS_UP)) if rows[i] >= 0]
    wanted = _places(k)
    have = [i for i in first if codes[i] == runner_up]
    shown = {int(rows[i]) for i in first}
    others = [
        i for i in range(len(rows)) if rows[i] >= 0 and codes[i] == runner_up and i not in first
    ]
    more: list[int] = []
    for i in others:
        if len(have) + len(more) < wanted and int(rows[i]) not in shown:
            more.append(i)
            shown.add(int(rows[i]))
    kept = first[: k - len(more)]
    found = np.full(min(k, len(rows)), -1, dtype=np.int64)
    found[: len(kept) + len(more)] = kept + more
    return found


def explain(
    snapshot: AnySnapshot,
    shown: Neighbours,
    near: Sequence[Sequence[Neighbour]],
    best: Sequence[str],
    second: Sequence[str | None],
) -> list[list[Evidence]]:
    """The shown neighbours of each query, `near` as they are listed, with their roles."""
    named = zip(near, best, second, strict=True)
    labelled = [[Evidence(n, _role(n.category, b, s)) for n in each] for each, b, s in named]
    if not any(labelled):
        return labelled
    # In the place of none stands any product, which no evidence is of.
    rows = np.where(shown.rows < 0, shown.rows.max(), shown.rows)
    few = max(1, _PAIRS // rows.shape[1] ** 2)
    alike = chain.from_iterable(
        _alike(snapshot, rows[i : i + few]) for i in range(0, len(rows), few)
    )
    return [_fold(each, a) if a.any() else each for each, a in zip(labelled, alike, strict=True)]


def _role(category: str | None, best: str, second: str | None) -> str:
    if category == best:
        return "supports"
    return "runner-up" if category == second else "other"


def _alike(snapshot: AnySnapshot, rows: IntArray) -> BoolArray:
    """Which of the products `rows` (n, k) are all but the same as an earlier one: (n, k, k)."""
    pairs = snapshot.pairs(rows.ravel())
    sides = pairs.reshape(*rows.shape, 2, -1).transpose(2, 0, 1, 3)
    cosines = sides @ sides.swapaxes(2, 3)
    given: BoolArray = np.any(sides, axis=3)
    both = given[..., :, None] & given[..., None, :]
    alike = (cosines.sum(axis=0) / np.maximum(both.sum(axis=0), 1)) >= SIMILAR
    alike &= ((cosines >= SIMILAR_EACH) | ~both).all(axis=0)
    alike &= (given[..., :, None] == given[..., None, :]).all(axis=0)
    return np.asarray(np.tril(alike, -1), dtype=np.bool_)


def _fold(shown: list[Evidence], alike: BoolArray) -> list[Evidence]:
    """Marks neighbours that are all but the same as a nearer one, by `alike` (k, k)."""
    folded: list[Evidence] = []
    for i, one in enumerate(shown):
        near = [j for j in range(i) if alike[i, j] and folded[j].duplicate_of is None]
        same = [j for j in near if shown[j].role == one.role]
        first = shown[same[0]].neighbour.id if same else None
        folded.append(Evidence(one.neighbour, one.role, first))
    return folded
