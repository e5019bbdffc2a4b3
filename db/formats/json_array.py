"""JSON files that are no lines: an array of objects, or an object with such an array in it."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Collection, Iterator, Sequence
from typing import TYPE_CHECKING

from kinshelf.db.errors import EmptySource, UnreadableSource
from kinshelf.db.formats.packed import unpacked
from kinshelf.db.formats.source import (
    MAX_ROW,
    BadRow,
    check_text,
    encoding_notes,
    encoding_of,
    keys_of,
    too_long,
    unreadable,
)

if TYPE_CHECKING:
    from pathlib import Path

_CHUNK = 2**16
_BETWEEN = re.compile(r"[\s,\ufeff]*")
_START = re.compile(r'\s*\{\s*"[^"]{1,100}"\s*:\s*(?=\[\s*\{)')


class JsonArraySource:
    """The objects of a JSON array, one at a time; `{"products": [...]}` is read as its array."""

    from_text = False

    def __init__(self, path: Path, encoding: str | None = None) -> None:
        """Collect the keys of the first 1,000 objects.

        Raises:
            EmptySource, UnreadableSource: see `db.formats.source`; and a file that is no array.
        """
        self._path = path
        check_text(path)
        self.encoding = encoding_of(path, encoding)
        self.notes = encoding_notes(self.encoding, encoding)
        self.columns: Sequence[str]
        self.columns, rows = keys_of(path, self.rows())
        if not rows:
            raise EmptySource(f"{path} has an array without objects")
        if not self.columns:
            raise UnreadableSource(f"{path} is no array of JSON objects")

    def count(self) -> int | None:
        """Unknown without reading."""
        return None

    def rows(self, wanted: Collection[str] | None = None) -> Iterator[dict[str, object] | BadRow]:
        """Each object; another member is bad. Behind what is no JSON nothing more is read."""
        try:
            with (
                unpacked(self._path) as binary,
                io.TextIOWrapper(binary, encoding=self.encoding) as text,
            ):
                yield from self._objects(text)
        except UnicodeError as problem:
            raise UnreadableSource(f"{self._path} is not {self.encoding}: {problem}") from problem
        except (OSError, EOFError) as problem:
            raise unreadable(self._path, problem) from problem

    def _objects(self, stream: io.TextIOWrapper) -> Iterator[dict[str, object] | BadRow]:
        buffer = stream.read(_CHUNK).lstrip("\ufeff \t\r\n")
        if found := _START.match(buffer):
            buffer = buffer[found.end() :]
        if not buffer.startswith("["):
            raise UnreadableSource(f"{self._path} is no array of JSON objects")
        at, number, decode = 1, 0, json.JSONDecoder().raw_decode
        while True:
            at = self._skipped(buffer, at)
            if buffer[at : at + 1] == "]":
                return
            try:
                member, end = decode(buffer, at)
                if end == len(buffer):  # a number may go on behind the end
                    raise ValueError
            except RecursionError:
                yield BadRow(f"object {number + 1}: nested too deeply")
                return
            except ValueError as problem:
                if len(buffer) - at > 4 * MAX_ROW:
                    yield BadRow(f"object {number + 1}: {too_long(len(buffer) - at)}", "too-long")
                    return
                more = stream.read(max(_CHUNK, len(buffer) - at))
                if not more:
                    yield BadRow(f"object {number + 1}: not JSON, or cut short: {problem}")
                    return
                buffer, at = buffer[at:] + more, 0
                continue
            number, size, at = number + 1, end - at, end
            if not isinstance(member, dict):
                kind = type(member).__name__
                yield BadRow(f"object {number}: {kind} where an object is expected")
            elif size > MAX_ROW:
                yield BadRow(f"object {number}: {too_long(size)}", "too-long")
            else:
                yield member

    @staticmethod
    def _skipped(buffer: str, at: int) -> int:
        found = _BETWEEN.match(buffer, at)
        return found.end() if found else at


def is_array(path: Path) -> bool:
    """Whether a JSON file is an array rather than lines. Raises UnreadableSource."""
    try:
        with unpacked(path) as stream:
            head = stream.read(_CHUNK).decode("utf-8", "ignore").lstrip("\ufeff \t\r\n")
    except (OSError, EOFError) as problem:
        raise unreadable(path, problem) from problem
    if head.startswith("[") or _START.match(head):
        return True
    return head.startswith("{") and head.split("\n", 1)[0].strip() == "{"
