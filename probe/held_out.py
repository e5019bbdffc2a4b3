"""Evaluation from the shelf, on products that neither trained the probe nor voted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from kinshelf.db.errors import EmptyShelf, ProbeNotFound
from kinshelf.probe.data import BoolArray, Float64Array, FloatArray, IntArray, ObjectArray
from kinshelf.probe.evaluation import evaluate, write_evaluation
from kinshelf.probe.files import read_probe
from kinshelf.probe.hybrid import Distributions, distributions, spread
from kinshelf.probe.knn import identical
from kinshelf.probe.metrics import Metrics
from kinshelf.probe.model import Probe
from kinshelf.probe.settings import Calibration
from kinshelf.probe.split import folds, training_set
from kinshelf.probe.training import fit_probe
from kinshelf.store import fusion
from kinshelf.store.probes import find_probe

if TYPE_CHECKING:
    from kinshelf.store import Shelf
    from kinshelf.store.snapshot import Snapshot

FOLDS = 5
_BLOCK = 1024


@dataclass(frozen=True, slots=True, eq=False)
class Evaluation:
    """Distributions of the methods over the same products; `protocol` says which and how."""

    methods: Mapping[str, Float64Array]
    y_true: ObjectArray
    classes: tuple[str, ...]
    protocol: str

    @property
    def metrics(self) -> dict[str, Metrics]:
        """Per method, as metrics.json has it."""
        return evaluate(self.methods, list(self.y_true), self.classes)

    def write(self, directory: Path) -> list[Path]:
        """Write metrics.json, confusion.png and reliability.png; returns their paths."""
        write_evaluation(directory, self.methods, list(self.y_true), self.classes)
        names = ("metrics.json", "confusion.png", "reliability.png")
        return [directory / name for name in names]


def evaluate_shelf(shelf: Shelf, *, split: str = "val", version: int | None = None) -> Evaluation:
    """Probe, kNN and hybrid on the products of a split.

    The neighbours that vote are categorised products outside the split. Where no product has the
    split `val`, all categorised products are judged by five-fold cross-validation, each by a
    probe trained, with the newest probe's settings, on the other folds.
    Raises EmptyShelf, ProbeNotFound or TooFewClasses.
    """
    now = shelf.snapshot()
    rows, y_true = now.labelled(split)
    if not len(rows) and split != "val":
        raise EmptyShelf(
            f"no categorised product has the split {split!r}: name one that has, or give the"
            " products a split when adding them (--val-fraction, or a column `split`)"
        )
    probe = _probe(shelf, now, version)
    if len(rows):
        voters = np.setdiff1d(now.labelled()[0], rows)
        found = _judge(now, probe, rows, voters)
        protocol = f"{len(rows)} products of split {split!r}, {len(voters)} others vote"
        return _evaluation(found, y_true, protocol)
    return _cross_validate(now, probe)


def _probe(shelf: Shelf, now: Snapshot, version: int | None) -> Probe | None:
    try:
        return read_probe(find_probe(shelf, now, version).path)
    except ProbeNotFound:
        if version is not None:
            raise
        return None


def _judge(now: Snapshot, probe: Probe | None, rows: IntArray, voters: IntArray) -> Distributions:
    calibration = probe.calibration if probe else Calibration()
    category = dict(zip(*map(np.ndarray.tolist, now.labelled()), strict=True))
    parts = []
    for start in range(0, len(rows), _BLOCK):
        block = rows[start : start + _BLOCK]
        halves = now.halves(block)
        found = now.kneighbors(halves, calibration.k, among=voters)
        voted: ObjectArray = np.empty(found.rows.shape, dtype=object)
        voted.reshape(-1)[:] = [category.get(row) for row in found.rows.ravel()]
        voted[_copies(now, halves, found.rows)] = None
        fused = fusion.fused(halves)
        parts.append(distributions(probe, fused, found.similarities, voted, calibration))
    return _joined(parts)


def _copies(now: Snapshot, halves: FloatArray, rows: IntArray) -> BoolArray:
    known = np.where(rows < 0, rows.max(), rows)
    near = now.halves(known.ravel())
    return identical(halves, near.reshape(*rows.shape, -1))


def _joined(parts: list[Distributions]) -> Distributions:
    classes = tuple(sorted({name for part in parts for name in part.classes}))
    methods = {
        name: np.concatenate([spread(getattr(p, name), p.classes, classes) for p in parts])
        for name in ("probe", "knn", "hybrid")
    }
    return Distributions(classes, **methods)


def _evaluation(found: Distributions, y_true: ObjectArray, protocol: str) -> Evaluation:
    methods = {"probe": found.probe, "knn": found.knn, "hybrid": found.hybrid}
    if not found.probe.any():
        methods = {"knn": found.knn}
        protocol += "; no probe is trained yet, so the neighbours are judged alone"
    return Evaluation(methods, y_true, found.classes, protocol)


def _cross_validate(now: Snapshot, probe: Probe | None) -> Evaluation:
    whole = training_set(now)
    fold = folds(whole.codes, FOLDS, seed=0)
    parts = list(_fold_answers(now, probe, whole.rows, fold))
    order = np.argsort(np.concatenate([np.flatnonzero(fold == i) for i in range(FOLDS)]))
    found = _joined(parts)
    ordered = Distributions(
        found.classes, found.probe[order], found.knn[order], found.hybrid[order]
    )
    y_true = np.array(whole.classes, dtype=object)[whole.codes]
    protocol = (
        f"no product has the split 'val', so all {len(whole)} categorised ones were judged by"
        f" {FOLDS}-fold cross-validation"
    )
    return _evaluation(ordered, y_true, protocol)


def _fold_answers(
    now: Snapshot, probe: Probe | None, rows: IntArray, fold: IntArray
) -> Iterator[Distributions]:
    whole = training_set(now)
    for i in range(FOLDS):
        part = whole.take(fold != i)
        trained = fit_probe(part, probe.settings).probe if probe else None
        yield _judge(now, trained, rows[fold == i], part.rows)
