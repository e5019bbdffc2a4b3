"""Rows of a source put together into batches of products, with every row that was refused."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from kinshelf.db.formats.source import BadRow, MendedRow
from kinshelf.db.layouts.names import EMBEDDINGS
from kinshelf.db.product import Product, Reject, pictures_of
from kinshelf.db.sources.columns import Note
from kinshelf.db.sources.seen import SeenIds
from kinshelf.db.sources.values import embedding_of, text_of

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from kinshelf.db.sources.columns import ColumnPlan, RowFields

    FloatArray = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """Options for reading a source.

    `mapping` is {field: column or template}; `images` the folder of relative image paths (None: the
    source's own), `image_by_id` that of pictures named by ids; `batch_size` counts rows;
    `delimiter`, `encoding`, `skip_rows` and `sheet` None mean what the file shows.
    `require_content=False` takes products with neither text nor image: their embeddings come from
    elsewhere. With `updates` a row without them may be that of a known product, which the caller
    knows.
    """

    mapping: Mapping[str, str] = field(default_factory=dict)
    images: Path | None = None
    batch_size: int = 1024
    delimiter: str | None = None
    require_content: bool = True
    encoding: str | None = None
    updates: bool = False
    skip_rows: int | None = None
    sheet: str | None = None
    image_by_id: Path | None = None


@dataclass(slots=True)
class ReadBatch:
    """Consecutive rows of a source, the good ones as products.

    `positions[i]` is the data row, counted from 0, of `products[i]`: row `positions[i]` of an
    embedding file belongs to it. The embeddings are (len(products), d) float32 as the source's
    own columns hold them, neither checked nor normalised; an all-zero row is a missing one, None
    means that there is no such column (or nothing in it so far). `row_fields` are the fields that
    each product's row has, None: all.
    """

    source: str
    products: list[Product]
    positions: list[int]
    rejects: list[Reject]
    image_embeddings: FloatArray | None = None
    text_embeddings: FloatArray | None = None
    row_fields: list[RowFields | None] | None = None


_LARGE = 2**25
"""Characters of a batch, which ends earlier then."""


@dataclass(slots=True)
class _Candidate:
    """A row that is a product unless its id was there before."""

    position: int
    product: Product
    notes: list[Note]
    vectors: list[FloatArray | None]
    row_fields: RowFields


class Assembler:
    """Collects the rows of one source; keeps the ids and the dimensions seen in earlier batches.

    Reasons for a reject: `malformed-row`, `missing-id`, `no-content`, `bad-embedding` and
    `duplicate-id` (the first of an id wins); with the product kept: `bad-price`
    and `unknown-split`.
    """

    def __init__(self, source: str, plan: ColumnPlan, *, require_content: bool = True) -> None:
        self._source = source
        self._plan = plan
        self._require_content = require_content
        self._seen = SeenIds()
        self._dimensions: dict[str, int] = {}
        self._candidates: list[_Candidate] = []
        self._rejects: list[Reject] = []
        self._size = 0

    def __len__(self) -> int:
        """Rows taken since the last batch."""
        return len(self._candidates) + len(self._rejects)

    @property
    def is_large(self) -> bool:
        """Whether the texts of the rows taken since the last batch are many megabytes."""
        return self._size > _LARGE

    def take(self, position: int, row: Mapping[str, object] | BadRow) -> None:
        """Add data row `position`."""
        if isinstance(row, BadRow):
            self._reject(position, None, row.reason, row.message, kept=row.expected)
            return
        if not self._plan.from_text and not row.keys() <= self._plan.known:
            self._plan = self._plan.extended(row)
        product, notes = self._plan.product(row)
        if isinstance(row, MendedRow):
            notes.append(Note(row.reason, row.message))
        try:
            vectors = self._vectors(row)
        except ValueError as problem:
            self._reject(position, product.id, "bad-embedding", str(problem))
            return
        if self._is_further_picture(position, product, vectors):
            return
        if self._usable(position, product, vectors):
            self._size += len(product.title) + len(product.description)
            self._size += sum(len(v) for v in product.attributes.values() if type(v) is str)
            self._candidates.append(
                _Candidate(position, product, notes, vectors, self._plan.fields_in(row))
            )

    def batch(self) -> ReadBatch:
        """The rows taken since the last batch."""
        kept = self._without_duplicates()
        for one in kept:
            for note in one.notes:
                self._reject(one.position, one.product.id, note.reason, note.message, kept=True)
        image, text = (self._stacked(place, kept) for place in range(len(EMBEDDINGS)))
        batch = ReadBatch(
            self._source,
            [one.product for one in kept],
            [one.position for one in kept],
            sorted(self._rejects, key=lambda reject: reject.position),
            image,
            text,
            row_fields=[one.row_fields for one in kept],
        )
        self._candidates, self._rejects, self._size = [], [], 0
        return batch

    def continues(self, row: Mapping[str, object] | BadRow) -> bool:
        """Whether a row has the id of the one before, so that a batch cannot end between them."""
        if isinstance(row, BadRow) or not self._candidates:
            return False
        return text_of(row.get(self._plan.fields.get("id", ""))) == self._candidates[-1].product.id

    def _is_further_picture(
        self, position: int, product: Product, vectors: list[FloatArray | None]
    ) -> bool:
        """Take a row that has but another picture of the product before it as that picture."""
        last = self._candidates[-1] if self._candidates else None
        if last is None or last.product.id != product.id or not product.image or any(vectors):
            return False
        whole = last.product
        listed = pictures_of(whole)
        bare = {n: v for n, v in whole.attributes.items() if n != "images"}
        if whole.replace(image=None, attributes=bare) != product.replace(image=None):
            return False
        if product.image in listed:
            return False
        images = json.dumps([*listed, product.image], ensure_ascii=False)
        last.product = whole.replace(attributes=bare | {"images": images})
        message = f"row {position} is another picture of {product.id!r}"
        self._reject(position, product.id, "further-picture", message, kept=True)
        return True

    def _usable(self, position: int, product: Product, vectors: list[FloatArray | None]) -> bool:
        if not product.id:
            self._reject(position, None, "missing-id", "the row has no id: give it a unique one")
            return False
        if product.title or product.description or product.image or not self._require_content:
            return True
        if any(vector is not None for vector in vectors):
            return True
        message = "the row has neither text nor image: give it a title or a picture"
        self._reject(position, product.id, "no-content", message)
        return False

    def _without_duplicates(self) -> list[_Candidate]:
        ids = [one.product.id for one in self._candidates]
        firsts = self._seen.claim(ids, [one.position for one in self._candidates])
        kept = []
        for one, first in zip(self._candidates, firsts, strict=True):
            if first is None:
                kept.append(one)
            else:
                message = f"the id {one.product.id!r} is that of row {first} already, which is kept"
                self._reject(one.position, one.product.id, "duplicate-id", message)
        return kept

    def _vectors(self, row: Mapping[str, object]) -> list[FloatArray | None]:
        if self._plan.fields.keys().isdisjoint(EMBEDDINGS):
            return []
        return [self._vector(name, row) for name in EMBEDDINGS]

    def _vector(self, name: str, row: Mapping[str, object]) -> FloatArray | None:
        column = self._plan.fields.get(name)
        if column is None:
            return None
        try:
            vector = embedding_of(row.get(column))
        except ValueError as problem:
            raise ValueError(f"{column}: {problem}") from problem
        if vector is None:
            return None
        expected = self._dimensions.setdefault(name, len(vector))
        if len(vector) != expected:
            raise ValueError(f"{column} has {len(vector)} numbers, the rows before it {expected}")
        return vector

    def _stacked(self, place: int, kept: list[_Candidate]) -> FloatArray | None:
        dimension = self._dimensions.get(EMBEDDINGS[place])
        if dimension is None:
            return None
        block = np.zeros((len(kept), dimension), np.float32)
        for target, one in zip(block, kept, strict=True):
            vector = one.vectors[place]
            if vector is not None:
                target[:] = vector
        return block

    def _reject(
        self, position: int, name: str | None, reason: str, message: str, *, kept: bool = False
    ) -> None:
        self._rejects.append(Reject(self._source, position, name or None, reason, message, kept))
