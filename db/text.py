"""Text as the catalogue keeps and compares it: strings, prices, categories, splits."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Iterable
from functools import lru_cache
from typing import Literal

LEVEL = " | "
"""Between the levels of a category."""

_NOT_TEXT = re.compile("[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\ud800-\udfff\ufeff]")
"""Control characters that are not whitespace, lone surrogates and byte order marks."""

_NOT_KEY = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufeff]")
"""The same, and line ends and tabs."""

_NOT_KEPT = re.compile("[\x00\ud800-\udfff]")
"""What no database stores as text."""

_NULL_WORDS = frozenset({"", "nan", "none", "null"})
_NO_VALUE = _NULL_WORDS | {
    "n/a",
    "#n/a",
    "#ref!",
    "#value!",
    "#name?",
    "#null!",
    "#num!",
    "#div/0!",
}
"""Also what a spreadsheet writes for a formula without a result."""

_CURRENCY = (
    r"(?:[a-z]{0,3}\s?[$¢£¤¥฿\u20a0-\u20cf]"
    r"|(?-i:[A-Z]{3})|usd|eur|euros?|gbp|rs\.?|kr\.?|zł|kč|ft|lei|円|元|원)"
)
_PRICE = re.compile(rf"{_CURRENCY}?\s*(?P<number>[\d.,][\d.,' \u2019]*?)\s*{_CURRENCY}?", re.I)
_RANGE = re.compile(r"\s*(?:[-\u2012-\u2015~]|\bto\b)\s*", re.I)
_PLAIN = re.compile(r"\d*\.?\d+(?:e[+-]?\d+)?", re.I)
_COMMON = re.compile(r"\s*\$?(\d+(?:\.\d+)?)\s*", re.A)
"""By far the most prices, and read much faster than the general way."""
_AROUND = re.compile(
    r"^(?:from|ab|à partir de|desde|vanaf|mrp:?|only)\s+(?=\D{0,5}\d)"
    r"|(?<=\d)\s*(?:/-|[.,:]-+|[.,]\u2013)(?=\s*\D{0,4}$)",
    re.I,
)
"""Words before an amount, and dashes in the place of cents."""
_POINT_GROUPS = re.compile(r"(?<![\d.,])[1-9]\d{0,2}(?:\.\d{3})+(?![\d.])")
_COMMA_CENTS = re.compile(r"\d,\d{1,2}(?!\d)")
_POINT_CENTS = re.compile(r"\d\.(?:\d{1,2}|\d{4,})(?!\d)")
_NOTATIONS = (
    # 1,234.50 and 1,23,456: a comma groups
    (re.compile(r"[1-9]\d{0,2}(?:,\d{2,3})*,\d{3}(?:\.\d+)?"), ",", "."),
    # 1.234,50 and 1.234.567: a point groups
    (re.compile(r"[1-9]\d{0,2}(?:(?:\.\d{3})+,\d+|(?:\.\d{3}){2,})"), ".", ","),
    # 1 234,50 and 1'234.50: a space or an apostrophe groups
    (re.compile(r"[1-9]\d{0,2}(?:[ '\u2019]\d{3})+(?:[.,]\d+)?"), " '\u2019", ","),
    # 12,99: a comma is the decimal point
    (re.compile(r"\d+,\d+"), "", ","),
)


def clean_key(text: str) -> str:
    """`text` without control characters and surrounding space, otherwise untouched.

    For what must stay exactly what the source states: ids, file names, URLs.
    """
    return (text if text.isprintable() else _NOT_KEY.sub("", text)).strip()


def is_key(text: str) -> bool:
    """Whether `text` can be an id: it has no control character and no lone surrogate."""
    return text.isprintable() or not _NOT_KEY.search(text)


def is_kept(text: str) -> bool:
    """Whether a catalogue can hold `text`: it has no lone surrogate and no NUL character."""
    return (text.isascii() and text.isprintable()) or not _NOT_KEPT.search(text)


def clean(text: str) -> str:
    """`text` as it is stored: Unicode NFC, no control characters, single spaces, stripped.

    The letters stay those of the source ("10²" and "5½"). Lone surrogates go, so the result
    always encodes as UTF-8. Applying it twice changes nothing.
    """
    return _cleaned(text, "NFC")


def normalise(text: str) -> str:
    """`text` as it is encoded and compared: like `clean`, but Unicode NFKC ("10²" is "102")."""
    return _cleaned(text, "NFKC")


def compatible(text: str) -> str:
    """Unicode NFKC alone, in which texts of either spelling are equal."""
    return text if text.isascii() else unicodedata.normalize("NFKC", text)


def _cleaned(text: str, form: Literal["NFC", "NFKC"]) -> str:
    if text.isascii() and text.isprintable():
        return text.strip() if "  " not in text else " ".join(text.split())
    if not text.isprintable():
        text = _NOT_TEXT.sub("", text)
    if not text.isascii():
        # After dropping: what a control character kept apart may now compose.
        text = unicodedata.normalize(form, text)
    return " ".join(text.split())


def without_password(text: str) -> str:
    """A text with every URL's password in it masked, wherever in the URL that stands."""
    text = re.sub(r"(://[^/:@\s]*):[^/\s]*@", r"\1:***@", text)
    return re.sub(r"([?&](?:password|sslpassword|token)=)[^&\s]*", r"\1***", text)


def parse_price(text: str, *, point_groups: bool = False) -> float | None:
    """The amount in `text`, a currency sign or code on either side of it ignored.

    "$1,234.50", "1.234,50 €", "12,99 €" and "CHF 1'234.50" are read; of a range such as
    "$10.99 - $24.99" the lower bound. "1,234" is one thousand two hundred and thirty-four and
    "1.234" a little over one:
    where a single mark may be either, the English reading holds. With `point_groups`
    "1.234" is the larger number: what decides is the rest of the column (see `point_groups_in`).
    Words and marks about an amount ("From $10", "Rs. 1,299/-", "299:-", "€ 12,-") are read over.

    Returns None for an empty text or a word for "nothing" (nan, none, null, n/a).

    Raises:
        ValueError: the text is no price: no number, a negative or an infinite one.
    """
    common = _COMMON.fullmatch(text)
    if common is not None and not point_groups:
        return _finite(float(common[1]), text)
    text = normalise(text)
    if text.casefold() in _NULL_WORDS or text.casefold() == "n/a":
        return None
    bare = _AROUND.sub("", text)
    if point_groups:
        bare = _POINT_GROUPS.sub(lambda found: found[0].replace(".", ""), bare)
    if _PLAIN.fullmatch(bare):
        return _finite(float(bare), text)
    bounds = _RANGE.split(bare)
    if len(bounds) > 2:
        raise ValueError(f"{text!r} is not a price")
    return min(_amount(bound, text) for bound in bounds)


def is_range(text: str) -> bool:
    """Whether a price that can be read has two bounds, of which the lower one is taken."""
    return (
        _COMMON.fullmatch(text) is None and len(_RANGE.split(_AROUND.sub("", normalise(text)))) == 2
    )


def point_groups_in(texts: Iterable[str]) -> bool | None:
    """Whether a point groups thousands in the prices of a column, as the column itself shows.

    A comma with one or two digits behind it shows that, a point with one, two or four digits the
    opposite. Where each point has three digits behind it in several prices and nothing else is
    there to see, no shop means fractions of a cent. None: no price depends on it.
    """
    marks = [text for text in texts if "." in text or "," in text]
    open_ones = [text for text in marks if _POINT_GROUPS.search(text)]
    if not open_ones:
        return None
    if any(_POINT_CENTS.search(text) for text in marks):
        return False
    return len(open_ones) > 1 or any(_COMMA_CENTS.search(text) for text in marks)


_CODE = re.compile(r"(?<![A-Z])[A-Z]{3}(?![A-Z])")
_SIGNS = {
    "us$": "USD", "ca$": "CAD", "c$": "CAD", "au$": "AUD", "a$": "AUD", "nz$": "NZD",
    "hk$": "HKD", "r$": "BRL", "$": "USD", "€": "EUR", "euro": "EUR", "£": "GBP", "₹": "INR",
    "rs": "INR", "¥": "JPY", "円": "JPY", "元": "CNY", "₩": "KRW", "원": "KRW", "₽": "RUB",
    "₺": "TRY", "₫": "VND", "฿": "THB", "₴": "UAH", "₪": "ILS", "₱": "PHP", "₦": "NGN",
    "zł": "PLN", "kč": "CZK", "ft": "HUF", "lei": "RON",
}  # fmt: skip


def currency_of(text: str) -> str | None:
    """The ISO 4217 code of the currency that a price names, None where it names none.

    "$" alone is the US dollar and "¥" the yen, as nearly always; "kr" may be any of four.
    """
    if code := _CODE.search(text):
        return code[0]
    lower = text.casefold()
    return next((code for sign, code in _SIGNS.items() if sign in lower), None)


@lru_cache(maxsize=4096)
def clean_category(value: str) -> str | None:
    """A category path with one space round each "|", or None where the cell means "none".

    Empty, blank, "nan", "none", "null", "n/a" in any case and a spreadsheet's errors mean none, and
    empty path parts are dropped.
    """
    text = clean(value)
    if text.casefold() in _NO_VALUE:
        return None
    if "|" not in text:
        return text
    return LEVEL.join(part for part in map(str.strip, text.split("|")) if part) or None


def _amount(bound: str, text: str) -> float:
    found = _PRICE.fullmatch(bound)
    if found is None:
        raise ValueError(f"{text!r} is not a price")
    return _finite(_number(found["number"], text), text)


def _number(digits: str, text: str) -> float:
    if _PLAIN.fullmatch(digits):
        return float(digits)
    for notation, groups, decimal in _NOTATIONS:
        if notation.fullmatch(digits):
            bare = digits.translate({ord(mark): None for mark in groups})
            return float(bare.replace(decimal, "."))
    raise ValueError(f"{text!r} is not a price")


def _finite(amount: float, text: str) -> float:
    if math.isinf(amount):
        raise ValueError(f"{text!r} is not a finite price")
    return amount


_SPLITS = {
    **dict.fromkeys(("train", "training", "fit"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev", "development", "eval"), "val"),
    "unused": "unused",
    **dict.fromkeys(("test", "testing", "holdout", "held-out"), "test"),
}


def clean_split(text: str) -> tuple[str | None, bool]:
    """The split that a spelling names ("Validation" is "val"), and whether it is a usual one."""
    name = normalise(text)
    known = _SPLITS.get(name.casefold())
    return known or name or None, known is not None or not name


_FORMULA = ("=", "+", "-", "@", "\t", "\r")
_DIGITS = re.compile(r"0\d+|\d{12,}", re.A)
_AS_TEXT = re.compile(r'="((?:[^"]|"")*)"')


def for_spreadsheet(text: str) -> str:
    """A text as a cell that a spreadsheet shows as it is: digits that it would take for a number
    as a formula that states them, and what it would take for a formula behind an apostrophe."""
    if _DIGITS.fullmatch(text):
        return f'="{text}"'
    return f"'{text}" if text.lstrip("'").startswith(_FORMULA) else text


def from_spreadsheet(cell: str) -> str:
    """The text that `for_spreadsheet` wrote, whether or not a spreadsheet has saved it since."""
    if stated := _AS_TEXT.fullmatch(cell):
        return stated[1].replace('""', '"')
    return cell[1:] if cell[:1] == "'" and cell.lstrip("'").startswith(_FORMULA) else cell


def percent(value: float, digits: int = 1) -> str:
    """0.973 as "97.3 %"; never 100 % for what is not quite 1, nor 0 for what is more than 0."""
    scale = 10**digits
    shown = round(value * 100 * scale) / scale
    if shown in (0, 100) and value not in (0, 1):
        shown = 100 - 1 / scale if shown else 1 / scale
        return f"{'>' if value > 0.5 else '<'} {shown:.{digits}f} %"
    return f"{shown:.{digits}f} %"


def fixed(value: float | None, digits: int = 2) -> str:
    """A number with so many digits, a dash for None or NaN."""
    return "-" if value is None or math.isnan(value) else f"{value:.{digits}f}"
