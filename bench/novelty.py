"""How well products of an unknown category are distinguished from those of the known ones.

    python bench/novelty.py [DIR] [--folds 5] [--retrain DRAWS]

Leave one category out: a model is fitted on the others, but for a fifth of their products in turn;
these and all products of the category left out are scored. Printed: the area under the ROC curve,
and the share of either that is called novel at p <= 0.05 (of the known ones it should be 0.05 or
less). With `--retrain DRAWS`: some products of the category left out are added and the others asked
about, before the probe is trained again and after it. DIR holds embeddings as for
`bench/quality.py`; without it only handwritten digits (one modality) and a seeded mixture of 20
categories of unequal size are run.
"""

from __future__ import annotations

import argparse
import csv
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from catalogues import DATA, check_there
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold

from kinshelf.db.arrays import Float64Array, FloatArray, IntArray
from kinshelf.probe import HybridClassifier
from kinshelf.probe.fit.data import ArrayData
from kinshelf.probe.fit.knn import ExactNeighbours
from kinshelf.probe.fit.split import training_set
from kinshelf.probe.novelty.fit import fit_novelty
from kinshelf.probe.novelty.model import NEIGHBOURS, NoveltyModel

BAR = 0.93
ALPHA = 0.05


@dataclass(frozen=True)
class Set:
    """Fused embeddings (n, D), categories (n,), and the categories left out, one after another."""

    name: str
    X: FloatArray
    y: IntArray
    left_out: list[int]
    names: list[str]


def products(directory: Path) -> Set:
    with (directory / "products.csv").open(encoding="utf-8", newline="") as file:
        names = [row["category"].rsplit("|", 1)[-1].strip() for row in csv.DictReader(file)]
    pairs = [np.load(directory / f"{kind}_embeddings.npy") for kind in ("image", "text")]
    X = np.concatenate(pairs, axis=1).astype(np.float32) / np.float32(math.sqrt(2))
    found, y = np.unique(names, return_inverse=True)
    return Set("products", X, y, list(range(len(found))), [str(name) for name in found])


def digits(n: int = 900) -> Set:
    """Pixels as picture embeddings; there is no text."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    rows = np.random.default_rng(0).permutation(len(bunch.target))[:n]
    image = unit(bunch.data[rows]) / math.sqrt(2)
    X = np.concatenate([image, np.zeros_like(image)], axis=1).astype(np.float32)
    return Set("digits", X, bunch.target[rows], list(range(10)), [str(i) for i in range(10)])


def mixture(n: int = 1500, n_classes: int = 20, d: int = 96, seed: int = 0) -> Set:
    """Gaussian categories in five families, shared uneven covariance, sizes as 1, 1/2, 1/3 ..."""
    rng = np.random.default_rng(seed)
    share = 1 / np.arange(2, n_classes + 2)
    y = rng.choice(n_classes, n, p=share / share.sum())
    pairs = [_mixed(rng, y, n_classes, d) for _ in range(2)]
    X = (np.concatenate(pairs, axis=1) / math.sqrt(2)).astype(np.float32)
    return Set("mixture", X, y, [0, 2, 5, 9, 13, 18], [str(i) for i in range(n_classes)])


def _mixed(rng: np.random.Generator, y: IntArray, n_classes: int, d: int) -> Float64Array:
    families = rng.normal(size=(5, d))[np.arange(n_classes) % 5]
    means = unit(families + 0.9 * rng.normal(size=(n_classes, d)))
    shared = unit(rng.normal(size=(1, d)))
    noise = rng.normal(size=(len(y), d)) @ (rng.normal(size=(d, d)) * np.arange(1, d + 1) ** -0.7).T
    noise /= np.linalg.norm(noise, axis=1).mean()
    return unit(shared + means[y] + 1.6 * noise * rng.uniform(0.6, 1.4, (len(y), 1)))


def unit(X: Float64Array) -> Float64Array:
    return np.asarray(X / np.linalg.norm(X, axis=1, keepdims=True), dtype=np.float64)


def judge(
    model: NoveltyModel, X: FloatArray, names: list[str], queries: FloatArray
) -> tuple[FloatArray, Float64Array]:
    """Scores and p-values of queries on a shelf of embeddings `X` with categories `names`."""
    places = ExactNeighbours(X).kneighbors(queries, min(NEIGHBOURS, len(X)))[1]
    categories = np.array(names, dtype=object)[places]
    scores = model.score(queries, X[places], categories)
    return scores, model.p_value(scores, queries)


def splits(data: Set, left_out: int, n_folds: int) -> Iterator[tuple[IntArray, IntArray, IntArray]]:
    """Rows to fit on, known rows to score and novel ones."""
    known, novel = np.flatnonzero(data.y != left_out), np.flatnonzero(data.y == left_out)
    splitter = StratifiedKFold(n_folds, shuffle=True, random_state=0)
    for train, test in splitter.split(known, data.y[known]):
        yield known[train], known[test], novel


def leave_out(data: Set, left_out: int, n_folds: int) -> tuple[float, float, float, float]:
    """Area under the curve, share of known and of novel called novel, seconds of a fit."""
    figures = []
    for train, known, novel in splits(data, left_out, n_folds):
        names = [data.names[code] for code in data.y[train]]
        start = time.perf_counter()
        model = fit_novelty(training_set(ArrayData(data.X[train], names)))
        seconds = time.perf_counter() - start
        assert model is not None
        scores, p = judge(model, data.X[train], names, data.X[np.append(known, novel)])
        truth = np.arange(len(scores)) >= len(known)
        called = p <= ALPHA
        area = float(roc_auc_score(truth, scores))
        figures.append((area, called[~truth].mean(), called[truth].mean(), seconds))
    auc, false, found, seconds = np.mean(figures, axis=0)
    return float(auc), float(false), float(found), float(seconds)


def table(data: Set, n_folds: int) -> float:
    """Prints a line for each category left out; their mean area under the curve."""
    print(f"\n{data.name}: {len(data.y)} x {data.X.shape[1]}, {len(np.unique(data.y))} categories")
    print(f"{'left out':32}{'AUROC':>8}{'known p<=.05':>14}{'novel p<=.05':>14}{'fit s':>8}")
    rows = [(data.names[c], leave_out(data, c, n_folds)) for c in data.left_out]
    rows.append(("mean", tuple(float(v) for v in np.mean([r for _, r in rows], axis=0))))
    for name, (area, false, found, seconds) in rows:
        print(f"{name[:31]:32}{area:8.4f}{false:14.3f}{found:14.3f}{seconds:8.2f}")
    return rows[-1][1][0]


ADDED = (1, 2, 3, 5, 12)


def retrain(data: Set, draws: int) -> bool:
    """Prints how many products of a new category are found by so many of it, and what that costs
    the known ones; whether training again takes none away and costs half a point at most."""
    found = np.array([
        [_retrained(data, left_out, seed) for seed in range(draws)] for left_out in data.left_out
    ]).mean(axis=(0, 1))  # fmt: skip
    print(f"\n{data.name}: a new category's products found, before and after training again")
    print(f"{'added':>6}{'before':>10}{'after':>10}{'known lost':>12}{'after':>10}")
    for n, (before, lost, after, lost_after) in zip(ADDED, found, strict=True):
        print(f"{n:6}{before:10.3f}{after:10.3f}{lost:12.4f}{lost_after:10.4f}")
    more_lost = found[:, 3] - found[:, 1]
    return bool((found[:, 2] >= found[:, 0] - 0.005).all() and (more_lost <= 0.005).all())


def _retrained(data: Set, left_out: int, seed: int) -> list[list[float]]:
    """For each of `ADDED`: share found and accuracy lost on known ones, before and after."""
    rng = np.random.default_rng(seed)
    names = np.array(data.names)[data.y]
    known = rng.permutation(np.flatnonzero(data.y != left_out))
    new = rng.permutation(np.flatnonzero(data.y == left_out))
    test, train = known[: len(known) // 5], known[len(known) // 5 :]
    others = new[max(ADDED) :]
    model = HybridClassifier(pairs=False).fit(data.X[train], names[train])
    first, figures, had = _right(model, data, test), [], 0
    for n in ADDED:
        model.add(data.X[new[had:n]], names[new[had:n]])
        rows = np.append(train, new[:n])
        again = HybridClassifier(pairs=False).fit(data.X[rows], names[rows])
        figures.append([
            value for asked in (model, again)
            for value in (_right(asked, data, others), first - _right(asked, data, test))
        ])  # fmt: skip
        had = n
    return figures


def _right(model: HybridClassifier, data: Set, rows: IntArray) -> float:
    return float(np.mean(model.predict(data.X[rows]) == np.array(data.names)[data.y[rows]]))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("directory", type=Path, nargs="?", default=DATA)
    parser.add_argument("--without-products", action="store_true", help="digits and mixture alone")
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--retrain", type=int, metavar="DRAWS")
    arguments = parser.parse_args()
    if arguments.retrain:
        return 0 if retrain(products(arguments.directory), arguments.retrain) else 1
    fine = True
    if not arguments.without_products:
        check_there(arguments.directory)
        area = table(products(arguments.directory), arguments.folds)
        fine = area >= BAR
        print(f"at least {BAR}: {'yes' if fine else 'NO'}")
    for data in (digits(), mixture()):
        table(data, arguments.folds)
    return 0 if fine else 1


if __name__ == "__main__":
    raise SystemExit(main())
