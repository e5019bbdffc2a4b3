"""Fusion: two unit embeddings become one row, and one inner product tells both similarities.

On disk a row is `[image ; text]`, both embeddings of unit norm as the encoder gave them, so that
they can be exported bit for bit. The fused embedding is that row / sqrt(2): the inner product of
two fused embeddings is the mean of the two cosines. A missing modality is a half of zeros.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import numpy as np

from kinshelf.db.arrays import FloatArray
from kinshelf.db.errors import InputError, InvalidEmbeddings

_NEAR = 1e-2
"""Embeddings of half precision are off by less; fused ones by 0.29."""

_SCALE = np.float32(1 / math.sqrt(2))


def split(rows: FloatArray) -> tuple[FloatArray, FloatArray]:
    """The image and the text embeddings of stored rows, each (n, dimension), bit for bit."""
    dimension = rows.shape[1] // 2
    return rows[:, :dimension], rows[:, dimension:]


def check_pairs(rows: FloatArray, otherwise: str = "") -> None:
    """Raises InvalidEmbeddings unless each half of each row, (n, 2 * d), is a unit vector or zeros.

    Fused embeddings, which are scaled, would silently give half the similarity.
    """
    if rows.ndim != 2 or rows.shape[1] % 2:
        raise InvalidEmbeddings(f"pairs of shape {rows.shape}: give (n, 2 * d), [image ; text]")
    norms = np.stack([np.linalg.norm(half, axis=1) for half in split(rows)], axis=1)
    wrong = np.flatnonzero(~((np.abs(norms - 1) <= _NEAR) | (norms == 0)))  # NaN is neither
    if len(wrong):
        row, half = divmod(int(wrong[0]), 2)
        scaled = abs(norms[row, half] - _SCALE) < _NEAR
        remedy = "multiply fused embeddings by sqrt(2)" if scaled else "normalise each half"
        raise InvalidEmbeddings(
            f"the {('image', 'text')[half]} half of row {row} has norm {norms[row, half]:.4f}, not"
            f" 1 (or 0 where it is missing): {remedy}{', ' + otherwise if otherwise else ''}"
        )


def fused(rows: FloatArray) -> FloatArray:
    """Fused embeddings of stored rows, (n, 2 * dimension) float32, of norm 1 if both embeddings
    are."""
    return np.multiply(rows, _SCALE, dtype=np.float32)


@dataclass(frozen=True, slots=True)
class Weighting:
    """The weight of the picture in a similarity, from 0 to 1; 0.5 is the fused similarity."""

    image: float = 0.5

    def check(self, rows: FloatArray) -> None:
        """Raises InputError if nothing that a query has, (n, 2 * dimension), has any weight."""
        if 0 < self.image < 1:
            return
        image, text = (half.any(axis=1) for half in split(rows))
        if (text & ~image).any() and self.image == 1:
            raise InputError("weight_image is 1 and a query has no picture: nothing would count")
        if (image & ~text).any() and self.image == 0:
            raise InputError("weight_image is 0 and a query has no text: nothing would count")

    def query(self, rows: FloatArray) -> FloatArray:
        """Query rows whose inner product with a stored row is the weighted mean of the cosines."""
        return np.multiply(rows, _weights(self.image, rows.shape[1] // 2), dtype=np.float32)


@functools.lru_cache(maxsize=16)
def _weights(image: float, dimension: int) -> FloatArray:
    weights = np.full(2 * dimension, 1 - image, dtype=np.float32)
    weights[:dimension] = image
    weights.flags.writeable = False
    return weights
