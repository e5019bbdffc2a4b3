"""Pictures decoded elsewhere: a few processes that are killed when one takes too long.

A decoder is C code that reads what strangers send. It runs in processes that hold nothing, with
limits of time and memory that the system enforces; one that hangs or dies costs its picture and
is begun anew. They are spawned, never forked, and speak frames of JSON and raw bytes: nothing
that comes back is executed.
"""

from __future__ import annotations

import functools
import json
import math
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from kinshelf.db.errors import ImageRejected
from kinshelf.serve.base.errors import ShuttingDown
from kinshelf.serve.workers.frames import read_frame, write_frame

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from kinshelf.store.encode.image_processor import Preprocessing

    Pixels = NDArray[np.uint8]


_PIPE = 2**18
"""Bytes that a pipe holds: a picture's pixels, so that neither side waits for the other."""

_WATCH = 0.25
"""Seconds between two looks at whose time is over."""


class _Dead(Exception):
    """The process ended, or its time was over."""


@functools.cache
def _as_dict(how: Preprocessing) -> dict[str, Any]:
    return asdict(how)


class _Worker:
    """One process; used by one thread at a time."""

    def __init__(self, limits: Mapping[str, int]) -> None:
        command = [sys.executable, "-m", "kinshelf.serve.workers.decoder", json.dumps(limits)]
        one = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
        self._process = subprocess.Popen(  # noqa: S603 (our own interpreter and module)
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True,
            env=os.environ | one, pipesize=_PIPE,
        )  # fmt: skip
        self._deadline = math.inf

    @property
    def lives(self) -> bool:
        """Whether it can still be asked."""
        return self._process.poll() is None

    def ask(self, head: Mapping[str, Any], data: bytes, seconds: float) -> tuple[Any, bytes]:
        """Send a frame, wait for one. Raises _Dead."""
        self._deadline = time.monotonic() + seconds
        try:
            assert self._process.stdin and self._process.stdout
            write_frame(self._process.stdin, head, data)
            return read_frame(self._process.stdout)
        except (OSError, ValueError, EOFError) as error:
            raise _Dead from error
        finally:
            self._deadline = math.inf

    def end_if_late(self) -> None:
        """Kill it if the time for its picture is over; from any thread."""
        if time.monotonic() > self._deadline:
            self._process.kill()

    def close(self) -> None:
        """End it at once."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()


class Decoders:
    """`count` processes that decode; safe to use from any number of threads.

    seconds: for one picture. memory: bytes of address space of a process. pixels: of a picture.
    """

    def __init__(self, count: int, *, seconds: float, memory: int, pixels: int) -> None:
        self._seconds = seconds
        self._limits = {"memory": memory, "seconds": round(seconds) + 1, "pixels": pixels}
        self._idle: queue.LifoQueue[_Worker | None] = queue.LifoQueue()
        self._count = count
        self._closed = False
        self._begun: set[_Worker] = set()
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

    def _new(self) -> _Worker:
        worker = _Worker(self._limits)
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
            told, raw = worker.ask(head, data, self._seconds)
        except _Dead:
            self._bury(worker)
            worker = None
            message = f"the image took more than {self._seconds:g} s or too much memory to decode"
            raise ImageRejected("too-hard", message) from None
        finally:
            self._idle.put(worker)
        if "reason" in told:
            raise ImageRejected(str(told["reason"]), str(told["message"]))
        return told, raw

    def _bury(self, worker: _Worker | None) -> None:
        self.killed += 1
        if worker is not None:
            self._begun.discard(worker)
            worker.close()

    def close(self) -> None:
        """End the processes; what they are busy with is finished first."""
        self._closed = True
        for _ in range(self._count):
            worker = self._idle.get()
            if worker is not None:
                worker.close()
        self._ended.set()
        for _ in range(self._count):
            self._idle.put(None)
