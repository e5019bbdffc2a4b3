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


@dataclass(slots=True)
class ApplyReport:
    """How many products got their predicted category, how many have it already, and the ids of
    those left alone, as a feed or a person set their category, or they are gone."""

    applied: int = 0
    unchanged: int = 0
    left: list[str] = field(default_factory=list)
    generation: int = 0

    def as_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return asdict(self)


def apply_labels(
    shelf: AnyShelf,
    labels: Mapping[str, tuple[str, Mapping[str, Any]]],
    command: str = "classify --stored --apply accept",
) -> ApplyReport:
    """Give products, by id, the category that a probe predicts, with a receipt (probe,
    probability, policy, generation): all of them as one change, or none.

    A category that a feed or a person set stays, whatever is predicted.
    """
    report = ApplyReport()
    with shelf.writing():
        known = shelf.known(list(labels))
        changed = []
        for name, (label, receipt) in labels.items():
            stored = known.get(name)
            if stored is None or stored.origin("category") not in _NO_LABEL:
                report.left.append(name)
            elif stored.product.category == label:
                report.unchanged += 1
            else:
                changed.append(_predicted(stored, label, receipt))
        if changed:
            vectors = shelf.snapshot().pairs([c.old.row for c in changed if c.old])
            for candidate, pair in zip(changed, vectors, strict=True):
                carry_over(candidate, pair)
            shelf.commit(*frame_of(changed, shelf.next_row, KIND, command), vectors)
    report.applied, report.generation = len(changed), shelf.generation
    return report


def _predicted(stored: StoredProduct, label: str, receipt: Mapping[str, Any]) -> Candidate:
    product = stored.product.replace(category=label)
    return Candidate(product, 0, "stored", old=stored, decided=predict(stored, receipt))
