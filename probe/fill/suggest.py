"""The products whose labels would teach most: uncertain ones, spread out.

DropQuery (Gupte et al. 2024, arXiv 2401.14555): products on which the predictor changes its mind
when a part of the embedding is dropped are clustered, and the one nearest to each centre is asked
about. The predictor is the ridge of all labels so far, which takes no training. Without labels of
two categories it is the products in the middle of clusters of all.
"""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kinshelf.db.arrays import Float64Array, FloatArray, IntArray
from kinshelf.db.errors import InputError, TooFewClasses
from kinshelf.db.files import written
from kinshelf.db.text import for_spreadsheet
from kinshelf.probe.fit.model import softmax
from kinshelf.probe.fit.ridge import SHARPNESS, fit_ridge
from kinshelf.probe.fit.split import training_set
from kinshelf.store.results import Rows, fields_of
from kinshelf.store.search import fusion

if TYPE_CHECKING:
    from kinshelf.store.base import AnyShelf

UNLABELLED = "category IS NULL OR category_source = 'predicted'"
DROPPED, ROUNDS = 0.75, 3
"""Share of the numbers that are dropped, and how often, as in the paper."""
MOST = 20_000
"""Products that are looked at; of more, so many by chance."""
Predict = Callable[[FloatArray], Float64Array]


@dataclass(frozen=True, slots=True)
class Suggestion:
    """A product to label: what it has, what is predicted, and why it is asked about (`uncertain` or
    `typical`). `new_category` is empty, for the reviewer: `relabel` reads it."""

    id: str
    title: str
    category: str | None
    new_category: str
    suggested_category: str | None
    probability: float | None
    why: str
    image: str | None

    def as_dict(self) -> dict[str, Any]:
        """For `--json`, and a row of the file."""
        return fields_of(self)


def suggest(shelf: AnyShelf, n: int = 50, where: str | None = None, *, seed: int = 0) -> Rows:
    """At most n products without a label of a feed or a person, the best to label first.

    `where` narrows them. Columns are those of `Suggestion`. Raises FilterError or InputError.

    >>> rows = suggest(shelf, 3)
    >>> len(rows) <= 3
    True
    """
    if n < 1:
        raise InputError(f"n is {n}: ask for one product or more")
    now = shelf.snapshot()
    condition = UNLABELLED if where is None else f"({UNLABELLED}) AND ({where})"
    rows = now.view.rows(now.filter(condition))
    rows = np.sort(np.random.default_rng(seed).permutation(rows)[:MOST])
    if not len(rows):
        return Rows()
    X = fusion.fused(now.pairs(rows))
    try:
        source = training_set(now)
    except TooFewClasses:
        source = None
    classes, ridge = (source.classes, fit_ridge(source, seed).ridge) if source else ((), None)

    def predict(asked: FloatArray) -> Float64Array:
        assert ridge is not None
        return softmax(ridge.scores(asked) * SHARPNESS)

    chosen, unsure = choose(X, predict if ridge else None, n, seed)
    proba = predict(X[chosen]) if ridge else None
    known = now.view.by_rows(rows[chosen])
    found = Rows()
    for i, row in enumerate(rows[chosen].tolist()):
        product = known[row].product
        best = None if proba is None else int(proba[i].argmax())
        suggestion = Suggestion(
            product.id, product.title, product.category, "",
            None if best is None else classes[best],
            None if best is None or proba is None else float(proba[i, best]),
            "uncertain" if unsure[i] else "typical", product.image,
        )  # fmt: skip
        found.append(suggestion.as_dict())
    return found


def choose(
    X: FloatArray, predict: Predict | None, n: int, seed: int = 0
) -> tuple[IntArray, list[bool]]:
    """Places of at most n rows of X (n_rows, D) float32 to label, and which of these are uncertain;
    `predict` None: there are no labels."""
    if predict is None:
        return centres(X, min(n, len(X)), seed), [False] * min(n, len(X))
    unsure = disagreement(X, predict, seed)
    order = np.lexsort((margins(predict(X)), -unsure))
    often = int((unsure > 0.5).sum())
    pool = order[: max(often, min(n, len(X)))]
    chosen = pool[centres(X[pool], min(n, len(pool)), seed)]
    return chosen, (unsure[chosen] > 0.5).tolist()


def disagreement(X: FloatArray, predict: Predict, seed: int) -> Float64Array:
    """The share of `ROUNDS` in which a row without `DROPPED` of its numbers gets another class."""
    whole = predict(X).argmax(axis=1)
    rng = np.random.default_rng(seed)
    changed = np.zeros(len(X))
    for _ in range(ROUNDS):
        kept = rng.random(X.shape, dtype=np.float32) >= DROPPED
        part = X * kept / np.float32(1 - DROPPED)
        changed += predict(part).argmax(axis=1) != whole
    return changed / ROUNDS


def margins(proba: Float64Array) -> Float64Array:
    """By how much the best class of each row is ahead of the second, (n,)."""
    if proba.shape[1] < 2:
        return np.ones(len(proba))
    best = np.partition(proba, -2, axis=1)
    return np.asarray(best[:, -1] - best[:, -2])


def centres(X: FloatArray, n: int, seed: int) -> IntArray:
    """Places of the rows nearest to the centres of n clusters, those of the largest first."""
    if n >= len(X):
        return np.arange(len(X))
    import faiss

    means = faiss.Kmeans(
        X.shape[1], n, niter=20, seed=seed + 1, min_points_per_centroid=1,
        max_points_per_centroid=MOST,
    )  # fmt: skip
    means.train(np.ascontiguousarray(X))
    found = np.asarray(means.centroids, dtype=np.float32)
    distances = np.vecdot(found, found) - 2 * X @ found.T
    sizes = np.bincount(distances.argmin(axis=1), minlength=n)
    chosen: list[int] = []
    for cluster in np.argsort(-sizes, kind="stable"):
        near = distances[:, cluster].copy()
        near[chosen] = np.inf
        chosen.append(int(near.argmin()))
    return np.array(chosen, dtype=np.int64)


def write_suggestions(rows: Rows, path: Path) -> None:
    """Write them to a .csv file that `relabel` takes. Raises InputError."""
    if path.suffix.lower() != ".csv" or not path.parent.is_dir():
        raise InputError(f"cannot write to {path}: name a .csv file in a folder that is there")
    names = list(Suggestion.__slots__)
    with written(path) as target, target.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(names)
        for row in rows:
            cells = [row[name] for name in names]
            writer.writerow([for_spreadsheet(c) if isinstance(c, str) else c for c in cells])
