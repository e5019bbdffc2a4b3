"""The operations of a shelf: one command each, however many generations its batches took."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kinshelf.db.errors import GenerationNotFound, InputError
from kinshelf.store.results import Rows

if TYPE_CHECKING:
    from kinshelf.store.base import AnyShelf

COUNTS = ("inserted", "updated", "removed", "rejected")
UNDO = "undo "
"""How the command of an operation begins that takes another back; its number follows."""
IN_PART = " in part"
"""How it ends where something was left, as it was changed since."""
CHANGES = ("add", "relabel", "keep", "remove", "amend", "predict", "undo", "prune")
"""Kinds of changes to products that can be taken back."""


def operations(shelf: AnyShelf, limit: int | None = None) -> Rows:
    """The operations, newest first.

    Each has its number `operation` (the generation of its first change), the `generation` that it
    ended with, `generations` (how many it took), `time`, `who`, `kind`, `command`, the counts of
    products, `kept` (whether it can be taken back and compared) and `undone_by`, the operation that
    took it back, or None.
    """
    grouped: dict[int, list[dict[str, Any]]] = {}
    for commit in shelf.history():
        grouped.setdefault(commit["operation"], []).append(commit)
    undone = _undone(grouped)
    oldest = min((c["generation"] for own in grouped.values() for c in own if c["kept"]), default=0)
    oldest = 0 if oldest <= 1 and _has_the_beginning(shelf) else oldest
    rows = [
        _row(number, commits, undone.get(number), oldest) for number, commits in grouped.items()
    ]
    return Rows(rows[:limit])


def _has_the_beginning(shelf: AnyShelf) -> bool:
    """Whether the empty shelf is kept, before the first operation."""
    try:
        shelf.snapshot(0)
    except GenerationNotFound:
        return False
    return True


def _row(
    number: int, commits: list[dict[str, Any]], undone_by: int | None, oldest: int
) -> dict[str, Any]:
    first, last = commits[-1], commits[0]
    commands = dict.fromkeys(commit["command"] for commit in reversed(commits))
    counts = {name: sum(commit[name] for commit in commits) for name in COUNTS}
    return {
        "operation": number, "generation": last["generation"], "generations": len(commits),
        "time": first["time"], "who": first["who"], "kind": first["kind"],
        "command": ", ".join(filter(None, commands)), **counts,
        "kept": number > oldest, "undone_by": undone_by,
    }  # fmt: skip


def _undone(grouped: dict[int, list[dict[str, Any]]]) -> dict[int, int]:
    """The operations that are taken back, and by which; one that was itself taken back does not
    count."""
    found: dict[int, int] = {}
    for number in sorted(grouped, reverse=True):
        if number not in found and (target := undone_in(grouped[number][0]["command"])):
            found[target] = number
    return found


def undone_in(command: str) -> int | None:
    """The operation that a command took back, None for another command."""
    digits = command.removeprefix(UNDO).removesuffix(IN_PART)
    return int(digits) if command.startswith(UNDO) and digits.isdigit() else None


def operation_of(shelf: AnyShelf, number: int | None) -> dict[str, Any]:
    """An operation; None: the newest that changed products, is not taken back and is no undo.
    Raises InputError if there is none."""
    every = operations(shelf)
    if number is None:
        open_ones = (
            o for o in every
            if o["kind"] in CHANGES and o["undone_by"] is None and not undone_in(o["command"])
        )  # fmt: skip
        if (found := next(open_ones, None)) is None:
            raise InputError("there is no operation to take back: `kinshelf history` lists them")
        return found
    for each in every:
        if each["operation"] == number:
            return each
        if each["operation"] < number <= each["generation"]:
            whole = f"operation {each['operation']} ({each['command']})"
            raise InputError(f"generation {number} is a part of {whole}: give that number")
    raise InputError(f"there is no operation {number}: `kinshelf history` lists them")
