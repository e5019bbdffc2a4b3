"""What went wrong, in the page's words and look: no JSON, no bytes, no options of a command."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from serve_world import error_of, settings_for

from kinshelf import Shelf
from kinshelf.db import errors
from kinshelf.serve.app import create_app
from kinshelf.serve.base.errors import for_people, message_of

HTMX = {"hx-request": "true"}


@pytest.fixture
def place(tmp_path: Path, encoder: Any, catalogue: Path) -> Path:
    Shelf.create(tmp_path / "toys.shelf", encoder="fake").close()
    with Shelf.open(tmp_path / "toys.shelf", encoder=encoder) as shelf:
        shelf.add(catalogue)
    return tmp_path / "toys.shelf"


def opened(place: Path, encoder: Any, **changes: Any) -> TestClient:
    app = create_app(settings_for(place, **changes), encoder=encoder)
    client = TestClient(app, base_url="http://127.0.0.1", raise_server_exceptions=False)
    client.follow_redirects = False
    return client


@pytest.fixture
def client(place: Path, encoder: Any) -> Iterator[TestClient]:
    with opened(place, encoder) as client:
        yield client


def told(answer: Any) -> str:
    """The message of a page or of a part of it, which is one."""
    assert answer.headers["content-type"].startswith("text/html")
    found = re.search(r'class="notice bad"[^>]*><p>(.*?)</p>', answer.text, re.DOTALL)
    assert found, answer.text
    message = unescape(found[1])
    assert "--" not in message
    assert "b'" not in message
    return message


@pytest.mark.parametrize("url", ["/nowhere", "/a/b/c", "/shelf/", "/Shelf", "/index.html"])
@pytest.mark.parametrize("accept", ["*/*", "text/html,application/xml;q=0.9,*/*;q=0.8", None])
def test_an_unknown_page_is_a_page(client: TestClient, url: str, accept: str | None) -> None:
    answer = client.get(url, headers={"accept": accept} if accept else {})
    assert (answer.status_code, told(answer)) == (404, "There is no such page.")
    for part in ("<h1>Not found</h1>", '<nav aria-label="Main">', 'href="/shelf"', "page.css"):
        assert part in answer.text


def test_programs_are_answered_with_json(client: TestClient) -> None:
    asked = {"accept": "application/json"}
    assert error_of(client.get("/nowhere", headers=asked))["type"] == "HTTPException"
    for url in ("/products/none", "/jobs/x", "/jobs/1/nowhere", "/info/x", "/classify"):
        assert error_of(client.get(url, headers={"accept": "text/html"}))["message"]


def test_a_page_that_is_only_posted_to_is_a_page(client: TestClient) -> None:
    for url in ("/ask", "/review/decide"):
        answer = client.get(url)
        assert (answer.status_code, told(answer)) == (405, "This page cannot be opened like that.")
        assert answer.headers["allow"] == "POST"


def test_what_never_reaches_a_pages_route_looks_like_the_page(place: Path, encoder: Any) -> None:
    with opened(place, encoder, rate=0.1, burst=1, max_text=1000) as client:
        refused = client.post("/review/decide", data={"id": "x" * 2000})
        assert (refused.status_code, told(refused)) == (413, "the body has more than 1,000 bytes")
        assert "evil" in told(client.get("/", headers={"host": "evil.example"}))
        assert client.get("/shelf").status_code == 200
        often = client.get("/shelf", headers=HTMX)
        assert (often.status_code, often.headers["hx-retarget"]) == (429, "#status")
        assert "ask more slowly" in told(often)
        assert often.headers["retry-after"] == "1"
        assert error_of(client.get("/info"))["type"] == "TooManyRequests"


def test_a_failure_of_the_server_is_a_page(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise ZeroDivisionError

    service: Any = client.app.state.service  # type: ignore[attr-defined]
    monkeypatch.setattr(service, "snapshot", fail)
    answer = client.get("/shelf")
    assert answer.status_code == 500
    assert "its log has the details" in told(answer)


@pytest.mark.parametrize("headers", [{}, HTMX])
@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"not an image", "the file is not a picture"),
        (b"<svg></svg>", "SVG is not supported"),
        (b"\xff\xd8\xff broken", "ends early"),
    ],
)
def test_a_file_that_is_no_picture_is_said_so_without_its_bytes(
    client: TestClient, data: bytes, expected: str, headers: dict[str, str]
) -> None:
    answer = client.post("/ask", files={"image": ("a.jpg", data)}, headers=headers)
    assert answer.status_code == 422
    assert expected in told(answer)
    refused = client.post("/classify", files={"image": ("a.jpg", data)})
    assert "b'" not in error_of(refused)["message"]


def test_nothing_asked_is_said_in_the_pages_words(client: TestClient) -> None:
    answer = client.post("/ask", data={"text": " "})
    assert told(answer) == "the query is empty: give a picture, a title, or both"


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("/product", "id is missing."),
        ("/product?id=p1&weight_image=7", "weight_image cannot be '7'."),
        ("/shelf?page=0", "page cannot be '0'."),
    ],
)
def test_an_address_that_cannot_be_is_told_in_a_sentence(
    client: TestClient, url: str, expected: str
) -> None:
    answer = client.get(url)
    assert (answer.status_code, told(answer)) == (422, expected)


def test_the_login_names_no_option(place: Path, encoder: Any, tmp_path: Path) -> None:
    (tmp_path / "tokens").write_text("a-token-of-the-tests\n")
    with opened(place, encoder, token_file=tmp_path / "tokens") as client:
        assert "--" not in client.get("/login").text.partition("<main")[2]


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("no product matches 'a': widen --where, or train a probe", "no product matches 'a'"),
        ("it has 12, asked is 8; give --hidden 12, or train anew", "it has 12, asked is 8"),
        ("p-1 is locked; try again when it is done", "p-1 is locked; try again when it is done"),
        ("'a --b' is no id", "'a --b' is no id"),
    ],
)
def test_clauses_that_name_options_are_left_out(message: str, shown: str) -> None:
    assert for_people(message) == shown


def test_a_message_is_bounded_whatever_it_quotes() -> None:
    assert len(message_of(errors.InputError("x" * 10**6))) < 2100
    assert "allow" not in message_of(errors.ImageRejected("private-address", "allow private hosts"))
