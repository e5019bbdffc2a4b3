"""What a proxy in front of the server changes: who asks, by which host and scheme, and where."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from starlette.datastructures import Headers
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from kinshelf.serve.base.prefix import PREFIX, is_prefix

if TYPE_CHECKING:
    from collections.abc import Sequence


class Behind(ProxyHeadersMiddleware):
    """X-Forwarded-For and -Proto as uvicorn takes them; -Host, -Port and -Prefix beside them.

    networks: the proxies that are believed; what others send of these headers counts for nothing.
    prefix: that of every address. A proxy may pass it on or take it away. own: the paths of the
    routes.
    """

    def __init__(
        self, app: Any, *, networks: Sequence[str], prefix: str, own: frozenset[str]
    ) -> None:
        super().__init__(app, list(networks))
        self._prefix, self._own = prefix, own

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serve one request."""
        if scope["type"] == "http":
            believed = (scope.get("client") or ("",))[0] in self.trusted_hosts
            headers = Headers(scope=scope) if believed else Headers()
            sent = headers.get("x-forwarded-prefix", "").rstrip("/")
            prefix = sent if is_prefix(sent) else self._prefix
            path = _moved(scope["path"], prefix, self._own) if prefix else scope["path"]
            scope = {**scope, "root_path": prefix, "path": path, **_host(scope, headers)}
            PREFIX.set(prefix)
        await super().__call__(scope, receive, send)


def _moved(path: str, prefix: str, own: frozenset[str]) -> str:
    """The path with the prefix before it, as ASGI has it; `own` are paths of the server itself."""
    if path == prefix and path not in own:
        return f"{prefix}/"
    return path if path.startswith(f"{prefix}/") else prefix + path


def _host(scope: Any, headers: Headers) -> dict[str, Any]:
    """The headers with the host that the browser asked, where the proxy tells it."""
    # The last: a page that asks by fetch() can send one of its own, which a proxy adds to.
    host = headers.get("x-forwarded-host", "").rpartition(",")[2].strip()
    if not host:
        return {}
    port = headers.get("x-forwarded-port", "").strip()
    if port.isdecimal() and ":" not in host:
        host = f"{host}:{port}"
    others = [one for one in scope["headers"] if one[0] != b"host"]
    return {"headers": [*others, (b"host", host.encode("latin-1"))]}
