"""Changing many products on the page: what is marked, or all that match; and taking it back."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from html import unescape
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from fastapi.testclient import TestClient
from shelf_page import ODD, PRODUCTS, ids, make, opened, text_of

from kinshelf.serve.pages.shelf.bulk import ASKED


@pytest.fixture
def client(tmp_path: Path) -> Iterator[TestClient]:
    with opened(make(tmp_path / "a.shelf")) as client:
        yield client


def category_of(client: TestClient, product_id: str) -> Any:
    return client.get(f"/products/{product_id}").json()["category"]


def done(client: TestClient, answer: Any) -> str:
    """The page that a change leads to."""
    assert answer.status_code == 303, text_of(answer.text)
    return client.get(answer.headers["location"]).text


def undo(client: TestClient, page: str) -> str:
    """Press the page's Undo."""
    form = page.partition('action="/changes/undo"')[2].partition("</form>")[0]
    fields = dict(re.findall(r'name="(\w+)" value="([^"]*)"', form))
    return done(
        client, client.post("/changes/undo", data={k: unescape(v) for k, v in fields.items()})
    )


def test_the_marked_ones_get_a_category_and_it_is_taken_back(client: TestClient) -> None:
    form = {"do": "category", "id": ["p001", "p002", "p003"], "category": "Toys | Vintage",
            "at": "/shelf?f=colour%3Ablue&page=2"}  # fmt: skip
    answer = client.post("/shelf-do", data=form)
    assert answer.headers["location"].startswith("/shelf?f=colour%3Ablue&page=2&done=")
    page = done(client, answer)
    assert "3 products put into another category." in page
    assert [category_of(client, i) for i in form["id"]] == ["Toys | Vintage"] * 3
    assert "is taken back" in undo(client, page)
    assert [category_of(client, i) for i in form["id"]] == [p.category for p in PRODUCTS[1:4]]


def test_all_that_match_are_changed_beyond_the_page_and_no_others(client: TestClient) -> None:
    form = {"do": "category", "all": "1", "total": "60", "category": "Cards | Vintage",
            "at": "/shelf?f=colour%3Ared&size=36"}  # fmt: skip
    assert "products put into another category" in done(client, client.post("/shelf-do", data=form))
    red = client.get("/shelf?f=colour:red&f=category:Cards&size=144").text
    assert len(ids(red)) == 60
    assert category_of(client, "p003") == PRODUCTS[3].category


def test_all_that_match_are_not_changed_when_others_match_meanwhile(client: TestClient) -> None:
    form = {"do": "remove", "all": "1", "total": "61", "sure": "1", "at": "/shelf?f=colour%3Ared"}
    answer = client.post("/shelf-do", data=form)
    assert answer.status_code == 422
    assert "61 products matched when the page was made, and 60 do now" in text_of(answer.text)


def test_a_new_category_is_asked_about_with_those_that_look_like_it(client: TestClient) -> None:
    form = {"do": "category", "id": ["p001"], "category": "Toys | Vintag", "at": "/shelf?q=thing"}
    answer = client.post("/shelf-do", data=form)
    assert answer.status_code == 409
    assert "Toys | Vintage" in text_of(answer.text)
    create = answer.text.rpartition("<form")[2].partition("</form>")[0]
    assert "Create “Toys | Vintag”" in create
    fields = re.findall(r'name="(\w+)" value="([^"]*)"', create)
    answer = client.post("/shelf-do", data={k: unescape(v) for k, v in fields})
    assert answer.headers["location"].startswith("/shelf?q=thing&done=")
    assert category_of(client, "p001") == "Toys | Vintag"


def test_many_are_removed_only_when_asked_twice_and_come_back(client: TestClient) -> None:
    form = {"do": "remove", "all": "1", "total": "120", "at": "/shelf"}
    assert ASKED < 120
    answer = client.post("/shelf-do", data=form)
    assert (answer.status_code, "Remove 120 products" in text_of(answer.text)) == (409, True)
    page = done(client, client.post("/shelf-do", data=form | {"sure": "1"}))
    assert "120 products removed." in page
    assert "0 products" in text_of(page)
    assert "120 products" in text_of(undo(client, page))


def test_an_export_holds_what_was_marked_or_matches(client: TestClient) -> None:
    marked = client.post("/shelf-do", data={"do": "csv", "id": ["p001", "p004"], "at": "/shelf"})
    assert re.search(r'filename="products-\d+\.csv"', marked.headers["content-disposition"])
    rows = list(csv.DictReader(io.StringIO(marked.text)))
    assert [row["id"] for row in rows] == ["p001", "p004"]
    assert rows[0]["brand"] == PRODUCTS[1].brand
    form = {"do": "parquet", "all": "1", "total": "60", "at": "/shelf?f=colour%3Ared"}
    table = pq.read_table(io.BytesIO(client.post("/shelf-do", data=form).content))
    wanted = [p.id for p in PRODUCTS if p.attributes["colour"] == "red"]
    assert table.column("id").to_pylist() == wanted
    assert len(table.column("image_embedding")[0]) == 16


@pytest.mark.parametrize(
    ("form", "status", "words"),
    [
        ({"do": "category", "category": "x", "at": "/shelf"}, 422, "no product is selected"),
        ({"do": "category", "id": "p001", "at": ""}, 422, "no category was given"),
        ({"do": "remove", "id": ODD}, 404, "no product has the id"),
        ({"do": "burn", "id": "p001"}, 422, "nothing that can be done here"),
        ({"do": "compare", "id": "p001"}, 422, "mark two to four"),
        ({"do": "csv", "all": "1", "at": "/shelf?f=bramd:x"}, 422, "no column `bramd`"),
    ],
)
def test_what_cannot_be_done_is_stated(
    client: TestClient, form: dict[str, str], status: int, words: str
) -> None:
    answer = client.post("/shelf-do", data=form)
    assert (answer.status_code, words in text_of(answer.text)) == (status, True), text_of(
        answer.text
    )


def test_who_changed_it_is_in_the_history_and_readers_change_nothing(tmp_path: Path) -> None:
    tokens = tmp_path / "tokens"
    tokens.write_text("a-token-for-reading read\na-token-for-writing write Anna\n")
    form = {"do": "category", "id": ["p001"], "category": "Toys | Vintage", "at": "/shelf"}
    with opened(make(tmp_path / "a.shelf"), token_file=tokens) as client:
        reading, writing = (
            {"authorization": f"Bearer a-token-for-{w}"} for w in ("reading", "writing")
        )
        refused = client.post("/shelf-do", data=form, headers=reading)
        assert (refused.status_code, "may not write" in text_of(refused.text)) == (403, True)
        assert client.post("/shelf-do", data=form, headers=writing).status_code == 303
        history = client.get("/changes", headers=reading).text
    assert "1 product put into another category" in text_of(history)
    assert "Anna" in text_of(history)


def test_the_history_shows_each_field_before_and_after(client: TestClient) -> None:
    form = {"do": "category", "id": ["p001"], "category": "Toys | Vintage", "at": "/shelf"}
    client.post("/shelf-do", data=form)
    page = client.get("/changes/operation?number=2").text
    assert "category Cards | Vintage Toys | Vintage" in text_of(page)
    undone = undo(client, page)
    assert "taken back" in text_of(undone)
    assert 'href="/changes/operation?number=3"' in undone
    assert client.get("/changes/operation?number=99").status_code == 422
