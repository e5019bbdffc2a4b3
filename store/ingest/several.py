"""All pictures of a product: read under one limit, each embedded once, put together as one half."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from kinshelf.db.arrays import FloatArray
from kinshelf.db.product import FIRST, pictures_of
from kinshelf.store.ingest.candidate import reject

if TYPE_CHECKING:
    from kinshelf.db.errors import ImageRejected
    from kinshelf.db.product import Product
    from kinshelf.store.ingest.candidate import Candidate
    from kinshelf.store.ingest.pictures import Picture

MOST = 16
"""Pictures of a product that are embedded; further ones are listed. A batch's bytes are in memory,
and shops show fewer (Amazon 9, Etsy 10, Google Merchant 11), but for Shopify's 250."""

Read = Callable[[list[str]], "Sequence[Picture | None]"]


def named(product: Product, pooling: str) -> list[str]:
    """The pictures that are embedded: the first alone, or all."""
    if pooling == FIRST:
        return [product.image] if product.image else []
    return pictures_of(product)[:MOST]


def attach(candidates: Sequence[Candidate], pooling: str, read: Read) -> None:
    """Give each candidate its pictures, which `read` reads for all at once."""
    names = [named(candidate.product, pooling) for candidate in candidates]
    found = iter(read([name for own in names for name in own]))
    for candidate, own in zip(candidates, names, strict=True):
        _take(candidate, [picture for _, picture in zip(own, found, strict=False) if picture])


def _take(candidate: Candidate, pictures: list[Picture]) -> None:
    """Of several, those that can be read; where none can, the first with its error."""
    good = [picture for picture in pictures if picture.error is None]
    candidate.picture = next(iter(good or pictures), None)
    candidate.pictures = pictures if len(pictures) > 1 and good else []
    hashes = [picture.content_hash or "" for picture in pictures]
    candidate.image_hash = ",".join(hashes) if good else None
    for number, picture in enumerate(pictures, start=1):
        if good and picture.error:
            lose_one(candidate, picture.error, number)


def lose_one(candidate: Candidate, error: ImageRejected, number: int) -> None:
    """Report a picture that cannot be used of a product that has others."""
    message = f"{error}; it is picture {number} of {len(candidate.pictures)}, the others are used"
    reason = f"image-{error.reason}"
    candidate.reject = candidate.reject or reject(candidate, reason, message, kept=True)


def pooled(rows: Sequence[FloatArray]) -> FloatArray:
    """The normalised mean of unit embeddings, (d,) float32; of one that itself, to the bit.

    >>> pooled([np.array([1, 0], np.float32), np.array([0, 1], np.float32)]).round(3).tolist()
    [0.7070000171661377, 0.7070000171661377]
    """
    if len(rows) == 1:
        return rows[0]
    mean = np.mean(np.asarray(rows, dtype=np.float64), axis=0)
    length = np.linalg.norm(mean)
    # Opposite pictures cancel each other: then the first stands for the product.
    return rows[0] if length < 1e-6 else (mean / length).astype(np.float32)
