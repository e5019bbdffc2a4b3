"""Compiled subexpressions of a filter, and how they are put together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from kinshelf.db.filters.literals import NULL

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


@dataclass(frozen=True, slots=True)
class Part:
    """A compiled subexpression: its kind, its SQL, its normal spelling."""

    kind: str
    sql: str
    text: str


def joined(kind: str, symbol: str, parts: Sequence[Part]) -> Part:
    """Parts with an operator between each two."""
    sql, text = (f" {symbol} ".join(side) for side in _sides(parts))
    return Part(kind, f"({sql})", f"({text})")


def called(kind: str, name: str, parts: Sequence[Part]) -> Part:
    """A call with these arguments."""
    items = listed(parts)
    return Part(kind, f"{name}{items.sql}", f"{name}{items.text}")


def listed(parts: Sequence[Part]) -> Part:
    """Parts in brackets, with commas between."""
    sql, text = (", ".join(side) for side in _sides(parts))
    return Part(NULL, f"({sql})", f"({text})")


def _sides(parts: Iterable[Part]) -> tuple[list[str], list[str]]:
    parts = list(parts)
    return [part.sql for part in parts], [part.text for part in parts]
