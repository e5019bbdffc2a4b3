"""The names that a filter may use, and the SQL that reads each."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kinshelf.db.errors import FilterError
from kinshelf.db.text import compatible

if TYPE_CHECKING:
    from collections.abc import Mapping

_CONVERSIONS = {
    "text": "{}",
    "number": "TRY_CAST({} AS DOUBLE)",
    "boolean": "TRY_CAST({} AS BOOLEAN)",
}

_LISTED = 30
EXTRACTED = "json_extract_string(p.attributes, ?)"
"""How an attribute is read, by its JSON pointer."""
PREDICTED_CATEGORY = "(((p.decided -> 'category') -> 'predicted') IS NOT NULL)"
_COMPUTED = {
    "category_source": f"(CASE WHEN {PREDICTED_CATEGORY} THEN 'predicted'"
    " WHEN (p.decided -> 'category') IS NOT NULL THEN 'person'"
    " WHEN p.category IS NOT NULL THEN 'feed' END)"
}
"""Columns that no table has, in SQL that DuckDB and PostgreSQL read alike."""


@dataclass(frozen=True, slots=True)
class Name:
    """A column or attribute as the catalogue spells it, its kind, and the SQL that reads it."""

    name: str
    kind: str
    sql: str
    parameters: tuple[str, ...] = ()


class Names:
    """Columns of the table `p` and keys of its JSON column, each with a kind."""

    def __init__(self, columns: Mapping[str, str], attributes: Mapping[str, str]) -> None:
        self._exact = {name: _column(name, kind) for name, kind in columns.items()}
        for name, kind in attributes.items():
            # A column's name finds the column: the attribute goes by the name that `add` gives it.
            shown = f"source_{name}" if name in columns else name
            self._exact.setdefault(shown, _attribute(name, kind))
        self._folded: dict[str, dict[str, Name]] = {}
        for name, meant in self._exact.items():
            self._folded.setdefault(_key(name), {})[name] = meant
        self._columns = frozenset(columns)

    def find(self, name: str) -> Name:
        """The column or attribute meant; FilterError if there is none, or several."""
        if name in self._exact:
            return self._exact[name]
        found = self._folded.get(_key(name), {})
        of_table = [each for each in found if each in self._columns]
        candidates = of_table or list(found)
        if len(candidates) == 1:
            return found[candidates[0]]
        if candidates:
            listed = " or ".join(quoted(each) for each in candidates)
            raise FilterError(f"`{name}` may be {listed}; write one of them exactly so")
        raise FilterError(self._unknown(name))

    def _unknown(self, name: str) -> str:
        near = difflib.get_close_matches(_key(name), self._folded, n=3)
        names = [each for folded in near for each in self._folded[folded]]
        meant = f"; did you mean {' or '.join(map(quoted, names))}?" if names else "."
        others = list(self._exact)[:_LISTED]
        more = " and others" if len(self._exact) > _LISTED else ""
        return (
            f"there is no column `{name[:60]}`{meant} The columns are {', '.join(others)}{more}. "
            f"A text stands in single quotes: '{name[:60]}'"
        )


def _key(name: str) -> str:
    return compatible(name).casefold()


def quoted(name: str) -> str:
    """An SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def _column(name: str, kind: str) -> Name:
    return Name(name, kind, _COMPUTED.get(name, f"p.{quoted(name)}"))


def _attribute(name: str, kind: str) -> Name:
    return Name(name, kind, _CONVERSIONS[kind].format(EXTRACTED), (pointer(name),))


def pointer(name: str) -> str:
    """The JSON pointer (RFC 6901) of an attribute: it reaches every key, `*` and the empty one
    included; DuckDB's own path syntax does not."""
    return "/" + name.replace("~", "~0").replace("/", "~1")
