"""Reading sources: CSV, TSV, JSON Lines, Parquet, folders of pictures."""

from __future__ import annotations

import csv
import gzip
import json
import subprocess
import sys
import unicodedata
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kinshelf.db.errors import (
    EmptySource,
    InputError,
    KinshelfError,
    SourceNotFound,
    UnknownColumn,
    UnreadableSource,
)
from kinshelf.db.product import Product, Reject
from kinshelf.db.sources.readers import (
    ReadBatch,
    ReadOptions,
    count_rows,
    read_source,
    source_columns,
)
from kinshelf.db.sources.seen import SeenIds


def source(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def batches(path: Path, **options: Any) -> list[ReadBatch]:
    return list(read_source(path, ReadOptions(**options)))


def products(path: Path, **options: Any) -> list[Product]:
    return [product for batch in batches(path, **options) for product in batch.products]


def rejects(path: Path, **options: Any) -> list[Reject]:
    return [reject for batch in batches(path, **options) for reject in batch.rejects]


def positions(path: Path, **options: Any) -> list[int]:
    return [position for batch in batches(path, **options) for position in batch.positions]


def read(path: Path, **options: Any) -> tuple[list[str], list[tuple[int, str]]]:
    """The ids taken, and position and reason of what was not."""
    found = [(reject.position, reject.reason) for reject in rejects(path, **options)]
    return [product.id for product in products(path, **options)], found


def parquet(path: Path, query: str) -> Path:
    duckdb.sql(f"COPY ({query}) TO '{path}' (FORMAT parquet)")
    return path


def folded(text: str) -> str:
    """How a text is stored, written another way than the reader does it."""
    kept = "".join(
        " " if mark.isspace() else "" if unicodedata.category(mark) in {"Cc", "Cs"} else mark
        for mark in text
        if mark != "\ufeff"
    )
    return " ".join(unicodedata.normalize("NFC", kept).split())


# CSV and TSV


def test_a_quoted_field_may_hold_lines_quotes_and_delimiters(tmp_path: Path) -> None:
    text = 'id,title,note\r\n1,"two\r\nlines","a ""quoted"" word"\r\n2,"comma, comma",plain "q"\r\n'
    first, second = products(source(tmp_path, "a.csv", text))
    assert (first.title, first.attributes["note"]) == ("two lines", 'a "quoted" word')
    assert (second.title, second.attributes["note"]) == ("comma, comma", 'plain "q"')


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_any_line_end_and_a_byte_order_mark_do(tmp_path: Path, end: str) -> None:
    path = source(tmp_path, "a.csv", "\ufeff" + end.join(["id,title", "1,a", "", "2,b"]))
    assert [(p.id, p.title) for p in products(path)] == [("1", "a"), ("2", "b")]
    assert source_columns(path) == ["id", "title"]


def test_cells_may_hold_the_line_end_that_the_file_does_not_use(tmp_path: Path) -> None:
    mac = source(tmp_path, "mac.csv", 'id,title\r1,"two\nlines"\r2,b\r')
    unix = source(tmp_path, "unix.csv", 'id,title\n1,two\rlines\n2,"b"\r\n')
    twice = source(tmp_path, "twice.csv", 'id,title\r\r\n1,two lines\r\r\n2,"b"\r\r\n')
    for path in (mac, unix, twice):
        assert [(p.id, p.title) for p in products(path)] == [("1", "two lines"), ("2", "b")]
        assert rejects(path) == []


def test_a_tsv_is_split_at_tabs(tmp_path: Path) -> None:
    path = source(tmp_path, "a.tsv", "id\ttitle\n1\tone, two\n")
    assert products(path)[0].title == "one, two"


@pytest.mark.parametrize("delimiter", [";", "semicolon"])
def test_a_delimiter_may_be_given(tmp_path: Path, delimiter: str) -> None:
    path = source(tmp_path, "a.csv", "id;title;price\n1;one, two;12,99\n")
    product = products(path, delimiter=delimiter)[0]
    assert (product.title, product.price) == ("one, two", 12.99)


def test_a_gzip_is_unpacked_as_it_is_read(tmp_path: Path) -> None:
    path = source(tmp_path, "a.csv.gz", gzip.compress(b"id,title\n007,a\n", mtime=0))
    assert products(path)[0].id == "007"
    assert count_rows(path) is None


def test_rows_of_another_width_are_rejected_and_nothing_else(tmp_path: Path) -> None:
    path = source(tmp_path, "a.csv", "id,title,price\n1,a,1\n2,b,2,x\n3\n4,d,4\n")
    assert read(path) == (["1", "4"], [(1, "malformed-row"), (2, "malformed-row")])
    assert positions(path) == [0, 3]
    assert [reject.message for reject in rejects(path)] == [
        "line 3: 4 fields where the header has 3",
        "line 4: 1 fields where the header has 3",
    ]


def test_a_quote_that_is_never_closed_costs_its_own_row_alone(tmp_path: Path) -> None:
    text = (
        'id,title,price\n1,"a\nb",1\n2,"open,2\n3,c,3\n4,"say ""d""",4\n5,e,5\n6,"open,6\n7,g,7\n'
    )
    path = source(tmp_path, "a.csv", text)
    assert read(path) == (["1", "3", "4", "5", "7"], [(1, "malformed-row"), (5, "malformed-row")])
    assert positions(path) == [0, 2, 3, 4, 6]
    assert "line 4:" in rejects(path)[0].message


def test_a_field_beyond_the_limit_costs_its_own_row_alone(tmp_path: Path) -> None:
    path = source(tmp_path, "a.csv", f"id,title\n1,{'x' * 200_000}\n2,b\n")
    assert read(path) == (["2"], [(0, "malformed-row")])


def test_a_wrong_delimiter_is_named_with_the_option(tmp_path: Path) -> None:
    with pytest.raises(UnreadableSource, match=r"one column only.*--delimiter semicolon"):
        read_source(source(tmp_path, "a.csv", "id;title\n1;a\n"), ReadOptions(delimiter=","))
    with pytest.raises(UnreadableSource, match="--delimiter tab"):
        read_source(source(tmp_path, "b.csv", "id\ttitle\n1\ta\n"), ReadOptions(delimiter=";"))


@pytest.mark.parametrize("delimiter", ["", "ab", '"', "\n"])
def test_an_impossible_delimiter_is_refused(tmp_path: Path, delimiter: str) -> None:
    with pytest.raises(InputError, match="delimiter"):
        read_source(source(tmp_path, "a.csv", "id,title\n"), ReadOptions(delimiter=delimiter))


def test_repeated_and_blank_column_names_are_distinguished(tmp_path: Path) -> None:
    path = source(tmp_path, "a.csv", ",id,title,x,x\n0,1,a,2,3\n")
    assert source_columns(path) == ["column_1", "id", "title", "x", "x_2"]
    assert products(path)[0].attributes == {"column_1": 0, "x": 2, "x_2": 3}


TABLES = st.lists(
    st.lists(st.text(st.characters(exclude_characters="\0"), max_size=12), min_size=3, max_size=3),
    min_size=1,
    max_size=8,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(TABLES, st.sampled_from([",", "\t"]), st.sampled_from(["\n", "\r\n"]))
def test_any_table_that_csv_writes_reads_back_normalised(
    tmp_path: Path, table: list[list[str]], delimiter: str, end: str
) -> None:
    path = tmp_path / ("a.csv" if delimiter == "," else "a.tsv")
    table = [[cell.encode("utf-8", "ignore").decode() for cell in row] for row in table]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, delimiter=delimiter, lineterminator=end)
        writer.writerow(["id", "title", "description", "note"])
        writer.writerows([f"p{i}", *row] for i, row in enumerate(table))
    found = {product.id: product for product in products(path)}
    for i, (title, description, note) in enumerate(table):
        if folded(title) or folded(description):
            product = found.pop(f"p{i}")
            assert product.title == folded(title)
            assert product.description == folded(description)
            assert str(product.attributes.get("note", "")) == folded(note)
    assert not found


# JSON Lines


def test_json_lines_keep_their_types(tmp_path: Path) -> None:
    rows = [
        {"id": "007", "title": "a", "stock": 3, "weight": 1.5, "sale": False, "size": "12"},
        {"id": 8, "title": "b", "price": 2, "tags": ["x", "y"], "none": None},
    ]
    path = source(tmp_path, "a.jsonl", "\n\n".join(map(json.dumps, rows)))
    first, second = products(path)
    assert first.id == "007"
    assert first.attributes == {"stock": 3, "weight": 1.5, "sale": False, "size": "12"}
    assert (second.id, second.price) == ("8", 2.0)
    assert second.attributes == {"tags": '["x", "y"]'}
    assert positions(path) == [0, 1]


def test_lines_that_are_no_json_object_are_rejected_and_nothing_else(tmp_path: Path) -> None:
    lines = ['{"id": 1, "title": "a"}', "{broken", "[1, 2]", "[" * 100_000, '{"id": 2, "title": 3}']
    path = source(tmp_path, "a.ndjson", "\n".join(lines))
    ids, refused = read(path)
    assert ids == ["1", "2"]
    assert refused == [(1, "malformed-row"), (2, "malformed-row"), (3, "malformed-row")]


def test_a_key_that_comes_late_is_a_field_all_the_same(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [{"id": i, "title": f"t{i}"} for i in range(1200)]
    rows.append({"id": "late", "title": "t", "brand": "B", "colour": "red"})
    path = source(tmp_path, "a.jsonl", "\n".join(map(json.dumps, rows)))
    assert "brand" not in source_columns(path)
    last = products(path)[-1]
    assert (last.brand, last.attributes) == ("B", {"colour": "red"})


def test_lone_surrogates_in_json_do_no_harm(tmp_path: Path) -> None:
    path = source(
        tmp_path, "a.jsonl", r'{"id": "a\ud800", "title": "t\ud800", "x\ud800": "\ud800y"}'
    )
    (product,) = products(path)
    assert (product.id, product.title, product.attributes) == ("a", "t", {"x": "y"})


def test_a_json_array_is_refused_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(UnreadableSource, match="jq -c"):
        read_source(source(tmp_path, "a.jsonl", '[{"id": 1}]'))


# Parquet

BARE = """
import sys, duckdb
from kinshelf.db.formats.parquet import ParquetSource
source = ParquetSource(sys.argv[1])
with source._connection() as connection:
    shown = connection.execute("SELECT current_setting('enable_progress_bar')").fetchone()[0]
    assert not shown, shown
"""


def test_parquet_keeps_native_values_and_file_order(tmp_path: Path) -> None:
    path = parquet(
        tmp_path / "a.parquet",
        "SELECT i::VARCHAR AS id, 't' || i AS title, i AS stock, i / 2.0 AS half, "
        "i % 2 = 0 AS even, "
        "DATE '2024-02-29' AS day, TIMESTAMP '2024-02-29 12:30:00' AS moment, "
        "TIMESTAMPTZ '2024-02-29 12:30:00+02' AS zoned, 1.25::DECIMAL(9, 2) AS exact, "
        "{'a': i, 'b': [1, 2]} AS nested, [i, 2] AS list, encode('é') AS words, "
        "'\\xFF'::BLOB AS bytes, NULL::INTEGER AS missing, 'NaN'::DOUBLE AS nan "
        "FROM range(3000) t(i)",
    )
    found = products(path)
    assert [product.id for product in found] == [str(i) for i in range(3000)]
    assert found[3].attributes == {
        "stock": 3,
        "half": 1.5,
        "even": False,
        "day": "2024-02-29",
        "moment": "2024-02-29T12:30:00",
        "zoned": "2024-02-29T10:30:00+00",
        "exact": 1.25,
        "nested": '{"a":3,"b":[1,2]}',
        "list": "[3,2]",
        "words": "é",
    }
    assert count_rows(path) == 3000


def test_an_exported_parquet_brings_its_embeddings_and_attributes(tmp_path: Path) -> None:
    path = parquet(
        tmp_path / "a.parquet",
        "SELECT 'p' || i AS id, 't' AS title, NULL AS description, 'A | B' AS category, "
        "9.5 AS price, NULL AS brand, NULL AS image, 'val' AS split, "
        """'{"n": ' || i || ', "colour": "red"}' AS attributes, """
        "[i, 1.5]::FLOAT[] AS image_embedding, "
        "CASE WHEN i % 2 = 0 THEN [i, 2.5, 3]::FLOAT[3] END AS text_embedding "
        "FROM range(20000) t(i)",
    )
    numbers: list[int] = []
    for batch in read_source(path):
        assert batch.image_embeddings is not None
        assert batch.text_embeddings is not None
        assert batch.image_embeddings.dtype == batch.text_embeddings.dtype == np.float32
        for i, product in enumerate(batch.products):
            n = int(product.id[1:])
            numbers.append(n)
            assert product.attributes == {"n": n, "colour": "red"}
            assert batch.image_embeddings[i].tolist() == [n, 1.5]
            assert batch.text_embeddings[i].tolist() == ([0, 0, 0] if n % 2 else [n, 2.5, 3])
    assert numbers == list(range(20000))


def test_embeddings_in_json_lines_are_read_and_a_wrong_dimension_is_rejected(
    tmp_path: Path,
) -> None:
    vectors: list[Any] = [[1, 0], None, [1, 2, 3], ["x", 1], [0.5, 0.5]]
    rows = [{"id": i, "image_embedding": vector} for i, vector in enumerate(vectors)]
    rows[1]["title"] = "only text"
    path = source(tmp_path, "a.jsonl", "\n".join(map(json.dumps, rows)))
    (batch,) = batches(path)
    assert batch.positions == [0, 1, 4]
    assert batch.image_embeddings is not None
    assert batch.image_embeddings.tolist() == [[1, 0], [0, 0], [0.5, 0.5]]
    assert batch.text_embeddings is None
    assert [(r.position, r.reason) for r in batch.rejects] == [
        (2, "bad-embedding"),
        (3, "bad-embedding"),
    ]
    assert "3 numbers" in batch.rejects[0].message


def test_reading_prints_nothing(tmp_path: Path) -> None:
    path = parquet(tmp_path / "a.parquet", "SELECT i AS id, 't' AS title FROM range(9) t(i)")
    # In `python -c` DuckDB takes itself to be in a notebook, and shows its progress on stdout.
    command = [sys.executable, "-c", BARE, str(path)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("", "")


def test_a_file_name_is_never_a_pattern_and_a_folder_name_no_column(tmp_path: Path) -> None:
    folder = tmp_path / "category=x"
    folder.mkdir()
    parquet(folder / "a1.parquet", "SELECT 1 AS id, 'one' AS title")
    odd = parquet(tmp_path / "b.parquet", "SELECT 2 AS id, 'two' AS title")
    odd = odd.rename(folder / "a[1]*.parquet")
    assert [(p.id, p.category) for p in products(odd)] == [("2", None)]
    assert source_columns(odd) == ["id", "title"]


def test_a_damaged_parquet_is_unreadable(tmp_path: Path) -> None:
    path = parquet(tmp_path / "a.parquet", "SELECT i AS id, 't' || i AS title FROM range(9) t(i)")
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(UnreadableSource, match=r"a\.parquet"):
        read_source(path)
    with pytest.raises(UnreadableSource, match="Parquet"):
        read_source(source(tmp_path, "b.parquet", "id,title\n1,a\n"))


def test_a_parquet_without_rows_is_empty(tmp_path: Path) -> None:
    with pytest.raises(EmptySource):
        read_source(parquet(tmp_path / "a.parquet", "SELECT 1 AS id, 'a' AS title LIMIT 0"))


# Folders


def test_a_folder_gives_its_pictures_in_order_with_sub_folders_as_categories(
    tmp_path: Path,
) -> None:
    for name in ["b.jpg", "Toys/z.PNG", "Toys/Puzzles/a.webp", "Toys/notes.txt", ".hidden/x.jpg"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"picture")
    (tmp_path / "a.gif").write_bytes(b"picture")
    assert [(p.id, p.category, p.title, p.image) for p in products(tmp_path)] == [
        ("a", None, "", str(tmp_path / "a.gif")),
        ("b", None, "", str(tmp_path / "b.jpg")),
        ("Toys/z", "Toys", "", str(tmp_path / "Toys/z.PNG")),
        ("Toys/Puzzles/a", "Toys | Puzzles", "", str(tmp_path / "Toys/Puzzles/a.webp")),
    ]
    assert count_rows(tmp_path) == 4


def test_two_pictures_of_one_name_are_two_products(tmp_path: Path) -> None:
    source(tmp_path, "a.jpg", "x")
    source(tmp_path, "a.png", "x")
    assert read(tmp_path) == (["a", "a.png"], [])


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux allows any bytes as a file name")
def test_a_picture_whose_name_is_no_text_is_rejected(tmp_path: Path) -> None:
    source(tmp_path, "a.jpg", "x")
    source(tmp_path, "b\udcff.jpg", "x")
    source(tmp_path, "c\n.jpg", "x")
    assert read(tmp_path) == (["a"], [(1, "malformed-row"), (2, "malformed-row")])


def test_a_folder_without_pictures_is_empty(tmp_path: Path) -> None:
    source(tmp_path, "a.csv", "id\n")
    with pytest.raises(EmptySource, match=r"\.jpg"):
        read_source(tmp_path)


# Rows that are refused


def test_a_missing_id_is_rejected(tmp_path: Path) -> None:
    path = source(tmp_path, "a.csv", "id,title\n,a\n \t,b\n3,c\n")
    assert read(path) == (["3"], [(0, "missing-id"), (1, "missing-id")])


def test_a_row_with_neither_text_nor_image_is_rejected_unless_configured_otherwise(
    tmp_path: Path,
) -> None:
    path = source(tmp_path, "a.csv", "id,title,image,category\n1, ,,x\n2,,a.jpg,x\n3,c,,x\n")
    assert read(path) == (["2", "3"], [(0, "no-content")])
    assert read(path, require_content=False) == (["1", "2", "3"], [])


def test_the_first_of_an_id_wins_and_later_ones_name_it(tmp_path: Path) -> None:
    path = source(tmp_path, "a.csv", "id,title\n1,a\n2,b\n1,c\n 1 ,d\n")
    for size in (1, 2, 1024):
        found = batches(path, batch_size=size)
        assert [p.title for batch in found for p in batch.products] == ["a", "b"]
        refused = [reject for batch in found for reject in batch.rejects]
        assert [(r.position, r.id, r.reason) for r in refused] == [
            (2, "1", "duplicate-id"),
            (3, "1", "duplicate-id"),
        ]
        assert all("row 0" in reject.message for reject in refused)


def test_a_refused_row_does_not_claim_its_id(tmp_path: Path) -> None:
    path = source(tmp_path, "a.csv", "id,title\n1,\n1,a\n")
    assert read(path) == (["1"], [(0, "no-content")])


def test_a_price_that_is_no_number_costs_the_price_alone(tmp_path: Path) -> None:
    path = source(tmp_path, "a.csv", "id,title,price\n1,a,ask us\n2,b,$3\n")
    (batch,) = batches(path)
    assert [product.price for product in batch.products] == [None, 3.0]
    (reject,) = batch.rejects
    assert (reject.position, reject.id, reject.reason, reject.kept) == (0, "1", "bad-price", True)
    assert "ask us" in reject.message


@given(st.lists(st.lists(st.integers(0, 40), max_size=30), max_size=8))
def test_seen_ids_agree_with_a_dictionary(rounds: list[list[int]]) -> None:
    seen, oracle, position = SeenIds(), dict[int, int](), 0
    for ids in rounds:
        places = list(range(position, position + len(ids)))
        expected = [
            None if oracle.setdefault(name, place) == place else oracle[name]
            for name, place in zip(ids, places, strict=True)
        ]
        assert seen.claim([str(name) for name in ids], places) == expected
        position += len(ids)


def test_seen_ids_agree_with_a_dictionary_beyond_their_first_arrays() -> None:
    seen, oracle = SeenIds(), dict[int, int]()
    names = np.random.default_rng(5).integers(0, 400_000, 300_000).tolist()
    for start in range(0, len(names), 5000):
        part = names[start : start + 5000]
        places = range(start, start + len(part))
        expected = []
        for name, place in zip(part, places, strict=True):
            first = oracle.setdefault(name, place)
            expected.append(None if first == place else first)
        assert seen.claim([str(name) for name in part], places) == expected


# Sources that are refused


def test_a_missing_source_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(SourceNotFound, match=r"none\.csv"):
        read_source(tmp_path / "none.csv")
    path = source(tmp_path, "a.csv", "id,title\n1,a\n")
    with pytest.raises(SourceNotFound, match="pictures"):
        read_source(path, ReadOptions(images=tmp_path / "pictures"))


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.jsonl"])
@pytest.mark.parametrize("content", ["", "\n\n", "\ufeff"])
def test_a_file_without_a_line_is_empty(tmp_path: Path, name: str, content: str) -> None:
    with pytest.raises(EmptySource):
        list(read_source(source(tmp_path, name, content)))


def test_a_header_alone_is_empty(tmp_path: Path) -> None:
    with pytest.raises(EmptySource, match="no rows"):
        list(read_source(source(tmp_path, "a.csv", "id,title\n\n")))


def test_an_unknown_suffix_names_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(UnreadableSource, match=r"'\.doc'.*\.csv.*\.parquet"):
        read_source(source(tmp_path, "a.doc", "{}"))


@pytest.mark.parametrize(
    ("content", "remedy"),
    [
        (b"PK\x03\x04rest", "save it as CSV"),
        (b"PAR1rest", r"\.parquet"),
        (b"<!DOCTYPE html>\n<html><body>log in</body></html>", "web page"),
        (gzip.compress(b"id,title\n", mtime=0), r"\.gz"),
        (b"id,title\n1,\x00\n", "byte 11 is NUL"),
    ],
)
def test_another_format_under_the_name_csv_is_reported(
    tmp_path: Path, content: bytes, remedy: str
) -> None:
    with pytest.raises(UnreadableSource, match=remedy):
        read_source(source(tmp_path, "a.csv", content))


@pytest.mark.parametrize("before", [1, 5000])
@pytest.mark.parametrize("packed", [False, True])
def test_a_file_of_two_encodings_is_refused_with_the_byte_its_line_and_the_remedy(
    tmp_path: Path, before: int, packed: bool
) -> None:
    head = "id,title\n" + "".join(f"{i},über {i}\n" for i in range(before))
    content = head.encode() + "x,caf\xe9\ny,z\n".encode("latin-1")
    path = source(
        tmp_path,
        "a.csv.gz" if packed else "a.csv",
        gzip.compress(content) if packed else content,
    )
    offset, line = len(head.encode()) + 5, before + 2
    with pytest.raises(UnreadableSource, match="--encoding") as caught:
        list(read_source(path))
    assert f"byte 0xe9 at offset {offset} (line {line})" in str(caught.value)


@pytest.mark.parametrize("gap", [2**20 - 4, 2**20 - 2, 2**20 - 1, 2**20])
def test_a_bad_byte_is_found_where_blocks_meet(tmp_path: Path, gap: int) -> None:
    head = "id,title\n1," + "é" * 3
    content = head.encode()
    content += b"x" * (gap - len(content)) + b"\xe9\n"
    with pytest.raises(UnreadableSource, match=f"offset {gap} "):
        list(read_source(source(tmp_path, "a.csv", content)))


def test_a_character_cut_off_at_the_end_is_reported(tmp_path: Path) -> None:
    with pytest.raises(UnreadableSource, match="offset 11 "):
        list(read_source(source(tmp_path, "a.csv", b"id,title\n1,\xc3")))


def test_a_damaged_gzip_is_unreadable(tmp_path: Path) -> None:
    content = gzip.compress("".join(f"{i},{i * i}\n" for i in range(50_000)).encode())
    for broken in (content[: len(content) // 2], content[:5000] + b"\xff" * 9 + content[5009:]):
        path = source(tmp_path, "a.csv.gz", broken)
        with pytest.raises(UnreadableSource, match=r"a\.csv\.gz"):
            list(read_source(path, ReadOptions(mapping={"id": "0", "title": "0"})))
    with pytest.raises(UnreadableSource):
        read_source(source(tmp_path, "b.csv.gz", b"id,title\n1,a\n"))


def test_an_unknown_mapped_column_is_refused_at_once(tmp_path: Path) -> None:
    path = source(tmp_path, "a.csv", "id,Product Name\n1,a\n")
    with pytest.raises(UnknownColumn, match="near: Product Name"):
        read_source(path, ReadOptions(mapping={"title": "Product Nam"}))


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.binary(max_size=200).map(lambda tail: b"id,title\n" + tail),
    st.sampled_from(["a.csv", "a.tsv", "a.jsonl", "a.parquet", "a.csv.gz"]),
)
def test_any_bytes_are_read_or_refused_with_an_error_of_ours(
    tmp_path: Path, content: bytes, name: str
) -> None:
    try:
        for batch in read_source(source(tmp_path, name, content)):
            assert len(batch.products) == len(batch.positions)
    except KinshelfError:
        pass


# Size


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl"])
def test_rows_are_counted_exactly_when_few_and_nearly_when_many(tmp_path: Path, name: str) -> None:
    def write(rows: int) -> Path:
        if name == "a.csv":
            lines = ["id,title", *(f'{i},"a\nb {i}"' for i in range(rows))]
        else:
            lines = [json.dumps({"id": i, "title": f"a {i}"}) for i in range(rows)]
        return source(tmp_path, name, "\n".join(lines))

    assert count_rows(write(1000)) == 1000
    estimate = count_rows(write(60_000))
    assert estimate is not None
    assert abs(estimate - 60_000) < 6_000


def test_batches_hold_as_many_rows_as_asked(tmp_path: Path) -> None:
    path = source(tmp_path, "a.csv", "id,title\n" + "".join(f"{i},t\n" for i in range(10)))
    assert [len(batch.products) for batch in batches(path, batch_size=4)] == [4, 4, 2]
    with pytest.raises(InputError, match="batch_size"):
        read_source(path, ReadOptions(batch_size=0))


MEASURE = """
import resource, sys
from kinshelf.db.sources.readers import read_source
rows = sum(len(batch.products) for batch in read_source(sys.argv[1]))
print(rows, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the unit of ru_maxrss is Linux's")
@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.parquet"])
def test_three_hundred_thousand_rows_stream_in_flat_memory(tmp_path: Path, name: str) -> None:
    def peak(rows: int) -> int:
        path = tmp_path / name
        kind = {"a.csv": "csv", "a.jsonl": "json", "a.parquet": "parquet"}[name]
        duckdb.sql(
            f"COPY (SELECT 'p' || i AS id, repeat('word ' || i || ' ', 40) AS title, "
            f"i AS stock FROM range({rows}) t(i)) TO '{path}' (FORMAT {kind})"
        )
        command = [sys.executable, "-c", MEASURE, str(path)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        read_rows, mebibytes = map(int, done.stdout.split())
        assert read_rows == rows
        return mebibytes

    # 300,000 rows are 100 MB of text. Of Parquet a row group of 122,880 is held in any case.
    fewer = 150_000 if name == "a.parquet" else 30_000
    assert peak(300_000) - peak(fewer) < 30


# The real data


def oracle(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize(
    ("name", "count", "without"), [("products.csv", 600, 300), ("embeddings/products.csv", 828, 0)]
)
def test_the_real_catalogues_are_read_as_csv_reads_them(
    amazon: Path, name: str, count: int, without: int
) -> None:
    path = amazon / name
    rows, found = oracle(path), products(path, images=amazon / "images")
    assert len(found) == len(rows) == count_rows(path) == count
    assert rejects(path) == []
    assert sum(product.category is None for product in found) == without
    for row, product in zip(rows, found, strict=True):
        assert product.id == row["id"]
        assert product.title == folded(row["title"])
        assert (product.category or "") == row["category"]
        assert product.image == str(amazon / "images" / row["image"])
    assert positions(path) == list(range(count))


def test_the_pictures_of_the_real_catalogue_are_where_it_states(amazon: Path) -> None:
    assert all(Path(product.image or "").is_file() for product in products(amazon / "products.csv"))


def test_the_raw_amazon_file_is_read_with_its_layout(amazon: Path) -> None:
    path = amazon / "raw_sample.csv"
    rows, found = oracle(path), products(path)
    assert len(source_columns(path)) == 28
    assert len(found) == len(rows) == 10
    assert rejects(path) == []
    for row, product in zip(rows, found, strict=True):
        assert product.id == row["Uniq Id"]
        assert product.title == folded(row["Product Name"])
        assert product.category == (row["Category"] or None)
        assert product.price == float(row["Selling Price"].strip().removeprefix("$"))
        assert product.image == row["Image"].split("|")[0]
        assert "Make sure this fits" not in product.description
        assert " | " not in product.description
        words = folded(row["About Product"]).replace("|", " ").split()
        assert set(product.description.split()) <= set(words)
        fields = {"Uniq Id", "Product Name", "Category", "Selling Price", "Image", "About Product"}
        others = {name for name, cell in row.items() if cell.strip() and name not in fields}
        assert set(product.attributes) - {"images", "currency"} == others
