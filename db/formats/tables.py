"""Spreadsheets and Arrow files, read as a stream."""

from __future__ import annotations

import contextlib
import datetime
import warnings
import zipfile
from collections.abc import Collection, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from kinshelf.db.errors import EmptySource, InputError, UnreadableSource
from kinshelf.db.formats.delimited import unique_names
from kinshelf.db.formats.source import MAX_COLUMNS, MAX_ROW, BadRow, check_width, too_long

if TYPE_CHECKING:
    from pathlib import Path

_LARGEST_PART = 2**30
_LARGEST_TEXTS = 256 * 2**20
"""Bytes of a sheet, and of the texts that all sheets share and that are held in memory."""
_BLANK_ROWS = 10_000
"""Empty rows in a row after which a sheet ends: its claim of a million is seldom true."""


class SheetSource:
    """A sheet of an .xlsx file: its first row that is not empty is the header.

    Formulas give the values that were saved with them. Cells keep their types; dates come as ISO
    8601 text. Empty rows are no rows.
    """

    from_text = False

    def __init__(self, path: Path, sheet: str | None = None, skip: int | None = None) -> None:
        """Read the header of a sheet, None: the first; `skip` rows above it.

        Raises:
            UnreadableSource: it is no spreadsheet, is damaged, or unpacks to gigabytes.
            EmptySource: the sheet has no rows.
            InputError: there is no sheet of that name.
        """
        self._path, self._sheet, self._skip = path, sheet, skip or 0
        self.notes: list[str] = []
        _check_parts(path)
        self.columns: Sequence[str] = ()
        header = next(self._cells(), None)
        if header is None:
            raise EmptySource(f"{path} has no rows in its sheet")
        names = ["" if cell is None else str(cell) for cell in header]
        self.columns = unique_names(names[: _last(names)])
        check_width(path, self.columns)

    def count(self) -> int | None:
        """Unknown: what a sheet states of itself is often wrong."""
        return None

    def rows(self, wanted: Collection[str] | None = None) -> Iterator[dict[str, object] | BadRow]:
        """Each row that is not empty; one with cells beyond the header's is bad."""
        rows = self._cells()
        next(rows, None)
        width = len(self.columns)
        for number, cells in enumerate(rows, start=2):
            if any(cell is not None for cell in cells[width:]):
                yield BadRow(f"row {number}: more cells than the header has")
                continue
            size = sum(len(cell) for cell in cells if isinstance(cell, str))
            if size > MAX_ROW:
                yield BadRow(f"row {number}: {too_long(size)}", "too-long")
                continue
            row = dict.fromkeys(self.columns) | dict(zip(self.columns, cells, strict=False))
            yield {name: _cell(value) for name, value in row.items()}

    def _cells(self) -> Iterator[tuple[Any, ...]]:
        import openpyxl

        blank = 0
        with warnings.catch_warnings(), _as_unreadable(self._path):
            warnings.simplefilter("ignore")
            book = openpyxl.load_workbook(self._path, read_only=True, data_only=True)
            with contextlib.closing(book):
                sheet = self._chosen(book)
                sheet.reset_dimensions()
                for cells in sheet.iter_rows(
                    min_row=self._skip + 1,
                    max_col=(len(self.columns) or MAX_COLUMNS) + 1,  # empty rows are as wide
                    values_only=True,
                ):
                    blank = 0 if any(cell not in (None, "") for cell in cells) else blank + 1
                    if not blank:
                        yield cells
                    elif blank > _BLANK_ROWS:
                        return

    def _chosen(self, book: Any) -> Any:
        names = book.sheetnames
        if self._sheet is None:
            if not book.worksheets:
                raise EmptySource(f"{self._path} has no sheet")
            if len(names) > 1 and not self.notes:
                self.notes.append(f"its first sheet {names[0]!r} is read (--sheet names another)")
            return book.worksheets[0]
        if self._sheet not in names:
            raise InputError(
                f"{self._path} has no sheet {self._sheet!r}; it has {', '.join(names)}"
            )
        return book[self._sheet]


class ArrowSource:
    """An Arrow or Feather file, or stream of batches."""

    from_text = False

    def __init__(self, path: Path) -> None:
        """Read the schema. Raises EmptySource, UnreadableSource."""
        self._path = path
        with self._opened() as reader:
            self.columns: Sequence[str] = unique_names(reader.schema.names)
        check_width(path, self.columns)
        if next(self.rows(()), None) is None:
            raise EmptySource(f"{path} has no rows")

    def count(self) -> int | None:
        """Unknown for a stream."""
        return None

    def rows(self, wanted: Collection[str] | None = None) -> Iterator[dict[str, object] | BadRow]:
        """Each row; bytes come not at all."""
        places = [i for i, n in enumerate(self.columns) if wanted is None or n in wanted]
        names = [self.columns[place] for place in places]
        with self._opened() as reader:
            for batch in _batches(reader):
                columns = [[_cell(v) for v in batch.column(i).to_pylist()] for i in places]
                cells = zip(*columns, strict=True) if names else iter([()] * batch.num_rows)
                for values in cells:
                    size = sum(len(value) for value in values if isinstance(value, str))
                    if size > MAX_ROW:
                        yield BadRow(too_long(size), "too-long")
                    else:
                        yield dict(zip(names, values, strict=True))

    @contextlib.contextmanager
    def _opened(self) -> Iterator[Any]:
        import pyarrow as pa

        try:
            with pa.memory_map(str(self._path)) as source:
                begins = source.read(6)
                source.seek(0)
                file = begins == b"ARROW1"
                yield pa.ipc.open_file(source) if file else pa.ipc.open_stream(source)
        except (pa.ArrowException, OSError) as problem:
            reason = str(problem).partition("\n")[0]
            message = f"{self._path} cannot be read as Arrow: {reason}"
            raise UnreadableSource(message) from problem


def _batches(reader: Any) -> Iterator[Any]:
    batches = (
        (reader.get_batch(i) for i in range(reader.num_record_batches))
        if hasattr(reader, "num_record_batches")
        else reader
    )
    for batch in batches:
        for start in range(0, batch.num_rows, 1024):
            yield batch.slice(start, 1024)


def _cell(value: Any) -> object:
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, str | int | float | list | dict) or value is None:
        return value
    return None if isinstance(value, bytes) else str(value)


def _last(names: Sequence[str]) -> int:
    return max((place for place, name in enumerate(names, 1) if name.strip()), default=0)


def _check_parts(path: Path) -> None:
    """Raises UnreadableSource for what is no spreadsheet, or unpacks to gigabytes."""
    try:
        with zipfile.ZipFile(path) as archive:
            parts = archive.infolist()
    except (zipfile.BadZipFile, OSError) as problem:
        raise UnreadableSource(f"{path} is no .xlsx file: {problem}") from problem
    for part in parts:
        shared = part.filename.endswith(("sharedStrings.xml", "styles.xml", "workbook.xml"))
        most = _LARGEST_TEXTS if shared else _LARGEST_PART
        if part.file_size > most or part.file_size > 1000 * part.compress_size + 2**24:
            raise UnreadableSource(
                f"{path}: its part {part.filename} unpacks to {part.file_size >> 20:,} MiB: save"
                " the sheet as CSV"
            )


@contextlib.contextmanager
def _as_unreadable(path: Path) -> Iterator[None]:
    import xml.etree.ElementTree as ET

    damaged = (
        zipfile.BadZipFile,
        ET.ParseError,
        KeyError,
        ValueError,
        TypeError,
        OSError,
        EOFError,
    )
    try:
        yield
    except (UnreadableSource, InputError):
        raise
    except damaged as problem:
        raise UnreadableSource(f"{path} cannot be read as .xlsx: {problem}") from problem
