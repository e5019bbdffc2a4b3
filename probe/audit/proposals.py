"""Products that fit no category yet, put together into categories that there might be.

A product looks novel if it is as far from the categorised products as few of these are from each
other. Average-link clusters, cut half-way between the usual distance within a category and that
between two: on 828 toys with two of the four categories hidden, the two largest clusters held 73
to 100 % of what looked novel, each of one category to 93 % or more; complete link made 9 to 30.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from kinshelf.db.arrays import Float64Array, FloatArray, IntArray
from kinshelf.probe.audit.facts import Facts

if TYPE_CHECKING:
    from kinshelf.store.generation import AnySnapshot

ALPHA = 0.05
"""Largest p-value of a product that looks novel."""

SMALLEST = 3
"""Products that make a category."""

NEAREST = 10
LARGEST = 4000
"""Products clustered at once, the most novel first: their distances take 4 bytes a pair."""

_CALIBRATION = 2000
_PAIRS = 20_000
_BLOCK = 1024


@dataclass(frozen=True, slots=True)
class Member:
    """A product that looks novel, and how often a categorised one lies as far from the others."""

    id: str
    title: str
    image: str | None
    p: float


@dataclass(frozen=True, slots=True)
class Proposal:
    """A category that there might be; `medoid` is its most typical product, members follow by
    their similarity to it. `cohesion` is the mean similarity of two members."""

    medoid: Member
    members: list[Member]
    cohesion: float

    def as_dict(self, number: int) -> dict[str, Any]:
        """For `--json`: what the medoid is, and the members' ids."""
        return {
            "proposal": number,
            "size": len(self.members),
            "medoid": self.medoid.id,
            "medoid_title": self.medoid.title,
            "cohesion": self.cohesion,
            "members": [member.id for member in self.members],
        }


def propose_categories(snapshot: AnySnapshot, facts: Facts, seed: int = 0) -> list[Proposal]:
    """Clusters of the uncategorised products that look novel, largest first.

    Products that look like none of the others are in no cluster of `SMALLEST` or more and left out.
    """
    given = np.array([category is not None for category in facts.categories], dtype=np.bool_)
    labelled, asked = np.flatnonzero(given), np.flatnonzero(~given)
    rng = np.random.default_rng(seed)
    if len(labelled) <= NEAREST or not len(asked):
        return []
    sample = rng.permutation(labelled)[:_CALIBRATION]
    usual = np.sort(_distances(snapshot, facts, sample))
    p = novelty_p(_distances(snapshot, facts, asked), usual)
    order = np.argsort(p, kind="stable")[: min(LARGEST, int((p <= ALPHA).sum()))]
    if len(order) < SMALLEST:
        return []
    similarity = _similarities(snapshot, facts, asked[order])
    cut = _cut(snapshot, facts, sample, rng)
    clusters = _clusters(similarity, cut)
    return [_proposal(facts, asked[order], p[order], similarity, own) for own in clusters]


def novelty_p(distance: Float64Array, usual: Float64Array) -> Float64Array:
    """Share of the sorted `usual` distances, the own one counted, that are as large: (n,)."""
    larger = len(usual) - np.searchsorted(usual, distance, side="left")
    return np.asarray((1 + larger) / (len(usual) + 1), dtype=np.float64)


def _distances(snapshot: AnySnapshot, facts: Facts, places: IntArray) -> Float64Array:
    """1 - mean cosine of the `NEAREST` categorised products that are no copies, (n,)."""
    place_of = {int(row): place for place, row in enumerate(facts.rows)}
    parts = []
    for start in range(0, len(places), _BLOCK):
        block = places[start : start + _BLOCK]
        halves = snapshot.halves(facts.rows[block])
        found = snapshot.kneighbors(halves, 2 * NEAREST, labelled_only=True)
        near = np.array([[place_of.get(int(r), -1) for r in rows] for rows in found.rows])
        copy = facts.content[near] == facts.content[block][:, None]
        parts.append(_mean_distance(found.image_similarities, found.text_similarities, copy, near))
    return np.concatenate(parts)


def _mean_distance(image: FloatArray, text: FloatArray, copy: Any, near: IntArray) -> Float64Array:
    both = np.stack([image, text]).astype(np.float64)
    given = ~np.isnan(both)
    cosine = np.where(given, both, 0).sum(axis=0) / np.maximum(given.sum(axis=0), 1)
    usable = (near >= 0) & ~copy & given.any(axis=0)
    usable &= np.cumsum(usable, axis=1) <= NEAREST
    mean = np.where(usable, cosine, 0).sum(axis=1) / np.maximum(usable.sum(axis=1), 1)
    return np.asarray(1 - mean, dtype=np.float64)


def _similarities(snapshot: AnySnapshot, facts: Facts, places: IntArray) -> FloatArray:
    fused = snapshot.fused(facts.rows[places])
    return np.asarray(np.clip(fused @ fused.T, -1, 1), dtype=np.float32)


def _cut(snapshot: AnySnapshot, facts: Facts, sample: IntArray, rng: np.random.Generator) -> float:
    """Half-way between the median distances within a category and between two."""
    similarity = _similarities(snapshot, facts, sample)
    one, other = rng.integers(0, len(sample), (2, _PAIRS))
    distance = 1 - similarity[one, other]
    same = facts.categories[sample[one]] == facts.categories[sample[other]]
    apart = one != other
    middles = [np.median(distance[side & apart]) for side in (same, ~same) if (side & apart).any()]
    return float(np.mean(middles))


def _clusters(similarity: FloatArray, cut: float) -> list[IntArray]:
    from sklearn.cluster import AgglomerativeClustering

    model = AgglomerativeClustering(
        n_clusters=None, distance_threshold=cut, metric="precomputed", linkage="average"
    )
    labels = model.fit(1 - similarity).labels_
    found = [np.flatnonzero(labels == label) for label in range(labels.max() + 1)]
    large = [own.astype(np.int64) for own in found if len(own) >= SMALLEST]
    return sorted(large, key=lambda own: (-len(own), own[0]))


def _proposal(
    facts: Facts, places: IntArray, p: Float64Array, similarity: FloatArray, own: IntArray
) -> Proposal:
    inside = similarity[np.ix_(own, own)]
    medoid = int(inside.sum(axis=1).argmax())
    order = own[np.argsort(-inside[medoid], kind="stable")]
    members = [
        Member(facts.ids[i], facts.titles[i], facts.images[i], float(p[j]))
        for i, j in zip(places[order], order, strict=True)
    ]
    size = len(own)
    cohesion = float((inside.sum() - np.trace(inside)) / (size * (size - 1)))
    first = own[medoid]
    head = next(m for m in members if m.id == facts.ids[places[first]])
    return Proposal(head, members, cohesion)
