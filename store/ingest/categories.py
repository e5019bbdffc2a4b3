"""Categories that a correction would make, and those that it may have meant."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from typing import TYPE_CHECKING

from kinshelf.db.errors import UnknownCategory
from kinshelf.db.text import clean_category

if TYPE_CHECKING:
    from kinshelf.store.base import AnyShelf

_NEAR = 3
_ALIKE = 0.75
"""Of `difflib`: "Bord Gmaes" and "Board Games" are 0.86 alike."""


def new_categories(shelf: AnyShelf, names: Iterable[str | None]) -> dict[str, list[str]]:
    """Those of `names` that no product has, each with the categories that look like it, the most
    alike first. The last part of a path may stand for all of it."""
    known = [name for name in shelf.snapshot().view.categories() if name is not None]
    cleaned = dict.fromkeys(clean_category(name or "") for name in names)
    return {name: _near(name, known) for name in cleaned if name and name not in known}


def check_category(shelf: AnyShelf, name: str) -> None:
    """Raises UnknownCategory, which names those that look like it, if no product has it."""
    for new, near in new_categories(shelf, [name]).items():
        raise UnknownCategory(f"no product has the category {new!r} yet{did_you_mean(near)}", near)


def did_you_mean(near: list[str]) -> str:
    """The end of a sentence."""
    return f" (did you mean {', '.join(map(repr, near))}?)" if near else ""


def _near(name: str, known: list[str]) -> list[str]:
    by_key = {key: full for full in known for key in (_leaf(full), full.casefold())}
    found = get_close_matches(name.casefold(), by_key, n=_NEAR, cutoff=_ALIKE)
    found += get_close_matches(_leaf(name), by_key, n=_NEAR, cutoff=_ALIKE)
    return list(dict.fromkeys(by_key[key] for key in found))[:_NEAR]


def _leaf(name: str) -> str:
    return name.rpartition(" | ")[2].casefold()
