"""How deep in the tree of categories an answer is sure: the leaf, or what it stands under.

The answer is the deepest node of the likeliest path whose probability passes a threshold. As in
`policy`, that is the lowest one at which the nodes answered for held-out products are right often
enough. A product of a category that the shelf never had looks sure of a sibling: so the leaf
itself is answered only where the product's novelty is above a gate. What the gate must stop is
found by leaving out a fifth of the categories in turn, all their products, and answering these.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from kinshelf.db.arrays import BoolArray, Float64Array, FloatArray, IntArray
from kinshelf.probe.calibrate.crossfit import CrossFit
from kinshelf.probe.calibrate.intervals import upper_bound
from kinshelf.probe.calibrate.mixture import distributions_of
from kinshelf.probe.calibrate.policy import CONFIDENCE, Thresholds
from kinshelf.probe.calibrate.tree import Paths, Tree
from kinshelf.probe.fit.model import softmax
from kinshelf.probe.fit.ridge import RidgeFit, fit_ridge
from kinshelf.probe.fit.settings import Calibration, Policy, ProbeSettings
from kinshelf.probe.fit.split import TrainingSet
from kinshelf.probe.novelty.fit import fit_novelty
from kinshelf.probe.novelty.model import NEIGHBOURS
from kinshelf.store.search.exact import merged, nothing

WANTED = 0.95
"""Share of right nodes where the probe has no policy."""
LEAKS = 0.05
"""Share of products of a category that the shelf never had that may be answered by another leaf."""
_ROUNDS, _FEWEST = 5, 3
_MOST = 400
"""Products answered a round."""
_GRID = np.linspace(0.999, 0.5, 250)
"""Below one half a node need not be on the likeliest path."""
_BLOCK = 8192


@dataclass(frozen=True, slots=True)
class DepthPolicy:
    """The `threshold` of a node's probability, and the `gate` of the novelty of a leaf's."""

    threshold: float
    gate: float

    def levels(self, paths: Paths, novelty_p: Float64Array) -> IntArray:
        """The level of each path that is the answer, (n,) from 0 down, -1 where none is sure.

        `novelty_p` (n,) are p-values, NaN where nothing tells.
        """
        level = (paths.probabilities >= self.threshold).sum(axis=1) - 1
        at_leaf = level == paths.lengths - 1
        return np.asarray(level - (at_leaf & (novelty_p <= self.gate)), dtype=np.int64)


@dataclass(frozen=True, slots=True, eq=False)
class Depth:
    """What a depth policy is found by.

    `probabilities` and `right` (m, L) are of the paths of held-out products; `new_leaf` and `new_p`
    (w,) the last node's probability and the novelty of products whose category was left out.
    """

    probabilities: Float64Array
    right: BoolArray
    new_leaf: Float64Array
    new_p: Float64Array

    def arrays(self) -> dict[str, NDArray[Any]]:
        """By name, to be stored with a probe."""
        return {f"depth.{name}": getattr(self, name) for name in _ARRAYS}

    @classmethod
    def of(cls, arrays: Mapping[str, NDArray[Any]]) -> Self | None:
        """Read from stored `arrays`; None if they hold none."""
        if "depth.right" not in arrays:
            return None
        return cls(*(arrays[f"depth.{name}"] for name in _ARRAYS))

    def policy(self, chosen: Policy | None) -> DepthPolicy | None:
        """With the precision and confidence of the probe's policy, or `WANTED`; None if no
        threshold keeps it."""
        wanted, confidence = WANTED, CONFIDENCE
        if chosen:
            wanted, confidence = chosen.wanted, chosen.confidence
        tried = self._thresholds()
        found = tried.lowest(wanted, confidence)
        if found is None:
            return None
        threshold = float(tried.thresholds[found])
        return DepthPolicy(threshold, self._gate(threshold))

    def _thresholds(self) -> Thresholds:
        rows = np.arange(len(self.right))
        levels = (self.probabilities[:, None] >= _GRID[:, None]).sum(axis=2) - 1  # (m, grid)
        answered = levels >= 0
        right = self.right[rows[:, None], levels] & answered
        given = np.where(answered, self.probabilities[rows[:, None], levels], 0)
        passed = answered.sum(axis=0)
        mean = given.sum(axis=0) / np.maximum(passed, 1)
        some = passed > 0
        return Thresholds(_GRID[some], passed[some], right.sum(axis=0)[some], mean[some])

    def _gate(self, threshold: float) -> float:
        """The lowest at which, with `CONFIDENCE`, no more than `LEAKS` of the new products are
        answered by a leaf."""
        sure, n = np.sort(self.new_p[self.new_leaf >= threshold])[::-1], len(self.new_leaf)
        holds = upper_bound(np.arange(n), n, CONFIDENCE) <= LEAKS
        allowed = int(np.argmin(holds))
        return float(sure[allowed]) if len(sure) > allowed else 0.0


_ARRAYS = ("probabilities", "right", "new_leaf", "new_p")


def fit_depth(
    source: TrainingSet,
    found: CrossFit,
    ridge: RidgeFit,
    calibration: Calibration,
    by_view: Float64Array | None,
    seed: int,
) -> Depth | None:
    """By the judged rows of `source` and the ridge of all its rows; None where no category stands
    under another, or there are fewer than three."""
    tree = Tree(source.classes)
    if not tree.is_deep or len(source.classes) < _FEWEST:
        return None
    judged = found.take(~found.masked)
    paths = tree.paths(distributions_of(judged, calibration, by_view)[2])
    right = tree.holds(paths.nodes, [source.classes[code] for code in judged.codes])
    return Depth(paths.probabilities, right, *_left_out(source, ridge, calibration.sharpness, seed))


def _left_out(
    source: TrainingSet, ridge: RidgeFit, sharpness: float, seed: int
) -> tuple[Float64Array, Float64Array]:
    """Leaf probabilities and novelty (w,) of products whose category was not learned."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(source.classes))
    rounds = min(_ROUNDS, len(order))
    leaves, novelty = [], []
    for i in range(rounds):
        out = order[i::rounds]
        kept = np.setdiff1d(order, out)
        if len(kept) < 2:
            continue
        places = rng.permutation(np.flatnonzero(np.isin(source.codes, out)))[:_MOST]
        X = source.data.fused(source.rows[np.sort(places)])
        part = source.among(kept)
        scores = fit_ridge(part, seed, like=ridge).ridge.scores(X)
        paths = Tree(part.classes).paths(softmax(scores * sharpness))
        leaves.append(paths.probabilities[np.arange(len(X)), paths.lengths - 1])
        novelty.append(_novelty(part, X, seed))
    return np.concatenate(leaves), np.concatenate(novelty)


def _novelty(part: TrainingSet, X: FloatArray, seed: int) -> Float64Array:
    """p-values (n,) of embeddings (n, D), NaN where nothing tells."""
    model = fit_novelty(part, ProbeSettings(seed=seed))
    if model is None:
        return np.full(len(X), np.nan)
    near = nothing(len(X), NEIGHBOURS)
    for start in range(0, len(part), _BLOCK):
        rows = part.data.fused(part.rows[start : start + _BLOCK])
        near = merged(near, X @ rows.T, np.arange(start, start + len(rows)), NEIGHBOURS)
    found, places = near
    there = np.isfinite(found)
    vectors = part.data.fused(part.rows[np.where(there, places, 0).ravel()])
    names = np.array([*part.classes, None], dtype=object)
    categories = names[np.where(there, part.codes[np.where(there, places, 0)], len(part.classes))]
    return model.p_value(model.score(X, vectors.reshape(*there.shape, -1), categories), X)
