"""Names of columns in common use, and the fields that they mean."""

from __future__ import annotations

import itertools
from functools import lru_cache

from kinshelf.db.text import clean_key, normalise

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
    "category": ("category", "category name", "product category", "categories"),
    "price": ("price", "selling price", "sale price", "price inr", "price usd", "price eur"),
    "brand": ("brand", "brand name"),
    "image": (
        "image",
        "image path",
        "image url",
        "image link",
        "img",
        "picture",
        "images",
        "image urls",
        "image file",
        "image src",
        "image links",
        "picture url",
        "local path",
        "file name",
    ),
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


def key_of(column: str) -> str:
    """A column name without case, "_" and "-": "Product_Name" and "product name" are one."""
    return normalise(column.replace("_", " ").replace("-", " ")).casefold()


@lru_cache(maxsize=16384)
def attribute_name(column: str) -> str:
    """The name of the attribute that a column becomes: "source_row" of one that is named "row"."""
    name = clean_key(column) or "unnamed"
    taken = name.casefold() in OURS or key_of(name) in _VECTOR_KEYS
    return f"source_{name}" if taken else name


def amazon_description(text: str) -> str:
    """The text of "About Product" without its boilerplate opening and the bars in between."""
    text = text.strip().removeprefix(_AMAZON_BOILERPLATE)
    return " ".join(part for part in map(str.strip, text.split("|")) if part)


KNOWN_KEYS = frozenset({*itertools.chain(*ALIASES.values()), "suggested category"}) | {
    "new category"
}
"""Column names that are known, by `key_of`."""
_VECTOR_KEYS = frozenset(map(key_of, EMBEDDINGS))


def split_text(text: str) -> tuple[str, str]:
    """Title and description out of "title || description"."""
    title, _, description = text.partition(" || ")
    return title, description
