"""Notices on a change: its result in a sentence, with an undo."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kinshelf.probe.predict.wording import leaf
from kinshelf.serve.pages.rendering import notice

if TYPE_CHECKING:
    from kinshelf.serve.service.service import Service

MOST_WAITS = 12
"""How often a change that found the shelf locked is tried again by itself."""


def generation_notice(
    service: Service, generation: int | None, back: str, kind: str | None = None
) -> dict[str, Any] | None:
    """A message of what a generation relabelled, None if it did not.

    `back`: where undoing leads to; `kind`: the part of the review queue that is open, None where
    another page is.
    """
    if generation is None or generation < 1:
        return None
    now = service.snapshot()
    changed = now.view.changed_in(generation, "relabel")
    if not changed:
        return None
    stored = now.view.by_rows(list(changed.values()))
    first = next(iter(stored.values())).product
    more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
    where = f"in {leaf(first.category)}" if first.category else "without a category"
    text = f"{first.title or first.id}{more}: now {where} (generation {generation})."
    fields = {"generation": str(generation), "back": back, "kind": kind or ""}
    return notice(text, undo={"kind": kind, "fields": fields.items()})


def kept_notice(title: str, product_id: str, kind: str) -> dict[str, Any]:
    """A message that a product stays as it is."""
    fields = {"kept": product_id, "kind": kind, "back": "/review"}
    return notice(
        f"{title or product_id}: kept as it is.", undo={"kind": kind, "fields": fields.items()}
    )


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


def undo_word(service: Service, generation: int, undone: int) -> dict[str, Any]:
    """A message of a change taken back."""
    return notice(f"Generation {undone} is undone; the shelf is at generation {generation}.")
