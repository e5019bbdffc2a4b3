"""The interface of every source of rows, and the checked opening of text files."""

from __future__ import annotations

import io
import re
import zlib
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import islice
from typing import TYPE_CHECKING, BinaryIO, Protocol

from kinshelf.db import encodings
from kinshelf.db.errors import EmptySource, UnreadableSource
from kinshelf.db.formats.packed import PACKED, unpacked

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

MAX_LINE = 16 * 2**20
"""Characters: a longer line means that the file is not made of lines."""

_KEY_ROWS = 1000
MAX_ROW = 2**20
"""Characters of a row's texts: a longer one is rejected before it takes memory."""
MAX_COLUMNS = 10_000
"""Columns of a source, and attribute names of a shelf."""

_LINE_END = re.compile(r"\r*\n|\r")
_HEAD = 64 * 2**10
_CHUNK = 2**20
_SAMPLE = 256 * 2**10
_WEB_PAGE = re.compile(rb"(?:\xef\xbb\xbf)?\s*<(?:!doctype\s+html|html)\b", re.IGNORECASE)
_MAGIC = {
    b"PK\x03\x04": "a zip archive or spreadsheet: save it as CSV, or name it .zip or .xlsx",
    b"PAR1": "a Parquet file: give it the suffix .parquet",
    b"ARROW1": "an Arrow file: give it the suffix .feather",
    b"\x1f\x8b": "gzip-compressed: give it the suffix .gz after its own",
}


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that gives no product; `message` states where it stands and what is wrong.

    `expected`: nothing is lost by it, as a header that comes again.
    """

    message: str
    reason: str = "malformed-row"
    expected: bool = False


class MendedRow(dict[str, object]):
    """A row that was read as it is meant; `reason` and `message` state what was odd about it."""

    reason = ""
    message = ""


def check_width(path: Path, columns: Collection[str]) -> None:
    """Raises UnreadableSource where a file has more columns than a shelf takes."""
    if len(columns) > MAX_COLUMNS:
        raise UnreadableSource(
            f"{path} has {len(columns):,} columns, more than {MAX_COLUMNS:,}: leave out some, or"
            " put names and values into one column as JSON text"
        )


def keys_of(path: Path, rows: Iterable[dict[str, object] | BadRow]) -> tuple[list[str], int]:
    """The keys of the first 1,000 rows, in the order in which they appear, and how many rows there
    were. Raises UnreadableSource: see `check_width`."""
    keys: dict[str, None] = {}
    number = 0
    for row in islice(rows, _KEY_ROWS):
        number += 1
        if not isinstance(row, BadRow):
            keys |= dict.fromkeys(row)
    check_width(path, keys)
    return list(keys), number


def too_long(characters: int) -> str:
    """The message for a row of more than `MAX_ROW` characters."""
    return f"the row has {characters:,} characters, more than {MAX_ROW:,}: shorten its texts"


class RowSource(Protocol):
    """Rows of one file or folder, in its own order, read as a stream.

    The n-th item of `rows()` is data row n of the source, counted from 0, parsed or bad.
    """

    @property
    def from_text(self) -> bool:
        """Whether values are text without a type."""

    @property
    def columns(self) -> Sequence[str]:
        """The column names, in the source's order."""

    def rows(
        self, wanted: Collection[str] | None = None
    ) -> Iterator[Mapping[str, object] | BadRow]:
        """Column → value, row by row. May be called again.

        With `wanted` other columns may be left out, where that makes reading cheaper.
        """

    def count(self) -> int | None:
        """Estimate the number of rows; None where that needs reading everything."""


def check_text(path: Path) -> None:
    """Refuse what is no text file before a parser stumbles over it.

    Raises:
        EmptySource: the file has no bytes.
        UnreadableSource: its first bytes are those of a binary format, or it may not be read.
    """
    try:
        with _open_binary(path) as stream:
            head = stream.read(_HEAD)
    except (OSError, EOFError, zlib.error) as problem:
        raise unreadable(path, problem) from problem
    if not head:
        raise EmptySource(f"{path} is empty: it needs a header and at least one row")
    if _WEB_PAGE.match(head):
        raise UnreadableSource(
            f"{path} is a web page, such as one that asks to log in: save the export itself"
        )
    for magic, remedy in _MAGIC.items():
        if head.startswith(magic):
            raise UnreadableSource(f"{path} is {remedy.format(name=path.name)}")


def encoding_of(path: Path, given: str | None = None) -> str:
    """The encoding of a text file: the given one, or what its bytes show (see `db.encodings`).

    Raises:
        InputError: there is no encoding of the given name.
        UnreadableSource: no encoding fits, or the file cannot be read.
    """
    if given is not None:
        return encodings.checked(given)
    stat = path.stat()
    return _detected(path, stat.st_size, stat.st_mtime_ns)


def encoding_notes(found: str, given: str | None) -> list[str]:
    """For a person: the encoding of a file, where it was recognised and is not UTF-8."""
    if given is not None or found == encodings.UTF_8:
        return []
    return [f"it is read as {encodings.shown(found)} (--encoding names another)"]


@lru_cache(maxsize=64)
def _detected(path: Path, _size: int, _changed: int) -> str:
    try:
        with _open_binary(path) as stream:
            found = encodings.detect(iter(partial(stream.read, _CHUNK), b""))
    except (OSError, EOFError, zlib.error) as problem:
        raise unreadable(path, problem) from problem
    if found is None:
        raise UnreadableSource(_encoding_message(path))
    return found


def text_lines(path: Path, encoding: str = encodings.UTF_8, skip: int = 0) -> Iterator[str]:
    """The lines of a text file with their own line ends, one at a time, unpacked.

    A byte order mark is dropped, and so are the first `skip` lines.

    Raises:
        UnreadableSource: bytes that are not of this encoding, a damaged archive, or a line longer
            than `MAX_LINE`.
    """
    try:
        with _open_binary(path) as binary:
            head = binary.read(_HEAD).decode(encoding, "ignore")
            binary.seek(0)
            # A lone carriage return ends a line only where it ends the first.
            first = _LINE_END.search(head)
            end = "\r" if first is not None and first[0] == "\r" else "\n"
            stream = io.TextIOWrapper(binary, encoding=encoding, newline=end)
            if stream.read(1) != "\ufeff":
                stream.seek(0)
            while line := stream.readline(MAX_LINE):
                if len(line) == MAX_LINE:
                    raise UnreadableSource(f"{path} has a line of more than {MAX_LINE} characters")
                skip -= 1
                if skip < 0:
                    yield line
    except UnicodeError as problem:
        raise UnreadableSource(_not_of(path, encoding, problem)) from problem
    except (OSError, EOFError, zlib.error) as problem:
        raise unreadable(path, problem) from problem


def head_lines(path: Path, encoding: str = encodings.UTF_8) -> tuple[list[str], float] | None:
    """The lines of a text file's first 256 KiB, and how many times as large the file is.

    None for a packed file, whose size does not tell how much is in it.
    """
    if path.suffix.casefold() in PACKED:
        return None
    lines: list[str] = []
    size = 0
    for line in text_lines(path, encoding):
        lines.append(line)
        size += len(line.encode(encoding, "replace"))
        if size >= _SAMPLE:
            return lines, max(1.0, path.stat().st_size / size)
    return lines, 1.0


def unreadable(path: Path, problem: Exception) -> UnreadableSource:
    """The error for a file that the system or its compression refuses to give."""
    reason = getattr(problem, "strerror", None) or str(problem)
    return UnreadableSource(f"{path} cannot be read: {reason}")


def _open_binary(path: Path) -> BinaryIO:
    return unpacked(path)


def _not_of(path: Path, encoding: str, problem: UnicodeError) -> str:
    if encoding == encodings.UTF_8:
        return _encoding_message(path)
    return f"{path} is not {encodings.shown(encoding)} ({problem}): name another --encoding"


def _encoding_message(path: Path) -> str:
    with _open_binary(path) as stream:
        nul = stream.read(_HEAD).find(b"\0")
    if nul >= 0:
        return f"{path} is not a text file: byte {nul} is NUL. Export it as UTF-8 CSV or JSONL"
    offset, line, byte = _first_bad_byte(path)
    return (
        f"{path} is not UTF-8: byte 0x{byte:02x} at offset {offset} (line {line}), and no other"
        " encoding fits well: mend that line, or name the encoding with --encoding: cp1250 is"
        " usual for Central Europe, cp1251 for Cyrillic, cp1253 for Greek, big5 for traditional"
        " Chinese, euc_kr for Korean, cp1252 for Western Europe"
    )


def _first_bad_byte(path: Path) -> tuple[int, int, int]:
    """Offset (after unpacking), line number from 1, and value of the first byte not UTF-8."""
    offset, line, rest = 0, 1, b""
    with _open_binary(path) as stream:
        while chunk := stream.read(_CHUNK):
            block = rest + chunk
            try:
                block.decode("utf-8")
                good = len(block)
            except UnicodeDecodeError as problem:
                # A character cut by the chunk's end is not wrong yet.
                if problem.start < len(block) - 3:
                    before = block[: problem.start].count(b"\n")
                    return offset + problem.start, line + before, block[problem.start]
                good = problem.start
            offset += good
            line += block.count(b"\n", 0, good)
            rest = block[good:]
    return offset, line, rest[0]
