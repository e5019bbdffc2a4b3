"""Fitting a `NoveltyModel`: the shelf's own products are judged as if each were new.

A product's neighbours are the others, copies of it left out; the categories' statistics are those
of the other folds. Both sides of the p-value are so measured alike.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from kinshelf.db.arrays import BoolArray, Float64Array, FloatArray, IntArray, ObjectArray
from kinshelf.probe.fit.settings import ProbeSettings
from kinshelf.probe.fit.split import TrainingSet, cross_fit_rounds
from kinshelf.probe.novelty.mahalanobis import Relative
from kinshelf.probe.novelty.model import (
    FEWEST,
    MODALITIES,
    NEIGHBOURS,
    VIEWS,
    NoveltyModel,
    Signs,
    present,
    usual_of,
)
from kinshelf.store.search.exact import merged, nothing

SAMPLED = 5000
"""Most products that the statistics are from."""

JUDGED = 2000
"""Most of those whose scores make the p-values; they search all products, as a query does."""

_BLOCK = 4096
_GATHERED = 128


def fit_novelty(source: TrainingSet, settings: ProbeSettings | None = None) -> NoveltyModel | None:
    """Novelty with regard to the rows of `source`; of the settings the seed alone counts.

    None with fewer than `FEWEST` products, copies counted once, or if no half is given by as
    many. Time: two covariances a half and fold, and the inner products of `JUDGED` rows with all.
    """
    seed = (settings or ProbeSettings()).seed
    source = source.with_basis(seed)
    sample = _sample(source, seed)
    views = [view for view in VIEWS if sample.complete(view).sum() >= FEWEST]
    if not views:
        return None
    as_new = _signs_as_new(sample, _nearest(sample, views), seed)
    usual = {view: usual_of(signs) for view, signs in as_new.items()}
    return NoveltyModel(sample.signs(np.ones(len(sample.X), dtype=np.bool_)), usual)


@dataclass(frozen=True, slots=True, eq=False)
class _Sample:
    """Embeddings `X` (n, D) of sampled rows of `source`, no two copies, in random order; their
    categories and groups, (n,) each. The first `JUDGED` are judged."""

    source: TrainingSet
    X: FloatArray
    codes: IntArray
    groups: IntArray

    def complete(self, view: str) -> BoolArray:
        """Which of the judged have all the modalities of a view."""
        return np.asarray(present(self.X[:JUDGED])[:, _modalities_of(view)].all(axis=1))

    def basis_of(self, half: str) -> FloatArray | None:
        """The directions in which a modality differs, (r, D // 2)."""
        basis = self.source.basis
        return None if basis is None else getattr(basis, half)

    def query(self, view: str) -> FloatArray:
        """The judged as a query with no other half than those of a view."""
        kept = np.repeat(_modalities_of(view), self.X.shape[1] // 2)
        return self.X[:JUDGED] * kept.astype(np.float32)

    def signs(self, chosen: BoolArray) -> Signs:
        """From the rows chosen, (n,); of the modalities that half of `FEWEST` rows have."""
        given = present(self.X)
        middle = self.X.shape[1] // 2
        relative = {}
        for i, half in enumerate(MODALITIES):
            rows = np.flatnonzero(given[:, i] & chosen)
            if given[:, i].sum() >= FEWEST // 2 and len(rows):
                side = self.X[rows, i * middle : (i + 1) * middle]
                relative[half] = Relative.fit(
                    side, self.codes[rows], len(self.source.classes), self.basis_of(half)
                )
        return Signs(self.source.classes, relative)


def _sample(source: TrainingSet, seed: int) -> _Sample:
    order = np.random.default_rng(seed).permutation(len(source))[:SAMPLED]
    X = source.data.fused(source.rows[order])
    groups = source.groups[order]
    first = np.sort(np.unique(groups, return_index=True)[1])
    return _Sample(source, X[first], source.codes[order[first]], groups[first])


def _signs_as_new(
    sample: _Sample, found: dict[str, IntArray], seed: int
) -> dict[str, Float64Array]:
    """The signs (m, 3) of the judged in each view that they are complete in, by other folds."""
    signs = {view: np.zeros((len(places), 3)) for view, places in found.items()}
    for train, judged in cross_fit_rounds(sample.codes, seed):
        learned = sample.signs(train)
        for view, places in found.items():
            rows = judged[judged < len(places)]
            for start in range(0, len(rows), _GATHERED):
                part = rows[start : start + _GATHERED]
                near, categories = _gathered(sample.source, places[part])
                signs[view][part] = learned.of(sample.query(view)[part], near, categories)
    return {view: own[sample.complete(view)] for view, own in signs.items()}


def _gathered(source: TrainingSet, places: IntArray) -> tuple[FloatArray, ObjectArray]:
    """Embeddings (m, k, D) and categories (m, k) of the rows at `places`, None where -1."""
    near = source.data.fused(source.rows[np.maximum(places, 0).ravel()])
    names = np.array([*source.classes, None], dtype=object)
    codes = np.where(places < 0, len(source.classes), source.codes[np.maximum(places, 0)])
    return near.reshape(*places.shape, -1), names[codes]


def _nearest(sample: _Sample, views: list[str]) -> dict[str, IntArray]:
    """Places in the source of the judged rows' nearest, (m, `NEIGHBOURS`) a view; -1: no more."""
    m = len(sample.X[:JUDGED])
    queries = np.split(sample.X[:JUDGED], 2, axis=1)
    found = {view: nothing(m, NEIGHBOURS) for view in views}
    for start in range(0, len(sample.source), _BLOCK):
        rows = sample.source.data.fused(sample.source.rows[start : start + _BLOCK])
        places = np.arange(start, start + len(rows))
        copies = sample.groups[:m, None] == sample.source.groups[start : start + _BLOCK]
        sides = np.split(rows, 2, axis=1)
        parts = [a @ b.T for a, b in zip(queries, sides, strict=True)]
        for view in views:
            similarity = np.sum(parts, axis=0, where=_modalities_of(view)[:, None, None])
            similarity[copies] = -np.inf
            found[view] = merged(found[view], similarity, places, NEIGHBOURS)
    return {view: np.where(np.isfinite(best), at, -1) for view, (best, at) in found.items()}


def _modalities_of(view: str) -> BoolArray:
    return np.array([view in ("both", half) for half in MODALITIES], dtype=np.bool_)
