"""The catalogue's file after a long `add`: whole and current, though the handle held none of it."""

from __future__ import annotations

import shutil
from pathlib import Path

import duckdb
import numpy as np
import pytest
from conftest import unit

from kinshelf import Shelf
from kinshelf.db.product import Product
from kinshelf.store.log import catalog_cache

DIMENSION = 8


def put(shelf: Shelf, first: int, count: int, **fields: str) -> None:
    products = [
        Product(f"p{i}", f"title {i}", attributes={"shade": i % 3}, **fields)
        for i in range(first, first + count)
    ]
    rows = unit(np.random.default_rng(first).standard_normal((count, DIMENSION)))
    shelf.upsert(products, rows, rows)


def stored(path: Path) -> list[tuple[str, str | None, int, bool]]:
    """What a plain DuckDB reads in the file."""
    with duckdb.connect(str(path / "catalog.duckdb"), read_only=True) as file:
        query = "SELECT id, category, added, removed IS NULL FROM products ORDER BY row"
        return file.execute(query).fetchall()


def test_what_was_added_stands_in_the_file(tmp_path: Path) -> None:
    with Shelf.create(tmp_path / "a.shelf") as shelf:
        for first in range(0, 300, 100):
            put(shelf, first, 100)
    assert [row[0] for row in stored(shelf.path)] == [f"p{i}" for i in range(300)]
    assert {row[2] for row in stored(shelf.path)} == {1, 2, 3}


def test_a_later_add_goes_on_from_the_file_of_the_one_before(tmp_path: Path) -> None:
    with Shelf.create(tmp_path / "a.shelf") as shelf:
        put(shelf, 0, 100)
    with Shelf.open(shelf.path) as shelf:
        put(shelf, 50, 100, category="new")
        put(shelf, 150, 100)
    found = stored(shelf.path)
    live = {name: category for name, category, _, there in found if there}
    assert live == {f"p{i}": "new" if 50 <= i < 150 else None for i in range(250)}
    assert sum(not there for *_, there in found) == 50


@pytest.mark.parametrize("name", ["catalog.duckdb", "catalog.duckdb.json"])
def test_a_damaged_file_is_made_anew_from_the_log(tmp_path: Path, name: str) -> None:
    with Shelf.create(tmp_path / "a.shelf") as shelf:
        put(shelf, 0, 100)
    data = bytearray((shelf.path / name).read_bytes())
    data[len(data) // 2] ^= 0xFF
    (shelf.path / name).write_bytes(data)
    with Shelf.open(shelf.path) as shelf:
        put(shelf, 100, 200)
    assert [row[0] for row in stored(shelf.path)] == [f"p{i}" for i in range(300)]


def test_the_file_and_the_log_alone_tell_the_same(tmp_path: Path) -> None:
    with Shelf.create(tmp_path / "a.shelf") as shelf:
        put(shelf, 0, 120)
        put(shelf, 60, 120, category="again")
    shutil.copytree(shelf.path, tmp_path / "b.shelf")
    for file in (tmp_path / "b.shelf").glob("catalog.duckdb*"):
        file.unlink()
    with Shelf.open(shelf.path) as one, Shelf.open(tmp_path / "b.shelf") as other:
        assert one.snapshot().select() == other.snapshot().select()
        assert one.snapshot().view.attribute_types() == other.snapshot().view.attribute_types()
        assert one.snapshot().view.commits() == other.snapshot().view.commits()


def test_a_handle_that_is_asked_takes_in_a_small_add_before_the_next_query(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next query finds it, and does not have to read the log for it."""
    shelf = Shelf.create(tmp_path / "a.shelf")
    put(shelf, 0, 200)
    query = np.tile(unit(np.random.default_rng(200).standard_normal((5, DIMENSION)))[:1], 2)
    shelf.snapshot().kneighbors(query, 1)
    put(shelf, 200, 5)

    def refuse(*_: object) -> None:
        raise AssertionError("the query had to wait for the catalogue")

    monkeypatch.setattr(catalog_cache, "catch_up", refuse)
    now = shelf.snapshot()
    row = int(now.kneighbors(query, 1, where="shade >= 0").rows[0, 0])
    assert now.view.by_rows([row])[row].product.id == "p200"


def test_a_folder_whose_name_is_no_text_holds_a_shelf_as_any_other(tmp_path: Path) -> None:
    for first in (0, 100):
        with (
            Shelf.open(tmp_path / "a\udcff")
            if first
            else Shelf.create(tmp_path / "a\udcff") as shelf
        ):
            put(shelf, first, 100)
            assert shelf.snapshot().count == first + 100


def test_a_disk_that_is_full_for_the_catalogue_costs_no_product(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise duckdb.IOException("Could not write file: No space left on device")

    with Shelf.create(tmp_path / "a.shelf") as shelf:
        put(shelf, 0, 10)
        for name in ("save", "finish"):
            monkeypatch.setattr(catalog_cache.Catalog, name, full)
    assert not (shelf.path / "catalog.duckdb").exists()
    with Shelf.open(shelf.path) as again:
        assert again.snapshot().count == 10
