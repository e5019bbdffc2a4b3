"""What unknown columns may be, by what stands in them: a proposal, never taken unasked."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence

from kinshelf.db.layouts.cells import PICTURE_NAME, is_markup, pictures_of
from kinshelf.db.layouts.names import key_of
from kinshelf.db.text import clean_split, parse_price

FIELDS = ("id", "image", "title", "description", "price", "category")
"""The fields that can be guessed, in this order: what is taken is not guessed again."""

_MOST, _ENOUGH = 0.8, 20
"""Share of the cells that must be of a kind, and rows below which nothing repeats by chance."""
_NAMES = {
    "id": r"\b(id|sku|code|nr|no|ref|reference|number|handle|key|artikel\w*|article)\b",
    "title": r"name|title|titel|titre|nom|nombre|titulo|bezeichnung|produkt|product|designation",
    "description": r"desc|text|detail|beschreibung|about|body|long",
    "price": r"price|preis|prix|precio|prezzo|pris|cost|mrp|amount",
    "category": r"categ|kateg|type|group|gruppe|dept|department|rubri|rayon|section|class|family",
}
_NO_CATEGORY = re.compile(
    r"colou?r|farbe|size|gr(ö|oe)sse|gender|currency|status|stock|available|availability|condition"
    r"|brand|vendor|marke|marque|country|season|year|unit|tax|rating|store|seller|material"
)
_CURRENCY = re.compile(r"[$€£¥₹]|\b(?:EUR|USD|GBP|INR|JPY|Rs)\b", re.I)
_FEW_WORDS, _LONG_TEXT = 8, 60


class _Cells:
    """The texts of a column that are not empty, and what they look like."""

    def __init__(self, name: str, texts: list[str]) -> None:
        self.name, self.texts = key_of(name), texts
        self.distinct = len(set(texts))
        self.length = sum(map(len, texts)) / max(len(texts), 1)

    def share(self, fits: Iterable[object]) -> float:
        return sum(map(bool, fits)) / max(len(self.texts), 1)

    @property
    def words(self) -> bool:
        """Text with letters, no addresses."""
        return self.share(any(map(str.isalpha, t)) and "://" not in t for t in self.texts) > _MOST

    @property
    def pictures(self) -> bool:
        named = ((pictures_of(text) or [""])[0].partition("?")[0] for text in self.texts)
        return self.share(map(PICTURE_NAME.search, named)) > _MOST

    @property
    def prices(self) -> bool:
        return self.share(map(_is_price, self.texts)) > _MOST


def guessed(
    columns: Sequence[str], rows: Sequence[Mapping[str, str]], taken: Collection[str]
) -> dict[str, str]:
    """A column for each field of `FIELDS` that none has yet; `taken` are columns and fields.

    `rows` is the beginning of a source, each cell as text.
    """
    free = {
        name: _Cells(name, texts)
        for name in columns
        if name not in taken and (texts := [text for row in rows if (text := row.get(name, ""))])
    }
    found: dict[str, str] = {}
    for field in FIELDS:
        if field in taken or (field == "title" and "text" in taken):
            continue
        fitting = [name for name, cells in free.items() if _FITS[field](cells, len(rows))]
        if fitting:
            found[field] = max(fitting, key=lambda name: _rank(field, free[name]))
            del free[found[field]]
    return found


def is_split(texts: Iterable[str]) -> bool:
    """Whether names are those of a split: train, val and test, by any of their spellings."""
    splits = {clean_split(text) for text in texts}
    return ("train", True) in splits and len(splits) > 1 and all(usual for _, usual in splits)


def _rank(field: str, cells: _Cells) -> tuple[bool, float]:
    named = field in _NAMES and re.search(_NAMES[field], cells.name) is not None
    return named, cells.length if field == "description" else 0.0


def _is_id(cells: _Cells, rows: int) -> bool:
    texts = cells.texts
    whole = len(texts) == rows == cells.distinct
    plain = all(len(t) <= 64 and not any(map(str.isspace, t)) for t in texts)
    return whole and plain and not cells.pictures


def _is_title(cells: _Cells, rows: int) -> bool:
    short = 3 <= cells.length <= 200 and not any(map(is_markup, cells.texts))
    varied = cells.distinct > cells.share(cells.texts) * len(cells.texts) / 2
    return short and varied and cells.words and len(cells.texts) > rows / 2


def _is_description(cells: _Cells, rows: int) -> bool:
    return cells.length > _LONG_TEXT and cells.words and cells.distinct > len(cells.texts) / 2


def _is_prices(cells: _Cells, rows: int) -> bool:
    named = re.search(_NAMES["price"], cells.name)
    return bool(named or cells.share(map(_CURRENCY.search, cells.texts)) > _MOST) and cells.prices


def _is_category(cells: _Cells, rows: int) -> bool:
    if _NO_CATEGORY.search(cells.name) or not cells.words or is_split(cells.texts):
        return False
    few = 2 <= cells.distinct <= len(cells.texts) / 3
    short = all(len(text.split()) <= _FEW_WORDS for text in cells.texts)
    named = re.search(_NAMES["category"], cells.name)
    return few and short and bool(named or (rows >= _ENOUGH and cells.distinct > 2))


def _is_price(text: str) -> bool:
    try:
        return parse_price(text) is not None
    except ValueError:
        return False


_FITS = {
    "id": _is_id,
    "image": lambda cells, rows: cells.pictures,
    "title": _is_title,
    "description": _is_description,
    "price": _is_prices,
    "category": _is_category,
}
