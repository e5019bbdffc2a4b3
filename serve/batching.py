"""What many threads ask for at the same time, done by one thread as one batch."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from typing import Generic, TypeVar

from kinshelf.serve.errors import ShuttingDown

T = TypeVar("T")
R = TypeVar("R")

_LONGEST = 0.03
"""Seconds that a batch waits for company at most."""


class Batcher(Generic[T, R]):
    """Gathers the items of many threads and lets one thread do them together.

    While a batch is worked on the next one fills. `work` gets at most `largest` items and gives one
    result each, in their order. `patience` is the share of a batch's time that the next one may
    wait for as many as came in the last two: those just answered ask again soon, and small batches
    cost more an item. Who is alone never waits.
    """

    def __init__(
        self,
        work: Callable[[list[T]], Iterable[R]],
        largest: int,
        on_batch: Callable[[int], None] = lambda _size: None,
        *,
        patience: float = 0.0,
    ) -> None:
        self._work, self._largest, self._on_batch = work, largest, on_batch
        self._patience, self._took, self._sizes = patience, 0.0, (1, 1)
        self._waiting: queue.SimpleQueue[tuple[T, Future[R]] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="kinshelf-batch", daemon=True)
        self._closed = False
        self._thread.start()

    def results(self, items: Sequence[T]) -> list[R]:
        """One result for each item. Raises what `work` raises, or ShuttingDown."""
        if self._closed:
            raise ShuttingDown("the server is shutting down")
        futures: list[Future[R]] = [Future() for _ in items]
        for entry in zip(items, futures, strict=True):
            self._waiting.put(entry)
        return [future.result() for future in futures]

    @property
    def depth(self) -> int:
        """How many items wait."""
        return self._waiting.qsize()

    def _run(self) -> None:
        while (first := self._waiting.get()) is not None:
            batch = self._gathered(first)
            started = time.monotonic()
            self._do(batch)
            self._took, self._sizes = time.monotonic() - started, (self._sizes[1], len(batch))

    def _gathered(self, first: tuple[T, Future[R]]) -> list[tuple[T, Future[R]]]:
        batch = [first]
        wanted = 1 if max(self._sizes) == 1 else min(sum(self._sizes), self._largest)
        deadline = time.monotonic() + min(self._patience * self._took, _LONGEST)
        while len(batch) < self._largest:
            wait = deadline - time.monotonic() if len(batch) < wanted else 0.0
            try:
                following = self._waiting.get(timeout=max(wait, 0.0))
            except queue.Empty:
                break
            if following is None:
                self._waiting.put(None)
                break
            batch.append(following)
        return batch

    def _do(self, batch: list[tuple[T, Future[R]]]) -> None:
        self._on_batch(len(batch))
        try:
            results = list(self._work([item for item, _ in batch]))
        except BaseException as error:  # noqa: BLE001 (whoever asked is told)
            for _, future in batch:
                future.set_exception(error)
            return
        for (_, future), result in zip(batch, results, strict=True):
            future.set_result(result)

    def close(self) -> None:
        """Finish what waits, then end the thread."""
        self._closed = True
        self._waiting.put(None)
        self._thread.join()
