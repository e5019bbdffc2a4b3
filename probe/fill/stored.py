"""Stored products classified in bulk: what `Predictor` would answer, from vectors on the shelf.

A single answer compares the picture alone and the text alone with all neighbours too. Here this is
done only where the verdict may depend on it: where both could be sure, of different categories.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from kinshelf.db.arrays import BoolArray, Float64Array, FloatArray, IntArray
from kinshelf.db.product import PREDICTED
from kinshelf.probe.calibrate.hybrid import Alone, Distributions, views_of
from kinshelf.probe.fill.voters import Near, Voters, only
from kinshelf.probe.fit.knn import NO_VOTE
from kinshelf.probe.novelty.model import NEIGHBOURS
from kinshelf.probe.predict.prediction import Levels, Vote
from kinshelf.probe.predict.predictor import Predictor
from kinshelf.probe.predict.verdict import SURE, is_unsure, verdict_of
from kinshelf.probe.predict.wording import reason
from kinshelf.store.search import fusion

if TYPE_CHECKING:
    from kinshelf.db.product import StoredProduct
    from kinshelf.store.generation import ProductBlock

ACCEPTED = "accept"
BLOCK = 1024
"""Products answered together."""
_PART = 128
"""Those whose neighbours' embeddings are gathered together: memory that is used over again."""
SHOWN = 5
"""Neighbours that an answer names."""
_SIDES = ("image", "text")


@dataclass(frozen=True, slots=True)
class StoredAnswer:
    """What is predicted of a product on the shelf, which has `category` now.

    `prediction_set` is as in `Prediction`; `neighbours` are the ids of the nearest labelled
    products, copies left out. `accept` and `new_category` are empty, for a reviewer: `relabel`
    reads them. `row` is the product's, by which a later change of it is noticed.
    """

    id: str
    title: str
    category: str | None
    category_source: str | None
    suggested_category: str
    probability: float
    verdict: str
    prediction_set: list[str]
    reason: str
    neighbours: list[str]
    novelty_p: float | None
    row: int
    accept: str = ""
    new_category: str = ""

    COLUMNS: ClassVar[tuple[str, ...]] = (
        "id", "title", "category", "category_source", "accept", "new_category",
        "suggested_category", "probability", "verdict", "prediction_set", "reason", "neighbours",
        "novelty_p",
    )  # fmt: skip

    @property
    def changes(self) -> bool:
        """Whether another category is predicted than the product has."""
        return self.category != self.suggested_category

    @property
    def to_write(self) -> bool:
        """Whether the policy accepts it, it is news, and no feed and no person set the category."""
        free = self.category_source in (None, PREDICTED)
        return self.verdict == ACCEPTED and free and self.changes

    def as_dict(self) -> dict[str, Any]:
        """For `--json`, and a row of a file."""
        return {name: getattr(self, name) for name in self.COLUMNS}


@dataclass(frozen=True, slots=True)
class _Facts:
    """What the reason of an answer is worded from."""

    category: str
    verdict: str
    probe: Vote | None
    knn: Vote | None
    image_only: Vote | None
    text_only: Vote | None
    novelty_p: float | None
    is_new_category: bool
    nearest: list[str]

    @property
    def agreement(self) -> bool | None:
        return self.probe.category == self.knn.category if self.probe and self.knn else None

    @property
    def looked_at(self) -> int:
        return len(self.nearest)

    def count_of(self, category: str) -> int:
        return self.nearest.count(category)


@dataclass(frozen=True, slots=True, eq=False)
class Computed:
    """The numbers behind the answers to n products: `places` (n, k) of the neighbours that vote, -1
    where there are fewer; `parts` by place, where picture and text may be in conflict; `sets` (n,
    n_classes), None without calibration; `levels` (n,) where the policy asks for them."""

    predicted: Distributions
    places: IntArray
    parts: dict[int, tuple[Vote, Vote]]
    novelty: Sequence[float | None]
    sets: BoolArray | None
    levels: Sequence[Levels | None]


class StoredPredictor(Predictor):
    """Answers for products of the snapshot itself."""

    def answers(self, block: ProductBlock) -> list[StoredAnswer]:
        """One answer a product, in their order."""
        return self.worded(block, self.computed(block))

    def computed(self, block: ProductBlock) -> Computed:
        """The numbers of a block's answers: most of the work, without the interpreter."""
        rows = np.array([stored.row for stored in block.products], dtype=np.int64)
        near = self._voters.nearest(block.pairs, rows, max(self.k, NEIGHBOURS))
        X = fusion.fused(block.pairs)
        voters = near.voters(self.k)
        predicted = self._predictors.mixed(self._predictors.alone(X), self._votes(X, voters))
        sets = None
        if self._conformal is not None:
            sets = self._conformal.sets(predicted.hybrid, views=views_of(X))
        novelty = self._novelty_of(X, near.first(NEIGHBOURS))
        policy = self.probe.policy if self.probe else None
        levels: Sequence[Levels | None] = [None] * len(X)
        if policy and policy.depth:
            levels = self._depths.of(predicted.hybrid, novelty)
        parts = self._parts(block.pairs, rows)
        return Computed(predicted, voters.places, parts, novelty, sets, levels)

    def worded(self, block: ProductBlock, found: Computed) -> list[StoredAnswer]:
        """The answers of the numbers."""
        self._name(found.places[:, :SHOWN])
        predicted = found.predicted
        votes = [self._best(own) for own in (predicted.hybrid, predicted.probe, predicted.knn)]
        return [
            self._answer(stored, found, i, *own)
            for i, (stored, *own) in enumerate(zip(block.products, *votes, strict=True))
        ]

    def _best(self, proba: Float64Array) -> list[Vote | None]:
        """The most probable category of each row (n, n_classes); None for a row of zeros."""
        codes = proba.argmax(axis=1)
        most = proba[np.arange(len(proba)), codes]
        pairs = zip(codes.tolist(), most.tolist(), strict=True)
        return [Vote(self.classes[code], p) if p else None for code, p in pairs]

    @cached_property
    def _voters(self) -> Voters:
        placed = None if self._predictors.weighs_shelf else self._predictors.placed
        return Voters(self.snapshot, self._rows, placed)

    def _votes(self, X: FloatArray, voters: Near) -> Float64Array:
        places = np.maximum(voters.places, 0)
        labels = np.where(voters.places < 0, NO_VOTE, self._row_codes[places])
        similarities = voters.similarities
        if not self._predictors.weighs_shelf:
            queries = self._predictors.placed(X)[:, None]
            parts = [slice(at, at + _PART) for at in range(0, len(X), _PART)]
            weighed = [np.vecdot(self._voters.placed(places[p]), queries[p]) for p in parts]
            similarities = np.concatenate(weighed)
        return self._predictors.votes(similarities, labels)

    def _parts(self, pairs: FloatArray, rows: IntArray) -> dict[int, tuple[Vote, Vote]]:
        """What picture and text alone predict, by place, where they may be in conflict."""
        both = np.flatnonzero(pairs[:, : pairs.shape[1] // 2].any(axis=1)
                              & pairs[:, pairs.shape[1] // 2 :].any(axis=1))  # fmt: skip
        queries = [fusion.fused(only(pairs[both], side)) for side in _SIDES]
        alone = [self._predictors.alone(X) for X in queries]
        asked = np.flatnonzero(_may_differ(*(self._predictors.may_reach(a, SURE) for a in alone)))
        if not len(asked):
            return {}
        at = both[asked]
        votes = []
        for side, X, own in zip(_SIDES, queries, alone, strict=True):
            voters = self._voters.nearest(pairs[at], rows[at], self.k, side).voters(self.k)
            votes.append(self._predictors.mixed(_taken(own, asked), self._votes(X[asked], voters)))
        image, text = (found.hybrid for found in votes)
        return {
            int(place): (self._vote(one), self._vote(other))
            for place, one, other in zip(at, image, text, strict=True)
        }

    def _novelty_of(self, X: FloatArray, near: Near) -> Sequence[float | None]:
        model = self._novelty
        if model is None:
            return [None] * len(X)
        there = near.places >= 0
        names = np.array([*self.classes, None], dtype=object)
        categories = names[np.where(there, self._row_codes[near.places], -1)]
        if self._predictors.seen.all() and self._voters.whole:
            scores = model.score_known(X, near.similarities, categories)
        else:
            vectors = fusion.fused(self._voters.pairs(np.maximum(near.places, 0).ravel()))
            scores = model.score(X, vectors.reshape(*near.places.shape, -1), categories)
        found = model.p_value(scores, X)
        return [None if np.isnan(value) else float(value) for value in found]

    def _name(self, places: IntArray) -> None:
        """Have the ids of the labelled rows at these places at hand."""
        wanted = np.unique(self._rows[places[places >= 0]])
        missing = [row for row in wanted.tolist() if row not in self._ids]
        found = self.snapshot.view.by_rows(missing) if missing else {}
        self._ids.update({row: stored.product.id for row, stored in found.items()})

    @cached_property
    def _ids(self) -> dict[int, str]:
        return {}

    def _answer(
        self,
        stored: StoredProduct,
        found: Computed,
        i: int,
        answer: Vote | None,
        probe: Vote | None,
        knn: Vote | None,
    ) -> StoredAnswer:
        proba, novelty_p = found.predicted.hybrid[i], found.novelty[i]
        voting = found.places[i][found.places[i] >= 0]
        answer = answer or Vote(self.classes[0], 0.0)
        best = self._code[answer.category]
        arrived = self._arrived(best)
        image, text = found.parts.get(i, (None, None))
        policy = self.probe.policy if self.probe else None
        verdict = verdict_of(
            answer, probe, knn, (image, text), novelty_p, policy, arrived=self._unsettled(best),
            calibrated=self._calibrated, unsure_of_leaf=is_unsure(found.levels[i], policy),
        )  # fmt: skip
        nearest = [self.classes[code] for code in self._row_codes[voting].tolist()]
        facts = _Facts(
            answer.category, verdict, probe, knn, image, text, novelty_p, arrived, nearest
        )
        members = None if found.sets is None else found.sets[i]
        product = stored.product
        return StoredAnswer(
            product.id, product.title, product.category, stored.origin("category"),
            answer.category, answer.probability, verdict, self._set_of(proba, best, members),
            reason(facts), [self._ids[row] for row in self._rows[voting[:SHOWN]].tolist()],
            novelty_p, stored.row,
        )  # fmt: skip

    @cached_property
    def _code(self) -> dict[str, int]:
        return {name: code for code, name in enumerate(self.classes)}

    def _set_of(self, proba: Float64Array, best: int, members: BoolArray | None) -> list[str]:
        if members is None or np.count_nonzero(members) <= members[best]:
            return [self.classes[best]]
        codes = np.flatnonzero(members)
        order = codes[np.argsort(-proba[codes], kind="stable")]
        return [self.classes[best], *(self.classes[code] for code in order if code != best)]


def _may_differ(image: BoolArray, text: BoolArray) -> BoolArray:
    """Where a class of one (n, n_classes) and another class of the other are possible, (n,)."""
    one, other, shared = image.sum(axis=1), text.sum(axis=1), (image & text).sum(axis=1)
    return np.asarray((one > 0) & (other > 0) & ~((one == 1) & (other == 1) & (shared == 1)))


def _taken(alone: Alone, rows: IntArray) -> Alone:
    mass = None if alone.mass is None else alone.mass[rows]
    parts = (alone.probe[rows], alone.ridge[rows], alone.pool[rows], alone.lam[rows])
    return Alone(*parts, mass)
