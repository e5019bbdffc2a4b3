"""Normalised text, prices and categories."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kinshelf.db.text import clean_category, clean_key, normalise, parse_price

ANY_TEXT = st.text(st.characters(), max_size=60)
"""Surrogates and control characters among it."""


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        ("  two\t words \r\n", "two words"),
        ("one\u00a0space\u3000wide", "one space wide"),
        ("bell\x07 and \x00nul", "bell and nul"),
        ("\ufeffmark", "mark"),
        ("lone \ud800 surrogate", "lone surrogate"),
        ("\uff46\uff55\uff4c\uff4c \uff57\uff49\uff44\uff54\uff48", "full width"),
        ("cafe\u0301", "café"),
        ("line\x85break\u2028again", "line break again"),
        ("", ""),
    ],
)
def test_text_is_normalised(raw: str, clean: str) -> None:
    assert normalise(raw) == clean


@given(ANY_TEXT)
def test_normalised_text_is_nfkc_without_controls_and_encodes(raw: str) -> None:
    clean = normalise(raw)
    assert unicodedata.is_normalized("NFKC", clean)
    assert not any(unicodedata.category(mark) in {"Cc", "Cs"} for mark in clean)
    assert clean == " ".join(clean.split())
    clean.encode()


@given(ANY_TEXT)
def test_normalising_twice_changes_nothing(raw: str) -> None:
    assert normalise(normalise(raw)) == normalise(raw)


@given(st.text(st.characters(categories=["L", "N", "P", "S"]), max_size=40))
def test_normalising_visible_text_is_plain_nfkc(raw: str) -> None:
    assert normalise(raw) == " ".join(unicodedata.normalize("NFKC", raw).split())


def test_a_key_keeps_its_letters_as_they_are() -> None:
    assert clean_key(" \ufeff\uff21-①\u0000  b\n") == "\uff21-①  b"


@pytest.mark.parametrize(
    ("raw", "price"),
    [
        ("$237.68", 237.68),
        ("$237.68 ", 237.68),
        ("$1,234.50", 1234.5),
        ("12,99 €", 12.99),
        ("1.234,50 €", 1234.5),
        ("1 234,50 zł", 1234.5),
        ("CHF 1'234.50", 1234.5),
        ("1.234.567", 1234567.0),
        ("Rs. 1,23,456.78", 123456.78),
        ("1,234", 1234.0),
        ("1.234", 1.234),
        ("0,125", 0.125),
        ("USD 12.00", 12.0),
        ("US$ 5", 5.0),
        ("$.99", 0.99),
        ("\uff11\uff12.\uff15\uff10", 12.5),
        ("1e3", 1000.0),
        ("0", 0.0),
        ("$10.99 - $24.99", 10.99),
        ("12,99€ \u2013 15,00€", 12.99),
        ("$24.99 to $10", 10.0),
    ],
)
def test_a_price_is_read(raw: str, price: float) -> None:
    assert parse_price(raw) == price


@pytest.mark.parametrize("raw", ["", "  ", "nan", "None", "NULL", "n/a"])
def test_no_price_is_none(raw: str) -> None:
    assert parse_price(raw) is None


@pytest.mark.parametrize(
    "raw",
    [
        "call us",
        "-5",
        "$",
        "1.2.3",
        "5 6",
        "10 kg",
        "2020-01-05",
        "inf",
        "1e999",
        "$1.99 $2.99",
        "Total price:",
        "12,34,5",
    ],
)
def test_what_is_no_price_is_refused_with_its_text(raw: str) -> None:
    with pytest.raises(ValueError, match="price"):
        parse_price(raw)


@given(st.text(max_size=40))
def test_a_price_is_never_negative_and_never_another_error(raw: str) -> None:
    try:
        price = parse_price(raw)
    except ValueError:
        return
    assert price is None or 0 <= price < float("inf")


@given(st.decimals(0, 10**7, places=2))
def test_an_amount_in_english_and_german_notation_is_the_same(amount: object) -> None:
    english = f"{amount:,.2f}"
    german = english.translate(str.maketrans(",.", ".,"))
    assert parse_price(f"${english}") == float(str(amount))
    assert parse_price(f"{german} €") == float(str(amount))


@pytest.mark.parametrize(
    "raw", ["", " ", "nan", "None", "null", "N/A", "#N/A", "#REF!", "|", " | "]
)
def test_a_category_that_means_none_is_none(raw: str) -> None:
    assert clean_category(raw) is None


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        ("Toys & Games|Puzzles", "Toys & Games | Puzzles"),
        (" Toys  |Puzzles  | Jigsaw ", "Toys | Puzzles | Jigsaw"),
        ("Toys || Puzzles|", "Toys | Puzzles"),
        ("Nanotech", "Nanotech"),
    ],
)
def test_a_category_path_has_one_space_round_each_bar(raw: str, clean: str) -> None:
    assert clean_category(raw) == clean
