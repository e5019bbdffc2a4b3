"""Encodings and delimiters are recognised by evidence, and what is odd is read as it is meant."""

from __future__ import annotations

from pathlib import Path

import pytest

from kinshelf.db.encodings import checked, detect
from kinshelf.db.errors import InputError, UnreadableSource
from kinshelf.db.sources.readers import ReadOptions, open_rows, read_source, reading_notes

TITLES = {
    "cp1252": ["Größe 5½ M", "café crème", "Señor piñata", "Åse Øre æble",
               "10 €", "it\u2019s \u201cquoted\u201d \u2026",
               "Créée par Éric",
               "25 °C", "Maß 5\u00d77 cm", "Nordlicht™ ®", "50 µm"],
    "shift_jis": ["マグカップ", "木製パズル 100ピース", "ぬいぐるみ(大)", "日本製タオル",
                  "東京 子供用自転車",
                  "目覚まし時計・白", "犬", "ﾏｸﾞｶｯﾌﾟ"],
    "gbk": ["红色马克杯", "木制拼图", "毛绒玩具", "茶杯", "儿童自行车", "电饭煲 3L",
            "蓝牙耳机", "狗", "女士连衣裙"],
    "euc_jp": ["マグカップ", "木製パズル 100ピース", "ぬいぐるみ(大)", "日本製タオル"],
    "utf-32": ["Mug", "マグカップ"],
    "utf-16": ["Mug", "マグカップ", "红色马克杯", "Größe"],
    "utf-16-le": ["Mug", "マグカップ", "红色马克杯"],
    "utf-16-be": ["Mug", "マグカップ", "红色马克杯"],
    "utf-8-sig": ["Größe", "マグカップ"],
    "utf-8": ["Mug", "Größe", "マグカップ", "红色马克杯"],
}  # fmt: skip
CASES = [(name, title) for name, titles in TITLES.items() for title in titles]


def titles(path: Path, encoding: str | None = None) -> list[str]:
    options = ReadOptions(encoding=encoding)
    return [p.title for batch in read_source(path, options) for p in batch.products]


def reasons(path: Path) -> list[tuple[str, bool]]:
    found = [r for batch in read_source(path) for r in batch.rejects]
    return [(r.reason, r.kept) for r in found]


@pytest.mark.parametrize(("name", "title"), CASES)
@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_one_title_tells_the_encoding(tmp_path: Path, name: str, title: str, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    text = f"id,title\n1,{title}\n" if suffix == "csv" else f'{{"id": "1", "title": "{title}"}}\n'
    path.write_bytes(text.encode(name))
    assert titles(path) == [title]


OTHERS = {
    "euc_kr": "빨간 머그컵 파란 상자 나무 기차 장난감",
    "big5": "不鏽鋼保溫杯 兒童玩具積木",
    "mac_roman": "Café crème, Señor piñata naïve, Größe Küche, Åse æble",
    "cp1250": "Červený hrnek příliš, dětská stolička žlutá",
    "iso8859_2": "Poduszka z gąbki różowa, średni kubek źródło",
    "cp1254": "Kırmızı şişe çocuk, mavi kutu ığdır",  # noqa: RUF001
}


@pytest.mark.parametrize("name", OTHERS)
def test_a_few_titles_tell_the_encodings_of_other_countries(name: str) -> None:
    data = f"id,title\n1,{OTHERS[name]}\n".encode(name)
    assert data.decode(detect([data]) or "ascii") == data.decode(name)


@pytest.mark.parametrize(
    "title", ["kg/m³ x", "WÜSTHOF", "¿Cómo?", "½ inch", "25 \u2013 30", "Ärmel"]
)
def test_what_is_usual_in_western_europe_stays_its_own(title: str) -> None:
    assert detect([f"id,title\n1,{title}\n".encode("cp1252")]) == "cp1252"


def test_a_letter_far_down_tells_it_too(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    rows = "".join(f"{i},plain title number {i}\n" for i in range(100_000))
    path.write_bytes(("id,title\n" + rows + "x,Tasse für Kaffee\n").encode("cp1252"))
    assert titles(path)[-1] == "Tasse für Kaffee"
    assert reading_notes(open_rows(path)) == ["it is read as cp1252 (--encoding names another)"]


def test_what_fits_none_is_refused_and_can_be_named(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes("id,title\n1,Кружка\n".encode("cp1251"))
    with pytest.raises(UnreadableSource, match="--encoding"):
        read_source(path)
    assert titles(path, encoding="cp1251") == ["Кружка"]


def test_a_binary_file_has_no_encoding() -> None:
    assert detect([bytes(range(256)) * 4]) is None


@pytest.mark.parametrize("name", ["klingon", "base64", "a\0b", ""])
def test_an_encoding_that_is_none_is_refused(name: str) -> None:
    with pytest.raises(InputError, match="there is no encoding"):
        checked(name)


@pytest.mark.parametrize(
    ("text", "price"),
    [
        ("id;title;price, EUR\n1;Tasse;12,99\n", "price, EUR"),
        ("sep=;\r\nid;title;price\r\n1;Tasse;12,99\r\n", None),
        ('"sep=|"\nid|title|price\n1|Tasse|12,99\n', None),
        ("id\ttitle\tprice\n1\tTasse\t12,99\n", None),
        ("id|title|price\n1|Tasse|12,99\n", None),
        ("sku;name;other, one; two\n1;Tasse;a\n", "other, one"),
        ('id,title,price\n1,Tasse,"12;99;1"\n', "comma"),
    ],
)
def test_the_delimiter_is_recognised(tmp_path: Path, text: str, price: str | None) -> None:
    path = tmp_path / "a.csv"
    path.write_text(text)
    batch = next(read_source(path))
    assert batch.products[0].title == "Tasse"
    assert bool(reading_notes(open_rows(path))) == (price != "comma")
    if price is None:
        assert batch.products[0].price == 12.99


def test_what_is_odd_is_read_as_it_is_meant_and_counted(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(
        "id,title,brand,price\n1,a,b,1\n2,short\n3,trailing,b,3,,\n,,,\nid,title,brand,price\n"
        "4,d,b,4\n,,\n5,too,many,5,x\n6,last\n"
    )
    assert titles(path) == ["a", "short", "trailing", "d", "last"]
    assert reasons(path) == [
        ("short-row", True), ("trailing-delimiters", True), ("empty-row", True),
        ("repeated-header", True), ("empty-row", True), ("malformed-row", False),
        ("short-row", True),
    ]  # fmt: skip


def test_two_short_rows_that_make_one_are_a_broken_record(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("id,title,brand,price\n1,Red\nmug,Acme,9.99\n2,Blue mug,Acme,8\n")
    assert titles(path) == ["Blue mug"]
    assert reasons(path) == [("malformed-row", False)] * 2


def test_short_rows_one_after_another_are_rows(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("id,title,brand\n1,a,x\n2,b\n3,c\n4,d\n5,e\n")
    assert titles(path) == ["a", "b", "c", "d", "e"]
    assert reasons(path) == [("short-row", True)] * 4


def test_a_header_that_ends_in_delimiters_asks_nothing_of_its_rows(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("id;title;price;;\n1;a;1,50\n2;b;2;;\n3;c;3;\n")
    assert titles(path) == ["a", "b", "c"]
    assert reasons(path) == []


def test_files_joined_into_one_have_their_headers_taken_out(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("\ufeffid,title\n1,a\n\ufeffid,title\n2,b\nid,title\n3,c\n")
    assert titles(path) == ["a", "b", "c"]
    assert reasons(path) == [("repeated-header", True)] * 2


@pytest.mark.parametrize("text", ["あ", "Größe über alles, für 12 €, schön", "红色马克杯"])
def test_utf_8_with_a_broken_character_is_no_other_encoding(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(f"id,title\n1,{text}".encode() + b"\xe3\n")
    with pytest.raises(UnreadableSource, match="is not UTF-8: byte 0xe3"):
        read_source(path)
