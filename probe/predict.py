"""Classify and explain: one distribution from probe and neighbours, with the neighbours."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from kinshelf.db.errors import EmptyShelf, ProbeNotFound
from kinshelf.probe.files import read_probe
from kinshelf.probe.hybrid import mix
from kinshelf.probe.knn import knn_distribution
from kinshelf.probe.model import Probe
from kinshelf.probe.settings import Calibration
from kinshelf.store import asking, fusion
from kinshelf.store.probes import find_probe
from kinshelf.store.report import Neighbour

if TYPE_CHECKING:
    from kinshelf.store import AddOptions, Shelf
    from kinshelf.store.snapshot import Neighbours, Snapshot

FloatArray = NDArray[np.float32]
Float64Array = NDArray[np.float64]
ACCEPT = 0.9
"""An answer of at least this probability is accepted while the shelf has no policy of its own."""
CONFIDENT = 0.6
"""Probe and neighbours conflict only if both are at least this sure of different categories."""


@dataclass(frozen=True, slots=True)
class Vote:
    """What one voice says: `source` tells which (the probe's version, or k)."""

    category: str
    probability: float


@dataclass(frozen=True, slots=True)
class Evidence:
    """A neighbour and its part in the answer: `supports`, `runner-up` or `other`."""

    neighbour: Neighbour
    role: str


@dataclass(frozen=True, slots=True)
class Receipt:
    """What an answer was computed from, so that it can be computed again."""

    generation: int
    fingerprint: str
    probe: int | None
    exhaustive: bool


@dataclass(frozen=True, slots=True)
class Prediction:
    """One answer; `as_dict` is the JSON contract of `classify`."""

    id: str | None
    category: str
    probability: float
    verdict: str
    prediction_set: list[str]
    probabilities: dict[str, float]
    probe: Vote | None
    probe_version: int | None
    knn: Vote
    k: int
    agreement: bool | None
    novelty_p: float | None
    image_only: Vote | None
    text_only: Vote | None
    neighbours: list[Evidence]
    receipt: Receipt

    def as_dict(self) -> dict[str, Any]:
        """For `--json`."""
        found = {
            "category": self.category,
            "probability": self.probability,
            "verdict": self.verdict,
            "prediction_set": self.prediction_set,
            "probabilities": self.probabilities,
            "probe": self.probe and {"version": self.probe_version, **asdict(self.probe)},
            "knn": {**asdict(self.knn), "k": self.k},
            "agreement": self.agreement,
            "novelty_p": self.novelty_p,
            "image_only": self.image_only and asdict(self.image_only),
            "text_only": self.text_only and asdict(self.text_only),
            "neighbours": [e.neighbour.as_dict() | {"role": e.role} for e in self.neighbours],
            "receipt": asdict(self.receipt),
        }
        return found if self.id is None else {"id": self.id} | found


class Predictor:
    """Answers queries from one generation of a shelf and one of its probes, if it has any."""

    def __init__(
        self, snapshot: Snapshot, probe: Probe | None, version: int | None, *, k: int | None = None
    ) -> None:
        self.snapshot = snapshot
        self.probe = probe
        self.version = version
        self.calibration = probe.calibration if probe else Calibration()
        self.k = k or self.calibration.k
        rows, categories = snapshot.labelled()
        if not len(rows):
            raise EmptyShelf(
                "no product on the shelf has a category, so there is nothing to answer from:"
                " add products with a category first"
            )
        seen = probe.classes if probe else ()
        self.classes = sorted(set(seen) | set(categories))
        self._place = {name: i for i, name in enumerate(self.classes)}
        self._seen = np.array([name in set(seen) for name in self.classes], dtype=np.bool_)
        # Row number → class, so that votes need no catalogue.
        self._codes = dict(zip(rows.tolist(), (self._place[c] for c in categories), strict=True))

    @classmethod
    def for_shelf(
        cls, shelf: Shelf, *, probe: int | None = None, at: int | None = None, k: int | None = None
    ) -> Self:
        """The newest probe unless a version is named; neighbours alone if there is none.

        Raises ProbeNotFound for a version that is not there, EmptyShelf, GenerationNotFound.
        """
        snapshot = shelf.snapshot(at)
        try:
            entry = find_probe(shelf, snapshot, probe)
        except ProbeNotFound:
            if probe is not None:
                raise
            return cls(snapshot, None, None, k=k)
        return cls(snapshot, read_probe(entry.path), entry.version, k=k)

    def predict(
        self, halves: FloatArray, *, where: str | None = None, ids: list[str] | None = None
    ) -> list[Prediction]:
        """One answer a query; `halves` are (n, 2 * dimension) float32 as `asking.embed` gives.

        `where` narrows the neighbours that vote and are shown.
        """
        found = self._neighbours(halves, where, 0.5)
        p_knn = self._votes(found)
        p_probe = self._probe_proba(halves)
        if p_probe is None and not p_knn.any(axis=1).all():
            raise EmptyShelf(
                f"no categorised product matches {where!r}: widen --where, or train a probe"
            )
        proba = self._mixed(p_probe, p_knn)
        evidence = asking.neighbours(self.snapshot, found)
        parts = [self._part(halves, where, weight) for weight in (1.0, 0.0)]
        return [
            self._prediction(
                None if ids is None else ids[i],
                proba[i],
                None if p_probe is None else p_probe[i],
                p_knn[i],
                (parts[0][i], parts[1][i]),
                evidence[i],
                exhaustive=found.exhaustive,
            )
            for i in range(len(halves))
        ]

    def _neighbours(self, halves: FloatArray, where: str | None, weight: float) -> Neighbours:
        return self.snapshot.kneighbors(
            halves, self.k, where=where, labelled_only=True, weight_image=weight
        )

    def _votes(self, found: Neighbours) -> Float64Array:
        labels = np.array(
            [[self._codes.get(int(row), -1) for row in rows] for rows in found.rows], dtype=np.int64
        )
        return knn_distribution(found.similarities, labels, self.calibration.tau, len(self.classes))

    def _probe_proba(self, halves: FloatArray) -> Float64Array | None:
        """The probe's distribution over all classes, (n, n_classes); 0 for those it never saw."""
        if self.probe is None:
            return None
        proba = np.zeros((len(halves), len(self.classes)))
        proba[:, self._seen] = self.probe.predict_proba(fusion.fused(halves))
        return proba

    def _mixed(self, p_probe: Float64Array | None, p_knn: Float64Array) -> Float64Array:
        if p_probe is None:
            return p_knn
        return mix(p_probe, p_knn, self._seen, self.calibration.lam)

    def _part(self, halves: FloatArray, where: str | None, weight: float) -> list[Vote | None]:
        """What the picture (weight 1) or the text (0) says alone; None where it is missing."""
        dimension = halves.shape[1] // 2
        alone = np.zeros_like(halves)
        half = slice(0, dimension) if weight else slice(dimension, None)
        alone[:, half] = halves[:, half]
        p_knn = self._votes(self._neighbours(alone, where, weight))
        p_probe = self._probe_proba(alone)
        proba = self._mixed(p_probe, p_knn)
        given: NDArray[np.bool_] = np.any(halves[:, half], axis=1)
        return [self._vote(p) if there else None for p, there in zip(proba, given, strict=True)]

    def _vote(self, proba: Float64Array) -> Vote:
        best = int(proba.argmax())
        return Vote(self.classes[best], float(proba[best]))

    def _prediction(
        self,
        query_id: str | None,
        proba: Float64Array,
        p_probe: Float64Array | None,
        p_knn: Float64Array,
        parts: tuple[Vote | None, Vote | None],
        evidence: list[Neighbour],
        *,
        exhaustive: bool,
    ) -> Prediction:
        order = np.argsort(-proba, kind="stable")
        best, second = self.classes[order[0]], self.classes[order[1]] if len(order) > 1 else None
        probe, knn = None if p_probe is None else self._vote(p_probe), self._vote(p_knn)
        receipt = Receipt(
            self.snapshot.generation, self.snapshot.fingerprint, self.version, exhaustive
        )
        return Prediction(
            id=query_id,
            category=best,
            probability=float(proba[order[0]]),
            verdict=_verdict(float(proba[order[0]]), probe, knn),
            prediction_set=[best],
            probabilities={self.classes[i]: float(proba[i]) for i in order},
            probe=probe,
            probe_version=self.version,
            knn=knn,
            k=self.k,
            agreement=None if probe is None else probe.category == knn.category,
            novelty_p=None,
            image_only=parts[0],
            text_only=parts[1],
            neighbours=[Evidence(n, _role(n.category, best, second)) for n in evidence],
            receipt=receipt,
        )


def _role(category: str | None, best: str, second: str | None) -> str:
    if category == best:
        return "supports"
    return "runner-up" if category == second else "other"


def _verdict(probability: float, probe: Vote | None, knn: Vote) -> str:
    if probe is not None and probe.category != knn.category:
        if min(probe.probability, knn.probability) >= CONFIDENT:
            return "conflict"
        return "review"
    return "accept" if probability >= ACCEPT else "review"


def classify(
    shelf: Shelf,
    *,
    image: str | None = None,
    text: str | None = None,
    k: int | None = None,
    where: str | None = None,
    probe: int | None = None,
    at: int | None = None,
    allow_private_hosts: bool = False,
) -> Prediction:
    """The category of a picture, a text or both, with its evidence.

    Raises EmptyShelf, ProbeNotFound, FilterError, ImageRejected, InputError or EncoderError.
    """
    predictor = Predictor.for_shelf(shelf, probe=probe, at=at, k=k)
    halves = asking.embed(shelf, image, text, allow_private_hosts=allow_private_hosts)
    return predictor.predict(halves, where=where)[0]


def classify_source(
    shelf: Shelf,
    source: Path,
    options: AddOptions,
    *,
    k: int | None = None,
    where: str | None = None,
    probe: int | None = None,
    at: int | None = None,
) -> Iterator[tuple[asking.QueryBatch, list[Prediction]]]:
    """As `classify` for every product of a file, a batch at a time; nothing is stored."""
    predictor = Predictor.for_shelf(shelf, probe=probe, at=at, k=k)
    for batch in asking.embed_source(shelf, source, options):
        ids = [product.id for product in batch.products]
        found = predictor.predict(batch.halves, where=where, ids=ids) if ids else []
        yield batch, found
