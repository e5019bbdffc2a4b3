"""A row on its way in, and what becomes of it where its picture cannot be used."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import repeat
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from kinshelf.db.arrays import FloatArray
from kinshelf.db.errors import ImageRejected, InvalidEmbeddings
from kinshelf.db.product import Product, Reject
from kinshelf.store.log import records
from kinshelf.store.search import fusion

if TYPE_CHECKING:
    from kinshelf.db.product import Decisions, StoredProduct
    from kinshelf.db.sources.columns import RowFields
    from kinshelf.db.sources.readers import ReadBatch
    from kinshelf.store.ingest.pictures import Picture


@dataclass(slots=True)
class Candidate:
    """A row on its way in.

    `picture` is its main one, `pictures` are all where they are several and one can be read,
    `image_hash` their hashes with commas between. `image` and `text` are unit embeddings, None
    where missing; `carried`: they are those of the product before, and nothing is to be encoded.
    """

    product: Product
    position: int
    source: str
    row_fields: RowFields | None = None
    old: StoredProduct | None = None
    decided: Decisions = field(default_factory=dict)
    picture: Picture | None = None
    pictures: list[Picture] = field(default_factory=list)
    image: FloatArray | None = None
    text: FloatArray | None = None
    content_hash: str = ""
    image_hash: str | None = None
    image_rejected: ImageRejected | None = None
    reject: Reject | None = None
    carried: bool = False
    kept: list[str] = field(default_factory=list)
    picture_kept: bool = False

    @property
    def usable(self) -> list[Picture]:
        """The pictures whose bytes are there."""
        own = self.pictures or ([self.picture] if self.picture else [])
        return [picture for picture in own if picture.data is not None]

    @property
    def image_error(self) -> str | None:
        """Why its picture could not be used, as a short code."""
        return self.image_rejected.reason if self.image_rejected else None


def carry_over(candidate: Candidate, pairs: FloatArray) -> None:
    """Take what was computed of it before, of which nothing changed; `pairs` (2 * d,) float32."""
    old = candidate.old
    assert old
    image, text = (half[0] for half in fusion.split(pairs[None]))
    candidate.image = image if old.has_image else None
    candidate.text = text if old.has_text else None
    candidate.image_hash = old.image_hash
    if old.image_error:
        candidate.image_rejected = ImageRejected(old.image_error, "as it was")
    # Adding the source again must find the product unchanged, and so must a source that brings its
    # embeddings: the hash is made in the way that the product came in.
    supplied = (None, candidate.image, candidate.text)
    before = records.content_hash(old.product, *supplied, decided=old.decided)
    parts = supplied if old.content_hash == before else (old.image_hash,)
    candidate.content_hash = records.content_hash(
        candidate.product, *parts, decided=candidate.decided
    )


def carry_picture(candidate: Candidate) -> None:
    """Keep the picture that the shelf has of it; its embedding follows with `BatchEncoder`."""
    old = candidate.old
    assert old
    candidate.image_hash, candidate.picture_kept = old.image_hash, old.has_image
    if old.image_error:
        candidate.image_rejected = ImageRejected(old.image_error, "as it was")


def fail_image(candidate: Candidate, error: ImageRejected) -> None:
    """Keep a product whose picture cannot be used as text-only if it has text, else reject it."""
    candidate.image_rejected = error
    kept = bool(candidate.product.text)
    outcome = "kept as text-only" if kept else "rejected, as it has no text either"
    message = f"{error}; the product was {outcome}"
    candidate.reject = reject(candidate, f"image-{error.reason}", message, kept=kept)


def keep_picture(candidate: Candidate, error: ImageRejected) -> Reject:
    """Keep the picture that the shelf already has; return the reject to report."""
    assert candidate.old
    candidate.product = candidate.product.replace(image=candidate.old.product.image)
    candidate.picture, candidate.pictures = None, []
    candidate.image_hash = candidate.old.image_hash
    candidate.decided.pop("image", None)
    message = f"{error}; the picture that the shelf has of it is kept"
    return reject(candidate, "image-kept", message, kept=True)


def reject(candidate: Candidate, reason: str, message: str, *, kept: bool = False) -> Reject:
    """A reject of a row that is known by its product."""
    product = candidate.product
    named = f"{product.id}: {message}"
    return Reject(candidate.source, candidate.position, product.id, reason, named, kept)


def pairs_of(candidates: Sequence[records.Row], dimension: int) -> FloatArray:
    """The rows to store or to ask with, (n, 2 * dimension) float32; a missing half is zeros."""
    rows = np.zeros((len(candidates), 2 * dimension), dtype=np.float32)
    image, text = fusion.split(rows)
    for i, candidate in enumerate(candidates):
        if candidate.image is not None:
            image[i] = candidate.image
        if candidate.text is not None:
            text[i] = candidate.text
    return rows


def candidates(batch: ReadBatch) -> list[Candidate]:
    """A batch's products on their way in."""
    return [
        Candidate(product, position, batch.source, row_fields)
        for product, position, row_fields in zip(
            batch.products, batch.positions, batch.row_fields or repeat(None), strict=False
        )
    ]


def bring(found: list[Candidate], batch: ReadBatch) -> None:
    """Take each candidate's embeddings from its batch; one that has none is rejected."""
    for name in ("image", "text"):
        rows: FloatArray | None = getattr(batch, f"{name}_embeddings")
        if rows is not None:
            given: NDArray[np.bool_] = np.any(rows, axis=1)
            for candidate, row, there in zip(found, rows, given, strict=True):
                setattr(candidate, name, row if there else None)
    for candidate in found:
        if candidate.image is None and candidate.text is None:
            candidate.reject = reject(candidate, "no-embedding", "it has no embedding")


def width_of(batch: ReadBatch) -> int:
    """Numbers a row of a batch's embeddings. Raises InvalidEmbeddings where image and text differ
    in it."""
    given = [e for e in (batch.image_embeddings, batch.text_embeddings) if e is not None]
    if len({e.shape[1] for e in given}) != 1:
        raise InvalidEmbeddings(
            f"image embeddings have {given[0].shape[1]} numbers a row and text embeddings"
            f" {given[-1].shape[1]}: both must come from one model's projection"
        )
    return int(given[0].shape[1])
