"""A row on its way in, and what becomes of it where its picture cannot be used."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from kinshelf.db.arrays import FloatArray
from kinshelf.db.errors import ImageRejected
from kinshelf.db.product import Product, Reject
from kinshelf.store.log import records
from kinshelf.store.search import fusion

if TYPE_CHECKING:
    from kinshelf.db.product import Decisions, StoredProduct
    from kinshelf.db.sources.columns import RowFields
    from kinshelf.store.ingest.pictures import Picture


@dataclass(slots=True)
class Candidate:
    """A row on its way in. `image` and `text` are unit embeddings, None where missing; `carried`:
    they are those of the product before, and nothing is to be encoded."""

    product: Product
    position: int
    source: str
    row_fields: RowFields | None = None
    old: StoredProduct | None = None
    decided: Decisions = field(default_factory=dict)
    picture: Picture | None = None
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
