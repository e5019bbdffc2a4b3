"""An approximate index: a graph (HNSW, arXiv 1603.09320) over vectors of one byte a number.

A search does not come down the graph's own levels, one node at a time: in catalogues of many
small groups that ends in a wrong one for 2 queries of 100. It enters at the nearest of many
`entry_points`, one row in 16, which are found by a small graph of their own.

It only proposes candidates, which are scored again from the vectors themselves: it can miss a
neighbour, but never gives a wrong similarity. A file is mapped, not read, so that opening costs
one pass of its checksum; a graph that was opened like this cannot grow, one that was `grown` can.
"""

from __future__ import annotations

import functools
import logging
import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from kinshelf.db.arrays import BoolArray, FloatArray, IntArray
from kinshelf.db.catalog.schema import is_count
from kinshelf.db.catalog.statement import fault_of, file_hash, read_state, seal, side_file
from kinshelf.db.errors import ShelfError
from kinshelf.db.mapping import is_whole, mapped
from kinshelf.db.threads import faiss_for
from kinshelf.store.log import disk
from kinshelf.store.search.buffers import arrays_for
from kinshelf.store.search.layout import OddGraph, check_graphs
from kinshelf.store.search.links import link_all
from kinshelf.store.search.unindexed import UnindexedRows

logger = logging.getLogger(__name__)
KIND = "hnsw-sq8"
RECALL = 0.99
"""What the default search must reach, as recall@10."""
LINKS = 24
"""Of a node. At 100,000 CLIP-like rows 24 over bytes ask as many steps as FAISS' usual 32 over
float32. At 30,000 Gaussian blends 16 find 0.987 where 24 find 0.990."""
CONSTRUCTION = 100
"""For a recall of 0.99, 30,000 blends of Gaussian rows (bench/vectors.py) ask 515 distances of a
graph made like this and 2,181 of one made with 40, in nine tenths of the time; 100,000 blends of
real embeddings 562 and 495. With 200 a build of 100,000 takes 45 s, not 20, for as many. FAISS
shortens lists only where more than twice `LINKS` are found: 7 to 8 links are left to a row, not 27
to 31, and one row in 20 has none that leads to it (`links`)."""
ENTRY_STRIDE = 16
"""At 100,000 rows, 64 steps from the entry points find as much as 160 steps down the levels."""
_MOST_ENTRY_POINTS = 1 << 16
_ENTERED = 64
"""Entry points that a search begins at, and how many are compared. At a million rows 64 ask half
the steps of 8."""
_ENTRY_LINKS, _ENTRY_CONSTRUCTION = 16, 64
_ENTRY_STEPS = {"both": 16, "image": 192, "text": 192}
"""At 100,000 blends of real embeddings 16 ask 446 distances for a recall of 0.997, 32 ask 577, and
8 fall to 0.995. Links are between whole products, so by a half alone a search among them goes
astray sooner."""
_ENTRY_POINTS_A_STEP = 512
"""Among many entry points the search takes more steps."""
_COUNTED = ("rows", "doors", "trained", "measured", "size")
"""Numbers that the statement of a graph must have."""
_TOP = 127
_MOST_STEPS, _MOST_LINKS, _MOST_CONSTRUCTION = 1 << 20, 64, 1000
_TRAINING_ROWS = 20_000
_BLOCK = 2048
"""Rows added at once, half a second of work after which it may be interrupted."""

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Effort:
    """The effort that finds the 10 nearest: `steps` (FAISS' efSearch), recall measured.

    `steps` is None where no number of them that pays comes near the recall asked for.
    """

    steps: int | None
    recall: float

    @property
    def falls_short(self) -> bool:
        """Whether queries are answered by the graph with less than the recall asked for."""
        return self.steps is not None and self.recall < RECALL


@dataclass(frozen=True, eq=False)
class Hnsw:
    """A graph over the first `rows` places of an epoch, and the entry points into it.

    `anchor` tells of which vectors, `trained` on how many of them the bytes were fitted, and
    `efforts` what a query costs: of a whole product, of its picture alone, of its text alone;
    `measured` is how many rows there were then. It was made with so many `links` of a row and such
    a `construction`, and nothing links to `unlinked` rows. `vectors`, if any, are those of its
    rows, mapped when it was opened: a mapping that was made anew since has no page in this process
    yet.
    """

    index: Any
    entry_points: Any
    rows: int
    trained: int
    anchor: str
    efforts: dict[str, Effort]
    measured: int = 0
    size: int = 0
    links: int = LINKS
    construction: int = CONSTRUCTION
    unlinked: int = 0
    held: Any = field(default=None, repr=False)
    vectors: FloatArray | None = field(default=None, repr=False)

    @functools.cached_property
    def unindexed_rows(self) -> UnindexedRows:
        """The rows after it."""
        return UnindexedRows(self.rows)

    @property
    def helps(self) -> bool:
        """Whether any kind of query is answered by it."""
        return any(effort.steps is not None for effort in self.efforts.values())

    @property
    def whole(self) -> bool:
        """Whether all that was read of its file was there: it may be cut while it is searched."""
        return self.held is None or is_whole(self.held[0])

    def candidates(self, queries: FloatArray, count: int, steps: int, kind: str) -> IntArray:
        """Places likely to be nearest, best guess first, (n, count) int64, -1 where none."""
        faiss = faiss_for(len(queries))
        entering = max(_ENTRY_STEPS[kind], self.entry_points.ntotal // _ENTRY_POINTS_A_STEP)
        entered = min(_ENTERED, entering)
        asked, near, entry_points, entered_at, _, places, pointers = arrays_for(
            faiss, queries.shape, entered, count
        )
        asked[:] = queries
        self.entry_points.search_c(
            len(queries), pointers[0], entered, pointers[1], pointers[2],
            _parameters(faiss, entering),
        )  # fmt: skip
        if entry_points.min() < 0:  # few are connected: enter at the first one again
            lacking = entry_points < 0
            near[lacking] = np.broadcast_to(near[:, :1], near.shape)[lacking]
            entry_points[lacking] = np.broadcast_to(entry_points[:, :1], near.shape)[lacking]
            np.maximum(entry_points, 0, out=entry_points)
        np.multiply(entry_points, stride(self.rows), out=entered_at, casting="unsafe")
        self.index.search_level_0(
            len(queries), pointers[0], count, pointers[3], pointers[1], pointers[4], pointers[5],
            entered, 2, _parameters(faiss, max(steps, count)),
        )  # fmt: skip
        return places.copy() if len(queries) == 1 else places

    def scored(
        self, query: FloatArray, count: int, keep: BoolArray | None
    ) -> tuple[FloatArray, IntArray]:
        """The nearest by their bytes of all rows, or of those kept, (rows,) flags; query (1, d).

        Similarities and places, (1, count) each, nearest first; hugely negative and -1 where none.
        """
        faiss = faiss_for(len(query))
        storage, scale, middle = self._signed
        scaled = query * scale
        step = float(np.abs(scaled).max()) / _TOP or 1.0
        chosen = None
        if keep is not None:
            selector = faiss.IDSelectorBitmap(np.packbits(keep, bitorder="little"))
            chosen = faiss.SearchParameters(sel=selector)
        products, places = storage.search(np.rint(scaled / step), count, params=chosen)
        # A place that there is not keeps its hugely negative number.
        similarities = np.where(places < 0, products, products * step + float(query[0] @ middle))
        return similarities.astype(np.float32), places

    @functools.cached_property
    def _signed(self) -> tuple[Any, FloatArray, FloatArray]:
        """The graph's bytes as whole numbers from -128 on, in place: FAISS index, what one step is
        worth in each dimension, and what 0 stands for.

        The query is turned into such numbers too. Of 100,000 rows FAISS scores a tenth here and
        there in 2.8 ms like this, in 4.5 ms by floats; all of them in 7 and 17 (one thread).
        """
        faiss = faiss_for(1)
        bytes_ = faiss.downcast_index(self.index.storage)
        signed = faiss.ScalarQuantizer.QT_8bit_direct_signed
        view = faiss.IndexScalarQuantizer(bytes_.d, signed, bytes_.metric_type)
        view.codes, view.ntotal, view.is_trained = bytes_.codes, bytes_.ntotal, True
        least, extent = faiss.vector_to_array(bytes_.sq.trained).reshape(2, -1)
        return view, extent / 255, least + extent * (128.5 / 255)

    def decoded(self, start: int, stop: int) -> FloatArray:
        """The rows at places `start` to `stop` as the graph has them, rounded to bytes."""
        rows: FloatArray = self.index.reconstruct_n(start, stop - start)
        return rows


@functools.lru_cache(maxsize=64)
def _parameters(faiss: Any, steps: int) -> Any:
    """Made once: that takes a tenth of a search's time."""
    return faiss.SearchParametersHNSW(efSearch=steps)


def grown(
    vectors: FloatArray,
    base: Hnsw | None,
    path: Path,
    progress: Progress = lambda _done, _all: None,
    stop: Callable[[], bool] = lambda: False,
) -> tuple[Any, int] | None:
    """A FAISS index over all of `vectors` and the rows that its bytes were fitted to.

    Every row is linked to. It goes on from `base`, which lies at `path`, or begins anew without
    one. None if `stop` asked for it; an interruption leaves nothing either, for half a graph
    answers as if it were whole.
    """
    faiss = faiss_for(len(vectors))
    if base is None:
        index, trained = _empty(faiss, vectors, LINKS, CONSTRUCTION), len(vectors)
    else:
        index, trained = faiss.read_index(str(path)), base.trained
    for start in range(int(index.ntotal), len(vectors), _BLOCK):
        progress(start, len(vectors))
        if stop():
            return None
        index.add(np.ascontiguousarray(vectors[start : start + _BLOCK]))
    link_all(index)
    progress(len(vectors), len(vectors))
    return index, trained


def _untrained(faiss: Any, width: int, links: int, construction: int) -> Any:
    bytes_each = faiss.ScalarQuantizer.QT_8bit
    index = faiss.IndexHNSWSQ(width, bytes_each, links, faiss.METRIC_INNER_PRODUCT)
    index.hnsw.efConstruction = construction
    return index


def _made_like(faiss: Any, graph: Hnsw, doors: int, width: int) -> list[tuple[Any, int]]:
    """What the file of a graph must hold: the graph, and that of its entry points."""
    if doors != math.ceil(graph.rows / stride(graph.rows)):
        raise OddGraph(f"{doors} entry points do not lead into {graph.rows} rows")
    whole = _untrained(faiss, width, graph.links, graph.construction)
    return [
        (whole, graph.rows),
        (_untrained(faiss, width, _ENTRY_LINKS, _ENTRY_CONSTRUCTION), doors),
    ]


def _empty(faiss: Any, vectors: FloatArray, links: int, construction: int) -> Any:
    index = _untrained(faiss, vectors.shape[1], links, construction)
    stride = max(1, math.ceil(len(vectors) / _TRAINING_ROWS))
    index.train(np.ascontiguousarray(vectors[::stride]))
    return index


def entry_points_of(vectors: FloatArray) -> Any:
    """A FAISS index of every `_stride`-th row."""
    faiss = faiss_for(len(vectors))
    rows = np.array(vectors[:: stride(len(vectors))], dtype=np.float32)
    entry_points = _empty(faiss, rows, _ENTRY_LINKS, _ENTRY_CONSTRUCTION)
    entry_points.add(rows)
    link_all(entry_points)
    return entry_points


def stride(rows: int) -> int:
    """Of so many rows, one in how many is an entry point."""
    return max(ENTRY_STRIDE, math.ceil(rows / _MOST_ENTRY_POINTS))


def save(graph: Hnsw, path: Path) -> Hnsw:
    """Write a graph and its side file, and open it mapped; the caller holds the writer lock."""
    temporary = path.with_name(f".{path.name}.tmp")
    _write(graph, temporary)
    state = {
        "kind": KIND, "rows": graph.rows, "trained": graph.trained, "anchor": graph.anchor,
        "measured": graph.measured, "doors": graph.entry_points.ntotal,
        "links": graph.links, "construction": graph.construction, "unlinked": graph.unlinked,
        "efforts": {name: [e.steps, e.recall] for name, e in graph.efforts.items()},
        "xxh3": file_hash(temporary), "size": temporary.stat().st_size,
    }  # fmt: skip
    disk.discard(side_file(path))  # a crash in between leaves no statement, not a wrong one
    disk.sync_file(temporary)
    disk.rename(temporary, path)
    disk.replace(side_file(path), seal(state))
    return load(path, graph.anchor, graph.index.d) or graph


def _write(graph: Hnsw, path: Path) -> None:
    import faiss

    try:
        writer = faiss.FileIOWriter(str(path))
        faiss.write_index(graph.index, writer)
        faiss.write_index(graph.entry_points, writer)
        del writer  # closes the file
    except RuntimeError as error:  # what FAISS makes of a full disk
        disk.unlink(path)
        raise ShelfError(
            f"the index could not be written to {path.parent} ({error}): nothing is lost, searches"
            " stay exact; free some space, and the next change builds it again"
        ) from error


def stated(path: Path) -> dict[str, Any] | None:
    """The sealed statement about the graph at `path`; None if there is none, or of another kind."""
    state = read_state(path)
    counted = state is not None and all(is_count(state.get(name)) for name in _COUNTED)
    return state if counted and state is not None and state.get("kind") == KIND else None


def _made_with(state: dict[str, Any]) -> tuple[int, int, int]:
    """Links, construction and unlinked rows; raises ValueError for what no graph of ours has."""
    made = state["links"], state["construction"], state.get("unlinked", 0)
    within = zip(made, (_MOST_LINKS, _MOST_CONSTRUCTION, state["rows"]), strict=True)
    if not all(is_count(number) and number <= most for number, most in within) or made[0] < 2:
        raise ValueError(f"a graph made with {made!r}")
    return made


def _effort(steps: Any, recall: Any) -> Effort:
    """What a statement gives of an effort. Raises ValueError: FAISS allocates as many steps."""
    if steps is not None and not is_count(steps, _MOST_STEPS):
        raise ValueError(f"a search of {steps!r} steps")
    return Effort(steps, float(recall))


def load(path: Path, anchor: str | None, width: int, *, whole: bool = False) -> Hnsw | None:
    """The graph at `path`, or None if it is missing, damaged or not of the anchored vectors.

    Its checksum and its layout are checked first: FAISS may crash on other bytes. Of a graph that
    no query is answered by only the statement is read, without `index` and `entry_points`, unless
    it is wanted `whole`.
    """
    state = stated(path)
    if state is None or anchor is None or state.get("anchor") != anchor:
        return None
    try:
        efforts = {name: _effort(*found) for name, found in state["efforts"].items()}
        bare = Hnsw(
            None, None, state["rows"], state["trained"], anchor, efforts, state["measured"],
            state["size"], *_made_with(state),
        )  # fmt: skip
        if not (whole or bare.helps):
            return bare
        # Read before it is mapped: a bad sector of a mapping would end the process.
        if fault_of(path, state["xxh3"]):
            return None
        data = mapped(path, np.uint8)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):  # ValueError: it is empty
        return None
    faiss = faiss_for(1)
    try:
        check_graphs(np.asarray(data), _made_like(faiss, bare, state["doors"], width))
    except OddGraph as odd:
        logger.warning("%s is not used, as %s: it is built again", path, odd)
        return None
    # A viewed index points into the mapping, so both live as long as it does.
    reader = faiss.ZeroCopyIOReader(faiss.swig_ptr(np.asarray(data)), data.size)
    index, entry_points = faiss.read_index(reader), faiss.read_index(reader)
    return replace(bare, index=index, entry_points=entry_points, held=(data, reader))
