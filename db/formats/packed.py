"""Packed files are unpacked as they are read: gzip, bzip2, Zstandard, and a zip of one file."""

from __future__ import annotations

import bz2
import gzip
import io
import zipfile
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, BinaryIO, cast

from kinshelf.db.errors import UnreadableSource

if TYPE_CHECKING:
    from collections.abc import Callable

PACKED = frozenset({".gz", ".bz2", ".zst", ".zip"})
_RATIO, _FREE = 200, 256 * 2**20
"""No table of products packs to less than a 200th; below 256 MiB nobody is harmed."""


class _Bounded(io.RawIOBase):
    """A stream that ends with an error where far more comes out than such a file can hold."""

    def __init__(self, stream: BinaryIO, path: Path) -> None:
        self._stream, self._path = stream, path
        self._most = max(_FREE, _RATIO * path.stat().st_size)
        self._read = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        data = self._stream.read(len(buffer))
        buffer[: len(data)] = data
        self._read += len(data)
        if self._read > self._most:
            raise UnreadableSource(
                f"{self._path} unpacks to more than {self._most >> 20:,} MiB, {_RATIO} times its"
                " size: no table of products does; unpack it yourself if it is to be trusted"
            )
        return len(data)

    def seek(self, offset: int, whence: int = 0) -> int:
        self._read = 0
        return self._stream.seek(offset, whence)

    def close(self) -> None:
        if not self.closed:
            self._stream.close()
        super().close()


def unpacked(path: Path) -> BinaryIO:
    """The bytes of a file, unpacked by its suffix.

    Raises UnreadableSource for a zip without just one file in it, and while reading for what
    unpacks without an end; OSError, EOFError or zlib.error where it is damaged.
    """
    opener = _OPENERS.get(path.suffix.casefold())
    if opener is None:
        return path.open("rb")
    return cast("BinaryIO", io.BufferedReader(_Bounded(opener(path), path), 2**16))


def inner_name(path: Path) -> Path:
    """The name of what a packed file holds; of another its own. Raises UnreadableSource."""
    suffix = path.suffix.casefold()
    if suffix == ".zip":
        return path.with_name(PurePosixPath(_member(path)).name)
    return path.with_suffix("") if suffix in PACKED else path


def _member(path: Path) -> str:
    try:
        with zipfile.ZipFile(path) as archive:
            names = [n for n in archive.namelist() if not n.endswith("/")]
    except (zipfile.BadZipFile, OSError) as problem:
        raise UnreadableSource(f"{path} cannot be read as a zip archive: {problem}") from problem
    names = [n for n in names if not n.startswith("__MACOSX") and "/." not in f"/{n}"]
    if len(names) != 1:
        raise UnreadableSource(
            f"{path} holds {len(names)} files: unpack it and name the one with the products"
        )
    return names[0]


def _zipped(path: Path) -> BinaryIO:
    name = _member(path)
    try:
        return cast("BinaryIO", zipfile.ZipFile(path).open(name))
    except (zipfile.BadZipFile, RuntimeError, NotImplementedError) as problem:
        raise UnreadableSource(f"{path} cannot be unpacked: {problem}") from problem


def _zstandard(path: Path) -> BinaryIO:
    import pyarrow as pa

    class Stream(io.RawIOBase):
        """Arrow's stream cannot go back: it is opened again."""

        def __init__(self) -> None:
            self._arrow = pa.CompressedInputStream(str(path), "zstd")

        def read(self, size: int = -1) -> bytes:
            return bytes(self._arrow.read(None if size < 0 else size))

        def seek(self, offset: int, whence: int = 0) -> int:
            self._arrow = pa.CompressedInputStream(str(path), "zstd")
            self._arrow.read(offset)
            return offset

    return cast("BinaryIO", Stream())


_OPENERS: dict[str, Callable[[Path], BinaryIO]] = {
    ".gz": lambda path: cast("BinaryIO", gzip.GzipFile(path)),
    ".bz2": lambda path: cast("BinaryIO", bz2.BZ2File(path)),
    ".zst": _zstandard,
    ".zip": _zipped,
}
