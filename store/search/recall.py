"""The graph's recall, measured on a shelf's own vectors, never assumed.

The effort is chosen on rows that are held out: while it is measured nothing links to them, so that
they are to the graph what a new product is. What is mapped cannot be changed like this; `measured`
asks for stored products moved a little: each half plus noise of half its length, made a unit again.
Of 30,000 blends of Gaussian rows those find 0.999 where new ones find 0.985 (bench/vectors.py).
"""

from __future__ import annotations

import bisect
import functools
import math
import time
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from kinshelf.db.arrays import BoolArray, FloatArray, IntArray
from kinshelf.store.search import fusion, hnsw
from kinshelf.store.search.exact import exact
from kinshelf.store.search.hnsw import Effort, Hnsw
from kinshelf.store.search.links import held_out
from kinshelf.store.search.planner import ROWS_PER_STEP, TUNED_K, Rows, nearest

_MARGINS = {"both": 0.003, "image": 0.005, "text": 0.005}
"""Asked beyond that when the steps are chosen: the sample's own error. Of half a product, whole
queries go astray rather than single neighbours, so the error is larger."""
_KNEE = 0.002
"""Where no number of steps reaches the recall asked for: so little below the best is as good."""
_POOR = 0.95
"""Below that the graph is of no use: vectors without structure are searched exactly."""
_STEPS = (
    32, 36, 40, 44, 48, 56, 64, 72, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384, 512,
    640, 768, 1024, 1280, 1536, 2048, 2560, 3072, 4096,
)  # fmt: skip
"""Fewer find fewer candidates than are compared. Those beyond 512 are for shelves of hundreds of
thousands: still a tenth of scoring all."""
_SAMPLE = 500
_NOISE = 0.5
_TIE = 1e-5
"""Neighbours nearer than that to the k-th are as good as it: copies of one embedding are common."""


@dataclass(frozen=True, slots=True)
class Measured:
    """Recall@k of n queries, how long one took (median), and whether all rows were scored."""

    recall: float
    k: int
    queries: int
    milliseconds: float
    exhaustive: bool

    def as_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return asdict(self)


def tuned(graph: Hnsw, vectors: FloatArray, seed: int = 0) -> Hnsw:
    """The graph with the fewest steps that reach the recall, for each kind of query.

    `vectors` are those of the epoch, (graph.rows or more, width) float32. Where no number of steps
    that pays reaches it, the fewest that come as near as any are kept, and `Effort.falls_short`;
    where that is not near, or there are no rows of a kind, it is answered exactly.
    """
    vectors = vectors[: graph.rows]
    queries, out = _held_out(vectors, seed)
    efforts = {}
    with held_out(graph.index, np.flatnonzero(out)):
        for kind, asked in queries.items():
            efforts[kind] = (
                _effort(graph, vectors, (asked, ~out), kind) if len(asked) else Effort(None, 0.0)
            )
    return replace(graph, efforts=efforts)


def _held_out(vectors: FloatArray, seed: int) -> tuple[dict[str, FloatArray], BoolArray]:
    """Rows as queries of each kind, and flags of those rows: none of them is an entry point."""
    places = np.arange(len(vectors))
    places = np.random.default_rng(seed).permutation(places[places % hnsw.stride(len(vectors)) > 0])
    places = places[: 4 * _SAMPLE]
    rows = np.array(vectors[places], dtype=np.float32)
    out, queries = np.zeros(len(vectors), dtype=np.bool_), {}
    for kind, usable in _usable(rows).items():
        chosen = np.flatnonzero(usable)[:_SAMPLE]
        out[places[chosen]] = True
        queries[kind] = fusion.Weighting().query(_alone(rows[chosen], kind))
    return queries, out


def _effort(
    graph: Hnsw, vectors: FloatArray, asked: tuple[FloatArray, BoolArray], kind: str
) -> Effort:
    """By bisection: recall grows with the steps. `asked`: the queries, and which rows may be
    found."""
    queries, keep = asked
    truth = exact(vectors, queries, TUNED_K, keep)[0]
    steps = [each for each in _STEPS if each * ROWS_PER_STEP <= len(vectors)]
    if not steps:
        return Effort(None, 0.0)
    recall = functools.cache(functools.partial(_recall, graph, vectors, queries, truth))
    at = bisect.bisect_left(steps, hnsw.RECALL + _MARGINS[kind], key=recall)
    if at == len(steps):
        best = recall(steps[-1])
        if best < _POOR:
            return Effort(None, best)
        least = hnsw.RECALL if best >= hnsw.RECALL else _POOR
        at = bisect.bisect_left(steps, max(best - _KNEE, least), key=recall)
    return Effort(steps[at], recall(steps[at]))


def _recall(
    graph: Hnsw, vectors: FloatArray, queries: FloatArray, truth: FloatArray, steps: int
) -> float:
    efforts = dict.fromkeys(("both", "image", "text"), Effort(steps, 0.0))
    rows = Rows(vectors, replace(graph, efforts=efforts), None)
    return recall_of(nearest(rows, queries, TUNED_K).similarities, truth)


def samples(vectors: FloatArray, pool: IntArray, kind: str, count: int, seed: int) -> FloatArray:
    """Queries like products at places of the pool, of both embeddings or one, (count or fewer,
    width).

    They are weighted as the search takes them.
    """
    random = np.random.default_rng(seed)
    places = np.sort(random.permutation(pool)[: 4 * count])
    rows = np.array(vectors[places], dtype=np.float32)
    rows = _alone(random.permutation(rows[_usable(rows)[kind]])[:count], kind)
    for half, name in zip(fusion.split(rows), ("image", "text"), strict=True):
        if kind in ("both", name):
            half[:] = _moved(half, random)
    return fusion.Weighting().query(rows)


def _usable(rows: FloatArray) -> dict[str, BoolArray]:
    """Which rows have what queries of each kind are made of."""
    image, text = (np.any(half, axis=1) for half in fusion.split(rows))
    return {"both": image & text, "image": image, "text": text}


def _alone(rows: FloatArray, kind: str) -> FloatArray:
    """The rows with the embeddings that count in queries of a kind, the others 0; a copy."""
    rows = rows.copy()
    for half, name in zip(fusion.split(rows), ("image", "text"), strict=True):
        if kind not in ("both", name):
            half[:] = 0
    return rows


def _moved(half: FloatArray, random: np.random.Generator) -> FloatArray:
    noise = random.standard_normal(half.shape, dtype=np.float32)
    moved = half + noise * np.float32(_NOISE / math.sqrt(half.shape[1]))
    unit: FloatArray = moved / np.linalg.norm(moved, axis=1, keepdims=True)
    return unit


def recall_of(found: FloatArray, truth: FloatArray) -> float:
    """The share of each query's k nearest that were found, both (n, k) similarities."""
    asked = np.isfinite(truth)
    last = np.where(asked, truth, np.inf).min(axis=1, keepdims=True)
    hits = (np.isfinite(found) & (found >= last - _TIE)).sum(axis=1)
    return float(np.minimum(hits, asked.sum(axis=1)).sum() / max(asked.sum(), 1))


def measured(rows: Rows, k: int = TUNED_K, count: int = 200, seed: int | None = None) -> Measured:
    """Recall now, of fresh queries asked one by one as users do. There must be rows."""
    seed = int(time.time()) if seed is None else seed
    pool = np.arange(len(rows.vectors)) if rows.keep is None else np.flatnonzero(rows.keep)
    kinds = ("both", "image", "text")
    each = (samples(rows.vectors, pool, kind, count, seed) for kind in kinds)
    queries = next((found for found in each if len(found)), rows.vectors[:0])
    truth = exact(rows.vectors, queries, k, rows.keep)[0]
    times, found, exhaustive = [0.0], [truth[:0]], True
    for query in queries:
        started = time.perf_counter()
        answer = nearest(rows, query[None], k)
        times.append(time.perf_counter() - started)
        found.append(answer.similarities)
        exhaustive &= answer.exhaustive
    recall = recall_of(np.concatenate(found), truth)
    return Measured(recall, k, len(queries), float(np.median(times[1:] or times)) * 1e3, exhaustive)
