"""What people decide in a review: a product stays as it is, a decision is taken back."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kinshelf.db.errors import InputError
from kinshelf.store.ingest.candidate import Candidate, carry_over
from kinshelf.store.ingest.edit import frame_of
from kinshelf.store.ingest.merge import REVIEW, decide

if TYPE_CHECKING:
    from kinshelf.db.product import Decisions, StoredProduct
    from kinshelf.store.base import AnyShelf

KINDS = ("relabel", "keep")
"""The kinds of change that are decisions."""
_UNDO = "undo "


def keep(shelf: AnyShelf, product_id: str) -> int:
    """Decide that a product stays as it is: what is disputed of it is settled, and the review does
    not ask about it again until its source changes it. Returns the generation.

    Raises ProductNotFound.
    """
    with shelf.writing():
        old = shelf.snapshot().get(product_id)
        decided = decide(old, old.product) | {REVIEW: {"kept": old.product.category}}
        if decided != old.decided:
            _commit(shelf, [_with(shelf, old, old.product.category, decided)], "keep", "keep")
    return shelf.generation


def undo_decision(shelf: AnyShelf, generation: int) -> int:
    """Take back what one generation decided, as a new change.

    Returns its generation. Raises GenerationNotFound if the shelf keeps no rows of before, or
    InputError if the generation was no decision, or a product of it was changed since.
    """
    with shelf.writing():
        now, before = shelf.snapshot(), shelf.snapshot(generation - 1)
        kind, changed = decided_in(shelf, generation)
        then = before.view.by_ids(list(changed))
        moved = [s for s in changed.values() if _differs(s, then[s.product.id])]
        current = now.view.by_ids(list(changed))
        later = [s.product.id for s in moved if _differs(s, current.get(s.product.id))]
        if later or not moved:
            why = f"{later[0]!r} was changed since" if later else "it relabelled nothing"
            raise InputError(f"generation {generation} cannot be undone: {why}")
        back = [then[s.product.id] for s in moved]
        made = [
            _with(shelf, current[old.product.id], old.product.category, old.decided) for old in back
        ]
        _commit(shelf, made, kind, f"{_UNDO}{generation}")
    return shelf.generation


def decided_in(shelf: AnyShelf, generation: int) -> tuple[str, dict[str, StoredProduct]]:
    """The kind of a decision, "" if it was none, and the products by id as it left them."""
    view = shelf.snapshot().view
    for kind in KINDS:
        if rows := view.changed_in(generation, kind):
            found = view.by_rows(list(rows.values()))
            return kind, {stored.product.id: stored for stored in found.values()}
    return "", {}


def last_decision(shelf: AnyShelf) -> int | None:
    """The generation of the newest decision that was not taken back, None where there is none."""
    undone = set[int]()
    for commit in shelf.snapshot().view.commits():
        generation, command = commit["generation"], commit["command"] or ""
        if command.startswith(_UNDO):
            undone.add(int(command.removeprefix(_UNDO)))
        elif commit["kind"] in KINDS and generation not in undone:
            return generation
    return None


def _differs(one: StoredProduct, other: StoredProduct | None) -> bool:
    if other is None:
        return True
    return one.product.category != other.product.category or one.decided != other.decided


def _with(
    shelf: AnyShelf, stored: StoredProduct, category: str | None, decided: Decisions
) -> Candidate:
    product = stored.product.replace(category=category)
    made = Candidate(product, 0, "stored", old=stored, decided=decided)
    carry_over(made, shelf.snapshot().pairs([stored.row])[0])
    return made


def _commit(shelf: AnyShelf, made: list[Candidate], kind: str, command: str) -> None:
    vectors = shelf.snapshot().pairs([c.old.row for c in made if c.old])
    shelf.commit(*frame_of(made, shelf.next_row, kind, command), vectors)
