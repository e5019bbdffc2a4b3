"""Probe and neighbours as one scikit-learn classifier over arrays, without a shelf."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from kinshelf.db.arrays import BoolArray, Float64Array, FloatArray, IntArray
from kinshelf.db.errors import InvalidSetting, ProbeError, TooFewClasses
from kinshelf.probe.calibrate.calibrate import calibrate
from kinshelf.probe.calibrate.conformal import COVERAGE, Conformal
from kinshelf.probe.calibrate.hybrid import (
    VIEW_PARAMETERS,
    Distributions,
    Predictors,
    joined,
    views_of,
)
from kinshelf.probe.calibrate.new_categories import new_categories_of
from kinshelf.probe.fit.copies import groups_of, identical_groups
from kinshelf.probe.fit.data import ArrayData
from kinshelf.probe.fit.knn import NO_VOTE, ExactNeighbours
from kinshelf.probe.fit.model import Probe
from kinshelf.probe.fit.settings import Calibration, ProbeSettings
from kinshelf.probe.fit.split import TrainingSet
from kinshelf.probe.fit.training import fit_probe
from kinshelf.store.search import fusion

if TYPE_CHECKING:
    from kinshelf.store.base import AnyShelf

Labels = NDArray[Any]
_BLOCK = 256


class HybridClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]  # sklearn is untyped
    """The MLP probe mixed with the vote of the k nearest training rows.

    X are embedding pairs `[image ; text]`, (n, D), as `Shelf.search` takes them: two embedding
    pairs of equal width, each a unit vector, or zeros where a modality is missing; an array or a
    frame. Other norms raise InvalidEmbeddings. For any other vectors, whose inner product is their
    similarity, set `pairs=False` and `ProbeSettings(modality_dropout=0)`. `k`, `tau` and `lam` are
    as in `Calibration`, None: fitted by cross-fitting; `settings` None: the recipe's defaults.

    After `fit`: `classes_` (sorted; `add` can lengthen it), `n_features_in_`, and `probe_`, whose
    classes are the texts of the classes that it was trained on.

    >>> import numpy as np
    >>> y = np.repeat(["cup", "mug", "jug"], 20)
    >>> half = np.repeat(np.eye(3), 20, axis=0) + np.random.default_rng(0).normal(0, 0.1, (60, 3))
    >>> half /= np.linalg.norm(half, axis=1, keepdims=True)
    >>> model = HybridClassifier(k=5, tau=0.1, lam=0.5).fit(np.hstack([half, half]), y)
    >>> model.predict(np.hstack([half, half])[[0, 30, 59]]).tolist()
    ['cup', 'mug', 'jug']
    """

    def __init__(
        self,
        *,
        k: int | None = None,
        tau: float | None = None,
        lam: float | None = None,
        settings: ProbeSettings | None = None,
        pairs: bool = True,
    ) -> None:
        self.k = k
        self.tau = tau
        self.lam = lam
        self.settings = settings
        self.pairs = pairs

    def fit(self, X: ArrayLike, y: ArrayLike) -> Self:
        """Train the probe on X (n, D) and y (n,), and keep X for its neighbours.

        Seed, early stopping and the rows held out for it are those of `settings`. Copies among the
        pairs (of other vectors: equal rows) stay on one side of each fold and split. Raises
        TooFewClasses, InvalidSetting and ProbeError.
        """
        self._check_params()
        embeddings, labels = self._checked(X, y, reset=True)
        classes, codes = np.unique(labels, return_inverse=True)
        if len(classes) < 2:
            raise TooFewClasses(f"y has one class, {classes[0]!r}: give rows of at least two")
        names = tuple(str(name) for name in classes)
        rows = np.arange(len(codes), dtype=np.int64)
        data = ArrayData(embeddings, [names[code] for code in codes])
        groups = groups_of(data, rows) if self.pairs else identical_groups(embeddings)
        settings = self.settings or ProbeSettings()
        whole = TrainingSet(data, rows, codes.astype(np.int64), names, groups)
        source = whole.with_basis(settings.seed)
        probe = calibrate(source, fit_probe(source, settings).probe)
        self.probe_ = self._with_named(probe)
        self._remember(embeddings, labels)
        return self

    @classmethod
    def from_shelf(cls, shelf: AnyShelf, *, probe: int | None = None) -> Self:
        """A fitted classifier: a shelf's newest probe, or the one of a version, and its rows.

        The categorised products of the newest generation are held in memory and vote; classes are
        texts. Raises ProbeNotFound, ShelfDamaged or ProbeError.
        """
        from kinshelf.probe.fit.storage import read_probe
        from kinshelf.store.probes import find_probe

        snapshot = shelf.snapshot()
        found = cls()
        found.probe_ = read_probe(find_probe(shelf, snapshot, probe).path)
        found.settings = found.probe_.settings
        rows, categories = snapshot.labelled()
        found.n_features_in_ = 2 * snapshot.dimension
        found._remember(snapshot.fused(rows), categories.astype(np.str_))
        return found

    def add(self, X: ArrayLike, y: ArrayLike) -> Self:
        """Add rows that vote, of new classes too, without training the probe again."""
        check_is_fitted(self)
        embeddings, labels = self._checked(X, y, reset=False)
        self._remember(
            np.concatenate([self._embeddings, embeddings]), np.concatenate([self._labels, labels])
        )
        return self

    def kneighbors(
        self, X: ArrayLike, n_neighbors: int | None = None, return_distance: bool = True
    ) -> tuple[FloatArray, IntArray] | IntArray:
        """Distances (n, n_neighbors) float32 and places of the nearest rows of `fit` and `add`.

        As scikit-learn's: nearest first, the distance is 1 - similarity, which is its cosine
        distance for pairs of two modalities; places alone without `return_distance`. Raises
        InvalidSetting for more neighbours than there are rows.
        """
        check_is_fitted(self)
        k = self.probe_.calibration.k if n_neighbors is None else n_neighbors
        if not 1 <= k <= len(self._embeddings):
            raise InvalidSetting(f"n_neighbors={k}: 1 to {len(self._embeddings)} rows are there")
        similarities, places = self._neighbours.kneighbors(self._checked_queries(X), k)
        return (1 - similarities, places) if return_distance else places

    def predict_proba(self, X: ArrayLike) -> Float64Array:
        """(n, n_classes) float64, columns as in `classes_`.

        Rows that equal a query bit for bit do not vote for it, so that training rows get an
        honest answer too.
        """
        return self.distributions(X).hybrid

    def distributions(self, X: ArrayLike) -> Distributions:
        """The distributions of probe, neighbours and both together, columns as in `classes_`."""
        check_is_fitted(self)
        queries = self._checked_queries(X)
        blocks = [self._answer(queries[i : i + _BLOCK]) for i in range(0, len(queries), _BLOCK)]
        return joined(blocks)

    def predict(self, X: ArrayLike) -> Labels:
        """The most probable class of each row, (n,)."""
        probabilities = self.predict_proba(X)
        return np.asarray(self.classes_[probabilities.argmax(axis=1)])

    def predict_sets(self, X: ArrayLike, coverage: float = COVERAGE) -> BoolArray:
        """Conformal prediction sets, (n, n_classes) bool, columns as in `classes_`.

        Each holds the true class with the chance `coverage`; one may be empty (`probe.conformal`).
        Raises ProbeError where there were too few rows to calibrate on.
        """
        proba = self.predict_proba(X)
        conformal = Conformal.of(self.probe_.reference)
        if conformal is None:
            raise ProbeError(
                "there were too few rows to calibrate prediction sets on: fit on 20 or more"
            )
        names = [str(name) for name in self.classes_]
        views = views_of(np.asarray(X, dtype=np.float32))
        return conformal.over(self.probe_.classes, names).sets(proba, coverage, views)

    def _answer(self, queries: FloatArray) -> Distributions:
        k = self.probe_.calibration.k
        similarities, places = self._neighbours.kneighbors(queries, k, with_identical=False)
        labels = np.where(places < 0, NO_VOTE, self._codes[places])
        return self._predictors.answer(queries, similarities, labels, self._embeddings[places])

    def _with_named(self, probe: Probe) -> Probe:
        calibration = self._overridden(probe.calibration)
        kept = dict(probe.reference)
        if calibration != probe.calibration:
            kept.pop(VIEW_PARAMETERS, None)
        return probe.replace(calibration=calibration, reference=kept)

    def _overridden(self, fitted: Calibration) -> Calibration:
        given: dict[str, Any] = {"k": self.k, "tau": self.tau, "lam": self.lam}
        if self.tau is not None:
            given["space"] = "fused"  # a tau that is named is of the similarities themselves
        named = {name: value for name, value in given.items() if value is not None}
        return dataclasses.replace(fitted, **named)

    def _check_params(self) -> None:
        self._overridden(Calibration())
        if not isinstance(self.settings, ProbeSettings | None):
            raise InvalidSetting(f"settings is {self.settings!r}: it must be a ProbeSettings")

    def _checked(self, X: ArrayLike, y: ArrayLike, *, reset: bool) -> tuple[FloatArray, Labels]:
        embeddings, labels = validate_data(self, X, y, dtype=np.float32, reset=reset)
        check_classification_targets(labels)
        return self._scaled(embeddings), np.asarray(labels)

    def _checked_queries(self, X: ArrayLike) -> FloatArray:
        return self._scaled(np.asarray(validate_data(self, X, dtype=np.float32, reset=False)))

    def _scaled(self, X: FloatArray) -> FloatArray:
        """Fused embeddings of checked pairs; other vectors as they are."""
        if not self.pairs:
            return X
        fusion.check_pairs(X, "or HybridClassifier(pairs=False) for vectors that are no pairs")
        return fusion.fused(X)

    def _remember(self, embeddings: FloatArray, labels: Labels) -> None:
        self._embeddings, self._labels = embeddings, labels
        self._neighbours = ExactNeighbours(embeddings)
        self.classes_, codes = np.unique(labels, return_inverse=True)
        self._codes = codes.astype(np.int64)
        names = [str(name) for name in self.classes_]
        new_categories = new_categories_of(
            self.probe_, names, self._codes, lambda rows: embeddings[rows]
        )
        self._predictors = Predictors(self.probe_, names, new_categories=new_categories)
