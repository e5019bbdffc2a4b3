"""Rows with the pictures that a folder has by their ids."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from kinshelf.db.formats.by_id import PicturesById
from kinshelf.db.formats.source import BadRow
from kinshelf.db.layouts.cells import pictures_of

if TYPE_CHECKING:
    from kinshelf.db.formats.source import RowSource
    from kinshelf.db.sources.columns import ColumnPlan

BY_ID = "(pictures by id)"
"""The column that is made."""


class PicturedSource:
    """A source with one more column: each row's pictures by its id.

    Of an id without a picture in the folder these are the row's own, and without such the file
    FOLDER/ID.jpg, so that it is reported as missing.
    """

    def __init__(self, source: RowSource, folder: Path, plan: ColumnPlan) -> None:
        """List the folder. Raises SourceNotFound."""
        self.inner = source
        self.from_text = source.from_text
        self.notes: list[str] = getattr(source, "notes", [])
        self.columns: Sequence[str] = [*source.columns, BY_ID]
        self._plan = plan
        self._pictures = PicturesById(folder)
        self._pictures.keep_apart({plan.id_of(row) for row in self._ids()})

    @property
    def rows_read(self) -> int:
        """Rows of the file, where several may be one product."""
        return getattr(self.inner, "rows_read", 0)

    def count(self) -> int | None:
        """See `RowSource`."""
        return self.inner.count()

    def rows(
        self, wanted: Collection[str] | None = None
    ) -> Iterator[Mapping[str, object] | BadRow]:
        """Each row with its pictures as a list of paths and URLs."""
        own = [self._plan.fields[name] for name in ("id", "image") if name in self._plan.fields]
        for row in self.inner.rows(None if wanted is None else {*wanted, *own}):
            if isinstance(row, BadRow):
                yield row
                continue
            made = row if isinstance(row, dict) else dict(row)
            made[BY_ID] = self._of(row)
            yield made

    def _of(self, row: Mapping[str, object]) -> list[str]:
        name = self._plan.id_of(row)
        own = self._plan.fields.get("image")
        found = self._pictures.of(name) or pictures_of(row.get(own) if own else None)
        return found or [str(self._pictures.folder / f"{name or 'unnamed'}.jpg")]

    def _ids(self) -> Iterator[Mapping[str, object]]:
        for row in self.inner.rows({self._plan.fields["id"]}):
            if not isinstance(row, BadRow):
                yield row


def with_pictures_by_id(
    source: RowSource, folder: Path, plan: ColumnPlan
) -> tuple[PicturedSource, ColumnPlan]:
    """A source and its plan, whose picture is by id. Raises SourceNotFound."""
    fields = {**plan.fields, "image": BY_ID}
    return (
        PicturedSource(source, folder, plan),
        replace(plan, columns=(*plan.columns, BY_ID), fields=fields),
    )
