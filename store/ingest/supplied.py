"""Embeddings that a user brings as `.npy` files, checked row by row and joined to the source."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from kinshelf.db.formats.source import MAX_ROW, too_long
from kinshelf.db.layouts.names import ATTRIBUTES, FIELDS, attribute_name
from kinshelf.db.product import TEXT_COLUMNS, Reject
from kinshelf.db.text import clean_category, is_kept, is_key

if TYPE_CHECKING:
    from kinshelf.db.product import Product, Scalar
    from kinshelf.db.sources.readers import ReadBatch


_ODD = ("  ", " |", "| ", "|[", "|{")
_SMALL = 10**15
_FEW = 32
_SPLITS = (None, "train", "val", "test")
_NO_CONTENT = "the product has neither text nor image: give it a title or a picture"


class SuppliedEmbeddings:
    """Row i of each array belongs to data row i of the source.

    Raises InvalidEmbeddings for a file that cannot be used, before anything is added.
    """

    def __init__(self, image: Path | None, text: Path | None, rows: int) -> None:
        from kinshelf.db.sources.embeddings import check_row_count, load_embeddings

        self._arrays = {}
        for name, path in (("image", image), ("text", text)):
            if path is not None:
                array = load_embeddings(path)
                check_row_count(array, rows, path)
                self._arrays[name] = (path, array)

    def attach(self, batches: Iterable[ReadBatch]) -> Iterator[ReadBatch]:
        """The batches with their embeddings; rows whose embedding is unusable become rejects."""
        for batch in batches:
            self._attach(batch)
            yield batch

    def _attach(self, batch: ReadBatch) -> None:
        from kinshelf.db.sources.embeddings import clean_rows

        problems: dict[int, Reject] = {}
        for name, (path, array) in self._arrays.items():
            rows, bad = clean_rows(np.asarray(array[batch.positions]))
            setattr(batch, f"{name}_embeddings", rows)
            for place, reason, message in bad:
                problems.setdefault(place, _reject(batch, place, reason, f"{message} ({path})"))
        _leave_out(batch, problems)


def checked_products(batches: Iterable[ReadBatch]) -> Iterator[ReadBatch]:
    """Batches of products that no reader has cleaned, as a file of the same would give them.

    What cannot be kept becomes a reject.
    """
    from kinshelf.db.sources.columns import product_plan

    plan = product_plan()
    for batch in batches:
        supplied = batch.image_embeddings is not None or batch.text_embeddings is not None
        problems: dict[int, Reject] = {}
        for place, product in enumerate(batch.products):
            if _is_plain(product):  # nearly always
                continue
            if problem := _not_kept(product):
                problems[place] = _reject(batch, place, *problem)
                continue
            row = {name: getattr(product, name) for name in FIELDS}
            clean, notes = plan.product(row | {ATTRIBUTES: product.attributes})
            batch.products[place] = clean
            batch.rejects += [_reject(batch, place, *note, kept=True) for note in notes]
            if not (clean.title or clean.description or clean.image or supplied):
                problems[place] = _reject(batch, place, "no-content", _NO_CONTENT)
        _leave_out(batch, problems)
        yield batch


def _is_plain(product: Product) -> bool:
    """Whether a product is beyond doubt as a file would give it, text and all."""
    category, image = product.category, product.image or "/x"
    texts = (product.id, product.title, product.description or "x", product.brand or "x", image)
    return (
        all(texts)
        and _is_plain_text("|".join(texts))
        and sum(map(len, texts)) + len(category or "") < MAX_ROW // 4
        and len(product.attributes) <= _FEW
        and image[0] == "/" and "//" not in image and "/." not in image and image[-1] != "/"
        and (category is None or (clean_category(category) == category and category[0] != "["))
        and (product.price is None or 0 <= product.price < math.inf)
        and product.split in _SPLITS
        and all(map(_is_plain_attribute, product.attributes.items()))
    )  # fmt: skip


def _is_plain_text(text: str) -> bool:
    """ASCII without odd blanks, and no list: several texts may be joined by "|"."""
    return (
        text.isascii() and text.isprintable() and text[0] not in " [{" and text[-1] != " "
        and not any(map(text.__contains__, _ODD))
    )  # fmt: skip


def _is_plain_attribute(attribute: tuple[str, Scalar]) -> bool:
    name, value = attribute
    if type(value) is str:
        plain = bool(value) and len(value) < MAX_ROW // 64 and _is_plain_text(value)
    else:
        plain = type(value) is bool or (type(value) is int and abs(value) < _SMALL)
    return plain and attribute_name(name) == name


def _not_kept(product: Product) -> tuple[str, str] | None:
    """Code and message of what no catalogue can hold."""
    if not product.id.strip():
        return "missing-id", "the product has no id: give it a unique one"
    if (size := _characters(product)) > MAX_ROW:
        return "too-long", too_long(size)
    name = "id" if not is_key(product.id) else _bad_text(product)
    message = "holds control characters or a lone surrogate: take them out"
    return ("bad-text", f"its {name} {message}") if name else None


def _characters(product: Product) -> int:
    texts = [getattr(product, name) or "" for name in TEXT_COLUMNS]
    return sum(map(len, texts)) + sum(
        len(value) for value in product.attributes.values() if isinstance(value, str)
    )


def _bad_text(product: Product) -> str | None:
    """The first field whose text no catalogue can hold."""
    texts = [(name, getattr(product, name) or "") for name in TEXT_COLUMNS]
    for name, value in product.attributes.items():
        texts.append(("attributes", name))
        if isinstance(value, str):
            texts.append(("attributes", value))
    if is_kept("".join([text for _, text in texts])):  # nearly always, and quickly checked
        return None
    return next(name for name, text in texts if not is_kept(text))


def checked_columns(batches: Iterable[ReadBatch]) -> Iterator[ReadBatch]:
    """Batches whose source holds embeddings itself, each row checked; a row of zeros is missing."""
    for batch in batches:
        problems: dict[int, Reject] = {}
        for name in ("image_embeddings", "text_embeddings"):
            rows = getattr(batch, name)
            if rows is not None:
                from kinshelf.db.sources.embeddings import clean_rows

                clean, bad = clean_rows(rows)
                setattr(batch, name, clean)
                for place, reason, message in bad:
                    if reason != "zero-embedding":
                        problems.setdefault(place, _reject(batch, place, reason, message))
        _leave_out(batch, problems)
        yield batch


def _leave_out(batch: ReadBatch, problems: dict[int, Reject]) -> None:
    if not problems:
        return
    batch.rejects.extend(problems[place] for place in sorted(problems))
    kept = [i for i in range(len(batch.products)) if i not in problems]
    batch.products = [batch.products[i] for i in kept]
    batch.positions = [batch.positions[i] for i in kept]
    if batch.row_fields is not None:
        batch.row_fields = [batch.row_fields[i] for i in kept]
    for name in ("image_embeddings", "text_embeddings"):
        rows = getattr(batch, name)
        if rows is not None:
            setattr(batch, name, rows[kept])


def _reject(
    batch: ReadBatch, place: int, reason: str, message: str, *, kept: bool = False
) -> Reject:
    name = batch.products[place].id
    known = name if is_kept(name) else None
    return Reject(batch.source, batch.positions[place], known, reason, message, kept)
