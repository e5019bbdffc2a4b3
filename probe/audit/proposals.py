"""Products that fit no category yet, put together into categories that there might be.

A product is novel if `classify` would call it so. Average-link clusters, cut half-way between the
usual distance within a category and that between two: on 828 toys with two of the four categories
hidden, the two largest clusters held 77 to 98 % of what was novel in any, each of one category to
89 % or more.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from kinshelf.db.arrays import Float64Array, FloatArray, IntArray
from kinshelf.probe.audit.facts import Facts
from kinshelf.probe.fit.copies import groups_of
from kinshelf.probe.fit.split import TrainingSet, encode
from kinshelf.probe.novelty.fit import fit_novelty
from kinshelf.probe.novelty.reference import novelty_model
from kinshelf.probe.predict.predictor import Predictor

if TYPE_CHECKING:
    from kinshelf.probe.fit.model import Probe
    from kinshelf.store.generation import AnySnapshot

SMALLEST = 3
"""Products that make a category."""

LARGEST = 4000
"""Products clustered at once, the most novel first: their distances take 4 bytes a pair."""

_CALIBRATION = 2000
_PAIRS = 20_000
_BLOCK = 1024


@dataclass(frozen=True, slots=True)
class Member:
    """A novel product, and how often one of the categorised ones looks as novel."""

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


def propose_categories(
    snapshot: AnySnapshot, facts: Facts, probe: Probe | None = None, seed: int = 0
) -> list[Proposal]:
    """Clusters of the uncategorised products that are novel to the probe, largest first.

    Products that look like none of the others are in no cluster of `SMALLEST` or more and left out.
    """
    given = np.array([category is not None for category in facts.categories], dtype=np.bool_)
    labelled, unlabelled = np.flatnonzero(given), np.flatnonzero(~given)
    if not len(labelled) or not len(unlabelled):
        return []
    p = _novel(snapshot, probe, facts.rows[unlabelled])
    order = np.argsort(p, kind="stable")[: min(LARGEST, int(np.isfinite(p).sum()))]
    if len(order) < SMALLEST:
        return []
    rng = np.random.default_rng(seed)
    sample = rng.permutation(labelled)[:_CALIBRATION]
    similarity = _similarities(snapshot, facts, unlabelled[order])
    cut = _cut(snapshot, facts, sample, rng)
    clusters = _clusters(similarity, cut)
    return [_proposal(facts, unlabelled[order], p[order], similarity, own) for own in clusters]


def _novel(snapshot: AnySnapshot, probe: Probe | None, rows: IntArray) -> Float64Array:
    """The p-values (n,) of the novel ones, NaN for others. Without a probe that was calibrated for
    it, what tells them is fitted now."""
    fitted = None
    if novelty_model(probe) is None:
        known, categories = snapshot.labelled()
        classes, codes = encode(categories)
        fitted = fit_novelty(
            TrainingSet(snapshot, known, codes, classes, groups_of(snapshot, known))
        )
    predictor = Predictor(snapshot, probe, None, novelty=fitted)
    blocks = range(0, len(rows), _BLOCK)
    return np.concatenate([predictor.novel(snapshot.pairs(rows[i : i + _BLOCK])) for i in blocks])


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
