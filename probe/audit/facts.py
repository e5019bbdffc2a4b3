"""Columns in memory that the audit needs of every product, beside its vectors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import xxhash

from kinshelf.db.arrays import BoolArray, FloatArray, IntArray, ObjectArray

if TYPE_CHECKING:
    from kinshelf.db.product import StoredProduct
    from kinshelf.store.generation import AnySnapshot

_BLOCK = 4096


@dataclass(frozen=True, slots=True, eq=False)
class Facts:
    """Columns of n products by ascending row; each (n,).

    `content` numbers what picture and text are, in the order of first sight: products of the same
    picture (by the hash of its file, or its embedding where that was supplied) and the same text
    have the same number.
    """

    rows: IntArray
    ids: ObjectArray
    titles: ObjectArray
    categories: ObjectArray
    images: ObjectArray
    has_image: BoolArray
    has_text: BoolArray
    content: IntArray

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def has_both(self) -> BoolArray:
        """Which products have a picture and a text."""
        return self.has_image & self.has_text


def read_facts(snapshot: AnySnapshot) -> Facts:
    """The columns of all products of a snapshot."""
    rows = snapshot.view.rows()
    n = len(rows)
    ids, titles, categories, images = (np.empty(n, dtype=object) for _ in range(4))
    has_image, has_text = np.zeros(n, dtype=np.bool_), np.zeros(n, dtype=np.bool_)
    content = np.zeros(n, dtype=np.int64)
    seen: dict[bytes, int] = {}
    for start in range(0, n, _BLOCK):
        block = rows[start : start + _BLOCK]
        known = snapshot.view.by_rows(block)
        for i, (row, pairs) in enumerate(zip(block, snapshot.pairs(block), strict=True), start):
            stored = known[int(row)]
            product = stored.product
            ids[i], titles[i], categories[i] = product.id, product.title, stored.label
            images[i], has_image[i], has_text[i] = product.image, stored.has_image, stored.has_text
            content[i] = seen.setdefault(_content(stored, pairs), len(seen))
    return Facts(rows, ids, titles, categories, images, has_image, has_text, content)


def _content(stored: StoredProduct, pairs: FloatArray) -> bytes:
    image, text = np.split(pairs, 2)
    digest = xxhash.xxh3_128()
    digest.update(stored.image_hash.encode() if stored.image_hash else image.tobytes())
    words = " ".join(stored.product.text.casefold().split())
    digest.update(b"\0")
    digest.update(words.encode("utf-8", "surrogatepass") if words else text.tobytes())
    return digest.digest()
