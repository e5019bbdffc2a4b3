"""The reader of a file, by its suffix or by what it begins with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from kinshelf.db.errors import UnreadableSource
from kinshelf.db.formats.delimited import DelimitedSource
from kinshelf.db.formats.json_array import JsonArraySource, is_array
from kinshelf.db.formats.jsonlines import JsonLinesSource
from kinshelf.db.formats.packed import PACKED, inner_name
from kinshelf.db.formats.parquet import ParquetSource
from kinshelf.db.formats.tables import ArrowSource, SheetSource
from kinshelf.db.formats.xml_feed import XmlSource

if TYPE_CHECKING:
    from pathlib import Path

    from kinshelf.db.formats.source import RowSource

_BY_SUFFIX = {
    **dict.fromkeys((".csv", ".tsv", ".tab", ".txt"), "delimited"),
    **dict.fromkeys((".jsonl", ".ndjson", ".json"), "json"),
    **dict.fromkeys((".xml", ".rss", ".atom"), "xml"),
    **dict.fromkeys((".parquet", ".pq"), "parquet"),
    **dict.fromkeys((".xlsx", ".xlsm"), "sheet"),
    **dict.fromkeys((".arrow", ".feather", ".arrows"), "arrow"),
}
_BY_MAGIC = {
    b"PAR1": ".parquet", b"PK\x03\x04": ".xlsx", b"ARROW1": ".feather",
    b"\x1f\x8b": ".csv.gz", b"BZh": ".csv.bz2", b"\x28\xb5\x2f\xfd": ".csv.zst",
}  # fmt: skip
_NOT_PACKED = frozenset({"parquet", "sheet", "arrow"})


@dataclass(frozen=True, slots=True)
class FormatOptions:
    """How a file is read; None means what it shows."""

    delimiter: str | None = None
    encoding: str | None = None
    skip_rows: int | None = None
    sheet: str | None = None


def open_file(path: Path, options: FormatOptions) -> RowSource:
    """The reader of a file. Raises EmptySource, UnreadableSource, InputError."""
    name = inner_name(path)
    kind = _BY_SUFFIX.get(name.suffix.casefold())
    if kind is None or (kind in _NOT_PACKED and path.suffix.casefold() in PACKED):
        raise UnreadableSource(_unknown(path))
    if kind == "json":
        array = name.suffix.casefold() == ".json" and is_array(path)
        return (JsonArraySource if array else JsonLinesSource)(path, options.encoding)
    if kind == "delimited":
        return DelimitedSource(path, options.delimiter, options.encoding, options.skip_rows)
    if kind == "sheet":
        return SheetSource(path, options.sheet, options.skip_rows)
    if kind == "xml":
        return XmlSource(path)
    return ParquetSource(path) if kind == "parquet" else ArrowSource(path)


def suffix_of(head: bytes) -> str:
    """The suffix for what begins so: a stream has no name."""
    for magic, suffix in _BY_MAGIC.items():
        if head.startswith(magic):
            return suffix
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n")
    return ".xml" if text[:1] == b"<" else ".json" if text[:1] in (b"[", b"{") else ".csv"


def _unknown(path: Path) -> str:
    return (
        f"{path}: the suffix {path.suffix!r} names no format that can be read; .csv, .tsv, .txt,"
        " .json, .jsonl, .ndjson and .xml can (also with .gz, .bz2, .zst or .zip behind), .xlsx,"
        " .parquet, .feather, and a folder of pictures"
    )
