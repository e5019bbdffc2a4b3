"""The spaces in which a neighbour's weight may be measured.

`fused` is the similarity of the shelf. `centred` takes the mean embedding away first: CLIP's
embeddings share most of their direction, and what is left tells products apart. `whitened` also
damps the directions in which products of one category differ (Fisher's discriminant). `hidden` is
the probe's hidden layer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from kinshelf.db.arrays import FloatArray
from kinshelf.probe.fit.covariance import Covariance, Floats
from kinshelf.probe.fit.model import Probe
from kinshelf.probe.fit.split import TrainingSet

SHRINKAGE = 0.8
"""Of the covariance within categories. On CLIP embeddings of 828 products, a category left out and
known by the mean of 5 of its rows: 0.93 of the others found at the cost of 1 % of the known ones,
0.91 with 0.95, 0.87 with no whitening at all."""

DIRECTIONS = 128
"""That are damped; the rest differ too little within categories to matter."""
_SAMPLE = 4096


@dataclass(frozen=True, slots=True, eq=False)
class Metric:
    """A metric that centres and whitens embeddings.

    `mean` (D,) float32 of the fused embeddings; `directions` (r, D) float32, orthonormal;
    `gains` (r,) float32 in (0, 1], what is left of a row's part along each direction.
    """

    mean: FloatArray
    directions: FloatArray
    gains: FloatArray

    def centred(self, X: FloatArray) -> FloatArray:
        """Fused embeddings (n, D) less the mean, unit rows; a missing half stays zero."""
        return unit(self._less_mean(X))

    def whitened(self, X: FloatArray) -> FloatArray:
        """As `centred`, with the directions damped, (n, D) float32, unit rows."""
        rows = self._less_mean(X)
        along = (rows @ self.directions.T) * (1 - self.gains)
        return unit(np.subtract(rows, along @ self.directions, dtype=np.float32))

    def whitened_cosines(self, X: FloatArray, neighbours: FloatArray) -> FloatArray:
        """Between `whitened` queries (n, D) and their own neighbours (n, k, D): (n, k) float32.

        The directions are orthonormal, so the parts along them tell what damping takes from an
        inner product: no row needs to be put together anew, which is most of the work.
        """
        n, k, width = neighbours.shape
        queries = self._less_mean(X)
        rows = self._less_mean(neighbours.reshape(n * k, width))
        q, r = queries @ self.directions.T, rows @ self.directions.T
        taken = 1 - self.gains**2
        inner = np.vecdot(rows.reshape(n, k, width), queries[:, None])
        inner -= np.vecdot(r.reshape(n, k, len(taken)), (q * taken)[:, None])
        lengths = _left(rows, r, taken).reshape(n, k) * _left(queries, q, taken)[:, None]
        return np.asarray(inner / np.where(lengths > 0, lengths, 1), dtype=np.float32)

    def _less_mean(self, X: FloatArray) -> FloatArray:
        rows = np.asarray(X - self.mean, dtype=np.float32)
        half = X.shape[1] // 2
        for part in (slice(0, half), slice(half, None)):
            rows[~X[:, part].any(axis=1), part] = 0
        return rows

    def arrays(self) -> dict[str, NDArray[Any]]:
        """By name, to be stored with a probe."""
        return {
            "metric.mean": self.mean, "metric.directions": self.directions,
            "metric.gains": self.gains,
        }  # fmt: skip

    @classmethod
    def of(cls, arrays: Mapping[str, NDArray[Any]]) -> Self | None:
        """Read from stored `arrays`; None if they hold none."""
        if "metric.mean" not in arrays:
            return None
        return cls(*(arrays[f"metric.{name}"] for name in ("mean", "directions", "gains")))


def fit_metric(source: TrainingSet, seed: int) -> Metric:
    """From at most some thousand of the rows, drawn by chance."""
    source = source.with_basis(seed)
    chosen = np.sort(np.random.default_rng(seed).permutation(len(source))[:_SAMPLE])
    X, codes = source.data.fused(source.rows[chosen]), source.codes[chosen]
    mean = X.mean(axis=0, dtype=np.float64).astype(np.float32)
    basis = None if source.basis is None else source.basis.both
    within = Covariance.within(X, codes, len(source.classes), SHRINKAGE, basis=basis)
    gains = np.sqrt(within.rest / within.variances[:DIRECTIONS]).astype(np.float32)
    return Metric(mean, np.ascontiguousarray(within.directions[:DIRECTIONS]), gains)


def _left(rows: FloatArray, along: FloatArray, taken: FloatArray) -> FloatArray:
    """Lengths (n,) of rows (n, D) less the share `taken` (r,) of the squares of `along` (n, r)."""
    return np.asarray(np.sqrt(np.maximum(np.vecdot(rows, rows) - along**2 @ taken, 0)))


def unit(rows: Floats) -> FloatArray:
    """Rows divided by their length; zero rows stay zero."""
    length = np.linalg.norm(rows, axis=-1, keepdims=True)
    return np.asarray(rows / np.where(length > 0, length, 1), dtype=np.float32)


def place_in(space: str, X: FloatArray, metric: Metric | None, probe: Probe | None) -> FloatArray:
    """Fused embeddings (n, D) in a space, where the inner product is the similarity.

    Where what the space needs is missing, the embeddings as they are.
    """
    if space == "hidden" and probe is not None:
        return unit(probe.hidden(X))
    if space in ("centred", "whitened") and metric is not None:
        return metric.centred(X) if space == "centred" else metric.whitened(X)
    return X


def similarities_in(
    space: str, X: FloatArray, neighbours: FloatArray, metric: Metric | None, probe: Probe | None
) -> FloatArray:
    """Similarities of queries (n, D) to their own neighbours (n, k, D), (n, k) float32."""
    if space == "whitened" and metric is not None:
        return metric.whitened_cosines(X, neighbours)
    n, k, width = neighbours.shape
    queries = place_in(space, X, metric, probe)
    placed = place_in(space, neighbours.reshape(n * k, width), metric, probe)
    found = np.einsum(
        "nd,nkd->nk", queries, placed.reshape(n, k, placed.shape[1]), dtype=np.float32
    )
    return np.asarray(found, dtype=np.float32)
