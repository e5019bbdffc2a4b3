"""One URL that nobody foresaw costs its own picture, never an `add` or a request."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from random import Random
from typing import Any

import httpcore
import httpx
import pytest
from click.testing import CliRunner
from fastapi.testclient import TestClient
from serve_world import settings_for

from kinshelf import Shelf
from kinshelf.cli import main
from kinshelf.db.errors import ImageRejected
from kinshelf.db.images.addresses import check_url
from kinshelf.db.images.cache import ImageCache
from kinshelf.db.images.download import Downloader, _joined
from kinshelf.samples import tiny_clip_dir
from kinshelf.serve.app import create_app

PIECES = [
    "http://", "https://", "HTTP:", "//", "/", "\\", ":", "@", "[", "]", "?", "#", "%", "%zz", "\0",
    "xn--", "xn--a", "xn--999999999", "xn--ls8h", "XN--", ".", "..", "-", "_", "*", " ", "\t", "\n",
    "\x00", "\x7f", "\x80", "\xa0", "\u00df", "\u200d", "\u202e", "\u3002", "\u0661", "\ufeff",
    "\ud800", "\udce9", "\U0001f600", "e\u0301", "a" * 70, "toys.example", "127.0.0.1", "0x7f.1",
    "[::1]", "[v1.x]", "::ffff:1.2.3.4", "fe80::1%eth0", ":80", ":0", ":99999", ":-1", ":\u0661",
    "user:hunter2@", "x.jpg", "&a=1", "data:", "javascript:", "upload://", "'", '"', "<", "{}", "|",
]  # fmt: skip
KNOWN = ["http://xn--/x.jpg", "http://xn--a/x", "https://a.xn--/x", "http://toys.example/\udce9"]


def odd_urls(count: int) -> list[str]:
    """Random URLs, most of them wrong in a way of their own; seeded."""
    random = Random("urls")
    made = list(KNOWN)
    while len(made) < count:
        begin = random.choice(["http://", "https://", "http://toys.example", ""])
        made.append(begin + "".join(random.choices(PIECES, k=random.randint(1, 6))))
    return made


def check_all(url: httpx.URL) -> None:
    """What the downloader computes of a URL before it connects."""
    httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path)
    f"{url} {url.host}{url.netloc!r}".encode()


def test_of_10_000_urls_each_is_parsed_or_refused() -> None:
    passed = 0
    for text in odd_urls(10_000):
        try:
            url = check_url(text)
        except ImageRejected as refused:
            str(refused).encode()
            continue
        check_all(url)
        passed += 1
    assert 100 < passed < 9_000


def test_a_password_does_not_show_where_the_host_is_none() -> None:
    with pytest.raises(ImageRejected) as caught:
        check_url("http://user:hunter2@xn--/x.jpg")
    assert "hunter2" not in str(caught.value)


def test_of_10_000_redirects_each_is_followed_or_refused() -> None:
    base = check_url("https://toys.example/a/b.jpg?c#d")
    for text in odd_urls(10_000):
        try:
            check_all(check_url(_joined(base, text.encode("utf-8", "surrogatepass"))))
        except ImageRejected as refused:
            str(refused).encode()


def test_a_fetch_of_any_url_ends_with_a_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = socket.getaddrinfo

    def nowhere(host: str, *_: Any, **__: Any) -> Any:
        real(host, 80, flags=socket.AI_NUMERICHOST)  # raises what it raises, without a network
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("10.0.0.1", 80))]

    monkeypatch.setattr(socket, "getaddrinfo", nowhere)
    urls = odd_urls(1_000)
    with Downloader(ImageCache(tmp_path), retries=0) as downloader:
        outcomes = dict(downloader.fetch_many(urls))
    assert outcomes.keys() == set(urls)
    assert {type(outcome) for outcome in outcomes.values()} == {ImageRejected}


@pytest.fixture
def redirecting() -> Iterator[str]:
    """A shop whose every answer leads to a host that cannot be."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(302)
            self.send_header("Location", "http://xn--/x.jpg")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/x.jpg"
        server.shutdown()
        thread.join()


@pytest.fixture
def place(tmp_path: Path) -> Path:
    path = tmp_path / "s.shelf"
    (tmp_path / "first.csv").write_text("id,title\np1,thing\np2,toy\n")
    with Shelf.create(path, encoder=str(tiny_clip_dir())) as shelf:
        shelf.add(tmp_path / "first.csv")
    return path


def test_an_add_goes_on_after_such_a_url(place: Path, tmp_path: Path, redirecting: str) -> None:
    rows = [{"id": f"u{i}", "title": f"toy {i}", "image": url} for i, url in enumerate(KNOWN)]
    rows.append({"id": "redirect", "title": "toy", "image": redirecting})
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    line = ["add", str(tmp_path / "rows.jsonl"), "--shelf", str(place), "--allow-private-hosts"]
    result = CliRunner().invoke(main, line)
    assert result.exit_code == 0, result.output
    with Shelf.open(place) as shelf:
        stored = {s.product.id: s for s in shelf.snapshot().select()}
    assert {"u0", "u1", "u2", "redirect"} <= stored.keys()
    assert stored["redirect"].image_error


@pytest.mark.parametrize("path", ["/similar", "/products"])
def test_a_request_with_such_a_url_is_refused(place: Path, redirecting: str, path: str) -> None:
    settings = settings_for(place, allow_private_hosts=True)
    with TestClient(create_app(settings), base_url="http://localhost") as client:
        for url in [*KNOWN[:3], redirecting]:
            asked = {"image": url} | ({"id": "x", "title": "x"} if path == "/products" else {})
            answer = client.post(path, json=asked)
            assert 400 <= answer.status_code < 500, (url, answer.text)
