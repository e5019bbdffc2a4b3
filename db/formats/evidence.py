"""What the first lines of a delimited file show: its delimiter, and how it is quoted."""

from __future__ import annotations

import contextlib
import csv
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from kinshelf.db.errors import InputError, UnreadableSource
from kinshelf.db.layouts.known import LAYOUT_KEYS
from kinshelf.db.layouts.names import KNOWN_KEYS, key_of

NAMED = {"tab": "\t", "semicolon": ";", "comma": ",", "pipe": "|", "\\t": "\t"}
"""Delimiters by the names that a person may give."""
_SEP_LINE = re.compile(r"\ufeff?\"?sep=(?P<mark>[^\"\s\w]|\t)\"?[\r\n]*", re.IGNORECASE)


def usual(path: Path) -> str:
    """The delimiter that a file's name stands for."""
    return "\t" if {".tsv", ".tab"} & {suffix.casefold() for suffix in path.suffixes} else ","


def given(delimiter: str) -> str:
    """The delimiter that a person gave, by name too. Raises InputError."""
    mark = NAMED.get(delimiter.casefold(), delimiter)
    if len(mark) != 1 or mark in '"\r\n':
        raise InputError(
            f"the delimiter {delimiter!r} is not usable: give one character, or one of "
            f"{', '.join(NAMED)}"
        )
    return mark


def sep_line(line: str) -> str:
    """The delimiter that a first line such as Excel's `sep=;` names, or ""."""
    found = _SEP_LINE.fullmatch(line)
    return found["mark"] if found else ""


def fit(lines: list[str], mark: str, *, spaced: bool = False) -> tuple[int, float, int]:
    """Known names in the header, share of records as wide as it, width; none for one column."""
    records: list[list[str]] = []
    with contextlib.suppress(csv.Error):  # what was read before a broken record tells enough
        records.extend(filter(None, csv.reader(lines, delimiter=mark, skipinitialspace=spaced)))
    if not records or len(records[0]) == 1:
        return 0, 0.0, 0
    width = len(records[0])
    known = len((KNOWN_KEYS | LAYOUT_KEYS).intersection(map(key_of, records[0])))
    return known, round(sum(len(r) == width for r in records) / len(records), 1), width


def is_wrapped(header: str) -> bool:
    """Whether each line stands in quotation marks as a whole, as tools write that have quoted a
    file twice: the header is one field that holds several known names."""
    try:
        (field,) = next(csv.reader([header], strict=True), [])
    except (csv.Error, ValueError):
        return False
    return header[0] == '"' and any(fit([field], mark)[0] > 1 for mark in ",;\t|")


def unwrapped(lines: Iterable[str]) -> Iterator[str]:
    """Lines without the quotation marks around them."""
    ended = (line.rstrip("\r\n").replace("\r", " ") + "\n" for line in lines)
    try:
        for fields in csv.reader(ended):
            yield ",".join(fields) + "\n"
    except csv.Error as problem:
        raise UnreadableSource(
            f"a line that stands in quotation marks as a whole cannot be read ({problem}): export"
            " the file again, with quotation marks around fields alone"
        ) from None


def is_spaced(lines: list[str], mark: str) -> bool:
    """Whether quotes open behind a delimiter and a space: so more records have the header's width,
    or as many, and fields that end in a quote too are there."""
    if not any(f'{mark} "' in line for line in lines):
        return False
    plain, spaced = (fit(lines, mark, spaced=spaced) for spaced in (False, True))
    whole = re.compile(f'{re.escape(mark)} +"[^"]*" *(?:{re.escape(mark)}|$)', re.M)
    return spaced > plain or (spaced == plain and any(map(whole.search, lines)))
