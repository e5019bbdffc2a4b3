"""Categories that were added after the probe was trained: how much of an answer is theirs.

A new category is known by the mean of its products in the whitened space (`vote_space`), as the
old ones are by theirs (prototypes: Snell et al. 2017, arXiv 1703.05175; whitened: Fisher). A
product belongs to a new one if it lies nearer to that mean than to any old one by a margin that
hardly any held-out product of the old categories has: so the cost to these is bounded, however
many new categories there are and however few their products.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from kinshelf.db.arrays import BoolArray, Float64Array, FloatArray, IntArray
from kinshelf.probe.calibrate.vote_space import Metric, fit_metric, unit
from kinshelf.probe.fit.covariance import class_means
from kinshelf.probe.fit.model import Probe
from kinshelf.probe.fit.split import TrainingSet

COST = 0.005
"""Share of the known categories' held-out products that a new category may take. Of 828 products
in four categories, each left out in turn (24 splits), 0.005 found 0.88 of a new category by 5 of
its products and 0.91 by 20, and took 0.008 of the known ones."""

FEWEST = 30
"""Held-out products below which no margin can be named."""
SETTLED, BESIDE = 20, 5
"""A category of fewer than `SETTLED` products, and fewer than the `BESIDE`-th part of the median
category's, is young: trained probe and ridge hardly ever predict it, so it goes on being known by
its mean. `bench/novelty.py --retrain` compares both."""
MOST = 1000
_HELD_OUT = 0.5
_LEARNED = 20_000
_ENOUGH = 200
"""Products that tell where a new category lies."""
_STEEPNESS = 6.0
"""Of the logistic curve: 0.0025 at the held-out products' median margin, 0.5 at the allowed one."""


@dataclass(frozen=True, slots=True, eq=False)
class Known:
    """Summary of the settled categories that the probe was trained on.

    `prototypes` (n, D) float32, their unit means in the whitened space, and `codes` (n,) int64,
    their places among the probe's; `sample` (m, D) float16, products of theirs that went into
    neither the prototypes nor the `metric`, in the same space.
    """

    metric: Metric
    prototypes: FloatArray
    sample: NDArray[np.float16]
    codes: IntArray

    def arrays(self) -> dict[str, NDArray[Any]]:
        """By name, to be stored with a probe."""
        own: dict[str, NDArray[Any]] = {
            "unseen.prototypes": self.prototypes,
            "unseen.sample": self.sample,
            "unseen.codes": self.codes,
        }
        return own | self.metric.arrays()

    @classmethod
    def of(cls, arrays: Mapping[str, NDArray[Any]]) -> Self | None:
        """Read from stored `arrays`; None if they hold none."""
        metric = Metric.of(arrays)
        if metric is None or "unseen.prototypes" not in arrays:
            return None
        prototypes = arrays["unseen.prototypes"]
        every = np.arange(len(prototypes), dtype=np.int64)  # of a probe that knows none as young
        return cls(metric, prototypes, arrays["unseen.sample"], arrays.get("unseen.codes", every))


def settled(codes: IntArray, groups: IntArray, n_classes: int) -> BoolArray:
    """Which classes have products enough to stand beside the others, (n_classes,); copies count
    once. The rest are young."""
    of_group = np.unique(np.stack([codes, groups]), axis=1)[0]
    counts = np.bincount(of_group, minlength=n_classes)
    return np.asarray((counts >= SETTLED) | (counts * BESIDE >= np.median(counts)), dtype=np.bool_)


def fit_known(source: TrainingSet, seed: int) -> Known | None:
    """From the settled categories; None where they have too few products to hold some out."""
    old = np.flatnonzero(settled(source.codes, source.groups, len(source.classes)))
    # So that what is drawn by chance is the same before and after training on young ones.
    source = source.among(old)
    held = source.hold_out(_HELD_OUT, seed)
    if held.sum() < FEWEST:
        return None
    rng = np.random.default_rng(seed)
    learned = source.take(_some(~held, _LEARNED, rng))
    metric = fit_metric(learned, seed)
    placed = metric.whitened(source.data.fused(learned.rows))
    prototypes = unit(class_means(placed, learned.codes, len(old)))
    sample = source.take(_some(held, MOST, rng))
    kept = metric.whitened(source.data.fused(sample.rows)).astype(np.float16)
    return Known(metric, prototypes, kept, old)


def _some(mask: NDArray[np.bool_], most: int, rng: np.random.Generator) -> NDArray[np.bool_]:
    chosen = np.zeros_like(mask)
    chosen[rng.permutation(np.flatnonzero(mask))[:most]] = True
    return chosen


def new_categories_of(
    probe: Probe | None,
    classes: Sequence[str],
    codes: IntArray,
    fused_of: Callable[[IntArray], FloatArray],
) -> NewCategories | None:
    """The categories among `classes` that the probe never saw, and its young ones, as their
    products show them.

    `codes` (n,) int64 are the classes of the shelf's products, `fused_of` the embeddings of some
    of these by place. None where there are none, or the probe keeps nothing to compare with.
    """
    known = Known.of(probe.reference) if probe else None
    if probe is None or known is None:
        return None
    old = {probe.classes[code] for code in known.codes}
    there = np.unique(codes[codes >= 0])
    new = [int(code) for code in there if classes[code] not in old]
    if not new:
        return None
    rng = np.random.default_rng(0)
    places = [rng.permutation(np.flatnonzero(codes == code))[:_ENOUGH] for code in new]
    own = np.repeat(np.arange(len(new)), [len(rows) for rows in places])
    return NewCategories(known, fused_of(np.concatenate(places)), own, np.array(new))


class NewCategories:
    """New and young categories beside the settled ones: `fused` (m, D) float32 are their products,
    `codes` (m,) int64 their categories in [0, n), `places` (n,) where these stand among all."""

    def __init__(
        self, known: Known, fused: FloatArray, codes: IntArray, places: IntArray | None = None
    ) -> None:
        self._known = known
        self.places = np.unique(codes) if places is None else places
        placed = known.metric.whitened(fused)
        self._prototypes = unit(class_means(placed, codes, int(codes.max()) + 1))
        margins = self._margins(known.sample.astype(np.float32))[0]
        self._allowed = float(np.quantile(margins, 1 - COST))
        usual = float(np.median(margins))
        self._scale = max(self._allowed - usual, 1e-3) / _STEEPNESS

    def mass(self, fused: FloatArray) -> Float64Array:
        """Each new category's probability for products (n, D): (n, n_new) float64."""
        margins, new = self._margins(self._known.metric.whitened(fused))
        logit = np.clip((margins - self._allowed) / self._scale, -500, 500)
        theirs = 1 / (1 + np.exp(-logit))
        shares = np.exp((new - new.max(axis=1, keepdims=True)) / self._scale)
        return np.asarray(theirs[:, None] * shares / shares.sum(axis=1, keepdims=True))

    def _margins(self, placed: FloatArray) -> tuple[Float64Array, Float64Array]:
        """(n,) by how much the nearest new prototype is nearer than the nearest known one, and the
        similarities to the new ones (n, n_new)."""
        new = (placed @ self._prototypes.T).astype(np.float64)
        old = (placed @ self._known.prototypes.T).astype(np.float64)
        return new.max(axis=1) - old.max(axis=1), new
