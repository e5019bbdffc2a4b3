"""What a server does with odd requests, signals in the wrong moment and processes that died."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from conftest import unit
from fastapi.testclient import TestClient
from numpy.random import default_rng
from serve_world import png, settings_for

from kinshelf import Shelf
from kinshelf.cli import main
from kinshelf.db.product import Product
from kinshelf.serve.app import create_app
from kinshelf.serve.pages.files import _Thumbnails
from kinshelf.serve.service.executor import Running
from kinshelf.serve.service.jobs import Jobs
from kinshelf.serve.workers.decoding import Decoders

pytestmark = pytest.mark.wide

TOKEN = "a-token-of-the-tests"


@pytest.fixture
def place(tmp_path: Path) -> Path:
    with Shelf.create(tmp_path / "s.shelf", encoder="fake") as shelf:
        made = [Product(f"p{i}", f"thing {i}", category="ab"[i % 2]) for i in range(6)]
        shelf.upsert(made, unit(default_rng(0).standard_normal((6, 8))), None)
        shelf.relabel({"p1": "a"})
    return tmp_path / "s.shelf"


@pytest.fixture
def client(place: Path) -> Iterator[TestClient]:
    with TestClient(create_app(settings_for(place)), base_url="http://localhost") as client:
        yield client


@pytest.fixture
def guarded(place: Path, tmp_path: Path) -> Iterator[TestClient]:
    (tmp_path / "tokens").write_text(f"{TOKEN} write\n")
    settings = settings_for(place, token_file=tmp_path / "tokens")
    with TestClient(create_app(settings), base_url="http://localhost") as client:
        client.follow_redirects = False
        yield client


HUGE = "9" * 60


@pytest.mark.parametrize("address", [f"/review?done={HUGE}", f"/product?id=p1&done={HUGE}"])
def test_a_generation_that_no_shelf_has_is_refused(client: TestClient, address: str) -> None:
    assert client.get(address).status_code == 422


@pytest.mark.parametrize(
    "sent",
    [{"generation": HUGE}, {"generation": "-1"}, {"generation": "2", "tried": "often"}],
)
def test_undoing_nonsense_is_refused(client: TestClient, sent: dict[str, str]) -> None:
    answer = client.post("/review/undo", data=sent)
    assert answer.status_code == 422
    assert client.get("/info").json()["generation"] == 2


def test_any_name_in_a_query_leads_to_the_login_and_back(guarded: TestClient) -> None:
    for address in ("/shelf?path=x", "/compare?id=p1&id=p2", "/shelf?where=brand%20%3D%20'a%26b'"):
        answer = guarded.get(address)
        assert answer.status_code == 303
        form = guarded.get(answer.headers["location"])
        sent = {"token": TOKEN, "to": _hidden(form.text)}
        assert guarded.post("/login", data=sent).headers["location"] == address
        guarded.cookies.clear()


def _hidden(page: str) -> str:
    from html import unescape

    return unescape(page.split('name="to" value="')[1].split('"', maxsplit=1)[0])


@pytest.mark.parametrize("to", ["//evil", "/\\evil", "/\t/evil", "/a\r\nX-Evil: 1", "/ü", "evil:/"])
@pytest.mark.parametrize("headers", [{}, {"HX-Request": "true"}])
def test_a_login_leads_nowhere_else(guarded: TestClient, to: str, headers: dict[str, str]) -> None:
    answer = guarded.post("/login", data={"token": TOKEN, "to": to}, headers=headers)
    assert answer.headers.get("location", answer.headers.get("hx-redirect")) == "/"
    assert "x-evil" not in answer.headers


def test_a_name_that_no_host_has_is_reported_in_a_line(place: Path, tmp_path: Path) -> None:
    (tmp_path / "tokens").write_text(f"{TOKEN} write\n")
    command = ["serve", "--shelf", str(place), "--host", "a..b", "--token-file"]
    done = CliRunner().invoke(main, [*command, str(tmp_path / "tokens")])
    assert done.exit_code == 3
    assert "cannot be listened on" in done.stderr


@pytest.mark.parametrize("kind", ["requests", "jobs"])
def test_a_signal_that_finds_its_own_thread_at_work_does_not_wait_for_it(
    kind: str, tmp_path: Path
) -> None:
    asked: Any = Running(settings_for(tmp_path)) if kind == "requests" else Jobs()
    end = asked.drain if kind == "requests" else asked.end

    def signalled() -> None:
        with asked._lock:
            end()

    thread = threading.Thread(target=signalled, daemon=True)
    thread.start()
    thread.join(10)
    assert not thread.is_alive()
    asked.close()


def test_every_decoder_is_begun_and_one_that_died_costs_no_picture() -> None:
    decoders = Decoders(2, seconds=20, memory=1_500_000_000, pixels=10**7)
    decoders.begin()
    workers: list[Any] = list(decoders._idle.queue)
    assert len({worker._process.pid for worker in workers}) == 2
    for worker in workers:
        worker._process.kill()
        worker._process.wait()
    for seed in range(3):
        decoders.check(png(seed))
    decoders.close()
    decoders.begin()
    assert list(decoders._idle.queue) == [None, None]


def test_a_thumbnail_is_kept_under_the_picture_that_it_shows(client: TestClient) -> None:
    service: Any = client.app.state.service  # type: ignore[attr-defined]
    asked = []
    service.pictures.thumbnail = lambda image, side: asked.append((image, side)) or b"jpeg"
    stored = service.product("p1")
    before = type(stored)(stored.product.replace(image="old.jpg"), *_rest(stored))
    assert _Thumbnails().get(service, before, 160) == b"jpeg"
    assert asked == [("old.jpg", 160)]


def _rest(stored: Any) -> list[Any]:
    names = ("row", "has_image", "has_text", "image_hash", "image_error", "content_hash", "added")
    return [getattr(stored, name) for name in names]
