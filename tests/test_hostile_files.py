"""Ten hostile shapes a format: a message of one line that names the file, and bounded memory."""

from __future__ import annotations

import bz2
import gzip
import json
import tracemalloc
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import openpyxl
import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.parquet as pq
import pytest

from kinshelf.db.errors import InputError
from kinshelf.db.product import Product
from kinshelf.db.sources.readers import ReadOptions, read_source

ROWS = [{"id": str(i), "title": f"mug {i}", "price": f"{i}.50"} for i in range(500)]
MIB = 2**20

Write = Callable[[Path, list[dict[str, Any]]], None]


def _csv(path: Path, rows: list[dict[str, Any]]) -> None:
    lines = [",".join(rows[0]), *(",".join(map(str, row.values())) for row in rows)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _jsonl(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")


def _json(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text(json.dumps(rows), encoding="utf-8")


def _xml(path: Path, rows: list[dict[str, Any]]) -> None:
    items = "".join(
        "<item>" + "".join(f"<{n}>{v}</{n}>" for n, v in row.items()) + "</item>" for row in rows
    )
    path.write_text(f"<rss><channel>{items}</channel></rss>", encoding="utf-8")


def _xlsx(path: Path, rows: list[dict[str, Any]]) -> None:
    book = openpyxl.Workbook()
    book.active.append(list(rows[0]))
    for row in rows:
        book.active.append(list(row.values()))
    book.save(path)


FORMATS: dict[str, Write] = {
    "csv": _csv, "jsonl": _jsonl, "json": _json, "xml": _xml, "xlsx": _xlsx,
    "parquet": lambda path, rows: pq.write_table(pa.Table.from_pylist(rows), path),
    "feather": lambda path, rows: feather.write_feather(pa.Table.from_pylist(rows), str(path)),
}  # fmt: skip
PACKED = ("csv.gz", "csv.bz2", "csv.zst", "csv.zip")


def write(folder: Path, kind: str, rows: list[dict[str, Any]]) -> Path:
    path = folder / f"a.{kind}"
    if kind in FORMATS:
        FORMATS[kind](path, rows)
        return path
    plain, packed = kind.split(".")
    data = write(folder, plain, rows).read_bytes()
    path.write_bytes(pack(packed, data, f"a.{plain}"))
    return path


def pack(kind: str, data: bytes, name: str) -> bytes:
    if kind == "zip":
        from io import BytesIO

        with zipfile.ZipFile(stream := BytesIO(), "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(name, data)
        return stream.getvalue()
    if kind == "zst":
        return bytes(pa.compress(data, "zstd", asbytes=True))
    return {"gz": gzip.compress, "bz2": bz2.compress}[kind](data)


@contextmanager
def bounded(most: int = 64 * MIB) -> Iterator[None]:
    """What Python allocates within stays below a limit."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < most
    finally:
        tracemalloc.stop()


def outcome(path: Path, **options: Any) -> tuple[list[Product], str]:
    """The products that were read, and the reasons or the message of what was not."""
    products: list[Product] = []
    reasons: list[str] = []
    try:
        for batch in read_source(path, ReadOptions(**options)):
            products += batch.products
            reasons += [reject.reason for reject in batch.rejects]
    except InputError as problem:
        assert "\n" not in str(problem)
        assert path.name in str(problem)
        return products, str(problem)
    return products, " ".join(reasons)


@pytest.mark.parametrize("kind", [*FORMATS, *PACKED])
def test_a_file_cut_short_loses_no_row_before_the_cut_and_is_reported(
    kind: str, tmp_path: Path
) -> None:
    path = write(tmp_path, kind, ROWS)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    with bounded():
        products, problem = outcome(path)
    assert len(products) < len(ROWS)
    assert problem or kind == "csv"  # a CSV that ends within a field is one with a shorter field
    assert [product.id for product in products] == [str(i) for i in range(len(products))]


@pytest.mark.parametrize("kind", ["csv", "jsonl", "json", "xml"])
@pytest.mark.parametrize("bad", [b"\xff\xfe\x00\x01", b"\xc3\x28\x81"], ids=["utf-16", "cut"])
def test_bytes_of_no_encoding_are_named(kind: str, bad: bytes, tmp_path: Path) -> None:
    path = write(tmp_path, kind, ROWS)
    data = path.read_bytes()
    path.write_bytes(data[:200] + bad + data[200:])
    with bounded():
        products, problem = outcome(path, encoding=None if kind == "xml" else "utf-8")
    assert problem
    assert len(products) < len(ROWS)


LAUGHS = (
    '<!DOCTYPE rss [<!ENTITY a "haha">'
    + "".join(
        f'<!ENTITY {b} "{f"&{a};" * 10}">' for a, b in zip("abcdefgh", "bcdefghi", strict=True)
    )
    + "]>"
)


@pytest.mark.parametrize(
    "head", [LAUGHS, '<!DOCTYPE rss [<!ENTITY i SYSTEM "file:///etc/hostname">]>']
)
def test_entities_of_a_feed_are_refused(head: str, tmp_path: Path) -> None:
    path = tmp_path / "a.xml"
    path.write_text(f"{head}<rss><item><id>1</id><title>&i;</title></item></rss>")
    with bounded():
        products, problem = outcome(path)
    assert (products, "entities" in problem) == ([], True)


@pytest.mark.parametrize("kind", ["gz", "bz2", "zst", "zip"])
def test_what_unpacks_without_an_end_is_refused(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kinshelf.db.formats.packed._FREE", MIB)
    path = tmp_path / f"a.csv.{kind}"
    row = b"1,mug\n" * 400_000
    path.write_bytes(pack(kind, b"id,title\n" + row, "a.csv"))
    with bounded():
        _, problem = outcome(path)
    assert "unpacks to more than" in problem


def test_a_sheet_that_unpacks_to_gigabytes_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kinshelf.db.formats.tables._LARGEST_PART", 32 * MIB)
    path = write(tmp_path, "xlsx", ROWS)
    with (
        zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as book,
        book.open("xl/worksheets/bomb.xml", "w") as part,
    ):
        for _ in range(64):
            part.write(bytes(MIB))
    with bounded():
        products, problem = outcome(path)
    assert (products, "save the sheet as CSV" in problem) == ([], True)


def test_a_sheet_with_a_cell_in_its_last_corner_is_read_to_its_end(tmp_path: Path) -> None:
    book = openpyxl.Workbook()
    book.active.append(["id", "title"])
    book.active.append(["1", "mug"])
    book.active["XFD1048576"] = "far"
    book.save(path := tmp_path / "a.xlsx")
    with bounded():
        products, _ = outcome(path)
    assert [product.id for product in products] == ["1"]


@pytest.mark.parametrize("kind", ["csv", "jsonl", "json", "xml"])
def test_a_line_without_an_end_is_reported(kind: str, tmp_path: Path) -> None:
    path = write(tmp_path, kind, ROWS[:3])
    data = path.read_bytes()
    at = data.index(b"mug 1")
    path.write_bytes(data[:at] + b"x" * (24 * MIB) + data[at:])
    with bounded(160 * MIB):
        products, problem = outcome(path)
    assert problem
    assert "1" not in [product.id for product in products]


@pytest.mark.parametrize("kind", FORMATS)
def test_formulas_are_text_or_nothing_and_never_computed(kind: str, tmp_path: Path) -> None:
    path = write(tmp_path, kind, [{"id": "1", "title": "=1+1", "note": "=HYPERLINK(1)"}])
    products, _ = outcome(path)
    titles = {product.title for product in products}
    assert titles <= ({""} if kind == "xlsx" else {"=1+1"})


@pytest.mark.parametrize("kind", ["jsonl", "json"])
def test_json_without_a_floor_is_a_bad_row(kind: str, tmp_path: Path) -> None:
    deep = "[" * 200_000
    first, row = json.dumps(ROWS[0]), '{"id": "7", "title": "mug", "note": ' + deep
    path = tmp_path / f"a.{kind}"
    path.write_text(f"{first}\n{row}" if kind == "jsonl" else f"[{first}, {row}")
    with bounded():
        products, problem = outcome(path)
    assert [product.id for product in products] == ["0"]
    assert problem == "malformed-row"


@pytest.mark.parametrize("kind", ["csv", "parquet", "xlsx"])
def test_deep_json_in_a_cell_stays_text(kind: str, tmp_path: Path) -> None:
    cell = "[" * 20_000 + "]" * 20_000
    path = write(tmp_path, kind, [{"id": "1", "title": "mug", "image": cell, "note": cell}])
    with bounded():
        (product,), _ = outcome(path)
    assert product.title == "mug"


@pytest.mark.parametrize("kind", FORMATS)
def test_an_id_of_another_file_updates_and_one_of_the_same_file_is_reported(
    kind: str, shelf: Any, tmp_path: Path
) -> None:
    (tmp_path / "other").mkdir()
    rows = [{"id": "1", "title": "mug"}, {"id": "1", "title": "bowl"}]
    first = write(tmp_path, kind, rows)
    second = write(tmp_path / "other", kind, [{"id": "1", "title": "vase"}])
    report = shelf.add(first)
    assert (report.inserted, dict(report.reasons)) == (1, {"duplicate-id": 1})
    assert shelf.get("1").product.title == "mug"
    assert shelf.add(second).updated == 1
    assert shelf.get("1").product.title == "vase"


def test_a_column_named_twice_is_two_columns(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("id,title,colour,colour\n1,mug,red,blue\n")
    book = openpyxl.Workbook()
    for row in (["id", "title", "colour", "colour"], ["1", "mug", "red", "blue"]):
        book.active.append(row)
    book.save(tmp_path / "a.xlsx")
    for name in ("a.csv", "a.xlsx"):
        ((product,), _) = outcome(tmp_path / name)
        assert product.attributes == {"colour": "red", "colour_2": "blue"}


@pytest.mark.parametrize("kind", ["parquet", "feather"])
def test_a_column_named_twice_in_a_typed_file_is_read_or_named(kind: str, tmp_path: Path) -> None:
    names = ["id", "title", "colour", "colour"]
    table = pa.table([pa.array([text]) for text in ("1", "mug", "red", "blue")], names=names)
    path = tmp_path / f"a.{kind}"
    if kind == "parquet":
        pq.write_table(table, path)
    else:
        with pa.ipc.new_file(str(path), table.schema) as file:
            file.write_table(table)
    products, problem = outcome(path)
    assert (
        problem
        or products[0].attributes == {"colour": "red", "colour_2": "blue"}
        or (products[0].attributes["colour"] == "red")
    )


def test_a_key_named_twice_in_json_is_the_last_as_json_has_it(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"id": "1", "title": "mug", "title": "bowl"}\n')
    ((product,), _) = outcome(path)
    assert product.title == "bowl"
