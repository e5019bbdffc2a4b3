"""The hybrid: probe and neighbours in one distribution, new categories included."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from kinshelf.probe.data import BoolArray, Float64Array, FloatArray, ObjectArray
from kinshelf.probe.knn import NO_VOTE, knn_distribution
from kinshelf.probe.model import Probe
from kinshelf.probe.settings import Calibration


@dataclass(frozen=True, slots=True, eq=False)
class Distributions:
    """Probabilities of n queries over `classes`, each (n, n_classes) float64.

    `probe` is 0 for categories that the probe never saw. A row of `knn` is 0 where no neighbour
    has a category; without a probe, `probe` is 0 and `hybrid` is `knn`.
    """

    classes: tuple[str, ...]
    probe: Float64Array
    knn: Float64Array
    hybrid: Float64Array


def distributions(
    probe: Probe | None,
    embeddings: FloatArray,
    similarities: FloatArray,
    categories: ObjectArray,
    calibration: Calibration | None = None,
) -> Distributions:
    """What probe, neighbours and both together say of fused embeddings (n, D) float32.

    `similarities` (n, k) float32 and `categories` (n, k) describe the neighbours; a category of
    None does not vote. `classes` are the sorted union of the probe's and the neighbours'.
    `calibration` defaults to the probe's own. Raises InvalidEmbeddings.
    """
    known = probe.classes if probe else ()
    calibration = calibration or (probe.calibration if probe else Calibration())
    flat: list[str | None] = categories.ravel().tolist()
    classes = tuple(sorted({category for category in flat if category is not None}.union(known)))
    place = {name: code for code, name in enumerate(classes)}
    codes = [NO_VOTE if category is None else place[category] for category in flat]
    labels = np.array(codes, dtype=np.int64).reshape(categories.shape)
    p_knn = knn_distribution(similarities, labels, calibration.tau, len(classes))
    if probe is None:
        return Distributions(classes, np.zeros_like(p_knn), p_knn, p_knn)
    p_probe = spread(probe.predict_proba(embeddings), known, classes)
    seen = np.isin(np.array(classes, dtype=object), np.array(known, dtype=object))
    return Distributions(classes, p_probe, p_knn, mix(p_probe, p_knn, seen, calibration.lam))


def mix(p_probe: Float64Array, p_knn: Float64Array, seen: BoolArray, lam: float) -> Float64Array:
    """`(1 - lam) p_probe + lam p_knn`, after the votes for unseen categories are taken.

    `p_probe` and `p_knn` are (n, n_classes) over the same classes, `seen` (n_classes,) is true
    where the probe knows the class. A row's vote mass m on unseen classes stays theirs; the seen
    ones share 1 - m by the formula, with the votes among them scaled to sum to 1. Without votes
    for seen classes the probe alone decides between them. Rows sum to 1 if those of `p_probe` do.
    """
    votes_seen = np.where(seen, p_knn, 0.0)
    mass_seen = votes_seen.sum(axis=1, keepdims=True)
    mass_unseen = np.where(seen, 0.0, p_knn).sum(axis=1, keepdims=True)
    share = np.divide(votes_seen, mass_seen, out=p_probe.copy(), where=mass_seen > 0)
    shared = (1 - lam) * np.where(seen, p_probe, 0.0) + lam * share
    # a full vote may sum to a hair above 1
    return np.where(seen, np.maximum(1 - mass_unseen, 0.0) * shared, p_knn)


def spread(
    probabilities: Float64Array, classes: tuple[str, ...], wider: tuple[str, ...]
) -> Float64Array:
    """Columns of `classes` moved to their places in `wider`, (n, len(wider)); the others are 0."""
    place = {name: column for column, name in enumerate(wider)}
    spread_out = np.zeros((len(probabilities), len(wider)), dtype=np.float64)
    spread_out[:, [place[name] for name in classes]] = probabilities
    return spread_out
