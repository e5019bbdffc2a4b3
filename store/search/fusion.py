"""Fusion: two unit embeddings become one row, and one inner product tells both similarities.

On disk a row is `[image ; text]`, both halves of unit norm as the encoder gave them, so that they
can be exported bit for bit. The fused embedding is that row / sqrt(2): the inner product of two
fused embeddings is the mean of the two cosines. A missing modality is a half of zeros.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from kinshelf.db.arrays import FloatArray
from kinshelf.db.errors import InvalidEmbeddings

NORM_TOLERANCE = 1e-3
_SCALE = np.float32(1 / math.sqrt(2))


def split(rows: FloatArray) -> tuple[FloatArray, FloatArray]:
    """The image and the text halves of stored rows, each (n, dimension), bit for bit."""
    dimension = rows.shape[1] // 2
    return rows[:, :dimension], rows[:, dimension:]


def check_pairs(rows: FloatArray) -> None:
    """Make sure that rows are embedding pairs as stored: each half of norm 1, or all 0.

    Raises InvalidEmbeddings, which names the first norm that is neither.
    """
    if rows.ndim != 2 or rows.shape[1] % 2:
        raise InvalidEmbeddings(
            f"queries have the shape {rows.shape}: give (n, 2 * dimension), image and text"
            " embedding side by side"
        )
    norms = np.linalg.norm(rows.reshape(len(rows), 2, -1), axis=2)
    odd = np.argwhere(~((np.abs(norms - 1) <= NORM_TOLERANCE) | (norms <= NORM_TOLERANCE)))
    if len(odd):
        row, side = odd[0]
        raise InvalidEmbeddings(
            f"the {('image', 'text')[side]} half of query {row} has the norm"
            f" {norms[row, side]:.4g}: a half is of norm 1, or all 0 where there is none. Divide"
            " it by its norm; a fused embedding has to be multiplied by sqrt(2)"
        )


def fused(rows: FloatArray) -> FloatArray:
    """Fused embeddings of stored rows, (n, 2 * dimension) float32, of norm 1 if both halves are."""
    return np.multiply(rows, _SCALE, dtype=np.float32)


@dataclass(frozen=True, slots=True)
class Weighting:
    """How much the picture counts in a similarity, from 0 to 1; 0.5 is the fused similarity."""

    image: float = 0.5

    def query(self, rows: FloatArray) -> FloatArray:
        """Query rows whose inner product with a stored row is the weighted mean of the cosines."""
        dimension = rows.shape[1] // 2
        weights = np.full(2 * dimension, 1 - self.image, dtype=np.float32)
        weights[:dimension] = self.image
        return np.multiply(rows, weights, dtype=np.float32)
