"""Products that lie far from all others, judged by the shelf's own distances.

Distance to the nearest neighbours is a strong sign of being out of distribution (Sun et al. 2022,
arXiv 2204.06507); what counts as far, the median and the spread of the shelf decide (modified
z-score, Iglewicz and Hoaglin 1993).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from kinshelf.db.arrays import BoolArray, Float64Array
from kinshelf.probe.audit.facts import Facts
from kinshelf.probe.audit.graph import Graph

FAR = 3.5
"""Modified z-score beyond which a product is an outlier, as its authors recommend."""

NEAREST = 10
_FEWEST = 30
"""A group smaller than this has no distribution of its own and is judged with all others."""


@dataclass(frozen=True, slots=True, eq=False)
class Outliers:
    """Per product (n,): `score`, the modified z-score of its distance, `distance` = 1 - mean cosine
    of its nearest neighbours (NaN where it has none), and `flagged`."""

    score: Float64Array
    distance: Float64Array
    flagged: BoolArray


def find_outliers(graph: Graph, facts: Facts, copies: BoolArray) -> Outliers:
    """Compare each product with those that have the same modalities.

    `copies` (n, k) marks neighbours that are the product once more: they do not make it common.
    """
    distance = neighbour_distance(graph, copies)
    score = np.zeros(len(distance))
    known = ~np.isnan(distance)
    profile = facts.has_image + 2 * facts.has_text.astype(np.int64)
    for value in np.unique(profile):
        chosen = (profile == value) & known
        reference = chosen if chosen.sum() >= _FEWEST else known
        score[chosen] = _modified_z(distance[chosen], distance[reference])
    return Outliers(score, distance, score > FAR)


def neighbour_distance(graph: Graph, copies: BoolArray) -> Float64Array:
    """1 - mean cosine of the `NEAREST` nearest neighbours that are no copies, (n,)."""
    cosine = graph.mean_cosines().astype(np.float64)
    usable = graph.present & ~copies & ~np.isnan(cosine)
    usable &= np.cumsum(usable, axis=1) <= NEAREST
    count = usable.sum(axis=1)
    total = np.where(usable, cosine, 0.0).sum(axis=1)
    mean = np.divide(total, count, out=np.full(len(count), np.nan), where=count > 0)
    return np.asarray(1 - mean, dtype=np.float64)


def _modified_z(values: Float64Array, reference: Float64Array) -> Float64Array:
    if not len(reference):
        return np.zeros(len(values))
    middle = float(np.median(reference))
    spread = float(np.median(np.abs(reference - middle)))
    # all alike: rounding of the cosines must not make outliers
    return np.asarray(0.6745 * (values - middle) / max(spread, 1e-4), dtype=np.float64)
