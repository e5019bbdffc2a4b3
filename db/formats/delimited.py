"""CSV and TSV, read as a stream, with broken records distinguished from good ones."""

from __future__ import annotations

import csv
import itertools
import re
from collections import deque
from typing import TYPE_CHECKING, Any

from kinshelf.db.errors import EmptySource, UnreadableSource
from kinshelf.db.formats.evidence import (
    NAMED,
    fit,
    given,
    is_spaced,
    is_wrapped,
    sep_line,
    unwrapped,
    usual,
)
from kinshelf.db.formats.source import (
    BadRow,
    MendedRow,
    check_text,
    check_width,
    encoding_notes,
    encoding_of,
    head_lines,
    text_lines,
)
from kinshelf.db.layouts.names import ALIASES, key_of
from kinshelf.db.text import clean_key

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence
    from pathlib import Path

_SAMPLED = 50
"""Lines by which the delimiter is found."""

_LONGEST_FIELD = 16 << 20
"""Characters that a broken field may have while its end is looked for."""

_STRAY_RETURN = re.compile(r"\r(?!\r*(?:\n|\Z))")
"""A carriage return within a line: white space like any other, which the parser would stop at."""


class DelimitedSource:
    """Records of a delimited text file after RFC 4180: quotes, line ends in quotes, CRLF, BOM.

    Python's parser rather than DuckDB's: where a quote is never closed, DuckDB's `store_rejects`
    drops the good records behind it without a warning and numbers lines, not records, so that row i
    of an embedding file could no longer be matched to its record. Blank lines are not records.
    """

    from_text = True

    def __init__(
        self,
        path: Path,
        delimiter: str | None = None,
        encoding: str | None = None,
        skip: int | None = None,
    ) -> None:
        """Read the header.

        `delimiter` None means what the header and the first rows show, and where they leave it
        open a tab for .tsv and .tab, else a comma; "tab" and such names are understood.
        `encoding` None means what the bytes show; `skip` lines are passed over before the header.

        Raises:
            EmptySource, UnreadableSource: see `db.formats.source`; and a delimiter that does not
                occur in the header though another one does.
            InputError: a delimiter that is not one character.
        """
        self._path = path
        check_text(path)
        self.encoding = encoding_of(path, encoding)
        self._skip = self._shown_skip() if skip is None else skip
        self._wrapped = False
        self._wrapped = is_wrapped(next(self._text(), ""))
        self._first = sep_line(next(self._text(), ""))
        self._delimiter = usual(path) if delimiter is None else given(delimiter)
        if delimiter is None:
            self._delimiter = self._first or self._shown_delimiter()
        lines = list(itertools.islice(self._text(), _SAMPLED))
        self._spaced = is_spaced(lines, self._delimiter)
        self.notes = encoding_notes(self.encoding, encoding)
        if self._wrapped:
            self.notes.append("each line stands in quotation marks as a whole, which are taken off")
        if delimiter is None and self._delimiter != usual(path):
            mark = "a tab" if self._delimiter == "\t" else repr(self._delimiter)
            self.notes.append(f"its columns are split at {mark} (--delimiter names another)")
        self._columns: list[str] = []
        self._columns = self._named(next(self._records(), None))

    @property
    def columns(self) -> Sequence[str]:
        """The header's names; a blank one is numbered, and so is the second of a name."""
        return self._columns

    def rows(self, wanted: Collection[str] | None = None) -> Iterator[dict[str, object] | BadRow]:
        """Each record as column → text.

        A record that lacks its last fields has them empty, and empty fields beyond the header's
        are dropped; both come as `MendedRow`. A header that comes again, and a record of nothing
        but delimiters, is an expected `BadRow`. More fields than the header's is bad, and so are
        two short records in a row that make one together: a line end stood in it without quotes.
        """
        records = self._records()
        next(records, None)
        held: tuple[int, list[str]] | None = None
        for line, fields in records:
            if held is not None:
                first, held = held, None
                if isinstance(fields, list) and self._is_broken(first[1], fields):
                    yield self._wrong(*first)
                    yield self._wrong(line, fields)
                    continue
                yield self._short(*first)
            if isinstance(fields, list) and 1 < len(fields) < self._named_width and any(fields):
                held = line, fields
            else:
                yield fields if isinstance(fields, BadRow) else self._row(line, fields)
        if held is not None:
            yield self._short(*held)

    def _is_broken(self, first: list[str], second: list[str]) -> bool:
        """Whether two short records are one in which a line end stands without quotes.

        The second of two records begins with an id of the same shape as the first's.
        """
        if len(first) + len(second) - 1 != len(self._columns):
            return False
        at = self._id_at
        return len(second) <= at or len(first) <= at or _shape(first[at]) != _shape(second[at])

    def _row(self, line: int, fields: list[str]) -> dict[str, object] | BadRow:
        width = len(self._columns)
        start = fields[0] if fields else ""
        if len(fields) == width and start not in self._header_starts:  # nearly always
            return dict(zip(self._columns, fields, strict=True))
        if not any(map(str.strip, fields)):
            return BadRow(f"line {line}: nothing but delimiters", "empty-row", expected=True)
        if list(map(key_of, fields)) == self._header:
            return BadRow(f"line {line}: the header again", "repeated-header", expected=True)
        if self._named_width <= len(fields) <= width:  # the header may end in delimiters
            whole = [*fields, *[""] * (width - len(fields))]
            return dict(zip(self._columns, whole, strict=True))
        if len(fields) < width or any(map(str.strip, fields[width:])):
            return self._wrong(line, fields)
        row = MendedRow(zip(self._columns, fields, strict=False))
        row.reason = "trailing-delimiters"
        row.message = f"line {line}: {len(fields) - width} empty fields more than the header has"
        return row

    def _short(self, line: int, fields: list[str]) -> MendedRow:
        row = MendedRow(dict.fromkeys(self._columns, ""))
        row |= zip(self._columns, fields, strict=False)
        row.reason = "short-row"
        row.message = f"{self._widths(line, fields)}: the missing ones are taken as empty"
        return row

    def _wrong(self, line: int, fields: list[str]) -> BadRow:
        return BadRow(self._widths(line, fields))

    def _widths(self, line: int, fields: list[str]) -> str:
        return f"line {line}: {len(fields)} fields where the header has {len(self._columns)}"

    def count(self) -> int | None:
        """The records: exact for a file under 256 KiB, else extrapolated; None for .gz."""
        head = head_lines(self._path, self.encoding)
        if head is None:
            return None
        lines, scale = head
        records = sum(1 for _ in self._records(iter(lines[self._skip :]))) - 1
        return round(records * scale)

    def _records(
        self, source: Iterator[str] | None = None
    ) -> Iterator[tuple[int, list[str] | BadRow]]:
        """Line number from 1 and fields of each record, the header among them."""
        lines = _Lines(self._text() if source is None else source)
        reader = csv.reader(lines, strict=True, **self._how)
        number = 1
        if self._first:
            next(lines, None)
            number += lines.settle()
        while True:
            try:
                fields = next(reader)
            except StopIteration:
                return
            except csv.Error as problem:
                self._resynchronise(lines)
                last = number + lines.count - 1
                place = f"line {number}" if last <= number else f"lines {number} to {last}"
                yield number, BadRow(f"{place}: {_plainly(problem)}")
            else:
                if fields:
                    yield number, fields
            number += lines.settle()

    def _resynchronise(self, lines: _Lines) -> None:
        """Take the lines of a broken record: up to where its last quote closes, else the first.

        What stands inside its quotes is no record, though it may look like one. The record is
        read again with backslashes as escapes, then with quotes that close only before a delimiter
        or a line's end; that it comes to the header's number of fields tells that its end was
        found, unless its last line is a record by itself.
        """
        for fields in (self._escaped, self._loosely_quoted):
            lines.give_back(0)
            if fields(lines) == len(self._columns) and not self._is_record(lines.last):
                return
        lines.give_back(1)

    def _escaped(self, lines: _Lines) -> int:
        limit = csv.field_size_limit(_LONGEST_FIELD)
        try:
            reader = csv.reader(lines, escapechar="\\", strict=True, **self._how)
            return len(next(reader, []))
        except csv.Error:
            return 0
        finally:
            csv.field_size_limit(limit)

    def _loosely_quoted(self, lines: _Lines) -> int:
        fields, size, quoted = 1, 0, False
        ends = {self._delimiter, "\n", "\r", ""}
        for line in lines:
            before, at = self._delimiter, 0
            while at < len(line):
                if quoted:  # the next quote decides, however far it is
                    at = line.find('"', at)
                    if at < 0:
                        break
                    quoted = line[at + 1 : at + 2] not in ends
                elif line[at] == '"':
                    quoted = before == self._delimiter
                elif line[at] == self._delimiter:
                    fields += 1
                if not (line[at] == " " and self._spaced and before == self._delimiter):
                    before = line[at]
                at += 1
            size += len(line)
            if not quoted or size > _LONGEST_FIELD:
                return fields
        return 0

    def _is_record(self, line: str) -> bool:
        try:
            fields = next(csv.reader([line], strict=True, **self._how), [])
        except csv.Error:
            return False
        ends_quotes = line.rstrip().endswith('"') and line.count('"') % 2
        return len(fields) == len(self._columns) and not ends_quotes

    def _named(self, header: tuple[int, list[str] | BadRow] | None) -> list[str]:
        if header is None:
            raise EmptySource(f"{self._path} has only blank lines: it needs a header and rows")
        if isinstance(header[1], BadRow):
            raise UnreadableSource(
                f"{self._path}: the header cannot be read: {header[1].message}. Close the quotation"
                " mark in the file, or take it away"
            )
        names = header[1]
        if len(names) == 1:
            self._check_delimiter(names[0])
        check_width(self._path, names)
        self._named_width = max(
            (place for place, name in enumerate(names, 1) if clean_key(name)), default=len(names)
        )
        self._header = [key_of(name) for name in names]
        self._header_starts = {"", names[0], "\ufeff" + names[0]}
        aliases = ALIASES["id"]
        places = (place for place, key in enumerate(self._header) if key in aliases)
        self._id_at = next(places, 0)
        return unique_names(names)

    def _text(self) -> Iterator[str]:
        lines = text_lines(self._path, self.encoding, self._skip)
        return unwrapped(lines) if self._wrapped else lines

    @property
    def _how(self) -> dict[str, Any]:
        return {"delimiter": self._delimiter, "skipinitialspace": self._spaced}

    def _shown_skip(self) -> int:
        """The rows above the header of Amazon's flat files, which begin with their version, and of
        Meta's template, which state of each column whether it is required."""
        lines = itertools.islice(text_lines(self._path, self.encoding), _SAMPLED)
        above = list(itertools.takewhile(_is_note, (line.lstrip('\ufeff"') for line in lines)))
        return 2 if above and above[0].startswith("TemplateType=") else len(above)

    def _shown_delimiter(self) -> str:
        """The delimiter that makes most known names of the header, then records of its width."""
        lines = list(itertools.islice(self._text(), _SAMPLED))
        first = usual(self._path)
        marks = [first, *(mark for mark in ",;\t|" if mark != first)]
        return max(marks, key=lambda mark: fit(lines, mark))  # the first of equals

    def _check_delimiter(self, name: str) -> None:
        for word, mark in NAMED.items():
            if mark in name and mark != self._delimiter:
                raise UnreadableSource(
                    f"{self._path} has one column only when split at {self._delimiter!r}, but its "
                    f"header holds {mark!r}: give --delimiter {word}"
                )


class _Lines:
    """Lines of a file that remember those of the record in hand, so that they can be read again."""

    def __init__(self, fresh: Iterator[str]) -> None:
        self._fresh = fresh
        self._again: deque[str] = deque()
        self._taken: list[str] = []

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        line = self._again.popleft() if self._again else next(self._fresh)
        if "\r" in line[:-2]:
            line = _STRAY_RETURN.sub(" ", line)
        self._taken.append(line)
        return line

    @property
    def last(self) -> str:
        """The last line of the record in hand."""
        return self._taken[-1] if self._taken else ""

    @property
    def count(self) -> int:
        """The lines of the record in hand."""
        return len(self._taken)

    def give_back(self, kept: int) -> None:
        """Take so many lines as the record, or what there is, and have the others read again."""
        if len(self._taken) < kept:
            next(self, None)
        self._again.extendleft(reversed(self._taken[kept:]))
        del self._taken[kept:]

    def settle(self) -> int:
        """Be done with the record; returns how many lines it had."""
        lines = len(self._taken)
        self._taken.clear()
        return lines


def unique_names(names: Sequence[str]) -> list[str]:
    """Column names without control characters, none blank, none twice ("a", "a" → "a", "a_2")."""
    unique: dict[str, None] = {}
    copies: dict[str, int] = {}
    for place, name in enumerate(names, start=1):
        candidate = clean = clean_key(name) or f"column_{place}"
        while candidate in unique:
            copies[clean] = copies.get(clean, 1) + 1
            candidate = f"{clean}_{copies[clean]}"
        unique[candidate] = None
    return list(unique)


def _is_note(line: str) -> bool:
    return line.startswith(("TemplateType=", "# Required", "# Optional"))


def _shape(text: str) -> str:
    """The kinds of characters in a text in turn: "AB-1234" is "a-9"."""
    kinds = ("9" if m.isdigit() else "a" if m.isalpha() else m for m in text.strip())
    return "".join(kind for kind, _ in itertools.groupby(kinds))


def _plainly(problem: csv.Error) -> str:
    if "limit" in str(problem):
        return "a quotation mark is never closed, or a field is longer than 131072 characters"
    if "end of data" in str(problem):
        return "a quotation mark is never closed"
    return "a quotation mark inside a quoted field is not doubled, or one is never closed"
