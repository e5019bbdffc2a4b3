"""Mapping columns to fields: names in common use, and layouts known by their header."""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from kinshelf.db.text import clean_key, normalise

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

FIELDS = ("id", "title", "description", "category", "price", "brand", "image", "split")
"""The columns that a product has of its own; every other column is an attribute."""

TEXT = "text"
"""A column that holds title and description in one, joined by " || "."""

ATTRIBUTES = "attributes"
"""The column in which `export` writes all attributes as one JSON object."""

EMBEDDINGS = ("image_embedding", "text_embedding")
"""Columns of vectors."""

OURS = frozenset(
    (
        *FIELDS,
        ATTRIBUTES,
        "row",
        "added",
        "has_image",
        "has_text",
        "image_error",
        "decided",
        "category_source",
    )
)
"""Names that a filter knows already, or by which a file is read: no attribute can have one."""

ALIASES: dict[str, tuple[str, ...]] = {
    "id": ("id", "product id", "uniq id", "item id", "sku", "asin"),
    "title": ("title", "name", "product name", "product title", "item name"),
    "description": ("description", "product description", "about product"),
    "category": ("category", "category name", "product category"),
    "price": ("price", "selling price"),
    "brand": ("brand", "brand name"),
    "image": ("image", "image path", "image url", "image link", "img", "picture"),
    "split": ("split",),
    "text": ("text",),
    "image_embedding": ("image embedding",),
    "text_embedding": ("text embedding",),
}
"""For each field the column names that mean it, the first one found wins; see `key_of`.

They cover a catalogue of our own `export` and the coursework's processed file
(`uniq_id,image_path,text,label,category_name,split`).
"""

_AMAZON_BOILERPLATE = "Make sure this fits by entering your model number."


@dataclass(frozen=True, slots=True)
class Layout:
    """A published file format that the aliases alone would misread."""

    name: str
    signature: frozenset[str]
    columns: Mapping[str, str]


AMAZON_2020 = Layout(
    "amazon-2020",
    frozenset({"uniq id", "product name", "about product"}),
    {
        "id": "uniq id",
        "title": "product name",
        # "Product Description" is there too, and empty; "List Price" likewise.
        "description": "about product",
        "category": "category",
        "price": "selling price",
        "brand": "brand name",
        "image": "image",
    },
)
"""The raw file of "Amazon Product Dataset 2020", 28 columns."""


def key_of(column: str) -> str:
    """A column name without case, "_" and "-": "Product_Name" and "product name" are one."""
    return normalise(column.replace("_", " ").replace("-", " ")).casefold()


@lru_cache(maxsize=16384)
def attribute_name(column: str) -> str:
    """The name of the attribute that a column becomes: "source_row" of one that is named "row"."""
    name = clean_key(column) or "unnamed"
    taken = name.casefold() in OURS or key_of(name) in _VECTOR_KEYS
    return f"source_{name}" if taken else name


def layout_of(columns: Iterable[str]) -> Layout | None:
    """The known layout whose signature the header holds."""
    keys = {key_of(column) for column in columns}
    return AMAZON_2020 if keys >= AMAZON_2020.signature else None


def amazon_description(text: str) -> str:
    """The text of "About Product" without its boilerplate opening and the bars in between."""
    text = text.strip().removeprefix(_AMAZON_BOILERPLATE)
    return " ".join(part for part in map(str.strip, text.split("|")) if part)


KNOWN_KEYS = frozenset(
    {*itertools.chain(*ALIASES.values()), *AMAZON_2020.signature, "suggested category"}
) | {"new category"}
"""Column names that are known, by `key_of`."""
_VECTOR_KEYS = frozenset(map(key_of, EMBEDDINGS))
_BETWEEN_URLS = re.compile(r"\||\s*[,;]\s*(?=https?://)")


def first_image(value: str) -> str:
    """The first picture of a list of URLs that is no placeholder, "" for none.

    URLs are distinguished by "|", or by a comma where another URL follows it.
    """
    if not value.startswith(("http://", "https://")):
        return value
    candidates = (part.strip() for part in _BETWEEN_URLS.split(value))
    return next((part for part in candidates if part and "transparent-pixel" not in part), "")


def split_text(text: str) -> tuple[str, str]:
    """Title and description out of "title || description"."""
    title, _, description = text.partition(" || ")
    return title, description
