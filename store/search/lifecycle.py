"""The life cycle of the approximate index: one file an epoch, made by writers alone.

It is built after a change is acknowledged, without the writer lock, and put in place with it.
Until then, and whenever the file is missing, damaged or of other vectors, search is exact.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xxhash

from kinshelf.db.arrays import FloatArray
from kinshelf.db.catalog.statement import side_file
from kinshelf.db.errors import InputError
from kinshelf.db.mapping import is_whole
from kinshelf.store.log import disk
from kinshelf.store.log.layout import index_path
from kinshelf.store.search import hnsw
from kinshelf.store.search.hnsw import Hnsw
from kinshelf.store.search.links import unlinked

if TYPE_CHECKING:
    from kinshelf.store.log.ledger import Ledger

logger = logging.getLogger(__name__)
Stop = Callable[[], bool]
Steps = Callable[[int, int], None]
"""A progress callback: rows indexed, rows in all."""
Writing = Callable[[], contextlib.AbstractContextManager[object]]
MINIMUM_BYTES = 96 << 20
"""Of vectors: 24,576 rows at 1024 floats. One thread scores that many exactly in 5 ms, faster than
a person sees; a graph would cost seconds of building and 0.2 s of importing FAISS a command."""
UNINDEXED_ROWS, UNINDEXED_SHARE = 2048, 0.02
"""Rows after the graph that are scored exactly with every query before the graph is grown."""
_RETUNE = 1.25
"""Grown beyond this multiple of the rows that its efforts were measured on, they are again."""
_REFIT = 2.0
"""Grown beyond this multiple of the rows that its bytes were fitted to, a graph is made anew."""


EXACT = "KINSHELF_EXACT"
"""The variable that has every search score all rows: 1, or 0 and unset for not."""
_QUERIES = {"both": "whole products", "image": "pictures alone", "text": "texts alone"}


def never() -> bool:
    """Do not stop."""
    return False


def silent(_done: int, _all: int) -> None:
    """Tell nobody."""


class EpochIndex:
    """The index of one epoch: opened when it is first asked for, and again when it was replaced.

    Snapshots keep hold of the one that they were taken with, so that a snapshot of an older epoch
    never meets the places of a newer one.
    """

    def __init__(self, directory: Path, ledger: Ledger) -> None:
        self._ledger = ledger
        self._epoch = ledger.manifest.epoch
        self.path = index_path(directory, self._epoch)
        self._side = side_file(self.path)
        self._graph: Hnsw | None = None
        self._stamp: tuple[int, int] | None = None
        self._turn = threading.Lock()
        self.declined = False

    def of(self, vectors: FloatArray) -> Hnsw | None:
        """The graph to search these vectors with, the first ones of the epoch; None: exactly.

        It may be over fewer of them, or over later ones too.
        """
        if not _pays(vectors):
            return None
        with self._turn:
            stamp = self._written()
            if stamp not in (None, self._stamp) and self._ledger.manifest.epoch == self._epoch:
                self._stamp = stamp
                self._graph = open_graph(self.path, self._ledger) or self._graph
            if self._graph and not self._graph.whole:
                self._graph = None
            graph = self._graph
            if graph and graph.vectors is None and graph.rows <= len(vectors):
                self._graph = replace(graph, vectors=np.asarray(vectors[: graph.rows]))
            return self._graph

    def _written(self) -> tuple[int, int] | None:
        try:
            status = self._side.stat()
        except OSError:
            return None
        return status.st_ino, status.st_mtime_ns

    def is_due(self, vectors: FloatArray) -> bool:
        """Whether a graph over these vectors is wanted and the present one is out of date."""
        graph = self.of(vectors)
        covered = 0 if graph is None else graph.rows
        unindexed = len(vectors) - covered
        wanted = _pays(vectors) and not self.declined
        # where a graph did not help, much must change before it is worth another try
        share = UNINDEXED_SHARE if graph is None or graph.helps else _RETUNE - 1
        return wanted and (graph is None or unindexed > UNINDEXED_ROWS + share * covered)

    def update(
        self,
        vectors: FloatArray,
        writing: Writing,
        progress: Steps = silent,
        stop: Stop = never,
    ) -> bool:
        """Build or grow the graph over these vectors if it is due; True if a new one is in place.

        `writing` takes the writer lock. A `stop` is remembered: this handle will not try again.
        """
        if not self.is_due(vectors):
            return False
        self.declined = stop()
        if self.declined:
            return False
        mark = anchor(self._ledger, len(vectors))
        base = self._base(len(vectors))
        made = hnsw.grown(vectors, base, self.path, progress, stop)
        if made is None or mark is None:
            self.declined = True
            return False
        from kinshelf.store.search.recall import tuned

        index, trained = made
        graph = Hnsw(
            index, hnsw.entry_points_of(vectors), len(vectors), trained, mark, {}, len(vectors),
            links=index.hnsw.nb_neighbors(1), construction=index.hnsw.efConstruction,
            unlinked=unlinked(index),
        )  # fmt: skip
        if base is None or len(vectors) > _RETUNE * base.measured:
            graph = tuned(graph, vectors)
        else:
            graph = replace(graph, efforts=base.efforts, measured=base.measured)
        with writing():
            # A compaction meanwhile has made these vectors, and so the graph, a thing of the past.
            current = anchor(self._ledger, len(vectors)) == mark and is_whole(vectors)
            if current:
                self._graph = hnsw.save(graph, self.path)
                self._stamp = self._written()
        if current and (shortfall := _shortfall(graph)):
            logger.warning("%s: %s", self.path.parent, shortfall)
        return current

    def _base(self, rows: int) -> Hnsw | None:
        """The graph to go on from, if it is worth it and the file is the one that was checked."""
        graph = self._graph
        if graph is None or not graph.helps or rows > _REFIT * graph.trained:
            return None
        return graph if self._written() == self._stamp else None

    def discard_unused(self, vectors: FloatArray) -> None:
        """Remove the file of a shelf that is too small for one; the caller is the writer."""
        if vectors.nbytes < MINIMUM_BYTES:
            for file in (side_file(self.path), self.path):
                disk.unlink(file)

    def report(self, vectors: FloatArray) -> dict[str, Any]:
        """For `info`: what searches these vectors, how far it reaches and what it was measured."""
        graph = self.of(vectors)
        if graph is None:
            return {"kind": "exact", "rows": len(vectors), "bytes": 0, "due": self.is_due(vectors)}
        rows = min(graph.rows, len(vectors))
        efforts = {
            name: {"efSearch": effort.steps, "recall@10": round(effort.recall, 4)}
            for name, effort in graph.efforts.items()
        }
        return {
            "kind": hnsw.KIND if graph.helps else "exact",
            "rows": rows,
            "tail": len(vectors) - rows,
            "bytes": graph.size,
            "M": graph.links,
            "efConstruction": graph.construction,
            "unlinked": graph.unlinked,
            "queries": efforts,
            "shortfall": _shortfall(graph),
            "due": self.is_due(vectors),
        }


def _pays(vectors: FloatArray) -> bool:
    """Whether a graph over these vectors is wanted. Raises InputError for a wrong setting."""
    given = os.environ.get(EXACT, "").strip()
    if given not in ("", "0", "1"):
        raise InputError(f"{EXACT} is {given!r}: set it to 1 to score every row, or leave it unset")
    return given != "1" and vectors.nbytes >= MINIMUM_BYTES


def _shortfall(graph: Hnsw) -> str | None:
    """The kinds of queries that the graph finds too little of, and what can be done."""
    short = [
        f"{100 * effort.recall:.1f} % for {_QUERIES[kind]}"
        for kind, effort in graph.efforts.items()
        if effort.falls_short
    ]
    if not short:
        return None
    return (
        f"of the 10 nearest the index finds {', '.join(short)}, not {100 * hnsw.RECALL:.0f} %: such"
        f" answers are not `exhaustive`; {EXACT}=1 scores every row instead"
    )


def anchor(ledger: Ledger, rows: int) -> str | None:
    """The mark of an epoch's first `rows` vectors; None if no change ends there.

    Made of the checksums that the log has of them, so nothing has to be read.
    """
    digest = xxhash.xxh3_64()
    at = 0
    for frame in (*ledger.base, *ledger.heads):
        if count := frame.head.get("rows"):
            digest.update(f"{count} {frame.head['vectors']} ".encode())
            at += count
        if at == rows:
            return f"{ledger.manifest.epoch}-{digest.hexdigest()}"
    return None


def open_graph(path: Path, ledger: Ledger, *, whole: bool = False) -> Hnsw | None:
    """The graph at `path` if it is of the ledger's vectors, and sound as far as it is read."""
    state = hnsw.stated(path)
    if state is None:
        return None
    return hnsw.load(path, anchor(ledger, state["rows"]), ledger.width, whole=whole)
