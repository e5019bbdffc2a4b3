"""What people decide in a review: a product stays as it is, a decision is taken back."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kinshelf.db.errors import InputError
from kinshelf.store.ingest.candidate import Candidate, carry_over
from kinshelf.store.ingest.edit import frame_of
from kinshelf.store.ingest.merge import REVIEW, decide
from kinshelf.store.operations.history import operations, undone_in
from kinshelf.store.operations.undo import undo

if TYPE_CHECKING:
    from kinshelf.db.product import StoredProduct
    from kinshelf.store.base import AnyShelf

KINDS = ("relabel", "keep", "undo")
"""The kinds of change that are decisions, or may have taken one back."""


def keep(shelf: AnyShelf, product_id: str) -> int:
    """Decide that a product stays as it is: what is disputed of it is settled, and the review does
    not ask about it again until its source changes it. Returns the generation.

    Raises ProductNotFound.
    """
    with shelf.writing():
        old = shelf.snapshot().get(product_id)
        decided = decide(old, old.product) | {REVIEW: {"kept": old.product.category}}
        if decided != old.decided:
            pairs = shelf.snapshot().pairs([old.row])
            made = Candidate(old.product, 0, "stored", old=old, decided=decided)
            carry_over(made, pairs[0])
            shelf.commit(*frame_of([made], shelf.next_row, "keep"), pairs)
    return shelf.generation


def undo_decision(shelf: AnyShelf, generation: int) -> int:
    """Take back what one generation decided, all of it or nothing, as a new change.

    Returns its generation. Raises GenerationNotFound if the shelf keeps no rows of before, or
    InputError if the generation was no decision, or a product of it was changed since.
    """
    if not decided_in(shelf, generation)[1]:
        raise InputError(f"generation {generation} cannot be undone: it relabelled nothing")
    return undo(shelf, generation, partly=False).generation


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
    for each in operations(shelf):
        if each["kind"] in KINDS and not each["undone_by"] and not undone_in(each["command"]):
            generation: int = each["generation"]
            return generation
    return None
