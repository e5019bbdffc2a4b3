"""Requests as other programs send them: HEAD, tags, forms without file names, bodies too large."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image
from serve_world import in_thread, settings_for

from kinshelf import Shelf
from kinshelf.serve.http.security import Guard, read_tokens

GETS = [
    "/", "/shelf", "/product?id=p1", "/compare?id=p1&id=p2", "/review", "/review/work",
    "/dashboard", "/dashboard/train", "/thumbnail?id=p1", "/static/page.css", "/login", "/products",
    "/products/p1", "/thumbnails/p1", "/jobs", "/info", "/history", "/healthz", "/metrics",
    "/openapi.json", "/audit", "/products/none", "/nowhere", "/product",
]  # fmt: skip


def picture(colour: str = "red") -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (64, 64), colour).save(file, "JPEG")
    return file.getvalue()


@pytest.fixture
def place(tmp_path: Path, encoder: Any, catalogue: Path) -> Path:
    Shelf.create(tmp_path / "toys.shelf", encoder="fake").close()
    with Shelf.open(tmp_path / "toys.shelf", encoder=encoder) as shelf:
        shelf.add(catalogue)
    return tmp_path / "toys.shelf"


@pytest.fixture
def client(place: Path, encoder: Any) -> Iterator[httpx.Client]:
    with in_thread(settings_for(place), encoder) as (url, _), httpx.Client(base_url=url) as client:
        yield client


# ---- HEAD


@pytest.mark.parametrize("url", GETS)
def test_head_is_answered_wherever_get_is_without_its_body(client: httpx.Client, url: str) -> None:
    got, head = client.get(url), client.head(url)
    assert (head.status_code, head.content) == (got.status_code, b"")
    assert head.headers.get("content-type") == got.headers.get("content-type")
    assert client.get("/healthz").json() == {"status": "ok"}  # on the same connection


def test_head_of_a_jobs_events_does_not_wait_for_them(place: Path, encoder: Any) -> None:
    with (
        in_thread(settings_for(place), encoder) as (url, app),
        httpx.Client(base_url=url) as client,
    ):
        gate = threading.Event()
        app.state.service.jobs.start("train", lambda _: {"waited": gate.wait(60)})
        try:
            head = client.head("/jobs/1/events", timeout=20)
            assert head.headers["content-type"].startswith("text/event-stream")
            assert client.get("/jobs/1").json()["state"] == "running"
        finally:
            gate.set()


def test_head_of_what_is_only_posted_is_refused(client: httpx.Client) -> None:
    assert client.head("/classify").status_code == 405


# ---- tags


@pytest.mark.parametrize("url", ["/thumbnail?id=p1", "/static/page.css"])
@pytest.mark.parametrize(
    ("name", "sent", "status"),
    [
        ("if-none-match", "{tag}", 304),
        ("if-none-match", "W/{tag}", 304),
        ("if-none-match", '"x", {tag}', 304),
        ("if-none-match", '"x",W/{tag} , "y"', 304),
        ("if-none-match", "*", 304),
        ("if-none-match", '"x", W/"y"', 200),
        ("if-none-match", "x", 200),
        ("if-match", "{tag}", 200),
        ("if-match", '"x", {tag}', 200),
        ("if-match", "*", 200),
        ("if-match", '"x"', 412),
        ("if-match", "W/{tag}", 412),
    ],
)
def test_weak_and_listed_tags_are_understood(
    client: httpx.Client, url: str, name: str, sent: str, status: int
) -> None:
    tag = client.get(url).headers["etag"]
    for method in ("GET", "HEAD"):
        answer = client.request(method, url, headers={name: sent.format(tag=tag)})
        assert answer.status_code == status
        assert answer.headers["etag"] == tag


# ---- tokens


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_token_file_as_editors_write_it_lets_its_tokens_in(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "tokens").write_bytes(
        "first-0123456789 read\r\nsecond-0123456789\r\n".encode(encoding)
    )
    guard = Guard(read_tokens(tmp_path / "tokens"), None)
    assert guard.scopes("first-0123456789") == {"read"}
    assert guard.scopes("second-0123456789") == {"read", "write"}
    assert guard.scopes("\ufefffirst-0123456789") == set()
