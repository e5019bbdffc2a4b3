"""The sealed statement beside a derived file, a catalogue or an index: of what it is, its hash."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import xxhash

from kinshelf.db.catalog.schema import is_count, is_text
from kinshelf.db.errors import ShelfError
from kinshelf.db.files import read_bytes, reading

_SIDE = 1 << 16
"""Bytes of a statement that are read."""


def side_file(path: Path) -> Path:
    """The path of the file with a snapshot's checksum and generation."""
    return path.with_name(path.name + ".json")


def file_hash(path: Path) -> str:
    """xxh3-128 of a file's bytes, read in blocks."""
    digest = xxhash.xxh3_128()
    with reading(path) as file:
        while block := file.read(1 << 22):
            digest.update(block)
    return digest.hexdigest()


def fault_of(path: Path, expected: str) -> str | None:
    """Why a file is not the one of a hash; None if it is."""
    try:
        return None if file_hash(path) == expected else "its checksum does not match"
    except ShelfError:
        return "it cannot be read"


def seal(state: dict[str, Any]) -> bytes:
    """The content of a snapshot's side file: the state and, on a second line, its checksum."""
    body = json.dumps(state, sort_keys=True).encode()
    return body + b"\n" + xxhash.xxh3_64_hexdigest(body).encode() + b"\n"


def read_state(path: Path) -> dict[str, Any] | None:
    """The state in the side file of the snapshot at `path`, or None if it cannot be trusted."""
    try:
        body, check = read_bytes(side_file(path), _SIDE).split(b"\n")[:2]
        whole = path.is_file() and check == xxhash.xxh3_64_hexdigest(body).encode()
        state = dict(json.loads(body)) if whole else {}
    except (OSError, ShelfError, ValueError, TypeError, RecursionError):
        return None
    # A catalogue is of a generation, the index of so many rows.
    counted = is_count(state.get("generation", state.get("rows")))
    return state if counted and is_text(state.get("xxh3")) else None
