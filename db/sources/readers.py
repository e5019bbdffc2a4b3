"""Read products from a CSV, TSV, Parquet or JSON Lines file, or from a folder."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from kinshelf.db.errors import EmptySource, InputError, SourceNotFound, UnknownColumn
from kinshelf.db.formats.folder import FolderSource
from kinshelf.db.formats.open import FormatOptions, open_file
from kinshelf.db.formats.parquet import ParquetSource
from kinshelf.db.layouts.known import layout_of
from kinshelf.db.layouts.names import KNOWN_KEYS, key_of
from kinshelf.db.sources.batches import Assembler, ReadBatch, ReadOptions
from kinshelf.db.sources.by_id import with_pictures_by_id
from kinshelf.db.sources.columns import ColumnPlan, resolve_columns
from kinshelf.db.sources.parts import PartsSource, parts_of
from kinshelf.db.sources.sample import Sample
from kinshelf.db.sources.shape import ShapedSource, filled_columns
from kinshelf.db.sources.summary import with_price_notation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kinshelf.db.formats.source import RowSource

__all__ = [
    "Opened",
    "ReadBatch",
    "ReadOptions",
    "count_rows",
    "exact_rows",
    "open_rows",
    "open_source",
    "read_planned",
    "read_source",
    "reading_notes",
    "source_columns",
]

_DEFAULTS = ReadOptions()
_TITLE_ROWS = 10
"""Rows among which a header is looked for where the first is none."""

Opened: TypeAlias = "tuple[RowSource, ColumnPlan]"
"""A source that was looked at, and what its columns are; it can be read more than once."""


def read_source(path: Path | str, options: ReadOptions = _DEFAULTS) -> Iterator[ReadBatch]:
    """The products of a source, as batches in the source's order, never all of it in memory.

    The format goes by the suffix (see `db.formats.open`); a folder gives its pictures (see
    `db.formats.folder`) or, if `kinshelf encode` wrote it, its products with their embeddings (see
    `db.sources.parts`). Rows that cannot be used are in the batches' `rejects`.
    The checks that need no more than a file's beginning are done at once.

    Raises:
        SourceNotFound: there is nothing at `path`, or no folder at `options.images`.
        EmptySource: it holds no rows (a file with nothing but a header: while reading).
        UnreadableSource: unknown suffix, not UTF-8, wrong delimiter, damaged (also while reading).
        UnknownColumn: a mapped or needed column is not there.
    """
    source, plan = open_source(path, options)
    return read_planned(source, plan, path, options)


def source_columns(path: Path | str, options: ReadOptions = _DEFAULTS) -> list[str]:
    """The column names of a source; of a JSON Lines file the keys of its first 1,000 rows.

    Raises what `read_source` raises, but for UnknownColumn.
    """
    return list(_open(Path(path), options).columns)


def count_rows(path: Path | str, options: ReadOptions = _DEFAULTS) -> int | None:
    """Count the rows of a source for a progress bar: exact or extrapolated, None if unknown.

    Raises what `read_source` raises, but for UnknownColumn.
    """
    return _open(Path(path), options).count()


def exact_rows(source: RowSource) -> int:
    """How many data rows a source has: as the file states it, or else counted by reading it."""
    if isinstance(source, ParquetSource | PartsSource):
        return source.count()
    if isinstance(source, ShapedSource) and not source.gathers:
        source = source.inner
    return sum(1 for _ in source.rows(()))


def open_rows(path: Path | str, options: ReadOptions = _DEFAULTS) -> RowSource:
    """The rows of a source, whatever its columns mean. Raises as `source_columns`."""
    return _open(Path(path), options)


def open_source(path: Path | str, options: ReadOptions) -> Opened:
    """A source and what its columns are; raises as `read_source`."""
    path = Path(path)
    if options.images is not None and not options.images.is_dir():
        raise SourceNotFound(f"there is no folder of images at {options.images}")
    if options.batch_size < 1:
        raise InputError(f"batch_size is {options.batch_size}, but must be 1 or more")
    source = _open(path, options)
    try:
        plan = _planned(source, path, options)
    except UnknownColumn:
        if next(iter(source.rows()), None) is None:
            raise EmptySource(f"{path} has a header but no rows") from None
        if not (rows := _rows_above(path, options)):
            raise
        raise UnknownColumn(
            f"{path}: what stands above its header is no product: give --skip-rows {rows}"
        ) from None
    if plan.choice.shapes:
        choice = plan.choice
        source = ShapedSource(source, choice.layout, choice.templates, choice.pictures)
    plan = with_price_notation(source, plan)
    if options.image_by_id is None or isinstance(source, PartsSource):
        return source, plan
    return with_pictures_by_id(source, options.image_by_id, plan)


def _planned(source: RowSource, path: Path, options: ReadOptions) -> ColumnPlan:
    """What the columns of a source are, by names and by what stands in the first rows."""
    known = layout_of(source.columns) is not None and not isinstance(source, PartsSource)
    sample = Sample(source, options.mapping)
    plan = resolve_columns(
        source.columns,
        sample.mapping(),
        folder=options.images or path.parent,
        from_text=source.from_text,
        require_content=options.require_content and not (options.updates or options.image_by_id),
        filled=filled_columns(source) if known else None,
        guess=sample.guess,
    )
    if known or isinstance(source, PartsSource | FolderSource):
        return plan
    return replace(plan, proposed=sample.guess(plan.fields))


def reading_notes(source: RowSource) -> list[str]:
    """How a file is read where that is not what its suffix promises, for a person."""
    return list(getattr(source, "notes", []))


def read_planned(
    source: RowSource, plan: ColumnPlan, path: Path | str, options: ReadOptions
) -> Iterator[ReadBatch]:
    """The batches of a source that is open already."""
    required = options.require_content and not options.updates
    assembler = Assembler(str(path), plan, require_content=required)
    position = -1
    for position, row in enumerate(source.rows({*plan.fields.values(), *plan.attributes})):
        full = len(assembler) >= options.batch_size or assembler.is_large
        if full and not assembler.continues(row):
            yield assembler.batch()
        assembler.take(position, row)
    if position < 0:
        raise EmptySource(f"{path} has a header but no rows")
    if len(assembler):
        yield assembler.batch()


def _rows_above(path: Path, options: ReadOptions) -> int:
    """How many rows stand above what looks like the header of a table; 0 where nothing does."""
    if options.skip_rows is not None or path.is_dir():
        return 0
    for rows in range(1, _TITLE_ROWS):
        with contextlib.suppress(InputError):
            columns = _open(path, replace(options, skip_rows=rows)).columns
            if len(KNOWN_KEYS.intersection(map(key_of, columns))) > 1:
                return rows
    return 0


def _open(path: Path, options: ReadOptions) -> RowSource:
    """The reader for a path, by its suffix."""
    if not path.exists():
        raise SourceNotFound(f"there is no file or folder at {path}")
    if path.is_dir():
        parts = parts_of(path)
        return FolderSource(path) if parts is None else PartsSource(path, parts)
    chosen = FormatOptions(options.delimiter, options.encoding, options.skip_rows, options.sheet)
    return open_file(path, chosen)
