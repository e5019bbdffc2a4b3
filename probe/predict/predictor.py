"""Classify and explain: one distribution from probe and neighbours, with the neighbours."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Self, Unpack

import numpy as np
from numpy.typing import NDArray

from kinshelf.db.arrays import Float64Array, FloatArray, IntArray
from kinshelf.db.errors import EmptyShelf, InputError, ProbeNotFound
from kinshelf.probe.calibrate.conformal import COVERAGE, Conformal
from kinshelf.probe.calibrate.crossfit import FEWEST
from kinshelf.probe.calibrate.hybrid import Distributions, Predictors, views_of
from kinshelf.probe.calibrate.mixture import HeldOut
from kinshelf.probe.calibrate.new_categories import new_categories_of
from kinshelf.probe.fit.knn import NO_VOTE, identical
from kinshelf.probe.fit.model import Probe
from kinshelf.probe.fit.settings import Calibration
from kinshelf.probe.fit.storage import read_probe
from kinshelf.probe.novelty.model import NEIGHBOURS, NoveltyModel, is_novel
from kinshelf.probe.novelty.reference import novelty_model
from kinshelf.probe.predict.evidence import explain, gather
from kinshelf.probe.predict.levels import Depths
from kinshelf.probe.predict.prediction import (
    Evidence,
    Levels,
    Prediction,
    Receipt,
    TrackRecord,
    Vote,
)
from kinshelf.probe.predict.verdict import is_unsure, verdict_of
from kinshelf.store.ingest import queries
from kinshelf.store.ingest.picture_vectors import PictureVectors
from kinshelf.store.probes import find_probe
from kinshelf.store.query import Query, QueryFields
from kinshelf.store.search import fusion

if TYPE_CHECKING:
    from kinshelf.store import AddOptions
    from kinshelf.store.base import AnyShelf
    from kinshelf.store.generation import AnySnapshot
    from kinshelf.store.search.neighbours import Neighbours

_BLOCK = 64
"""Queries answered together: their neighbours' vectors take 200 KB each."""


@dataclass(frozen=True, slots=True, eq=False)
class _Found:
    """Neighbours of n queries: `labels` (n, width) as they vote, `codes` whether or not, and their
    fused embeddings `near` (n, width, D)."""

    neighbours: Neighbours
    labels: IntArray
    codes: IntArray
    near: FloatArray


class Predictor:
    """Answers queries from one generation of a shelf and one of its probes, if it has any.

    `novelty` tells novel products in place of what the probe holds for that.
    """

    def __init__(
        self,
        snapshot: AnySnapshot,
        probe: Probe | None,
        version: int | None,
        *,
        k: int | None = None,
        novelty: NoveltyModel | None = None,
        pictures: PictureVectors | None = None,
    ) -> None:
        self._pictures = pictures
        self.snapshot = snapshot
        self.probe = probe
        self.version = version
        calibration = probe.calibration if probe else Calibration()
        self.k = k or calibration.k
        rows, categories = snapshot.labelled()
        if not len(rows):
            raise EmptyShelf(
                "no product on the shelf has a category, so there is nothing to answer from:"
                " add products with a category first"
            )
        seen = probe.classes if probe else ()
        self.classes = sorted(set(seen) | set(categories))
        place = {name: i for i, name in enumerate(self.classes)}
        self._rows = rows
        self._row_codes = np.array([place[c] for c in categories], dtype=np.int64)
        new_categories = new_categories_of(
            probe, self.classes, self._row_codes, lambda places: snapshot.fused(rows[places])
        )
        self._predictors = Predictors(probe, self.classes, new_categories=new_categories)
        reference = probe.reference if probe else {}
        conformal = Conformal.of(reference)
        self._conformal = conformal and conformal.over(seen, self.classes)
        self._held_out = HeldOut.of(reference)
        # A probability of neighbours alone, of one category or of a handful of products is none.
        self._calibrated = (
            self._held_out is not None and len(self.classes) > 1 and len(rows) >= FEWEST
        )
        self._novelty = novelty or novelty_model(probe)
        self._depths = Depths(self.classes, probe)

    @classmethod
    def for_shelf(
        cls,
        shelf: AnyShelf,
        *,
        probe: int | None = None,
        at: int | None = None,
        k: int | None = None,
        include_predicted: bool = False,
    ) -> Self:
        """The newest probe unless a version is named; neighbours alone if there is none.

        `include_predicted`: categories that a probe predicted vote too. Raises ProbeNotFound for a
        version that is not there, EmptyShelf, GenerationNotFound.
        """
        snapshot = shelf.snapshot(at)
        snapshot = snapshot.with_predicted() if include_predicted else snapshot
        pictures = PictureVectors(shelf.path, shelf.manifest)
        try:
            entry = find_probe(shelf, snapshot, probe)
        except ProbeNotFound:
            if probe is not None:
                raise
            return cls(snapshot, None, None, k=k, pictures=pictures)
        return cls(snapshot, read_probe(entry.path), entry.version, k=k, pictures=pictures)

    def predict(
        self, pairs: FloatArray, *, where: str | None = None, ids: list[str] | None = None
    ) -> list[Prediction]:
        """One answer a query; `pairs` are (n, 2 * dimension) float32 as `queries.embed` gives.

        `where` narrows the neighbours that vote and are shown.
        """
        answers: list[Prediction] = []
        for start in range(0, len(pairs), _BLOCK):
            part = slice(start, start + _BLOCK)
            named: list[str | None] = list(ids[part]) if ids else [None] * len(pairs[part])
            answers += self._predict(pairs[part], where, named)
        return answers

    def predict_stored(self, product_id: str, *, where: str | None = None) -> Prediction:
        """The answer for a product on the shelf. Raises ProductNotFound."""
        pairs = self.snapshot.pairs([self.snapshot.get(product_id).row])
        return self.predict(pairs, where=where, ids=[product_id])[0]

    def novel(self, pairs: FloatArray) -> Float64Array:
        """The p-values (n,) of the queries whose verdict is `novel`, NaN for all others."""
        found = np.full(len(pairs), np.nan)
        for start in range(0, len(pairs), _BLOCK):
            block = pairs[start : start + _BLOCK]
            near = self._search(block, None, 0.5)
            answers = self._predicted(block, near).hybrid.argmax(axis=1)
            for i, p in enumerate(self._novelty_p(block, near, None)):
                if p is not None and is_novel(p, arrived=self._unsettled(answers[i])):
                    found[start + i] = p
        return found

    def _arrived(self, code: int) -> bool:
        """Whether a category came after the training of the probe."""
        return self.probe is not None and not self._predictors.seen[code]

    def _unsettled(self, code: int) -> bool:
        """Whether a category is known by its few products: it arrived, or is young."""
        return self.probe is not None and not self._predictors.settled[code]

    def _predict(
        self, pairs: FloatArray, where: str | None, ids: list[str | None]
    ) -> list[Prediction]:
        found = self._search(pairs, where, 0.5)
        predicted = self._predicted(pairs, found)
        if self.probe is None and not predicted.knn.any(axis=1).all():
            raise EmptyShelf(
                f"no categorised product matches {where!r}: widen --where, or train a probe"
            )
        order = np.argsort(-predicted.hybrid, axis=1, kind="stable")
        best, second = self._names(order, 0), self._names(order, 1)
        runner_up = order[:, 1] if order.shape[1] > 1 else np.full(len(order), -1)
        shown = gather(
            self.snapshot, pairs, found.neighbours, found.codes, runner_up, self._members, self.k,
            where,
        )  # fmt: skip
        images = pairs[:, : pairs.shape[1] // 2]
        near = queries.neighbours(self.snapshot, shown, images, self._pictures)
        evidence = explain(self.snapshot, shown, near, [b or "" for b in best], second)
        parts = [self._part(pairs, predicted, where, weight) for weight in (1.0, 0.0)]
        novelty = self._novelty_p(pairs, found, where)
        sets = (
            self._conformal.sets(predicted.hybrid, views=views_of(pairs))
            if self._conformal
            else None
        )
        exhaustive = found.neighbours.exhaustive
        levels = self._depths.of(predicted.hybrid, novelty)
        return [
            self._prediction(
                ids[i], predicted, i, order[i], (parts[0][i], parts[1][i]), novelty[i], evidence[i],
                None if sets is None else sets[i], levels[i], exhaustive=exhaustive,
            )
            for i in range(len(pairs))
        ]  # fmt: skip

    def _search(self, pairs: FloatArray, where: str | None, weight: float) -> _Found:
        width = max(self.k, NEIGHBOURS if self._novelty and weight == 0.5 else 0)
        near = self.snapshot.kneighbors(
            pairs, width, where=where, labelled_only=True, weight_image=weight
        )
        there = near.rows >= 0
        at = np.searchsorted(self._rows, np.where(there, near.rows, self._rows[0]))
        codes = np.where(there, self._row_codes[at], NO_VOTE)
        vectors = self.snapshot.fused(np.where(there, near.rows, self._rows[0]).ravel())
        vectors = vectors.reshape(*near.rows.shape, -1)
        # copies of the query would support their own label, right or wrong
        copied = identical(fusion.fused(pairs), vectors) & there
        lonely = (copied | ~there).all(axis=1, keepdims=True)
        labels = np.where(copied & ~lonely, NO_VOTE, codes)
        return _Found(near, labels, codes, vectors)

    def _predicted(self, pairs: FloatArray, found: _Found) -> Distributions:
        k = self.k
        return self._predictors.answer(
            fusion.fused(pairs),
            found.neighbours.similarities[:, :k],
            found.labels[:, :k],
            found.near[:, :k],
        )

    def _part(
        self, pairs: FloatArray, predicted: Distributions, where: str | None, weight: float
    ) -> list[Vote | None]:
        """The prediction from the picture alone (weight 1) or the text alone (0); None where
        missing."""
        middle = pairs.shape[1] // 2
        sides = slice(0, middle), slice(middle, None)
        half, rest = sides if weight else sides[::-1]
        given: NDArray[np.bool_] = np.any(pairs[:, half], axis=1)
        # For a query of one modality `predicted` holds it already.
        again = given & np.any(pairs[:, rest], axis=1)
        proba = predicted.hybrid.copy()
        if again.any():
            alone = pairs[again]
            alone[:, rest] = 0
            proba[again] = self._predicted(alone, self._search(alone, where, weight)).hybrid
        return [self._vote(p) if there else None for p, there in zip(proba, given, strict=True)]

    def _vote(self, proba: Float64Array) -> Vote:
        best = int(proba.argmax())
        return Vote(self.classes[best], float(proba[best]))

    def _names(self, order: IntArray, rank: int) -> list[str | None]:
        there = order.shape[1] > rank
        return [self.classes[codes[rank]] if there else None for codes in order]

    @cached_property
    def _members(self) -> dict[int, IntArray]:
        """Rows of each category."""
        order = np.argsort(self._row_codes, kind="stable")
        ends = np.cumsum(np.bincount(self._row_codes, minlength=len(self.classes)))
        return dict(enumerate(np.split(self._rows[order], ends[:-1])))

    def _novelty_p(self, pairs: FloatArray, found: _Found, where: str | None) -> list[float | None]:
        if self._novelty is None:
            return [None] * len(pairs)
        whole = found if where is None else self._search(pairs, None, 0.5)
        names = np.array([*self.classes, None], dtype=object)
        X = fusion.fused(pairs)
        near, categories = whole.near[:, :NEIGHBOURS], names[whole.codes[:, :NEIGHBOURS]]
        p = self._novelty.p_value(self._novelty.score(X, near, categories), X)
        return [None if np.isnan(value) else float(value) for value in p]

    def _prediction(
        self,
        query_id: str | None,
        predicted: Distributions,
        i: int,
        order: IntArray,
        parts: tuple[Vote | None, Vote | None],
        novelty_p: float | None,
        evidence: list[Evidence],
        members: NDArray[np.bool_] | None,
        levels: Levels | None,
        *,
        exhaustive: bool,
    ) -> Prediction:
        proba = predicted.hybrid[i]
        answer = self._vote(proba)
        probe, ridge, knn = (
            self._vote(own[i]) if own[i].any() else None
            for own in (predicted.probe, predicted.ridge, predicted.knn)
        )
        agreement = probe.category == knn.category if probe and knn else None
        now, arrived = self.snapshot, self._arrived(order[0])
        policy = self.probe.policy if self.probe else None
        return Prediction(
            id=query_id,
            category=answer.category,
            probability=answer.probability,
            verdict=verdict_of(
                answer, probe, knn, parts, novelty_p, policy, arrived=self._unsettled(order[0]),
                calibrated=self._calibrated, unsure_of_leaf=is_unsure(levels, policy),
            ),
            prediction_set=self._set(order, members),
            coverage=None if members is None else COVERAGE,
            probabilities={self.classes[code]: float(proba[code]) for code in order},
            probe=probe,
            probe_version=self.version,
            ridge=ridge,
            knn=knn,
            k=self.k,
            agreement=agreement,
            agreement_accuracy=self._track_record(agreement),
            is_new_category=arrived,
            novelty_p=novelty_p,
            image_only=parts[0],
            text_only=parts[1],
            neighbours=evidence,
            receipt=Receipt(now.generation, now.fingerprint, self.version, exhaustive),
            levels=levels,
        )  # fmt: skip

    def _set(self, order: IntArray, members: NDArray[np.bool_] | None) -> list[str]:
        """Most probable first; the answer itself even where the set is empty without it."""
        return [
            self.classes[code]
            for rank, code in enumerate(order)
            if rank == 0 or (members is not None and members[code])
        ]

    def _track_record(self, agreement: bool | None) -> TrackRecord | None:
        if self._held_out is None or agreement is None:
            return None
        alike = self._held_out.agree == agreement
        n = int(alike.sum())
        return TrackRecord(float(self._held_out.right[alike].mean()), n) if n else None


def classify(
    shelf: AnyShelf,
    query: Query | None = None,
    /,
    *,
    probe: int | None = None,
    **fields: Unpack[QueryFields],
) -> Prediction:
    """The category of a stored product, or of a picture, a text or both, with its evidence.

    Takes a `Query`, or its fields as keywords; `probe` is a version, the newest otherwise. Raises
    EmptyShelf, ProbeNotFound, ProductNotFound, FilterError, ImageRejected, InputError or
    EncoderError.

    >>> answer = classify(shelf, id="KS-0116")
    >>> answer.category in shelf.snapshot().view.categories(), 0 <= answer.probability <= 1
    (True, True)
    """
    asked = _checked(Query.of(query, fields))
    predictor = Predictor.for_shelf(shelf, probe=probe, at=asked.at, k=asked.k)
    if asked.id is not None:
        return predictor.predict_stored(asked.id, where=asked.where)
    return predictor.predict(queries.embed(shelf, asked), where=asked.where)[0]


def _checked(query: Query) -> Query:
    if others := query.beyond("image", "text", "id", "k", "where", "at", "allow_private_hosts"):
        value = getattr(query, others[0])
        raise InputError(
            f"{others[0]} is {value}: it is of `similar`, and `classify` weighs picture and text"
            " alike, so leave it out"
        )
    return query


def classify_source(
    shelf: AnyShelf,
    source: Path,
    options: AddOptions,
    query: Query | None = None,
    /,
    *,
    probe: int | None = None,
    **fields: Unpack[QueryFields],
) -> Iterator[tuple[queries.QueryBatch, list[Prediction]]]:
    """Classify every product of a file, a batch at a time; nothing is stored."""
    asked = _checked(queries.of_source(query, fields))
    predictor = Predictor.for_shelf(shelf, probe=probe, at=asked.at, k=asked.k)
    predictor.snapshot.filter(asked.where)  # a wrong one is refused before anything is encoded
    for batch in queries.embed_source(shelf, source, options):
        ids = [product.id for product in batch.products]
        found = predictor.predict(batch.pairs, where=asked.where, ids=ids) if ids else []
        yield batch, found
