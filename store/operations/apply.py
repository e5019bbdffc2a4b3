"""Predicted categories written to the shelf, each with what it was predicted by."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from kinshelf.store.ingest.candidate import Candidate, carry_over
from kinshelf.store.ingest.edit import frame_of
from kinshelf.store.ingest.merge import predict

if TYPE_CHECKING:
    from kinshelf.db.product import StoredProduct
    from kinshelf.store.base import AnyShelf

KIND = "predict"
_NO_LABEL = {None, "predicted"}


@dataclass(frozen=True, slots=True)
class Label:
    """A predicted category and its receipt (probe, probability, policy, generation); `row`: that of
    the product that it was predicted of, None: whatever it is by now."""

    category: str
    receipt: Mapping[str, Any]
    row: int | None = None


@dataclass(slots=True)
class ApplyReport:
    """How many products got their predicted category, how many have it already, and the ids of
    those left alone: a feed or a person set their category, or they were changed or removed since.
    """

    applied: int = 0
    unchanged: int = 0
    left: list[str] = field(default_factory=list)
    generation: int = 0

    def as_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return asdict(self)


def apply_labels(
    shelf: AnyShelf,
    labels: Mapping[str, Label],
    command: str = "classify --stored --apply accept",
) -> ApplyReport:
    """Give products, by id, the category that a probe predicts: all of them as one change, or none.

    A category that a feed or a person set stays, whatever is predicted.
    """
    report = ApplyReport()
    with shelf.writing():
        known = shelf.known(list(labels))
        changed = []
        for name, label in labels.items():
            stored = known.get(name)
            if stored is None or not _may_be_given(stored, label):
                report.left.append(name)
            elif stored.product.category == label.category:
                report.unchanged += 1
            else:
                changed.append(_predicted(stored, label))
        if changed:
            vectors = shelf.snapshot().pairs([c.old.row for c in changed if c.old])
            for candidate, pair in zip(changed, vectors, strict=True):
                carry_over(candidate, pair)
            shelf.commit(*frame_of(changed, shelf.next_row, KIND, command), vectors)
    report.applied, report.generation = len(changed), shelf.generation
    return report


def _may_be_given(stored: StoredProduct, label: Label) -> bool:
    return stored.origin("category") in _NO_LABEL and label.row in (None, stored.row)


def _predicted(stored: StoredProduct, label: Label) -> Candidate:
    product = stored.product.replace(category=label.category)
    decided = predict(stored, label.receipt)
    return Candidate(product, 0, "stored", old=stored, decided=decided)
