"""Notices on a change: its result in a sentence, with an undo."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from kinshelf.probe.predict.wording import leaf
from kinshelf.serve.base.errors import for_people, message_of, status_of
from kinshelf.serve.pages.rendering import notice, page
from kinshelf.store.operations.decisions import decided_in, last_decision
from kinshelf.store.operations.history import CHANGES, operations, undone_in

if TYPE_CHECKING:
    from fastapi import Request, Response

    from kinshelf.db.errors import ShelfLocked
    from kinshelf.serve.service.service import Service

MOST_WAITS = 12
"""How often a change that found the shelf locked is tried again by itself."""


def generation_notice(
    service: Service, generation: int | None, back: str, kind: str | None = None
) -> dict[str, Any] | None:
    """A message of what a generation decided, None if it did not.

    `back`: where undoing leads to; `kind`: the part of the review queue that is open, None where
    another page is.
    """
    if generation is None or generation < 1:
        return None
    decision, changed = decided_in(service.shelf, generation)
    if not changed:
        return None
    first = next(iter(changed.values())).product
    more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
    where = f"now in {leaf(first.category)}" if first.category else "now without a category"
    what = "kept as it is" if decision == "keep" else where
    text = f"{first.title or first.id}{more}: {what} (generation {generation})."
    fields = {"generation": str(generation), "back": back, "kind": kind or ""}
    return notice(text, undo={"kind": kind, "fields": fields.items()})


def operation_notice(service: Service, number: int | None, back: str) -> dict[str, Any] | None:
    """A message of what an operation did, with an undo that leads to `back`; None if it did not."""
    if not number:
        return None
    found = next((o for o in operations(service.shelf) if o["operation"] == number), None)
    if found is None or found["kind"] not in CHANGES:
        return None
    fields = {"operation": str(number), "back": back}
    may = found["kept"] and found["undone_by"] is None
    undo = {"action": "/changes/undo", "kind": "", "fields": fields.items()} if may else None
    return notice(f"{summary(found)}.", undo=undo)


_DID = {
    "add": "added", "relabel": "put into another category", "keep": "kept as they are",
    "remove": "removed", "amend": "changed", "predict": "given their predicted category",
    "prune": "removed",
}  # fmt: skip


def summary(operation: Mapping[str, Any]) -> str:
    """What an operation did, in a few words."""
    if (number := undone_in(operation["command"])) is not None:
        return f"Operation {number} is taken back"
    kind = operation["kind"]
    count = operation["removed" if kind in ("remove", "prune") else "updated"]
    if kind == "add":
        count += operation["inserted"]
    return f"{count:,} {'product' if count == 1 else 'products'} {_DID.get(kind, kind)}"


def new_category_notice(
    message: str, near: list[str], fields: dict[str, str], target: str, swap: str
) -> dict[str, Any]:
    """A question: one of the categories that look like what was typed, or a new one?"""
    others = {name: value for name, value in fields.items() if name not in ("category", "new")}
    return {
        "text": message, "near": near, "typed": fields["category"], "fields": others.items(),
        "target": target, "swap": swap,
    }  # fmt: skip


def locked_notice(
    message: str, action: str, fields: dict[str, str], *, target: str, swap: str
) -> dict[str, Any]:
    """A message of who holds the shelf, which tries again by itself, ever less often."""
    tried = int(fields.get("tried") or 0)
    wait = min(2**tried, 8) if tried < MOST_WAITS else 0
    fields = fields | {"tried": str(tried + 1)}
    return {
        "text": message, "retry": action, "fields": fields.items(), "target": target,
        "swap": swap, "wait": wait,
    }  # fmt: skip


def locked_page(
    request: Request, error: ShelfLocked, action: str, fields: Iterable[tuple[str, str]]
) -> Response:
    """A page that states who holds the shelf, with the form again."""
    message = for_people(message_of(error))
    found = {
        "text": message, "retry": action, "fields": fields, "target": "body", "swap": "outerHTML",
        "wait": 0,
    }  # fmt: skip
    status, wait = status_of(error)
    answer = page(
        request, "problem.html", status=status, heading="The shelf is being written",
        message=message, notice=found,
    )  # fmt: skip
    answer.headers["Retry-After"] = str(wait)
    return answer


def undo_word(service: Service, generation: int, undone: int, kind: str) -> dict[str, Any]:
    """A message of a change taken back, which offers to take the one before it back too."""
    before = last_decision(service.shelf)
    fields = {"generation": str(before), "back": "/review", "kind": kind}
    undo = {"kind": kind, "fields": fields.items()} if before else None
    text = f"Generation {undone} is undone; the shelf is at generation {generation}."
    return notice(text, undo=undo)
