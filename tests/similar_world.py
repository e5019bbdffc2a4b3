"""Products whose pictures and texts lie in one space, and what `similar` answers by plain NumPy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from conftest import FakeEncoder, unit

import kinshelf as ks

DIMENSION, COUNT = 16, 60


class Words(FakeEncoder):
    """Embeds the text "about 7" where product 7 lies, and "q3" as the third of its queries."""

    def __init__(self, texts: dict[str, np.ndarray]) -> None:
        super().__init__(dimension=DIMENSION)
        self.known = texts

    def encode_texts(self, texts: Any) -> np.ndarray:
        return np.stack([self.known[text] for text in texts])


def halves(seed: int = 0, count: int = COUNT) -> tuple[np.ndarray, np.ndarray]:
    """Pictures and texts, (count, 16) each: alike for one product, apart as a whole, as CLIP's."""
    random = np.random.default_rng(seed)
    thing = random.standard_normal((count, DIMENSION))
    apart = np.zeros(DIMENSION)
    apart[:2] = (3, -3)

    def seen(side: int) -> np.ndarray:
        return unit(thing + 0.6 * random.standard_normal(thing.shape) + side * apart)

    return seen(1), seen(-1)


def products(count: int = COUNT) -> list[ks.Product]:
    return [
        ks.Product(
            f"p{i}", title=f"thing {i}", category=f"c{i % 4}", price=float(i), brand=f"b{i % 7}",
            attributes={"size": i % 3} if i % 5 else {},
        )
        for i in range(count)
    ]  # fmt: skip


def filled_directory(path: Path, image: np.ndarray, text: np.ndarray) -> Any:
    """A shelf of those products; "q0" and on are texts to ask for."""
    return filled(ks.create(path, encoder="fake"), image, text)


def filled(shelf: Any, image: np.ndarray, text: np.ndarray) -> Any:
    """The same, of a shelf wherever it lies."""
    asked = unit(np.random.default_rng(9).standard_normal((5, DIMENSION)) + text[:5])
    shelf.use_encoder(Words({f"q{i}": row for i, row in enumerate(asked)}))
    shelf.upsert(products(len(image)), image, text)
    return shelf


def plain(query: np.ndarray, pairs: np.ndarray, weight: float = 0.5) -> np.ndarray:
    """The weighted mean of the cosines that query and products share, 0 where none."""
    found = []
    for pair in pairs:
        parts = [
            (w, float(q @ p))
            for w, q, p in zip(
                (weight, 1 - weight), np.split(query, 2), np.split(pair, 2), strict=True
            )
            if q.any() and p.any()
        ]
        total = sum(w for w, _ in parts)
        found.append(sum(w * s for w, s in parts) / total if total else 0.0)
    return np.array(found)


def of_words(query: np.ndarray, image: np.ndarray, text: np.ndarray, weight: float) -> np.ndarray:
    """The scores of a text against pictures and texts, as `store.similar.cross` states them."""
    pictured = [i for i in range(len(image)) if image[i].any()]
    titled = [i for i in range(len(text)) if text[i].any()]
    lowered = {}
    for i in pictured:
        near = sorted((float(image[i] @ text[j]) for j in titled if j != i), reverse=True)
        lowered[i] = float(image[i] @ query) - np.mean(near[:10]) / 2
    own = {j: float(text[j] @ query) for j in titled}
    mean, width = np.mean(list(lowered.values())), np.std(list(lowered.values()))
    scores = np.zeros(len(image))
    for i in range(len(image)):
        parts = [(1 - weight, own[i])] if i in own else []
        if i in lowered:
            scale = np.std(list(own.values())) / width
            parts.append((weight, np.mean(list(own.values())) + (lowered[i] - mean) * scale))
        total = sum(w for w, _ in parts)
        scores[i] = sum(w * s for w, s in parts) / total if total else 0
    return scores
