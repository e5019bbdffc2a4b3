"""Cross-fitting: predictions of probe and neighbours for training rows left out of their fit.

A small training set is judged in folds, each row by a probe and by neighbours of the other folds,
so that no row is wasted; a large one by the rows that were held out to stop its training early.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace

import numpy as np

from kinshelf.db.arrays import BoolArray, Float64Array, FloatArray, IntArray
from kinshelf.probe.calibrate.hybrid import views_of
from kinshelf.probe.calibrate.vote_space import Metric, fit_metric
from kinshelf.probe.fit.model import Probe
from kinshelf.probe.fit.ridge import RidgeFit
from kinshelf.probe.fit.settings import ProbeSettings
from kinshelf.probe.fit.split import TrainingSet
from kinshelf.probe.fit.training import REFIT_LONGER
from kinshelf.store.search.exact import merged, nothing

FEWEST = 20
"""Rows below which nothing can be fitted."""
NEAREST = 20
"""Neighbours kept of each row: the most that may vote."""
MOST = 5000
"""Rows of a large training set that are judged."""
_BLOCK = 8192
_QUERIES = 512

OnPart = Callable[[int, int], None]


@dataclass(frozen=True, slots=True, eq=False)
class CrossFit:
    """Predictions for m judged rows at `places` of the training set, (m,) int64.

    `codes` (m,) int64 are their classes; `logits` (m, n_classes) float32 the probe's and `scores`
    (m, n_classes) float64 the ridge's; `labels` (m, k) int64 the classes of the nearest rows,
    nearest first; `similarities` (m, k) float32, whitened. Rows with both modalities are judged
    three times, as they are and with either alone: `views` (m,) int64 are which modalities were
    seen, `masked` (m,) bool whether one was hidden.
    """

    places: IntArray
    codes: IntArray
    logits: FloatArray
    scores: Float64Array
    labels: IntArray
    similarities: FloatArray
    views: IntArray
    masked: BoolArray

    def __len__(self) -> int:
        return len(self.places)

    def take(self, chosen: BoolArray) -> CrossFit:
        """The rows where `chosen` (m,) is true."""
        return CrossFit(*(getattr(self, field.name)[chosen] for field in fields(self)))


def cross_fit(
    source: TrainingSet,
    probe: Probe,
    settings: ProbeSettings,
    ridge: RidgeFit,
    on_part: OnPart = lambda _done, _all: None,
) -> CrossFit | None:
    """Judge rows of `source`; None if there are too few that can be both learned and judged.

    `probe` and `ridge` are what was trained of it, with the same settings. Copies are judged once,
    by what learned none of them, and a class that has nothing but copies of one row is not judged.
    Up to `refit_below` rows this trains a probe a fold, for as many epochs as was best for `probe`.
    """
    judged = _once(source)
    if judged.sum() < FEWEST:
        return None
    rounds = [(train, held[judged[held]]) for train, held in _rounds(source, settings)]
    rounds = [(train, places) for train, places in rounds if len(places)]
    parts = [source.take(train) for train, _ in rounds]
    probes = [probe] * len(parts)
    small = len(source) < settings.refit_below
    if small:
        from kinshelf.probe.calibrate.stack import fit_together

        fitted = fit_together(parts, _as_long(probe, settings))
        probes = [probe.replace(weights=weights) for weights in fitted]
    found = []
    for part, learned, (_, places) in zip(parts, probes, rounds, strict=True):
        metric = fit_metric(part, settings.seed)
        placed = metric.whitened(part.data.fused(part.rows)) if small else None
        found.append(_judge(_Part(source, part, learned, ridge, metric, placed), places))
        on_part(len(found), len(rounds))
    return _joined(found) if found else None


def _as_long(probe: Probe, settings: ProbeSettings) -> ProbeSettings:
    """Settings that train as many epochs as the probe's own training did in the end."""
    best = probe.metrics.get("best_epoch")
    if best is None:
        return settings
    epochs = min(round(REFIT_LONGER * int(best)), settings.epochs)
    return replace(settings, epochs=epochs, val_fraction=0.0)


def _once(source: TrainingSet) -> BoolArray:
    """Which rows to judge, (n,): of each group the first that others can judge."""
    places = np.flatnonzero(source.judgeable)
    judged = np.zeros(len(source), dtype=np.bool_)
    judged[places[np.unique(source.groups[places], return_index=True)[1]]] = True
    return judged


def _rounds(source: TrainingSet, settings: ProbeSettings) -> Iterator[tuple[BoolArray, IntArray]]:
    if len(source) < settings.refit_below:
        yield from source.rounds(settings.seed)
        return
    fraction = settings.val_fraction or 0.1
    held = source.hold_out(fraction, settings.seed)
    chosen = np.random.default_rng(settings.seed).permutation(np.flatnonzero(held))[:MOST]
    yield ~held, np.sort(chosen)


@dataclass(frozen=True, slots=True, eq=False)
class _Part:
    """What judges: probe, neighbours and metric of `part`, and the ridge of all of `source`.

    `placed` (n, D) are the part's rows in the neighbours' space, None: too many to keep."""

    source: TrainingSet
    part: TrainingSet
    probe: Probe
    ridge: RidgeFit
    metric: Metric
    placed: FloatArray | None

    def similarities(self, X: FloatArray, near: IntArray) -> FloatArray:
        """Of queries (m, D) and their nearest in the part (m, k), in the neighbours' space."""
        if self.placed is not None:
            found = np.vecdot(self.placed[near], self.metric.whitened(X)[:, None])
            return np.asarray(found, dtype=np.float32)
        vectors = self.part.data.fused(self.part.rows[near.ravel()])
        return self.metric.whitened_cosines(X, vectors.reshape(*near.shape, -1))


def _judge(by: _Part, places: IntArray) -> CrossFit:
    found = []
    for start in range(0, len(places), _QUERIES):
        block = places[start : start + _QUERIES]
        X = by.source.data.fused(by.source.rows[block])
        found.append(_judge_as(by, X, block, masked=False))
        both = views_of(X) == 0
        middle = X.shape[1] // 2
        for hidden in (slice(0, middle), slice(middle, None)):
            alone = X[both]
            alone[:, hidden] = 0
            kept = alone.any(axis=1)
            if kept.any():
                found.append(_judge_as(by, alone[kept], block[both][kept], masked=True))
    return _joined(found)


def _judge_as(by: _Part, X: FloatArray, places: IntArray, *, masked: bool) -> CrossFit:
    near = _nearest(X, by.part)
    return CrossFit(
        places=places,
        codes=by.source.codes[places],
        logits=by.probe.logits(X),
        scores=by.ridge.left_out(X, places),
        labels=by.part.codes[near],
        similarities=by.similarities(X, near),
        views=views_of(X),
        masked=np.full(len(X), masked),
    )


def _nearest(X: FloatArray, part: TrainingSet) -> IntArray:
    """Places in `part` of the rows nearest to each of X, nearest first."""
    width = min(NEAREST, len(part))
    found = nothing(len(X), width)
    for start in range(0, len(part), _BLOCK):
        rows = part.rows[start : start + _BLOCK]
        places = np.arange(start, start + len(rows))
        found = merged(found, X @ part.data.fused(rows).T, places, width)
    return found[1]


def _joined(parts: list[CrossFit]) -> CrossFit:
    width = min(part.labels.shape[1] for part in parts)
    columns = {
        field.name: np.concatenate([
            getattr(part, field.name)[:, :width] if field.name in _NEAR
            else getattr(part, field.name)
            for part in parts
        ])
        for field in fields(CrossFit)
    }  # fmt: skip
    return CrossFit(**columns)


_NEAR = ("labels", "similarities")
