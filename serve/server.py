"""The server itself: uvicorn, which drains as soon as it receives a signal to end."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import TYPE_CHECKING

import uvicorn
from threadpoolctl import threadpool_limits

from kinshelf.db.errors import InputError
from kinshelf.serve.app import create_app
from kinshelf.serve.http.connections import Connection

if TYPE_CHECKING:
    from types import FrameType

    from fastapi import FastAPI

    from kinshelf.serve.base.settings import ServeSettings

CONNECTIONS = 2048


class _Server(uvicorn.Server):
    """Tells the service at the signal, so that followers of a job are let go before the wait."""

    def __init__(self, config: uvicorn.Config, app: FastAPI) -> None:
        super().__init__(config)
        self._app = app

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """SIGINT or SIGTERM; the second one ends at once."""
        self._app.state.service.drain()
        super().handle_exit(sig, frame)


def serve(settings: ServeSettings, ready: Callable[[str], None]) -> None:
    """Serve until SIGINT or SIGTERM, then finish what is under way.

    `ready` is called with the URL once connections are taken. Raises InputError for an address
    that cannot be listened on, and what `create_app` raises.
    """
    # Requests keep the cores busy by themselves: more threads for one product of small matrices
    # would only wait for each other. The encoder's many threads are its own.
    with threadpool_limits(1, user_api="blas"):
        app = create_app(settings)
        with listen(settings) as listening:
            ready(url_of(listening))
            _Server(configured(app, settings), app).run([listening])


def configured(app: FastAPI, settings: ServeSettings) -> uvicorn.Config:
    """The configuration of uvicorn."""
    return uvicorn.Config(
        app, log_config=None, access_log=False, server_header=False, proxy_headers=False, ws="none",
        http=Connection, limit_concurrency=CONNECTIONS, timeout_keep_alive=20,
        timeout_graceful_shutdown=round(settings.drain_seconds),
    )  # fmt: skip


def listen(settings: ServeSettings) -> socket.socket:
    """The socket that connections come in at. Raises InputError."""
    try:
        family, *_, address = socket.getaddrinfo(
            settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        return socket.create_server(address[:2], family=family, backlog=CONNECTIONS)
    except (OSError, UnicodeError) as error:  # UnicodeError: no name of a host
        raise InputError(
            f"{settings.host} port {settings.port} cannot be listened on ({error}): choose another"
            " with --host and --port"
        ) from error


def url_of(listening: socket.socket) -> str:
    """The address at which it can be reached."""
    host, port = listening.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"
