"""Requests' work in threads: so many at once, so many waiting, the rest sent away at once."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from kinshelf.serve.base.errors import ShuttingDown, TooBusy, TooSlow

if TYPE_CHECKING:
    from kinshelf.serve.base.settings import ServeSettings

P = ParamSpec("P")
T = TypeVar("T")


class Running:
    """The threads that compute, and how many requests they have."""

    def __init__(self, settings: ServeSettings) -> None:
        self._settings = settings
        self._pool = ThreadPoolExecutor(settings.at_once, "kinshelf-request")
        self._lock = threading.Lock()
        self._draining = False
        self.inflight = 0

    @property
    def draining(self) -> bool:
        """Whether the server is about to end."""
        return self._draining

    async def run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run `work` in a thread and return its result.

        Raises what it raises; TooBusy, ShuttingDown; TooSlow if it takes too long, whereupon it
        goes on to its end and keeps its place until then.
        """
        future = self._submit(functools.partial(work, *args, **kwargs))
        waiting = asyncio.shield(asyncio.wrap_future(future))
        try:
            return await asyncio.wait_for(waiting, self._settings.request_seconds)
        except TimeoutError:
            if future.done():  # `work` itself raised it
                raise
            raise TooSlow(
                f"this took longer than {self._settings.request_seconds:g} s: ask again later"
            ) from None

    def _submit(self, work: Callable[[], T]) -> Future[T]:
        with self._lock:
            if self._draining:
                raise ShuttingDown("the server is shutting down")
            if self.inflight >= self._settings.at_once + self._settings.queue:
                raise TooBusy(f"{self.inflight} requests are being worked on: ask again soon")
            self.inflight += 1
        future = self._pool.submit(contextvars.copy_context().run, work)
        future.add_done_callback(self._done)
        return future

    def _done(self, _: Future[T]) -> None:
        with self._lock:
            self.inflight -= 1

    def drain(self) -> None:
        """Take nothing more. Without the lock: a signal may come while its own thread holds it."""
        self._draining = True

    def close(self) -> None:
        """Wait for what is under way."""
        self.drain()
        self._pool.shutdown()
