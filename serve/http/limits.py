"""Around every request: site and rate, size and time of the body, headers, and the count of it."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from fastapi import Request, Response
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect

from kinshelf.serve.base.errors import (
    RequestRefused,
    ServerFailed,
    TooLarge,
    TooManyRequests,
    TooSlow,
)
from kinshelf.serve.http.security import HEADERS

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from kinshelf.serve.base.settings import ServeSettings
    from kinshelf.serve.http.security import Guard
    from kinshelf.serve.service.metrics import Metrics

Answering = Callable[[Request, RequestRefused], Response]

_FORGOTTEN = 4096
"""Addresses whose rate is remembered."""

_ADDRESS = 64
"""Characters of each: a proxy may pass on what somebody made up."""

_HEADERS = [(name.lower().encode(), value.encode()) for name, value in HEADERS.items()]
_LEFT = 499
"""The status that is counted where the client went before it was answered: nginx's number."""

_PICTURED = ("/ask", "/classify", "/similar", "/products")
"""Addresses whose forms may hold a picture."""

_LARGE = 2**18
"""Bytes of a body beyond which it takes one of `_PLACES`, until it is answered: bodies that are
sent halfway, or wait for their turn, would hold all memory."""

_PLACES = 32

_FREE = ("/healthz", "/static/")


class Rate:
    """A bucket of `burst` requests for each address, filled at `rate` a second."""

    def __init__(self, rate: float, burst: int) -> None:
        self._rate, self._burst = rate, burst
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, address: str) -> None:
        """Raises TooManyRequests where the bucket is empty."""
        now = time.monotonic()
        left, then = self._buckets.get(address, (float(self._burst), now))
        left = min(self._burst, left + (now - then) * self._rate)
        if left < 1:
            raise TooManyRequests(f"more than {self._rate:g} requests a second: ask more slowly")
        self._buckets[address] = (left - 1, now)
        self._buckets.move_to_end(address)
        if len(self._buckets) > _FORGOTTEN:
            self._buckets.popitem(last=False)


class Limits:
    """ASGI middleware; what it refuses never reaches a route, and is reported by `answer`."""

    def __init__(
        self, app: ASGIApp, *, settings: ServeSettings, guard: Guard, metrics: Metrics,
        answer: Answering,
    ) -> None:  # fmt: skip
        self._app, self._settings, self._guard, self._metrics = app, settings, guard, metrics
        self._answer = answer
        self._rate = Rate(settings.rate, settings.burst)
        self._places = asyncio.Semaphore(_PLACES)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        exchange = _Exchange(self._settings, self._places, scope, receive, send)
        method, started = scope["method"], time.monotonic()
        if method == "HEAD":  # as GET, whose body stays here; uvicorn reads its own scope
            scope = {**scope, "method": "GET"}
        try:
            self._judge(scope, exchange.most)
            await self._app(scope, exchange.receive, exchange.send)
        except RequestRefused as error:
            if exchange.status is None:
                await self._answer(Request(scope), error)(scope, receive, exchange.send)
        except ClientDisconnect:  # nobody is left to be answered
            exchange.status = exchange.status or _LEFT
        except Exception as error:
            if exchange.status is None:
                await self._answer(Request(scope), _unexpected(error))(
                    scope, receive, exchange.send
                )
            raise  # uvicorn logs it
        finally:
            exchange.end()
            route = getattr(scope.get("route"), "path", "none")
            status = exchange.status or 500
            self._metrics.answered(method, route, status, time.monotonic() - started)

    def _judge(self, scope: Scope, most: int) -> None:
        headers = Headers(scope=scope)
        self._guard.check_site(scope["method"], headers.get("host", ""), headers.get("origin"))
        length = headers.get("content-length", "0")
        if length.isdecimal() and int(length) > most:
            raise _too_large(most)
        if not _path(scope).startswith(_FREE):
            self._rate.take((scope.get("client") or ("",))[0][:_ADDRESS])


def _path(scope: Scope) -> str:
    path: str = scope["path"].removeprefix(scope.get("root_path", ""))
    return path


def _most(settings: ServeSettings, scope: Scope) -> int:
    """Bytes that the body may have: few, unless it may hold a picture."""
    kind = Headers(scope=scope).get("content-type", "").casefold()
    pictured = kind.startswith("multipart/form-data") and _path(scope).startswith(_PICTURED)
    return settings.max_body if pictured else min(settings.max_body, settings.max_text)


class _Exchange:
    """One request's messages, counted and timed."""

    def __init__(
        self, settings: ServeSettings, places: asyncio.Semaphore, scope: Scope, receive: Receive,
        send: Send,
    ) -> None:  # fmt: skip
        self._places, self._receive, self._send = places, receive, send
        self.most, self._head = _most(settings, scope), scope["method"] == "HEAD"
        self._deadline = time.monotonic() + settings.request_seconds
        self._size = 0
        self._whole = self._placed = False
        self.status: int | None = None

    async def receive(self) -> Message:
        if self._whole:  # then it waits for the client to go, which may take its time
            return await self._receive()
        try:
            async with asyncio.timeout(max(0.0, self._deadline - time.monotonic())):
                message = await self._receive()
                self._size += len(message.get("body", b""))
                self._whole = not message.get("more_body", False)
                if self._size > self.most:
                    raise _too_large(self.most)
                if self._size > _LARGE and not self._placed:
                    self._placed = await self._places.acquire()
        except TimeoutError:
            raise TooSlow("the request's body came too slowly, or after too many others") from None
        return message

    def end(self) -> None:
        """Leave the place to another."""
        if self._placed:
            self._places.release()

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            given: list[Any] = list(message.get("headers", []))
            names = {name for name, _ in given}
            message = {**message, "headers": given + [h for h in _HEADERS if h[0] not in names]}
        elif self._head:  # its end was sent behind the headers, so that no stream goes on
            return
        await self._send(message)
        if self._head:
            await self._send({"type": "http.response.body", "body": b""})


def _unexpected(error: Exception) -> ServerFailed:
    return ServerFailed(f"the server failed ({type(error).__name__}): its log has the details")


def _too_large(most: int) -> TooLarge:
    return TooLarge(f"the body has more than {most:,} bytes")
