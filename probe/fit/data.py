"""Training data of a probe: categorised rows, and their embeddings gathered on demand.

A shelf's snapshot satisfies `LabelledData`; `ArrayData` does the same for arrays in memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike

from kinshelf.db.arrays import FloatArray, IntArray, ObjectArray
from kinshelf.db.errors import InvalidEmbeddings

SIMILAR = 0.95
"""Mean of the cosines from which two products may be one. On 828 toys no two reach it; a picture
saved anew and a title with other punctuation keep more."""

SIMILAR_EACH = 0.90
"""Neither picture nor text may be less alike than this, or variants of one series are taken for
copies: equal titles with different pictures, one picture with different titles."""


class LabelledData(Protocol):
    """Rows with categories, and fused embeddings `[image ; text] / sqrt(2)` of any of them."""

    @property
    def generation(self) -> int:
        """The state that all answers come from."""

    @property
    def fingerprint(self) -> str:
        """The fingerprint of the encoder of the embeddings."""

    def labelled(self, split: str | None = None) -> tuple[IntArray, ObjectArray]:
        """Rows (n,) int64 ascending and categories (n,) of str, of one split if named."""

    def fused(self, rows: IntArray) -> FloatArray:
        """Fused embeddings, (len(rows), D) float32, a copy."""


@runtime_checkable
class Grouped(Protocol):
    """Rows whose products have further columns, by which they may be grouped."""

    def values_of(self, column: str, rows: IntArray) -> ObjectArray:
        """A column's values, (len(rows),), None where there is none. Raises InvalidSetting."""


class ArrayData:
    """`LabelledData` over an array of fused embeddings, (n, D); row i is `embeddings[i]`.

    `categories[i]` None: no category. `splits` names a split for each row, or None.
    Raises InvalidEmbeddings if the shapes do not fit or a value is not finite.
    """

    def __init__(
        self,
        embeddings: ArrayLike,
        categories: Sequence[str | None],
        splits: Sequence[str | None] | None = None,
        *,
        generation: int = 0,
        fingerprint: str = "",
    ) -> None:
        self._embeddings = checked_embeddings(embeddings)
        self._categories = _column(categories, len(self._embeddings), "categories")
        absent = [None] * len(self._embeddings)
        self._splits = _column(splits or absent, len(self._embeddings), "splits")
        self.generation = generation
        self.fingerprint = fingerprint

    def labelled(self, split: str | None = None) -> tuple[IntArray, ObjectArray]:
        """See `LabelledData`."""
        wanted = np.array([category is not None for category in self._categories], dtype=np.bool_)
        if split is not None:
            wanted &= self._splits == split
        rows = np.flatnonzero(wanted).astype(np.int64)
        return rows, self._categories[rows]

    def fused(self, rows: IntArray) -> FloatArray:
        """See `LabelledData`."""
        return self._embeddings[rows]


def checked_embeddings(embeddings: ArrayLike) -> FloatArray:
    """The array as (n, D) float32; raises InvalidEmbeddings for another rank, NaN or infinity."""
    array = np.asarray(embeddings, dtype=np.float32)
    if array.ndim != 2 or not array.shape[1]:
        raise InvalidEmbeddings(f"embeddings must have the shape (n, D), not {array.shape}")
    bad = np.flatnonzero(~np.isfinite(array).all(axis=1))
    if len(bad):
        raise InvalidEmbeddings(
            f"{len(bad)} of {len(array)} embeddings hold NaN or infinity, the first in row {bad[0]}"
        )
    return array


def _column(values: Sequence[str | None], n: int, what: str) -> ObjectArray:
    if len(values) != n:
        raise InvalidEmbeddings(f"{n} embeddings but {len(values)} {what}: one is needed for each")
    column = np.empty(n, dtype=object)
    column[:] = list(values)
    return column
