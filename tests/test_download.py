"""Downloads end in the cache or as a stated reason, against a local server that misbehaves."""

from __future__ import annotations

import functools
import gzip
import io
import ipaddress
import json
import os
import shutil
import socket
import ssl
import stat
import subprocess
import threading
import time
import tracemalloc
from collections import Counter
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING

import httpcore
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from kinshelf.db.errors import ImageRejected
from kinshelf.db.images.addresses import check_url, is_public
from kinshelf.db.images.cache import CachedImage, ImageCache
from kinshelf.db.images.decode import content_hash
from kinshelf.db.images.download import MAX_REDIRECTS, Downloader

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def encode(image: Image.Image, name: str) -> bytes:
    file = io.BytesIO()
    image.save(file, name)
    return file.getvalue()


def noise(seed: int) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


JPEG = encode(noise(0), "JPEG")
PNG = encode(noise(1), "PNG")


class Shop:
    """A web server on 127.0.0.1 whose paths answer as a test states."""

    def __init__(self) -> None:
        self.answers: dict[str, Callable[[BaseHTTPRequestHandler], None]] = {}
        self.asked: Counter[str] = Counter()
        self.headers: list[dict[str, str]] = []
        self.connections: set[tuple[str, int]] = set()
        self.closing = threading.Event()
        shop = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            timeout = 10  # so that a connection left open fails a test and does not hang it

            def do_GET(self) -> None:
                shop.asked[self.path] += 1
                shop.headers.append(dict(self.headers))
                shop.connections.add(self.client_address)
                answer = shop.answers.get(self.path, functools.partial(reply, status=404))
                try:
                    answer(self)
                except (BrokenPipeError, ConnectionResetError):
                    self.close_connection = True

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = False
        self.port = self.server.server_port
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,))
        self.thread.start()

    def url(self, path: str, host: str = "127.0.0.1", scheme: str = "http") -> str:
        return f"{scheme}://{host}:{self.port}{path}"

    def serve(self, path: str, data: bytes, **options: object) -> str:
        self.answers[path] = functools.partial(reply, data=data, **options)
        return self.url(path)

    def close(self) -> None:
        self.closing.set()
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


def reply(
    handler: BaseHTTPRequestHandler,
    data: bytes = b"",
    *,
    status: int = 200,
    length: int | None = None,
    **headers: str,
) -> None:
    handler.send_response(status)
    handler.send_header("Content-Length", str(len(data) if length is None else length))
    for name, value in headers.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.end_headers()
    handler.wfile.write(data)
    handler.close_connection = length is not None


@pytest.fixture(autouse=True)
def one_ssl_context(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reads the system's certificates once for all tests: it takes a tenth of a second."""
    monkeypatch.setattr(httpcore, "default_ssl_context", shared_ssl_context)


shared_ssl_context = functools.cache(httpcore.default_ssl_context)


@pytest.fixture
def shop() -> Iterator[Shop]:
    shop = Shop()
    yield shop
    shop.close()


@pytest.fixture
def cache(tmp_path: Path) -> ImageCache:
    return ImageCache(tmp_path / "images")


@pytest.fixture
def open_downloader(cache: ImageCache) -> Iterator[Callable[..., Downloader]]:
    """Makes downloaders that may reach the local server, with tiny waits; closes them."""
    made: list[Downloader] = []

    def make(**options: object) -> Downloader:
        settings = {"allow_private_hosts": True, "backoff": 0.001, "timeout": 5.0} | options
        made.append(Downloader(cache, **settings))
        return made[-1]

    yield make
    for downloader in made:
        downloader.close()


def refused(downloader: Downloader, url: str) -> str:
    with pytest.raises(ImageRejected) as caught:
        downloader.fetch(url)
    assert str(caught.value)
    return caught.value.reason


Make = "Callable[..., Downloader]"


# --- the plain way ------------------------------------------------------------------------------


def test_an_image_is_stored_under_the_hash_of_its_bytes(
    shop: Shop, cache: ImageCache, open_downloader: Make
) -> None:
    found = open_downloader().fetch(shop.serve("/toy.jpg", JPEG, ETag='"v1"'))
    digest = content_hash(JPEG)
    assert found == CachedImage(cache.directory / digest[:2] / f"{digest}.jpg", digest)
    assert found.path.read_bytes() == JPEG
    line = json.loads((cache.directory / "urls.jsonl").read_text())
    assert type(line.pop("crc")) is int
    assert line == {"url": shop.url("/toy.jpg"), "hash": digest, "suffix": ".jpg", "etag": '"v1"'}


def test_a_cached_url_is_not_fetched_again_even_by_a_later_run(
    shop: Shop, cache: ImageCache, open_downloader: Make
) -> None:
    url = shop.serve("/toy.jpg", JPEG)
    first = open_downloader().fetch(url)
    with Downloader(ImageCache(cache.directory), allow_private_hosts=True) as again:
        assert again.fetch(url) == first
    assert shop.asked["/toy.jpg"] == 1


def test_a_cached_file_that_is_gone_is_fetched_again(shop: Shop, open_downloader: Make) -> None:
    url = shop.serve("/toy.jpg", JPEG)
    open_downloader().fetch(url).path.unlink()
    assert open_downloader().fetch(url).path.read_bytes() == JPEG


def test_the_request_states_who_asks_and_wants_no_compression(
    shop: Shop, open_downloader: Make
) -> None:
    open_downloader(user_agent="shelf-test/1").fetch(shop.serve("/toy.jpg", JPEG))
    open_downloader().fetch(shop.serve("/other.jpg", JPEG))
    assert shop.headers[0]["User-Agent"] == "shelf-test/1"
    assert shop.headers[1]["User-Agent"].startswith("kinshelf/")
    assert shop.headers[0]["Accept-Encoding"] == "identity"
    assert shop.headers[0]["Host"] == f"127.0.0.1:{shop.port}"


def test_one_connection_serves_many_images(shop: Shop, open_downloader: Make) -> None:
    downloader = open_downloader()
    for number in range(5):
        downloader.fetch(shop.serve(f"/{number}.png", encode(noise(number), "PNG")))
    assert len(shop.connections) == 1


def test_proxies_of_the_environment_are_ignored(
    shop: Shop, open_downloader: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert open_downloader().fetch(shop.serve("/toy.jpg", JPEG)).content_hash == content_hash(JPEG)


def test_a_compressed_image_is_unpacked(shop: Shop, open_downloader: Make) -> None:
    url = shop.serve("/toy.jpg", gzip.compress(JPEG), Content_Encoding="gzip")
    assert open_downloader().fetch(url).content_hash == content_hash(JPEG)


def test_a_body_of_unknown_length_is_taken(shop: Shop, open_downloader: Make) -> None:
    def until_closed(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.end_headers()
        handler.wfile.write(PNG)
        handler.close_connection = True

    shop.answers["/toy.png"] = until_closed
    assert open_downloader().fetch(shop.url("/toy.png")).content_hash == content_hash(PNG)


# --- many at once -------------------------------------------------------------------------------


def test_fetch_many_gives_each_url_once_with_its_image_or_reason(
    shop: Shop, open_downloader: Make
) -> None:
    pictures = {shop.serve(f"/{n}.png", encode(noise(n), "PNG")): n for n in range(30)}
    bad = {shop.url("/missing.jpg"): "http-404", "ftp://toys.example/a.jpg": "scheme"}
    urls = [*pictures, *bad] * 2
    outcomes = list(open_downloader().fetch_many(urls))
    assert sorted(url for url, _ in outcomes) == sorted({*pictures, *bad})
    for url, outcome in outcomes:
        if isinstance(outcome, ImageRejected):
            assert outcome.reason == bad[url]
        else:
            with Image.open(outcome.path) as image:
                assert (np.asarray(image) == np.asarray(noise(pictures[url]))).all()
    assert set(shop.asked.values()) == {1}


def test_fetch_many_works_at_several_urls_at_once(shop: Shop, open_downloader: Make) -> None:
    together = threading.Barrier(4, timeout=5)  # breaks unless four requests are open at once

    def wait_for_the_others(handler: BaseHTTPRequestHandler) -> None:
        together.wait()
        reply(handler, JPEG)

    urls = [shop.url(f"/{number}.jpg") for number in range(4)]
    shop.answers.update({f"/{number}.jpg": wait_for_the_others for number in range(4)})
    outcomes = dict(open_downloader(concurrency=4).fetch_many(urls))
    assert {type(outcome) for outcome in outcomes.values()} == {CachedImage}


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, GeneratorExit])
def test_an_interrupt_stops_what_is_under_way(
    shop: Shop, open_downloader: Make, interrupt: type[BaseException]
) -> None:
    def never_ends(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.end_headers()
        shop.closing.wait()

    shop.answers |= {f"/{number}.jpg": never_ends for number in range(50)}
    urls = [shop.serve("/toy.jpg", JPEG), *(shop.url(f"/{number}.jpg") for number in range(50))]
    outcomes = open_downloader(concurrency=4, timeout=60).fetch_many(urls)
    next(outcomes)
    began = time.monotonic()
    with pytest.raises((interrupt, StopIteration)):
        outcomes.throw(interrupt())
    assert time.monotonic() - began < 10
    assert sum(shop.asked.values()) < 10
    assert not [t for t in threading.enumerate() if t.name.startswith("kinshelf-download")]


def test_a_full_disk_is_not_taken_for_a_bad_image(
    shop: Shop, cache: ImageCache, open_downloader: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> CachedImage:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(cache, "put", full)
    with pytest.raises(OSError, match="No space left"):
        list(open_downloader().fetch_many([shop.serve("/toy.jpg", JPEG)]))


# --- servers that fail --------------------------------------------------------------------------


@pytest.mark.parametrize("status", [400, 403, 404, 410])
def test_a_client_error_is_final(shop: Shop, open_downloader: Make, status: int) -> None:
    url = shop.serve("/toy.jpg", JPEG, status=status)
    assert refused(open_downloader(), url) == f"http-{status}"
    assert shop.asked["/toy.jpg"] == 1


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_passing_failure_is_tried_again(shop: Shop, open_downloader: Make, status: int) -> None:
    def fail_twice(handler: BaseHTTPRequestHandler) -> None:
        late = shop.asked["/toy.jpg"] > 2
        reply(handler, JPEG if late else b"sorry", status=200 if late else status)

    shop.answers["/toy.jpg"] = fail_twice
    assert open_downloader().fetch(shop.url("/toy.jpg")).content_hash == content_hash(JPEG)
    assert shop.asked["/toy.jpg"] == 3


def test_a_lasting_failure_is_reported_after_the_retries(shop: Shop, open_downloader: Make) -> None:
    url = shop.serve("/toy.jpg", b"", status=503)
    assert refused(open_downloader(retries=2), url) == "http-503"
    assert shop.asked["/toy.jpg"] == 3


@pytest.mark.parametrize("form", ["seconds", "date"])
def test_retry_after_is_obeyed_but_capped(
    shop: Shop, open_downloader: Make, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    monkeypatch.setattr("kinshelf.db.images.download.MAX_WAIT", 0.3)
    asked = "3600" if form == "seconds" else formatdate(time.time() + 3600, usegmt=True)
    url = shop.serve("/toy.jpg", b"", status=429, Retry_After=asked)
    began = time.monotonic()
    assert refused(open_downloader(retries=1), url) == "http-429"
    assert 0.3 <= time.monotonic() - began < 10


@pytest.mark.parametrize("asked", ["soon", "Wed, 99 Foo", "-5", "٣"])
def test_a_senseless_retry_after_is_ignored(shop: Shop, open_downloader: Make, asked: str) -> None:
    answer = functools.partial(reply, status=429, Retry_After=asked.encode().decode("latin-1"))
    shop.answers["/toy.jpg"] = answer
    assert refused(open_downloader(retries=1), shop.url("/toy.jpg")) == "http-429"


def test_a_refused_connection_is_reported(open_downloader: Make) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/toy.jpg"
        assert refused(open_downloader(retries=1), url) == "connection"


def test_a_server_that_hangs_up_or_talks_nonsense_is_reported(
    shop: Shop, open_downloader: Make
) -> None:
    def hang_up(handler: BaseHTTPRequestHandler) -> None:
        handler.close_connection = True

    def talk_nonsense(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(b"\x00\x01 this is not HTTP\r\n\r\n")
        handler.close_connection = True

    shop.answers |= {"/silent.jpg": hang_up, "/nonsense.jpg": talk_nonsense}
    for path in shop.answers:
        assert refused(open_downloader(retries=1), shop.url(path)) == "connection"
        assert shop.asked[path] == 2


@pytest.mark.parametrize("what", ["body", "head"])
def test_a_slow_drip_ends_with_the_time_limit(shop: Shop, open_downloader: Make, what: str) -> None:
    def drip(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(b"HTTP/1.1 200 OK\r\n" + (b"\r\n" if what == "body" else b"X-Slow: "))
        for byte in JPEG:
            handler.wfile.write(bytes([byte]) if what == "body" else b"a")
            if shop.closing.wait(0.05):
                return

    shop.answers["/toy.jpg"] = drip
    began = time.monotonic()
    assert refused(open_downloader(timeout=0.6, retries=0), shop.url("/toy.jpg")) == "timeout"
    assert 0.5 < time.monotonic() - began < 10


def test_a_server_that_never_answers_ends_with_the_time_limit(open_downloader: Make) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        host, port = listener.getsockname()
        for scheme in ("http", "https"):
            downloader = open_downloader(timeout=0.5, retries=0)
            assert refused(downloader, f"{scheme}://{host}:{port}/toy.jpg") == "timeout"


def test_a_look_up_that_hangs_ends_with_the_time_limit(
    open_downloader: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    answered = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: answered.wait() and [])
    downloader = open_downloader(timeout=0.5, retries=0)
    assert refused(downloader, "http://toys.example/toy.jpg") == "timeout"
    answered.set()


def test_a_late_connection_is_closed_unused(
    shop: Shop, open_downloader: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    late: list[socket.socket] = []
    wait, connect = threading.Event(), socket.create_connection

    def slow(*arguments: object, **options: object) -> socket.socket:
        wait.wait()
        late.append(connect(*arguments, **options))
        return late[0]

    monkeypatch.setattr(socket, "create_connection", slow)
    assert refused(open_downloader(timeout=0.4, retries=0), shop.url("/toy.jpg")) == "timeout"
    wait.set()
    deadline = time.monotonic() + 3
    while not (late and late[0].fileno() == -1) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert late[0].fileno() == -1


def test_an_endless_body_is_cut_off(shop: Shop, open_downloader: Make) -> None:
    def endless(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.end_headers()
        while not shop.closing.is_set():
            handler.wfile.write(JPEG * 50)

    shop.answers["/toy.jpg"] = endless
    assert refused(open_downloader(max_bytes=10**6), shop.url("/toy.jpg")) == "too-many-bytes"
    assert shop.asked["/toy.jpg"] == 1


def test_a_length_over_the_limit_is_refused_at_once(shop: Shop, open_downloader: Make) -> None:
    url = shop.serve("/toy.jpg", JPEG, length=10**12)
    assert refused(open_downloader(), url) == "too-many-bytes"


def test_a_compressed_bomb_is_refused_unpacked(shop: Shop, open_downloader: Make) -> None:
    bomb = gzip.compress(bytes(50_000_000))
    assert len(bomb) < 100_000
    url = shop.serve("/toy.jpg", bomb, Content_Encoding="gzip")
    downloader = open_downloader(max_bytes=10**6)
    tracemalloc.start()
    try:
        assert refused(downloader, url) == "too-many-bytes"
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("encoding", "expected"), [("br", "unsupported-encoding"), ("gzip", "damaged")]
)
def test_an_encoding_that_cannot_be_unpacked_is_refused(
    shop: Shop, open_downloader: Make, encoding: str, expected: str
) -> None:
    url = shop.serve("/toy.jpg", JPEG, Content_Encoding=encoding)
    assert refused(open_downloader(), url) == expected


def test_a_body_shorter_than_announced_is_truncated(shop: Shop, open_downloader: Make) -> None:
    url = shop.serve("/toy.jpg", JPEG, length=len(JPEG) + 100)
    assert refused(open_downloader(retries=1), url) == "truncated"
    assert shop.asked["/toy.jpg"] == 2


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", "empty"),
        (b"<!DOCTYPE html><title>Not found</title>", "not-an-image"),
        (JPEG[: len(JPEG) // 2], "truncated"),
        (encode(Image.new("RGB", (1, 1), "white"), "GIF"), "placeholder"),
        (encode(Image.new("RGBA", (60, 60)), "PNG"), "placeholder"),
    ],
    ids=["nothing", "html", "half", "pixel", "transparent"],
)
def test_what_is_no_picture_is_not_cached(
    shop: Shop, cache: ImageCache, open_downloader: Make, data: bytes, expected: str
) -> None:
    url = shop.serve("/toy.jpg", data, Content_Type="image/jpeg")
    assert refused(open_downloader(), url) == expected
    assert not cache.directory.exists()


# --- redirects ----------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_followed(shop: Shop, open_downloader: Make, status: int) -> None:
    shop.serve("/images/new toy.jpg", JPEG)
    shop.answers["/images/new%20toy.jpg"] = shop.answers["/images/new toy.jpg"]
    url = shop.serve("/images/old.jpg", b"", status=status, Location="new toy.jpg")
    assert open_downloader().fetch(url).content_hash == content_hash(JPEG)


def test_as_many_redirects_as_allowed_are_followed_and_no_more(
    shop: Shop, open_downloader: Make
) -> None:
    for number in range(MAX_REDIRECTS + 1):
        shop.serve(f"/{number}", b"", status=302, Location=f"/{number + 1}")
    shop.serve(f"/{MAX_REDIRECTS + 1}", JPEG)
    assert open_downloader().fetch(shop.url("/1")).content_hash == content_hash(JPEG)
    assert refused(open_downloader(), shop.url("/0")) == "too-many-redirects"


def test_a_redirect_loop_ends(shop: Shop, open_downloader: Make) -> None:
    url = shop.serve("/loop", b"", status=302, Location="/loop")
    assert refused(open_downloader(), url) == "too-many-redirects"
    assert shop.asked["/loop"] == MAX_REDIRECTS + 1


@pytest.mark.parametrize(
    ("location", "expected"),
    [
        ("file:///etc/passwd", "scheme"),
        ("ftp://toys.example/a.jpg", "scheme"),
        ("http://user:secret@toys.example/a.jpg", "credentials"),
        ("http://cdn.example/transparent-pixel.jpg", "placeholder"),
        ("http://[::1", "bad-url"),
        ("http://toys.example:99999999/", "bad-url"),
    ],
)
def test_the_target_of_a_redirect_is_checked_too(
    shop: Shop, open_downloader: Make, location: str, expected: str
) -> None:
    url = shop.serve("/toy.jpg", b"", status=302, Location=location)
    assert refused(open_downloader(), url) == expected


def test_a_redirect_without_a_target_is_its_status(shop: Shop, open_downloader: Make) -> None:
    assert refused(open_downloader(), shop.serve("/toy.jpg", b"", status=302)) == "http-302"


# --- where it may connect -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "localhost",
        "[::1]",
        "0.0.0.0",
        "[::]",
        "10.0.0.1",
        "192.168.1.1",
        "172.16.0.1",
        "100.64.0.1",
        "169.254.169.254",
        "224.0.0.1",
        "255.255.255.255",
        "2130706433",
        "0x7f.1",
        "017700000001",
        "127.1",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[64:ff9b::7f00:1]",
        "[2002:7f00:1::]",
        "[fe80::1]",
        "[fd00:ec2::254]",
        "[fec0::1]",
        "①②⑦.⓪.⓪.①",
        "localhost.",
        "LOCALHOST",
    ],
)
def test_hosts_inside_are_refused(cache: ImageCache, host: str) -> None:
    with Downloader(cache, timeout=5.0, retries=0) as downloader:
        # Odd spellings are addresses to some systems' look-up and no hosts at all to others'.
        odd = set() if host.isascii() and host[-1] in "0123456789]" else {"unknown-host", "bad-url"}
        assert refused(downloader, f"http://{host}/toy.jpg") in {"private-address", *odd}


def test_nothing_is_asked_of_a_host_inside(shop: Shop, cache: ImageCache) -> None:
    with Downloader(cache) as downloader:
        assert refused(downloader, shop.serve("/toy.jpg", JPEG)) == "private-address"
    assert not shop.connections


class Names:
    """Stands in for the system's look-up: names answer in turn, numbers as they are."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **answers: list[list[str]]) -> None:
        self.answers = {name.replace("_", "."): lists for name, lists in answers.items()}
        self.asked: list[str] = []
        self.real = socket.getaddrinfo
        monkeypatch.setattr(socket, "getaddrinfo", self.look_up)

    def look_up(self, host: str, port: int, *rest: int, **options: int) -> list[object]:
        name = host.decode() if isinstance(host, bytes) else host
        if name not in self.answers:
            return self.real(host, port, *rest, **options)
        self.asked.append(name)
        turns = self.answers[name]
        addresses = turns.pop(0) if len(turns) > 1 else turns[0]
        if not addresses:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [
            entry
            for address in addresses
            for entry in self.real(address, port, type=socket.SOCK_STREAM)
        ]


def reroute(monkeypatch: pytest.MonkeyPatch, shop: Shop) -> list[tuple[str, int]]:
    """Leads every connection to the local server; the list gets the addresses asked for."""
    wanted: list[tuple[str, int]] = []
    connect = socket.create_connection

    def lead(address: tuple[str, int], *rest: object, **options: object) -> socket.socket:
        wanted.append(address)
        return connect(("127.0.0.1", shop.port), *rest, **options)

    monkeypatch.setattr(socket, "create_connection", lead)
    return wanted


@pytest.mark.parametrize(
    "addresses", [["10.0.0.5"], ["93.184.216.34", "192.168.0.9"], ["93.184.216.34", "::1"]]
)
def test_a_name_with_any_address_inside_is_refused(
    shop: Shop, cache: ImageCache, monkeypatch: pytest.MonkeyPatch, addresses: list[str]
) -> None:
    Names(monkeypatch, toys_example=[addresses])
    wanted = reroute(monkeypatch, shop)
    with Downloader(cache) as downloader:
        assert refused(downloader, "http://toys.example/toy.jpg") == "private-address"
    assert wanted == []


def test_the_address_that_was_checked_is_the_one_connected_to(
    shop: Shop, cache: ImageCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = Names(monkeypatch, rebind_example=[["93.184.216.34"], ["127.0.0.1"]])
    wanted = reroute(monkeypatch, shop)
    shop.serve("/toy.jpg", JPEG)
    with Downloader(cache, timeout=5.0) as downloader:
        downloader.fetch("http://rebind.example/toy.jpg")
    assert wanted == [("93.184.216.34", 80)]
    assert names.asked == ["rebind.example"]
    assert shop.headers[0]["Host"] == "rebind.example"


def test_a_new_connection_is_a_new_check(
    shop: Shop, cache: ImageCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    Names(monkeypatch, rebind_example=[["93.184.216.34"], ["127.0.0.1"]])
    wanted = reroute(monkeypatch, shop)
    shop.serve("/hop", b"", status=302, length=0, Location="http://rebind.example/toy.jpg")
    with Downloader(cache, timeout=5.0) as downloader:
        assert refused(downloader, "http://rebind.example/hop") == "private-address"
    assert wanted == [("93.184.216.34", 80)]


@pytest.mark.parametrize("target", ["http://169.254.169.254/latest/", "http://inner.example/"])
def test_a_redirect_to_an_address_inside_is_refused(
    shop: Shop, cache: ImageCache, monkeypatch: pytest.MonkeyPatch, target: str
) -> None:
    Names(monkeypatch, toys_example=[["93.184.216.34"]], inner_example=[["10.1.2.3"]])
    wanted = reroute(monkeypatch, shop)
    shop.serve("/toy.jpg", b"", status=302, Location=target)
    with Downloader(cache, timeout=5.0) as downloader:
        assert refused(downloader, "http://toys.example/toy.jpg") == "private-address"
    assert len(wanted) == 1


def test_a_host_whose_first_address_is_dead_is_reached_by_the_next(
    shop: Shop, open_downloader: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    Names(monkeypatch, toys_example=[["127.0.0.2", "127.0.0.1"]])
    shop.serve("/toy.jpg", JPEG)  # listens on 127.0.0.1 alone
    url = shop.url("/toy.jpg", host="toys.example")
    assert open_downloader(retries=0).fetch(url).content_hash == content_hash(JPEG)


def test_an_unknown_host_is_final_and_a_passing_dns_failure_is_not(
    open_downloader: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: Counter[str] = Counter()

    def fail(host: str, *_: object, **__: object) -> list[object]:
        asked[host] += 1
        code = socket.EAI_AGAIN if host.startswith("busy") else socket.EAI_NONAME
        raise socket.gaierror(code, "failed")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    assert refused(open_downloader(retries=2), "http://none.example/a.jpg") == "unknown-host"
    assert refused(open_downloader(retries=2), "http://busy.example/a.jpg") == "connection"
    assert asked == {"none.example": 1, "busy.example": 3}


@pytest.mark.parametrize("host", ["a..example", "x" * 64 + ".example"])
def test_a_name_that_cannot_exist_is_refused(open_downloader: Make, host: str) -> None:
    assert refused(open_downloader(), f"http://{host}/a.jpg") in {"unknown-host", "bad-url"}


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("file:///etc/passwd", "scheme"),
        ("gopher://127.0.0.1:6379/_FLUSHALL", "scheme"),
        ("data:image/png;base64,AAAA", "scheme"),
        ("//toys.example/a.jpg", "scheme"),
        ("toys/a.jpg", "scheme"),
        ("", "scheme"),
        ("http://user:secret@toys.example/a.jpg", "credentials"),
        ("http://user@toys.example/a.jpg", "credentials"),
        ("http:///a.jpg", "bad-url"),
        ("http://toys.example:port/a.jpg", "bad-url"),
        ("http://toys.example/a\x00.jpg", "bad-url"),
        (
            "https://images-na.ssl-images-amazon.com/images/G/01/x-locale/common/"
            "transparent-pixel.jpg",
            "placeholder",
        ),
    ],
)
def test_a_url_that_may_not_be_fetched_is_refused_unasked(
    cache: ImageCache, monkeypatch: pytest.MonkeyPatch, url: str, expected: str
) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", None)
    with Downloader(cache) as downloader:
        assert refused(downloader, url) == expected


def test_a_password_in_a_url_does_not_show_in_the_message() -> None:
    with pytest.raises(ImageRejected) as caught:
        check_url("http://user:hunter2@toys.example/a.jpg")
    assert "hunter2" not in str(caught.value)


@given(text=st.builds("{}{}".format, st.sampled_from(["", "http://", "https://["]), st.text()))
@settings(max_examples=300)
def test_any_text_is_a_url_that_may_be_fetched_or_is_refused(text: str) -> None:
    try:
        url = check_url(text)
    except ImageRejected:
        return
    assert url.scheme in {"http", "https"}
    assert url.raw_host.isascii()
    assert url.raw_host


PRIVATE_V4 = [
    ipaddress.IPv4Network(text)
    for text in (
        *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16"),
        *("172.16.0.0/12", "192.0.0.0/24", "192.0.2.0/24", "192.168.0.0/16", "198.18.0.0/15"),
        *("198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4"),
    )
]
"""IANA's special-purpose registry, typed from its page: what must never be connected to."""


@given(network=st.sampled_from(PRIVATE_V4), offset=st.integers(0, 2**28))
def test_no_special_ipv4_address_is_public_however_it_is_wrapped(
    network: ipaddress.IPv4Network, offset: int
) -> None:
    inner = network[offset % network.num_addresses]
    assert not is_public(inner)
    for prefix in ("::ffff:0:0", "64:ff9b::", "::"):
        wrapped = ipaddress.IPv6Address(int(ipaddress.IPv6Address(prefix)) + int(inner))
        assert not is_public(wrapped)
    six_to_four = (0x2002 << 112) + (int(inner) << 80)
    assert not is_public(ipaddress.IPv6Address(six_to_four))


@given(address=st.ip_addresses(v=4))
def test_all_other_ipv4_addresses_are_public(address: ipaddress.IPv4Address) -> None:
    reserved = [ipaddress.IPv4Network(text) for text in ("192.88.99.0/24", "168.63.129.16/32")]
    special = any(address in network for network in (*PRIVATE_V4, *reserved))
    assert is_public(address) != special


@pytest.mark.parametrize(
    ("text", "public"),
    [
        ("2606:2800:220:1:248:1893:25c8:1946", True),
        ("::ffff:93.184.216.34", True),
        ("64:ff9b::5db8:d822", True),
        ("64:ff9b:1::1", False),
        ("2001:db8::1", False),
        ("2001:0:4136:e378:8000:63bf:3fff:fdd2", False),
        ("ff02::1", False),
        ("fc00::1", False),
        ("fe80::1%eth0", False),
        ("100::1", False),
        ("168.63.129.16", False),
        ("100.100.100.200", False),
        ("192.0.0.192", False),
    ],
)
def test_known_addresses_are_judged_rightly(text: str, public: bool) -> None:
    assert is_public(ipaddress.ip_address(text)) is public


# --- TLS ----------------------------------------------------------------------------------------


@pytest.fixture
def tls_shop(shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shop:
    """The server behind a certificate for shop.example, which the client trusts."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("needs the openssl command to make a certificate")
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    words = (
        f"req -x509 -newkey rsa:2048 -nodes -keyout {key} -out {certificate} -days 2 "
        "-subj /CN=shop.example -addext subjectAltName=DNS:shop.example"
    )
    subprocess.run([openssl, *words.split()], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    shop.server.socket = context.wrap_socket(shop.server.socket, server_side=True)
    trusting = functools.partial(ssl.create_default_context, cafile=certificate)
    monkeypatch.setattr(httpcore, "default_ssl_context", trusting)
    return shop


def test_a_certificate_is_checked_against_the_name_not_the_address(
    tls_shop: Shop, open_downloader: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    Names(monkeypatch, shop_example=[["127.0.0.1"]], other_example=[["127.0.0.1"]])
    tls_shop.serve("/toy.jpg", JPEG)
    downloader = open_downloader(retries=0)
    good = tls_shop.url("/toy.jpg", host="shop.example", scheme="https")
    assert downloader.fetch(good).content_hash == content_hash(JPEG)
    wrong = tls_shop.url("/toy.jpg", host="other.example", scheme="https")
    assert refused(downloader, wrong) == "connection"
    assert tls_shop.asked["/toy.jpg"] == 1


# --- the cache ----------------------------------------------------------------------------------


def test_reading_a_cache_that_does_not_exist_writes_nothing(cache: ImageCache) -> None:
    assert cache.get("http://toys.example/a.jpg") is None
    assert list(cache.verify()) == []
    assert not cache.directory.exists()


def test_equal_bytes_of_two_urls_are_kept_once(cache: ImageCache) -> None:
    assert cache.put("http://a.example", PNG) == cache.put("http://b.example", PNG)
    assert len(list(cache.directory.glob("*/*"))) == 1
    assert cache.get("http://a.example") == cache.get("http://b.example")


def test_the_last_image_of_a_url_counts(cache: ImageCache) -> None:
    cache.put("http://a.example", PNG)
    cache.put("http://a.example", JPEG)
    for view in (cache, ImageCache(cache.directory)):
        found = view.get("http://a.example")
        assert found is not None
        assert found.path.read_bytes() == JPEG


def test_what_is_no_image_is_not_stored(cache: ImageCache) -> None:
    with pytest.raises(ImageRejected):
        cache.put("http://a.example", b"<html>")
    assert not cache.directory.exists()


def test_a_reader_sees_what_a_writer_adds_later(cache: ImageCache) -> None:
    reader = ImageCache(cache.directory)
    assert reader.get("http://a.example") is None
    cache.put("http://a.example", PNG)
    assert reader.get("http://a.example") == cache.get("http://a.example")


def test_a_log_torn_at_any_byte_loses_the_torn_line_alone(cache: ImageCache) -> None:
    cache.put("http://a.example", PNG)
    first = len((cache.directory / "urls.jsonl").read_bytes())
    cache.put("http://b.example", JPEG)
    log = (cache.directory / "urls.jsonl").read_bytes()
    for cut in range(first, len(log)):
        (cache.directory / "urls.jsonl").write_bytes(log[:cut])
        torn = ImageCache(cache.directory)
        assert torn.get("http://a.example") is not None
        assert torn.get("http://b.example") is None
        torn.put("http://c.example", JPEG)
        again = ImageCache(cache.directory)
        assert again.get("http://a.example") is not None
        assert again.get("http://c.example") is not None


def test_a_log_full_of_nonsense_is_passed_over(cache: ImageCache) -> None:
    cache.put("http://a.example", PNG)
    with (cache.directory / "urls.jsonl").open("ab") as log:
        log.write(b'\x00\x00\n[]\n{}\nnull\n\xff\n{"url": [], "hash": 1, "suffix": 2}\n')
    assert ImageCache(cache.directory).get("http://a.example") is not None


@pytest.mark.parametrize(
    ("digest", "suffix"), [("../secret", ".jpg"), ("0" * 32, "/../../../../secret.jpg")]
)
def test_a_log_from_elsewhere_cannot_name_files_outside(
    tmp_path: Path, digest: str, suffix: str
) -> None:
    (tmp_path / "secret.jpg").write_bytes(JPEG)
    cache = ImageCache(tmp_path / "shelf" / "images")
    named = cache.directory / digest[:2] / (digest + suffix)
    (cache.directory / "00" / ("0" * 32)).mkdir(parents=True)
    assert named.resolve().read_bytes() == JPEG  # so the name alone would lead there
    entry = {"url": "http://a.example", "hash": digest, "suffix": suffix}
    (cache.directory / "urls.jsonl").write_text(json.dumps(entry) + "\n")
    assert cache.get("http://a.example") is None


def test_verify_names_what_is_damaged_and_put_heals_it(cache: ImageCache) -> None:
    good = cache.put("http://a.example", PNG)
    bad = cache.put("http://b.example", JPEG)
    assert list(cache.verify()) == []
    bad.path.write_bytes(JPEG[:-1] + b"?")
    leftover = good.path.with_name(".tmp-1-2-toy.png")
    leftover.write_bytes(b"half")
    assert {path for path, _ in cache.verify()} == {bad.path, leftover}
    cache.put("http://b.example", JPEG)
    assert [path for path, _ in cache.verify()] == [leftover]


def test_a_failed_write_leaves_nothing_behind(
    cache: ImageCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        cache.put("http://a.example", PNG)
    monkeypatch.undo()
    assert [path for path in cache.directory.rglob("*") if path.is_file()] == []
    assert cache.get("http://a.example") is None


def test_an_image_is_synced_before_it_gets_its_name_and_its_name_before_the_log(
    cache: ImageCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []
    sync, rename = os.fsync, Path.replace

    def note_sync(handle: int) -> None:
        is_file = stat.S_ISREG(os.fstat(handle).st_mode)
        steps.append("sync file" if is_file else "sync directory")
        assert not (cache.directory / "urls.jsonl").exists()
        sync(handle)

    def note_rename(self: Path, target: Path) -> Path:
        steps.append("rename")
        return rename(self, target)

    monkeypatch.setattr(os, "fsync", note_sync)
    monkeypatch.setattr(Path, "replace", note_rename)
    cache.put("http://a.example", PNG)
    assert steps[-3:] == ["sync file", "rename", "sync directory"]


def test_threads_may_store_at_once(cache: ImageCache) -> None:
    def store(number: int) -> None:
        for name in range(20):
            cache.put(f"http://{number}.example/{name}", encode(noise(name % 5), "PNG"))

    threads = [threading.Thread(target=store, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    again = ImageCache(cache.directory)
    assert all(again.get(f"http://{n}.example/{m}") for n in range(4) for m in range(20))
    assert list(again.verify()) == []
    assert len(list(cache.directory.glob("*/*"))) == 5
