"""Notices on a change: its result in a sentence, with an undo."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kinshelf.probe.predict.wording import leaf
from kinshelf.serve.pages.rendering import notice
from kinshelf.store.operations.decisions import decided_in, last_decision

if TYPE_CHECKING:
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


def undo_word(service: Service, generation: int, undone: int, kind: str) -> dict[str, Any]:
    """A message of a change taken back, which offers to take the one before it back too."""
    before = last_decision(service.shelf)
    fields = {"generation": str(before), "back": "/review", "kind": kind}
    undo = {"kind": kind, "fields": fields.items()} if before else None
    text = f"Generation {undone} is undone; the shelf is at generation {generation}."
    return notice(text, undo=undo)
