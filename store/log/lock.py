"""The writer lock: one process, one thread at a time; the file names who holds it.

The kernel drops a lock when its holder dies, however it dies, so there is no stale lock to
clean up and the text in the file is only ever a message. `filelock` takes the lock on a descriptor
of ours: its `FileLock` neither keeps a note nor notices a LOCK that was renamed and made anew.

Who deletes LOCK while it is held lets a second writer in. So each change is made under a lock of
the log itself too (`alone`), and begins with `WriterLock.check`: the first writer is then refused.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from kinshelf.db.errors import ShelfError, ShelfLocked
from kinshelf.db.files import open_regular, read_bytes
from kinshelf.db.logs import tolerated
from kinshelf.db.text import without_password
from kinshelf.store.log import disk

NAME = "LOCK"
_MOST = 1 << 12
"""Bytes of its note that are read."""
_PATIENCE = 5.0
"""Seconds to wait for the change that another process, which held a deleted LOCK, is making."""


class WriterLock:
    """An exclusive lock on a shelf, re-entrant within its thread.

    `wait` is how many seconds to wait for another process; threads of one process take turns.
    """

    def __init__(self, directory: Path, *, wait: float = 0.0) -> None:
        self._path = directory / NAME
        self._wait = wait
        self._thread = threading.RLock()
        self._depth = 0
        self._fd = -1

    def __enter__(self) -> WriterLock:
        if not self._thread.acquire(timeout=min(max(self._wait, 60.0), threading.TIMEOUT_MAX)):
            raise ShelfLocked(f"{self._path.parent} is being written by another thread")
        try:
            if self._depth == 0:
                self._lock()
            self._depth += 1
        except BaseException:
            self._thread.release()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._depth -= 1
        if self._depth == 0:
            os.close(self._fd)
        self._thread.release()

    def check(self) -> None:
        """Raises ShelfLocked where LOCK is not the file any more on which this lock is held."""
        if not self._is_current(self._fd):
            raise ShelfLocked(
                f"{self._path} was deleted or replaced while this process held it, so that another"
                " may be writing: nothing was changed; leave LOCK alone, which ends with its"
                " process, and run this again"
            )

    def _lock(self) -> None:
        deadline = time.monotonic() + self._wait
        while (fd := self._attempt()) is None:
            if time.monotonic() >= deadline:
                raise ShelfLocked(
                    f"{self._path.parent} is being written by {self._holder()};"
                    " try again when it is done"
                )
            time.sleep(0.02)
        self._fd = fd

    def _attempt(self) -> int | None:
        from filelock import lock_descriptor

        fd = _opened(self._path, os.O_RDWR | os.O_CREAT)
        shared = False
        try:
            held = lock_descriptor(fd, blocking=False) and self._is_current(fd)
            shared = held and os.fstat(fd).st_nlink > 1
            if shared:
                disk.unlink(self._path)
            elif held:
                _write_note(fd)
        except BaseException:
            os.close(fd)
            raise
        if shared or not held:
            os.close(fd)
        # After `cp -al` it is the copy's lock too: this shelf gets one of its own.
        return self._attempt() if shared else fd if held else None

    def _is_current(self, fd: int) -> bool:
        # Who deletes LOCK and makes it anew gets another file, which this lock does not guard.
        try:
            return os.path.samestat(os.fstat(fd), self._path.stat())
        except FileNotFoundError:
            return False

    def _holder(self) -> str:
        unreadable = (OSError, ShelfError, ValueError, KeyError, TypeError, RecursionError)
        with contextlib.suppress(*unreadable):
            holder = json.loads(read_bytes(self._path, _MOST))
            return (
                f"process {holder['pid']} on {holder['host']} (`{holder['command']}`,"
                f" since {holder['since']})"
            )
        return "another process"


@contextlib.contextmanager
def alone(log: Path, lock: WriterLock | None) -> Iterator[None]:
    """Nobody else writes to this log, whatever became of LOCK. Raises ShelfLocked."""
    fd = _locked(log)
    try:
        if lock:
            lock.check()
        yield
    finally:
        os.close(fd)


def _locked(path: Path) -> int:
    from filelock import lock_descriptor

    deadline = time.monotonic() + _PATIENCE
    while True:
        fd = _opened(path, os.O_RDWR)
        try:
            if lock_descriptor(fd, blocking=False) and os.path.samestat(os.fstat(fd), path.stat()):
                return fd
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)
        if time.monotonic() >= deadline:
            raise ShelfLocked(
                f"{path} is being written by another process, though LOCK is free: was LOCK deleted"
                " while it was held? try again when that process is done"
            )
        time.sleep(0.02)


def _opened(path: Path, flags: int) -> int:
    try:
        return open_regular(path, flags)
    except OSError as error:
        raise ShelfError(
            f"{path} cannot be opened ({error}): nothing was changed; make the shelf writable and"
            " free some space, then try again"
        ) from error


def _write_note(fd: int) -> None:
    # A full disk: the lock holds without its note.
    with tolerated(OSError, room="store", then="others cannot see who writes this shelf"):
        note = _whoami()
        disk.write(fd, note, 0)
        disk.truncate(fd, len(note))


def _whoami() -> bytes:
    started = time.strftime("%Y-%m-%dT%H:%M:%S%z")
    command = without_password(" ".join([Path(sys.argv[0]).name, *sys.argv[1:]]))[:300]
    holder = {"pid": os.getpid(), "host": socket.gethostname(), "command": command}
    return json.dumps(holder | {"since": started}).encode()
