"""What adding a source would make of it, without a shelf, and the mapping that says so."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from kinshelf.db.layouts.choose import PICTURES, variant_columns
from kinshelf.db.layouts.saved import SavedMapping
from kinshelf.db.sources.by_id import BY_ID
from kinshelf.db.sources.readers import open_source, read_planned, reading_notes
from kinshelf.db.sources.summary import Tally

if TYPE_CHECKING:
    from pathlib import Path

    from kinshelf.db.product import Product, Reject
    from kinshelf.db.sources.batches import ReadOptions
    from kinshelf.db.sources.columns import ColumnPlan

_MOST = 10_000
"""Rows that are read for a preview."""


@dataclass(slots=True)
class Preview:
    """The first products of a source as they would be, and what became of its columns and rows.

    `fields` are the columns or templates of the fields, `ignored` the columns that are kept
    nowhere, `proposed` those that may be fields; `reasons` counts rows that were left out or
    mended, with an example each. `whole`: every row was read.
    """

    products: list[Product] = field(default_factory=list)
    fields: dict[str, str] = field(default_factory=dict)
    ignored: list[str] = field(default_factory=list)
    proposed: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    reasons: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)
    read: int = 0
    rejected: int = 0
    whole: bool = True

    def as_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return asdict(self) | {"reasons": dict(self.reasons)}

    def note(self, reject: Reject) -> None:
        """Count a reject and keep the first message of each reason."""
        self.rejected += not reject.kept
        self.reasons[reject.reason] += 1
        self.examples.setdefault(reject.reason, reject.message)


def preview(path: Path, options: ReadOptions, shown: int = 5) -> Preview:
    """Read the first 10,000 rows of a source; `shown` products are kept.

    Raises what `read_source` raises.
    """
    opened = source, plan = open_source(path, options)
    tally, found = Tally(source, plan), Preview(proposed=dict(plan.proposed))
    for batch in tally.counted(read_planned(*opened, path, options)):
        found.products += batch.products[: shown - len(found.products)]
        for reject in batch.rejects:
            found.note(reject)
        found.read = tally.products + tally.others
        if found.read >= _MOST:
            found.whole = False
            break
    found.fields = {name: _origin(column, plan) for name, column in plan.fields.items()}
    found.ignored = [c for c in plan.columns if c in plan.choice.hidden and not _is_used(c, plan)]
    found.notes = reading_notes(source) + plan.notes() + tally.lines()
    return found


def used_mapping(path: Path, options: ReadOptions) -> SavedMapping:
    """How a source is read, to be saved: what names and the user's options made its fields.

    What its layout states is not in it. Raises what `read_source` raises.
    """
    _, plan = open_source(path, options)
    made = {*plan.choice.made, BY_ID}
    own = {
        name: column
        for name, column in plan.fields.items()
        if name not in plan.choice.fields and column not in made
    }
    names = ("delimiter", "encoding", "skip_rows", "sheet", "images", "image_by_id")
    return SavedMapping(own | dict(options.mapping), {n: getattr(options, n) for n in names})


def _origin(column: str, plan: ColumnPlan) -> str:
    """The columns of a field, where it is made of several."""
    return ", ".join(plan.choice.pictures) if column == PICTURES else column


def _is_used(column: str, plan: ColumnPlan) -> bool:
    """Whether a hidden column is in a field, or among the variants."""
    choice = plan.choice
    used = {name for one in choice.templates.values() for name in one.columns}
    used.update(choice.pictures)
    if choice.gathers and choice.layout:
        used.update(variant_columns(plan.columns, choice.layout))
    return column in used
