"""Cells, columns and names without end: a limit with a message, and no quadratic step."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import duckdb
import pytest

from kinshelf.db.errors import InputError, UnreadableSource
from kinshelf.db.formats.delimited import unique_names
from kinshelf.db.formats.source import MAX_COLUMNS, MAX_ROW
from kinshelf.db.product import LONGEST_TEXT, Product
from kinshelf.db.sources.readers import read_source


def read(path: Path) -> tuple[list[str], list[str]]:
    batches = list(read_source(path))
    ids = [p.id for batch in batches for p in batch.products]
    return ids, [r.reason for batch in batches for r in batch.rejects]


def test_a_text_is_cut_for_encoding_and_kept_whole(shelf: Any) -> None:
    title = "word " * 100_000
    assert len(Product("1", title, title).text) <= 2 * LONGEST_TEXT + len(" || ")
    shelf.upsert([Product("1", title)])
    assert shelf.snapshot().get("1").product.title == title.strip()


@pytest.mark.wide
def test_a_small_parquet_file_of_huge_cells_is_rejected_in_little_memory(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    rows = "SELECT i::VARCHAR AS id, 'mug' AS title, repeat('x', {0}) AS note FROM range({1}) r(i)"
    huge, fine = rows.format(5_000_000, 3000), rows.format(1000, 1)
    duckdb.sql(f"COPY ({huge} UNION ALL {fine}) TO '{path}' (FORMAT parquet)")
    assert path.stat().st_size < 2**20
    start = time.monotonic()
    assert read(path) == (["0"], ["too-long"] * 3000)
    assert time.monotonic() - start < 20


@pytest.mark.parametrize(("length", "taken"), [(MAX_ROW + 1, False), (MAX_ROW // 2, True)])
def test_a_long_row_of_json_is_rejected_alone(tmp_path: Path, length: int, taken: bool) -> None:
    path = tmp_path / "a.jsonl"
    rows = [{"id": "1", "title": "x" * length}, {"id": "2", "title": "y"}]
    path.write_text("\n".join(map(json.dumps, rows)))
    assert read(path) == ((["1", "2"], []) if taken else (["2"], ["too-long"]))


def test_a_long_product_of_upsert_is_rejected(shelf: Any) -> None:
    report = shelf.upsert([Product("1", "x" * (MAX_ROW + 1)), Product("2", "y")])
    assert (report.inserted, dict(report.reasons)) == (1, {"too-long": 1})


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_too_many_columns_are_refused_with_a_message(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    names = ["id", "title", *(f"c{i}" for i in range(100_000))]
    if suffix == "csv":
        path.write_text(",".join(names) + "\n" + "," * (len(names) - 1) + "\n")
    else:
        rows = [dict.fromkeys(names[i : i + 5000], 1) for i in range(0, len(names), 5000)]
        path.write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises(UnreadableSource, match=r"100,002 columns, more than 10,000"):
        read_source(path)


def test_names_that_come_row_by_row_are_bounded_for_the_shelf(tmp_path: Path, shelf: Any) -> None:
    def brought(first: int, names: int) -> None:
        rows = [
            Product(f"{first}-{i}", "mug", attributes={f"a{first + i + j}": 1 for j in range(500)})
            for i in range(0, names, 500)
        ]
        shelf.upsert(rows)

    start = time.monotonic()
    brought(0, MAX_COLUMNS)
    assert len(shelf.snapshot().view.attribute_types()) == MAX_COLUMNS
    assert len(shelf.snapshot().select('"a77" = 1')) == 1
    assert time.monotonic() - start < 20
    with pytest.raises(InputError, match="at most 10,000 attribute names"):
        brought(MAX_COLUMNS, 500)


def test_late_names_of_json_lines_take_linear_time(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    rows = [{"id": str(i), "title": "mug", f"a{i}": i} for i in range(6000)]
    path.write_text("\n".join(map(json.dumps, rows)))
    start = time.monotonic()
    assert len(read(path)[0]) == 6000
    assert time.monotonic() - start < 20


def test_many_columns_of_one_name_take_linear_time() -> None:
    names = unique_names(["a"] * 50_000)
    assert (names[1], names[-1], len(set(names))) == ("a_2", "a_50000", 50_000)


def test_a_decimal_keeps_its_digits(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    cells = "90.75::DECIMAL(9,3) AS weight, 12345678901234567890::DECIMAL(20,0) AS code"
    duckdb.sql(f"COPY (SELECT 1 AS id, 'mug' AS title, {cells}) TO '{path}' (FORMAT parquet)")
    product = next(read_source(path)).products[0]
    assert product.attributes == {"weight": 90.75, "code": "12345678901234567890"}
