"""Products that tests put on every kind of shelf, with embeddings that tell the category."""

from __future__ import annotations

import numpy as np
from conftest import unit

from kinshelf.db.product import Product
from kinshelf.probe.fit.settings import ProbeSettings
from kinshelf.store.base import AnyShelf

DIMENSION = 8
CATEGORIES = ["Toys | Puzzles", "Toys | Dolls", "Books"]
SETTINGS = ProbeSettings(epochs=8, hidden=16)


def products(count: int, seed: int = 0) -> tuple[list[Product], np.ndarray, np.ndarray]:
    """Products of three categories, some of none, whose embeddings tell the category."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(99).standard_normal((4, 2 * DIMENSION))
    made, rows = [], []
    for i in range(count):
        kind = i % 4
        made.append(
            Product(
                f"p{i}", title=f"Thing nr {i}", description="of wood" if i % 2 else "",
                category=CATEGORIES[kind] if kind < 3 else None,
                price=None if i % 5 == 0 else i / 4, brand="O'Neill" if i % 3 else None,
                split="val" if i % 10 == 9 else None,
                attributes={"colour": ["red", "blue"][i % 2], "stock": i, "new": i % 6 == 0}
                if i % 7 else {},
            )
        )  # fmt: skip
        rows.append(centres[kind] + 0.7 * rng.standard_normal(2 * DIMENSION))
    image, text = np.split(np.array(rows, dtype=np.float32), 2, axis=1)
    image, text = unit(image), unit(text)
    image[3::11] = 0
    text[4::11] = 0
    return made, image, text


def fill(shelf: AnyShelf, count: int, seed: int = 0) -> tuple[list[Product], np.ndarray]:
    made, image, text = products(count, seed)
    report = shelf.upsert(made, image, text)
    assert (report.inserted, report.rejected) == (count, 0)
    return made, np.hstack([image, text])


def similarities(queries: np.ndarray, pairs: np.ndarray, weight_image: float = 0.5) -> np.ndarray:
    """The definition, (n, rows) in float64: the weighted mean of the cosines of the modalities
    that query and product both have, 0 where they share none."""
    total = shared = np.zeros((len(queries), len(pairs)))
    half = queries.shape[1] // 2
    for side, weight in ((slice(half), weight_image), (slice(half, None), 1 - weight_image)):
        one, other = queries[:, side].astype(np.float64), pairs[:, side]
        both = weight * np.outer(one.any(axis=1), other.any(axis=1))
        total, shared = total + both * (one @ other.T), shared + both
    return np.divide(total, shared, out=np.zeros_like(total), where=shared > 0)
