"""Sectors that a disk cannot give back: reading one fails with EIO, as long as its file is there.

What is derived is ignored, and answers stay; for the rest every command names the file. A repair
sets it aside, after which nothing is damaged any more.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

from faults.damage import answers, make
from faults.world import findings

from kinshelf import Shelf
from kinshelf.db import files
from kinshelf.db.errors import KinshelfError
from kinshelf.store.log import checksums
from kinshelf.store.maintain.repair import repair
from kinshelf.store.maintain.verify import verify_path
from kinshelf.store.probes import find_probe

SECTOR = 512
DERIVED = ("catalog.duckdb", "catalog.duckdb.json", "TIP", "LOCK", "images")


class Sectors:
    """The sectors that cannot be read: of a device and inode, from a byte on."""

    def __init__(self, path: Path, at: int) -> None:
        status = path.stat()
        self.file, self.start = (status.st_dev, status.st_ino), at
        self.held = os.open(path, os.O_RDONLY)  # so that no other file gets its inode

    def readable(self, fd: int, at: int, size: int) -> int:
        """Bytes of a read that are had before the bad sector. Raises OSError if there are none."""
        status = os.fstat(fd)
        if (status.st_dev, status.st_ino) != self.file or at + size <= self.start:
            return size
        if at >= self.start + SECTOR:
            return size
        if at >= self.start:
            raise OSError(errno.EIO, "Input/output error")
        return self.start - at


class _Raw(io.RawIOBase):
    """A file, read through `Sectors`."""

    def __init__(self, fd: int, bad: Sectors) -> None:
        self._fd, self._bad, self._at = fd, bad, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._fd

    def seek(self, offset: int, whence: int = 0) -> int:
        begin = {0: 0, 1: self._at, 2: os.fstat(self._fd).st_size}[whence]
        self._at = begin + offset
        return self._at

    def readinto(self, buffer: Any) -> int:
        size = min(len(buffer), max(0, os.fstat(self._fd).st_size - self._at))
        data = os.pread(self._fd, self._bad.readable(self._fd, self._at, size), self._at)
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)

    def close(self) -> None:
        if not self.closed:
            os.close(self._fd)
        super().close()


class _Os:
    """The module `os`, whose reads go through `Sectors`."""

    def __init__(self, bad: Sectors) -> None:
        self._bad = bad

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def fdopen(self, fd: int, mode: str = "r", buffering: int = -1, **more: Any) -> Any:
        if mode != "rb" or buffering == 0:
            return os.fdopen(fd, mode, buffering, **more)
        return io.BufferedReader(_Raw(fd, self._bad))

    def pread(self, fd: int, size: int, at: int) -> bytes:
        return os.pread(fd, self._bad.readable(fd, at, size), at)

    def preadv(self, fd: int, buffers: Any, at: int) -> int:
        size = self._bad.readable(fd, at, len(buffers[0]))
        return os.preadv(fd, [buffers[0][:size]], at)


@contextlib.contextmanager
def failing(path: Path, at: int) -> Iterator[None]:
    """Have the sector at `at` of the file at `path` fail, by whatever name it is opened."""
    bad = Sectors(path, at)
    fake = _Os(bad)
    files.os = checksums.os = fake  # type: ignore[assignment]
    try:
        yield
    finally:
        files.os = checksums.os = os
        os.close(bad.held)


def asked(path: Path, truth: list[Any]) -> str:
    """The error that the shelf ends with, "" if it answers as before, or WRONG."""
    try:
        with Shelf.open(path) as shelf:
            if answers(shelf) != truth:
                return "WRONG"
            find_probe(shelf, shelf.snapshot())
    except KinshelfError as error:
        return str(error)
    return ""


def case(path: Path, random: Random, truth: list[Any]) -> tuple[str, str]:
    """One bad sector: what was hit, and what is wrong with how it was met, if anything."""
    file = random.choice(sorted(f for f in path.rglob("*") if f.is_file() and f.stat().st_size))
    at = random.randrange(file.stat().st_size) // SECTOR * SECTOR
    name = str(file.relative_to(path))
    with failing(file, at):
        problem = asked(path, truth)
        if problem and name.startswith(DERIVED):
            return name, f"{at}: not ignored: {problem}"
        if problem and file.name not in problem and file.parent.name not in problem:
            return name, f"{at}: the file is not named: {problem}"
        if not problem and not name.startswith((*DERIVED, "probes")):
            return name, f"{at}: not noticed"
        found = [finding for finding in verify_path(path)[0] if not finding.harmless]
        if problem and not any(finding.file in name or name in finding.file for finding in found):
            return name, f"{at}: verify does not name it: {found}"
        repair(path)
        if left := [finding for finding in verify_path(path)[0] if not finding.harmless]:
            return name, f"{at}: repair leaves {left}"
        with Shelf.open(path) as shelf:
            if (
                not name.startswith(("log", "vectors", "probes"))
                and answers(shelf)[:-1] != (truth[:-1])
            ):
                return name, f"{at}: repair lost what was not damaged"
            shelf.remove([shelf.snapshot().select()[0].product.id])
            if more := findings(shelf):
                return name, f"{at}: a change after it finds {more}"
    return name, ""


def run(directory: Path, seed: str, cases: int) -> Counter[str]:
    """Try so many bad sectors. Raises AssertionError for those that were met wrongly."""
    base, outcomes, bad = make(directory, seed), Counter[str](), []
    with Shelf.open(base) as shelf:
        truth = answers(shelf)
    for number in range(cases):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(shutil.copytree(base, Path(folder) / "case.shelf"))
            name, problem = case(path, Random(f"{seed}/{number}"), truth)
            outcomes[name.partition("-")[0].partition("/")[0]] += 1
            if problem:
                bad.append(f"{number}: {name} at {problem}")
    assert not bad, "\n".join(bad)
    return outcomes
