"""XML feeds: RSS, Atom and the like, one item at a time."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import TYPE_CHECKING, Any
from xml.parsers import expat

from kinshelf.db.errors import EmptySource, UnreadableSource
from kinshelf.db.formats.packed import unpacked
from kinshelf.db.formats.source import (
    MAX_ROW,
    BadRow,
    check_text,
    keys_of,
    too_long,
    unreadable,
)

if TYPE_CHECKING:
    from pathlib import Path

_ITEMS = frozenset({"item", "entry", "product", "offer", "shopitem", "listing"})
_CHUNK = 2**16
_MOST_CELLS = 10_000
_MOST_DEPTH = 200


class XmlSource:
    """The items of a feed (`item`, `entry`, `product`, `offer`) as rows of text.

    The name of a cell is its element's without namespace, those within it joined by " "; an
    element that comes again makes a list. Entities of its own are refused, as `defusedxml` does:
    only they can make a small file a large one, or read another.
    """

    from_text = True

    def __init__(self, path: Path) -> None:
        """Collect the names of the first 1,000 items. Raises EmptySource, UnreadableSource."""
        self._path = path
        self.notes: list[str] = []
        check_text(path)
        self.columns: Sequence[str] = keys_of(path, self.rows())[0]
        if not self.columns:
            raise EmptySource(f"{path} has no items ({', '.join(sorted(_ITEMS))})")

    def count(self) -> int | None:
        """Unknown without reading."""
        return None

    def rows(self, wanted: Collection[str] | None = None) -> Iterator[dict[str, object] | BadRow]:
        """Each item as name → text, or list of texts."""
        handler = _Items()
        try:
            with unpacked(self._path) as stream:
                last = False
                while not last:
                    chunk = stream.read(_CHUNK)
                    last = not chunk
                    handler.parser.Parse(chunk, last)
                    yield from handler.taken()
        except expat.ExpatError as problem:
            yield from handler.taken()
            message = f"{self._path} is no XML that can be read: {problem}"
            if not handler.seen:
                raise UnreadableSource(message) from problem
            yield BadRow(message)
        except _RefusedError as problem:
            raise UnreadableSource(f"{self._path}: {problem}") from None
        except (OSError, EOFError) as problem:
            raise unreadable(self._path, problem) from problem


class _RefusedError(Exception):
    """What no feed has."""


class _Items:
    """Collects the items that were parsed and not taken yet."""

    def __init__(self) -> None:
        self.parser = expat.ParserCreate(namespace_separator=" ")
        self.parser.buffer_text = True
        self.parser.StartElementHandler = self._start
        self.parser.EndElementHandler = self._end
        self.parser.CharacterDataHandler = self._text
        self.parser.EntityDeclHandler = self._refuse
        self.parser.ExternalEntityRefHandler = self._refuse
        self.seen = 0
        self._ready: list[dict[str, object] | BadRow] = []
        self._item: dict[str, object] | None = None
        self._name = ""
        self._path: list[str] = []
        self._parts: list[str] = []
        self._size = self._cells = self._depth = 0

    def taken(self) -> list[dict[str, object] | BadRow]:
        """The whole items since the last call."""
        found, self._ready = self._ready, []
        return found

    def _refuse(self, *_: Any) -> int:
        raise _RefusedError("it declares entities of its own, which no product feed needs")

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        self._depth += 1
        if self._depth > _MOST_DEPTH:
            raise _RefusedError(f"its elements are nested more than {_MOST_DEPTH} deep")
        local = name.rpartition(" ")[2]
        if self._item is None:
            if local.casefold() in _ITEMS:
                self._item, self._name, self._path = {}, name, []
                self._size = self._cells = 0
                for key, value in attributes.items():
                    self._add(key.rpartition(" ")[2], value)
            return
        self._path.append(local)
        self._parts = []
        if "href" in attributes:
            self._parts = [attributes["href"]]

    def _text(self, data: str) -> None:
        if self._item is not None:
            self._size += len(data)
            if self._size > 16 * MAX_ROW:
                raise _RefusedError(f"an item has more than {16 * MAX_ROW:,} characters")
            if self._size <= MAX_ROW:
                self._parts.append(data)

    def _end(self, name: str) -> None:
        self._depth -= 1
        if self._item is None:
            return
        if not self._path and name == self._name:
            self.seen += 1
            long = self._size > MAX_ROW
            row = BadRow(f"item {self.seen}: {too_long(self._size)}", "too-long")
            self._ready.append(row if long else self._item)
            self._item = None
            return
        text = "".join(self._parts).strip()
        self._parts = []
        if text:
            self._add(" ".join(self._path), text)
        self._path.pop()

    def _add(self, name: str, text: str) -> None:
        assert self._item is not None
        self._cells += 1
        if self._cells > _MOST_CELLS:
            raise _RefusedError(f"an item has more than {_MOST_CELLS:,} elements")
        before = self._item.get(name)
        if before is None:
            self._item[name] = text
        elif isinstance(before, list):
            before.append(text)
        else:
            self._item[name] = [before, text]
