"""The means of categories, and the covariance within them, shrunk towards the identity.

Shrinkage as in Friedman 1989: there are often fewer rows than dimensions. How much, each user
measured for its own purpose.

The directions in which a shelf's embeddings differ at all are found once, for every covariance in
every fold. Within those of a modality it costs little; the directions left out share one variance.
Categories have no part in them, so a fold learns nothing from the rows that it judges.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from kinshelf.db.arrays import Float64Array, FloatArray, IntArray

_LEAST = 1e-12
"""Variance below which a direction has none."""

Floats = NDArray[np.floating[Any]]


def class_means(X: Floats, codes: IntArray, n_classes: int) -> Float64Array:
    """Means of the rows (n, D) of each class, (n_classes, D); zero for one without rows."""
    sums = np.zeros((n_classes, X.shape[1]), dtype=np.float64)
    counts = np.bincount(codes, minlength=n_classes)
    some = np.flatnonzero(counts)
    if len(some):
        order, starts = np.argsort(codes, kind="stable"), (np.cumsum(counts) - counts)[some]
        sums[some] = np.add.reduceat(X[order], starts, axis=0, dtype=np.float64)
    return sums / np.maximum(counts, 1)[:, None]


@dataclass(frozen=True, slots=True, eq=False)
class Covariance:
    """`mean`, the mean variance before shrinkage; `variances` (r,), the largest first, along the
    rows of `directions` (r, D), which are orthonormal; `rest`, the variance along all others.
    """

    mean: float
    variances: Float64Array
    directions: Floats
    rest: float

    @classmethod
    def within(
        cls,
        X: Floats,
        codes: IntArray,
        n_classes: int,
        shrinkage: float,
        *,
        basis: Floats | None = None,
    ) -> Self:
        """Of rows (n, D) about the means of their categories, in the precision of X."""
        means = class_means(X, codes, n_classes).astype(X.dtype)
        return cls.of(X - means[codes], shrinkage, basis=basis)

    @classmethod
    def of(
        cls, rows: Floats, shrinkage: float, least: float = 0.0, *, basis: Floats | None = None
    ) -> Self:
        """Of rows (n, D) whose mean is zero. A share `shrinkage` of each variance is the mean one,
        which is taken to be no less than `least`. Within `basis` (r, D), orthonormal rows, the
        directions are kept apart; those outside share what is left, which costs r ** 3 in place
        of D ** 3."""
        width = rows.shape[1]
        if basis is None:
            own, directions = _principal(rows)
            mean = float(own.sum()) / width
            others = 0.0
        else:
            own, turned = _principal(rows @ basis.T)
            directions = turned @ basis
            total = float(np.vecdot(rows, rows).sum(dtype=np.float64)) / len(rows)
            mean = total / width
            others = max(total - float(own.sum()), 0.0) / max(width - len(basis), 1)
        rest = shrinkage * max(mean, least)
        variances = (1 - shrinkage) * own + rest
        return cls(mean, variances, directions, rest + (1 - shrinkage) * others)


def _principal(rows: Floats) -> tuple[Float64Array, Floats]:
    """Variances that are not zero, largest first, and their directions, of the rows' dtype."""
    n, width = rows.shape
    if n >= width:
        variances, vectors = np.linalg.eigh((rows.T @ rows).astype(np.float64) / n)
        directions = vectors.T
    else:
        variances, left = np.linalg.eigh((rows @ rows.T).astype(np.float64) / n)
        directions = (left / np.sqrt(np.maximum(variances, 1e-30) * n)).T @ rows
    order = np.argsort(-variances)
    some = order[variances[order] > _LEAST]
    return variances[some], np.asarray(directions[some], dtype=rows.dtype)


RANK = 128
"""Directions of a modality. Of 512 those of CLIP's pictures hold 0.9 of the variance and more."""


@dataclass(frozen=True, slots=True, eq=False)
class Basis:
    """Orthonormal rows: `image` (r, D // 2) and `text` (s, the rest), float32."""

    image: FloatArray
    text: FloatArray

    @classmethod
    def of(cls, X: FloatArray) -> Self:
        """The leading directions of fused embeddings (n, D), all of a modality of few."""
        middle = X.shape[1] // 2
        return cls(_leading(X[:, :middle]), _leading(X[:, middle:]))

    @property
    def both(self) -> FloatArray:
        """Of embedding pairs, (r + s, D)."""
        found = np.zeros(
            (len(self.image) + len(self.text), self.image.shape[1] + self.text.shape[1]),
            dtype=np.float32,
        )
        found[: len(self.image), : self.image.shape[1]] = self.image
        found[len(self.image) :, self.image.shape[1] :] = self.text
        return found


def _leading(rows: FloatArray) -> FloatArray:
    from scipy.linalg import eigh

    width = rows.shape[1]
    if width <= RANK:
        return np.eye(width, dtype=np.float32)
    products = (rows.T @ rows).astype(np.float64)
    vectors = eigh(products, subset_by_index=(width - RANK, width - 1), check_finite=False)[1]
    return np.ascontiguousarray(vectors[:, ::-1].T, dtype=np.float32)
