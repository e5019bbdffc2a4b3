"""One writer at a time in Milvus, which has no locks: a lease that runs out unless it is renewed.

It is kept by agreement: of two writers that take it in the same moment, the one whose entry is
there a moment later has it, and each change names the generation that it follows.
"""

from __future__ import annotations

import json
import os
import socket
import time
import uuid
from typing import TYPE_CHECKING, Any

from kinshelf.db.errors import KinshelfError, ShelfLocked
from kinshelf.db.logs import tolerated

if TYPE_CHECKING:
    from kinshelf.store.engines.milvus.client import Link

LEASE = 60.0
"""Seconds that a writer may be silent; one that died on this machine is known at once."""
_RENEWED = 15.0
_SETTLED = 0.05


class Lease:
    """The right to write, of this handle."""

    def __init__(self, link: Link, shown: str) -> None:
        self._link = link
        self._shown = shown
        self._token = uuid.uuid4().hex
        self._until = 0.0

    def take(self, wait: float) -> None:
        """Raises ShelfLocked, naming the holder, if another has it for longer than `wait`."""
        deadline = time.monotonic() + wait
        while (holder := self._holder()) is not None:
            if time.monotonic() >= deadline:
                raise ShelfLocked(
                    f"{self._shown} is being written by {holder['host']} process {holder['pid']}:"
                    f" wait for it, or give --wait SECONDS; if it is gone, {LEASE:g} s will do"
                )
            time.sleep(min(0.5, wait))
        self._write(time.time() + LEASE)
        time.sleep(_SETTLED)
        if self._read().get("token") != self._token:
            self.take(max(0.0, deadline - time.monotonic()))

    def renew(self) -> None:
        """Keep it. Raises ShelfLocked if it was lost."""
        if self._until - time.time() > LEASE - _RENEWED:
            return
        if self._read().get("token") != self._token:
            raise ShelfLocked(f"{self._shown} was taken by another writer: run this again")
        self._write(time.time() + LEASE)

    def give_back(self) -> None:
        """Release the lease; if the engine is gone it expires by itself. Another writer's lease
        stays."""
        with tolerated(KinshelfError, room="store", then="the lease runs out by itself"):
            if self._read().get("token") == self._token:
                self._write(0.0)

    def _read(self) -> dict[str, Any]:
        return self._link.read_json("state", "lease") or {}

    def _holder(self) -> dict[str, Any] | None:
        found = self._read()
        taken = found.get("until", 0.0) > time.time() and found.get("token") != self._token
        return found if taken and not _died(found) else None

    def _write(self, until: float) -> None:
        self._until = until
        entry = {"token": self._token, "until": until, "host": socket.gethostname(),
                 "pid": os.getpid()}  # fmt: skip
        self._link.put("state", "lease", 0, json.dumps(entry))


def _died(holder: dict[str, Any]) -> bool:
    """Whether the holder was a process of this machine that is no more."""
    if holder["host"] != socket.gethostname():
        return False
    try:
        os.kill(holder["pid"], 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False
