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
from kinshelf.probe.calibrate.hybrid import (
    METHODS,
    Distributions,
    Predictors,
    joined,
    spread,
    views_of,
)
from kinshelf.probe.calibrate.new_categories import new_categories_of
from kinshelf.probe.evaluate.methods import evaluate, write_evaluation
from kinshelf.probe.evaluate.metrics import Metrics
from kinshelf.probe.fit.copies import groups_of
from kinshelf.probe.fit.knn import NO_VOTE
from kinshelf.probe.fit.model import Probe
from kinshelf.probe.fit.split import FOLDS, training_set
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

    `rows` (n,) int64 are the products' rows on the shelf. `sets` (n, n_classes) bool are the
    hybrid's prediction sets, the answer always in them; None where nothing was calibrated.
    """

    methods: Mapping[str, Float64Array]
    y_true: ObjectArray
    classes: tuple[str, ...]
    protocol: str
    rows: IntArray
    sets: BoolArray | None = None

    @cached_property
    def metrics(self) -> dict[str, Metrics]:
        """Per method, as metrics.json has it."""
        return evaluate(self.methods, list(self.y_true), self.classes, self.sets)

    def to_pandas(self) -> pd.DataFrame:
        """One row a method (`probe`, `knn`, `hybrid`), its figures as in metrics.json."""
        rows = Rows({"method": name, **figures} for name, figures in self.metrics.items())
        return rows.to_pandas().drop(columns="per_class", errors="ignore")

    def take(self, order: IntArray) -> Self:
        """The same of these products, in this order."""
        methods = {name: proba[order] for name, proba in self.methods.items()}
        sets = None if self.sets is None else self.sets[order]
        y_true, rows = self.y_true[order], self.rows[order]
        return replace(self, methods=methods, y_true=y_true, rows=rows, sets=sets)

    def write(self, directory: Path) -> list[Path]:
        """Write metrics.json, confusion.png and reliability.png; returns their paths."""
        write_evaluation(directory, self.methods, list(self.y_true), self.classes, self.sets)
        names = ("metrics.json", "confusion.png", "reliability.png")
        return [directory / name for name in names]


def evaluate_shelf(
    shelf: AnyShelf, *, split: str = "val", version: int | None = None, group: str | None = None
) -> Evaluation:
    """Probe, kNN and hybrid on the products of a split that have no copy outside it, each once
    that has copies in it.

    The neighbours that vote are categorised products outside the split. Where no product has the
    split `val`, or each has a copy outside it, all categorised products that train are judged by
    five-fold cross-validation, each by a probe trained, with the newest probe's settings, on the
    other folds. Copies are in the same fold. Products of equal values in the column `group`, None:
    the one that the probe was trained with, are taken for copies.
    Raises EmptyShelf, ProbeNotFound, TooFewClasses, or InvalidSetting for an unknown column.

    >>> sorted(evaluate_shelf(shelf).metrics)
    ['hybrid', 'knn', 'probe', 'ridge']
    """
    now = shelf.snapshot()
    probe = _probe(shelf, now, version)
    group = group or (probe.settings.group if probe else None)
    every, categories = now.labelled()
    of_split = np.isin(every, now.labelled(split)[0])
    if not of_split.any():
        if split != "val":
            raise EmptyShelf(
                f"no categorised product has the split {split!r}: name one that has, or give the"
                " products a split when adding them (--val-fraction, or a column `split`)"
            )
        return _cross_validate(now, probe, group, "no product has the split 'val'")
    groups = groups_of(now, every, group, judged=of_split)
    counted = of_split & ~np.isin(groups, groups[~of_split])
    if not counted.any() and not of_split.all():
        why = f"each of the {int(of_split.sum())} products of split {split!r} has a copy outside it"
        if split != "val":
            raise EmptyShelf(f"{why}, so the probe knows them all: name another split")
        return _cross_validate(now, probe, group, why)
    once = np.flatnonzero(counted)[_first_of_each(groups[counted])]
    rows, voters = every[once], every[~of_split]
    protocol = f"{len(rows)} products of split {split!r}, {len(voters)} others vote"
    if copied := int((of_split & ~counted).sum()):
        protocol += f"; {copied} more have copies among those others and do not count"
    if copied := int(counted.sum()) - len(once):
        protocol += f"; {copied} more are copies of these, and copies count once"
    judged = _judge(now, probe, rows, voters)
    return _evaluation([judged], categories[once], protocol, rows)


def _first_of_each(groups: IntArray) -> IntArray:
    """The place of the first product of each group, as the policy counts them, ascending."""
    return np.sort(np.unique(groups, return_index=True)[1])


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
    views = np.concatenate([
        views_of(now.fused(rows[start : start + _BLOCK])) for start in range(0, len(rows), _BLOCK)
    ])  # fmt: skip
    return _Judged(predicted := joined(parts), _sets(probe, predicted, views))


def _answer(
    now: AnySnapshot, predictors: Predictors, rows: IntArray, voters: IntArray, codes: IntArray
) -> Distributions:
    pairs = now.pairs(rows)
    found = now.kneighbors(pairs, predictors.calibration.k, among=voters)
    there = found.rows >= 0
    at = np.searchsorted(voters, np.where(there, found.rows, voters[0]))
    fused = fusion.fused(pairs)
    near = now.fused(voters[at].ravel()).reshape(*at.shape, -1)
    labels = np.where(there, codes[at], NO_VOTE)
    return predictors.answer(fused, found.similarities, labels, near)


def _sets(probe: Probe | None, predicted: Distributions, views: IntArray) -> BoolArray | None:
    conformal = Conformal.of(probe.reference) if probe else None
    if probe is None or conformal is None:
        return None
    sets = conformal.over(probe.classes, predicted.classes).sets(predicted.hybrid, views=views)
    sets[np.arange(len(sets)), predicted.hybrid.argmax(axis=1)] = True  # as `classify` shows them
    return sets


def _evaluation(
    parts: Sequence[_Judged], y_true: ObjectArray, protocol: str, rows: IntArray
) -> Evaluation:
    found = joined([part.predicted for part in parts])
    methods = {name: getattr(found, name) for name in METHODS}
    if not found.ridge.any():
        del methods["ridge"]
    if not found.probe.any():
        methods = {"knn": found.knn}
        protocol += "; no probe is trained yet, so the neighbours are judged alone"
    sets = [
        spread(part.sets.astype(np.float64), part.predicted.classes, found.classes) > 0
        for part in parts
        if part.sets is not None
    ]
    whole = np.concatenate(sets) if len(sets) == len(parts) else None
    return Evaluation(methods, y_true, found.classes, protocol, rows, whole)


def _cross_validate(
    now: AnySnapshot, probe: Probe | None, group: str | None, why: str
) -> Evaluation:
    whole = training_set(now, group)
    if whole.n_groups < 2:
        raise EmptyShelf(
            f"all {len(whole)} categorised products are copies of one, so there is nothing to judge"
            " them by: add others"
        )
    parts, judged = [], []
    for train, places in whole.rounds(seed=0):
        part = whole.take(train)
        trained = probe and calibrate(part, fit_probe(part, probe.settings).probe)
        parts.append(_judge(now, trained, whole.rows[places], part.rows))
        judged.append(places)
    order = np.concatenate(judged)
    protocol = f"{why}, so all {len(whole)} categorised ones that train were judged by"
    protocol += f" {FOLDS}-fold cross-validation"
    if whole.n_groups < len(whole):
        protocol += f"; with copies they are {whole.n_groups} products, whose copies share a fold"
        protocol += " and count once"
    y_true = np.array(whole.classes, dtype=object)[whole.codes[order]]
    found = _evaluation(parts, y_true, protocol, whole.rows[order])
    return found.take(np.argsort(order)[_first_of_each(whole.groups)])
