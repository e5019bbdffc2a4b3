"""How a shop's files are read, kept in a TOML file: `--save-mapping` and `--mapping`."""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kinshelf.db.errors import InputError, SourceNotFound
from kinshelf.db.files import written
from kinshelf.db.layouts.names import ALIASES
from kinshelf.db.layouts.templates import joined

_TEXTS = ("delimiter", "encoding", "sheet")
_FOLDERS = ("images", "image_by_id")
_LARGEST = 2**20


@dataclass(frozen=True, slots=True)
class SavedMapping:
    """`mapping` is {field: column or template}; `reading` holds delimiter, encoding, sheet (text),
    skip_rows (int), images and image_by_id (folders, as paths)."""

    mapping: dict[str, str] = field(default_factory=dict)
    reading: dict[str, Any] = field(default_factory=dict)


def save_mapping(path: Path, saved: SavedMapping) -> None:
    """Write a mapping; folders are written as they lie from the file.

    Raises InputError where there is no folder for it.
    """
    if not path.parent.is_dir():
        raise InputError(f"there is no folder {path.parent}: make it first")
    lines = ["# How kinshelf reads a shop's files: kinshelf add FILE --mapping " + path.name, ""]
    lines += ["[map]", *(f"{name} = {_quoted(text)}" for name, text in saved.mapping.items())]
    reading = {name: value for name, value in saved.reading.items() if value is not None}
    if reading:
        lines += ["", "[read]", *(f"{n} = {_value(path, v)}" for n, v in reading.items())]
    with written(path) as file:
        file.write_text("\n".join(lines) + "\n", encoding="utf-8")


def load_mapping(path: Path) -> SavedMapping:
    """Read a mapping. Raises SourceNotFound, or InputError for what is none."""
    try:
        with path.open("rb") as file:
            text = file.read(_LARGEST + 1)
        found = tomllib.loads(text.decode("utf-8-sig"))
    except FileNotFoundError as problem:
        raise SourceNotFound(f"there is no mapping at {path}") from problem
    except (OSError, ValueError, RecursionError) as problem:
        raise InputError(f"{path} cannot be read as a mapping (TOML): {problem}") from problem
    _check_names(path, found, ("map", "read"), "table")
    mapping = _table(path, found, "map", tuple(ALIASES))
    reading = _table(path, found, "read", (*_TEXTS, *_FOLDERS, "skip_rows"))
    columns = {name: joined(name, _texts(path, name, value)) for name, value in mapping.items()}
    return SavedMapping(columns, {n: _read(path, n, v) for n, v in reading.items()})


def _table(path: Path, found: Mapping[str, Any], name: str, known: tuple[str, ...]) -> Any:
    table = found.get(name, {})
    if not isinstance(table, dict):
        raise InputError(f"{path}: {name} must be a table: [{name}]")
    _check_names(path, table, known, f"name in [{name}]")
    return table


def _check_names(path: Path, found: Mapping[str, Any], known: tuple[str, ...], kind: str) -> None:
    for name in found:
        if name not in known:
            raise InputError(f"{path}: there is no {kind} {name!r}; there are {', '.join(known)}")


def _texts(path: Path, name: str, value: Any) -> list[str]:
    texts = value if isinstance(value, list) else [value]
    if not texts or not all(isinstance(text, str) and text for text in texts):
        raise InputError(f"{path}: {name} must be a column's name in quotes, or a list of such")
    return texts


def _read(path: Path, name: str, value: Any) -> Any:
    if name == "skip_rows":
        if type(value) is not int or value < 0:
            raise InputError(f"{path}: skip_rows is {value!r}, but must be 0 or more")
        return value
    if not isinstance(value, str):
        raise InputError(f"{path}: {name} is {value!r}, but must be text in quotes")
    return path.parent / value if name in _FOLDERS else value


def _value(path: Path, value: Any) -> str:
    if isinstance(value, Path):
        return _quoted(Path(os.path.relpath(value, path.parent)).as_posix())
    return str(value) if isinstance(value, int) else _quoted(value)


def _quoted(text: str) -> str:
    """A TOML string: JSON's, which leaves one character that TOML does not take."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
