"""A shelf on an engine: the same handle as on a directory, the same ingest and the same probes."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, Self

from kinshelf.db.arrays import FloatArray
from kinshelf.db.catalog.tables import Catalog
from kinshelf.db.errors import GenerationNotFound, OnlyInDirectory, ShelfDamaged
from kinshelf.store.base import AnyShelf
from kinshelf.store.engines.address import TIMEOUT
from kinshelf.store.engines.backend import INDEX_FROM, Backend, Batch, Where
from kinshelf.store.engines.recall import measured
from kinshelf.store.engines.snapshot import EngineSnapshot, Vectors
from kinshelf.store.engines.view import EngineView
from kinshelf.store.info import facts
from kinshelf.store.log import disk
from kinshelf.store.log.lock import WriterLock
from kinshelf.store.log.records import OpenRejects
from kinshelf.store.operation import operation, stamped
from kinshelf.store.probes import damaged_files, probe_directory
from kinshelf.store.results import CompactReport, Rows

if TYPE_CHECKING:
    from kinshelf.db.catalog.records import Body, Head
    from kinshelf.db.product import StoredProduct
    from kinshelf.store.encode.encoder import Encoder
    from kinshelf.store.engines.address import Address
    from kinshelf.store.log.manifest import Manifest
    from kinshelf.store.results import ProbeEntry


class EngineShelf(AnyShelf):
    """A handle on a shelf in a database. Any number may read; one may write at a time.

    `index_from` is the number of rows from which on `build_index` builds an approximate index.
    """

    def __init__(
        self,
        address: Address,
        backend: Backend,
        *,
        wait: float = 0.0,
        encoder: Encoder | None = None,
        index_from: int = INDEX_FROM,
    ) -> None:
        self.path = address.cache
        self._shown = address.shown
        self._backend = backend
        self._wait = wait
        self._index_from = index_from
        self._state = backend.state()
        self._log = Catalog()
        self._vectors = Vectors(backend.vectors)
        self._newest: EngineSnapshot | None = None
        self._reading = threading.RLock()
        self._writing = threading.RLock()
        self._depth = 0
        self._rejects: OpenRejects | None = None
        if encoder is not None:
            self.check_encoder(encoder)
            self._encoder = encoder

    def close(self) -> None:
        """Close the connection."""
        self._backend.close()
        self._log.close()

    @property
    def name(self) -> str:
        """Its address without the password."""
        return self._shown

    # ---- reading

    def snapshot(self, at: int | None = None) -> EngineSnapshot:
        """The newest committed generation, or generation `at`. Raises GenerationNotFound."""
        with self._reading:
            self._follow()
            if at is not None:
                return self._snapshot(self._kept(at))
            if self._newest is None or self._newest.generation != self._state.generation:
                self._newest = self._snapshot(self._state.generation)
            return self._newest

    def _follow(self) -> None:
        """Read what was committed since."""
        before, self._state = self._state, self._backend.state()
        if before.indexed != self._state.indexed:
            self._newest = None
        after, upto = self._log.generation, self._state.generation
        if after < upto and (changes := self._backend.log(after, upto)):
            self._log.apply_all([(g, _without_rows(head), body) for g, head, body in changes])

    def _snapshot(self, generation: int) -> EngineSnapshot:
        view = EngineView(self._backend, self._log, generation)
        return EngineSnapshot(self._backend, self._state, generation, view, self._vectors)

    def _kept(self, generation: int) -> int:
        oldest, newest = self._state.base, self._state.generation
        if not oldest <= generation <= newest:
            raise GenerationNotFound(
                f"{self.name} has no generation {generation}: it keeps {oldest} to {newest}"
            )
        return generation

    @property
    def generation(self) -> int:
        """The newest committed generation that this handle has read."""
        return self._state.generation

    @property
    def manifest(self) -> Manifest:
        """Format, encoder and dimension."""
        return self._state.manifest

    @property
    def _empty(self) -> bool:
        return self._state.next_row == 0

    def info(self, at: int | None = None, *, recall: bool = False) -> dict[str, Any]:
        """Counts, categories, encoder, index, probes, open rejects; `recall`: measure it now."""
        now = self.snapshot(at)
        index = self._index_report(now)
        if recall and now.count:
            index["measured"] = measured(now).as_dict()
        return facts(self, now, index)

    def _index_report(self, now: EngineSnapshot) -> dict[str, Any]:
        due = not now.indexed and now.count >= self._index_from
        kind = f"{self._backend.kind}, HNSW" if now.indexed else "exact"
        size = self._backend.index_bytes() if now.indexed else 0
        return {
            "kind": kind, "rows": now.count, "tail": 0, "bytes": size, "queries": {}, "due": due,
            "engine": self._backend.kind,
        }  # fmt: skip

    def history(self, limit: int | None = None) -> Rows:
        """The changes, newest first; `kept` tells whether `at=` can ask for that generation."""
        found = self.snapshot().view.commits(limit)
        oldest = self._state.base
        return Rows({**commit, "kept": commit["generation"] >= oldest} for commit in found)

    def sql(self, query: str) -> NoReturn:
        """Raises OnlyInDirectory."""
        raise OnlyInDirectory(
            f"{self.name} is on an engine, and `kinshelf sql` asks a shelf in a directory: use the"
            " engine's own client, or `kinshelf copy` it to a directory"
        )

    def bring_probe(self, entry: ProbeEntry) -> None:
        """Fetch the files of a probe to this machine, once."""
        _check_names(entry)
        if damaged_files(entry):
            disk.make_directory(entry.path.parent)
            with WriterLock(entry.path.parent, wait=TIMEOUT):  # others of this machine fetch it too
                if damaged_files(entry):
                    self._fetch(entry)

    def _fetch(self, entry: ProbeEntry) -> None:
        found = self._backend.files(entry.version)

        def write(directory: Path) -> None:
            for name in found.keys() & entry.files.keys():
                (directory / name).write_bytes(found[name])

        disk.write_directory(entry.path, write)

    # ---- writing

    @contextlib.contextmanager
    def writing(self) -> Iterator[Self]:
        """Be the only writer: what is changed inside comes from this handle alone."""
        with self._writing, operation():
            if self._depth == 0:
                self._backend.lock(self._wait)
            self._depth += 1
            try:
                if self._depth == 1:
                    self._begin()
                yield self
            finally:
                self._depth -= 1
                if self._depth == 0:
                    self._backend.unlock()

    def _begin(self) -> None:
        with self._reading:
            self._follow()
            self._backend.undo(self._state)
            self._rejects = None

    def commit(self, head: Head, body: Body, vectors: FloatArray | None = None) -> int:
        """Make one change durable; the caller is inside `writing()`. Returns its generation."""
        generation, next_row = self._state.generation + 1, self._state.next_row
        batch = Batch(
            generation,
            next_row + (0 if vectors is None else len(vectors)),
            {"time": time.time(), **stamped(head, self.name, generation)},
            body,
            vectors,
            self._probe_files(head),
        )
        self._backend.commit(batch)
        with self._reading:
            self._follow()
        if self._rejects is not None:
            for reject in body.get("rejects", ()):
                self._rejects.add(reject)
            self._rejects.settle(body.get("resolved", ()))
        return generation

    def _probe_files(self, head: Head) -> dict[str, bytes]:
        if "probe" not in head:
            return {}
        folder = probe_directory(self, head["probe"]["version"])
        return {name: (folder / name).read_bytes() for name in head["probe"]["files"]}

    def known(self, ids: Sequence[str]) -> dict[str, StoredProduct]:
        """The products of those ids that are in the shelf; the caller is inside `writing()`."""
        return self.snapshot().view.by_ids(ids) if ids else {}

    def open_rejects(self) -> OpenRejects:
        """Rejects that were not resolved; the caller is inside `writing()`."""
        if self._rejects is None:
            self._rejects = OpenRejects(self.snapshot().view.rejects())
        return self._rejects

    @property
    def next_row(self) -> int:
        """The number that the next new row will get."""
        return self._state.next_row

    def set_manifest(self, **changes: object) -> None:
        """Change fields of the manifest, durably; the caller is inside `writing()`."""
        self._backend.set_manifest(self._state.manifest.replace(**changes))
        with self._reading:
            self._newest = None
            self._follow()

    def build_index(
        self,
        *,
        stop: Callable[[], bool] = lambda: False,
        progress: Callable[[int, int], None] = lambda _done, _all: None,
    ) -> bool:
        """Build the engine's approximate index if there are enough rows; True if it did."""
        with self._reading:
            self._follow()
        rows = self._state.next_row
        if self._state.indexed or rows < self._index_from or stop():
            return False
        progress(0, rows)
        with self.writing():
            self._backend.build_index(rows)
        return True

    def drop_superseded(self, keep: int) -> CompactReport:
        """Drop the rows that the newest `keep` generations do not see, inside `writing()`."""
        oldest = max(self._state.base, self._state.generation - keep + 1)
        dropped = self._backend.compact(oldest)
        with self._reading:
            self._follow()
        left = self._backend.count(Where())
        return CompactReport(self.generation, oldest, 0, left, dropped, 0, 0)


def _without_rows(head: Head) -> Head:
    """The products are not in the catalogue that the log is read into."""
    rest = head.copy()
    rest.pop("removed", None)
    return rest


def _check_names(entry: ProbeEntry) -> None:
    """Raises ShelfDamaged where the engine names a file that would lie elsewhere."""
    for name in entry.files:
        if name != Path(name).name:
            raise ShelfDamaged(f"probe {entry.version} names the file {name!r}: train again")
