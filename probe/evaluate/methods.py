"""Methods side by side on the same products, and the files that tell of it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from kinshelf.db.arrays import BoolArray, Float64Array, IntArray
from kinshelf.db.errors import EmptyShelf
from kinshelf.db.files import written
from kinshelf.probe.calibrate.conformal import COVERAGE
from kinshelf.probe.evaluate.figures import confusion_png, reliability_png
from kinshelf.probe.evaluate.metrics import Metrics, measure, measure_agreement, measure_sets


def evaluate(
    distributions: Mapping[str, Float64Array],
    y_true: Sequence[str],
    classes: Sequence[str],
    sets: BoolArray | None = None,
) -> dict[str, Metrics]:
    """The metrics of each method, as `metrics.json` has them.

    `distributions` names (n, n_classes) float64 arrays, columns as in `classes`; `y_true` are n
    categories. A true category without a column is always wrong. `sets` (n, n_classes) bool are
    the hybrid's prediction sets; how these do, and how right the hybrid is where probe and
    neighbours agree and where not, stands with the hybrid. Raises EmptyShelf if n is 0.
    """
    codes = codes_of(y_true, classes)
    found = {
        name: measure(np.asarray(proba, dtype=np.float64), codes, tuple(classes))
        for name, proba in distributions.items()
    }
    if {"probe", "knn", "hybrid"} <= found.keys():
        answers = {name: proba.argmax(axis=1) for name, proba in distributions.items()}
        agree = (answers["probe"] == answers["knn"]) & np.any(distributions["knn"], axis=1)
        found["hybrid"]["agreement"] = measure_agreement(agree, answers["hybrid"] == codes)
    if sets is not None and "hybrid" in found:
        found["hybrid"]["prediction_sets"] = measure_sets(sets, codes, COVERAGE)
    return found


def codes_of(y_true: Sequence[str], classes: Sequence[str]) -> IntArray:
    """The column of each category, -1 where it has none. Raises EmptyShelf if there are none."""
    if not len(y_true):
        raise EmptyShelf("no categorised products to evaluate on: name a split that has some")
    place = {name: code for code, name in enumerate(classes)}
    return np.array([place.get(category, -1) for category in y_true], dtype=np.int64)


def write_evaluation(
    directory: Path,
    distributions: Mapping[str, Float64Array],
    y_true: Sequence[str],
    classes: Sequence[str],
    sets: BoolArray | None = None,
) -> dict[str, Metrics]:
    """Write `metrics.json`, `confusion.png` (of the last method) and `reliability.png`.

    The directory is made if need be. Returns the metrics. Raises EmptyShelf.
    """
    metrics = evaluate(distributions, y_true, classes, sets)
    codes = codes_of(y_true, classes)
    directory.mkdir(parents=True, exist_ok=True)
    text = json.dumps(metrics, indent=2, ensure_ascii=False)
    with written(directory / "metrics.json") as file:
        file.write_text(text + "\n", encoding="utf-8")
    name, proba = list(distributions.items())[-1]
    confusion_png(directory / "confusion.png", codes, proba.argmax(axis=1), classes, name)
    reliability_png(directory / "reliability.png", distributions, codes)
    return metrics
