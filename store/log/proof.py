"""Whether the log on disk is the one that a handle has read."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kinshelf.db.arrays import FloatArray
from kinshelf.db.errors import ShelfDamaged
from kinshelf.db.files import reading
from kinshelf.db.mapping import mapped
from kinshelf.store.log.frames import HEADER, Frame


@dataclass(frozen=True, slots=True)
class Proof:
    """What tells a log from another: its identity (device, inode) and its last frame's header.

    The header bears the checksums of all that the frame states.
    """

    identity: tuple[int, int]
    offset: int
    header: bytes

    @classmethod
    def of(cls, path: Path, last: Frame | None) -> Proof:
        """Of a log as it is now, up to its last frame."""
        offset, size = (last.offset, HEADER.size) if last else (0, 0)
        with reading(path) as file:
            status = os.fstat(file.fileno())
            file.seek(offset)
            return cls((status.st_dev, status.st_ino), offset, file.read(size))

    def holds(self, path: Path) -> bool:
        """Whether the file at `path` is that log still; one that is missing is judged elsewhere."""
        try:
            with reading(path) as file:
                status = os.fstat(file.fileno())
                file.seek(self.offset)
                found = file.read(len(self.header))
        except FileNotFoundError:
            return True
        return (status.st_dev, status.st_ino) == self.identity and found == self.header


def check_length(path: Path, size: int) -> None:
    """Raises ShelfDamaged where a file is shorter than what is mapped of it.

    Reading past its end would end the process (SIGBUS).
    """
    with contextlib.suppress(FileNotFoundError):  # its pages live on with the mapping
        if path.stat().st_size < size:
            raise ShelfDamaged(
                f"{path} was cut while it was open: restore it from a backup, or keep the rest with"
                " `kinshelf verify --repair`"
            )


def mapped_vectors(path: Path, shape: tuple[int, int]) -> FloatArray:
    """The vectors of a shelf where they lie, float32. Raises ShelfDamaged if they are missing."""
    try:
        return mapped(path, np.float32, shape)
    except FileNotFoundError:
        raise ShelfDamaged(f"{path} is missing: restore it from a backup") from None


def size_of(path: Path) -> int:
    """The bytes of a log. Raises ShelfDamaged if it is missing."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        raise ShelfDamaged(f"{path} is missing: restore it from a backup") from None
