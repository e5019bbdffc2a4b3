"""A condition that somebody typed: where it is wrong, and how one for a category is written."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from kinshelf.db.catalog.queries import FILTER_COLUMNS

if TYPE_CHECKING:
    from kinshelf.store.generation import AnySnapshot

_AT = re.compile(r"at character (\d+)")
_UP_TO = re.compile(r"up to character (\d+)")
_QUOTED = re.compile(r"`([^`]+)`")


def problem_of(where: str, message: str) -> dict[str, Any]:
    """A FilterError's message for a template: `start` and `end` of what is wrong in `where`, all
    of it where the message does not tell (`known` False)."""
    found = _place(where, message)
    start, end = found or (0, len(where))
    return {"message": message, "start": start, "end": end, "known": found is not None}


def _place(where: str, message: str) -> tuple[int, int] | None:
    quoted = _QUOTED.search(message)
    fragment = quoted[1].removesuffix("...") if quoted else ""
    if at := _AT.search(message):
        start = int(at[1]) - 1
        return start, min(start + max(len(fragment), 1), len(where))
    if up_to := _UP_TO.search(message):
        end = min(int(up_to[1]), len(where))
        return max(end - len(fragment), 0), end
    if not fragment:
        return None
    words = r"\s*".join(map(re.escape, re.findall(r"\w+|[^\w\s]", fragment)))
    seen = re.search(words, where, re.IGNORECASE)
    return seen.span() if seen else None


def column_names(now: AnySnapshot) -> list[str]:
    """The names that a condition may use."""
    return [*FILTER_COLUMNS, *now.view.attribute_types()]


def category_rows(categories: Mapping[str | None, int], limit: int) -> list[dict[str, Any]]:
    """The largest categories with the condition that shows their products."""
    most = max(categories.values(), default=1)
    return [
        {"name": name or "no category", "leaf": (name or "no category").rpartition(" | ")[2],
         "count": count, "share": count / most, "where": condition(name)}
        for name, count in list(categories.items())[:limit]
    ]  # fmt: skip


def condition(category: str | None) -> str:
    """The products of a category."""
    if category is None:
        return "category IS NULL"
    return "category = '" + category.replace("'", "''") + "'"


def known_categories(now: AnySnapshot) -> Sequence[str]:
    """All categories, by name."""
    return sorted(name for name in now.view.categories() if name is not None)


def footer(now: AnySnapshot, name: str) -> dict[str, Any]:
    """The shelf's figures in a page's foot."""
    return {"name": name, "generation": now.generation, "products": now.count}
