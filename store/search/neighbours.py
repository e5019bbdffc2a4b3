"""Similarities of the rows that a search found, computed from the vectors themselves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from kinshelf.db.arrays import FloatArray, IntArray


@dataclass(frozen=True, slots=True)
class Neighbours:
    """Nearest rows of n queries, (n, k) each, nearest first.

    `rows` int64, -1 where fewer than k products match; `similarities` float32, the weighted mean of
    the cosines of those modalities that query and neighbour both have, 0 where they share none;
    `image_similarities` and `text_similarities` the two cosines, NaN where
    query or neighbour lacks the modality. `exhaustive`: every product that may match was scored,
    for every query; else an approximate index proposed the candidates of some.
    """

    rows: IntArray
    similarities: FloatArray
    image_similarities: FloatArray
    text_similarities: FloatArray
    exhaustive: bool

    def first(self, k: int) -> Neighbours:
        """The k nearest of them."""
        return Neighbours(
            self.rows[:, :k], self.similarities[:, :k], self.image_similarities[:, :k],
            self.text_similarities[:, :k], self.exhaustive,
        )  # fmt: skip


def neighbours_of(
    queries: FloatArray, rows: IntArray, near: FloatArray, weight_image: float, *, exhaustive: bool
) -> Neighbours:
    """The rows (n, k) found for queries (n, width), -1 for none, by their embedding pairs `near`
    (n, k, width); nearest first, the lower row first among equals."""
    sides = (2, queries.shape[1] // 2)
    found = near.reshape(*rows.shape, *sides)
    cosines: FloatArray = np.vecdot(found, queries.reshape(-1, 1, *sides))
    # From the parts: the same to the bit, whichever way the rows were found.
    whole: FloatArray = weight_image * cosines[..., 0] + (1 - weight_image) * cosines[..., 1]
    if _mark_missing(queries.reshape(-1, *sides), found, cosines):
        weights = np.where(np.isnan(cosines), 0, np.array([weight_image, 1 - weight_image]))
        shared = weights.sum(axis=-1)
        whole = np.where(shared > 0, whole / np.where(shared > 0, shared, 1), 0)
        whole = whole.astype(np.float32)
    none = rows < 0
    if none.any():
        whole[none], cosines[none] = -np.inf, np.nan
    if len(whole) == 1:  # the same in half the time
        order = np.lexsort((rows[0], -whole[0]))
        rows, whole = rows.take(order, axis=1), whole.take(order, axis=1)
        cosines = cosines.take(order, axis=1)
    else:
        at = (np.arange(len(whole))[:, None], np.lexsort((rows, -whole), axis=1))
        rows, whole, cosines = rows[at], whole[at], cosines[at]
    for values in (whole, cosines):
        np.minimum(values, 1, out=values)  # rounding may carry it past 1
        np.maximum(values, -1, out=values)
    return Neighbours(rows, whole, cosines[..., 0], cosines[..., 1], exhaustive)


def _mark_missing(queries: FloatArray, found: FloatArray, cosines: FloatArray) -> bool:
    """Make a cosine NaN where a half is missing, and state whether any is: nearly always none is
    exactly 0."""
    query, at, half = np.nonzero(cosines == 0)
    if not len(query):
        return False
    there = queries[query, half].any(axis=1) & found[query, at, half].any(axis=1)
    cosines[query[~there], at[~there], half[~there]] = np.nan
    return not there.all()


def nearest_of(parts: Sequence[Neighbours], k: int) -> Neighbours:
    """The k nearest of several searches for the same queries; a row that two found counts once."""
    first = parts[0]
    if len(parts) == 1 and first.rows.shape[1] <= k:
        return first
    rows = np.concatenate([part.rows for part in parts], axis=1)
    whole = np.concatenate([part.similarities for part in parts], axis=1)
    order = np.lexsort((rows, -whole), axis=1)
    ranked = np.take_along_axis(rows, order, axis=1)
    again = np.zeros(ranked.shape, dtype=np.bool_)  # equal rows have equal similarities
    again[:, 1:] = (ranked[:, 1:] == ranked[:, :-1]) & (ranked[:, 1:] >= 0)
    order = np.take_along_axis(order, np.argsort(again, axis=1, kind="stable"), axis=1)[:, :k]
    doubled = np.take_along_axis(np.sort(again, axis=1), np.arange(order.shape[1])[None], axis=1)

    def of(name: str, none: float) -> Any:
        values = np.concatenate([getattr(part, name) for part in parts], axis=1)
        return np.where(doubled, none, np.take_along_axis(values, order, axis=1))

    return Neighbours(
        of("rows", -1),
        of("similarities", -1).astype(np.float32),
        of("image_similarities", np.nan).astype(np.float32),
        of("text_similarities", np.nan).astype(np.float32),
        exhaustive=all(part.exhaustive for part in parts),
    )
