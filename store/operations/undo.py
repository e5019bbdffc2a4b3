"""An operation taken back as a new one: to the bit, and what later operations changed is left.

A field goes together with what is made of it: title, description and text embedding, picture, its
hash and its embedding.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from kinshelf.db.arrays import FloatArray
from kinshelf.db.errors import InputError
from kinshelf.store.ingest.candidate import Candidate, carry_over, pairs_of
from kinshelf.store.ingest.merge import flat, of_values
from kinshelf.store.log import records
from kinshelf.store.operations.diff import Change, between
from kinshelf.store.operations.history import CHANGES, IN_PART, UNDO, operation_of
from kinshelf.store.search import fusion

if TYPE_CHECKING:
    from kinshelf.db.catalog.records import Body, Head, RejectRecord
    from kinshelf.db.product import Decisions, Product, StoredProduct
    from kinshelf.store.base import AnyShelf
    from kinshelf.store.generation import AnySnapshot

KIND = "undo"
_TEXT = ("title", "description", "has_text", "text_embedding")
_IMAGE = ("image", "has_image", "image_hash", "image_error", "image_embedding")
_GROUP = dict.fromkeys(_TEXT, "text") | dict.fromkeys(_IMAGE, "image")


@dataclass(slots=True)
class UndoReport:
    """What was taken back of an operation, by its number and command: products removed again,
    restored, and changed back; `left` are the fields that a later operation changed too, by id,
    with "product" for one that came or went."""

    operation: int
    command: str
    removed: int = 0
    restored: int = 0
    changed: int = 0
    left: dict[str, list[str]] = field(default_factory=dict)
    generation: int = 0

    def as_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return asdict(self)


@dataclass(slots=True)
class Kept:
    """A product as it was, on its way back with what was computed of it then: a `records.Row`."""

    product: Product
    image: FloatArray | None
    text: FloatArray | None
    content_hash: str
    image_hash: str | None
    image_error: str | None
    decided: Decisions

    @classmethod
    def of(cls, stored: StoredProduct, pair: FloatArray) -> Kept:
        """A stored product; `pair` (2 * d,) float32."""
        image, text = (half[0] for half in fusion.split(pair[None]))
        return cls(
            stored.product, image if stored.has_image else None, text if stored.has_text else None,
            stored.content_hash, stored.image_hash, stored.image_error, dict(stored.decided),
        )  # fmt: skip


def undo(shelf: AnyShelf, number: int | None = None, *, partly: bool = True) -> UndoReport:
    """Take an operation back, None: the newest that is not taken back; an undo can be named too.

    One change, whole or not at all. Where later operations changed the same fields, these are left
    and reported; without `partly` they are an error. Raises InputError, or GenerationNotFound where
    the state before is not kept.
    """
    with shelf.writing():
        wanted = operation_of(shelf, number)
        first, last = wanted["operation"], wanted["generation"]
        if wanted["kind"] not in CHANGES:
            raise InputError(
                f"operation {first} ({wanted['command']}) changed no products: there is nothing to"
                " take back"
            )
        states = shelf.snapshot(first - 1), shelf.snapshot(last), shelf.snapshot()
        report = _Undoing(UndoReport(first, wanted["command"]), *states)
        report.take_back()
        if not partly and (left := next(iter(report.report.left), None)) is not None:
            raise InputError(f"operation {first} cannot be undone: {left!r} was changed since")
        _check(report, wanted, shelf.snapshot().count, named=number is not None)
        shelf.commit(*report.frame(shelf.next_row))
        report.report.generation = shelf.generation
    return report.report


def _check(undoing: _Undoing, wanted: dict[str, Any], count: int, *, named: bool) -> None:
    """Raises InputError where nothing is left to take back, or all would go without being named."""
    number, report = wanted["operation"], undoing.report
    if not (undoing.gone or undoing.made or any(undoing.rejects)):
        by = wanted["undone_by"]
        why = (
            f"operation {by} took it back"
            if by
            else f"{next(iter(report.left), '')!r} was changed since"
        )
        raise InputError(f"nothing of operation {number} can be taken back: {why}")
    if not named and report.removed == count:
        raise InputError(
            f"operation {number} ({wanted['command']}) added every product that is there:"
            f" `kinshelf undo {number}` empties the shelf"
        )


@dataclass
class _Undoing:
    """Collects the rows that go and those that come, from the states before, after and now."""

    report: UndoReport
    before: AnySnapshot
    after: AnySnapshot
    now: AnySnapshot
    gone: list[int] = field(default_factory=list)
    made: list[Kept] = field(default_factory=list)

    def take_back(self) -> None:
        found = list(between(self.before, self.after))
        current = self.now.view.by_ids([change.id for change in found])
        later = {change.id: change for change in between(self.after, self.now)}
        for change in found:
            self._take_back(change, current.get(change.id), later.get(change.id))

    def _take_back(
        self, change: Change, current: StoredProduct | None, later: Change | None
    ) -> None:
        if later is not None and (change.kind != "changed" or later.kind != "changed"):
            self.report.left[change.id] = ["product"]
        elif change.before is None:
            if current is not None:
                self.gone.append(current.row)
                self.report.removed += 1
        elif current is None:
            self.made.append(Kept.of(change.before, self._pair(self.before, change.before)))
            self.report.restored += 1
        else:
            self._change_back(change, current, later)

    def _change_back(self, change: Change, current: StoredProduct, later: Change | None) -> None:
        assert change.before, "it was changed, so it was there before"
        pair = self._pair(self.before, change.before)
        if later is None:
            kept = Kept.of(change.before, pair)
        else:
            touched = {_unit(name) for name in later.fields}
            left = sorted({u for n in change.fields if (u := _unit(n)) in touched})
            units = {_unit(name) for name in change.fields} - set(left)
            if left:
                self.report.left[change.id] = left
            if not units:
                return
            kept = _mixed(change.before, pair, current, self._pair(self.now, current), units)
        self.gone.append(current.row)
        self.made.append(kept)
        self.report.changed += 1

    def _pair(self, state: AnySnapshot, stored: StoredProduct) -> FloatArray:
        found: FloatArray = state.pairs([stored.row])[0]
        return found

    @cached_property
    def rejects(self) -> tuple[list[RejectRecord], list[str]]:
        """The rejects that are open again, and the keys of those that it left."""
        states = (self.before, self.after, self.now)
        before, after, now = ({r["key"]: r for r in state.view.rejects()} for state in states)
        again = [r for key, r in before.items() if key not in after and key not in now]
        return again, [key for key in after if key not in before and key in now]

    def frame(self, first_row: int) -> tuple[Head, Body, FloatArray | None]:
        report = self.report
        command = f"{UNDO}{report.operation}{IN_PART if report.left else ''}"
        head: Head = {
            "kind": KIND, "command": command, "removed": self.gone,
            "counts": {
                "inserted": report.restored, "updated": report.changed,
                "removed": report.removed, "rejected": 0,
            },
        }  # fmt: skip
        again, settled = self.rejects
        body: Body = {"rejects": again, "resolved": settled}
        if not self.made:
            return head, body if again or settled else {}, None
        head["attributes"] = records.attribute_types(self.made)
        body["products"] = records.columns(self.made, first_row)
        return head, body, pairs_of(self.made, self.now.dimension)


def _unit(name: str) -> str:
    """What a field is taken back with."""
    name = name.removeprefix("origin.")
    return _GROUP.get(name, name)


def _mixed(
    then: StoredProduct, then_pair: FloatArray, now: StoredProduct, now_pair: FloatArray,
    units: set[str],
) -> Kept:  # fmt: skip
    """The product of now with some units as they were."""
    kept, old = Kept.of(now, now_pair), Kept.of(then, then_pair)
    values, before = flat(now.product), flat(then.product)
    for name in {n for n in (*values, *before) if _unit(n) in units}:
        values[name] = before.get(name)
    names = {n for n in (*kept.decided, *old.decided) if _unit(n) in units}
    kept.decided = {n: d for n, d in kept.decided.items() if n not in names}
    kept.decided |= {n: old.decided[n] for n in names & old.decided.keys()}
    kept.product = of_values(now.product.id, values)
    if "text" in units:
        kept.text = old.text
    if "image" in units:
        kept.image, kept.image_hash = old.image, old.image_hash
        kept.image_error = old.image_error
    candidate = Candidate(kept.product, 0, "stored", old=now, decided=kept.decided)
    carry_over(candidate, now_pair)
    supplied = candidate.content_hash == records.content_hash(
        kept.product, None, candidate.image, candidate.text, decided=kept.decided
    )
    parts = (None, kept.image, kept.text) if supplied else (kept.image_hash,)
    kept.content_hash = records.content_hash(kept.product, *parts, decided=kept.decided)
    return kept
