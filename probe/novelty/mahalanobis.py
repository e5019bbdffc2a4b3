"""Relative Mahalanobis distance: to a category, against the catalogue as a whole.

The relative Mahalanobis distance of Ren et al. 2021 (arXiv 2106.09022): the squared distance to
the nearest category's mean under the covariance within categories, minus the squared distance to
the mean of all under the covariance of all. High where no category is nearer than all of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from kinshelf.db.arrays import BoolArray, Float64Array, FloatArray, IntArray
from kinshelf.probe.fit.covariance import Covariance, Floats, class_means

SHRINKAGE = 0.7
"""Share of the mean eigenvalue in each: there are often fewer rows than dimensions. Measured flat
from 0.5 to 0.85 on 828 products, handwritten digits and a Gaussian mixture of 20 classes."""

RANK = 128
"""Directions kept of a covariance; the remaining ones share one variance."""

_LEAST_VARIANCE = 1e-6
"""Mean variance of a direction of unit embeddings that are all but the same."""

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class Relative:
    """The model of embeddings with d dimensions and n_classes categories; float32 but for `counts`,
    int64.

    `mean` (d,), `means` (n_classes, d) relative to it, `counts` (n_classes,) rows behind each mean.
    A precision is `rest (1,) * I + basis.T diag(gain) basis` with `basis` (r, d), `gain` (r,).
    """

    mean: FloatArray
    means: FloatArray
    counts: IntArray
    within_basis: FloatArray
    within_gain: FloatArray
    within_rest: FloatArray
    total_basis: FloatArray
    total_gain: FloatArray
    total_rest: FloatArray

    @classmethod
    def fit(
        cls, X: FloatArray, codes: IntArray, n_classes: int, basis: FloatArray | None = None
    ) -> Self:
        """From embeddings (n, d) and their categories' places (n,); a category may have none.
        `basis` as in `Covariance.of`."""
        mean = X.mean(axis=0, dtype=np.float64)
        centred = X - mean
        counts = np.bincount(codes, minlength=n_classes).astype(np.int64)
        means = class_means(centred, codes, n_classes)
        within, total = (
            Covariance.of(rows, SHRINKAGE, _LEAST_VARIANCE, basis=basis)
            for rows in (centred - means[codes], centred)
        )
        parts = (mean, means, *_precision(within), *_precision(total))
        floats = [np.ascontiguousarray(part, dtype=np.float32) for part in parts]
        return cls(floats[0], floats[1], counts, *floats[2:])

    @property
    def known(self) -> BoolArray:
        """The categories that a row was seen of, (n_classes,)."""
        return np.asarray(self.counts > 0, dtype=np.bool_)

    def distance(self, X: FloatArray) -> Float64Array:
        """Relative distance to the nearest known category, (n,), of embeddings (n, d)."""
        centred = X - self.mean
        within, squares = self._centres
        nearest = squares - 2 * centred @ within.T
        square = self._within_square(centred)
        return np.asarray(nearest.min(axis=1) + square, dtype=np.float64) - self._from_all(centred)

    def distance_to(self, X: FloatArray, centres: FloatArray) -> Float64Array:
        """Relative distance of each embedding (n, d) to a mean of its own, (n, d): (n,)."""
        apart = X - centres
        square = self._within_square(apart)
        return np.asarray(square, dtype=np.float64) - self._from_all(X - self.mean)

    def arrays(self) -> dict[str, Array]:
        """For `from_arrays`."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Array]) -> Self:
        """Raises KeyError where one is missing."""
        return cls(**{field.name: arrays[field.name] for field in fields(cls)})

    @cached_property
    def _centres(self) -> tuple[FloatArray, FloatArray]:
        """The known means times the precision within categories, and their squared lengths."""
        means, rest = self.means[self.known], self.within_rest
        within = rest * means + ((means @ self.within_basis.T) * self.within_gain) @ (
            self.within_basis
        )
        return np.asarray(within, dtype=np.float32), self._within_square(means)

    def _within_square(self, X: FloatArray) -> FloatArray:
        return _square(X, self.within_basis, self.within_gain, self.within_rest)

    def _from_all(self, centred: FloatArray) -> Float64Array:
        square = _square(centred, self.total_basis, self.total_gain, self.total_rest)
        return np.asarray(square, dtype=np.float64)


def _precision(covariance: Covariance) -> tuple[Floats, Float64Array, Float64Array]:
    """Its inverse as basis, gain and rest, the directions left out sharing one variance."""
    width = covariance.directions.shape[1]
    kept = min(RANK, width - 1, len(covariance.variances))
    others = covariance.variances[kept:]
    flat = width - kept - len(others)
    rest = (width - kept) / (others.sum() + flat * covariance.rest)
    return covariance.directions[:kept], 1 / covariance.variances[:kept] - rest, np.array([rest])


def _square(X: FloatArray, basis: FloatArray, gain: FloatArray, rest: FloatArray) -> FloatArray:
    """Squared lengths (n,) of rows (n, d) under a precision, from their parts along its basis."""
    return np.asarray(rest * np.vecdot(X, X) + (X @ basis.T) ** 2 @ gain, dtype=np.float32)
