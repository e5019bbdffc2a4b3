"""Pictures of an evaluation: confusion matrix and reliability diagram, as PNG files."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kinshelf.db.arrays import Float64Array, IntArray
from kinshelf.db.files import written
from kinshelf.probe.evaluate.metrics import ECE_BINS, ece, reliability

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LABEL_LENGTH = 32
"""Characters of a category's name on an axis; longer names keep their end."""

ANNOTATED_CLASSES = 60
"""Beyond this many classes, counts in the cells would be too small to read."""

NAMED_CLASSES = 250
"""Beyond this many classes, names would be too small to read and slow to draw."""

_CELL, _LARGEST = 0.42, 36.0  # inches

_DPI = 120


def confusion_png(
    path: Path, y_true: IntArray, predicted: IntArray, classes: Sequence[str], title: str
) -> None:
    """Save `confusion_figure`."""
    _save(confusion_figure(y_true, predicted, classes, title), path)


def confusion_figure(
    y_true: IntArray, predicted: IntArray, classes: Sequence[str], title: str
) -> Figure:
    """Plot the confusion matrix: rows true, columns predicted.

    Colour is the share of the row, the number the count. Only classes that occur are drawn;
    products whose category has no column (-1) are left out and counted in the title.
    """
    counted = y_true >= 0
    present = np.union1d(y_true[counted], predicted)
    counts = np.zeros((len(present), len(present)), dtype=np.int64)
    rows = np.searchsorted(present, y_true[counted])
    np.add.at(counts, (rows, np.searchsorted(present, predicted[counted])), 1)
    right, n = int(np.trace(counts)), len(y_true)
    title = f"{title}: {right:,} of {n:,} right ({right / n:.1%})"
    if not counted.all():
        title += f", {int((~counted).sum()):,} of unknown categories not drawn"
    return _draw_matrix(counts, short_labels([classes[i] for i in present]), title)


def _draw_matrix(counts: IntArray, labels: list[str], title: str) -> Figure:
    from matplotlib.figure import Figure

    side = min(_CELL * len(labels), _LARGEST)
    figure = Figure(figsize=(side + 5.5, side + 4), layout="constrained")
    axes = figure.add_subplot()
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    image = axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    _name_ticks(axes, labels, min(8.0, 0.8 * 72 * side / len(labels)))
    axes.set(xlabel="predicted", ylabel="true")
    axes.set_title(title, fontsize=10 + side / 2, parse_math=False)
    if len(labels) <= ANNOTATED_CLASSES:
        _write_counts(axes, counts, share)
    figure.colorbar(image, ax=axes, label="share of the true category", shrink=0.7)
    return figure


def _name_ticks(axes: Axes, labels: list[str], size: float) -> None:
    if len(labels) > NAMED_CLASSES:
        return
    # a dollar sign in a name starts no formula
    text: dict[str, Any] = {"fontsize": size, "parse_math": False}
    places = range(len(labels))
    axes.set_xticks(places, labels, rotation=60, ha="right", rotation_mode="anchor", **text)
    axes.set_yticks(places, labels, **text)


def _write_counts(axes: Axes, counts: IntArray, share: Float64Array) -> None:
    for (row, column), count in np.ndenumerate(counts):
        if count:
            colour = "white" if share[row, column] > 0.5 else "black"
            axes.text(column, row, f"{count:,}", ha="center", va="center", color=colour, fontsize=8)


def reliability_png(
    path: Path, distributions: Mapping[str, Float64Array], y_true: IntArray
) -> None:
    """Draw, for each method, accuracy against confidence in the bins of the ECE."""
    from matplotlib.figure import Figure

    n = len(distributions)
    figure = Figure(figsize=(3.6 * n + 0.4, 4.2), layout="constrained")
    every = figure.subplots(1, n, squeeze=False, sharey=True)[0]
    for axes, (name, proba) in zip(every, distributions.items(), strict=True):
        _draw_reliability(axes, name, proba, y_true)
    every[0].set_ylabel("accuracy, share of products")
    every[-1].legend(loc="upper left", fontsize=8)
    _save(figure, path)


def _draw_reliability(axes: Axes, name: str, proba: Float64Array, y_true: IntArray) -> None:
    confidence, right = proba.max(axis=1), proba.argmax(axis=1) == y_true
    count, accuracy, mean_confidence = reliability(confidence, right)
    edges = np.arange(ECE_BINS) / ECE_BINS
    width = 1 / ECE_BINS
    axes.bar(edges, count / len(y_true), width, align="edge", color="0.85", label="products")
    filled = count > 0
    axes.plot([0, 1], [0, 1], color="0.5", linestyle="--", linewidth=1, label="perfect")
    axes.plot(
        mean_confidence[filled], accuracy[filled], "o-", color="tab:blue", markersize=4,
        label="accuracy",
    )  # fmt: skip
    axes.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="confidence")
    axes.set_title(f"{name}: ECE {ece(confidence, right):.3f}", fontsize=10)


def short_labels(names: Sequence[str]) -> list[str]:
    """Names for an axis: without the path that all share, no longer than `LABEL_LENGTH`."""
    if not names:
        return []
    pairs = zip(min(names), max(names), strict=False)
    shared = "".join(a for a, _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))
    # only whole steps of a path such as "Toys | Games | Puzzles" are dropped
    steps = [shared.rfind(mark) + len(mark) for mark in (" | ", " > ", "/") if mark in shared]
    rest = [name[max(steps, default=0) :] for name in names]
    return [n if len(n) <= LABEL_LENGTH else "…" + n[1 - LABEL_LENGTH :] for n in rest]


def _save(figure: Figure, path: Path) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    with warnings.catch_warnings():
        # a script that the font lacks is drawn as boxes: not worth a line on the terminal
        warnings.filterwarnings("ignore", message="Glyph .* missing", category=UserWarning)
        with written(path) as file:
            FigureCanvasAgg(figure).print_figure(str(file), dpi=_DPI, format="png")
