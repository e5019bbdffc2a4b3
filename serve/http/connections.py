"""Connections: uvicorn's, with limits for the head of a request, which it has none for."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from kinshelf.serve.base.errors import RequestRefused, error_body

HEAD_SECONDS = 20.0
"""That a request's line and headers may take to come; their bodies are `limits`' business."""

HEAD_BYTES = 2**16
"""That they may have: the parser keeps what it is sent, as long as it is sent more."""


class Connection(HttpToolsProtocol):
    """Closed where a request's head comes too slowly or is too long; others are not kept out."""

    seconds: float = HEAD_SECONDS
    _timer: asyncio.TimerHandle | None = None
    _head = 0
    """Bytes that came, piece by piece, since the last one that held a part of a body or the end of
    a head."""

    def connection_made(self, transport: Any) -> None:
        """The first request is awaited."""
        super().connection_made(transport)
        self._await_head()

    def on_message_begin(self) -> None:
        """Another one has begun, maybe while the one before is being answered."""
        super().on_message_begin()
        self._head = 1  # not what else stood before it in this piece
        self._await_head()

    def on_headers_complete(self) -> None:
        """Mark the head as complete."""
        self._stop()
        self._head = 0
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Do nothing: `limits` counts every byte of a body."""
        self._head = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """After a body that came later than its answer, uvicorn sets no time for the next one."""
        super().on_message_complete()
        self._head = 0
        if not self._answering:
            self._stop()
            self._await_head()

    def data_received(self, data: bytes) -> None:
        """Count the bytes before a whole head, and those behind a chunked body.

        What is left of a body that is answered already, as when it is refused, has as long to come
        as a head: who sends it may only then read the answer.
        """
        if not self._answering:
            self._await_head()
        self._head += len(data)
        super().data_received(data)
        if self._head > HEAD_BYTES:
            self._refuse(f"The request's headers have more than {HEAD_BYTES} bytes.")

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop waiting for more."""
        self._stop()
        super().connection_lost(exc)

    @property
    def _answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _await_head(self) -> None:
        if self._timer is None:
            self._timer = self.loop.call_later(self.seconds, self._late)

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _late(self) -> None:
        if self._answering:  # a head sent ahead has at least as long as that answer
            self._timer = self.loop.call_later(self.seconds, self._late)
        elif self._head:
            self._refuse(f"The request's headers took more than {self.seconds:g} s.")
        else:  # browsers open connections that they may never need
            self.transport.close()

    def send_400_response(self, msg: str) -> None:
        """Refuse what is not HTTP, in the form of every failure."""
        body = json.dumps(error_body(RequestRefused(msg))).encode()
        head = (
            "HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\n"
            f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + body)
        self.transport.close()

    def _refuse(self, message: str) -> None:
        self._stop()
        if self._answering:  # it would be taken for that answer
            self.transport.close()
        elif not self.transport.is_closing():
            self.send_400_response(message)
