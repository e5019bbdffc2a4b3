"""Cells that hold lists and objects: pictures by their URLs, and the main member of texts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kinshelf.db.sources.columns import resolve_columns
from kinshelf.db.sources.values import first_member

U, V = "https://cdn.example/a,b/1.jpg", "https://cdn.example/2.jpg?x=1,2"
PROXY = "https://proxy.example/?u=https://x.example/y.jpg"
TWO = {
    "JSON": json.dumps([U, V]), "Python": repr([U, V]), "tuple": repr((U, V)),
    "set": f"{{'{U}', '{V}'}}", "NumPy": f"['{U}'\n '{V}']", "PostgreSQL": f"{{{U},{V}}}",
    "quoted PostgreSQL": f'{{"{U}","{V}"}}', "no quotes": f"[{U}, {V}]",
    "objects": json.dumps([{"url": U}, {"url": V}]), "nested": json.dumps([[U], [V]]),
    "by address": json.dumps({U: [300, 400], V: [1, 2]}),
    "escaped": json.dumps([U, V]).replace("/", "\\/"),
    "WooCommerce": f"{U} ! alt : a ! title : b | {V} ! alt : c",
    **{repr(mark): U + mark + V
       for mark in ("|", " | ", ",", ", ", ";", "~", "\n", "\r\n", "\t", " ")},
}  # fmt: skip
ONE = {
    U: U, f"<{U}>": U, f'<img src="{U}" alt="x">': U, json.dumps(U): U, f"'{U}'": U,
    json.dumps({"large": U}): U, f'["{U}"]': U,
    f"[{{'thumb': 't.jpg', 'large': None, 'hi_res': '{U}'}}]": U,
    "https://x.example/a(1).jpg": "https://x.example/a(1).jpg",
    "https://x.example/a b.jpg": "https://x.example/a b.jpg",
    PROXY: PROXY, "HTTPS://X.example/A.JPG": "HTTPS://X.example/A.JPG",
    "//x.example/a.jpg": "https://x.example/a.jpg",
    **dict.fromkeys([
        f"![alt]({U})", f"url({U})", f'=IMAGE("{U}")', f'=HYPERLINK("{U}","pic")', f"image: {U}",
        f"alt|{U}", U.replace("/", "\\/"), f'a:1:{{i:0;s:23:"{U}";}}', f"image1={U}",
        f"&lt;img src=&quot;{U}&quot;&gt;", f"{U} 300w",
    ], U),
    "data:image/png;base64,iVBORw0KGgo=": "data:image/png;base64,iVBORw0KGgo=",
    **dict.fromkeys(["[]", "null", "None", "NaN", "[null]", "{}", "#N/A", "\\N", "-"]),
    "a.jpg": "/x/a.jpg", "mug, red.jpg": "/x/mug, red.jpg", "(1).jpg": "/x/(1).jpg",
    "[1] a.jpg": "/x/[1] a.jpg", "a;b.jpg": "/x/a;b.jpg", "nan.jpg": "/x/nan.jpg",
}  # fmt: skip
FILES = ["a.jpg, sub/b c.png", "a.jpg;sub/b c.png", "a.jpg|sub/b c.png|", "a.jpg\nsub/b c.png",
         '["a.jpg", "sub/b c.png"]', "['a.jpg' 'sub/b c.png']"]  # fmt: skip


def read(cell: str) -> tuple[str | None, list[str] | None]:
    """The picture, and all of them where there are several."""
    plan = resolve_columns(["id", "title", "image"], {}, folder=Path("/x"))
    product = plan.product({"id": "1", "title": "Mug", "image": cell})[0]
    several = product.attributes.get("images")
    return product.image, json.loads(str(several)) if several else None


@pytest.mark.parametrize("cell", TWO.values(), ids=TWO)
def test_each_of_several_pictures_survives_as_its_url_stands(cell: str) -> None:
    assert read(cell) == (U, [U, V])


@pytest.mark.parametrize(("cell", "picture"), ONE.items())
def test_one_picture_or_none_is_what_the_cell_means(cell: str, picture: str | None) -> None:
    assert read(cell) == (picture, None)


@pytest.mark.parametrize("cell", FILES)
def test_files_in_a_row_are_told_apart(cell: str) -> None:
    assert read(cell) == ("/x/a.jpg", ["/x/a.jpg", "/x/sub/b c.png"])


def test_a_list_that_a_spreadsheet_cut_still_gives_its_first_picture() -> None:
    assert read(f'["{U}", "https://cdn.ex')[0] == U


def test_a_file_whose_name_looks_like_a_list_is_that_file(tmp_path: Path) -> None:
    (tmp_path / "a.jpg,b.jpg").touch()
    plan = resolve_columns(["id", "image"], {}, folder=tmp_path)
    image = plan.product({"id": "1", "image": "a.jpg,b.jpg"})[0].image
    assert image == str(tmp_path / "a.jpg,b.jpg")


@pytest.mark.parametrize(
    ("cell", "text"),
    [
        ('["Mug"]', "Mug"), ("('Mug', 'Cup')", "Mug"), ("[['Mug'], ['Cup']]", "Mug"),
        ('{"de": "Tasse", "en-GB": "Mug"}', "Mug"), ("{'de': 'Tasse', 'fr': 'Bol'}", "Tasse"),
        ('{"name": "Mug", "id": 3}', "Mug"), ('[{"name": "Mug"}, {"name": "Cup"}]', "Mug"),
        ("[]", ""), ("{}", ""), ("(new) mug (2)", "(new) mug (2)"), ("(1, 2)", "(1, 2)"),
        ("{mug}", "{mug}"), ('{"a": 1}', '{"a": 1}'), ("[1] mug", "[1] mug"),
    ],
)  # fmt: skip
def test_of_a_text_the_main_member_is_taken(cell: str, text: str) -> None:
    assert first_member(cell) == text
    assert first_member(text) == text
