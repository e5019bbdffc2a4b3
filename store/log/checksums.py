"""Checksums of a shelf's vectors: each change has its own."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import repeat
from pathlib import Path

import xxhash

from kinshelf.db.errors import ShelfDamaged
from kinshelf.db.files import naming, open_regular
from kinshelf.db.threads import threads
from kinshelf.store.log.frames import Frame

_BLOCK = 1 << 18
"""Bytes read at once, into a buffer that stays in the cache: at 10 GB/s, not 1."""
_APART = 256 << 20
"""Bytes from which on several threads read."""
_READERS = 4
"""As many as memory has a use for."""


def check_vectors(path: Path, first_row: int, frames: Sequence[Frame]) -> None:
    """Read the vectors that these changes hold; row `first_row` is the file's first.

    Raises ShelfDamaged, naming the first change whose vectors do not fit, or if there is no file.
    """
    with_rows = [frame for frame in frames if frame.head.get("rows")]
    try:
        file = os.fdopen(open_regular(path), "rb", buffering=0)
    except FileNotFoundError:
        raise ShelfDamaged(f"{path} is missing: restore it from a backup") from None
    many = sum(map(_size, with_rows)) >= _APART
    readers = min(threads(), _READERS, len(with_rows)) if many else 1
    with file, naming(path):
        if readers < 2:
            for frame in with_rows:
                _check(path, file.fileno(), first_row, frame)
            return
        with ThreadPoolExecutor(readers, "kinshelf-check") as pool:
            parts = repeat(path), repeat(file.fileno()), repeat(first_row), with_rows
            for _ in pool.map(_check, *parts):
                pass


def _size(frame: Frame) -> int:
    return int(frame.head["rows"]) * int(frame.head["width"]) * 4


def _check(path: Path, fd: int, first_row: int, frame: Frame) -> None:
    left, at = _size(frame), (frame.head["first"] - first_row) * frame.head["width"] * 4
    block = memoryview(bytearray(min(_BLOCK, left)))
    digest = xxhash.xxh3_64()
    while left and (size := os.preadv(fd, [block[: min(left, len(block))]], at)):
        digest.update(block[:size])
        left, at = left - size, at + size
    if left or digest.hexdigest() != frame.head["vectors"]:
        raise ShelfDamaged(
            f"{path} is damaged: the vectors of generation {frame.generation} (rows"
            f" {frame.head['first']} to {frame.head['first'] + frame.head['rows'] - 1})"
            " do not match their checksum; run `kinshelf verify`"
        )
