"""Rules for download addresses: URLs and addresses are checked, then used exactly as checked.

A catalogue is a list of URLs that somebody else wrote. Without these checks it could make us fetch
from the machine itself, the local network or a cloud's metadata service (server-side request
forgery, OWASP A10:2021). Names are looked up here, all their addresses are checked, and the
connection is made to one of those very addresses, so a name that changes its answer (DNS
rebinding) gains nothing. Reasons: bad-url, scheme, credentials, placeholder, unknown-host,
private-address.
"""

from __future__ import annotations

import contextlib
import functools
import ipaddress
import socket
import threading
import time
from concurrent.futures import Future
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, TypeVar

import httpcore
import httpx

from kinshelf.db.errors import ImageRejected
from kinshelf.db.text import without_password

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterable

T = TypeVar("T")
Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_PLACEHOLDERS = ("transparent-pixel",)
_PORTS = range(1, 2**16)
_TICK = 0.25
_CONNECT_SECONDS = 10.0

# Beyond what `ipaddress` calls global: IETF assignments (Oracle's metadata service among them),
# the 6to4 relay, Azure's host service; and the IPv6 ranges that only tunnels and tests use.
_REFUSED_V4 = tuple(
    ipaddress.IPv4Network(text) for text in ("192.0.0.0/24", "192.88.99.0/24", "168.63.129.16/32")
)
_REFUSED_V6 = tuple(
    ipaddress.IPv6Network(text) for text in ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20")
)
_UNICAST_V6 = ipaddress.IPv6Network("2000::/3")
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


class Budget:
    """The seconds that one request may take in all, and the flag that ends it sooner."""

    def __init__(self, seconds: float, stop: threading.Event) -> None:
        self._seconds = seconds
        self._deadline = time.monotonic() + seconds
        self._stop = stop

    def remaining(self) -> float:
        """Seconds left, above 0. Raises httpcore.ReadTimeout, or ImageRejected `stopped`."""
        if self._stop.is_set():
            raise ImageRejected("stopped", "the download was stopped")
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise httpcore.ReadTimeout(f"no answer within {self._seconds:g} s")
        return left

    def tick(self) -> float:
        """Seconds to wait before asking again, so that a stop is noticed soon."""
        return min(self.remaining(), _TICK)


BUDGET: ContextVar[Budget] = ContextVar("BUDGET")
"""The budget of the request that this thread is making."""


def check_url(text: str) -> httpx.URL:
    """Parse a URL that may be fetched, as far as that can be checked without looking up its host.

    Raises ImageRejected: `bad-url`, `scheme`, `credentials`, `placeholder`.
    """
    shown = ascii(without_password(text[:200]))  # a data: URL may hold megabytes
    try:
        url = _parsed(text.strip())
    except Exception as error:  # what no parser foresaw is no URL either
        raise ImageRejected("bad-url", f"{shown} is not a URL: {str(error)!a}") from error
    if url.userinfo:
        raise ImageRejected("credentials", f"{url.host!r}: a URL must not carry a password")
    if url.scheme not in ("http", "https"):
        raise ImageRejected("scheme", f"{shown}: only http and https URLs are fetched")
    if not url.host or (url.port is not None and url.port not in _PORTS):
        raise ImageRejected("bad-url", f"{shown} names no host or an impossible port")
    if any(name in url.path for name in _PLACEHOLDERS):
        raise ImageRejected("placeholder", f"{shown} is a placeholder, not a picture")
    return url


def _parsed(text: str) -> httpx.URL:
    """The URL, each part of it computed once: a host is decoded only when it is asked for."""
    url = httpx.URL(text)
    for part in (url.host, url.netloc, url.raw_path, str(url)):
        if not isinstance(part, bytes):
            part.encode()
    return url


def is_public(address: Address) -> bool:
    """Whether an address belongs to the public internet, judged by the IPv4 one inside it if any.

    IPv4-mapped (RFC 4291) and NAT64 (RFC 6052) addresses lead to that IPv4 address; 6to4 and
    Teredo tunnels are refused whole.
    """
    if isinstance(address, ipaddress.IPv4Address):
        refused = address.is_multicast or any(address in network for network in _REFUSED_V4)
        return address.is_global and not refused
    if address.ipv4_mapped is not None:
        return is_public(address.ipv4_mapped)
    if address in _NAT64:
        return is_public(ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF))
    refused = any(address in network for network in _REFUSED_V6)
    return address in _UNICAST_V6 and address.is_global and not refused


def resolve(host: str, port: int, *, allow_private: bool = False) -> list[str]:
    """The numeric addresses of a host, in the system's order, each of them checked.

    Raises ImageRejected: `private-address` if any address is not public, `unknown-host`; and
    httpcore.ConnectError or ReadTimeout where trying again may help.
    """
    addresses = _look_up(host, port)
    for address in addresses:
        if not allow_private and not is_public(ipaddress.ip_address(address)):
            at = "" if host == address else f"{address}, which is "
            message = (
                f"{host} is {at}not a public address: "
                "allow private hosts if you trust every URL of this source"
            )
            raise ImageRejected("private-address", message)
    return addresses


def _look_up(host: str, port: int) -> list[str]:
    def look_up() -> list[str]:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        return list(dict.fromkeys(str(entry[4][0]) for entry in found))

    try:
        return _abandonable(look_up)
    except (OSError, UnicodeError) as error:
        if getattr(error, "errno", None) == socket.EAI_AGAIN:
            raise httpcore.ConnectError(f"{host} could not be looked up") from error
        raise ImageRejected("unknown-host", f"there is no host {host!r}: {error}") from error


def _abandonable(work: Callable[[], T], discard: Callable[[T], object] | None = None) -> T:
    # Look-ups, connects and handshakes wait without asking whether they are still wanted, so
    # they run in a thread that can be left behind; `discard` then gets what comes too late.
    result: Future[T] = Future()
    threading.Thread(target=_run, args=(work, result), daemon=True).start()

    def dispose(late: Future[T]) -> None:
        if discard is not None and late.exception() is None:
            discard(late.result())

    try:
        while True:
            with contextlib.suppress(TimeoutError):
                return result.result(BUDGET.get().tick())
    except BaseException:
        result.add_done_callback(dispose)
        raise


def _run(work: Callable[[], T], result: Future[T]) -> None:
    try:
        result.set_result(work())
    except (OSError, ValueError, httpcore.NetworkError, httpcore.TimeoutException) as error:
        result.set_exception(error)


def _close(stream: httpcore.NetworkStream) -> None:
    stream.close()


class CheckedNetwork(httpcore.NetworkBackend):
    """Connects to checked addresses only, and within `BUDGET`, whatever httpcore's timeouts say.

    TLS still verifies the certificate against the host's name: httpcore passes that name on.
    """

    def __init__(self, *, allow_private: bool = False) -> None:
        self._allow_private = allow_private
        self._plain = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.NetworkStream:
        """A connection to the first of the host's addresses that answers."""
        failure: Exception = httpcore.ConnectError(f"{host} has no address")
        for address in resolve(host, port, allow_private=self._allow_private):
            try:
                return self._connect(address, port, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
        raise failure

    def _connect(
        self,
        address: str,
        port: int,
        local_address: str | None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None,
    ) -> httpcore.NetworkStream:
        limit = min(BUDGET.get().remaining(), _CONNECT_SECONDS)
        connect = functools.partial(
            self._plain.connect_tcp, address, port, limit, local_address, socket_options
        )
        return _BudgetedStream(_abandonable(connect, _close))


class _BudgetedStream(httpcore.NetworkStream):
    """A stream whose every wait ends with the budget, so that a slow drip cannot go on for ever."""

    def __init__(self, stream: httpcore.NetworkStream) -> None:
        self._stream = stream

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        while True:
            wait = BUDGET.get().tick()
            try:
                return self._stream.read(max_bytes, wait)
            except httpcore.ReadTimeout:
                continue

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, BUDGET.get().remaining())

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore.NetworkStream:
        limit = BUDGET.get().remaining()
        handshake = functools.partial(self._stream.start_tls, ssl_context, server_hostname, limit)
        return _BudgetedStream(_abandonable(handshake, _close))

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)
