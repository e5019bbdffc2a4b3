"""The writer lock: one process, one thread at a time; the file names who holds it.

The kernel drops an flock when its holder dies, however it dies, so there is no stale lock to
clean up and the text in the file is only ever a message.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import sys
import threading
import time
from pathlib import Path

from kinshelf.db.errors import ShelfLocked

NAME = "LOCK"


class WriterLock:
    """An exclusive lock on a shelf, re-entrant within its thread."""

    def __init__(self, directory: Path, *, wait: float = 0.0) -> None:
        self._path = directory / NAME
        self._wait = wait
        self._thread = threading.RLock()
        self._depth = 0
        self._fd = -1

    def __enter__(self) -> WriterLock:
        if not self._thread.acquire(timeout=max(self._wait, 60.0)):
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

    def _lock(self) -> None:
        fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        deadline = time.monotonic() + self._wait
        while not _try_lock(fd):
            if time.monotonic() >= deadline:
                holder = _describe(os.pread(fd, 4096, 0))
                os.close(fd)
                raise ShelfLocked(
                    f"{self._path.parent} is being written by {holder}; try again when it is done"
                )
            time.sleep(0.02)
        self._fd = fd
        os.ftruncate(fd, 0)
        os.pwrite(fd, _whoami(), 0)


def _try_lock(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _whoami() -> bytes:
    started = time.strftime("%Y-%m-%dT%H:%M:%S%z")
    command = " ".join([Path(sys.argv[0]).name, *sys.argv[1:]])[:300]
    holder = {"pid": os.getpid(), "host": socket.gethostname(), "command": command}
    return json.dumps(holder | {"since": started}).encode()


def _describe(raw: bytes) -> str:
    try:
        holder = json.loads(raw)
        return (
            f"process {holder['pid']} on {holder['host']} (`{holder['command']}`,"
            f" since {holder['since']})"
        )
    except (ValueError, KeyError, TypeError):
        return "another process"
