"""Copies among products: the same or nearly the same picture and text, under several ids.

A probe that learned one copy knows the other by heart, so folds and splits keep them together.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from kinshelf.db.arrays import BoolArray, FloatArray, IntArray, ObjectArray
from kinshelf.db.errors import InvalidSetting
from kinshelf.probe.fit.data import SIMILAR, SIMILAR_EACH, Grouped, LabelledData
from kinshelf.store.generation import AnySnapshot

EXACT = 20_000
"""Rows up to which every two are compared. Beyond, only those that have the same nearest of some
hundred rows drawn by chance: exact copies are found for certain, nearly all near ones too."""

_DRAWS = 2
"""How often such rows are drawn."""

_SKETCH, _SLACK = 96, 2.0
"""Numbers that a row is sketched by. The distance of two sketches is past `_SLACK` times that of
the rows with a chance of 2e-8 (chi-square), so a pair that is only just alike may be missed."""

_BLOCK, _GATHERED = 512, 2048
_MANY_EDGES = 100_000
_BOTH = 3


def alike(left: FloatArray, right: FloatArray, similar: float = SIMILAR) -> BoolArray:
    """Which unit embedding pairs (n, D) and (m, D) are copies of one another, (n, m) bool.

    The mean of the cosines of picture and text is at least `similar`, each at least `SIMILAR_EACH`.
    A product without a picture cannot be known to be the same as one that has one.
    """
    sides = [np.split(rows, 2, axis=1) for rows in (left, right)]
    total, given = np.zeros((2, len(left), len(right)), dtype=np.float32)
    found = np.ones((len(left), len(right)), dtype=np.bool_)
    for one, other in zip(*sides, strict=True):
        there, here = one.any(axis=1), other.any(axis=1)
        cosines = one @ other.T
        found &= (there[:, None] == here) & ((cosines >= SIMILAR_EACH) | ~here)
        total += cosines
        given += here
    return np.asarray(found & (total >= similar * given) & (given > 0), dtype=np.bool_)


def groups_of(
    data: LabelledData, rows: IntArray, column: str | None = None, judged: BoolArray | None = None
) -> IntArray:
    """A number for each of `rows` (n,) int64, shared by its copies and their copies, (n,) int64.

    `column` names a column whose equal values stand together as well. `judged` (n,): only whether
    these have copies among the others is asked, which is less work: others are compared with these
    alone. Raises InvalidSetting for an unknown column.
    """
    named = np.arange(len(rows)) if column is None else _numbered(_values(data, rows, column))
    links = _Links(data, rows, named)
    for kind in np.unique(links.kind[links.kind > 0]):
        places = np.flatnonzero(links.kind == kind)
        if len(rows) <= EXACT:
            links.join_all(places if judged is None else places[judged[places]], places)
        else:
            links.join_cells(places)
    links.settle()
    return links.groups


def identical_groups(X: FloatArray) -> IntArray:
    """A number for each row of X (n, D), shared by equal rows, (n,) int64."""
    return np.unique(X, axis=0, return_inverse=True)[1].astype(np.int64).ravel()


def _values(data: LabelledData, rows: IntArray, column: str) -> ObjectArray:
    """The column's values, (n,); None where there is none."""
    if isinstance(data, Grouped):
        return data.values_of(column, rows)
    if isinstance(data, AnySnapshot):
        return column_values(data, rows, column)
    raise InvalidSetting(
        f"group {column!r}: rows that are given as arrays have no columns: add the products to a"
        " shelf, or leave out the group"
    )


def column_values(now: AnySnapshot, rows: IntArray, column: str) -> ObjectArray:
    """A field or attribute of products of a shelf, (len(rows),); None where one has no value.

    Raises InvalidSetting for a name that is neither.
    """
    check_column(column, now.view.attribute_types())
    found = np.full(len(rows), None, dtype=object)
    for start in range(0, len(rows), _GATHERED):
        known = now.view.by_rows(rows[start : start + _GATHERED])
        for place, row in enumerate(rows[start : start + _GATHERED].tolist(), start):
            product = known[row].product
            own = getattr(product, column) if column in GROUP_FIELDS else None
            found[place] = product.attributes.get(column, own)
    return found


def check_column(column: str, attributes: Iterable[str]) -> None:
    """Raises InvalidSetting unless products can be grouped by this field or attribute."""
    names = (*GROUP_FIELDS, *attributes)
    if column not in names:
        raise InvalidSetting(f"no column {column!r} to group by: known are {', '.join(names)}")


GROUP_FIELDS = ("title", "brand", "image", "description")


def _numbered(values: ObjectArray) -> IntArray:
    """Equal values share a number; a value that is missing or empty stands alone."""
    known: dict[str, int] = {}
    found = np.arange(len(values), dtype=np.int64)
    for place, value in enumerate(values):
        if value is not None and str(value).strip():
            found[place] = known.setdefault(str(value), place)
    return found


class _Links:
    """Rows that grow together. `kind` (n,) is which of picture and text each has, `groups` (n,)
    the groups so far.

    A sketch is a random projection, which keeps distances nearly (Johnson and Lindenstrauss), so
    that only the few pairs whose sketches are near need to be compared in full.
    """

    def __init__(self, data: LabelledData, rows: IntArray, groups: IntArray) -> None:
        self._data, self._rows, self.groups = data, rows, groups.astype(np.int64)
        self._edges: list[IntArray] = []
        self._waiting = 0
        self.kind = np.zeros(len(rows), dtype=np.int64)
        self._sketch = np.ones((len(rows), _SKETCH + 2), dtype=np.float32)
        projection: FloatArray | None = None
        for start in range(0, len(rows), _GATHERED):
            part = np.arange(start, min(start + _GATHERED, len(rows)))
            X = self._unit(part)
            halves = X.reshape(len(X), 2, -1)
            self.kind[part] = (np.vecdot(halves, halves) > 0) @ [1, 2]
            if projection is None:
                projection = np.random.default_rng(0).standard_normal(
                    (X.shape[1], _SKETCH), dtype=np.float32
                ) / np.float32(np.sqrt(_SKETCH))
            sketch = X @ projection
            self._sketch[part, :_SKETCH] = sketch
            self._sketch[part, -1] = -np.vecdot(sketch, sketch) / 2

    def _unit(self, places: IntArray) -> FloatArray:
        """Unit embedding pairs of some rows, (m, D): each half of length 1 or 0."""
        X = self._data.fused(self._rows[places])
        halves = X.reshape(len(X), 2, -1)
        with np.errstate(over="ignore"):
            length = np.sqrt(np.vecdot(halves, halves))[:, :, None]
        halves /= np.where(length > 0, length, 1)
        return X

    def join_all(self, ones: IntArray, places: IntArray) -> None:
        """Join the copies among rows of one kind, each of `ones` compared with all `places`."""
        whole = len(ones) == len(places)
        for start in range(0, len(ones), _BLOCK):
            for at in range(start if whole else 0, len(places), _GATHERED):
                self._join(ones[start : start + _BLOCK], places[at : at + _GATHERED])

    def join_cells(self, places: IntArray) -> None:
        """Join the copies among rows of one kind that have the same nearest of some rows."""
        for seed in range(_DRAWS):
            chance = np.random.default_rng(seed)
            chosen = chance.permutation(places)[: int(np.sqrt(len(places)))]
            nearest = np.concatenate([
                self._nearness(places[start : start + _BLOCK], chosen).argmax(axis=1)
                for start in range(0, len(places), _BLOCK)
            ])  # fmt: skip
            order = np.argsort(nearest, kind="stable")
            ends = np.flatnonzero(np.diff(nearest[order])) + 1
            for cell in np.split(places[order], ends):
                self.join_all(cell, cell)

    def _nearness(self, ones: IntArray, others: IntArray) -> FloatArray:
        """Minus half the squared distances of sketches, (n, m), as one inner product."""
        left = self._sketch[ones]
        left[:, -2:] = left[:, :-3:-1]
        return np.asarray(left @ self._sketch[others].T)

    def _join(self, ones: IntArray, others: IntArray) -> None:
        count = 2 if self.kind[ones[0]] == _BOTH else 1
        near = self._nearness(ones, others) >= -_SLACK * count * (1 - SIMILAR)
        i, j = np.divmod(np.flatnonzero(near), len(others))
        apart = self.groups[ones[i]] != self.groups[others[j]]
        first, second = np.unique(i[apart]), np.unique(j[apart])
        if len(first):
            left, right = ones[first], others[second]
            one, other = np.nonzero(alike(self._unit(left), self._unit(right)))
            self._keep(left[one], right[other])

    def _keep(self, ones: IntArray, others: IntArray) -> None:
        self._edges.append(np.stack([self.groups[ones], self.groups[others]]))
        self._waiting += len(ones)
        if self._waiting > _MANY_EDGES:
            self.settle()

    def settle(self) -> None:
        """Number the groups anew, those joined since the last time as one."""
        from scipy.sparse import coo_array
        from scipy.sparse.csgraph import connected_components

        if not self._edges:
            return
        n = len(self.groups)
        ends = np.concatenate(self._edges, axis=1)
        links = coo_array((np.ones(ends.shape[1], dtype=np.bool_), tuple(ends)), shape=(n, n))
        joined = connected_components(links, directed=False)[1]
        self.groups = joined[self.groups].astype(np.int64)
        self._edges, self._waiting = [], 0
