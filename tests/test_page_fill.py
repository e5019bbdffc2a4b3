"""The Fill view: suggestions on sheets, accepted by a look, all sure ones at once, and undone."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import FakeEncoder, unit
from fastapi.testclient import TestClient
from serve_world import until
from shelf_page import opened, text_of

from kinshelf import Shelf
from kinshelf.db.product import Product
from kinshelf.probe.calibrate.policy import set_policy
from kinshelf.probe.fill.answers import classify_stored
from kinshelf.probe.fit.settings import ProbeSettings

KINDS = ("Toys | Ball", "Toys | Boat", "Books")
QUICK = ProbeSettings(epochs=12, hidden=16, batch_size=16, lr=1e-2)
ASKED = 24


def embedded(kinds: list[int], seed: int) -> tuple[np.ndarray, np.ndarray]:
    centres = np.random.default_rng(7).standard_normal((2, len(KINDS), 16)) * 2
    noise = np.random.default_rng(seed).standard_normal((2, len(kinds), 16))
    image, text = (unit(rows) for rows in centres[:, kinds] + noise)
    return image, text


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("fill") / "a.shelf"
    Shelf.create(path, encoder="fake").close()
    with Shelf.open(path, encoder=FakeEncoder()) as shelf:
        known = [i % 3 for i in range(120)]
        shelf.upsert(
            [Product(f"k{i}", f"known {i}", category=KINDS[k]) for i, k in enumerate(known)],
            *embedded(known, 1),
        )
        asked = [i % 3 for i in range(ASKED)]
        shelf.upsert([Product(f"q{i}", f"new {i}") for i in range(ASKED)], *embedded(asked, 2))
        shelf.train(QUICK)
        set_policy(shelf, 0.8, confidence=0.5)
    return path


@pytest.fixture
def place(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "a.shelf"))


@pytest.fixture
def client(place: Path) -> Iterator[TestClient]:
    with opened(place) as client:
        client.post("/fill/look")
        until(lambda: "Classifying" not in client.get("/fill").text)
        yield client


def categories(client: TestClient) -> dict[str, str | None]:
    return {f"q{i}": client.get(f"/products/q{i}").json()["category"] for i in range(ASKED)}


def sheets(page: str) -> dict[str, list[str]]:
    """The products of each sheet, by category."""
    forms = re.findall(r'<form class="card sheet".*?</form>', page, re.DOTALL)
    return {
        unescape(re.findall(r'name="category" value="([^"]*)"', form)[0]): re.findall(
            r'name="id" value="([^"]*)"', form
        )
        for form in forms
    }


def suggested(place: Path) -> dict[str, Any]:
    with Shelf.open(place) as shelf:
        return {answer.id: answer for answer in classify_stored(shelf, "category IS NULL")}


def test_suggestions_stand_on_sheets_by_verdict_and_category(
    client: TestClient, place: Path
) -> None:
    wanted = suggested(place)
    seen: dict[str, str] = {}
    for verdict in ("accept", "review", "conflict", "novel"):
        if f"verdict={verdict}" in client.get("/fill").text:
            for category, ids in sheets(client.get(f"/fill?verdict={verdict}").text).items():
                assert {wanted[one].verdict for one in ids} == {verdict}
                assert [wanted[i].probability for i in ids] == sorted(
                    (wanted[i].probability for i in ids), reverse=True
                )
                seen |= dict.fromkeys(ids, category)
    assert seen == {one: answer.suggested_category for one, answer in wanted.items()}


def test_a_sheet_is_accepted_but_for_what_was_taken_away_and_undone(client: TestClient) -> None:
    category, ids = next(iter(sheets(client.get("/fill?verdict=accept").text).items()))
    form = {"category": category, "id": ids[1:], "verdict": "accept"}
    answer = client.post("/fill/accept", data=form)
    assert answer.headers["location"].startswith("/fill?verdict=accept&page=1&done=")
    page = client.get(answer.headers["location"]).text
    assert "put into another category" in page
    now = categories(client)
    assert {one for one, name in now.items() if name == category} == set(ids[1:])
    assert client.get(f"/products/{ids[1]}").json()["category_source"] == "person"
    assert sheets(page)[category] == ids[:1]
    undo = page.partition('action="/changes/undo"')[2].partition("</form>")[0]
    fields = {k: unescape(v) for k, v in re.findall(r'name="(\w+)" value="([^"]*)"', undo)}
    back = client.post("/changes/undo", data=fields).headers["location"]
    assert back.startswith("/fill?verdict=accept")
    assert set(categories(client).values()) == {None}


def test_all_sure_ones_are_filled_in_as_predicted_in_one_click(
    client: TestClient, place: Path
) -> None:
    sure = {i: a.suggested_category for i, a in suggested(place).items() if a.verdict == "accept"}
    assert len(sure) > 5
    assert f"Fill in all {len(sure)} sure ones" in text_of(client.get("/fill").text)
    answer = client.post("/fill/accept", data={"all": "1", "verdict": "accept"})
    assert "given their predicted category" in client.get(answer.headers["location"]).text
    assert {one: name for one, name in categories(client).items() if name} == sure
    record = client.get(f"/products/{next(iter(sure))}").json()
    assert record["category_source"] == "predicted"
    assert {"probe", "probability", "policy"} <= record["decided"]["category"]["predicted"].keys()


def test_a_product_without_a_category_shows_its_suggestion_and_takes_it(
    client: TestClient, place: Path
) -> None:
    wanted = suggested(place)["q0"]
    assert "Suggest a category" in client.get("/product?id=q0").text
    part = client.get("/product/suggestion?id=q0", headers={"hx-request": "true"}).text
    assert unescape(part).count(wanted.suggested_category.rpartition(" | ")[2]) >= 1
    fields = {k: unescape(v) for k, v in re.findall(r'name="(\w+)" value="([^"]*)"', part)}
    answer = client.post("/review/decide", data=fields)
    assert answer.headers["location"].startswith("/product?id=q0&done=")
    assert client.get("/products/q0").json()["category"] == wanted.suggested_category


def test_what_was_changed_meanwhile_is_not_accepted(client: TestClient) -> None:
    category, ids = next(iter(sheets(client.get("/fill?verdict=accept").text).items()))
    other = next(name for name in KINDS if name != category)
    assert client.patch(f"/products/{ids[0]}", json={"category": other}).status_code == 200
    answer = client.post("/fill/accept", data={"category": category, "id": ids})
    assert (answer.status_code, "1 of the products were changed" in text_of(answer.text)) == (
        422,
        True,
    )
    nothing = client.post("/fill/accept", data={"category": category})
    assert "no product is marked" in text_of(nothing.text)
