"""Batching of the simultaneous requests of many threads."""

from __future__ import annotations

import math
import queue
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from typing import Generic, TypeVar

from kinshelf.serve.base.errors import ShuttingDown

T = TypeVar("T")
R = TypeVar("R")

_LONGEST = 0.03
"""Seconds that a batch waits for company at most."""


_PAIR = 2
"""Two cost less an item than one; more than a few gain little."""


class Batcher(Generic[T, R]):
    """Gathers the items of many threads and lets `threads` of its own do them together.

    `work` gets at most `largest` items, and gives one result each, in their order. While all
    threads are busy the next batches fill; one that is free takes its share and no more.
    `patience` is the share of a batch's time that the next one may wait for as many: those just
    answered ask again soon, and small batches cost more an item. Who is alone never waits.
    """

    def __init__(
        self,
        work: Callable[[list[T]], Iterable[R]],
        largest: int,
        on_batch: Callable[[int], None] = lambda _size: None,
        *,
        threads: int = 1,
        patience: float = 0.0,
    ) -> None:
        self._work, self._largest, self._on_batch = work, largest, on_batch
        self._patience, self._took, self._answered, self._crowd = patience, 0.0, 1, 1.0
        self._waiting: queue.SimpleQueue[tuple[T, Future[R]] | None] = queue.SimpleQueue()
        self._closed, self._busy, self._lock = False, 0, threading.Lock()
        self._threads = [
            threading.Thread(target=self._run, name=f"kinshelf-batch-{i}", daemon=True)
            for i in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    def results(self, items: Sequence[T]) -> list[R]:
        """One result for each item. Raises what `work` raises, or ShuttingDown."""
        return [future.result() for future in [self.put(item) for item in items]]

    def put(self, item: T) -> Future[R]:
        """Its result, once it is there. Raises ShuttingDown."""
        if self._closed:
            raise ShuttingDown("the server is shutting down")
        future: Future[R] = Future()
        self._waiting.put((item, future))
        return future

    @property
    def depth(self) -> int:
        """The number of items that wait."""
        return self._waiting.qsize()

    def _run(self) -> None:
        while (first := self._waiting.get()) is not None:
            with self._lock:  # one gathers at a time, or two would share a crowd
                batch = self._gathered(first)
                self._busy += len(batch)
            started = time.monotonic()
            self._do(batch)
            with self._lock:
                self._busy -= len(batch)
                self._answered = len(batch)
                self._took = time.monotonic() - started
        self._waiting.put(None)  # for the other threads

    def _gathered(self, first: tuple[T, Future[R]]) -> list[tuple[T, Future[R]]]:
        most = min(self._share(1 + self._waiting.qsize()), self._largest)
        enough = min(self._enough(), most)
        deadline = time.monotonic() + min(self._patience * self._took, _LONGEST)
        batch = [first]
        while len(batch) < most:
            left = deadline - time.monotonic() if len(batch) < enough else 0.0
            try:
                following = self._waiting.get(timeout=max(left, 0.0))
            except queue.Empty:
                break
            if following is None:
                self._waiting.put(None)
                break
            batch.append(following)
        return batch

    def _share(self, here: int) -> int:
        """A thread's share of all that ask: here, being worked on, or just answered."""
        count = len(self._threads)
        back = self._answered if here + self._busy + self._answered > 2 else 0
        now = (here + back if count == 1 else max(here, back)) + self._busy
        self._crowd = max(now, 0.9 * self._crowd)
        return math.ceil(round(self._crowd) / count)

    def _enough(self) -> int:
        """So many need wait for no more: while other threads work, some are on their way."""
        count, crowd = len(self._threads), round(self._crowd)
        return crowd if count == 1 else max(_PAIR, crowd // (count + 1))

    def _do(self, batch: list[tuple[T, Future[R]]]) -> None:
        self._on_batch(len(batch))
        try:
            results = list(self._work([item for item, _ in batch]))
        except BaseException as error:  # noqa: BLE001 (passed on to the caller)
            for _, future in batch:
                future.set_exception(error)
            return
        for (_, future), result in zip(batch, results, strict=True):
            future.set_result(result)

    def close(self) -> None:
        """Finish what waits, then end the threads."""
        self._closed = True
        self._waiting.put(None)
        for thread in self._threads:
            thread.join()
