"""The log: one CRC-framed record a generation. A frame on disk *is* the commit.

A frame is a header of 36 bytes (magic, generation, lengths of head and body, CRC-32 of head and
body, CRC-32 of the header), a head (small JSON: what opening a shelf needs) and a body (JSON:
the products, as columns). Numbers are little-endian.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from io import BufferedReader
from pathlib import Path
from typing import Any

from kinshelf.db.catalog import schema
from kinshelf.db.catalog.records import Body, Head
from kinshelf.db.catalog.tables import COLUMNS
from kinshelf.db.errors import ShelfDamaged

HEADER = struct.Struct("<4sQQQII")
MAGIC = b"KSL1"
BASE = "base"
"""The kind of the frames that hold the state which a compacted log begins with."""
_PART = 8 << 20
"""Bytes of the log read at once: what is read again and again lies in the cache already."""
LIMIT = 1 << 34
"""No frame is larger; a longer length is damage."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One committed change. `offset` and `end` are byte positions in the log, which is `path`."""

    generation: int
    head: Head
    body: bytes
    offset: int = 0
    end: int = 0
    path: Path | None = None

    @property
    def is_base(self) -> bool:
        """Whether the frame is part of the state at the start of a compacted log, not a change."""
        return self.head.get("kind") == BASE

    def content(self) -> Body:
        """The body, parsed. Raises ShelfDamaged if it is none that kinshelf writes."""
        try:
            body = _parsed(self.body) if self.body else {}
            return schema.checked(body, self.head, COLUMNS)
        except (ValueError, RecursionError) as error:
            raise self.unusable(error) from error

    def unusable(self, why: object) -> ShelfDamaged:
        """The refusal of a frame whose checksums fit, and whose content does not."""
        return ShelfDamaged(
            f"{self.path or 'the log'} is damaged: generation {self.generation} states what"
            f" kinshelf does not write ({why}); restore the shelf from a backup, or keep the rest"
            " with `kinshelf verify --repair`"
        )


def encode(generation: int, head: Head, body: Body | None = None) -> bytes:
    """The bytes of one frame."""
    first = _dump(head)
    second = _dump(body) if body else b""
    crc = zlib.crc32(second, zlib.crc32(first))
    fields = HEADER.pack(MAGIC, generation, len(first), len(second), crc, 0)[:-4]
    return b"".join((fields, struct.pack("<I", zlib.crc32(fields)), first, second))


def _dump(value: Head | Body) -> bytes:
    # A file's name may hold a lone surrogate, which the catalogue could never take in.
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return text.encode("utf-8", "replace")


def _parsed(data: bytes) -> Any:
    return json.loads(data.decode("utf-8", "replace"))  # older versions let surrogates pass


def decode(data: memoryview, offset: int = 0, path: Path | None = None) -> Frame | None:
    """The frame at `offset`, or None if there is no whole and valid one."""
    if (payload := _payload(data, offset)) is None:
        return None
    generation, head_size, content = payload
    try:
        head = _parsed(bytes(content[:head_size]))
    except (ValueError, RecursionError):
        return None
    if not schema.is_head(head, len(content) - head_size):
        return None
    end = offset + HEADER.size + len(content)
    return Frame(generation, head, bytes(content[head_size:]), offset, end, path)


def _payload(data: memoryview, offset: int) -> tuple[int, int, memoryview] | None:
    """Generation, length of the head, and head and body of a frame whose checksums fit."""
    start = offset + HEADER.size
    if start > len(data):
        return None
    header = data[offset:start]
    magic, generation, head_size, body_size, crc, header_crc = HEADER.unpack(header)
    if magic != MAGIC or zlib.crc32(header[:-4]) != header_crc:
        return None
    if head_size + body_size > min(LIMIT, len(data) - start):
        return None
    payload = data[start : start + head_size + body_size]
    return (generation, head_size, payload) if zlib.crc32(payload) == crc else None


def frames(data: memoryview, offset: int, generation: int) -> Iterator[Frame]:
    """Valid frames from `offset` on, as long as generations follow `generation` one by one.

    A compacted log begins with base frames, which all bear the generation that they hold.
    """
    while (frame := decode(data, offset)) and frame.generation == generation + 1 - frame.is_base:
        yield frame
        offset, generation = frame.end, frame.generation


def read_frames(
    file: BufferedReader, start: int, end: int, generation: int
) -> tuple[list[Frame], memoryview]:
    """As `frames`, from byte `start` of a file on, without bodies; and what follows, up to `end`.

    A part of the file is read at a time, into the same memory: as much as a frame is long.
    """
    found: list[Frame] = []
    buffer = memoryview(bytearray(min(_PART, end - start)))
    while True:
        file.seek(start)
        wanted = buffer[: end - start]
        data = wanted[: file.readinto(wanted)]
        inside = [
            Frame(f.generation, f.head, b"", start + f.offset, start + f.end)
            for f in frames(data, 0, generation)
        ]
        if inside:
            found += inside
            start, generation = inside[-1].end, inside[-1].generation
        elif len(data) < len(buffer) or len(data) == end - start:
            return found, data
        else:
            buffer = memoryview(bytearray(min(4 * len(buffer), end - start)))


def later_frame(data: memoryview, offset: int) -> Frame | None:
    """A valid frame somewhere after a bad place: then that place is damage, not a torn end."""
    raw = bytes(data[offset:])
    place = raw.find(MAGIC, 1)
    while place >= 0:
        if frame := decode(data, offset + place):
            return frame
        place = raw.find(MAGIC, place + 1)
    return None


def refuse_damage(path: Path, rest: memoryview, end: int, last: int) -> None:
    """Raises ShelfDamaged if what follows the last frame, at byte `end`, is no torn end."""
    if later := decode(rest) or later_frame(rest, 0):
        raise ShelfDamaged(
            f"{path} is damaged at byte {end}: what follows generation {last} cannot be read"
            f" although generation {later.generation} does; restore the shelf from a backup,"
            " or keep what is before it with `kinshelf verify --repair`"
        )
    if _payload(rest, 0) is not None:
        raise ShelfDamaged(
            f"{path} is damaged at byte {end}: what follows generation {last} is whole, yet states"
            " what kinshelf does not write; restore the shelf from a backup, or keep what is before"
            " it with `kinshelf verify --repair`"
        )


def check_bounds(path: Path, found: list[Frame], first_row: int, rows: int, width: int) -> None:
    """Raises ShelfDamaged unless each frame goes on at row `rows` and removes only rows before it.

    `first_row` is the epoch's first, `width` what its rows have.
    """
    for frame in found:
        head = frame.head
        if count := head.get("rows", 0):
            if (head["first"], head["width"]) != (rows, width):
                raise replace(frame, path=path).unusable("other rows than come next")
            rows += count
        removed = head.get("removed")
        if removed and not first_row <= min(removed) <= max(removed) < rows:
            raise replace(frame, path=path).unusable("it removes rows that are not there")
