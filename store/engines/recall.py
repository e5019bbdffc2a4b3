"""The recall of an engine's search, measured against its own exact plan."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np

from kinshelf.store.search.recall import Measured, recall_of

if TYPE_CHECKING:
    from kinshelf.store.engines.snapshot import EngineSnapshot

QUERIES = 50
"""An exact search reads every vector, so they are fewer than in a directory."""


def measured(now: EngineSnapshot, k: int = 10) -> Measured:
    """Recall@k of products of the shelf, asked one by one. There must be products."""
    rows = now.view.rows()
    chosen = np.random.default_rng(0).choice(rows, min(QUERIES, len(rows)), replace=False)
    queries = now.pairs(np.sort(chosen))
    times, found, exhaustive = [], [], True
    for query in queries:
        started = time.perf_counter()
        answer = now.kneighbors(query[None], k)
        times.append(time.perf_counter() - started)
        found.append(answer.similarities)
        exhaustive &= answer.exhaustive
    truth = now.exactly().kneighbors(queries, k).similarities
    recall = recall_of(np.concatenate(found), truth)
    return Measured(recall, k, len(queries), float(np.median(times)) * 1e3, exhaustive)
