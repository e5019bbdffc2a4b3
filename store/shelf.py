"""A shelf: one directory that holds one catalogue with its vectors, index and probes."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

import numpy as np

from kinshelf.db.arrays import FloatArray
from kinshelf.db.catalog.queries import View
from kinshelf.db.errors import KinshelfError
from kinshelf.db.logs import tolerated
from kinshelf.store import info
from kinshelf.store.base import AnyShelf
from kinshelf.store.log import catalog_cache, disk
from kinshelf.store.log.known import Known
from kinshelf.store.log.ledger import Ledger
from kinshelf.store.log.lock import WriterLock
from kinshelf.store.log.manifest import Manifest
from kinshelf.store.operation import operation, stamped
from kinshelf.store.search.lifecycle import EpochIndex, Steps, Stop, never, silent
from kinshelf.store.snapshot import Parts, Snapshot

if TYPE_CHECKING:
    from kinshelf.db.catalog.records import Body, Head
    from kinshelf.db.catalog.sql import Table
    from kinshelf.db.product import StoredProduct
    from kinshelf.store.encode.encoder import Encoder
    from kinshelf.store.log.records import OpenRejects
    from kinshelf.store.results import Rows

T = TypeVar("T")
KEPT_UP = 0.05
"""Of all rows: beyond it, a change is bulk, and who adds in bulk does not query in between."""
WARMED, WARMING, WARM_ROWS = 64, 0.007, 500_000
"""After a small change one query is asked for so many rows of it, for as many seconds at most.
After one alone, the next query after 1,000 more rows took 2.9 times as long as before them, at
100,000 rows; after these 1.8 to 2.2 times. Beyond WARM_ROWS a query takes longer than that."""


class DirectoryShelf(AnyShelf):
    """A handle on a shelf in a directory. Any number of handles may read; one may write at a time.

    Reading takes no lock: `snapshot()` is the newest committed generation, and each answer is
    computed from one snapshot. Writing methods take the writer lock for their duration and raise
    ShelfLocked, naming the holder, if another process has it.
    """

    def __init__(
        self, path: Path | str, *, wait: float = 0.0, encoder: Encoder | None = None
    ) -> None:
        """Open the shelf at `path`; `wait` is how many seconds a write may wait for the lock.

        `encoder` is one that is loaded already; without it the shelf's own is loaded when it is
        first needed. Raises ShelfNotFound, ShelfDamaged, UnsupportedFormat or EncoderMismatch.
        """
        disk.check_system()
        self.path = Path(path)
        self._lock = WriterLock(self.path, wait=wait)
        self._ledger = Ledger(self.path, self._lock)
        self._refreshing = self._ledger.reading
        self._encoder: Encoder | None = None
        self._wrote = False
        self._loads = 0
        self._ledger.settled(self._match)
        if encoder is not None:
            self.use_encoder(encoder)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._index.declined |= kind is not None
        self.close()

    def close(self) -> None:
        """Release the memory; after writing, save files that make the next opening and search fast.

        A large shelf that grew gets its index here (half a minute for 100,000 rows; Ctrl-C loses
        nothing but it), unless `build_index` was called before, or was stopped.
        """
        self.release_encoder()  # the index needs the room
        if self._wrote:
            self._wrote = False
            self._save_derived()
        with self._refreshing:
            self._catalog.close()

    def _save_derived(self) -> None:
        # Derived files are a convenience: a full disk or another writer is no reason to fail.
        slow = f"the next opening of {self.path} reads its log, as the catalogue is not saved"
        errors = (KinshelfError, OSError)
        with tolerated(*errors, room="store", then=slow), self.writing(), self._refreshing:
            self._follow()
            catalog_cache.save_catalog(self.path, self._ledger, self._catalog)
            self._index.discard_unused(self._ledger.vectors(self._ledger.rows))
        slow = f"{self.path} is searched without a new index, as it is not built"
        with tolerated(*errors, room="store", then=slow):
            self.build_index()

    # ---- reading

    def _follow(self) -> None:
        """Read what was committed since."""
        self._ledger.settled(self._match)

    def _match(self) -> None:
        """Another epoch has a catalogue and an index of its own."""
        if self._loads != self._ledger.loads:
            self._load_derived()

    def _load_derived(self) -> None:
        self._catalog = catalog_cache.load_catalog(self.path, self._ledger)
        self._index = EpochIndex(self.path, self._ledger)
        self._known: Known | None = None
        self._newest: Snapshot | None = None
        self._loads = self._ledger.loads

    def snapshot(self, at: int | None = None) -> Snapshot:
        """The newest committed generation, or generation `at`. Raises GenerationNotFound."""
        return self._ledger.settled(self._current if at is None else lambda: self._at(at))

    def _current(self) -> Snapshot:
        self._match()
        newest = self._newest
        if not (newest and newest.generation == self._ledger.generation and newest.whole):
            self._newest = newest = self._take_snapshot(self._ledger.generation)
        return newest

    def _at(self, generation: int) -> Snapshot:
        self._match()
        catalog_cache.check_kept(self._ledger, generation)
        return self._take_snapshot(generation)

    def _take_snapshot(self, generation: int) -> Snapshot:
        self._catch_up()
        rows = self._ledger.rows_at(generation)
        vectors, removed_at = self._ledger.vectors(rows), self._ledger.removed_at(rows)
        parts = Parts(generation, self.fingerprint, vectors, self._ledger.first_row, removed_at)
        return Snapshot(parts, View(self._catalog, generation), self._index.of)

    def _catch_up(self) -> None:
        if self._catalog.generation == self._ledger.generation:
            return
        try:
            catalog_cache.catch_up(self._catalog, self._ledger)
        except BaseException:  # interrupted, it may hold a change that it does not know of
            self._load_derived()
            raise

    @property
    def generation(self) -> int:
        """The newest committed generation that this handle has read."""
        return self._ledger.generation

    @property
    def manifest(self) -> Manifest:
        """Format, epoch, encoder and dimension."""
        return self._ledger.manifest

    @property
    def _empty(self) -> bool:
        return self._ledger.rows == self._ledger.first_row

    # ---- writing

    @contextlib.contextmanager
    def writing(self) -> Iterator[Self]:
        """Hold the writer lock: what is changed inside comes from this handle alone."""
        with self._lock, operation():
            with self._refreshing:
                self._ledger.begin()
            yield self

    def commit(self, head: Head, body: Body, vectors: FloatArray | None = None) -> int:
        """Make one change durable; the caller is inside `writing()`. Returns its generation."""
        with self._refreshing:
            self._follow()
        head = stamped(head, self.name, self._ledger.generation + 1)
        frame = self._ledger.append(head, body, vectors)  # other threads read on meanwhile
        with self._refreshing:
            self._ledger.take(frame)
            self._wrote = True
            if self._known and self._known.generation == frame.generation - 1:
                self._known.apply(frame.generation, body)
        return frame.generation

    def _up_to_date(self) -> Known:
        self._follow()
        if self._known is None:
            self._known = Known(self.snapshot().view)
        self._known.catch_up(self._ledger)
        return self._known

    def known(self, ids: Sequence[str]) -> dict[str, StoredProduct]:
        """The products of those ids that are in the shelf; the caller is inside `writing()`."""
        with self._refreshing:
            rows = self._ledger.live(self._up_to_date().rows(ids))
            found = self.snapshot().view.by_rows(rows) if rows else {}
        return {stored.product.id: stored for stored in found.values()}

    def open_rejects(self) -> OpenRejects:
        """Rejects that were not resolved; the caller is inside `writing()`."""
        with self._refreshing:
            return self._up_to_date().rejects

    def keep_up(self, since: int, rows: int) -> None:
        """Take in a small change since a generation now: the next query need not wait for it."""
        if self._catalog.generation == since and 0 < rows <= KEPT_UP * self._ledger.rows:
            now, until = self.snapshot(), time.monotonic() + WARMING
            if now.count > WARM_ROWS:
                return
            if graph := now.searched().graph:
                graph.unindexed_rows.take_in(self._ledger.vectors(self._ledger.rows))
            # What a commit touches has driven the graph and the rows out of the caches.
            last, count = self._ledger.rows - 1, 1 + rows // WARMED
            for row in np.linspace(last, self._ledger.first_row, count):
                now.kneighbors(now.pairs([int(row)]), 10)
                if time.monotonic() > until:
                    break

    @property
    def next_row(self) -> int:
        """The number that the next new row will get."""
        return self._ledger.rows

    def set_manifest(self, **changes: object) -> None:
        """Change fields of the manifest, durably; the caller is inside `writing()`."""
        self._ledger.set_manifest(**changes)

    def replace_truth(self, rewrite: Callable[[Ledger], T]) -> T:
        """Have `rewrite` begin a new epoch of the ledger; the caller is inside `writing()`."""
        done = rewrite(self._ledger)
        self._wrote = True
        self._follow()
        return done

    def build_index(self, *, stop: Stop = never, progress: Steps = silent) -> bool:
        """Build or grow the approximate index if the shelf wants one; True if it did.

        Others read and write meanwhile. Once `stop` ended it, `close` will not build it either.
        """
        with self._refreshing:
            self._follow()
            vectors = self._ledger.vectors(self._ledger.rows)
        return self._index.update(vectors, self.writing, progress, stop)

    def sql(self, query: str) -> Table:
        """Answer a read-only SQL query over the tables of the newest generation.

        Tables: `products`, `commits`, `rejects`, `probes`. No files, no network, no extensions.
        Raises FilterError.
        """
        return info.run_sql(self.path, self._ledger, query)

    def info(self, at: int | None = None, *, recall: bool = False) -> dict[str, Any]:
        """Counts, categories, encoder, index, probes, open rejects; `recall`: measure it now."""
        now = self.snapshot(at)
        index = self._index.report(now.searched().vectors)
        if recall and now.count:
            from kinshelf.store.search.recall import measured

            index["measured"] = measured(now.searched()).as_dict()
        return info.facts(self, now, index)

    def history(self, limit: int | None = None) -> Rows:
        """The changes, newest first; `kept` tells whether `at=` can ask for that generation."""
        return info.history(self, limit)
