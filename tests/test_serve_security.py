"""Safe by default: loopback or tokens, scopes, other sites' pages, limits, headers."""

from __future__ import annotations

import asyncio
import io
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from fastapi.testclient import TestClient
from PIL import Image
from serve_world import error_of, png, settings_for

from kinshelf import Shelf
from kinshelf.cli import main
from kinshelf.db.errors import InputError, KinshelfError, SourceNotFound
from kinshelf.serve.app import create_app
from kinshelf.serve.base.errors import RequestRefused, TooManyRequests, status_of
from kinshelf.serve.base.settings import ServeSettings
from kinshelf.serve.http import security
from kinshelf.serve.http.limits import Limits, Rate
from kinshelf.serve.http.security import Guard, read_tokens

pytestmark = pytest.mark.wide

READ, WRITE = "reader-0123456789", "writer-0123456789"


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


@pytest.fixture
def path(tmp_path: Path, encoder: Any, catalogue: Path) -> Path:
    Shelf.create(tmp_path / "toys.shelf", encoder="fake").close()
    with Shelf.open(tmp_path / "toys.shelf", encoder=encoder) as shelf:
        shelf.add(catalogue)
    return tmp_path / "toys.shelf"


@pytest.fixture
def tokens(tmp_path: Path) -> Path:
    file = tmp_path / "tokens"
    file.write_text(f"# who may\n{READ} read\n\n{WRITE}\n")
    return file


def client_of(path: Path, encoder: Any, **changes: Any) -> TestClient:
    app = create_app(settings_for(path, **changes), encoder=encoder)
    return TestClient(app, base_url="http://127.0.0.1", raise_server_exceptions=False)


@pytest.fixture
def client(path: Path, encoder: Any) -> Iterator[TestClient]:
    with client_of(path, encoder) as opened:
        yield opened


@pytest.fixture
def guarded(path: Path, encoder: Any, tokens: Path) -> Iterator[TestClient]:
    with client_of(path, encoder, token_file=tokens) as opened:
        yield opened


# ---- where it listens


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.1", "::1", "localhost"])
def test_a_loopback_address_needs_no_token(host: str) -> None:
    ServeSettings(Path("s"), host=host).check()


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.4", "example.com", "localhost.evil"])
def test_any_other_address_needs_one(host: str) -> None:
    with pytest.raises(InputError, match="--token-file"):
        ServeSettings(Path("s"), host=host).check()
    ServeSettings(Path("s"), host=host, token_file=Path("t")).check()


def test_the_command_reports_it_in_one_line(path: Path) -> None:
    ran = CliRunner().invoke(main, ["serve", "--host", "0.0.0.0", "--shelf", str(path)])
    assert ran.exit_code == 3
    assert "--token-file" in ran.output
    assert "Traceback" not in ran.output


# ---- tokens


@pytest.mark.parametrize(
    ("text", "expected"),
    [("", "no token"), ("# none\n", "no token"), ("short", "characters"),
     (f"{WRITE} admin", "read"), (f"{WRITE} read write", "read")],
)  # fmt: skip
def test_a_token_file_that_cannot_be_used_is_named_and_never_quoted(
    tmp_path: Path, text: str, expected: str
) -> None:
    file = tmp_path / "tokens"
    file.write_text(text)
    with pytest.raises(InputError, match=expected) as caught:
        read_tokens(file)
    assert WRITE not in str(caught.value)
    with pytest.raises(SourceNotFound):
        read_tokens(tmp_path / "none")


def test_without_a_token_nothing_but_health_is_reported(guarded: TestClient) -> None:
    assert guarded.get("/healthz").status_code == 200
    paths = guarded.get("/openapi.json", headers=bearer(READ)).json()["paths"]
    for path, operations in paths.items():
        for method in operations:
            if path == "/healthz":
                continue
            url = path.replace("{product_id}", "p1").replace("{number}", "1")
            for headers in ({}, bearer("wrong-0123456789"), {"authorization": f"Basic {READ}"}):
                refused = guarded.request(method, url, headers=headers)
                assert refused.status_code == 401, (method, path)
                assert refused.headers["www-authenticate"] == "Bearer"
                assert error_of(refused)["type"] == "Unauthorised"
    assert guarded.get("/openapi.json").status_code == 401


def test_a_reading_token_reads_and_a_writing_one_does_both(guarded: TestClient) -> None:
    product = {"id": "new", "title": "red thing"}
    assert guarded.post("/similar", json={"id": "p1"}, headers=bearer(READ)).status_code == 200
    writes = [
        ("POST", "/products", product), ("PATCH", "/products/p1", {"price": 1}),
        ("DELETE", "/products/p1", None), ("POST", "/train", {}),
    ]  # fmt: skip
    for method, url, body in writes:
        refused = guarded.request(method, url, json=body, headers=bearer(READ))
        assert refused.status_code == 403
        assert error_of(refused)["type"] == "Forbidden"
    for method, url, body in writes:
        done = guarded.request(method, url, json=body, headers=bearer(WRITE))
        assert done.status_code < 300, done.text
    assert guarded.get("/info", headers=bearer(WRITE)).status_code == 200


def test_the_page_may_carry_its_token_in_a_cookie(guarded: TestClient) -> None:
    guarded.cookies.set(security.COOKIE, READ)
    assert guarded.get("/info").status_code == 200
    guarded.cookies.set(security.COOKIE, "wrong-0123456789")
    assert guarded.get("/info").status_code == 401


def test_comparing_a_token_takes_as_long_however_much_of_it_is_right(tokens: Path) -> None:
    guard = Guard(read_tokens(tokens), None)
    near, far = WRITE[:-1] + "x", "x" * len(WRITE)

    def nanoseconds(token: str) -> int:
        start = time.perf_counter_ns()
        for _ in range(20):
            guard.scopes(token)
        return time.perf_counter_ns() - start

    # the least of many, taken in turn: a busy machine makes some of both slow, never all of one
    times = [(nanoseconds(near), nanoseconds(far)) for _ in range(500)]
    assert min(n for n, _ in times) == pytest.approx(min(f for _, f in times), rel=0.3)


# ---- other sites' pages


def test_a_name_that_was_made_to_lead_here_is_not_answered(client: TestClient) -> None:
    for host in ("evil.example", "127.0.0.1.evil.example", "", "evil.example:80"):
        refused = client.get("/info", headers={"host": host})
        assert refused.status_code == 403, host
    for host in ("localhost:8765", "127.0.0.1:1", "[::1]:8765"):
        assert client.get("/info", headers={"host": host}).status_code == 200


def test_another_sites_form_changes_nothing(client: TestClient) -> None:
    for origin in ("http://evil.example", "null", "http://127.0.0.1:9999", "http://localhost"):
        refused = client.post("/products", data={"id": "x"}, headers={"origin": origin})
        assert refused.status_code == 403, origin
        assert client.delete("/products/p1", headers={"origin": origin}).status_code == 403
    own = {"origin": "http://127.0.0.1"}
    assert client.patch("/products/p1", json={"price": 2}, headers=own).status_code == 200


def test_behind_tokens_any_name_is_answered_unless_names_are_given(
    path: Path, encoder: Any, tokens: Path
) -> None:
    for hosts, status in (((), 200), (("shop.example",), 403)):
        changes = {"host": "0.0.0.0", "token_file": tokens, "hosts": hosts}
        with client_of(path, encoder, **changes) as client:
            named = {"host": "other.example", **bearer(READ)}
            assert client.get("/info", headers=named).status_code == status
            named["host"] = "shop.example"
            assert client.get("/info", headers=named).status_code == 200


# ---- headers


def test_every_answer_forbids_scripts_that_are_not_the_servers_own(guarded: TestClient) -> None:
    for url in ("/healthz", "/info", "/nowhere"):
        headers = guarded.get(url).headers
        policy = dict(
            part.split(maxsplit=1) for part in headers["content-security-policy"].split(";")
        )
        assert policy["default-src"] == "'none'"
        assert policy["script-src"] == "'self'"
        assert policy["frame-ancestors"] == "'none'"
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert "server" not in headers


# ---- size, rate, time


def test_a_body_that_is_too_large_is_refused_whether_or_not_it_reports_it(
    path: Path, encoder: Any
) -> None:
    with client_of(path, encoder, max_body=2000) as client:
        large = b"x" * 3000
        assert client.post("/classify", content=large).status_code == 413

        def unsaid() -> Iterator[bytes]:
            for _ in range(30):
                yield b"x" * 100

        refused = client.post("/classify", content=unsaid())
        assert refused.status_code == 413
        assert error_of(refused)["type"] == "TooLarge"
        noisy = client.post("/classify", files={"image": ("p.png", png(0, 64))})
        assert noisy.status_code == 413


def test_a_picture_with_too_many_pixels_is_refused(path: Path, encoder: Any) -> None:
    file = io.BytesIO()
    Image.new("RGB", (400, 300)).save(file, "PNG")
    with client_of(path, encoder, max_pixels=100_000) as client:
        refused = client.post("/classify", files={"image": ("p.png", file.getvalue())})
        assert (refused.status_code, error_of(refused)["reason"]) == (422, "too-large")


def test_who_asks_too_often_is_reported_when_to_ask_again(path: Path, encoder: Any) -> None:
    with client_of(path, encoder, rate=0.001, burst=3) as client:
        statuses = [client.get("/jobs").status_code for _ in range(5)]
        assert statuses == [200, 200, 200, 429, 429]
        refused = client.get("/jobs")
        assert refused.headers["retry-after"] == "1"
        assert client.get("/healthz").status_code == 200


def test_the_rate_is_one_of_each_address_and_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("kinshelf.serve.http.limits.time.monotonic", lambda: now[0])
    rate = Rate(2.0, 4)
    for _ in range(4):
        rate.take("a")
    with pytest.raises(TooManyRequests):
        rate.take("a")
    rate.take("b")
    now[0] += 1.0
    rate.take("a")
    rate.take("a")
    with pytest.raises(TooManyRequests):
        rate.take("a")


def test_a_body_that_drips_in_is_given_up(path: Path, encoder: Any) -> None:
    app = create_app(settings_for(path, request_seconds=0.2), encoder=encoder)
    sent: list[dict[str, Any]] = []

    async def drip() -> dict[str, Any]:
        await asyncio.sleep(0.05)
        return {"type": "http.request", "body": b" ", "more_body": True}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http", "method": "POST", "path": "/classify", "raw_path": b"/classify",
        "query_string": b"", "headers": [(b"host", b"localhost")], "client": ("c", 1),
        "http_version": "1.1", "scheme": "http", "server": ("localhost", 80), "root_path": "",
    }  # fmt: skip
    asyncio.run(asyncio.wait_for(app(scope, drip, send), 60))  # else it drips for ever
    assert sent[0]["status"] == 503
    app.state.service.close()


# ---- errors


def every(kind: type[KinshelfError]) -> set[type[KinshelfError]]:
    return {kind}.union(*map(every, kind.__subclasses__()))


def test_every_error_has_a_status(path: Path) -> None:
    for kind in every(KinshelfError):
        error = kind.__new__(kind)
        status, wait = status_of(error)
        assert 400 <= status < 600, kind
        if status in (423, 429, 503):
            assert wait, kind
        if issubclass(kind, RequestRefused):
            assert kind.__doc__


def test_limits_let_other_protocols_through() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        scope["seen"] = True

    scope: dict[str, Any] = {"type": "lifespan"}
    limits = Limits(
        app, settings=settings_for(Path("x")), guard=Guard(None, None), metrics=None, answer=None
    )
    asyncio.run(limits(scope, None, None))  # type: ignore[arg-type]
    assert scope["seen"]


def test_decoding_processes_end_with_the_server(client: TestClient) -> None:
    assert client.post("/classify", files={"image": ("p.png", png())}).status_code == 200
    workers = [w._process.pid for w in list(client.app.state.service.decoders._idle.queue) if w]  # type: ignore[attr-defined]
    assert workers
    client.app.state.service.close()  # type: ignore[attr-defined]
    for pid in workers:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
