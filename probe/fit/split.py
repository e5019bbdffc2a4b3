"""The split of a training set: rows to train from, and rows to stop by.

Copies of one product (`probe.fit.copies`) stand on one side of every split and fold.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from kinshelf.db.arrays import BoolArray, IntArray, ObjectArray
from kinshelf.db.errors import TooFewClasses
from kinshelf.db.sources.prepare import UNUSED
from kinshelf.probe.fit.copies import groups_of
from kinshelf.probe.fit.covariance import Basis
from kinshelf.probe.fit.data import LabelledData

RESERVED_SPLITS = ("val", "test", UNUSED)
"""Splits that never train: those that are only reported on, and what preparing left aside."""

_BASIS_ROWS = 4096

FOLDS = 5
"""Parts that cross-fitting makes of the rows."""


@dataclass(frozen=True, slots=True, eq=False)
class TrainingSet:
    """Rows of `data` (n,) int64 and their categories as places in `classes`, (n,) int64.

    `groups` (n,) int64: rows of one number are copies and are never parted. `basis`: see
    `with_basis`.
    """

    data: LabelledData
    rows: IntArray
    codes: IntArray
    classes: tuple[str, ...]
    groups: IntArray
    basis: Basis | None = None

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, chosen: BoolArray) -> Self:
        """The rows where `chosen` (n,) is true, with the same classes."""
        return replace(
            self, rows=self.rows[chosen], codes=self.codes[chosen], groups=self.groups[chosen]
        )

    def among(self, codes: IntArray) -> Self:
        """The rows of some classes (m,), ascending, as they would be were there no others."""
        kept = self.take(np.isin(self.codes, codes))
        names = tuple(self.classes[code] for code in codes)
        return replace(kept, codes=np.searchsorted(codes, kept.codes), classes=names)

    def with_basis(self, seed: int) -> Self:
        """The same with the directions of some thousands of its rows, if it has none yet."""
        if self.basis is not None:
            return self
        chosen = np.sort(np.random.default_rng(seed).permutation(len(self))[:_BASIS_ROWS])
        return replace(self, basis=Basis.of(self.data.fused(self.rows[chosen])))

    @property
    def judgeable(self) -> BoolArray:
        """Which rows can be judged by others, (n,): their class has another group."""
        return judgeable(self.codes, self.groups)

    @property
    def n_groups(self) -> int:
        """Products, copies counted once."""
        return len(np.unique(self.groups))

    def hold_out(self, fraction: float, seed: int) -> BoolArray:
        """`hold_out` of its rows."""
        return hold_out(self.codes, fraction, seed, self.groups)

    def rounds(self, seed: int) -> Iterator[tuple[BoolArray, IntArray]]:
        """`cross_fit_rounds` of its rows."""
        return cross_fit_rounds(self.codes, seed, self.groups)

    @property
    def counts(self) -> dict[str, int]:
        """Rows of each class."""
        counted = np.bincount(self.codes, minlength=len(self.classes))
        return {name: int(n) for name, n in zip(self.classes, counted, strict=True)}


def training_set(data: LabelledData, group: str | None = None) -> TrainingSet:
    """All categorised rows but those of `RESERVED_SPLITS`.

    Copies are one group, and so are rows of equal values in the column `group`. Raises
    TooFewClasses, or InvalidSetting for a column that is not there.
    """
    rows, categories = data.labelled()
    reserved = np.concatenate([data.labelled(split)[0] for split in RESERVED_SPLITS])
    free = ~np.isin(rows, reserved)
    _check_classes(categories[free], held_back=len(rows) - int(free.sum()))
    classes, codes = encode(categories[free])
    return TrainingSet(data, rows[free], codes, classes, groups_of(data, rows[free], group))


def encode(categories: ObjectArray) -> tuple[tuple[str, ...], IntArray]:
    """The sorted distinct categories, and each row's place among them, (n,) int64."""
    classes = tuple(sorted(set(categories)))
    place = {name: code for code, name in enumerate(classes)}
    codes = np.fromiter((place[name] for name in categories), dtype=np.int64, count=len(categories))
    return classes, codes


def _check_classes(categories: ObjectArray, held_back: int) -> None:
    counts = Counter(categories)
    if len(counts) < 2:
        found = ", ".join(f"{name!r} ({n})" for name, n in counts.items()) or "none"
        kept = (
            f" ({held_back} rows of the splits val, test and unused never train)"
            if held_back
            else ""
        )
        raise TooFewClasses(
            f"training needs products of at least two categories, found {found}{kept}: "
            "add categorised products"
        )


def judgeable(codes: IntArray, groups: IntArray) -> BoolArray:
    """Which rows can be judged by others, (n,): their class has another group."""
    of_group = np.unique(np.stack([codes, groups]), axis=1)[0]
    return np.greater(np.bincount(of_group, minlength=1)[codes], 1)


def hold_out(
    codes: IntArray, fraction: float, seed: int, groups: IntArray | None = None
) -> BoolArray:
    """A stratified share of the rows, (n,) bool: true where a row is held out.

    Each class gives its share, fractions going to those that lose most by rounding down, ties by
    chance. A class keeps at least one row; if there is a row to spare, at least one is held out.
    Rows of one of the `groups` go together and count as one, of the class of the first.
    """
    if groups is not None:
        first, unit = _units(groups)
        held = hold_out(codes[first], fraction, seed)[unit]
        lost = np.setdiff1d(codes, codes[~held])
        return held & ~np.isin(unit, unit[np.isin(codes, lost)])
    rng = np.random.default_rng(seed)
    counts = np.bincount(codes)
    share = np.where(counts > 1, counts * fraction, 0.0)
    taken = np.floor(share).astype(np.int64)
    spare = max(round(float(share.sum())), int(fraction > 0 and bool((counts > 1).any())))
    by_remainder = np.lexsort((rng.random(len(counts)), taken - share))
    eligible = by_remainder[counts[by_remainder] > taken[by_remainder] + 1]
    taken[eligible[: max(spare - int(taken.sum()), 0)]] += 1
    return _first_of_each_class(codes, rng.permutation(len(codes)), taken)


def cross_fit_rounds(
    codes: IntArray, seed: int, groups: IntArray | None = None
) -> Iterator[tuple[BoolArray, IntArray]]:
    """Judge every row by what was fitted without it: the rows to fit on and those to judge.

    Yields, for each of `FOLDS` stratified folds that has rows, which rows train, (n,) bool, and the
    ascending places of the others, (m,) int64. Each row is judged once, those of one of the
    `groups` in the same fold.
    """
    fold = folds(codes, FOLDS, seed, groups)
    for i in np.unique(fold):
        yield fold != i, np.flatnonzero(fold == i).astype(np.int64)


def folds(codes: IntArray, n_folds: int, seed: int, groups: IntArray | None = None) -> IntArray:
    """A stratified fold in [0, n_folds) for each row, (n,) int64; fold sizes differ by one at most.

    Each class spreads over the folds as evenly as it can, the rows of a fold are drawn by chance.
    Rows of one of the `groups` go together and count as one, of the class of the first.
    """
    if groups is not None:
        first, unit = _units(groups)
        return folds(codes[first], n_folds, seed)[unit]
    order = np.random.default_rng(seed).permutation(len(codes))
    by_class = order[np.argsort(codes[order], kind="stable")]
    fold = np.empty(len(codes), dtype=np.int64)
    # dealt like cards, one class after the other
    fold[by_class] = np.arange(len(codes)) % n_folds
    return fold


def _units(groups: IntArray) -> tuple[IntArray, IntArray]:
    """The first row of each group, ascending, and each row's place among the groups, (n,)."""
    first, inverse = np.unique(groups, return_index=True, return_inverse=True)[1:]
    order = np.argsort(first, kind="stable")
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    return first[order], place[inverse]


def _first_of_each_class(codes: IntArray, order: IntArray, wanted: IntArray) -> BoolArray:
    """Marks, for each class c, the first `wanted[c]` of its rows as they come in `order`."""
    by_class = order[np.argsort(codes[order], kind="stable")]
    counts = np.bincount(codes, minlength=len(wanted))
    starts = np.cumsum(counts) - counts
    rank = np.arange(len(codes)) - starts[codes[by_class]]
    chosen = np.zeros(len(codes), dtype=np.bool_)
    chosen[by_class[rank < wanted[codes[by_class]]]] = True
    return chosen
