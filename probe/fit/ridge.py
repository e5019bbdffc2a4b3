"""The ridge: a closed-form predictor on kernel features of embedding pairs.

Kernel ridge regression on the categories, centred on equal shares (ProKeR, Bendou et al. 2025,
arXiv 2501.11175), with a Gaussian kernel over landmarks (Nystroem): all rows where there are few,
an even choice of the categories' rows where there are many. One factorisation gives the answer
for each row as if neither it nor its copies had been learned.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from kinshelf.db.arrays import Float64Array, FloatArray, IntArray
from kinshelf.probe.fit.covariance import Floats
from kinshelf.probe.fit.model import softmax
from kinshelf.probe.fit.split import TrainingSet

LANDMARKS = 1024
"""Rows whose kernel values are the features."""

WIDTHS = (0.4, 1.0, 2.5)
"""Of the kernel, tried in this order: `exp(-width * squared distance / median of these)`. No one
width was best on six data sets, those that `bench/catalogues.py` names."""

PENALTIES = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
"""Tried where there are `ENOUGH` rows that can be judged; fewer have `USUAL`."""

USUAL = (0.4, 0.1)
"""Width and penalty where nothing can be chosen: within 2 % of the best loss at 1 to 4 labels a
category on six data sets."""

ENOUGH = 60
_TRIED = 400
"""Rows on which the width is chosen."""

SHARPNESS = 12.0
"""What scores are multiplied by before their loss is compared, if nothing is fitted yet."""

_JUDGED = 5000
_BLOCK = 4096
_COPIES = 1000
"""Most rows of one group whose influence is taken away."""
_FLAT = 1e-7
Array = NDArray[Any]


@dataclass(frozen=True, slots=True, eq=False)
class Ridge:
    """`landmarks` (m, D) float32, centred by `mean` (D,); `width` (1,) of the kernel over squared
    distances; `weights` (m, n_classes) float32."""

    mean: FloatArray
    landmarks: FloatArray
    width: FloatArray
    weights: FloatArray

    def scores(self, X: FloatArray) -> Float64Array:
        """Each class's score less an equal share, about -1 to 1, of fused embeddings (n, D):
        (n, n_classes) float64."""
        # in float64, so that an answer is the same alone as among others
        rows = centred(X, self.mean).astype(np.float64)
        near = kernel(rows, self.landmarks.astype(np.float64), float(self.width[0]))
        return np.asarray(near @ self.weights, dtype=np.float64)

    def arrays(self) -> dict[str, Array]:
        """By name, to be stored with a probe."""
        return {f"ridge.{name}": getattr(self, name) for name in _ARRAYS}

    @classmethod
    def of(cls, arrays: Mapping[str, Array]) -> Self | None:
        """Read from stored `arrays`; None if they hold none."""
        if "ridge.weights" not in arrays:
            return None
        return cls(*(arrays[f"ridge.{name}"] for name in _ARRAYS))


_ARRAYS = ("mean", "landmarks", "width", "weights")


def centred(X: FloatArray, mean: FloatArray) -> FloatArray:
    """Embeddings (n, D) less the mean; a missing modality stays zero."""
    rows = np.asarray(X - mean, dtype=np.float32)
    half = X.shape[1] // 2
    for part in (slice(0, half), slice(half, None)):
        rows[~X[:, part].any(axis=1), part] = 0
    return rows


def kernel(rows: Floats, landmarks: Floats, width: float) -> Floats:
    """Gaussian kernel values (n, m) of centred rows (n, D) and landmarks (m, D), in their
    precision."""
    return np.asarray(np.exp(-width * _distances(rows, landmarks)))


def _distances(rows: Floats, others: Floats) -> Floats:
    found = np.vecdot(rows, rows)[:, None] + np.vecdot(others, others) - 2 * _products(rows, others)
    return np.asarray(np.maximum(found, 0))


def _products(rows: Floats, others: Floats) -> Floats:
    """Inner products (n, m); of rows that all lack a modality, by the other one alone."""
    half = rows.shape[1] // 2
    for part, rest in ((slice(half), slice(half, None)), (slice(half, None), slice(half))):
        if not rows[:, rest].any():
            return np.asarray(rows[:, part] @ others[:, part].T)
    return np.asarray(rows @ others.T)


@dataclass(frozen=True, slots=True, eq=False)
class RidgeFit:
    """The ridge of a training set, and what answers for its rows as if they were not in it.

    `directions` (m, r) make features of kernel values, in which the rows' inner products are the
    diagonal `values` (r,); `weights` (r, n_classes) are the ridge's there.
    """

    source: TrainingSet
    ridge: Ridge
    directions: FloatArray
    values: Float64Array
    weights: Float64Array
    penalty: float

    def left_out(self, X: FloatArray, places: IntArray) -> Float64Array:
        """Scores (m, n_classes) of queries X (m, D), each by all rows but the one of its place in
        the training set, (m,), and that one's copies."""
        return self._left_out(self.features(X), self._rows(places), places)

    def _left_out(self, asked: Float64Array, own: Float64Array, places: IntArray) -> Float64Array:
        found = asked @ self.weights
        group = self.source.groups[places]
        size = np.unique(self.source.groups, return_counts=True)
        copied = size[1][np.searchsorted(size[0], group)] > 1
        alone = ~copied
        found[alone] -= self._single(asked[alone], own[alone], places[alone])
        for number in np.unique(group[copied]):
            members = np.flatnonzero(self.source.groups == number)
            at = np.flatnonzero(group == number)
            found[at] -= asked[at] @ self._learned_from(members)
        return found

    def _single(self, asked: Float64Array, own: Float64Array, places: IntArray) -> Float64Array:
        scaled = own / (self.values + self.penalty)
        residual = _targets(self.source, places) - own @ self.weights
        share = np.vecdot(asked, scaled) / np.maximum(1 - np.vecdot(own, scaled), _FLAT)
        return np.asarray(share[:, None] * residual)

    def _learned_from(self, members: IntArray) -> Float64Array:
        """What the weights lose without the rows of a group, (r, n_classes)."""
        own = self._rows(members[:_COPIES])
        scaled = own / (self.values + self.penalty)
        residual = _targets(self.source, members[:_COPIES]) - own @ self.weights
        kept = np.eye(len(own)) * (1 + _FLAT) - scaled @ own.T
        return np.asarray(scaled.T @ np.linalg.solve(kept, residual))

    def _rows(self, places: IntArray) -> Float64Array:
        return self.features(self.source.data.fused(self.source.rows[places]))

    def features(self, X: FloatArray) -> Float64Array:
        """(n, r) float64 of fused embeddings (n, D)."""
        ridge = self.ridge
        near = kernel(centred(X, ridge.mean), ridge.landmarks, float(ridge.width[0]))
        return (near @ self.directions).astype(np.float64)


def fit_ridge(source: TrainingSet, seed: int, like: RidgeFit | None = None) -> RidgeFit:
    """From all rows of `source`; the width is chosen on some, the penalty on up to 5,000, each
    judged by the others. `like`: with its width and penalty."""
    chosen = np.sort(_evenly(source.codes, LANDMARKS, seed))
    X = source.data.fused(source.rows[chosen])
    mean = X.mean(axis=0, dtype=np.float64).astype(np.float32)
    landmarks = centred(X, mean)
    if like is not None:
        fit = _solved(source, Ridge(mean, landmarks, like.ridge.width, landmarks[:, :0]))
        return _with_penalty(fit, like.penalty)
    judged = _judged(source, seed)
    width, penalty = USUAL
    if len(judged) >= ENOUGH:
        width = _best_width(source, mean, seed)
    scale = np.float32(width / _usual_distance(landmarks))
    fit = _solved(source, Ridge(mean, landmarks, np.array([scale]), landmarks[:, :0]))
    if len(judged) >= ENOUGH:
        penalty = PENALTIES[int(np.argmin(_losses(fit, judged)))]
    return _with_penalty(fit, penalty)


def _judged(source: TrainingSet, seed: int) -> IntArray:
    """Places of rows that the others can judge, of copies one; some thousands at most."""
    places = np.flatnonzero(source.judgeable)
    first = places[np.unique(source.groups[places], return_index=True)[1]]
    return np.sort(np.random.default_rng(seed).permutation(first)[:_JUDGED])


def _usual_distance(landmarks: FloatArray) -> float:
    some = landmarks[:_TRIED]
    apart = _distances(some, some)[np.triu_indices(len(some), 1)]
    usual = float(np.median(apart)) if len(apart) else 0.0
    return usual if usual > _FLAT else 1.0


def _best_width(source: TrainingSet, mean: FloatArray, seed: int) -> float:
    """The width of the least loss over all penalties, on rows of which no two are copies."""
    places = _evenly(source.codes, _TRIED, seed)
    places = places[np.unique(source.groups[places], return_index=True)[1]]
    chosen = np.zeros(len(source), dtype=np.bool_)
    chosen[places] = True
    part = source.take(chosen)
    landmarks = centred(part.data.fused(part.rows), mean)
    usual = _usual_distance(landmarks)
    judged, losses = _judged(part, seed), []
    for width in WIDTHS:
        scale = np.array([width / usual], dtype=np.float32)
        fit = _solved(part, Ridge(mean, landmarks, scale, landmarks[:, :0]))
        losses.append(min(_losses(fit, judged)))
    return WIDTHS[int(np.argmin(losses))]


def _losses(fit: RidgeFit, judged: IntArray) -> list[float]:
    """For each penalty the mean negative log-likelihood of rows left out, at the sharpness that
    suits them best."""
    own, codes, rows = fit._rows(judged), fit.source.codes[judged], np.arange(len(judged))
    found = []
    for penalty in PENALTIES:
        scores = _with_penalty(fit, penalty)._left_out(own, own, judged)
        given = [softmax(scores * (SHARPNESS * by))[rows, codes] for by in (0.6, 1.0, 1.6)]
        found.append(min(float(-np.log(np.maximum(p, 1e-12)).mean()) for p in given))
    return found


def _evenly(codes: IntArray, most: int, seed: int) -> IntArray:
    """Places of at most `most` rows, all classes in turn."""
    order = np.random.default_rng(seed).permutation(len(codes))
    by_class = order[np.argsort(codes[order], kind="stable")]
    counts = np.bincount(codes)
    rank = np.arange(len(codes)) - np.repeat(np.cumsum(counts) - counts, counts)
    return by_class[np.argsort(rank, kind="stable")[:most]]


def _targets(source: TrainingSet, places: IntArray) -> Float64Array:
    n_classes = len(source.classes)
    targets = np.full((len(places), n_classes), -1 / n_classes)
    targets[np.arange(len(places)), source.codes[places]] += 1
    return targets


def _solved(source: TrainingSet, ridge: Ridge) -> RidgeFit:
    """The factorisation; the penalty is still to be chosen."""
    own, vectors = np.linalg.eigh(
        kernel(ridge.landmarks, ridge.landmarks, float(ridge.width[0])).astype(np.float64)
    )
    some = own > _FLAT * own[-1] * len(own)
    whiten = (vectors[:, some] / np.sqrt(own[some])).astype(np.float32)
    products = np.zeros((whiten.shape[1], whiten.shape[1]))
    sums = np.zeros((whiten.shape[1], len(source.classes)))
    for places, near in _blocks(source, ridge):
        features = near @ whiten
        products += features.T @ features
        sums += features.T.astype(np.float64) @ _targets(source, places)
    values, turn = np.linalg.eigh(products)
    directions = (whiten @ turn).astype(np.float32)
    return RidgeFit(source, ridge, directions, np.maximum(values, 0), turn.T @ sums, 0.0)


def _blocks(source: TrainingSet, ridge: Ridge) -> Iterator[tuple[IntArray, Floats]]:
    for start in range(0, len(source), _BLOCK):
        places = np.arange(start, min(start + _BLOCK, len(source)))
        X = centred(source.data.fused(source.rows[places]), ridge.mean)
        yield places, kernel(X, ridge.landmarks, float(ridge.width[0]))


def _with_penalty(fit: RidgeFit, penalty: float) -> RidgeFit:
    """`fit`, whose weights are still sums, with its weights."""
    weights = fit.weights / (fit.values + penalty)[:, None]
    at = fit.ridge
    whole = Ridge(at.mean, at.landmarks, at.width, (fit.directions @ weights).astype(np.float32))
    return RidgeFit(fit.source, whole, fit.directions, fit.values, weights, penalty)
