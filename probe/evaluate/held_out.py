"""Evaluation from the shelf, on products that neither trained the probe nor voted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np

from kinshelf.db.arrays import BoolArray, Float64Array, IntArray, ObjectArray
from kinshelf.db.errors import EmptyShelf, ProbeNotFound
from kinshelf.probe.calibrate.calibrate import calibrate
from kinshelf.probe.calibrate.conformal import Conformal
from kinshelf.probe.calibrate.hybrid import Distributions, Predictors, joined, spread
from kinshelf.probe.calibrate.new_categories import new_categories_of
from kinshelf.probe.evaluate.methods import evaluate, write_evaluation
from kinshelf.probe.evaluate.metrics import Metrics
from kinshelf.probe.fit.knn import NO_VOTE, identical
from kinshelf.probe.fit.model import Probe
from kinshelf.probe.fit.split import FOLDS, cross_fit_rounds, training_set
from kinshelf.probe.fit.storage import read_probe
from kinshelf.probe.fit.training import fit_probe
from kinshelf.store.probes import find_probe
from kinshelf.store.results import Rows
from kinshelf.store.search import fusion

if TYPE_CHECKING:
    import pandas as pd

    from kinshelf.store.base import AnyShelf
    from kinshelf.store.generation import AnySnapshot

_BLOCK = 256


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Distributions of the methods over the same products; `protocol` states which products and how
    they were judged.

    `sets` (n, n_classes) bool are the hybrid's prediction sets, the answer always in them; None
    where nothing was calibrated.
    """

    methods: Mapping[str, Float64Array]
    y_true: ObjectArray
    classes: tuple[str, ...]
    protocol: str
    sets: BoolArray | None = None

    @cached_property
    def metrics(self) -> dict[str, Metrics]:
        """Per method, as metrics.json has it."""
        return evaluate(self.methods, list(self.y_true), self.classes, self.sets)

    def to_pandas(self) -> pd.DataFrame:
        """One row a method (`probe`, `knn`, `hybrid`), its figures as in metrics.json."""
        rows = Rows({"method": name, **figures} for name, figures in self.metrics.items())
        return rows.to_pandas().drop(columns="per_class", errors="ignore")

    def rearranged(self, order: IntArray) -> Self:
        """The same with products in another order."""
        methods = {name: proba[order] for name, proba in self.methods.items()}
        sets = None if self.sets is None else self.sets[order]
        return replace(self, methods=methods, y_true=self.y_true[order], sets=sets)

    def write(self, directory: Path) -> list[Path]:
        """Write metrics.json, confusion.png and reliability.png; returns their paths."""
        write_evaluation(directory, self.methods, list(self.y_true), self.classes, self.sets)
        names = ("metrics.json", "confusion.png", "reliability.png")
        return [directory / name for name in names]


def evaluate_shelf(
    shelf: AnyShelf, *, split: str = "val", version: int | None = None
) -> Evaluation:
    """Probe, kNN and hybrid on the products of a split.

    The neighbours that vote are categorised products outside the split. Where no product has the
    split `val`, all categorised products are judged by five-fold cross-validation, each by a
    probe trained, with the newest probe's settings, on the other folds.
    Raises EmptyShelf, ProbeNotFound or TooFewClasses.

    >>> sorted(evaluate_shelf(shelf).metrics)
    ['hybrid', 'knn', 'probe']
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
        protocol = f"{len(rows)} products of split {split!r}, {len(voters)} others vote"
        return _evaluation([_judge(now, probe, rows, voters)], y_true, protocol)
    return _cross_validate(now, probe)


def _probe(shelf: AnyShelf, now: AnySnapshot, version: int | None) -> Probe | None:
    try:
        return read_probe(find_probe(shelf, now, version).path)
    except ProbeNotFound:
        if version is not None:
            raise
        return None


@dataclass(frozen=True, slots=True, eq=False)
class _Judged:
    """Predictions for some rows, and the prediction sets where the probe was calibrated."""

    predicted: Distributions
    sets: BoolArray | None


def _judge(now: AnySnapshot, probe: Probe | None, rows: IntArray, voters: IntArray) -> _Judged:
    """Predict for `rows` as if only `voters` had categories."""
    if not len(voters):
        raise EmptyShelf(
            f"all {len(rows)} categorised products are to be judged, so there is nothing to judge"
            " them by: keep some out of that split"
        )
    all_rows, all_categories = now.labelled()
    categories = all_categories[np.isin(all_rows, voters)]
    classes = tuple(sorted(set(categories).union(probe.classes if probe else ())))
    place = {name: code for code, name in enumerate(classes)}
    codes = np.array([place[name] for name in categories], dtype=np.int64)
    new_categories = new_categories_of(probe, classes, codes, lambda at: now.fused(voters[at]))
    predictors = Predictors(probe, classes, new_categories=new_categories)
    parts = [
        _answer(now, predictors, rows[start : start + _BLOCK], voters, codes)
        for start in range(0, len(rows), _BLOCK)
    ]
    return _Judged(predicted := joined(parts), _sets(probe, predicted))


def _answer(
    now: AnySnapshot, predictors: Predictors, rows: IntArray, voters: IntArray, codes: IntArray
) -> Distributions:
    pairs = now.pairs(rows)
    found = now.kneighbors(pairs, predictors.calibration.k, among=voters)
    there = found.rows >= 0
    at = np.searchsorted(voters, np.where(there, found.rows, voters[0]))
    fused = fusion.fused(pairs)
    near = now.fused(voters[at].ravel()).reshape(*at.shape, -1)
    labels = np.where(there & ~identical(fused, near), codes[at], NO_VOTE)
    return predictors.answer(fused, found.similarities, labels, near)


def _sets(probe: Probe | None, predicted: Distributions) -> BoolArray | None:
    conformal = Conformal.of(probe.reference) if probe else None
    if probe is None or conformal is None:
        return None
    sets = conformal.over(probe.classes, predicted.classes).sets(predicted.hybrid)
    sets[np.arange(len(sets)), predicted.hybrid.argmax(axis=1)] = True  # as `classify` shows them
    return sets


def _evaluation(parts: Sequence[_Judged], y_true: ObjectArray, protocol: str) -> Evaluation:
    found = joined([part.predicted for part in parts])
    methods = {"probe": found.probe, "knn": found.knn, "hybrid": found.hybrid}
    if not found.probe.any():
        methods = {"knn": found.knn}
        protocol += "; no probe is trained yet, so the neighbours are judged alone"
    sets = [
        spread(part.sets.astype(np.float64), part.predicted.classes, found.classes) > 0
        for part in parts
        if part.sets is not None
    ]
    whole = np.concatenate(sets) if len(sets) == len(parts) else None
    return Evaluation(methods, y_true, found.classes, protocol, whole)


def _cross_validate(now: AnySnapshot, probe: Probe | None) -> Evaluation:
    whole = training_set(now)
    parts, judged = [], []
    for train, places in cross_fit_rounds(whole.codes, seed=0):
        part = whole.take(train)
        trained = probe and calibrate(part, fit_probe(part, probe.settings).probe)
        parts.append(_judge(now, trained, whole.rows[places], part.rows))
        judged.append(places)
    order = np.concatenate(judged)
    found = _evaluation(
        parts,
        np.array(whole.classes, dtype=object)[whole.codes[order]],
        f"no product has the split 'val', so all {len(whole)} categorised ones were judged by"
        f" {FOLDS}-fold cross-validation",
    )
    return found.rearranged(np.argsort(order))
