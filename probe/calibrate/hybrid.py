"""The hybrid: probe, ridge and neighbours in one distribution, new categories included.

Probe and ridge are pooled by the product of powers of their probabilities (a logarithmic opinion
pool, Genest and Zidek 1986); the neighbours' votes have a share beside the pool. Powers, share and
temperatures are those of the modalities that a query has.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kinshelf.db.arrays import BoolArray, Float64Array, FloatArray, IntArray
from kinshelf.probe.calibrate.new_categories import NewCategories
from kinshelf.probe.calibrate.vote_space import Metric, place_in, similarities_in
from kinshelf.probe.fit.knn import knn_distribution
from kinshelf.probe.fit.model import Probe, softmax
from kinshelf.probe.fit.ridge import Ridge
from kinshelf.probe.fit.settings import Calibration
from kinshelf.probe.novelty.model import VIEWS


@dataclass(frozen=True, slots=True, eq=False)
class Distributions:
    """Probabilities of n queries over `classes`, each (n, n_classes) float64.

    `probe` and `ridge` are 0 for categories that the probe never saw. A row of `knn` is 0 where no
    neighbour has a category; without a probe, `probe` and `ridge` are 0 and `hybrid` is `knn`. A
    probe of an older version has no ridge, which is 0 then.
    """

    classes: tuple[str, ...]
    probe: Float64Array
    knn: Float64Array
    hybrid: Float64Array
    ridge: Float64Array


_LEAST = 1e-300
METHODS = ("probe", "ridge", "knn", "hybrid")


@dataclass(frozen=True, slots=True, eq=False)
class Alone:
    """What `Predictors` know of n queries without neighbours: `probe`, `ridge` and their `pool`,
    (n, n_classes) each, the neighbours' share `lam` (n, 1), and the `mass` of new categories."""

    probe: Float64Array
    ridge: Float64Array
    pool: Float64Array
    lam: Float64Array
    mass: Float64Array | None


class Predictors:
    """Probe, neighbours and new categories, ready to answer over `classes`.

    `classes` hold the probe's and any that came later. `new_categories` judge those new ones, if
    there are any and the probe was calibrated. `calibration` defaults to the probe's own.
    """

    def __init__(
        self,
        probe: Probe | None,
        classes: Sequence[str],
        calibration: Calibration | None = None,
        new_categories: NewCategories | None = None,
    ) -> None:
        self.classes = tuple(classes)
        self.calibration = calibration or (probe.calibration if probe else Calibration())
        self._probe = probe
        self._new_categories = new_categories
        reference = probe.reference if probe else {}
        self._metric, self._ridge = Metric.of(reference), Ridge.of(reference)
        self._views = reference.get(VIEW_PARAMETERS) if calibration is None else None
        known = set(probe.classes) if probe else set()
        self.seen = np.array([name in known for name in self.classes], dtype=np.bool_)
        self.settled = self.seen.copy()
        if new_categories is not None:
            self.settled[new_categories.places] = False

    @property
    def weighs_shelf(self) -> bool:
        """Whether a neighbour's weight is by its similarity on the shelf, whichever that was."""
        return self.calibration.space == "fused"

    def answer(
        self, X: FloatArray, similarities: FloatArray, labels: IntArray, near: FloatArray
    ) -> Distributions:
        """The distributions of each predictor for fused embeddings (n, D) float32.

        `similarities` (n, k) float32, `labels` (n, k) places in `classes` or `NO_VOTE`, and `near`
        (n, k, D) float32 describe the neighbours. Raises InvalidEmbeddings.
        """
        if not self.weighs_shelf:
            space = self.calibration.space
            similarities = similarities_in(space, X, near, self._metric, self._probe)
        return self.mixed(self.alone(X), self.votes(similarities, labels))

    def votes(self, similarities: FloatArray, labels: IntArray) -> Float64Array:
        """The neighbours' part of `answer`, (n, n_classes), by similarities as they are weighed."""
        return knn_distribution(similarities, labels, self.calibration.tau, len(self.classes))

    def placed(self, X: FloatArray) -> FloatArray:
        """Fused embeddings (n, D) where an inner product is the similarity that is weighed."""
        return place_in(self.calibration.space, X, self._metric, self._probe)

    def alone(self, X: FloatArray) -> Alone:
        """What is known of fused embeddings (n, D) without their neighbours. Raises
        InvalidEmbeddings."""
        p_probe, p_ridge, pool = np.zeros((3, len(X), len(self.classes)), dtype=np.float64)
        if self._probe is None:
            return Alone(p_probe, p_ridge, pool, np.ones((len(X), 1)), None)
        own = Parameters.of(self.calibration, self._views, views_of(X))
        logits, scores = self._probe.logits(X), None
        p_probe[:, self.seen] = softmax(logits / own.temperature)
        if self._ridge is not None:
            scores = self._ridge.scores(X)
            p_ridge[:, self.seen] = softmax(scores * own.sharpness)
        pool[:, self.seen] = pooled(logits, scores, own)
        mass = self._mass(X, pool)
        rest = np.where(self.settled, pool, 0.0)
        rest /= np.maximum(rest.sum(axis=1, keepdims=True), _LEAST)
        return Alone(p_probe, p_ridge, rest, own.lam, mass)

    def mixed(self, alone: Alone, votes: Float64Array) -> Distributions:
        """The answer of both."""
        whole = votes
        if self._probe is not None:
            whole = mix(alone.pool, votes, self.settled, alone.lam, alone.mass)
        return Distributions(self.classes, alone.probe, votes, whole, alone.ridge)

    def may_reach(self, alone: Alone, probability: float) -> BoolArray:
        """Which classes may be so probable, whatever the neighbours vote, (n, n_classes)."""
        most = (1 - alone.lam) * alone.pool + alone.lam
        new = np.ones_like(alone.pool) if alone.mass is None else alone.mass
        return np.asarray(np.where(self.settled, most, new) >= probability)

    def _mass(self, X: FloatArray, pool: Float64Array) -> Float64Array | None:
        """What new and young categories have, (n, n_classes): the more of what their products show
        and what the pool gives them, so that training again takes none from them."""
        if self._new_categories is None:
            return None
        mass = np.zeros_like(pool)
        mass[:, self._new_categories.places] = self._new_categories.mass(X)
        mass = np.maximum(mass, np.where(self.settled, 0.0, pool))
        return np.asarray(mass / np.maximum(mass.sum(axis=1, keepdims=True), 1))


VIEW_PARAMETERS = "mixture.views"
"""Of a probe's reference: `Parameters` a view, (3, 5) float64."""


@dataclass(frozen=True, slots=True, eq=False)
class Parameters:
    """Those of `Calibration` that differ by the modalities that a query has, each (n, 1)."""

    temperature: Float64Array
    sharpness: Float64Array
    probe_power: Float64Array
    ridge_power: Float64Array
    lam: Float64Array

    @classmethod
    def of(
        cls, calibration: Calibration, by_view: NDArray[Any] | None, views: IntArray
    ) -> Parameters:
        """For queries of the given views (n,): the calibration's, or those `by_view` (3, 5)."""
        if by_view is None:
            by_view = np.tile(parameters_of(calibration), (len(VIEWS), 1))
        return cls(*by_view[views].T[:, :, None])


def parameters_of(calibration: Calibration) -> Float64Array:
    """(5,) in the order of `Parameters`."""
    names = ("temperature", "sharpness", "probe_power", "ridge_power", "lam")
    return np.array([getattr(calibration, name) for name in names], dtype=np.float64)


def views_of(X: FloatArray) -> IntArray:
    """The places in `VIEWS` of the modalities of embeddings (n, D): both or none, image, text."""
    middle = X.shape[1] // 2
    image, text = X[:, :middle].any(axis=1), X[:, middle:].any(axis=1)
    return np.where(image == text, 0, np.where(image, 1, 2)).astype(np.int64)


def pooled(
    logits: NDArray[np.floating[Any]], scores: Float64Array | None, own: Parameters
) -> Float64Array:
    """The pool of probe and ridge, (n, n_classes): logits and scores of the same classes."""
    found = logits * (own.probe_power / own.temperature)
    if scores is not None:
        found = found + scores * (own.ridge_power * own.sharpness)
    return softmax(found)


def mix(
    p_probe: Float64Array,
    p_knn: Float64Array,
    seen: BoolArray,
    lam: float | Float64Array,
    mass: Float64Array | None = None,
) -> Float64Array:
    """`(1 - lam) p_probe + lam p_knn`, after the share of new categories is taken.

    `lam` is a number or (n, 1).
    `p_probe` and `p_knn` are (n, n_classes) over the same classes, `seen` (n_classes,) is true
    where the probe knows the class. `mass` (n, n_classes) is the share of the new ones, 0 for
    the seen (see `new_categories`); None: the votes that they have. With m of it on them, the seen
    ones share 1 - m by the formula, the votes among them scaled to sum to 1. Without votes for
    seen classes the probe alone decides between them. Rows sum to 1 if those of `p_probe` do.
    """
    taken = np.where(seen, 0.0, p_knn) if mass is None else mass
    votes_seen = np.where(seen, p_knn, 0.0)
    mass_seen = votes_seen.sum(axis=1, keepdims=True)
    mass_new = taken.sum(axis=1, keepdims=True)
    share = np.divide(votes_seen, mass_seen, out=p_probe.copy(), where=mass_seen > 0)
    shared = (1 - lam) * np.where(seen, p_probe, 0.0) + lam * share
    # a full vote may sum to a hair above 1
    return np.where(seen, np.maximum(1 - mass_new, 0.0) * shared, taken)


def spread(
    probabilities: Float64Array, classes: tuple[str, ...], wider: tuple[str, ...]
) -> Float64Array:
    """Columns of `classes` moved to their places in `wider`, (n, len(wider)); the others are 0."""
    place = {name: column for column, name in enumerate(wider)}
    spread_out = np.zeros((len(probabilities), len(wider)), dtype=np.float64)
    spread_out[:, [place[name] for name in classes]] = probabilities
    return spread_out


def joined(parts: Sequence[Distributions]) -> Distributions:
    """Answers one after the other, over the union of their classes."""
    classes = tuple(sorted({name for part in parts for name in part.classes}))
    if all(part.classes == parts[0].classes for part in parts):
        classes = parts[0].classes  # in their own order, which need not be that of texts
    methods = {
        name: np.concatenate([spread(getattr(p, name), p.classes, classes) for p in parts])
        for name in METHODS
    }
    return Distributions(classes, **methods)
