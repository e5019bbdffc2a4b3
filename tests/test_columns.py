"""What the columns of a source are taken for, and the products that come of its rows."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kinshelf.db.errors import InputError, UnknownColumn
from kinshelf.db.sources.columns import resolve_columns
from kinshelf.db.sources.values import embedding_of, scalar, text_of, typed

OWN = ["id", "title", "description", "category", "price", "brand", "image", "split"]
AMAZON_PIXEL = "https://images-na.ssl-images-amazon.com/images/G/01/transparent-pixel.jpg"


def test_own_names_are_fields_and_all_else_is_an_attribute() -> None:
    plan = resolve_columns([*OWN, "colour", "Ean"], {})
    assert plan.fields == {name: name for name in OWN}
    assert plan.attributes == {"colour": "colour", "Ean": "Ean"}


@pytest.mark.parametrize(
    ("column", "field"),
    [
        ("ID", "id"),
        ("Product_ID", "id"),
        ("uniq-id", "id"),
        ("Name", "title"),
        ("Product Name", "title"),
        ("category_name", "category"),
        ("Selling Price", "price"),
        ("brand name", "brand"),
        ("image_path", "image"),
        ("imageURL", None),
        ("image url", "image"),
    ],
)
def test_usual_names_are_recognised(column: str, field: str | None) -> None:
    others = [name for name in ("id", "title") if name != field]
    plan = resolve_columns([*others, column], {})
    bound = {column: name for name, column in plan.fields.items()}
    assert bound.get(column) == field


def test_the_first_of_two_names_for_a_field_wins_and_the_other_is_an_attribute() -> None:
    plan = resolve_columns(["sku", "id", "name", "title"], {})
    assert plan.fields == {"id": "id", "title": "title"}
    assert plan.attributes == {"sku": "sku", "name": "name"}


def test_a_mapping_goes_before_the_names() -> None:
    plan = resolve_columns(["id", "title", "Long Name"], {"title": "Long Name"})
    product, _ = plan.product({"id": "1", "title": "short", "Long Name": "long"})
    assert product.title == "long"
    assert product.attributes == {"source_title": "short"}


def test_a_mapped_column_may_differ_in_case() -> None:
    assert resolve_columns(["ID", "Long Name"], {"title": "long_name"}).fields["title"] == (
        "Long Name"
    )


def test_an_unknown_mapped_column_is_refused_with_near_names_and_all_columns() -> None:
    with pytest.raises(UnknownColumn, match="near: Product Name") as caught:
        resolve_columns(["Uniq Id", "Product Name", "Stock"], {"title": "Produkt Name"})
    assert "Produkt Name" in str(caught.value)
    assert "Stock" in str(caught.value)


def test_an_unknown_field_is_refused_with_the_fields() -> None:
    with pytest.raises(InputError, match=r"'titel'.*near: title"):
        resolve_columns(["id", "title"], {"titel": "title"})


def test_text_and_title_cannot_both_be_mapped() -> None:
    with pytest.raises(InputError, match="either text"):
        resolve_columns(["id", "a", "b"], {"text": "a", "title": "b"})


def test_without_an_id_the_message_states_how_to_map_one() -> None:
    with pytest.raises(UnknownColumn, match='--map id="Article"'):
        resolve_columns(["Article", "title"], {})


def test_without_any_content_the_message_states_how_to_map_some() -> None:
    with pytest.raises(UnknownColumn, match="--map title="):
        resolve_columns(["id", "price"], {})
    assert resolve_columns(["id", "price"], {}, require_content=False).fields["price"] == "price"


def test_a_row_becomes_a_product_with_typed_attributes() -> None:
    plan = resolve_columns([*OWN, "colour", "weight", "stock", "code", "sale", "note"], {})
    product, notes = plan.product(
        {
            "id": " p1 ",
            "title": "Wooden\n puzzle",
            "description": "",
            "category": "Toys|Puzzles",
            "price": "$12.50",
            "brand": "",
            "image": "https://example.org/a.jpg",
            "split": "train",
            "colour": "red",
            "weight": "1.25",
            "stock": "12",
            "code": "007",
            "sale": "True",
            "note": "",
        }
    )
    assert notes == []
    assert (product.id, product.title, product.description) == ("p1", "Wooden puzzle", "")
    assert (product.category, product.price, product.brand) == ("Toys | Puzzles", 12.5, None)
    assert (product.image, product.split) == ("https://example.org/a.jpg", "train")
    assert product.attributes == {
        "colour": "red",
        "weight": 1.25,
        "stock": 12,
        "code": "007",
        "sale": True,
        "currency": "USD",
    }


def test_a_price_that_is_no_number_is_noted_with_its_value() -> None:
    plan = resolve_columns(["id", "title", "price"], {})
    product, notes = plan.product({"id": "1", "title": "a", "price": "ask us"})
    assert product.price is None
    assert [note.reason for note in notes] == ["bad-price"]
    assert "'ask us'" in notes[0].message


def test_the_amazon_layout_reads_the_right_columns() -> None:
    columns = ["Uniq Id", "Product Name", "Brand Name", "Category", "List Price", "Selling Price"]
    columns += ["Model Number", "About Product", "Image", "Stock", "Product Description"]
    plan = resolve_columns(columns, {})
    assert plan.layout == "amazon-2020"
    opening = "Make sure this fits by entering your model number. | "
    product, notes = plan.product(
        {
            "Uniq Id": "u1",
            "Product Name": "Longboard",
            "Brand Name": "",
            "Category": "Sports | Boards",
            "List Price": "",
            "Selling Price": "$10.99 - $24.99",
            "Model Number": "55324",
            "About Product": opening + "FLEX: bends | GRIP: holds ",
            "Image": f"{AMAZON_PIXEL}|https://example.org/1.jpg|https://example.org/2.jpg",
            "Stock": "",
            "Product Description": "",
        }
    )
    assert [note.reason for note in notes] == ["price-range"]
    assert product.description == "FLEX: bends GRIP: holds"
    assert product.price == 10.99
    assert product.image == "https://example.org/1.jpg"
    assert product.attributes == {
        "Model Number": 55324,
        "currency": "USD",
        "images": '["https://example.org/1.jpg", "https://example.org/2.jpg"]',
    }


def test_an_amazon_row_with_a_placeholder_only_has_no_image() -> None:
    plan = resolve_columns(["Uniq Id", "Product Name", "About Product", "Image"], {})
    row = {"Uniq Id": "1", "Product Name": "a", "About Product": "", "Image": AMAZON_PIXEL}
    assert plan.product(row)[0].image is None


def test_a_mapping_overrides_a_known_layout() -> None:
    columns = ["Uniq Id", "Product Name", "About Product", "Selling Price", "List Price"]
    plan = resolve_columns(columns, {"price": "List Price", "title": "About Product"})
    assert plan.fields["price"] == "List Price"
    assert plan.fields["title"] == "About Product"
    assert "description" not in plan.fields


def test_the_coursework_layout_splits_its_text() -> None:
    plan = resolve_columns(["uniq_id", "image_path", "text", "label", "category_name", "split"], {})
    product, _ = plan.product(
        {
            "uniq_id": "u1",
            "image_path": "images/u1.jpg",
            "text": "Puzzle || 500 pieces || large",
            "label": "2",
            "category_name": "Jigsaw Puzzles",
            "split": "val",
        }
    )
    assert (product.title, product.description) == ("Puzzle", "500 pieces || large")
    assert product.text == "Puzzle || 500 pieces || large"
    assert (product.category, product.split) == ("Jigsaw Puzzles", "val")
    assert product.attributes == {"label": 2}


def test_exported_attributes_are_unfolded() -> None:
    plan = resolve_columns([*OWN, "attributes"], {}, from_text=False)
    row = {"id": "1", "title": "a", "attributes": '{"colour": "red", "n": 3, "x": null, "l": [1]}'}
    assert plan.product(row)[0].attributes == {"colour": "red", "n": 3, "l": "[1]"}


def test_attributes_that_are_no_json_object_stay_a_plain_attribute() -> None:
    plan = resolve_columns(["id", "title", "attributes"], {})
    row = {"id": "1", "title": "a", "attributes": "{red}"}
    assert plan.product(row)[0].attributes == {"source_attributes": "{red}"}


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("images/a.jpg", "/catalogue/images/a.jpg"),
        ("./a.jpg", "/catalogue/a.jpg"),
        ("/elsewhere/a.jpg", "/elsewhere/a.jpg"),
        ("http://example.org/a.jpg", "http://example.org/a.jpg"),
        ("HTTPS://example.org/a.jpg", "HTTPS://example.org/a.jpg"),
        ("file:///etc/passwd", "file:///etc/passwd"),
        ("s3://bucket/a.jpg", "s3://bucket/a.jpg"),
        ("a:b.jpg", "/catalogue/a:b.jpg"),
        ("a|b.jpg", "/catalogue/a|b.jpg"),
        ("  ", None),
        ("", None),
    ],
)
def test_an_image_is_an_address_or_an_absolute_path(value: str, expected: str | None) -> None:
    plan = resolve_columns(["id", "image"], {}, folder=Path("/catalogue"))
    assert plan.product({"id": "1", "image": value})[0].image == expected


def test_further_columns_never_move_what_is_bound() -> None:
    plan = resolve_columns(["id", "name"], {}, from_text=False).extended(["title", "brand", "x"])
    assert plan.fields == {"id": "id", "title": "name", "brand": "brand"}
    assert plan.attributes == {"title": "source_title", "x": "x"}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("12", 12),
        ("-3", -3),
        ("0", 0),
        ("1.5", 1.5),
        ("1.10", "1.10"),
        ("90.750", "90.750"),
        ("12345678901234567890", "12345678901234567890"),
        ("-0.5", -0.5),
        ("1.5e3", "1.5e3"),
        ("1.5e+20", 1.5e20),
        ("True", True),
        ("False", False),
        ("TRUE", "TRUE"),
        ("true", "true"),
        ("007", "007"),
        ("-0", "-0"),
        ("+5", "+5"),
        ("1e5", "1e5"),
        ("1,234", "1,234"),
        ("1" * 19, "1" * 19),
        ("9" * 400 + ".5", "9" * 400 + ".5"),
        ("٣", "٣"),
        ("nan", "nan"),
        ("  a\tb ", "a b"),
        ("", None),
        ("  ", None),
    ],
)
def test_a_text_cell_is_typed_only_where_nothing_is_lost(text: str, value: object) -> None:
    result = typed(text)
    assert result == value
    assert type(result) is type(value)


@given(st.integers(-(10**18) + 1, 10**18 - 1))
def test_integers_of_up_to_eighteen_digits_come_back(number: int) -> None:
    assert typed(str(number)) == number


@given(st.text("0123456789.-+eE ", max_size=12))
def test_a_number_from_text_writes_back_to_an_equal_number(text: str) -> None:
    result = typed(text)
    if isinstance(result, int) and not isinstance(result, bool):
        assert str(result) == text.strip()
    if isinstance(result, float):
        assert result == float(text)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        (True, True),
        (3, 3),
        (2.5, 2.5),
        (float("nan"), None),
        (float("inf"), "inf"),
        ("007", "007"),
        (" ", None),
        ([1, "é"], '[1, "é"]'),
        ({"a": None}, '{"a": null}'),
        ("\ud800", None),
    ],
)
def test_a_native_value_keeps_its_type(value: object, expected: object) -> None:
    assert scalar(value) == expected


@pytest.mark.parametrize(
    ("value", "text"), [(None, ""), (7.0, "7"), (7.5, "7.5"), (float("nan"), ""), (7, "7")]
)
def test_a_field_is_text_whatever_it_was(value: object, text: str) -> None:
    assert text_of(value) == text


def test_an_embedding_is_a_list_of_numbers_or_nothing() -> None:
    vector = embedding_of([1, 2.5])
    assert vector is not None
    assert vector.tolist() == [1.0, 2.5]
    assert vector.dtype == "float32"
    assert embedding_of(None) is None
    assert embedding_of("") is None


@pytest.mark.parametrize("value", ["[1, ", "abc", [], [[1.0]], [1, None], ["1"], [[1], [1, 2]], 3])
def test_what_is_no_list_of_numbers_is_no_embedding(value: object) -> None:
    with pytest.raises(ValueError, match=r".+"):
        embedding_of(value)


def test_a_picture_is_found_however_its_path_is_written(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    accented = unicodedata.normalize("NFD", "sub/caf\u00e9.jpg")
    for name in ("sub/a.jpg", "sub/a b.jpg", "sub/50% a%20b.jpg", accented):
        (tmp_path / name).write_bytes(b"x")
    plan = resolve_columns(["id", "image"], {}, folder=tmp_path)

    def image(path: str) -> str | None:
        return plan.product({"id": "1", "image": path})[0].image

    there = str(tmp_path / "sub" / "a.jpg")
    written = ["sub/a.jpg", "./sub/a.jpg", "sub\\a.jpg", "/sub/a.jpg", there, "C:\\sub\\a.jpg"]
    assert [image(path) for path in written] == [there] * len(written)
    assert image("D:\\export\\sub\\a.jpg") == str(tmp_path / "D:\\export\\sub\\a.jpg")
    assert image(unicodedata.normalize("NFC", accented)) == str(tmp_path / accented)
    for path in ("sub/a%20b.jpg", "sub/a%20b.jpg?v=2", "sub/50% a%20b.jpg"):
        found = "a b.jpg" if path.startswith("sub/a") else "50% a%20b.jpg"
        assert image(path) == str(tmp_path / "sub" / found)
    assert image("sub/none%20here.jpg") == str(tmp_path / "sub/none%20here.jpg")
    assert image("//cdn.example/a.jpg") == "https://cdn.example/a.jpg"
    assert image("/nowhere/b.jpg") == "/nowhere/b.jpg"
