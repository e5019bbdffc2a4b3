"""What is said of tables that are read otherwise than they look, and of files that stay."""

from __future__ import annotations

from pathlib import Path

import openpyxl
import pytest
from conftest import FakeEncoder

from kinshelf import Shelf
from kinshelf.db.errors import EmptySource, UnknownColumn
from kinshelf.db.files import written
from kinshelf.db.sources.readers import ReadOptions, open_source, read_source, reading_notes
from kinshelf.db.sources.summary import with_price_notation
from kinshelf.db.text import is_range


def sheet(path: Path, *rows: list[object]) -> Path:
    book = openpyxl.Workbook()
    for row in rows:
        book.active.append(row)
    book.save(path)
    return path


def text(path: Path, content: str) -> Path:
    path.write_text(content)
    return path


@pytest.mark.parametrize(
    ("price", "expected"),
    [("10 - 20", True), ("$5.00\u2013$7.00", True), ("5 to 7", True), ("5", False),
     ("from 9.99", False), ("1.299,00 €", False), ("299:-", False), ("€ 12,-", False)],
)  # fmt: skip
def test_a_range_of_prices_is_told_from_a_price(price: str, expected: bool) -> None:
    assert is_range(price) == expected


def test_ranges_of_prices_are_counted(tmp_path: Path) -> None:
    path = text(tmp_path / "a.csv", "id,title,price\n1,a,10 - 20\n2,b,5\n")
    (batch,) = read_source(path)
    assert [p.price for p in batch.products] == [10, 5]
    assert [(r.reason, r.kept, r.id) for r in batch.rejects] == [("price-range", True, "1")]


@pytest.mark.parametrize(
    ("prices", "why"),
    [(["1.299"], "which no other price shows"), (["1.299", "5.49"], "the column's other prices")],
)
def test_a_price_that_stands_alone_is_said_to(prices: list[str], why: str, tmp_path: Path) -> None:
    rows = "".join(f"{i},a,{price}\n" for i, price in enumerate(prices))
    source, plan = open_source(text(tmp_path / "a.csv", "id,title,price\n" + rows), ReadOptions())
    assert why in with_price_notation(source, plan).price_note


def test_a_header_alone_is_no_wrong_column(tmp_path: Path) -> None:
    """Of a known layout too, whose columns are chosen by what stands in them."""
    path = text(tmp_path / "a.csv", "Handle,Title,Body (HTML),Vendor,Type,Variant Price\n")
    with pytest.raises(EmptySource, match="has a header but no rows"):
        open_source(path, ReadOptions())


def test_rows_above_a_header_are_named_with_the_option_that_passes_over_them(
    tmp_path: Path,
) -> None:
    rows = [["Price list 2024"], [], ["id", "title", "price"], ["001", "Mug", 5]]
    for path in (
        sheet(tmp_path / "a.xlsx", *rows),
        text(tmp_path / "a.csv", "Price list 2024\nof June\nid,title,price\n001,Mug,5\n"),
    ):
        with pytest.raises(UnknownColumn, match=r"give --skip-rows [12]$"):
            open_source(path, ReadOptions())
    with pytest.raises(UnknownColumn, match="no column is the id"):
        open_source(text(tmp_path / "b.csv", "name,colour\na,red\nb,blue\n"), ReadOptions())


def test_formulas_without_values_are_named(tmp_path: Path) -> None:
    header = ["id", "title", "price"]
    odd = sheet(tmp_path / "a.xlsx", header, ["001", "Mug", "=2*3"])
    plain = sheet(tmp_path / "b.xlsx", header, ["001", "Mug", 6], ["002", None, None])
    assert "formulas have no values" in "".join(reading_notes(open_source(odd, ReadOptions())[0]))
    assert reading_notes(open_source(plain, ReadOptions())[0]) == []


def test_a_file_that_is_read_only_stays_and_failures_name_what_was_asked_for(
    tmp_path: Path,
) -> None:
    path = text(tmp_path / "a.csv", "kept")
    path.chmod(0o444)
    with pytest.raises(PermissionError) as refused, written(path):
        raise AssertionError
    assert (refused.value.filename, path.read_text()) == (str(path), "kept")
    with pytest.raises(FileNotFoundError) as missing, written(tmp_path / "no" / "b.csv") as at:
        at.write_text("x")
    assert missing.value.filename == str(tmp_path / "no" / "b.csv")


def test_an_export_leaves_a_read_only_file(shelf: Shelf, catalogue: Path) -> None:
    shelf.add(catalogue)
    catalogue.chmod(0o444)
    before = catalogue.read_bytes()
    with pytest.raises(PermissionError):
        shelf.export(catalogue)
    assert catalogue.read_bytes() == before


def test_the_history_says_what_was_taken_back_in_part_and_what_no_longer_can_be(
    shelf: Shelf, encoder: FakeEncoder, tmp_path: Path
) -> None:
    shelf.add(text(tmp_path / "a.csv", "id,title,price\n1,a,1\n2,b,2\n"))
    assert shelf.operations()[0]["kept"], "the empty shelf before it is kept"
    shelf.add(text(tmp_path / "b.csv", "id,price\n1,10\n2,20\n"))
    shelf.add(text(tmp_path / "c.csv", "id,price\n1,11\n"))
    shelf.undo(2)
    undo, _, taken, _ = shelf.operations()
    assert (undo["command"], taken["undone_by"]) == ("undo 2 in part", 4)
    shelf.undo(3)
    assert shelf.operations()[0]["command"] == "undo 3"


def test_the_first_operation_is_not_kept_once_the_empty_shelf_is_compacted_away(
    shelf: Shelf, tmp_path: Path
) -> None:
    shelf.add(text(tmp_path / "a.csv", "id,title\n1,a\n"))
    assert shelf.operations()[0]["kept"]
    shelf.compact()
    assert not shelf.operations()[0]["kept"]
