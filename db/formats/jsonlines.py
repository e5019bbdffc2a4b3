"""JSON Lines: one JSON object a line, keys as columns."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from kinshelf.db.errors import EmptySource, UnreadableSource
from kinshelf.db.formats.source import (
    MAX_ROW,
    BadRow,
    check_text,
    encoding_notes,
    encoding_of,
    head_lines,
    keys_of,
    text_lines,
    too_long,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence
    from pathlib import Path


class JsonLinesSource:
    """A file of JSON objects. Values keep their JSON types; blank lines are no rows."""

    from_text = False

    def __init__(self, path: Path, encoding: str | None = None) -> None:
        """Collect the keys of the first 1,000 rows; a later row may bring further ones.

        `encoding` None: what the bytes show.

        Raises:
            EmptySource, UnreadableSource: see `db.formats.source`; and a file that holds no object.
        """
        self._path = path
        check_text(path)
        self.encoding = encoding_of(path, encoding)
        self.notes = encoding_notes(self.encoding, encoding)
        self._columns = self._keys()

    @property
    def columns(self) -> Sequence[str]:
        """The keys seen, in the order of their first appearance."""
        return self._columns

    def rows(self, wanted: Collection[str] | None = None) -> Iterator[dict[str, object] | BadRow]:
        """Each line's object; a line that holds none is bad."""
        for number, line in enumerate(text_lines(self._path, self.encoding), start=1):
            if line.isspace():
                continue
            if len(line) > MAX_ROW:
                yield BadRow(f"line {number}: {too_long(len(line))}", "too-long")
                continue
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as problem:
                yield BadRow(f"line {number}: not JSON: {problem}")
                continue
            if isinstance(row, dict):
                yield row
            else:
                yield BadRow(f"line {number}: {type(row).__name__} where an object is expected")

    def count(self) -> int | None:
        """The lines: exact for a file under 256 KiB, else extrapolated; None for .gz."""
        head = head_lines(self._path, self.encoding)
        if head is None:
            return None
        lines, scale = head
        return round(sum(not line.isspace() for line in lines) * scale)

    def _keys(self) -> list[str]:
        keys, rows = keys_of(self._path, self.rows())
        if not rows:
            raise EmptySource(f"{self._path} has only blank lines")
        if not keys:
            raise UnreadableSource(
                f"{self._path} holds no JSON object in its first {rows} rows: it needs one object "
                f"a line. A JSON array becomes that with: jq -c '.[]' FILE.json > FILE.jsonl"
            )
        return keys
