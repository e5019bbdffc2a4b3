"""Requests as other programs send them: HEAD, tags, forms without file names, bodies too large."""

from __future__ import annotations

import contextlib
import io
import json
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from conftest import FakeEncoder, make_catalogue
from PIL import Image
from serve_world import in_thread, process, settings_for

from kinshelf import Shelf
from kinshelf.serve.http import limits, requests
from kinshelf.serve.http.security import Guard, read_tokens

pytestmark = pytest.mark.wide

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


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("requests")
    with Shelf.create(folder / "toys.shelf", encoder="fake") as shelf:
        shelf.use_encoder(FakeEncoder())
        shelf.add(make_catalogue(folder / "source"))
    return folder / "toys.shelf"


@pytest.fixture(scope="module")
def client(place: Path) -> Iterator[httpx.Client]:
    served = in_thread(settings_for(place), FakeEncoder())
    with served as (url, _), httpx.Client(base_url=url, timeout=240) as client:
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
            head = client.head("/jobs/1/events", timeout=240)
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


# ---- forms


def form(disposition: str, data: bytes, kind: str = "", *, more: bytes = b"") -> dict[str, Any]:
    """A request whose one part is written by hand."""
    typed = f"Content-Type: {kind}\r\n" if kind else ""
    head = f"--X\r\nContent-Disposition: form-data; {disposition}\r\n{typed}\r\n"
    return {
        "headers": {"content-type": "multipart/form-data; boundary=X"},
        "content": head.encode() + data + b"\r\n" + more + b"--X--\r\n",
    }


@pytest.mark.parametrize("url", ["/classify", "/ask"])
@pytest.mark.parametrize(
    ("disposition", "kind"),
    [
        ('name="image"; filename="a.jpg"', "image/jpeg"),
        ("name=\"image\"; filename*=UTF-8''%E2%82%AC.jpg", "image/jpeg"),
        ("name=\"image\"; filename*=UTF-8''%E2%82%AC.jpg", ""),
        ("filename*=iso-8859-1'en'%A3.jpg; name=\"image\"", "application/octet-stream"),
        ('name="image"; filename="a.jpg"; filename*=UTF-8\'\'b.jpg', ""),
        ("name=image; filename*0*=UTF-8''a; filename*1*=b.jpg", ""),
        ('name="image"; filename*="a.jpg"', ""),
        ("name=\"image\"; filename*=nonsense'x'%ZZ", ""),
        ('name="image"', "image/jpeg"),
        ('name="image"', "IMAGE/JPEG"),
        ('name="image"', "application/octet-stream"),
        ('name="image"', ""),
        ('name="image"; filename=""', ""),
    ],
)
def test_a_picture_is_one_however_its_file_is_named(
    client: httpx.Client, url: str, disposition: str, kind: str
) -> None:
    usual = client.post(url, files={"image": ("a.jpg", picture(), "image/jpeg")})
    answer = client.post(url, **form(disposition, picture(), kind))
    assert (answer.status_code, usual.status_code) == (200, 200)
    if url == "/classify":
        assert answer.json() == usual.json()
    else:
        assert answer.text == usual.text


@pytest.mark.parametrize("kind", ["", "text/plain"])
def test_an_address_in_a_forms_field_image_is_still_an_address(
    client: httpx.Client, kind: str
) -> None:
    answer = client.post("/classify", **form('name="image"', b"ftp://a.example/b.jpg", kind))
    assert answer.status_code == 422
    assert answer.json()["error"]["reason"] == "scheme"
    blank = client.post("/classify", **form('name="image"; filename=""', b"", kind))
    assert "give id" in blank.json()["error"]["message"]


def test_texts_stay_texts(client: httpx.Client) -> None:
    sent = form('name="attributes"', b'{"pieces": 12}', "application/json", more=(
        b'--X\r\nContent-Disposition: form-data; name="id"\r\n\r\nnew\r\n'
        b'--X\r\nContent-Disposition: form-data; name="title"\r\n\r\n'
        b'a; filename="b"; filename*=UTF-8\'\'c.jpg\r\n'
    ))  # fmt: skip
    assert client.post("/products", **sent).status_code == 201
    stored = client.get("/products/new").json()
    assert stored["title"] == "a; filename=\"b\"; filename*=UTF-8''c.jpg"
    assert stored["attributes"] == {"pieces": 12}


@pytest.mark.parametrize(
    "disposition",
    ["", "name", 'filename="a.jpg"', "name=\"image\"; filename*=\0''x", "name*=x''image"],
)
def test_a_part_that_cannot_be_read_is_refused(client: httpx.Client, disposition: str) -> None:
    refused = client.post("/classify", **form(disposition, picture()))
    assert refused.status_code == 422
    assert len(refused.content) < 500


def test_a_file_in_another_field_is_named_and_not_ignored(client: httpx.Client) -> None:
    refused = client.post("/classify", files={"picture": ("a.jpg", picture())}, data={"text": "x"})
    assert refused.status_code == 422
    assert "'picture' holds a file" in refused.json()["error"]["message"]


@pytest.mark.parametrize(
    ("address", "told"),
    [
        ("/products?wher=price<20", "'wher': there is no such parameter here, but where, search"),
        ("/products?limit=1&limit=2", "'limit' is given more than once"),
        ("/products/p1?at=3", "'at': there is no such parameter here, and no other"),
    ],
)
def test_no_parameter_of_an_address_is_passed_over(
    client: httpx.Client, address: str, told: str
) -> None:
    refused = client.get(address)
    assert refused.status_code == 422
    assert told in refused.json()["error"]["message"]
    assert client.get("/healthz?anything=1").status_code == 200


def test_no_field_of_a_form_is_passed_over_nor_a_packed_body_misread(client: httpx.Client) -> None:
    twice = client.post("/classify", files=[("text", (None, "a")), ("text", (None, "b"))])
    packed = client.post("/classify", content=b"x", headers={"content-encoding": "gzip"})
    for refused, told in ((twice, "'text' is given more than once"), (packed, "send it unpacked")):
        assert refused.status_code == 422
        assert told in refused.json()["error"]["message"]


# ---- bodies


def unknown(count: int) -> bytes:
    return json.dumps({f"key {i}": "x" * 40 for i in range(count)}).encode()


@pytest.mark.parametrize(
    ("body", "status", "told"),
    [
        (unknown(200_000), 413, "1,000,000 bytes"),
        (unknown(15_000), 422, "'key 0', 'key 1', 'key 2', 'key 3', 'key 4' and 14,995 more"),
        (json.dumps({"x" * 900_000: 1}).encode(), 422, "there is no such field"),
        (json.dumps({"attributes": dict.fromkeys(map(str, range(50_000)))}).encode(), 422,
         "attributes: there are 50,000, more than 200"),
        (json.dumps({"id": "a", "attributes": {str(i): [] for i in range(200)}}).encode(), 422,
         "attributes.0.str: Input should be a valid string"),
        (json.dumps({"id": "a", "attributes": {"n" * 201: 1}}).encode(), 422, "200 characters"),
        (b"[" * 900_000, 422, "no JSON"),
    ],
)  # fmt: skip
def test_a_large_body_of_nonsense_is_answered_briefly(
    client: httpx.Client, body: bytes, status: int, told: str
) -> None:
    refused = client.post("/products", content=body)
    assert refused.status_code == status
    assert told in refused.json()["error"]["message"]
    assert len(refused.content) < 3000


def test_large_json_is_parsed_beside_the_loop(
    client: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[str] = []
    check = requests.checked

    def checked(model: Any, value: Any) -> Any:
        threads.append(threading.current_thread().name.rpartition("_")[0])
        return check(model, value)

    monkeypatch.setattr(requests, "checked", checked)
    for size in (10, 19_000):
        text = json.dumps({"text": "ä" * size})
        assert client.post("/classify", content=text).status_code == 200
    assert threads[1] == "kinshelf-request" != threads[0]


def test_a_large_body_takes_a_place_and_leaves_it(
    place: Path, encoder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "_PLACES", 1)
    large = {"image": ("a.jpg", picture() + b"x" * 400_000, "image/jpeg")}
    served = in_thread(settings_for(place), encoder)
    with served as (url, _), httpx.Client(base_url=url, timeout=50) as client:
        for _ in range(3):
            assert client.post("/classify", files=large).status_code == 200
        address = ("127.0.0.1", int(url.rpartition(":")[2]))
        with socket.create_connection(address) as sock, ThreadPoolExecutor(1) as pool:
            begin = _PART + b'"image"; filename="a.jpg"\r\n\r\n' + b"x" * 400_000
            sock.sendall(_half_sent("multipart/form-data; boundary=X", 500_000) + begin)
            time.sleep(0.5)
            waiting = pool.submit(client.post, "/classify", files=large)
            time.sleep(0.5)
            assert not waiting.done()
            assert httpx.post(f"{url}/classify", json={"text": "red"}).status_code == 200
            sock.close()
            assert waiting.result().status_code == 200


def _half_sent(kind: str, size: int) -> bytes:
    path = "/login" if "urlencoded" in kind else "/classify"
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind}\r\n"
    return f"{head}Transfer-Encoding: chunked\r\n\r\n{size:x}\r\n".encode()


_PART = b"--X\r\nContent-Disposition: form-data; name="


@pytest.fixture(scope="module")
def alone(place: Path) -> Iterator[tuple[str, psutil.Process, int]]:
    """A server in a process, and its memory before any body was sent."""
    with process(place) as (url, child):
        server = psutil.Process(child.pid)
        assert httpx.get(f"{url}/healthz").status_code == 200
        yield url, server, server.memory_info().rss


@pytest.mark.parametrize(
    ("kind", "begin"),
    [
        ("application/json", b'{"text": "'),
        ("multipart/form-data; boundary=X", _PART + b'"text"\r\n\r\n'),
        ("multipart/form-data; boundary=X", _PART + b'"image"; filename="a.jpg"\r\n\r\n'),
        ("multipart/form-data; boundary=X", _PART + b'"image"\r\n\r\n'),
        ("application/x-www-form-urlencoded", b"token="),
    ],
)
def test_sixty_bodies_sent_halfway_take_little_memory(
    alone: tuple[str, psutil.Process, int], kind: str, begin: bytes
) -> None:
    url, server, before = alone
    with contextlib.ExitStack() as stack:
        head, half = _half_sent(kind, 24_000_000) + begin, b"x" * 12_000_000

        def send() -> None:
            address = ("127.0.0.1", int(url.rpartition(":")[2]))
            sock = stack.enter_context(socket.create_connection(address, timeout=3))
            with contextlib.suppress(OSError):  # refused, or made to wait
                sock.sendall(head + half)

        with ThreadPoolExecutor(60) as pool:
            for sent in [pool.submit(send) for _ in range(60)]:
                sent.result()
        assert httpx.get(f"{url}/healthz", timeout=240).status_code == 200
        assert server.memory_info().rss - before < 250e6
