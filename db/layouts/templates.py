"""Templates such as "{brand} {name}": a value that is put together from columns."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

from kinshelf.db.errors import UnknownColumn
from kinshelf.db.layouts.names import key_of

_PLACE = re.compile(r"\{([^{}]+)\}")
_LEVEL = " > "
_JOINTS = {"category": _LEVEL, "image": ", ", "id": "-"}


@dataclass(frozen=True, slots=True)
class Template:
    """Text with columns in braces; of "{a|b}" the first that has a value is taken.

    A level of a path ("{a} > {b}") and a word whose column is empty are left out; where no column
    has a value, the result is empty.
    """

    text: str
    places: Mapping[str, tuple[str, ...]]

    @property
    def columns(self) -> list[str]:
        """The columns that it reads."""
        return [column for columns in self.places.values() for column in columns]

    def fill(self, row: Mapping[str, object], show: Callable[[object], str]) -> str:
        """The value for a row; `show` makes text of a cell."""
        values: dict[str, str] = {}
        for place, columns in self.places.items():
            values[place] = ""
            for column in columns:
                if cell := show(row.get(column)).strip():
                    values[place] = cell
                    break
        if not any(values.values()):
            return ""
        levels = _levels(self.text)
        filled = [
            # Every other piece is a place.
            " ".join("".join([values[p] if i % 2 else p for i, p in enumerate(one)]).split())
            for one in levels
        ]
        return " | ".join(filter(None, filled)) if len(levels) > 1 else filled[0]


@cache
def _levels(text: str) -> list[list[str]]:
    return [_PLACE.split(level) for level in text.split(_LEVEL)]


def joined(field: str, parts: Sequence[str]) -> str:
    """One text for several columns of a field: levels of a category, pictures, else words.

    >>> joined("category", ["Dept", "Group"]), joined("image", ["front", "images/{sku}_2.jpg"])
    ('{Dept} > {Group}', '{front}, images/{sku}_2.jpg')
    """
    if len(parts) == 1:
        return parts[0]
    places = [part if is_template(part) else f"{{{part}}}" for part in parts]
    return _JOINTS.get(field, " ").join(places)


def pictures_in(text: str) -> list[str]:
    """The columns and templates of a text such as "{front}, images/{sku}_2.jpg".

    >>> pictures_in("{front}, images/{sku}_2.jpg")
    ['front', 'images/{sku}_2.jpg']
    """
    parts = [part.strip() for part in re.split(r",(?![^{]*\})", text) if part.strip()]
    return [found[1] if (found := _PLACE.fullmatch(part)) else part for part in parts]


def is_template(text: str) -> bool:
    """Whether a text names columns in braces."""
    return _PLACE.search(text) is not None


def template_of(text: str, columns: Mapping[str, str]) -> Template | None:
    """The template over a source's columns (by `key_of`); None where one that it needs is not
    there."""
    places = {}
    for place in _PLACE.findall(text):
        found = tuple(columns[k] for name in place.split("|") if (k := key_of(name)) in columns)
        if not found:
            return None
        places[place] = found
    return Template(text, places)


def checked_template(field: str, text: str, columns: Mapping[str, str]) -> Template:
    """A user's template. Raises UnknownColumn."""
    found = template_of(text, columns)
    if found is None:
        raise UnknownColumn(
            f"--map {field}={text!r}: it names a column that is not there; the columns are"
            f" {', '.join(list(dict.fromkeys(columns.values()))[::-1])}"
        )
    return found
