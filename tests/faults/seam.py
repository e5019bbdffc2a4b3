"""Stands between the store and the disk: counts system calls, fails one, or writes them down."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from kinshelf.db.catalog.tables import Catalog
from kinshelf.store.log import disk

CHANGING = ("pwrite", "fdatasync", "fsync", "ftruncate", "rename", "unlink", "mkdir", "rmdir")
GROWING = ("pwrite", "open", "save", "mkdir")


class Died(BaseException):
    """The process ends here: no call after this one reaches the disk."""


Hook = Callable[[str, Callable[..., Any], tuple[Any, ...]], Any]


class _Os:
    """The module `os`, with a hook before every call that changes a disk."""

    def __init__(self, hook: Hook) -> None:
        self._hook = hook

    def __getattr__(self, name: str) -> Any:
        real = getattr(os, name)
        if name not in CHANGING and name != "open":
            return real

        def call(*arguments: Any, **options: Any) -> Any:
            if name == "open" and not arguments[1] & (os.O_CREAT | os.O_TRUNC):
                return real(*arguments, **options)
            return self._hook(name, lambda *a: real(*a, **options), arguments)

        return call


@contextlib.contextmanager
def hooked(hook: Hook) -> Iterator[None]:
    """Every change that the store makes to a disk goes through `hook(name, call, arguments)`."""
    saved = disk.os, Catalog.save
    real = Catalog.save

    def save(catalog: Catalog, path: Path, *more: Any) -> Any:
        return hook("save", lambda *a: real(catalog, *a), (path, *more))

    disk.os, Catalog.save = _Os(hook), save  # type: ignore[assignment,method-assign]
    try:
        yield
    finally:
        disk.os, Catalog.save = saved  # type: ignore[method-assign]


class Counting:
    """Counts the calls of a run."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def __call__(self, name: str, call: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
        self.names.append(name)
        return call(*arguments)


class Failing:
    """Lets call number `at` fail in one of the ways of MODES."""

    def __init__(self, at: int, mode: str) -> None:
        self.at, self.mode, self.count, self.dead = at, mode, 0, False

    def __call__(self, name: str, call: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
        if self.dead:
            raise Died
        number, self.count = self.count, self.count + 1
        if number < self.at:
            return call(*arguments)
        if number == self.at or (
            self.mode == "full" and name in ("pwrite", "open", "save", "mkdir")
        ):
            return getattr(self, f"_{self.mode}")(name, call, arguments)
        return call(*arguments)

    def _exit(self, name: str, call: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
        call(*arguments)
        self.dead = True
        raise Died

    def _torn(self, name: str, call: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
        _half(name, call, arguments)
        self.dead = True
        raise Died

    def _eio(self, name: str, call: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
        raise OSError(errno.EIO, "Input/output error")

    def _enospc(self, name: str, call: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
        _half(name, call, arguments)
        raise OSError(errno.ENOSPC, "No space left on device")

    _full = _enospc


def _half(name: str, call: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    """Half of what a call writes; nothing of a call that writes nothing."""
    if name == "pwrite":
        fd, data, offset = arguments
        call(fd, data[: len(data) // 2], offset)
    elif name == "save":
        call(*arguments)
        path = Path(arguments[0])
        os.truncate(path, path.stat().st_size // 2)


MODES = ("exit", "torn", "eio", "enospc", "full")
