"""Metrics of a distribution over categories: the figures of `metrics.json`."""

from __future__ import annotations

from typing import NotRequired, TypedDict

import numpy as np

from kinshelf.db.arrays import BoolArray, Float64Array, IntArray
from kinshelf.probe.calibrate.tree import ancestry

MIN_PROBABILITY = 1e-12
"""Probabilities are clipped here before the logarithm: a category ruled out costs 27.6 nats."""

ECE_BINS = 15


class Scores(TypedDict):
    precision: float
    recall: float
    f1: float
    support: int


class Share(TypedDict):
    """The number of right answers among `n`; None of none."""

    accuracy: float | None
    n: int


class Agreement(TypedDict):
    """The answers on which probe and neighbours say the same, and the others."""

    agree: Share
    disagree: Share


class PredictionSets(TypedDict):
    """Figures of n prediction sets: `wanted` and observed `coverage` of the true category.

    `size` is their mean number of categories; the answer itself counts as in every set.
    """

    wanted: float
    coverage: float
    size: float
    n: int


class Hierarchy(TypedDict):
    """Figures of categories that stand under others, over `n` products whose category is known.

    `precision` and `recall` count each category with all that it stands under (Kiritchenko et al.
    2006); `accuracy_by_level` begins at the top, among the products that have such a level.
    """

    precision: float
    recall: float
    accuracy_by_level: list[float]
    n: int


class Metrics(TypedDict):
    """The figures of one method over `n` products. `hierarchy` is there where categories stand
    under others; the last two are the hybrid's alone."""

    accuracy: float
    macro_f1: float
    nll: float
    ece: float
    aurc: float
    per_class: dict[str, Scores]
    n: int
    hierarchy: NotRequired[Hierarchy]
    agreement: NotRequired[Agreement]
    prediction_sets: NotRequired[PredictionSets]


def measure(proba: Float64Array, y_true: IntArray, classes: tuple[str, ...]) -> Metrics:
    """All figures of one method.

    `proba` (n, n_classes) float64, n > 0, columns as in `classes`; `y_true` (n,) int64 holds the
    columns of the true categories, -1 for one that has no column. The prediction is the most
    probable class, the first of equals. `per_class` has the classes that are true or predicted
    somewhere; `macro_f1` is their mean F1.
    """
    predicted = proba.argmax(axis=1)
    right = predicted == y_true
    confidence = proba.max(axis=1)
    scores = per_class(y_true, predicted, classes)
    found: Metrics = {
        "accuracy": float(right.mean()),
        "macro_f1": float(np.mean([score["f1"] for score in scores.values()])),
        "nll": nll(proba, y_true),
        "ece": ece(confidence, right),
        "aurc": aurc(confidence, right),
        "per_class": scores,
        "n": len(y_true),
    }
    hierarchy = measure_hierarchy(y_true, predicted, classes)
    return found | {"hierarchy": hierarchy} if hierarchy else found


def measure_hierarchy(
    y_true: IntArray, predicted: IntArray, classes: tuple[str, ...]
) -> Hierarchy | None:
    """Figures by level; None where no category stands under another, or none is known."""
    lines = [ancestry(name) for name in classes]
    known = y_true >= 0
    if not known.any() or max(map(len, lines)) < 2:
        return None
    pairs = [(lines[t], lines[p]) for t, p in zip(y_true[known], predicted[known], strict=True)]
    shared = [sum(a == b for a, b in zip(t, p, strict=False)) for t, p in pairs]
    depth = max(len(true) for true, _ in pairs)
    right = [[found > at for (true, _), found in zip(pairs, shared, strict=True) if len(true) > at]
             for at in range(depth)]  # fmt: skip
    return {
        "precision": sum(shared) / sum(len(own) for _, own in pairs),
        "recall": sum(shared) / sum(len(true) for true, _ in pairs),
        "accuracy_by_level": [float(np.mean(level)) for level in right],
        "n": len(pairs),
    }


def per_class(y_true: IntArray, predicted: IntArray, classes: tuple[str, ...]) -> dict[str, Scores]:
    """Precision, recall, F1 and support of the classes that are true or predicted somewhere."""
    from sklearn.metrics import precision_recall_fscore_support

    present = np.union1d(y_true[y_true >= 0], predicted)
    figures = precision_recall_fscore_support(y_true, predicted, labels=present, zero_division=0.0)
    return {
        classes[code]: {
            "precision": float(precision),
            "recall": float(recall),
            "f1": float(f1),
            "support": int(support),
        }
        for code, precision, recall, f1, support in zip(present, *figures, strict=True)
    }


def nll(proba: Float64Array, y_true: IntArray) -> float:
    """Mean negative log-likelihood in nats, probabilities clipped at `MIN_PROBABILITY`."""
    rows = np.arange(len(y_true))
    given = np.where(y_true >= 0, proba[rows, np.maximum(y_true, 0)], 0.0)
    return float(-np.log(np.clip(given, MIN_PROBABILITY, 1.0)).mean())


def ece(confidence: Float64Array, right: BoolArray) -> float:
    """Expected calibration error of the top prediction, `ECE_BINS` bins of equal width.

    Bin b holds confidences in (b / bins, (b + 1) / bins]; the error is the mean over products of
    |accuracy - confidence| of their bin (Guo et al. 2017, arXiv 1706.04599, section 2).
    """
    count, accuracy, mean_confidence = reliability(confidence, right)
    return float((count * np.abs(accuracy - mean_confidence)).sum() / len(right))


def reliability(
    confidence: Float64Array, right: BoolArray
) -> tuple[IntArray, Float64Array, Float64Array]:
    """Count, accuracy and mean confidence of each bin of `ece`, (bins,); 0 in an empty one."""
    place = np.clip(np.ceil(confidence * ECE_BINS).astype(np.int64) - 1, 0, ECE_BINS - 1)
    count = np.bincount(place, minlength=ECE_BINS)
    divisor = np.maximum(count, 1)
    accuracy = np.bincount(place, weights=right, minlength=ECE_BINS) / divisor
    mean_confidence = np.bincount(place, weights=confidence, minlength=ECE_BINS) / divisor
    return count.astype(np.int64), accuracy, mean_confidence


def aurc(confidence: Float64Array, right: BoolArray) -> float:
    """Area under the risk-coverage curve: the mean error rate of the i surest, i = 1 to n.

    Geifman et al. 2019, arXiv 1805.08206, section 3. Among equal confidences the order is
    unknown: each counts with their mean error.
    """
    _, group = np.unique(-confidence, return_inverse=True)
    size = np.bincount(group)
    mean_error = np.bincount(group, weights=~right) / size
    errors = np.repeat(mean_error, size)
    return float((np.cumsum(errors) / np.arange(1, len(errors) + 1)).mean())


def measure_agreement(agree: BoolArray, right: BoolArray) -> Agreement:
    """Measure accuracy, (n,), where probe and neighbours agree and where not."""
    return {"agree": _share(right[agree]), "disagree": _share(right[~agree])}


def _share(right: BoolArray) -> Share:
    return {"accuracy": float(right.mean()) if len(right) else None, "n": len(right)}


def measure_sets(sets: BoolArray, y_true: IntArray, wanted: float) -> PredictionSets:
    """Measure coverage and size of prediction sets (n, n_classes)."""
    holds = sets[np.arange(len(y_true)), np.maximum(y_true, 0)] & (y_true >= 0)
    return {
        "wanted": wanted,
        "coverage": float(holds.mean()),
        "size": float(sets.sum(axis=1).mean()),
        "n": len(y_true),
    }
