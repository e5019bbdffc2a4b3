"""An answer of `classify`: values only, no computing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from kinshelf.store.results import Neighbour, fields_of


@dataclass(frozen=True, slots=True)
class Vote:
    """The most probable category of one predictor, and its probability."""

    category: str
    probability: float


@dataclass(frozen=True, slots=True)
class Levels:
    """The likeliest `path` from the top of the tree of categories down, and the deepest `answer`
    on it that is sure, None where none is."""

    path: list[Vote]
    answer: Vote | None

    @property
    def is_sure(self) -> bool:
        """Whether the path's end is the answer."""
        return self.answer is not None and self.answer == self.path[-1]


@dataclass(frozen=True, slots=True)
class Evidence:
    """A neighbour and its part in the answer: `supports`, `runner-up` or `other`.

    `duplicate_of`: the id of a nearer neighbour that is all but the same product.
    """

    neighbour: Neighbour
    role: str
    duplicate_of: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return {**self.neighbour.as_dict(), "role": self.role, "duplicate_of": self.duplicate_of}


@dataclass(frozen=True, slots=True)
class Receipt:
    """The inputs of an answer, so that it can be computed again."""

    generation: int
    fingerprint: str
    probe: int | None
    exhaustive: bool


@dataclass(frozen=True, slots=True)
class TrackRecord:
    """The accuracy on `n` held-out products, probe and neighbours agreeing (or not)
    as they do here."""

    accuracy: float
    n: int


@dataclass(frozen=True, slots=True)
class Prediction:
    """One answer; `as_dict` is the JSON contract of `classify`.

    `prediction_set` holds the true category with the chance `coverage`, most probable first, the
    answer always; `coverage` is None where no probe was calibrated. `ridge` is None without a
    probe, or with one that was trained before there was a ridge; `knn` and `agreement` where no
    neighbour voted.

    `levels` is None where no category stands under another (see `probe.calibrate.depth`).
    """

    id: str | None
    category: str
    probability: float
    verdict: str
    prediction_set: list[str]
    coverage: float | None
    probabilities: dict[str, float]
    probe: Vote | None
    probe_version: int | None
    knn: Vote | None
    k: int
    agreement: bool | None
    agreement_accuracy: TrackRecord | None
    is_new_category: bool
    novelty_p: float | None
    image_only: Vote | None
    text_only: Vote | None
    neighbours: list[Evidence]
    receipt: Receipt
    ridge: Vote | None = None
    levels: Levels | None = None

    @property
    def looked_at(self) -> int:
        """The number of neighbours."""
        return len(self.neighbours)

    def count_of(self, category: str) -> int:
        """The neighbours in a category."""
        return sum(e.neighbour.category == category for e in self.neighbours)

    def as_dict(self) -> dict[str, Any]:
        """For `--json`."""
        found = {
            "category": self.category,
            "probability": self.probability,
            "verdict": self.verdict,
            "path": self.levels and [fields_of(level) for level in self.levels.path],
            "answer": self.levels and self.levels.answer and fields_of(self.levels.answer),
            "prediction_set": self.prediction_set,
            "coverage": self.coverage,
            "probabilities": self.probabilities,
            "probe": self.probe and {"version": self.probe_version, **fields_of(self.probe)},
            "ridge": self.ridge and fields_of(self.ridge),
            "knn": self.knn and {**fields_of(self.knn), "k": self.k},
            "agreement": self.agreement,
            "agreement_accuracy": self.agreement_accuracy and fields_of(self.agreement_accuracy),
            "is_new_category": self.is_new_category,
            "novelty_p": self.novelty_p,
            "image_only": self.image_only and fields_of(self.image_only),
            "text_only": self.text_only and fields_of(self.text_only),
            "neighbours": [e.as_dict() for e in self.neighbours],
            "receipt": fields_of(self.receipt),
        }
        return found if self.id is None else {"id": self.id} | found
