"""Where a value comes from: the feed, a person, a prediction; and what that decides."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import unit

from kinshelf import Shelf
from kinshelf.db.product import Product
from kinshelf.store.ingest.edit import amend
from kinshelf.store.operations.apply import Label, apply_labels
from kinshelf.store.operations.decisions import keep

RECEIPT = {"probe": 1, "probability": 0.97, "policy": 0.98, "generation": 1}


def embedded(n: int, seed: int) -> tuple[Any, Any]:
    rng = np.random.default_rng(seed)
    image, text = (unit(rng.standard_normal((n, 8))) for _ in range(2))
    return image, text


def put(shelf: Any, *products: Product) -> None:
    shelf.upsert(list(products), *embedded(len(products), 0))


@pytest.fixture
def shelf(tmp_path: Path) -> Any:
    with Shelf.create(tmp_path / "s.shelf", encoder="fake") as made:
        put(made, Product("a", "a cup", category="Cups"), Product("b", "b"), Product("c", "c"))
        apply_labels(made, {"b": Label("Mugs", RECEIPT)})
        yield made


def sources(shelf: Any) -> dict[str, str | None]:
    found = {p["id"]: p["category_source"] for p in shelf.products()}
    for source in ("feed", "person", "predicted"):
        matched = {p["id"] for p in shelf.products(f"category_source = '{source}'")}
        assert matched == {name for name, each in found.items() if each == source}
    unset = {p["id"] for p in shelf.products("category_source IS NULL")}
    assert unset == {name for name, each in found.items() if each is None}
    return found


def test_each_category_states_who_set_it(shelf: Any) -> None:
    assert sources(shelf) == {"a": "feed", "b": "predicted", "c": None}
    shelf.relabel({"c": "Mugs"})
    assert sources(shelf)["c"] == "person"


def test_the_receipt_of_a_prediction_is_kept_and_survives_a_compaction(shelf: Any) -> None:
    assert shelf.get("b").decided["category"] == {"source": None, "predicted": RECEIPT}
    shelf.compact()
    assert shelf.get("b").decided["category"]["predicted"] == RECEIPT


def test_predicted_categories_are_no_labels_unless_they_are_asked_for(shelf: Any) -> None:
    now = shelf.snapshot()
    assert now.labelled()[1].tolist() == ["Cups"]
    assert now.with_predicted().labelled()[1].tolist() == ["Cups", "Mugs"]
    query = now.pairs([now.get("b").row])
    near = now.kneighbors(query, 3, labelled_only=True).rows[0]
    assert near[near >= 0].tolist() == [now.get("a").row]
    near = now.with_predicted().kneighbors(query, 3, labelled_only=True).rows[0]
    assert set(near[near >= 0].tolist()) == {now.get("a").row, now.get("b").row}
    blocks = [block.categories for block in shelf.iter_vectors()]
    assert [c for each in blocks for c in each].count("Mugs") == 0


def test_a_person_confirms_what_was_predicted(shelf: Any) -> None:
    assert shelf.relabel({"b": "Mugs"}) == 1
    assert sources(shelf)["b"] == "person"
    assert shelf.snapshot().labelled()[1].tolist() == ["Cups", "Mugs"]


def test_keeping_a_product_in_a_review_confirms_it(shelf: Any) -> None:
    keep(shelf, "b")
    assert sources(shelf)["b"] == "person"


def test_changing_another_field_confirms_nothing(shelf: Any) -> None:
    amend(shelf, "b", {"price": 3.0})
    assert sources(shelf)["b"] == "predicted"
    assert shelf.get("b").decided["price"] == {"source": None}


def test_a_feed_that_states_nothing_leaves_a_prediction(shelf: Any) -> None:
    image, text = embedded(3, 0)
    shelf.upsert([Product("b", "b")], image[1:2], text[1:2])
    assert (shelf.get("b").product.category, sources(shelf)["b"]) == ("Mugs", "predicted")


@pytest.mark.parametrize("stated", ["Mugs", "Bowls"])
def test_a_feed_that_states_a_category_replaces_a_prediction(shelf: Any, stated: str) -> None:
    put(shelf, Product("b", "b", category=stated))
    assert (shelf.get("b").product.category, sources(shelf)["b"]) == (stated, "feed")
    assert shelf.get("b").decided == {}


def test_a_prediction_never_replaces_what_a_feed_or_a_person_set(shelf: Any) -> None:
    shelf.relabel({"c": "Bowls"})
    report = apply_labels(shelf, dict.fromkeys("abc", Label("Mugs", RECEIPT)))
    assert (report.applied, report.unchanged, report.left) == (0, 1, ["a", "c"])
    assert [shelf.get(n).product.category for n in "abc"] == ["Cups", "Mugs", "Bowls"]


def test_a_later_prediction_replaces_an_earlier_one_and_keeps_the_source(shelf: Any) -> None:
    assert apply_labels(shelf, {"b": Label("Bowls", RECEIPT | {"probe": 2})}).applied == 1
    decision = shelf.get("b").decided["category"]
    assert (decision["source"], decision["predicted"]["probe"]) == (None, 2)
