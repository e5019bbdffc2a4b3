"""The counts of a run over the shelf, and what it wrote."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kinshelf.probe.fill.stored import StoredAnswer
    from kinshelf.store.operations.apply import ApplyReport

VERDICTS = ("accept", "review", "conflict", "novel")


@dataclass(slots=True)
class StoredReport:
    """What was found: products by verdict, those of a category that would get another one
    (`would_change`), and what was written: `applied` to the shelf, `written` to a file."""

    products: int = 0
    verdicts: Counter[str] = field(default_factory=Counter)
    would_change: int = 0
    accepted: int = 0
    generation: int = 0
    probe: int | None = None
    policy: float | None = None
    applied: ApplyReport | None = None
    written: str | None = None

    def count(self, answer: StoredAnswer) -> None:
        """Take in one more answer; `accepted` are those that `--apply accept` would write."""
        self.products += 1
        self.verdicts[answer.verdict] += 1
        self.would_change += answer.category is not None and answer.changes
        self.accepted += answer.to_write

    def as_dict(self) -> dict[str, Any]:
        """For `--json`."""
        names = ("products", "would_change", "accepted", "generation", "probe", "policy", "written")
        found = {name: getattr(self, name) for name in names}
        verdicts = {name: self.verdicts[name] for name in VERDICTS}
        return found | {"verdicts": verdicts, "applied": self.applied and self.applied.as_dict()}
