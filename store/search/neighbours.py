"""Similarities of the rows that a search found, computed from the vectors themselves."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from kinshelf.db.arrays import FloatArray, IntArray


@dataclass(frozen=True, slots=True)
class Neighbours:
    """Nearest rows of n queries, (n, k) each, nearest first.

    `rows` int64, -1 where fewer than k products match; `similarities` float32, the inner product
    of fused embeddings; `image_similarities` and `text_similarities` the two cosines, NaN where
    query or neighbour lacks the modality. `exhaustive`: every product that may match was scored,
    for every query; else an approximate index proposed the candidates of some.
    """

    rows: IntArray
    similarities: FloatArray
    image_similarities: FloatArray
    text_similarities: FloatArray
    exhaustive: bool


def neighbours_of(
    queries: FloatArray, rows: IntArray, near: FloatArray, weight_image: float, *, exhaustive: bool
) -> Neighbours:
    """The rows (n, k) found for queries (n, width), -1 for none, by their embedding pairs `near`
    (n, k, width); nearest first, the lower row first among equals."""
    sides = (2, queries.shape[1] // 2)
    found = near.reshape(*rows.shape, *sides)
    cosines: FloatArray = np.vecdot(found, queries.reshape(-1, 1, *sides))
    # From the parts: the same to the bit, whichever way the rows were found.
    whole = weight_image * cosines[..., 0] + (1 - weight_image) * cosines[..., 1]
    none = rows < 0
    whole = np.where(none, -np.inf, whole).astype(np.float32)
    cosines[none] = np.nan
    _mark_missing(queries.reshape(-1, *sides), found, cosines)
    at = (np.arange(len(whole))[:, None], np.lexsort((rows, -whole), axis=1))
    # Rounding may carry a product's similarity to itself past 1.
    whole, cosines = np.minimum(whole[at], 1), np.minimum(cosines[at], 1)
    np.maximum(whole, -1, out=whole)
    np.maximum(cosines, -1, out=cosines)
    return Neighbours(rows[at], whole, cosines[..., 0], cosines[..., 1], exhaustive)


def _mark_missing(queries: FloatArray, found: FloatArray, cosines: FloatArray) -> None:
    """Make a cosine NaN where a half is missing: nearly always none is exactly 0."""
    query, at, half = np.nonzero(cosines == 0)
    if not len(query):
        return
    there = queries[query, half].any(axis=1) & found[query, at, half].any(axis=1)
    cosines[query[~there], at[~there], half[~there]] = np.nan
