"""Export, then add, is the identity; and `upsert` stores what a file of the same would store."""

from __future__ import annotations

import dataclasses
import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
from conftest import FakeEncoder
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from kinshelf import Shelf
from kinshelf.db.product import Product

TEXTS = st.text(
    st.one_of(
        st.characters(exclude_categories=["Cs"], exclude_characters="\0"),
        st.sampled_from("½²™ﬁＡ  \"'[]{}|,;\t\u00a0\u0301é"),
    ),
    max_size=12,
)
SPECIAL = st.sampled_from(
    ["007", "1.10", "90.750", "12345678901234567890", "TRUE", "true", "None", "nan", "42", "1e5",
     '["a  b", "½"]', '{"a": "\uff58"}', "[1, [2]]", '["[\\"deep\\"]"]', "=1+1", "-0.0", "10²"]
)  # fmt: skip
WORDS = st.one_of(TEXTS, SPECIAL)
VALUES: st.SearchStrategy[Any] = st.one_of(
    WORDS, st.integers(-(10**21), 10**21), st.floats(), st.booleans(), st.none(),
    st.lists(WORDS, max_size=2), st.dictionaries(TEXTS, WORDS, max_size=2),
)  # fmt: skip
NAMES = st.one_of(TEXTS, st.sampled_from(["row", "Title", "attributes", "image embedding", "a b"]))
PRODUCTS = st.builds(
    Product,
    id=TEXTS,
    title=WORDS,
    description=WORDS,
    category=st.none() | WORDS,
    price=st.none() | st.floats(),
    brand=st.none() | WORDS,
    image=st.none() | st.sampled_from(["/nowhere/a.jpg", "/nowhere//b.jpg", " /nowhere/c.jpg "]),
    split=st.none() | WORDS,
    attributes=st.dictionaries(NAMES, VALUES, max_size=3),
)
QUICK = settings(deadline=None, phases=[Phase.explicit, Phase.generate])
"""A shelf an example is too slow to shrink a failing one."""
SHELVES = st.lists(PRODUCTS, min_size=1, max_size=8)


def stored(shelf: Shelf) -> dict[str, Product]:
    return {p.product.id: p.product for p in shelf.snapshot().select()}


def made(folder: str, name: str) -> Shelf:
    Shelf.create(Path(folder) / name, encoder="fake").close()
    return Shelf.open(Path(folder) / name, encoder=FakeEncoder())


def once(products: list[Product]) -> list[Product]:
    """Products with ids of their own, once cleaned."""
    return [p.replace(id=f" {p.id} {i}".replace("\0", "")) for i, p in enumerate(products)]


@pytest.mark.wide
@settings(QUICK, max_examples=15)
@given(SHELVES, st.sampled_from(["csv", "tsv", "jsonl", "parquet"]))
def test_an_export_that_is_added_gives_the_same_products(
    products: list[Product], suffix: str
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / f"all.{suffix}"
        with made(folder, "one") as first, made(folder, "two") as second:
            first.upsert(once(products))
            if not first.snapshot().view.count():
                return
            first.export(file)
            report = second.add(file)
            assert not report.rejected
            assert stored(second) == stored(first)


@pytest.mark.wide
@settings(QUICK, max_examples=15)
@given(SHELVES)
def test_upsert_stores_what_a_file_of_the_same_would_store(products: list[Product]) -> None:
    products = [p for p in once(products) if p.id.isprintable()]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "all.jsonl"
        rows = [dataclasses.asdict(p) for p in products]
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        with made(folder, "one") as first, made(folder, "two") as second:
            first.upsert(products)
            if rows:
                second.add(file)
            assert stored(second) == stored(first)


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("Boot size 5½", "Boot size 5½"),
        ("Cable 10² mm", "Cable 10² mm"),
        ("cafe\u0301", "café"),
        (" two  blanks ", "two blanks"),
    ],
)
def test_letters_stay_those_of_the_source(tmp_path: Path, given: str, kept: str) -> None:
    file = tmp_path / "p.csv"
    file.write_text(f"id,title,brand,category,note\n1,{given},{given},{given},{given}\n")
    with made(str(tmp_path), "shelf") as shelf:
        shelf.add(file)
        product = shelf.snapshot().get("1").product
        assert [product.title, product.brand, product.category] == [kept] * 3
        assert product.attributes == {"note": kept}


@pytest.mark.parametrize("name", ["title", "brand", "category", "note"])
@pytest.mark.parametrize("spelling", ["Größe 5½™", "Gro\u0308ße 5½™", "Größe 51\u20442TM"])
def test_a_filter_finds_either_spelling(tmp_path: Path, name: str, spelling: str) -> None:
    with made(str(tmp_path), "shelf") as shelf:
        given = "Größe 5½™"
        shelf.upsert([Product("1", given, "", given, None, given, attributes={"note": given})])
        shelf.upsert([Product("2", "other", "", "x", None, "y", attributes={"note": "z"})])
        now = shelf.snapshot()

        def found(where: str) -> list[str]:
            return [p.product.id for p in now.select(where)]

        assert found(f"{name} = '{spelling}'") == ["1"]
        assert found(f"{name} IN ('a', '{spelling}')") == ["1"]
        assert found(f"{name} LIKE '{spelling[:6]}%'") == ["1"]
        assert found(f"{name} <> '{spelling}'") == ["2"]
        assert found(f"length({name}) = {len(given)}") == ["1"]
