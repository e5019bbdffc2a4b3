"""A row on its way in, and what becomes of it where its picture cannot be used."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from kinshelf.db.arrays import FloatArray
from kinshelf.db.errors import ImageRejected
from kinshelf.db.product import Product, Reject

if TYPE_CHECKING:
    from kinshelf.db.product import StoredProduct
    from kinshelf.store.ingest.pictures import Picture


@dataclass(slots=True)
class Candidate:
    """A row on its way in. `image` and `text` are unit embeddings, None where missing."""

    product: Product
    position: int
    source: str
    old: StoredProduct | None = None
    picture: Picture | None = None
    image: FloatArray | None = None
    text: FloatArray | None = None
    content_hash: str = ""
    image_hash: str | None = None
    image_rejected: ImageRejected | None = None
    reject: Reject | None = None

    @property
    def image_error(self) -> str | None:
        """Why its picture could not be used, as a short code."""
        return self.image_rejected.reason if self.image_rejected else None


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
    message = f"{error}; the picture that the shelf has of it is kept"
    return reject(candidate, "image-kept", message, kept=True)


def reject(candidate: Candidate, reason: str, message: str, *, kept: bool = False) -> Reject:
    """A reject of a row that is known by its product."""
    product = candidate.product
    named = f"{product.id}: {message}"
    return Reject(candidate.source, candidate.position, product.id, reason, named, kept)
