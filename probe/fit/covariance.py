"""The means of categories, and the covariance within them, shrunk towards the identity.

Shrinkage as in Friedman 1989: there are often fewer rows than dimensions. How much, each user
measured for its own purpose.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from kinshelf.db.arrays import Float64Array, IntArray

_LEAST = 1e-12
"""Variance below which a direction has none."""

Floats = NDArray[np.floating[Any]]


def class_means(X: Floats, codes: IntArray, n_classes: int) -> Float64Array:
    """Means of the rows (n, D) of each class, (n_classes, D); zero for one without rows."""
    sums = np.zeros((n_classes, X.shape[1]), dtype=np.float64)
    np.add.at(sums, codes, X)
    return sums / np.maximum(np.bincount(codes, minlength=n_classes), 1)[:, None]


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
        cls, X: Floats, codes: IntArray, n_classes: int, shrinkage: float, least: float = 0.0
    ) -> Self:
        """Of rows (n, D) about the means of their categories, in the precision of X."""
        means = class_means(X, codes, n_classes).astype(X.dtype)
        return cls.of(X - means[codes], shrinkage, least)

    @classmethod
    def of(cls, rows: Floats, shrinkage: float, least: float = 0.0) -> Self:
        """Of rows (n, D) whose mean is zero. A share `shrinkage` of each variance is the mean one,
        which is taken to be no less than `least`."""
        own, directions = _principal(rows)
        mean = float(own.sum()) / rows.shape[1]
        rest = shrinkage * max(mean, least)
        return cls(mean, (1 - shrinkage) * own + rest, directions, rest)


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
