"""Facets: counts by several columns at once, against counting in Python."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import unit

from kinshelf import Shelf
from kinshelf.db.catalog.facets import EDGES, count_facets, facet_names
from kinshelf.db.errors import FilterError
from kinshelf.db.product import Product
from kinshelf.store.generation import AnySnapshot

ODD = "o'd\"d*/~%"


def made(i: int) -> Product:
    return Product(
        f"p{i}",
        f"title {i}",
        category=None if i % 5 == 0 else f"Area {i % 2} | Kind {i % 7}",
        price=None if i % 4 == 0 else i / 10,
        brand=f"Größe {i % 3}",
        attributes={
            "colour": ("red", "green", "blue")[i % 3], "pieces": i % 4 - 1, "washable": i % 2 == 0,
            ODD: "yes" if i % 2 else "no", "url": f"https://shop.example/{i}", "one": "same",
        },
    )  # fmt: skip


PRODUCTS = [made(i) for i in range(300)]
NAMES = ["category", "price", "brand", "has_image", "category_source", "colour", "pieces", ODD]


@pytest.fixture(scope="module")
def now(tmp_path_factory: pytest.TempPathFactory) -> Any:
    rows = unit(np.random.default_rng(0).standard_normal((300, 8)))
    with Shelf.create(tmp_path_factory.mktemp("facets") / "a.shelf") as shelf:
        shelf.upsert(
            [*PRODUCTS, Product("gone", "gone", brand="gone")], *[np.vstack([rows, rows[:1]])] * 2
        )
        shelf.remove(["gone"])
        yield shelf.snapshot()


def value_of(product: Product, name: str) -> Any:
    computed = {
        "has_image": True, "category_source": "feed" if product.category else None,
    }  # fmt: skip
    if name in computed:
        return computed[name]
    return product.attributes[name] if name in product.attributes else getattr(product, name)


def counted(products: list[Product], name: str) -> tuple[Counter[Any], int]:
    """Values with counts, and how many lack one."""
    values = [value_of(product, name) for product in products]
    return Counter(v for v in values if v is not None), values.count(None)


@pytest.mark.parametrize("name", NAMES)
def test_a_facet_counts_what_python_counts(now: AnySnapshot, name: str) -> None:
    found = count_facets(now.view, NAMES, limit=1000)
    values, lacking = counted(PRODUCTS, name)
    facet = found.facets[name]
    assert dict(facet.values) == values
    assert (facet.distinct, facet.lacking, found.total) == (len(values), lacking, 300)
    assert [count for _, count in facet.values] == sorted(values.values(), reverse=True)


def test_only_the_products_that_match_are_counted(now: AnySnapshot) -> None:
    found = count_facets(now.view, ["brand"], now.filter("colour = 'red' AND price > 3"))
    wanted = [p for p in PRODUCTS if p.attributes["colour"] == "red" and (p.price or 0) > 3]
    assert (found.total, dict(found.facets["brand"].values)) == (
        len(wanted), counted(wanted, "brand")[0],
    )  # fmt: skip


def test_a_facets_own_filter_restricts_all_but_itself(now: AnySnapshot) -> None:
    own = {"colour": "colour = 'red'", "pieces": "pieces IN (1, 2)"}
    found = count_facets(
        now.view, ["colour", "pieces", "brand"], now.filter("price > 3"),
        own={name: now.filter(text) for name, text in own.items()},
    )  # fmt: skip
    base = [p for p in PRODUCTS if (p.price or 0) > 3]
    red = [p for p in base if p.attributes["colour"] == "red"]
    few = [p for p in base if p.attributes["pieces"] in (1, 2)]
    both = [p for p in red if p in few]
    wanted = {"colour": few, "pieces": red, "brand": both}
    for name, products in wanted.items():
        assert dict(found.facets[name].values) == counted(products, name)[0]
    assert found.total == len(both)


@pytest.mark.parametrize("name", ["price", "pieces"])
def test_bands_hold_each_number_once(now: AnySnapshot, name: str) -> None:
    facet = count_facets(now.view, [name]).facets[name]
    numbers = counted(PRODUCTS, name)[0]
    assert sum(band.count for band in facet.bands) == numbers.total()
    for band in facet.bands:
        low, high = band.low, band.high
        inside = [
            n
            for n in numbers.elements()
            if (low is None or n >= low) and (high is None or n < high)
        ]
        assert band.count == len(inside) > 0
    assert (facet.bands[0].low is None) == (name == "pieces")


def test_bands_begin_at_ascending_edges() -> None:
    assert list(EDGES) == sorted(set(EDGES))


def test_a_long_facet_is_cut_and_states_how_many_values_there_are(now: AnySnapshot) -> None:
    cut = count_facets(now.view, ["url", "category"], limit=2, whole=["category"])
    assert len(cut.facets["url"].values) == 2
    assert cut.facets["url"].distinct == 300
    assert len(cut.facets["category"].values) == cut.facets["category"].distinct == 14


def test_good_facets_are_attributes_of_few_values(now: AnySnapshot) -> None:
    assert facet_names(now.view) == sorted([ODD, "colour", "pieces", "washable"])


def test_an_unknown_name_is_refused(now: AnySnapshot) -> None:
    with pytest.raises(FilterError, match='no column `bramd`; did you mean "brand"'):
        count_facets(now.view, ["bramd"])


def test_an_empty_shelf_has_empty_facets(tmp_path: Path) -> None:
    with Shelf.create(tmp_path / "empty.shelf") as shelf:
        found = count_facets(shelf.snapshot().view, ["category", "price"])
    assert found.total == 0
    assert [(f.values, f.bands, f.distinct) for f in found.facets.values()] == [([], [], 0)] * 2
