"""Opens the files of a shelf: regular files alone, and never through a symbolic link.

A shelf may come from a stranger. A link in it would have us read or overwrite a file elsewhere,
and a pipe would keep us waiting for ever.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from io import BufferedReader
from pathlib import Path

from kinshelf.db.errors import ShelfError

_GUARDS = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)


def open_regular(path: Path, flags: int = os.O_RDONLY) -> int:
    """A descriptor of the regular file at `path`; with O_CREAT of a new one.

    Raises ShelfError for anything else than a regular file, and OSError.
    """
    try:
        fd = os.open(path, flags | _GUARDS, 0o644)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO, errno.EISDIR) or path.is_symlink():
            raise not_regular(path) from error
        raise
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise not_regular(path)
    return fd


def not_regular(path: Path) -> ShelfError:
    """The refusal of a link, pipe, device or folder that stands where a file belongs."""
    kind = "a symbolic link" if path.is_symlink() else "no regular file"
    return ShelfError(
        f"{path} is {kind}, and a shelf consists of regular files: remove it, or put the file"
        " itself in its place"
    )


@contextlib.contextmanager
def reading(path: Path) -> Iterator[BufferedReader]:
    """The regular file at `path`, open to be read. A failure inside, as of a bad sector, names it.

    Raises ShelfError and OSError like `open_regular`.
    """
    with os.fdopen(open_regular(path), "rb") as file, naming(path):
        yield file


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Have an OSError that names no file name this one."""
    try:
        yield
    except OSError as error:
        if error.filename is not None or error.errno is None:
            raise
        raise OSError(error.errno, os.strerror(error.errno), str(path)) from error


def read_bytes(path: Path, most: int | None = None) -> bytes:
    """The bytes of the regular file at `path`, the first `most` of them if that is given."""
    with reading(path) as file:
        return file.read(-1 if most is None else most)
