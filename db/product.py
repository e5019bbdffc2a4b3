"""The words of the catalogue as dataclasses: a product, a rejected row."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from dataclasses import dataclass, field
from typing import Any, Literal

from kinshelf.db.text import normalise

Scalar = str | int | float | bool | None
"""What an attribute may hold."""

LONGEST_TEXT = 4000
"""Characters of a title or description that are encoded: CLIP reads 77 tokens of at most 32."""

Decisions = dict[str, dict[str, Any]]
"""Values that do not come from the product's source, by field; an attribute's name begins with
"attributes.".

`source` is what the source states instead. With `predicted` (probe, probability, policy and
generation) a probe set the value, without it a person; `disputed`: the source states that only
since the person decided.
"""
PREDICTED = "predicted"
GONE = "gone"
"""The attribute of a product that its source no longer has."""
Origin = Literal["feed", "person", "predicted"]
"""Who set a value: the product's source, a person, a probe."""

FIRST, MEAN = "first", "mean"
POOLINGS = (FIRST, MEAN)
"""What the image half of a product with several pictures is: that of the first, or their mean."""

TEXT_COLUMNS = ("id", "title", "description", "category", "brand", "image", "split")


@dataclass(frozen=True, slots=True)
class Product:
    """A row of a catalogue, its text as the source has it (see `db.text.clean`).

    `image` is an absolute local path or an http(s) URL as the source named it; None: no image.
    `category` None means "not categorised yet", never the text "nan".
    """

    id: str
    title: str = ""
    description: str = ""
    category: str | None = None
    price: float | None = None
    brand: str | None = None
    image: str | None = None
    split: str | None = None
    attributes: dict[str, Scalar] = field(default_factory=dict)

    @property
    def text(self) -> str:
        """The text tower's input: title and description joined by " || ", in NFKC, cut.

        What lies beyond `LONGEST_TEXT` characters of either is not read: no encoder's window
        reaches that far, and tokenising megabytes takes gigabytes.
        """
        parts = (normalise(part[:LONGEST_TEXT]) for part in (self.title, self.description))
        return " || ".join(part for part in parts if part)

    def replace(self, **changes: object) -> Product:
        """A copy with some fields changed."""
        return dataclasses.replace(self, **changes)  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True)
class Reject:
    """A row that was not taken, or was taken without its image (`kept=True`), and why.

    `reason` is a short stable code (`duplicate-id`, `no-content`, `image-truncated`, ...);
    `message` carries the value and the remedy; `position` counts the source's data rows from 0.
    """

    source: str
    position: int
    id: str | None
    reason: str
    message: str
    kept: bool = False


@dataclass(frozen=True, slots=True)
class StoredProduct:
    """A product as the shelf keeps it; `row` is its number, `added` the generation it came in.

    `decided` are the fields whose value is not that of the product's source.
    """

    product: Product
    row: int
    has_image: bool
    has_text: bool
    image_hash: str | None
    image_error: str | None
    content_hash: str
    added: int
    decided: Decisions = field(default_factory=dict)

    @property
    def picture_hashes(self) -> list[str]:
        """Content hashes of its embedded pictures in order, "" for one that could not be read."""
        return self.image_hash.split(",") if self.image_hash else []

    def origin(self, name: str) -> Origin | None:
        """Who set a field (an attribute: "attributes.NAME"), None where it never had a value."""
        if (decision := self.decided.get(name)) is not None:
            return "predicted" if PREDICTED in decision else "person"
        attributes = {f"attributes.{key}": v for key, v in self.product.attributes.items()}
        value = attributes[name] if name in attributes else getattr(self.product, name, None)
        return None if value in (None, "") else "feed"

    @property
    def label(self) -> str | None:
        """The category to learn from: None where a probe predicted it."""
        decision = self.decided.get("category")
        return None if decision and PREDICTED in decision else self.product.category

    def as_dict(self) -> dict[str, Any]:
        """For `--json`."""
        names = (*TEXT_COLUMNS[:4], "price", *TEXT_COLUMNS[4:])
        product = {name: getattr(self.product, name) for name in names}
        rest = ("row", "has_image", "has_text", "image_error", "added", "decided")
        return (
            product
            | {"attributes": self.product.attributes}
            | {name: getattr(self, name) for name in rest}
            | {"category_source": self.origin("category")}
        )


def pooled_by(fingerprint: str, pictures: str) -> str:
    """A fingerprint that names how several pictures become one half, where not by the first's."""
    return fingerprint if pictures == FIRST else f"{fingerprint}+{pictures}"


def with_pictures(product: Product, pictures: list[str]) -> Product:
    """The product with other pictures, the main one first."""
    attributes = dict(product.attributes)
    if len(pictures_of(product)) > 1:
        del attributes["images"]
    if len(pictures) > 1:
        attributes["images"] = json.dumps(pictures, ensure_ascii=False)
    return product.replace(image=pictures[0] if pictures else None, attributes=attributes)


def pictures_of(product: Product) -> list[str]:
    """All pictures of a product, the main one first; of several the attribute `images` is the list.

    >>> pictures_of(Product("1", image="a.jpg", attributes={"images": '["a.jpg", "b.jpg"]'}))
    ['a.jpg', 'b.jpg']
    """
    stated = product.attributes.get("images")
    listed: object = None
    if isinstance(stated, str) and stated.startswith("["):
        with contextlib.suppress(ValueError, RecursionError):
            listed = json.loads(stated)
    members = listed if isinstance(listed, list) else []
    found = [product.image, *(one for one in members if isinstance(one, str))]
    return list(dict.fromkeys(one for one in found if one))
