"""Every change that the store makes to a disk goes through these few calls.

One seam, so that a test can fail each of them in turn and see what is left behind, and so that
systems that lack a call are met in one place.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from kinshelf.db.errors import ShelfError
from kinshelf.db.files import open_regular, reading

try:
    import fcntl
except ImportError:  # Windows: see `check_system`
    fcntl = None  # type: ignore[assignment]

_NO_FULL_SYNC = {errno.ENOTSUP, errno.ENOTTY, errno.EINVAL}
"""How a file system answers that knows no F_FULLFSYNC."""

_BLOCK = 1 << 20
"""Bytes copied at once."""


def check_system() -> None:
    """Raises ShelfError, in one line, where the system lacks what a shelf is written with."""
    lacking = [name for name in ("pread", "preadv", "pwrite", "ftruncate") if not hasattr(os, name)]
    if lacking or fcntl is None:
        raise ShelfError(
            f"kinshelf runs on Linux and macOS; this system lacks {', '.join(lacking) or 'flock'}:"
            " on Windows use WSL or a Linux container"
        )


def write(fd: int, data: memoryview | bytes, offset: int) -> None:
    """Write all of `data` at `offset`; a short write goes on where it stopped."""
    view = memoryview(data).cast("B")
    while view:
        done = os.pwrite(fd, view, offset)
        view, offset = view[done:], offset + done


def sync(fd: int) -> None:
    """Force a file's bytes and size to the disk."""
    if not _synced_fully(fd):
        getattr(os, "fdatasync", os.fsync)(fd)


def _sync_whole(fd: int) -> None:
    """Force a file's bytes and all that is known of it to the disk; also a directory's."""
    if not _synced_fully(fd):
        os.fsync(fd)


def _synced_fully(fd: int) -> bool:
    """Past the disk's own cache, where fsync stops before it: on macOS."""
    full = getattr(fcntl, "F_FULLFSYNC", None)
    if full is None:
        return False
    try:
        fcntl.fcntl(fd, full)
    except OSError as error:
        if error.errno in _NO_FULL_SYNC:
            return False
        raise
    return True


def sync_file(path: Path) -> None:
    """Force to the disk what a library has written."""
    fd = open_regular(path)
    try:
        _sync_whole(fd)
    finally:
        os.close(fd)


def sync_directory(path: Path) -> None:
    """Force a directory's entries to the disk: a rename without it can be lost."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        _sync_whole(fd)
    finally:
        os.close(fd)


def truncate(fd: int, size: int) -> None:
    """Cut a file to `size` bytes."""
    os.ftruncate(fd, size)


def cut(path: Path, size: int) -> None:
    """Cut a file to `size` bytes, durably, if it is longer."""
    if path.stat().st_size > size:
        fd = create(path)
        try:
            truncate(fd, size)
            sync(fd)
        finally:
            os.close(fd)


def rename(old: Path, new: Path) -> None:
    """Rename, replacing what is there, and make it durable."""
    os.rename(old, new)
    sync_directory(new.parent)


def unlink(path: Path) -> None:
    """Remove a file if it is there."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


def discard(path: Path) -> None:
    """Remove a file durably, so that it is gone before what it speaks of is replaced."""
    unlink(path)
    sync_directory(path.parent)


def remove_tree(path: Path) -> None:
    """Remove a directory and what is in it, if it is there."""
    if path.is_symlink():
        unlink(path)
    elif path.is_dir():
        shutil.rmtree(path)


def make_directory(path: Path) -> None:
    """Make a directory and the parents that it lacks, durably; one that is there is kept."""
    missing = [p for p in (path, *path.parents) if not p.exists()]
    for new in reversed(missing):
        with contextlib.suppress(FileExistsError):  # another process was as quick
            os.mkdir(new)
        sync_directory(new.parent)


def create(path: Path) -> int:
    """Open `path` for reading and writing, made durable if it is new; returns the descriptor."""
    new = not path.exists()
    fd = open_regular(path, os.O_RDWR | os.O_CREAT)
    if new:
        try:
            _sync_whole(fd)
            sync_directory(path.parent)
        except BaseException:
            os.close(fd)
            raise
    return fd


def replace(path: Path, data: bytes) -> None:
    """Put `data` at `path` so that a crash leaves the old file or the new one, never a mixture."""
    temporary = path.with_name(f".{path.name}.tmp")
    fd = open_regular(temporary, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
    try:
        write(fd, data, 0)
        sync(fd)
    finally:
        os.close(fd)
    rename(temporary, path)


def has_another_name(path: Path) -> bool:
    """Whether a file is part of another directory too, as of each after `cp -al`."""
    with contextlib.suppress(FileNotFoundError):
        return path.stat().st_nlink > 1
    return False


def unshare(path: Path) -> None:
    """Give a file bytes of its own if it has another name too."""
    if not has_another_name(path):
        return
    temporary = path.with_name(f".{path.name}.tmp")
    unlink(temporary)
    fd = open_regular(temporary, os.O_RDWR | os.O_CREAT)
    try:
        at = 0
        for block in _blocks(path):
            write(fd, block, at)
            at += len(block)
        sync(fd)
    finally:
        os.close(fd)
    rename(temporary, path)


def _blocks(path: Path) -> Iterator[bytes]:
    with reading(path) as file:
        while block := file.read(_BLOCK):
            yield block


def sync_tree(path: Path) -> None:
    """Force every file of a small directory, and its entries, to the disk."""
    for file in sorted(path.iterdir()):
        sync_file(file)
    sync_directory(path)


def write_synced(path: Path, data: bytes | memoryview, offset: int) -> None:
    """Write all of `data` into the file at `path`, and force it to the disk."""
    fd = create(path)
    try:
        write(fd, data, offset)
        sync(fd)
    finally:
        os.close(fd)


def write_again(path: Path, offset: int, size: int) -> None:
    """Write what stands there once more: a sync that failed elsewhere may have dropped it."""
    with reading(path) as file:
        file.seek(offset)
        data = file.read(size)
    write_synced(path, data, offset)


def write_directory(final: Path, write: Callable[[Path], None]) -> None:
    """Put into `final`, anew, the files that `write` puts into the directory it is given.

    It gets its name only when its files are synced.
    """
    temporary = final.with_name(f".{final.name}.tmp")
    for leftover in (temporary, final):
        remove_tree(leftover)
    make_directory(temporary)
    write(temporary)
    sync_tree(temporary)
    rename(temporary, final)
