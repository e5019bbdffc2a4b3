"""Files that are mapped into memory, and what happens when their bytes go away meanwhile.

Reading a page that a file no longer has, or that its disk cannot give back, ends the process by
SIGBUS. On Linux the page becomes zeros instead, and `check_whole` reports it to whoever read it.
Elsewhere the signal stays what it is.
"""

from __future__ import annotations

import ctypes
import signal
import sys
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from kinshelf.db.errors import ShelfDamaged
from kinshelf.db.files import reading

_PAGE = 1 << 16
"""The largest page of a system that we run on; a mapping begins at a multiple of it or not at all
in the middle of one."""
_SA_SIGINFO, _SIGSET = 4, 128
_READ, _PRIVATE, _FIXED, _ANONYMOUS = 1, 2, 0x10, 0x20
_ADDRESS_AT = 16
"""Where a siginfo of 64 bits has the address that was read."""


class _Action(ctypes.Structure):
    """`struct sigaction` of glibc and musl."""

    _fields_ = (
        ("handler", ctypes.c_void_p),
        ("mask", ctypes.c_byte * _SIGSET),
        ("flags", ctypes.c_int),
        ("restorer", ctypes.c_void_p),
    )


class _Mapped:
    """The addresses of one mapping; `lost` once a page of it could not be read."""

    def __init__(self, path: Path, begin: int, size: int) -> None:
        self.path, self.begin, self.end = path, begin, begin + size
        self.lost = False


class _Guard:
    """Answers SIGBUS for the mappings that it knows, and leaves any other to what was there."""

    def __init__(self) -> None:
        self.known: dict[int, _Mapped] = {}
        self.lost = 0
        self._before: _Action | None = None
        self._kept: tuple[Any, ...] = ()

    def install(self) -> None:
        """Take the signal over, once a process, where its structures are as we know them."""
        if self._before or not sys.platform.startswith("linux") or sys.maxsize < 1 << 32:
            return
        self._libc = ctypes.PyDLL(None)  # keeps the interpreter's lock: no thread comes between
        self._libc.mmap.restype = ctypes.c_void_p
        kind = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)
        callback = kind(self._answer)
        mine, before = _Action(flags=_SA_SIGINFO), _Action()
        mine.handler = ctypes.cast(callback, ctypes.c_void_p).value
        self._kept = callback, mine
        if self._libc.sigaction(signal.SIGBUS, ctypes.byref(mine), ctypes.byref(before)) == 0:
            self._before = before

    def _answer(self, _signal: int, information: int, _context: int) -> None:
        """Runs in the thread that read, which is inside NumPy or FAISS and holds no lock there."""
        address = ctypes.c_size_t.from_address(information + _ADDRESS_AT).value
        found = next((m for m in self.known.values() if m.begin <= address < m.end), None)
        if self._before and (found is None or not self._emptied(found, address)):
            self._libc.sigaction(signal.SIGBUS, ctypes.byref(self._before), None)
        elif found:
            found.lost = True
            self.lost += 1

    def _emptied(self, mapped: _Mapped, address: int) -> bool:
        """Put zeros in the place of the rest of a mapping, from the page of `address` on."""
        begin = max(address - address % _PAGE, mapped.begin)
        how = _PRIVATE | _ANONYMOUS | _FIXED
        at = self._libc.mmap(
            ctypes.c_void_p(begin), ctypes.c_size_t(mapped.end - begin), _READ, how, -1,
            ctypes.c_long(0),
        )  # fmt: skip
        return bool(at == begin)


_guard = _Guard()


def mapped(path: Path, dtype: DTypeLike, shape: Sequence[int] | None = None) -> NDArray[Any]:
    """The bytes of a regular file as an array that is read where they lie, read-only.

    Raises FileNotFoundError, and ValueError if the file is empty or shorter than `shape`.
    """
    with reading(path) as file:
        array = np.memmap(file, dtype, "r", shape=None if shape is None else tuple(shape))
    _guard.install()
    begin = array.__array_interface__["data"][0]
    _guard.known[begin] = _Mapped(path, begin, array.nbytes)
    weakref.finalize(array.base, _guard.known.pop, begin, None).atexit = False
    return array


def is_whole(array: NDArray[Any]) -> bool:
    """Whether each page of a mapped array, or a view of one, that was read could be read."""
    return _guard.lost == 0 or _lost(array) is None


def check_whole(array: NDArray[Any]) -> None:
    """Raises ShelfDamaged if bytes that were read of a mapped array were not those of its file."""
    if _guard.lost and (lost := _lost(array)):
        raise ShelfDamaged(
            f"{lost.path} was cut while it was read, or its disk could not give it back: restore"
            " it from a backup, or keep the rest with `kinshelf verify --repair`"
        )


def _lost(array: NDArray[Any]) -> _Mapped | None:
    address = array.__array_interface__["data"][0]
    for each in _guard.known.values():
        if each.lost and each.begin <= address < each.end:
            return each
    return None
