"""Choosing from a ranking: a least similarity, one of each value, variety."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from kinshelf.db.arrays import BoolArray, FloatArray
from kinshelf.store.query import CANDIDATES
from kinshelf.store.search import fusion
from kinshelf.store.similar.ranking import Ranking

if TYPE_CHECKING:
    from kinshelf.db.catalog.facets import Value
    from kinshelf.store.generation import AnySnapshot
    from kinshelf.store.query import Query

_DEEPER = 4


def chosen(now: AnySnapshot, asked: Query, search: Callable[[int], Ranking], k: int) -> Ranking:
    """The products number `offset` to `offset + k` of those chosen; `search` gives the n best."""
    wanted = asked.offset + k
    depth = wanted if asked.diverse is None else CANDIDATES
    value = None if asked.one_per is None else now.value_of(asked.one_per)
    while True:
        found = search(depth)
        all_found = len(found.rows) < min(depth, now.count)
        kept = _near_enough(found, asked.min_similarity)
        all_found |= len(kept.rows) < len(found.rows)
        if value is not None:
            kept = _one_per(now, kept, value)
        if len(kept.rows) >= wanted or all_found or depth >= now.count or value is None:
            break
        depth *= _DEEPER
    if asked.diverse is not None:
        nearest = kept.at(slice(CANDIDATES))
        pairs = now.pairs(nearest.rows)
        kept = nearest.at(mmr(nearest.scores, pairs, asked.diverse, wanted, asked.weight_image))
    return kept.at(slice(asked.offset, wanted))


def _near_enough(found: Ranking, least: float | None) -> Ranking:
    return found if least is None else found.at(np.flatnonzero(found.similarities >= least))


def _one_per(now: AnySnapshot, found: Ranking, value: Value) -> Ranking:
    """The best of each value; products without a value stay."""
    products = now.view.by_rows(found.rows)
    seen, places = set[object](), []
    for place, row in enumerate(found.rows.tolist()):
        this = value(products[row])
        if this is None or this not in seen:
            places.append(place)
            seen.add(this)
    return found.at(places)


def mmr(
    relevance: FloatArray, pairs: FloatArray, weight: float, k: int, weight_image: float = 0.5
) -> list[int]:
    """Places of up to k candidates by maximal marginal relevance, the first chosen first.

    Each next one has the highest weight * relevance - (1 - weight) * its highest similarity to
    those chosen; similarity as in `AnySnapshot.kneighbors`, by pairs (n, 2 * dimension).
    """
    nearness = _similarities(pairs, weight_image)
    left = np.ones(len(pairs), dtype=np.bool_)
    nearest = np.zeros(len(pairs))
    places: list[int] = []
    while len(places) < min(k, len(pairs)):
        value = weight * relevance - (1 - weight) * nearest
        place = int(np.argmax(np.where(left, value, -np.inf)))
        nearest = nearness[place] if not places else np.maximum(nearest, nearness[place])
        left[place] = False
        places.append(place)
    return places


def _similarities(pairs: FloatArray, weight_image: float) -> FloatArray:
    halves = np.stack(fusion.split(pairs))
    there: BoolArray = np.any(halves != 0, axis=2)
    weights = np.array([weight_image, 1 - weight_image])[:, None, None]
    shared = weights * (there[:, :, None] & there[:, None, :])
    whole = (shared * (halves @ halves.transpose(0, 2, 1))).sum(axis=0)
    counted = shared.sum(axis=0)
    found: FloatArray = np.divide(whole, counted, out=np.zeros_like(whole), where=counted > 0)
    return found
