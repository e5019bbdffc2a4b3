"""An export is a backup: anything reads it, and `add` takes it back to the bit; so is a copy."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import duckdb
import numpy as np
import pytest
from conftest import unit

from kinshelf import Shelf
from kinshelf.db.errors import InputError
from kinshelf.db.product import Product
from kinshelf.store.maintain.verify import verify_path

DIMENSION = 8
EXPORTED = (
    "id", "title", "description", "category", "price", "brand", "image", "split", "attributes",
    "image_embedding", "text_embedding",
)  # fmt: skip


def drawn(seed: int, count: int) -> np.ndarray:
    return unit(np.random.default_rng(seed).standard_normal((count, DIMENSION)))


PRODUCTS = [
    Product("plain", "a title"),
    Product("full", 'Quote " and, comma; and ünïcode 🧸', "two || parts", "Toys | Bears", 0.1,
            "Brand & Co", "https://example.com/a.jpg?x=1", "val", {"size": 3, "soft": True}),
    Product("numbers", "-1e-9", price=1e300, attributes={"weight": 0.1 + 0.2, "count": 2**53 - 1}),
    Product("text only", "no picture", category="Nan bread", split="train"),
    Product("picture only", category="Toys", image="https://example.com/b.png"),
    Product("007", "leading zeros stay", attributes={"note": "NULL", "other": "0012"}),
]  # fmt: skip


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Products of every kind, one of them replaced and one removed since."""
    path = tmp_path / "toys.shelf"
    image, text = drawn(1, len(PRODUCTS)), drawn(2, len(PRODUCTS))
    image[3], text[4] = 0, 0
    with Shelf.create(path, encoder="fake") as shelf:
        shelf.upsert([Product("gone", "x"), Product("plain", "older")], drawn(3, 2), drawn(4, 2))
        shelf.upsert(PRODUCTS, image, text)
        shelf.remove(["gone"])
    return path


def content(path: Path) -> list[tuple[Product, bool, bool, bytes]]:
    with Shelf.open(path) as shelf:
        now = shelf.snapshot()
        return [
            (s.product, s.has_image, s.has_text, now.pairs([s.row]).tobytes()) for s in now.select()
        ]


def exported(path: Path, file: Path) -> list[tuple[object, ...]]:
    """The file as DuckDB reads it, without a line of kinshelf."""
    with Shelf.open(path) as shelf:
        shelf.export(file)
    return duckdb.execute(f"SELECT {', '.join(EXPORTED)} FROM '{file}'").fetchall()


def test_duckdb_reads_from_the_file_what_was_put_into_the_shelf(path: Path, tmp_path: Path) -> None:
    rows = {row[0]: row for row in exported(path, tmp_path / "all.parquet")}
    assert set(rows) == {p.id for p in PRODUCTS}
    assert rows["full"][1:8] == (
        PRODUCTS[1].title, "two || parts", "Toys | Bears", 0.1, "Brand & Co",
        "https://example.com/a.jpg?x=1", "val",
    )  # fmt: skip
    image, text = drawn(1, len(PRODUCTS)), drawn(2, len(PRODUCTS))
    for i, product in enumerate(PRODUCTS):
        found = [np.array(v, dtype=np.float32) if v else None for v in rows[product.id][-2:]]
        for have, want, missing in zip(found, (image[i], text[i]), (3, 4), strict=True):
            assert (have is None) == (i == missing)
            assert have is None or have.tobytes() == want.tobytes()


def test_a_shelf_made_from_an_export_is_the_same_to_the_bit(path: Path, tmp_path: Path) -> None:
    first = exported(path, tmp_path / "first.parquet")
    with Shelf.create(tmp_path / "again.shelf", encoder="fake") as shelf:
        report = shelf.add(tmp_path / "first.parquet")
    assert (report.inserted, report.rejected) == (len(PRODUCTS), 0)
    assert content(tmp_path / "again.shelf") == content(path)
    assert exported(tmp_path / "again.shelf", tmp_path / "second.parquet") == first


def test_adding_the_export_of_a_shelf_to_that_shelf_changes_nothing(
    path: Path, tmp_path: Path
) -> None:
    exported(path, tmp_path / "all.parquet")
    with Shelf.open(path) as shelf:
        report = shelf.add(tmp_path / "all.parquet")
    assert (report.unchanged, report.updated, report.inserted) == (len(PRODUCTS), 0, 0)


def test_a_filter_chooses_what_is_exported(path: Path, tmp_path: Path) -> None:
    with Shelf.open(path) as shelf:
        assert shelf.export(tmp_path / "some.parquet", where="split = 'val'") == 1


def test_an_export_that_fails_leaves_nothing_behind(path: Path, tmp_path: Path) -> None:
    with Shelf.open(path) as shelf:
        for name in ("all.xlsx", "nowhere/all.parquet"):
            with pytest.raises(InputError):
                shelf.export(tmp_path / name)
    assert [p.name for p in tmp_path.iterdir()] == ["toys.shelf"]


def test_a_copy_of_an_idle_shelf_is_a_backup(path: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(path, tmp_path / "copy.shelf"))
    assert verify_path(copy)[0] == []
    assert content(copy) == content(path)


def copy_in_order(path: Path, copy: Path) -> Iterator[str]:
    """The order that `store.maintain` gives: log, then vectors and probes, MANIFEST last."""
    copy.mkdir()
    for pattern in ("log-*.wal", "vectors-*.f32", "probes", "MANIFEST"):
        for file in path.glob(pattern):
            if file.is_dir():
                shutil.copytree(file, copy / file.name)
            else:
                shutil.copyfile(file, copy / file.name)
        yield pattern


def test_a_copy_in_the_right_order_is_a_backup_even_while_changes_are_made(
    path: Path, tmp_path: Path
) -> None:
    before = content(path)
    with Shelf.open(path) as shelf:
        for i, _ in enumerate(copy_in_order(path, tmp_path / "copy.shelf")):
            shelf.upsert([Product(f"new{i}", "while copying")], drawn(i, 1), drawn(i, 1))
            shelf.remove([PRODUCTS[i].id])
    assert [f for f in verify_path(tmp_path / "copy.shelf")[0] if not f.harmless] == []
    assert content(tmp_path / "copy.shelf") == before


def test_a_copy_taken_during_a_compaction_is_refused_when_it_is_opened(
    path: Path, tmp_path: Path
) -> None:
    with Shelf.open(path) as shelf:
        for pattern in copy_in_order(path, tmp_path / "copy.shelf"):
            if pattern.startswith("vectors"):
                shelf.compact()
    assert [f for f in verify_path(tmp_path / "copy.shelf")[0] if not f.harmless]
