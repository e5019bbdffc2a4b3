"""Pictures decoded elsewhere: a few processes that are killed when one takes too long.

A decoder is C code that reads what strangers send. It runs in processes that hold nothing, with
limits of time and memory that the system enforces; one that hangs or dies costs its picture and
is begun anew.
"""

from __future__ import annotations

import functools
import json
import math
import queue
import threading
import time
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from kinshelf.db.errors import ImageRejected
from kinshelf.db.logs import report
from kinshelf.serve.base.errors import ServerFailed, ShuttingDown
from kinshelf.serve.workers.child import Child, Dead

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from kinshelf.store.encode.image_processor import Preprocessing

    Pixels = NDArray[np.uint8]


_PIPE = 2**18
"""Bytes that a pipe holds: a picture's pixels, so that neither side waits for the other."""

_WATCH = 0.25
"""Seconds between two looks at whose time is over."""


@functools.cache
def _as_dict(how: Preprocessing) -> dict[str, Any]:
    return asdict(how)


class _Decoder(Child):
    """One process; used by one thread at a time."""

    def __init__(self, limits: Mapping[str, int]) -> None:
        one = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
        super().__init__(
            "kinshelf.serve.workers.decoder", json.dumps(limits), pipe=_PIPE, changes=one
        )
        self._deadline = math.inf

    def ask(self, head: Mapping[str, Any], data: bytes, seconds: float) -> tuple[Any, bytes]:
        """Send a message, wait for one. Raises Dead."""
        self._deadline = time.monotonic() + seconds
        try:
            self.send(head, data)
            return self.receive()
        finally:
            self._deadline = math.inf

    def end_if_late(self) -> None:
        """Kill it if the time for its picture is over; from any thread."""
        if time.monotonic() > self._deadline:
            self.kill()


class Decoders:
    """`count` processes that decode; safe to use from any number of threads.

    seconds: for one picture. memory: bytes of address space of a process. pixels: of a picture.
    """

    def __init__(self, count: int, *, seconds: float, memory: int, pixels: int) -> None:
        self._seconds = seconds
        self._limits = {"memory": memory, "seconds": round(seconds) + 1, "pixels": pixels}
        self._idle: queue.LifoQueue[_Decoder | None] = queue.LifoQueue()
        self._count = count
        self._closed = False
        self._begun: set[_Decoder] = set()
        self._ended = threading.Event()
        threading.Thread(target=self._watch, name="kinshelf-decoders", daemon=True).start()
        self.killed = 0
        for _ in range(count):
            self._idle.put(None)

    def begin(self) -> None:
        """Start every process now rather than at its first picture."""
        workers = [self._idle.get() for _ in range(self._count)]
        try:
            if not self._closed:
                workers = [worker or self._new() for worker in workers]
        finally:
            for worker in workers:
                self._idle.put(worker)

    def _new(self) -> _Decoder:
        try:
            worker = _Decoder(self._limits)
        except Dead as error:  # no picture is to blame
            message = f"no process that decodes pictures can be begun ({error.__cause__})"
            raise ServerFailed(f"{message}: is there enough memory?") from error
        self._begun.add(worker)
        return worker

    def _watch(self) -> None:
        """One thread for all: a timer for each picture would be a thread each."""
        while not self._ended.wait(min(_WATCH, self._seconds / 10)):
            for worker in self._begun.copy():
                worker.end_if_late()

    def check(self, data: bytes) -> None:
        """Decode for nothing but to know that it can be. Raises ImageRejected."""
        self._ask({"do": "check"}, data)

    def thumbnail(self, data: bytes, side: int) -> bytes:
        """A JPEG whose longer side has at most `side` pixels. Raises ImageRejected."""
        return self._ask({"do": "thumbnail", "side": side}, data)[1]

    def pixels(self, data: bytes, how: Preprocessing | None) -> Pixels:
        """(H, W, 3) uint8: as `Encoder.preprocess` gives, or whole where `how` is None.

        Raises ImageRejected.
        """
        head, raw = self._ask({"do": "pixels", "how": how and _as_dict(how)}, data)
        shape = (int(head["height"]), int(head["width"]), 3)
        return np.frombuffer(raw, np.uint8).reshape(shape)

    def _ask(self, head: Mapping[str, Any], data: bytes) -> tuple[Any, bytes]:
        worker = self._idle.get()
        try:
            if self._closed:
                raise ShuttingDown("the server is shutting down")
            if worker is not None and not worker.lives:
                self._bury(worker)  # what is asked now is not to blame
                worker = None
            worker = worker or self._new()
            reply, raw = worker.ask(head, data, self._seconds)
        except Dead as error:
            report("serve", "a process that decodes ended or was killed, with its picture", error)
            self._bury(worker)
            worker = None
            message = f"the image took more than {self._seconds:g} s or too much memory to decode"
            raise ImageRejected("too-hard", message) from None
        finally:
            self._idle.put(worker)
        if "reason" in reply:
            raise ImageRejected(str(reply["reason"]), str(reply["message"]))
        return reply, raw

    def _bury(self, worker: _Decoder | None) -> None:
        self.killed += 1
        if worker is not None:
            self._begun.discard(worker)
            worker.end()

    def close(self) -> None:
        """End the processes; what they are busy with is finished first."""
        self._closed = True
        for _ in range(self._count):
            worker = self._idle.get()
            if worker is not None:
                worker.end()
        self._ended.set()
        for _ in range(self._count):
            self._idle.put(None)
