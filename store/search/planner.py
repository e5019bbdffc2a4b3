"""The search planner: finds the nearest matching products exactly, or by the graph if it pays.

The graph's candidates are filtered afterwards. As long as enough of them match, the nearest
matches are among them, whatever the filter has to do with the query; where too few do, as for a
filter of another category than the query's, the answer is computed exactly. (A filter *inside*
the search of the graph ends in a part of it where nothing matches: recall 0.07 to 0.15 measured.)
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from kinshelf.db.arrays import BoolArray, FloatArray, IntArray
from kinshelf.store.search.exact import FEW, best, exact, nothing, products_by_place
from kinshelf.store.search.hnsw import Hnsw
from kinshelf.store.search.unindexed import LEAST, doubtful

Answer = tuple[FloatArray, IntArray]
ROWS_PER_STEP = 20
"""Rows that one thread scores exactly in the time of one step through the graph."""
TUNED_K = 10
"""The number of neighbours that `Effort.steps` is measured for."""
_SPARE = 1.5
"""Candidates taken beyond those expected to suffice."""
_BEYOND, _EXPECTED = 0.5, 0.6
"""Matches wanted: so many beyond k, and so much of what a filter at random would leave. Where there
are fewer, those found lie at the rim of what was seen, where some are overlooked."""
_NEARLY = 0.9
"""Where so much is kept, the first look nearly always suffices."""
_SOME = 2
"""Where a filter at random would leave so many of the candidates and this one leaves none, all that
is kept is scored at once: at 100,000 rows and 10 % of them, the next look takes a third of that."""
_WIDER = 4
_HOPE, _CHEAP = 2, 4
"""A look so deep, in k, comes first where scoring all that is kept takes so many times as long."""
_DEEPER = 0.5
"""Steps grow with the depth that is asked, at this rate: less and recall falls below that tuned."""
_CODED = 1 << 12
"""Kept rows from which on few queries are scored by the graph's bytes first: a quarter of the
memory to read."""
_PARTS: dict[str, Callable[[int], slice]] = {
    "image": lambda dimension: slice(0, dimension),
    "text": lambda dimension: slice(dimension, None),
    "both": lambda _: slice(None),
    "": lambda _: slice(None),
}
"""The columns that count: of a query of one half, the other one need not be read."""


@dataclass(frozen=True, slots=True)
class Found:
    """Similarities (n, k) float32, -inf where places (n, k) int64 are -1: fewer match.

    `exhaustive`: every row that matches was scored.
    """

    similarities: FloatArray
    places: IntArray
    exhaustive: bool


@dataclass(frozen=True, eq=False)
class Rows:
    """The rows to search: the vectors, the graph over their first ones, and which are kept."""

    vectors: FloatArray
    graph: Hnsw | None
    keep: BoolArray | None

    @functools.cached_property
    def kept(self) -> int:
        """The number of rows that may be found."""
        return len(self.vectors) if self.keep is None else int(np.count_nonzero(self.keep))

    def after(self, place: int) -> Rows:
        """The rows from a place on, without a graph."""
        keep = None if self.keep is None else self.keep[place:]
        return Rows(self.vectors[place:], None, keep)

    def at(self, places: IntArray) -> FloatArray:
        """The vectors at these places, (..., width) float32, a copy."""
        if self.graph is None or self.graph.vectors is None:
            return self.vectors[places]
        if self.graph.rows >= len(self.vectors):
            return self.graph.vectors[places]
        found = self.graph.vectors[np.minimum(places, self.graph.rows - 1)]
        later = places >= self.graph.rows
        found[later] = self.vectors[places[later]]
        return found


def nearest(rows: Rows, queries: FloatArray, k: int) -> Found:
    """The k kept rows of highest inner product with each query, (n, width) float32."""
    kinds = _kinds(queries)
    if len(kinds) == 1:
        return _of_kind(rows, kinds[0][0], queries, k)
    answer = nothing(len(queries), k)
    exhaustive = True
    for kind, chosen in kinds:
        found = _of_kind(rows, kind, queries[chosen], k)
        _fill(answer, chosen, (found.similarities, found.places))
        exhaustive &= found.exhaustive
    return Found(*answer, exhaustive)


def unranked(rows: Rows, query: FloatArray, k: int) -> IntArray | None:
    """Places that the k nearest to one query, (1, width), are among, (1, k or more), -1 where none.

    None where `nearest` has to look: a filter, rows after the graph, no graph for such a query. It
    saves half of what a query takes beside the graph itself to rank them but once.
    """
    graph, kept = rows.graph, rows.kept
    if graph is None or graph.rows < len(rows.vectors) or kept < _NEARLY * len(rows.vectors):
        return None
    kind = _kinds(query)[0][0]
    effort = graph.efforts.get(kind)
    depth = _depths(rows, graph, 0, k)[-2]
    if effort is None or effort.steps is None:
        return None
    steps = _effort(effort.steps, depth)
    if steps * ROWS_PER_STEP > kept:
        return None
    places = _matching(rows, graph.rows, graph.candidates(query, depth + k, steps, kind))
    enough = places[0, min(_needed(rows, k, depth + k), kept) - 1] >= 0
    return places[:, : _closely(k)] if enough else None


def _effort(steps: int, depth: int) -> int:
    return math.ceil(steps * max(1, _DEEPER * depth / TUNED_K))


def _closely(k: int) -> int:
    """How many candidates are compared by their vectors."""
    return max(2 * k, k + 20)


def _of_kind(rows: Rows, kind: str, queries: FloatArray, k: int) -> Found:
    effort = rows.graph.efforts.get(kind) if rows.graph else None
    if rows.graph is None or effort is None or effort.steps is None:
        return Found(*_all(rows, queries, k, _PARTS[kind](queries.shape[1] // 2)), exhaustive=True)
    return _by_graph(rows, rows.graph, (kind, effort.steps), queries, k)


def _kinds(queries: FloatArray) -> list[tuple[str, IntArray]]:
    """Queries by what the graph's effort was measured for; "" if for nothing of the kind."""
    pairs = queries.reshape(len(queries), 2, -1)
    sizes = np.vecdot(pairs, pairs)
    if len(queries) == 1:
        return [(_kind(*sizes[0].tolist()), np.zeros(1, dtype=np.int64))]
    kinds = np.array([_kind(*pair) for pair in sizes.tolist()], dtype="<U5")
    return [(str(kind), np.flatnonzero(kinds == kind)) for kind in np.unique(kinds)]


def _kind(image: float, text: float) -> str:
    if image == 0 or text == 0:
        return "text" if image == 0 else "image"
    return "both" if abs(image - text) <= 2e-3 * (image + text) else ""


def _by_graph(
    rows: Rows, graph: Hnsw, tuned: tuple[str, int], queries: FloatArray, k: int
) -> Found:
    """`tuned`: the kind of the queries, and the steps that those need."""
    kind, steps = tuned
    answer, left = None, np.arange(len(queries))
    for depth in _depths(rows, graph, steps, k):
        effort = _effort(steps, depth)
        if not len(left) or effort * ROWS_PER_STEP > rows.kept:
            break
        asked = queries if answer is None else queries[left]
        found, enough = _proposed(rows, graph, asked, k, (depth + k, effort, kind))
        if answer is None and enough.all():
            return Found(*found, exhaustive=False)
        answer = answer or nothing(len(queries), k)
        _fill(answer, left[enough], (found[0][enough], found[1][enough]))
        nothing_near = bool(np.isneginf(found[0][~enough, 0]).all())
        left = left[~enough]
        if nothing_near and (depth + k) * rows.kept >= _SOME * len(rows.vectors):
            break  # a filter of another category than the query's: a deeper look finds none either
    answer = answer or nothing(len(queries), k)
    if len(left):
        _fill(answer, left, _all(rows, queries[left], k))
    return Found(*answer, exhaustive=len(left) == len(queries))


def _depths(rows: Rows, graph: Hnsw, steps: int, k: int) -> list[int]:
    """How many of the nearest among all to look for the k nearest that are kept in, in turn."""
    # The k-th nearest that is kept is expected at this depth, or at a multiple.
    expected = k * max(graph.rows, len(rows.vectors)) / max(rows.kept, 1)
    depths = [math.ceil(spare * expected) for spare in (_SPARE, _SPARE * _WIDER)]
    # A filter often names what the query is itself: then nearly all near it are kept.
    hopeful = math.ceil(_HOPE * k)
    cheap = _CHEAP * steps * ROWS_PER_STEP <= rows.kept
    return [hopeful, *depths] if hopeful < depths[0] and cheap else depths


def _fill(answer: Answer, at: IntArray, found: Answer) -> None:
    answer[0][at], answer[1][at] = found


def _proposed(
    rows: Rows, graph: Hnsw, queries: FloatArray, k: int, asked: tuple[int, int, str]
) -> tuple[Answer, BoolArray]:
    """The best of the graph's candidates and of the rows after it; for which queries it is enough.

    `asked`: how many candidates, by how many steps, for which kind of query.
    """
    places = _matching(rows, graph.rows, graph.candidates(queries, *asked))
    later = rows.after(graph.rows).kept if len(rows.vectors) > graph.rows else 0
    needed = min(_needed(rows, k, asked[0]), rows.kept - later)
    enough = places[:, max(needed, 1) - 1] >= min(needed, 1) - 1  # the kept ones come first
    places = places[:, : _closely(k)]
    scores = products_by_place(_mapped(rows, graph), places, queries)
    return _with_later(best(scores, places, k), rows, graph, queries), enough


def _with_later(found: Answer, rows: Rows, graph: Hnsw, queries: FloatArray) -> Answer:
    """The best of those found and of the rows after the graph."""
    stop, k = graph.rows, found[0].shape[1]
    if stop >= len(rows.vectors):
        return found
    if len(queries) <= FEW and len(rows.vectors) - stop >= LEAST:
        least = found[0][:, -1]
        coded, stop = graph.unindexed_rows.nearest(rows.vectors, queries, least, k, rows.keep)
        found = found if coded is None else _joined(found, coded)
    after = rows.after(stop)
    if not after.kept:
        return found
    similarities, later = exact(after.vectors, queries, k, after.keep)
    graph.unindexed_rows.scored_plainly(rows.vectors)
    later[later >= 0] += stop
    return _joined(found, (similarities, later))


def _joined(one: Answer, other: Answer) -> Answer:
    """The best of both, as many as there are of one."""
    return best(np.hstack([one[0], other[0]]), np.hstack([one[1], other[1]]), one[0].shape[1])


def _mapped(rows: Rows, graph: Hnsw) -> FloatArray:
    """The vectors that the graph's places are of."""
    return rows.vectors if graph.vectors is None else graph.vectors


def _all(rows: Rows, queries: FloatArray, k: int, half: slice = slice(None)) -> Answer:
    """The k nearest, each row that is kept scored; `half` of the columns counts."""
    graph, enough = rows.graph, max(_CODED, 9 * k)
    if graph and graph.index is not None and len(queries) <= FEW and rows.kept >= enough:
        found = [each for query in queries if (each := _by_bytes(rows, graph, query[None], k))]
        if len(found) == len(queries):
            similarities, places = zip(*found, strict=True)
            return np.concatenate(similarities), np.concatenate(places)
    return exact(rows.vectors[:, half], queries[:, half], k, rows.keep)


def _by_bytes(rows: Rows, graph: Hnsw, query: FloatArray, k: int) -> Answer | None:
    """The k nearest, scored by their bytes and the best of those by their vectors.

    None if one that was passed over may be nearer: if the last one that was not, by its bytes, is
    as near as the k-th, give or take what the bytes of those looked at are off.
    """
    rough, places = graph.scored(query, 4 * k + 64, _flags(rows, graph))
    scores = products_by_place(_mapped(rows, graph), places, query)
    found = best(scores, places, k)
    if doubtful(rough, scores, places, found[0][:, -1]):
        return None
    return _with_later(found, rows, graph, query)


def _needed(rows: Rows, k: int, count: int) -> int:
    """How many of so many candidates must match for the k nearest to be trusted."""
    expected = count * rows.kept / max(len(rows.vectors), 1)
    return max(k + int(_BEYOND * k), int(_EXPECTED * expected))


def _matching(rows: Rows, graph_rows: int, places: IntArray) -> IntArray:
    """The candidates that are kept first, in their order, the others -1."""
    there = places >= 0
    if graph_rows <= len(rows.vectors) and rows.keep is None and there.all():
        return places
    there &= places < len(rows.vectors)
    if rows.keep is not None:
        there &= rows.keep[np.where(there, places, 0)]
    if there.all():
        return places
    order = np.argsort(~there, axis=1, kind="stable")
    return np.take_along_axis(np.where(there, places, -1), order, axis=1)


def _flags(rows: Rows, graph: Hnsw) -> BoolArray | None:
    """Which rows of the graph are kept, (graph.rows,); None for all."""
    if rows.keep is None and graph.rows <= len(rows.vectors):
        return None
    flags = np.zeros(graph.rows, dtype=np.bool_)
    there = min(graph.rows, len(rows.vectors))
    flags[:there] = True if rows.keep is None else rows.keep[:there]
    return flags
