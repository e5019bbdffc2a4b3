"""The labelled embeddings that benchmarks run on: real products, handwritten digits, a mixture."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kinshelf.db.arrays import Float64Array, FloatArray, IntArray

SHARED = Path(__file__).resolve().parents[2] / "shared"
DATA = SHARED / "amazon2020" / "embeddings"


def check_there(directory: Path) -> None:
    """Exits with an error where the embeddings that were asked for are not: never other ones."""
    if not (directory / "products.csv").exists():
        raise SystemExit(f"no embeddings at {directory}: put them there, or ask for other data")


@dataclass(frozen=True)
class Catalogue:
    """Fused embeddings (n, D) float32, class codes (n,) and names."""

    X: FloatArray
    y: IntArray
    classes: tuple[str, ...]

    @property
    def names(self) -> NDArray[np.str_]:
        """Each row's category."""
        return np.array(self.classes)[self.y]

    def take(self, rows: NDArray[np.integer]) -> Catalogue:
        """Some of the rows, over the same classes."""
        return Catalogue(self.X[rows], self.y[rows], self.classes)


def products(directory: Path = DATA) -> Catalogue:
    """`image_embeddings.npy`, `text_embeddings.npy` and the column `category` of `products.csv`."""
    pairs = [np.load(directory / f"{kind}_embeddings.npy") for kind in ("image", "text")]
    with (directory / "products.csv").open(encoding="utf-8", newline="") as file:
        categories = [row["category"] for row in csv.DictReader(file)]
    classes, y = np.unique(categories, return_inverse=True)
    X = np.concatenate(pairs, axis=1).astype(np.float32) / np.float32(math.sqrt(2))
    return Catalogue(X, y.astype(np.int64), tuple(str(name) for name in classes))


def shop(folder: str, halves: tuple[str, ...], least: int = 10) -> Catalogue:
    """One of the shops beside the repository, its categories of `least` rows and more.

    Embedding pairs of unequal width are filled up with zeros, a modality that is not named in
    `halves` is missing.
    """
    directory = SHARED / "data" / folder
    with (directory / "products.csv").open(encoding="utf-8", newline="") as file:
        names = np.array([row["category"] for row in csv.DictReader(file)])
    found, n = np.unique(names, return_counts=True)
    kept = np.isin(names, found[n >= least])
    classes, y = np.unique(names[kept], return_inverse=True)
    parts = [np.load(directory / f"{half}_embeddings.npy")[kept] for half in halves]
    pairs = np.zeros((len(y), 2, max(part.shape[1] for part in parts)), dtype=np.float32)
    for half, part in zip(halves, parts, strict=True):
        pairs[:, ("image", "text").index(half), : part.shape[1]] = part
    X = pairs.reshape(len(y), -1) / np.float32(math.sqrt(2))
    return Catalogue(X, y.astype(np.int64), tuple(str(name) for name in classes))


SHOPS: dict[str, Callable[[], Catalogue]] = {
    "fashion": lambda: shop("stl_fashionsiglip", ("image",)),
    "articles": lambda: shop("myntra_fashionclip", ("image",)),
    "furniture": lambda: shop("furniture_clip_minilm", ("image", "text")),
    "mixed_shop": lambda: shop("mixed_shop_clip", ("image",), 5),
}


def digits() -> Catalogue:
    """scikit-learn's 1,797 handwritten digits: pixels as picture embeddings, no text."""
    from sklearn.datasets import load_digits

    found = load_digits()
    image = found.data / np.linalg.norm(found.data, axis=1, keepdims=True)
    X = np.hstack([image, np.zeros_like(image)]) / math.sqrt(2)
    return Catalogue(X.astype(np.float32), found.target.astype(np.int64), tuple("0123456789"))


def mixture(n: int = 3000, n_classes: int = 200, dimension: int = 128, seed: int = 0) -> Catalogue:
    """Classes of skewed sizes (the i-th has a share of 1 / (i + 5)) around centres of their own."""
    rng = np.random.default_rng(seed)
    share = 1 / (np.arange(n_classes) + 5)
    y = rng.choice(n_classes, n, p=share / share.sum())
    y[: 2 * n_classes] = np.repeat(np.arange(n_classes), 2)  # at least two each
    centres = rng.standard_normal((n_classes, 2, dimension))
    pairs = centres[y] + 1.6 * rng.standard_normal((n, 2, dimension))
    unit: Float64Array = pairs / np.linalg.norm(pairs, axis=2, keepdims=True)
    X = unit.reshape(n, -1) / math.sqrt(2)
    width = len(str(n_classes))
    return Catalogue(
        X.astype(np.float32), y.astype(np.int64), tuple(f"{i:0{width}}" for i in range(n_classes))
    )
