"""Cross-fitting: predictions of probe and neighbours for training rows left out of their fit.

A small training set is judged in folds, each row by a probe and by neighbours of the other folds,
so that no row is wasted; a large one by the rows that were held out to stop its training early.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from kinshelf.db.arrays import BoolArray, FloatArray, IntArray
from kinshelf.probe.calibrate.vote_space import Metric, fit_metric, similarities_in
from kinshelf.probe.fit.model import Probe
from kinshelf.probe.fit.settings import SPACES, ProbeSettings
from kinshelf.probe.fit.split import TrainingSet
from kinshelf.probe.fit.training import fit_probe
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

    `codes` (m,) int64 are their classes; `logits` (m, n_classes) float32 the probe's; `labels`
    (m, k) int64 the classes of the nearest rows, nearest first;
    `similarities` per space (m, k) float32.
    """

    places: IntArray
    codes: IntArray
    logits: FloatArray
    labels: IntArray
    similarities: dict[str, FloatArray]

    def __len__(self) -> int:
        return len(self.places)

    def take(self, chosen: BoolArray) -> CrossFit:
        """The rows where `chosen` (m,) is true."""
        return CrossFit(
            places=self.places[chosen],
            codes=self.codes[chosen],
            logits=self.logits[chosen],
            labels=self.labels[chosen],
            similarities={name: rows[chosen] for name, rows in self.similarities.items()},
        )


def cross_fit(
    source: TrainingSet,
    probe: Probe,
    settings: ProbeSettings,
    on_part: OnPart = lambda _done, _all: None,
) -> CrossFit | None:
    """Judge rows of `source`; None if there are too few that can be both learned and judged.

    `probe` is what was trained of it, with the same settings. Copies are judged once, by what
    learned none of them, and a class that has nothing but copies of one row is not judged. Up to
    `refit_below` rows this trains a probe a fold.
    """
    judged = _once(source)
    if judged.sum() < FEWEST:
        return None
    parts = []
    rounds = list(_rounds(source, settings))
    for done, (train, held) in enumerate(rounds, start=1):
        places = held[judged[held]]
        if not len(places):
            continue
        part = source.take(train)
        small = len(source) < settings.refit_below
        fitted = fit_probe(part, settings).probe if small else probe
        parts.append(_judge(source, part, fitted, places, settings.seed))
        on_part(done, len(rounds))
    return _joined(parts) if parts else None


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


def _judge(
    source: TrainingSet, part: TrainingSet, probe: Probe, places: IntArray, seed: int
) -> CrossFit:
    metric = fit_metric(part, seed)
    found = [
        _judge_block(source, part, probe, metric, places[start : start + _QUERIES])
        for start in range(0, len(places), _QUERIES)
    ]
    return _joined(found)


def _judge_block(
    source: TrainingSet, part: TrainingSet, probe: Probe, metric: Metric, places: IntArray
) -> CrossFit:
    X = source.data.fused(source.rows[places])
    near = _nearest(X, part)
    vectors = part.data.fused(part.rows[near.ravel()]).reshape(*near.shape, -1)
    return CrossFit(
        places=places,
        codes=source.codes[places],
        logits=probe.logits(X),
        labels=part.codes[near],
        similarities={name: similarities_in(name, X, vectors, metric, probe) for name in SPACES},
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
    return CrossFit(
        places=np.concatenate([part.places for part in parts]),
        codes=np.concatenate([part.codes for part in parts]),
        logits=np.concatenate([part.logits for part in parts]),
        labels=np.concatenate([part.labels[:, :width] for part in parts]),
        similarities={
            name: np.concatenate([part.similarities[name][:, :width] for part in parts])
            for name in SPACES
        },
    )
