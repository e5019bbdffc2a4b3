"""Opens the files of a shelf: regular files alone, and never through a symbolic link.

A shelf may come from a stranger. A link in it would have us read or overwrite a file elsewhere,
and a pipe would keep us waiting for ever.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
from collections.abc import Iterator
from io import BufferedReader
from pathlib import Path

from kinshelf.db.errors import ShelfDamaged, ShelfError

_SECTOR = 512
_WRITABLE = 0o222
_UNREADABLE = {
    number for name in ("EIO", "EBADMSG", "EUCLEAN") if (number := getattr(errno, name, None))
}
"""How systems report a sector, or a file, that its disk cannot give back."""
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
        if flags == os.O_RDONLY and error.errno in _UNREADABLE:
            raise _unreadable(path, error) from error
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
    """The regular file at `path`, open to be read. A failure inside names it.

    Raises ShelfDamaged for a sector that cannot be read, else like `open_regular`.
    """
    with os.fdopen(open_regular(path), "rb") as file, naming(path):
        yield file


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Have an OSError that names no file name this one; ShelfDamaged if it cannot be read."""
    try:
        yield
    except OSError as error:
        if error.filename is not None or error.errno is None:
            raise
        if error.errno in _UNREADABLE:
            raise _unreadable(path, error) from error
        raise OSError(error.errno, os.strerror(error.errno), str(path)) from error


def _unreadable(path: Path, error: OSError) -> ShelfDamaged:
    return ShelfDamaged(
        f"{path} cannot be read ({error.strerror}), its disk may be failing: restore it from a"
        " backup, or set it aside and keep the rest with `kinshelf verify --repair`"
    )


def read_around(path: Path) -> tuple[bytes, list[int]]:
    """The bytes of a file, zeros in sectors that cannot be read, and the offsets of those."""
    try:
        return read_bytes(path), []
    except ShelfDamaged:
        fd = open_regular(path)
    try:
        data, bad = bytearray(os.fstat(fd).st_size), []
        for at in range(0, len(data), _SECTOR):
            try:
                piece = os.pread(fd, _SECTOR, at)
                data[at : at + len(piece)] = piece
            except OSError:
                bad.append(at)
        return bytes(data), bad
    finally:
        os.close(fd)


def check_writable(path: Path) -> None:
    """Raises PermissionError for a file that is there and read-only, for root too."""
    with contextlib.suppress(FileNotFoundError):
        if not (path.stat().st_mode & _WRITABLE and os.access(path, os.W_OK)):
            raise PermissionError(errno.EACCES, "it is read-only", str(path))


@contextlib.contextmanager
def written(path: Path) -> Iterator[Path]:
    """A path to write a file to, which gets its own name when it is whole.

    So a full disk or an interruption leaves the file that was there, or none. What is no regular
    file, as /dev/stdout, is written itself. Raises PermissionError for a file that is read-only,
    and names this path in what fails.
    """
    target = Path(os.path.realpath(path))
    if target.exists() and not target.is_file():
        yield target
        return
    check_writable(path)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        if target.exists():
            shutil.copymode(target, temporary)
        temporary.replace(target)
    except OSError as error:
        if error.filename is not None and os.fspath(error.filename) == str(temporary):
            raise type(error)(error.errno, error.strerror, str(path)) from error
        raise
    finally:
        temporary.unlink(missing_ok=True)


def read_bytes(path: Path, most: int | None = None) -> bytes:
    """The bytes of the regular file at `path`, the first `most` of them if that is given."""
    with reading(path) as file:
        return file.read(-1 if most is None else most)
