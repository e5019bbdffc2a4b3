"""One product on the page: edited in place, its history, and added from an answer."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from serve_world import png
from shelf_page import ODD, PRODUCTS, make, opened, text_of


@pytest.fixture
def client(tmp_path: Path) -> Iterator[TestClient]:
    with opened(make(tmp_path / "a.shelf")) as client:
        yield client


def form(client: TestClient, product_id: str, **changes: str) -> dict[str, str]:
    """The fields of a product's form as the page has them, with some changed."""
    page = client.get(f"/product?id={product_id}").text
    found = page.partition('action="/product/edit"')[2].partition("</form>")[0]
    fields = dict(re.findall(r'<input[^>]*name="([^"]*)"[^>]*value="([^"]*)"', found))
    fields |= dict(re.findall(r'<textarea[^>]*name="([^"]*)"[^>]*>([^<]*)', found))
    return {unescape(k): unescape(v) for k, v in fields.items()} | changes


def record(client: TestClient, product_id: str) -> dict[str, Any]:
    found: dict[str, Any] = client.get(f"/products/{product_id}").json()
    return found


def test_a_form_that_is_sent_as_it_came_changes_nothing(client: TestClient) -> None:
    before = record(client, "p007")
    assert client.post("/product/edit", data=form(client, "p007")).status_code == 303
    assert record(client, "p007") == before


def test_changed_fields_are_stored_shown_in_its_history_and_taken_back(client: TestClient) -> None:
    changes = {"title": "Another <b>", "price": "7.25", "brand": "", "attribute.pieces": "12"}
    answer = client.post("/product/edit", data=form(client, "p007", **changes))
    found = record(client, "p007")
    assert (found["title"], found["price"], found["brand"]) == ("Another <b>", 7.25, None)
    assert found["attributes"] == PRODUCTS[7].attributes | {"pieces": 12}
    page = client.get(answer.headers["location"]).text
    assert "1 product changed." in page
    assert "title : Blue thing 7 → Another <b>" in text_of(page)
    assert "price : 10.5 → 7.25" in text_of(page)
    undo = page.partition('action="/changes/undo"')[2].partition("</form>")[0]
    fields = {k: unescape(v) for k, v in re.findall(r'name="(\w+)" value="([^"]*)"', undo)}
    assert client.post("/changes/undo", data=fields).status_code == 303
    assert record(client, "p007")["title"] == PRODUCTS[7].title


@pytest.mark.parametrize(
    ("changes", "status", "words"),
    [
        ({"price": "cheap"}, 422, "the price 'cheap' is no number"),
        ({"row": "5"}, 422, "was changed meanwhile"),
        ({"title": "", "description": ""}, 422, "needs a title, a description or an image"),
        ({"category": "Toys | Vintag"}, 409, "Create “Toys | Vintag”"),
        ({"id": ODD}, 404, "no product has the id"),
    ],
)
def test_what_cannot_be_is_stated(
    client: TestClient, changes: dict[str, str], status: int, words: str
) -> None:
    answer = client.post("/product/edit", data=form(client, "p007", **changes))
    assert (answer.status_code, words in text_of(answer.text)) == (status, True), text_of(
        answer.text
    )
    assert record(client, "p007")["title"] == PRODUCTS[7].title


def test_what_was_asked_about_is_added_with_its_picture_and_category(client: TestClient) -> None:
    fields = {"text": "A wooden train\nwith 12 wagons", "category": "Toys | Vintage", "id": "new"}
    answer = client.post("/ask/add", data=fields, files={"image": ("a.png", png(), "image/png")})
    assert answer.headers["location"].startswith("/product?id=new&done="), text_of(answer.text)
    found = record(client, "new")
    assert (found["title"], found["description"]) == ("A wooden train", "with 12 wagons")
    assert (found["category"], found["has_image"]) == ("Toys | Vintage", True)
    assert client.get("/thumbnail?id=new&side=1600").headers["content-type"] == "image/jpeg"
    assert client.post("/ask/add", data=fields).status_code == 409


def test_a_new_category_of_an_added_product_must_be_meant(client: TestClient) -> None:
    fields = {"text": "A wooden train", "category": "Trains"}
    answer = client.post("/ask/add", data=fields)
    assert (answer.status_code, "tick “a new category”" in text_of(answer.text)) == (422, True)
    answer = client.post("/ask/add", data=fields | {"new": "1"})
    assert "Trains" in text_of(client.get(answer.headers["location"]).text)
