"""Image URLs to files in the cache: bounded in bytes and seconds, retried, checked at every hop.

Each URL ends as a `CachedImage` or as an `ImageRejected` whose reason is one of those in
`db.addresses` and `db.images`, or: timeout, connection, truncated, http-404 (and other statuses),
too-many-redirects, too-many-bytes, unsupported-encoding, stopped. The environment's proxy settings
are not used: a proxy would connect to addresses that nobody checked.
"""

from __future__ import annotations

import threading
import zlib
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from importlib.metadata import version
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

from kinshelf.db.errors import ImageRejected
from kinshelf.db.images.decode import decode_image

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Set
    from contextlib import AbstractContextManager
    from types import TracebackType

    import httpcore
    import httpx
    import tenacity

    from kinshelf.db.images.cache import CachedImage, ImageCache, Validators

    Headers = dict[bytes, bytes]

MAX_REDIRECTS = 5
MAX_WAIT = 30.0
"""Seconds between two attempts at most, whatever a Retry-After header asks for."""

_REDIRECTS = (301, 302, 303, 307, 308)
_DECODERS_AT_ONCE = 2
_HEADERS: dict[bytes | str, bytes | str] = {"Accept": "image/*", "Accept-Encoding": "identity"}


class _Transient(ImageRejected):
    """A failure that may pass; `retry_after` is the wait in seconds that the server asked for."""

    def __init__(self, reason: str, message: str, retry_after: float | None = None) -> None:
        super().__init__(reason, message)
        self.retry_after = retry_after


class _Found(NamedTuple):
    """What a server sent."""

    data: bytes
    validators: Validators


class Downloader:
    """Downloads images into a cache; use it as a context manager, from any number of threads.

    timeout: seconds for one attempt from look-up to last byte, redirects included.
    max_bytes: of the decoded body. retries: further attempts after connection errors, timeouts,
    429 and 5xx; before them about backoff, 2 backoff, 4 backoff ... seconds, drawn at random.
    check: raises ImageRejected for bytes that are no picture.
    allow_private_hosts: also fetch from this machine and its local network.
    """

    def __init__(
        self,
        cache: ImageCache,
        *,
        concurrency: int = 8,
        timeout: float = 20.0,
        max_bytes: int = 20 * 2**20,
        allow_private_hosts: bool = False,
        retries: int = 3,
        backoff: float = 0.5,
        user_agent: str | None = None,
        check: Callable[[bytes], object] = decode_image,
    ) -> None:
        self._cache = cache
        self._concurrency = concurrency
        self._timeout = timeout
        self._max_bytes = max_bytes
        self._retries = retries
        self._backoff = backoff
        self._user_agent = user_agent or f"kinshelf/{version('kinshelf')}"
        self._check = check
        self._current: set[str] = set()
        self.stale: dict[str, ImageRejected] = {}
        """Pictures that were to be refreshed and could not be, by URL, and why."""
        self._decoding = threading.BoundedSemaphore(_DECODERS_AT_ONCE)
        self._allow_private = allow_private_hosts
        self._pool: httpcore.ConnectionPool | None = None
        self._opening = threading.Lock()

    def __enter__(self) -> Downloader:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections that are kept open between downloads."""
        if self._pool is not None:
            self._pool.close()

    def fetch(self, url: str) -> CachedImage:
        """The image at `url`, from the cache if it is there, else downloaded, checked and stored.

        Raises ImageRejected with a reason of the module's lists, OSError if the disk refuses.
        """
        return self._fetch(url, threading.Event())

    def fetch_many(
        self, urls: Iterable[str], refresh: Set[str] = frozenset()
    ) -> Iterator[tuple[str, CachedImage | ImageRejected]]:
        """Fetch each distinct URL once and yield it with its outcome, in order of completion.

        What is in the cache is fetched once more for the URLs in `refresh`, if the server has
        another version; where that fails, the cached one is yielded, and `stale` has the reason.

        An exception in the consumer, Ctrl-C or closing the iterator stops what is under way
        within about a second. Raises OSError if the disk refuses.
        """
        stop = threading.Event()
        waiting = iter(dict.fromkeys(urls))
        with ThreadPoolExecutor(self._concurrency, "kinshelf-download") as workers:
            running: dict[Future[CachedImage | ImageRejected], str] = {}
            try:
                while True:
                    for url in islice(waiting, 2 * self._concurrency - len(running)):
                        future = workers.submit(self._outcome, url, stop, url in refresh)
                        running[future] = url
                    if not running:
                        return
                    for future in wait(running, return_when=FIRST_COMPLETED).done:
                        yield running.pop(future), future.result()
            finally:
                stop.set()
                workers.shutdown(wait=False, cancel_futures=True)

    def _outcome(
        self, url: str, stop: threading.Event, refresh: bool
    ) -> CachedImage | ImageRejected:
        try:
            return self._refreshed(url, stop) if refresh else self._fetch(url, stop)
        except ImageRejected as rejected:
            return rejected

    def _fetch(self, url: str, stop: threading.Event) -> CachedImage:
        cached = self._cache.get(url)
        if cached is not None:
            return cached
        found = self._retrying(stop)(self._attempt, url, stop)
        assert found is not None  # only a conditional request is answered by "not modified"
        return self._kept(url, found)

    def _refreshed(self, url: str, stop: threading.Event) -> CachedImage:
        cached = self._cache.get(url)
        if cached is None or url in self._current:
            return self._fetch(url, stop)
        known = self._cache.validators(url)
        try:
            found = self._retrying(stop)(self._attempt, url, stop, known)
            self._current.add(url)
            return cached if found is None else self._kept(url, found)
        except ImageRejected as rejected:
            if rejected.reason == "stopped":
                raise
            self.stale[url] = rejected
            return cached

    def _kept(self, url: str, found: _Found) -> CachedImage:
        with self._decoding:  # a decoded picture may take hundreds of megabytes
            self._check(found.data)
        self._current.add(url)
        return self._cache.put(url, found.data, *found.validators)

    def _retrying(self, stop: threading.Event) -> tenacity.Retrying:
        import tenacity

        exponential = tenacity.wait_random_exponential(self._backoff, MAX_WAIT)

        def pause(state: tenacity.RetryCallState) -> float:
            failure = state.outcome.exception() if state.outcome else None
            retry_after = failure.retry_after if isinstance(failure, _Transient) else None
            return exponential(state) if retry_after is None else min(retry_after, MAX_WAIT)

        return tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(_Transient),
            stop=tenacity.stop_after_attempt(self._retries + 1),
            wait=pause,
            sleep=tenacity.sleep_using_event(stop),
            reraise=True,
        )

    def _attempt(
        self, url: str, stop: threading.Event, known: Validators = (None, None)
    ) -> _Found | None:
        import httpcore

        from kinshelf.db.images.addresses import BUDGET, Budget

        BUDGET.set(Budget(self._timeout, stop))
        try:
            return self._follow(url, known)
        except httpcore.TimeoutException as error:
            message = f"{url} took longer than {self._timeout:g} s"
            raise _Transient("timeout", message) from error
        except (httpcore.NetworkError, httpcore.ProtocolError) as error:
            raise _Transient("connection", f"{url} could not be fetched: {error}") from error
        except ValueError as error:  # as from idna, ssl or an odd header: that URL alone fails
            raise ImageRejected("bad-url", f"{url} cannot be fetched: {error}") from error

    def _follow(self, url: str, known: Validators) -> _Found | None:
        """What the server sends; None where it still has the version that is `known`."""
        from kinshelf.db.images.addresses import check_url

        target = check_url(url)
        for _ in range(MAX_REDIRECTS + 1):
            with self._request(target, known) as response:
                headers = {name.lower(): value for name, value in response.headers}
                location = headers.get(b"location")
                if response.status == 304 and any(known):
                    return None
                if response.status not in _REDIRECTS or location is None:
                    validators = (headers.get(b"etag"), headers.get(b"last-modified"))
                    etag, modified = map(_text, validators)
                    return _Found(self._body(target, response, headers), (etag, modified))
            target = check_url(_joined(target, location))
        message = f"{url} redirects more than {MAX_REDIRECTS} times"
        raise ImageRejected("too-many-redirects", message)

    def _request(
        self, url: httpx.URL, known: Validators
    ) -> AbstractContextManager[httpcore.Response]:
        import httpcore

        target = httpcore.URL(
            scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path
        )
        headers = {**_HEADERS, "Host": url.netloc, "User-Agent": self._user_agent}
        conditions = zip(("If-None-Match", "If-Modified-Since"), known, strict=True)
        headers |= {name: value for name, value in conditions if value}
        return self._opened().stream("GET", target, headers=headers)

    def _opened(self) -> httpcore.ConnectionPool:
        """The connections, opened at the first download: certificates take 0.1 s to read."""
        with self._opening:
            if self._pool is None:
                self._pool = connection_pool(self._concurrency, self._allow_private)
            return self._pool

    def _body(self, url: httpx.URL, response: httpcore.Response, headers: Headers) -> bytes:
        _check_status(url, response.status, headers)
        inflate = _inflater(headers.get(b"content-encoding", b"identity"))
        message = f"{url} sends more than {self._max_bytes:,} bytes"
        too_many = ImageRejected("too-many-bytes", message)
        if int(headers.get(b"content-length", b"0")) > self._max_bytes:
            raise too_many
        body = bytearray()
        for chunk in _chunks(url, response):
            body += inflate(chunk, self._max_bytes + 1 - len(body))
            if len(body) > self._max_bytes:
                raise too_many
        return bytes(body)


def connection_pool(concurrency: int, allow_private: bool) -> httpcore.ConnectionPool:
    """Connections to checked addresses alone; the caller sets `addresses.BUDGET`."""
    # Connections are pooled by host name, not by address: two hosts on one address must each
    # show their own certificate.
    import httpcore

    from kinshelf.db.images.addresses import CheckedNetwork

    return httpcore.ConnectionPool(
        ssl_context=httpcore.default_ssl_context(),
        max_connections=None,
        max_keepalive_connections=concurrency,
        keepalive_expiry=10.0,
        network_backend=CheckedNetwork(allow_private=allow_private),
    )


def _check_status(url: httpx.URL, status: int, headers: Headers) -> None:
    if status == 200:
        return
    reason, message = f"http-{status}", f"{url}: the server answered with status {status}"
    if status == 429 or status >= 500:
        raise _Transient(reason, message, _retry_after(headers))
    raise ImageRejected(reason, message)


def _retry_after(headers: Headers) -> float | None:
    """Seconds that a Retry-After header asks for, given as a number or a date (RFC 9110 10.2.3)."""
    text = _text(headers.get(b"retry-after")) or ""
    if text.isascii() and text.isdecimal():
        return float(text)
    try:
        when = parsedate_to_datetime(text)
    except (ValueError, TypeError, OverflowError):
        return None
    now = datetime.now(UTC)
    return max(0.0, (when.replace(tzinfo=when.tzinfo or UTC) - now).total_seconds())


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode("utf-8", "replace")


def _joined(url: httpx.URL, location: bytes) -> str:
    try:
        return str(url.join(_text(location) or ""))
    except Exception as error:  # see `check_url`
        raise ImageRejected("bad-url", f"{url} redirects to {location!r}: {error}") from error


def _chunks(url: httpx.URL, response: httpcore.Response) -> Iterator[bytes]:
    import httpcore

    try:
        yield from response.iter_stream()
    except httpcore.RemoteProtocolError as error:
        raise _Transient("truncated", f"{url} breaks off: {error}") from error


def _inflater(encoding: bytes) -> Callable[[bytes, int], bytes]:
    """A function from a chunk and a number of bytes to at most so many decoded ones.

    Servers may compress although we ask them not to; what cannot be unpacked with a limit is
    refused, since a few kilobytes may hold gigabytes.
    """
    if encoding.lower() == b"identity":
        return lambda chunk, _: chunk
    if encoding.lower() not in (b"gzip", b"x-gzip", b"deflate"):
        raise ImageRejected("unsupported-encoding", f"the server sent encoding {encoding!r}")
    stream = zlib.decompressobj(zlib.MAX_WBITS | 32)

    def inflate(chunk: bytes, limit: int) -> bytes:
        try:
            return stream.decompress(chunk, limit)
        except zlib.error as error:
            raise ImageRejected("damaged", f"the compressed body is damaged: {error}") from error

    return inflate
