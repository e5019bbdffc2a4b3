"""The first rows of a source, to see what its columns hold."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from itertools import islice
from typing import TYPE_CHECKING

from kinshelf.db.formats.source import BadRow
from kinshelf.db.layouts import guess
from kinshelf.db.layouts.names import ALIASES, EMBEDDINGS, key_of
from kinshelf.db.sources.values import first_member, text_of

if TYPE_CHECKING:
    from kinshelf.db.formats.source import RowSource

_ROWS = 500
_LONGEST = 1000
_CATEGORY = ALIASES["category"]
_VECTORS = frozenset(map(key_of, EMBEDDINGS))


class Sample:
    """The first 500 rows, which are read when they are first asked for; `given` is a mapping."""

    def __init__(self, source: RowSource, given: Mapping[str, str]) -> None:
        self._source, self._given = source, given

    @cached_property
    def _rows(self) -> list[dict[str, str]]:
        wanted = [name for name in self._source.columns if key_of(name) not in _VECTORS]
        rows = islice(self._source.rows(wanted), _ROWS)
        return [
            {name: first_member(text_of(cell).strip()[:_LONGEST]) for name, cell in row.items()}
            for row in rows
            if not isinstance(row, BadRow)
        ]

    def guess(self, fields: Mapping[str, str]) -> dict[str, str]:
        """Columns for the fields that have none: see `db.layouts.guess`."""
        if fields.keys() >= set(guess.FIELDS):
            return {}
        return guess.guessed(self._source.columns, self._rows, {*fields, *fields.values()})

    def mapping(self) -> dict[str, str]:
        """The given mapping; a category of names such as train and test is the split."""
        columns = {key_of(column): column for column in reversed(self._source.columns)}
        if {"split", "category"} & self._given.keys() or "split" in columns:
            return dict(self._given)
        named = next((columns[key] for key in _CATEGORY if key in columns), None)
        if named is None or named in self._given.values():
            return dict(self._given)
        rows = islice(self._source.rows([named]), _ROWS)
        texts = (text_of(row.get(named)).strip() for row in rows if not isinstance(row, BadRow))
        if not guess.is_split(filter(None, texts)):
            return dict(self._given)
        return {**self._given, "split": named}
