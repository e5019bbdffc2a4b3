"""What of a row on its way in is as the shelf has it: all, its texts and picture, its picture."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from kinshelf.store.ingest.candidate import Candidate, reject

if TYPE_CHECKING:
    from kinshelf.db.errors import ImageRejected

CONTENT = frozenset({"title", "description", "image"})
"""The fields that are encoded."""


def only_moved(candidate: Candidate, error: ImageRejected) -> bool:
    """Whether a file is not there whose picture the shelf has, wherever it lay then."""
    old, image = candidate.old, candidate.product.image
    if error.reason != "missing-file" or old is None or not (old.has_image and old.image_hash):
        return False
    return Path(old.product.image or "").name == Path(image or "").name


def same_content(candidate: Candidate) -> bool:
    """Whether its row brings nothing that is encoded: no text, no picture."""
    fields = candidate.row_fields
    return candidate.old is not None and fields is not None and not CONTENT & fields.fields


def keeps_picture(candidate: Candidate) -> bool:
    """Whether its row brings no picture, so that the shelf's stays."""
    fields = candidate.row_fields
    return candidate.old is not None and fields is not None and "image" not in fields.fields


def with_content(wanted: list[Candidate]) -> list[Candidate]:
    """Those with a text or a picture; the others are rejected."""
    for c in wanted:
        old = c.old
        stored = old is not None and (
            (keeps_picture(c) and old.has_image) or (same_content(c) and old.has_text)
        )
        if not (c.product.text or c.product.image or stored):
            missing = "" if c.old else ", and the shelf has no product of this id"
            c.reject = reject(
                c, "no-content",
                f"the row has neither text nor image{missing}: give it a title or a picture",
            )  # fmt: skip
    return [c for c in wanted if not c.reject]


def changed_among(candidates: list[Candidate]) -> list[Candidate]:
    """Those that differ from what the shelf has."""
    return [c for c in candidates if c.old is None or c.old.content_hash != c.content_hash]


def may_be_read_now(candidate: Candidate) -> bool:
    """Whether it is as it was, but for a picture that another limit or decoder may read by now."""
    old = candidate.old
    if old is None or old.content_hash != candidate.content_hash:
        return False
    return old.image_error is not None and candidate.image_hash is not None
