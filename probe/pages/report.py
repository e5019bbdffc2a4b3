"""`evaluate -o DIR`: report.html, the figures drawn and the worst mistakes with their evidence."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kinshelf.db.arrays import BoolArray, Float64Array, IntArray
from kinshelf.db.errors import ShelfError
from kinshelf.db.files import written
from kinshelf.probe.evaluate.figures import short_labels
from kinshelf.probe.evaluate.methods import codes_of
from kinshelf.probe.evaluate.metrics import ECE_BINS, Metrics, reliability
from kinshelf.probe.pages.card import neighbour, thumbnail
from kinshelf.probe.pages.html import render
from kinshelf.probe.predict.wording import evaluation_notes
from kinshelf.store.ingest import queries

if TYPE_CHECKING:
    from kinshelf.probe.evaluate.held_out import Evaluation
    from kinshelf.probe.pages.thumbnails import Thumbnails
    from kinshelf.store.generation import AnySnapshot
    from kinshelf.store.results import Neighbour

MISTAKES = 24
MATRIX_CLASSES = 25
"""Beyond this many categories the pairs most often confused are listed instead of a matrix."""

_CONFUSED = 30
_K = 20
_CURVE = 200


def write_report(
    path: Path, snapshot: AnySnapshot, found: Evaluation, thumbnails: Thumbnails
) -> None:
    """Write the page; `snapshot` is of the generation that was evaluated."""
    metrics = found.metrics
    codes = codes_of(list(found.y_true), found.classes)
    drawn = [
        _method(place, name, proba, codes, metrics[name])
        for place, (name, proba) in enumerate(found.methods.items())
    ]
    top_risk = max([y for method in drawn for _, y in method["risk"]] + [0.01])
    for method in drawn:
        method["risk"] = [(x, y / top_risk) for x, y in method["risk"]]
    best = list(found.methods.values())[-1]
    page = render(
        "report.html",
        protocol=found.protocol,
        generation=snapshot.generation,
        methods=drawn,
        best=drawn[-1],
        notes=evaluation_notes(drawn[-1]["metrics"]),
        top_risk=top_risk,
        **_confusion(codes, best.argmax(axis=1), found.classes),
        mistakes=_mistakes(snapshot, found, best, codes, thumbnails),
    )
    with written(path) as file:
        file.write_text(page, encoding="utf-8")


def _method(
    place: int, name: str, proba: Float64Array, codes: IntArray, metrics: Metrics
) -> dict[str, Any]:
    confidence, right = proba.max(axis=1), proba.argmax(axis=1) == codes
    return {
        "name": name,
        "colour": place % 3,
        "metrics": metrics,
        **reliability_values(confidence, right),
        "risk": risk_coverage(confidence, right),
    }


def reliability_values(confidence: Float64Array, right: BoolArray) -> dict[str, Any]:
    """A reliability diagram's points (confidence, accuracy) and its bars of how many, in 100ths."""
    count, accuracy, mean = reliability(confidence, right)
    filled = count > 0
    width = 100 / ECE_BINS
    share = count / len(right) * 100
    return {
        "reliability": list(zip(mean[filled].tolist(), accuracy[filled].tolist(), strict=True)),
        "bins": [
            {"x": round(i * width, 2), "width": round(width, 2), "height": round(s, 2),
             "y": round(100 - s, 2)}
            for i, s in enumerate(share)
        ],
    }  # fmt: skip


def risk_coverage(confidence: Float64Array, right: Any) -> list[tuple[float, float]]:
    """(coverage, error rate of the surest), at most `_CURVE` points from the surest to all."""
    wrong = ~np.asarray(right)[np.argsort(-confidence, kind="stable")]
    risk = np.cumsum(wrong) / np.arange(1, len(wrong) + 1)
    chosen = np.unique(np.linspace(0, len(wrong) - 1, min(_CURVE, len(wrong))).astype(np.int64))
    return [((i + 1) / len(wrong), float(risk[i])) for i in chosen.tolist()]


def _confusion(codes: IntArray, predicted: IntArray, classes: tuple[str, ...]) -> dict[str, Any]:
    known = codes >= 0
    pairs, counts = np.unique(
        np.stack([codes[known], predicted[known]], axis=1), axis=0, return_counts=True
    )
    total = np.bincount(codes[known], minlength=len(classes))
    count = {(int(a), int(b)): int(n) for (a, b), n in zip(pairs, counts, strict=True)}
    present = np.union1d(codes[known], predicted).tolist()
    if len(present) <= MATRIX_CLASSES:
        return {"matrix": _matrix(count, total, present, classes), "confused": None}
    wrong = sorted(((n, pair) for pair, n in count.items() if pair[0] != pair[1]), reverse=True)
    confused = [
        {"true": classes[a], "predicted": classes[b], "count": n, "share": n / int(total[a])}
        for n, (a, b) in wrong[:_CONFUSED]
    ]
    return {"matrix": None, "confused": confused}


def _matrix(
    count: Mapping[tuple[int, int], int], total: IntArray, present: list[int],
    classes: tuple[str, ...],
) -> dict[str, Any]:  # fmt: skip
    names = short_labels([classes[code] for code in present])
    rows = []
    for name, a in zip(names, present, strict=True):
        cells = [(count.get((a, b), 0), max(int(total[a]), 1)) for b in present]
        rows.append({"name": name, "cells": [{"count": n, "share": n / t} for n, t in cells]})
    return {"names": names, "rows": rows}


def _mistakes(
    snapshot: AnySnapshot, found: Evaluation, proba: Float64Array, codes: IntArray,
    thumbnails: Thumbnails,
) -> list[dict[str, Any]]:  # fmt: skip
    rows = found.rows
    predicted = proba.argmax(axis=1)
    given = np.where(codes >= 0, proba[np.arange(len(codes)), np.maximum(codes, 0)], 0.0)
    wrong = np.flatnonzero(predicted != codes)
    worst = wrong[np.argsort(given[wrong], kind="stable")][:MISTAKES]
    known = snapshot.view.by_rows(rows[worst])
    if len(known) < len(worst):
        raise ShelfError("the shelf was changed while it was evaluated: evaluate again")
    mistakes = []
    for i in worst:
        row, category = int(rows[i]), found.classes[predicted[i]]
        product = known[row].product
        mistakes.append({
            "id": product.id, "title": product.title, "true": found.y_true[i],
            "predicted": category, "probability": float(proba[i, predicted[i]]),
            "given": float(given[i]), "shown": thumbnail(product.image, thumbnails),
            "neighbours": _evidence(snapshot, row, category, found.y_true[i], thumbnails),
        })  # fmt: skip
    return mistakes


def _evidence(
    snapshot: AnySnapshot, row: int, predicted: str, true: str, thumbnails: Thumbnails
) -> list[dict[str, Any]]:
    """Three of the nearest of the predicted category, two of the true one."""
    near = snapshot.kneighbors(snapshot.pairs([row]), _K, labelled_only=True, exclude=[row])
    found = queries.neighbours(snapshot, near)[0]

    def of(category: str, limit: int) -> list[Neighbour]:
        return [n for n in found if n.category == category][:limit]

    as_predicted = [
        neighbour(n.as_dict(), thumbnails, "said", "conflict") for n in of(predicted, 3)
    ]
    meant = [neighbour(n.as_dict(), thumbnails, "true", "accept") for n in of(true, 2)]
    return as_predicted + meant
