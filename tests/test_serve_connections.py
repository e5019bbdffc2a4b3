"""A client that is slow, silent or endless before its request has begun costs nobody else."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from serve_world import in_thread, sample_shelf, settings_for, until

from kinshelf.serve.http.connections import HEAD_BYTES, Connection
from kinshelf.serve.service.service import Service

pytestmark = pytest.mark.wide

SECONDS = 0.5


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sample_shelf(tmp_path_factory, count=40)


@pytest.fixture
def url(shelf: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr(Connection, "seconds", SECONDS)
    with in_thread(settings_for(shelf)) as (found, _):
        yield found


def connected(url: str) -> socket.socket:
    parts = urlsplit(url)
    assert parts.hostname and parts.port
    return socket.create_connection((parts.hostname, parts.port), timeout=10)


def rest(client: socket.socket) -> bytes:
    """All that comes until the server closes."""
    found = b""
    while part := client.recv(4096):
        found += part
    return found


def test_one_that_states_nothing_is_let_go_without_a_word(url: str) -> None:
    started = time.monotonic()
    with connected(url) as client:
        assert rest(client) == b""
        assert SECONDS * 0.9 < time.monotonic() - started < 5


@pytest.mark.parametrize("before", [b"", b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"])
@pytest.mark.parametrize("drop", [b"X-Slow: 1\r\n", b"\r\n"])
def test_headers_that_drip_in_are_given_up(url: str, before: bytes, drop: bytes) -> None:
    started = time.monotonic()
    with connected(url) as client:
        if before:
            client.sendall(before)
            assert b"200 OK" in client.recv(4096)
        start = b"" if drop == b"\r\n" else b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n"
        with pytest.raises(OSError):
            client.sendall(start)
            while time.monotonic() - started < 5:
                client.sendall(drop)
                time.sleep(0.05)
        assert SECONDS * 0.9 < time.monotonic() - started < 5


@pytest.mark.parametrize(
    "sent", [b"FOO / HTTP/1.1\r\n\r\n", b"get / HTTP/1.1\r\n\r\n", b"no HTTP at all\r\n\r\n"]
)
def test_what_is_no_http_is_refused_in_the_form_of_every_failure(url: str, sent: bytes) -> None:
    with connected(url) as client:
        client.sendall(sent)
        head, _, body = rest(client).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ")
    assert b"content-type: application/json" in head
    error = json.loads(body)["error"]
    assert set(error) == {"type", "message", "reason", "retry_after"}
    assert "Invalid HTTP request" in error["message"]


def test_headers_without_an_end_are_refused(url: str) -> None:
    with connected(url) as client:
        client.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-Long: ")
        with pytest.raises(OSError):
            for _ in range(1000):
                client.sendall(b"a" * 4096)
            rest(client)
            client.sendall(b"a")


def test_long_headers_and_slow_bodies_are_no_reason(url: str) -> None:
    with httpx.Client(base_url=url) as client:
        long = {"X-Long": "a" * (HEAD_BYTES - 2000)}
        assert client.get("/healthz", headers=long).status_code == 200

        def slow() -> Iterator[bytes]:
            yield b'{"id": '
            time.sleep(2 * SECONDS)
            yield b'"none"}'

        assert client.post("/similar", content=slow()).status_code == 404
        time.sleep(2 * SECONDS)
        assert client.get("/healthz").status_code == 200


def test_requests_sent_ahead_are_all_answered(url: str) -> None:
    one = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
    last = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    with connected(url) as client:
        client.sendall(one * 5 + last)
        assert rest(client).count(b"200 OK") == 6


REFUSED = b"POST /none HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n"
LAST = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


def test_an_upload_that_is_refused_at_once_may_go_on_to_its_end(url: str) -> None:
    piece = b"a" * HEAD_BYTES
    with connected(url) as client:
        client.sendall(REFUSED % (8 * len(piece)))
        answer = client.recv(4096)
        for _ in range(8):
            client.sendall(piece)
            time.sleep(0.02)
        client.sendall(LAST)
        assert b" 404 " in answer
        after = rest(client)
    assert after.startswith(b"HTTP/1.1 200 OK")
    assert after.count(b"HTTP/1.1") == 1


def test_the_end_of_an_upload_that_was_refused_is_not_awaited_for_ever(url: str) -> None:
    for end in (b"a" * 99, b"a" * 100):  # the last one is whole, and then nothing comes
        started = time.monotonic()
        with connected(url) as client:
            client.sendall(REFUSED % 100)
            assert b" 404 " in client.recv(4096)
            client.sendall(end)
            assert rest(client) == b""
        assert SECONDS * 0.9 < time.monotonic() - started < 5


def test_a_head_behind_a_large_body_is_not_taken_for_a_long_one(url: str) -> None:
    body = b'{"id": "' + b"a" * HEAD_BYTES + b'"}'
    head = b"POST /similar HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(body)
    with connected(url) as client:
        client.sendall(head + body + LAST[:20])
        time.sleep(0.2)
        client.sendall(LAST[20:])
        found = rest(client)
    assert found.count(b"HTTP/1.1 ") == 2
    assert b"HTTP/1.1 400" not in found
    assert found.count(b"200 OK") == 1


def test_a_slow_head_sent_ahead_is_not_answered_in_place_of_the_one_before(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = Service.info

    def slow(self: Service) -> dict[str, Any]:
        time.sleep(3 * SECONDS)
        return found(self)

    monkeypatch.setattr(Service, "info", slow)
    with connected(url) as client:
        client.sendall(b"GET /info HTTP/1.1\r\nHost: localhost\r\n\r\n" + LAST[:20])
        time.sleep(2 * SECONDS)
        client.sendall(LAST[20:])
        assert rest(client).count(b"HTTP/1.1 200 OK") == 2


@pytest.mark.parametrize("piece", [b"a" * 4096, b"X-More: aaaaaaaaaa\r\n" * 200])
def test_headers_behind_a_body_have_an_end_too(url: str, piece: bytes) -> None:
    chunked = b"POST /similar HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    with connected(url) as client:
        client.sendall(chunked + b"2\r\n{}\r\n0\r\nX-Long: ")
        with pytest.raises(OSError):
            for _ in range(1000):
                client.sendall(piece)


def test_a_body_in_many_small_chunks_is_read_to_its_end(url: str) -> None:
    def chunks() -> Iterator[bytes]:
        yield b'{"id": "none", "k": 5'
        for _ in range(HEAD_BYTES // 16):  # with their lengths, more than headers may have
            yield b" " * 16
        yield b"}"

    assert httpx.post(f"{url}/similar", content=chunks()).status_code == 404


def test_a_client_that_leaves_in_the_middle_of_its_upload_is_no_failure_of_the_server(
    url: str, caplog: pytest.LogCaptureFixture
) -> None:
    with connected(url) as client:
        client.sendall(
            b"POST /similar HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n"
            b"Content-Type: multipart/form-data; boundary=b\r\n\r\n--b\r\n"
        )
    left = 'kinshelf_requests_total{method="POST",route="/similar",status="499"} 1.0'
    until(lambda: left in httpx.get(f"{url}/metrics").text)
    assert [record.message for record in caplog.records if record.levelname == "ERROR"] == []
