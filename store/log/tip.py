"""TIP: where the log ended when the newest change was acknowledged; 32 bytes, never synced.

A log that a crash cut short and one that was damaged at its end look alike, except that only the
second lacks a change that was acknowledged. TIP is written after a change is durable, so it never
names one that is not; it may be older than the truth, or gone, and then proves nothing.
"""

from __future__ import annotations

import os
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

from kinshelf.db.errors import ShelfDamaged
from kinshelf.db.files import open_regular, read_bytes
from kinshelf.db.logs import tolerated
from kinshelf.store.log import disk

NAME = "TIP"
_FIELDS = struct.Struct("<4sQQQ")
_MAGIC = b"KST1"
_SIZE = _FIELDS.size + 4


@dataclass(frozen=True, slots=True)
class Tip:
    """The newest acknowledged generation of an epoch and where its frame ends in the log."""

    epoch: int
    generation: int
    log_end: int


def read_tip(directory: Path) -> Tip | None:
    """The tip as written, or None if there is none that can be read."""
    try:
        raw = read_bytes(directory / NAME, _SIZE + 1)
    except (OSError, ShelfDamaged):
        return None
    if len(raw) != _SIZE or raw[-4:] != struct.pack("<I", zlib.crc32(raw[:-4])):
        return None
    magic, *numbers = _FIELDS.unpack(raw[:-4])
    return Tip(*numbers) if magic == _MAGIC else None


def write_tip(directory: Path, tip: Tip) -> None:
    """Write it down; a disk that refuses costs only the help in telling damage from a crash."""
    raw = _FIELDS.pack(_MAGIC, tip.epoch, tip.generation, tip.log_end)
    with tolerated(OSError, room="store", then=f"{directory / NAME} is not written"):
        fd = open_regular(directory / NAME, os.O_RDWR | os.O_CREAT)
        try:
            disk.write(fd, raw + struct.pack("<I", zlib.crc32(raw)), 0)
        finally:
            os.close(fd)
