"""A shelf: one directory that holds one catalogue with its vectors, index and probes."""

from __future__ import annotations

import contextlib
import functools
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from kinshelf.db.errors import (
    EncoderMismatch,
    GenerationNotFound,
    InvalidEmbeddings,
    ShelfLocked,
    ShelfPoisoned,
)
from kinshelf.db.queries import View
from kinshelf.store import derived, ledger
from kinshelf.store.index import FlatIndex
from kinshelf.store.ledger import Ledger
from kinshelf.store.lock import WriterLock
from kinshelf.store.manifest import Manifest
from kinshelf.store.snapshot import Parts, Snapshot

if TYPE_CHECKING:
    from kinshelf.db.sql import Table
    from kinshelf.store.encoder import Encoder
    from kinshelf.store.report import AddOptions, AddReport, SearchResult

FloatArray = NDArray[np.float32]


class Shelf:
    """A handle on a shelf. Any number of handles may read; one may write at a time.

    Reading takes no lock: `snapshot()` is the newest committed generation, and each answer is
    computed from one snapshot. Writing methods take the writer lock for their duration and raise
    ShelfLocked, naming the holder, if another process has it.
    """

    def __init__(
        self, path: Path | str, *, wait: float = 0.0, encoder: Encoder | None = None
    ) -> None:
        self.path = Path(path)
        self._ledger = Ledger(self.path)
        self._lock = WriterLock(self.path, wait=wait)
        self._refreshing = threading.RLock()
        self._encoder: Encoder | None = None
        self._wrote = False
        self._load_derived()
        if encoder is not None:
            self.check_encoder(encoder)
            self._encoder = encoder

    @classmethod
    def create(
        cls, path: Path | str, *, encoder: str | None = None, revision: str | None = None
    ) -> Self:
        """Make an empty shelf; the encoder is loaded only when it is first needed.

        `encoder` is a hub id or a local directory; None is `openai/clip-vit-base-patch32`.
        Raises ShelfExists.
        """
        from kinshelf.store.encoder import DEFAULT_ENCODER, DEFAULT_REVISION

        if encoder is None:
            encoder, revision = DEFAULT_ENCODER, revision or DEFAULT_REVISION
        elif Path(encoder).is_dir():
            encoder = str(Path(encoder).resolve())
        ledger.create(Path(path), Manifest(encoder=encoder, revision=revision))
        return cls(path)

    @classmethod
    def open(cls, path: Path | str, *, wait: float = 0.0, encoder: Encoder | None = None) -> Self:
        """Open a shelf; `wait` is how many seconds a write may wait for the writer lock.

        `encoder` is one that is loaded already; without it the shelf's own is loaded when it is
        first needed. Raises ShelfNotFound, ShelfDamaged, UnsupportedFormat or EncoderMismatch.
        """
        return cls(path, wait=wait, encoder=encoder)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the memory; after writing, save what spares the next opening some work."""
        with self._refreshing:
            if self._wrote:
                self._wrote = False
                self._save_derived()
            self._catalog.close()

    def _save_derived(self) -> None:
        # Derived files are a convenience: a full disk or another writer is no reason to fail.
        with contextlib.suppress(ShelfLocked, ShelfPoisoned, OSError), self.writing():
            now = self.snapshot()
            derived.save_catalog(self.path, self._ledger, self._catalog)
            if now.count:
                derived.save_index(self.path, self._ledger, now.index)

    # ---- reading

    def _load_derived(self) -> None:
        self._catalog = derived.load_catalog(self.path, self._ledger)
        self._index: FlatIndex | None = None
        self._newest: Snapshot | None = None

    def snapshot(self, at: int | None = None) -> Snapshot:
        """The newest committed generation, or generation `at`. Raises GenerationNotFound."""
        with self._refreshing:
            if self._ledger.refresh():
                self._load_derived()
            if self._newest is None or self._newest.generation != self._ledger.generation:
                self._newest = self._take_snapshot(self._ledger.generation)
            return self._newest if at is None else self._at(at)

    def _at(self, generation: int) -> Snapshot:
        oldest = self._ledger.manifest.base_generation
        if not oldest <= generation <= self._ledger.generation:
            raise GenerationNotFound(
                f"generation {generation} is not kept: {self.path} has generations {oldest} to"
                f" {self._ledger.generation}, see `kinshelf history`"
            )
        return self._take_snapshot(generation)

    def _take_snapshot(self, generation: int) -> Snapshot:
        derived.catch_up(self._catalog, self._ledger)
        rows = self._ledger.rows_at(generation)
        parts = Parts(
            generation,
            self.fingerprint,
            self._ledger.vectors(rows),
            self._ledger.first_row,
            self._ledger.removed_at(rows),
        )
        return Snapshot(parts, View(self._catalog, generation), self._grown_index)

    def _grown_index(self, vectors: FloatArray) -> FlatIndex:
        with self._refreshing:
            if self._index is None:
                self._index = derived.load_index(self.path, self._ledger)
            self._index.extend(vectors)
            return self._index

    @property
    def generation(self) -> int:
        """The newest committed generation that this handle has read."""
        return self._ledger.generation

    @property
    def manifest(self) -> Manifest:
        """Format, epoch, encoder and dimension."""
        return self._ledger.manifest

    @property
    def fingerprint(self) -> str:
        """What decides this shelf's embeddings; `declared:...` while they were only brought."""
        manifest = self._ledger.manifest
        return manifest.fingerprint or f"declared:{manifest.encoder}"

    @property
    def dimension(self) -> int:
        """Of one modality; 0 while nothing was added."""
        return self._ledger.manifest.dimension or 0

    @property
    def encoder(self) -> Encoder:
        """The shelf's encoder, loaded at first use.

        Raises EncoderUnavailable, or EncoderMismatch if its files changed since they were used.
        """
        if self._encoder is None:
            from kinshelf.store.encoder import load_encoder

            manifest = self._ledger.manifest
            encoder = load_encoder(manifest.encoder, revision=manifest.revision)
            self.check_encoder(encoder)
            self._encoder = encoder
        return self._encoder

    def check_encoder(self, encoder: Encoder) -> None:
        """Raises EncoderMismatch, naming both, unless the encoder is the shelf's own."""
        manifest = self._ledger.manifest
        known = manifest.fingerprint
        if known is not None and encoder.fingerprint != known:
            raise EncoderMismatch(
                f"{self.path} holds embeddings of {manifest.encoder} ({known}), not of"
                f" {encoder.name} ({encoder.fingerprint}): use the first, or make another shelf"
            )
        if known is None and self._ledger.rows and encoder.dimension != self.dimension:
            raise EncoderMismatch(
                f"{self.path} holds brought embeddings of dimension {self.dimension}, but"
                f" {encoder.name} makes {encoder.dimension}: query with embeddings too, or make"
                " a shelf with the encoder that they came from"
            )

    # ---- writing

    @contextlib.contextmanager
    def writing(self) -> Iterator[Self]:
        """Hold the writer lock: what is changed inside comes from this handle alone."""
        with self._lock:
            with self._refreshing:
                self._ledger.begin()
            yield self

    def commit(
        self, head: dict[str, Any], body: dict[str, Any], vectors: FloatArray | None = None
    ) -> int:
        """Make one change durable; the caller is inside `writing()`. Returns its generation."""
        with self._refreshing:
            if self._ledger.refresh():
                self._load_derived()
            frame = self._ledger.commit(head, body, vectors)
            self._wrote = True
            derived.catch_up(self._catalog, self._ledger, {frame.generation: body})
            return frame.generation

    @property
    def next_row(self) -> int:
        """The number that the next new row will get."""
        return self._ledger.rows

    def writing_encoder(self) -> Encoder:
        """The encoder, and its fingerprint and dimension written down if it is the first use."""
        encoder = self.encoder
        if self._ledger.manifest.fingerprint is None:
            self._ledger.set_manifest(fingerprint=encoder.fingerprint, dimension=encoder.dimension)
        return encoder

    def fit_dimension(self, dimension: int) -> None:
        """Take the dimension of the first embeddings brought; raises InvalidEmbeddings later on."""
        if dimension == self.dimension:
            return
        if self._ledger.rows > self._ledger.first_row or self._ledger.manifest.fingerprint:
            raise InvalidEmbeddings(
                f"these embeddings have {dimension} numbers a row, {self.path} holds"
                f" {self.dimension} ({self.fingerprint}): bring embeddings of that encoder, or"
                " make another shelf"
            )
        self._ledger.set_manifest(dimension=dimension)

    def add(
        self,
        source: Path | str,
        options: AddOptions | None = None,
        *,
        stop: Callable[[], bool] = lambda: False,
        progress: Callable[[int, AddReport], None] = lambda _done, _report: None,
    ) -> AddReport:
        """Upsert the products of a file or folder by id; see `AddOptions`.

        Commits a batch at a time; `stop` is asked after each. Raises InputError subclasses for a
        source that cannot be read at all; a bad row is counted in the report and nothing is lost.
        """
        from kinshelf.store.adding import add_source

        return add_source(self, Path(source), options, stop=stop, progress=progress)

    def remove(self, ids: Sequence[str]) -> int:
        """Remove products; all or, if an id is not there (ProductNotFound), none."""
        with self.writing():
            now = self.snapshot()
            rows = [now.get(product_id).row for product_id in dict.fromkeys(ids)]
            if rows:
                head = {"kind": "remove", "removed": rows, "counts": {"removed": len(rows)}}
                self.commit(head, {})
        return len(rows)

    @functools.cached_property
    def probes_path(self) -> Path:
        """Where probes lie, one directory a version."""
        return self.path / "probes"

    def sql(self, query: str) -> Table:
        """Answer a read-only SQL query over the tables of the newest generation.

        Tables: `products`, `commits`, `rejects`, `probes`. No files, no network, no extensions.
        Raises FilterError.
        """
        from kinshelf.db.sql import check_select, lock_down, run_select

        statement = check_select(query)
        self.snapshot()
        catalog = derived.load_catalog(self.path, self._ledger)
        derived.catch_up(catalog, self._ledger)
        catalog.connection.execute("DELETE FROM products WHERE removed IS NOT NULL")
        lock_down(catalog.connection)
        return run_select(catalog.connection, statement)

    def info(self) -> dict[str, Any]:
        """Counts, categories, encoder, probes and open rejects of the newest generation."""
        now = self.snapshot()
        manifest = self.manifest
        rejects = Counter(r["reason"] for r in now.view.rejects())
        return {
            "shelf": str(self.path),
            "generation": now.generation,
            **now.view.totals(),
            "encoder": manifest.encoder,
            "revision": manifest.revision,
            "fingerprint": now.fingerprint,
            "dimension": self.dimension,
            "format": manifest.format,
            "categories": {k or "(none)": n for k, n in now.view.categories().items()},
            "rejects": dict(rejects.most_common()),
            "probes": now.view.probes(),
        }

    def export(self, path: Path | str, *, where: str | None = None) -> int:
        """Write products to `.parquet` (with embeddings), `.csv`, `.tsv` or `.jsonl`."""
        from kinshelf.store.exporting import export

        return export(self.snapshot(), Path(path), where)

    def retry_rejects(
        self,
        options: AddOptions | None = None,
        *,
        stop: Callable[[], bool] = lambda: False,
        progress: Callable[[int, AddReport], None] = lambda _done, _report: None,
    ) -> AddReport:
        """Try again every product that was rejected, or kept without its picture."""
        from kinshelf.store.adding import retry_rejects

        return retry_rejects(self, options, stop=stop, progress=progress)

    def similar(
        self,
        *,
        product_id: str | None = None,
        image: str | None = None,
        text: str | None = None,
        k: int = 10,
        where: str | None = None,
        weight_image: float = 0.5,
    ) -> SearchResult:
        """The k products nearest to a stored product, or to a picture, a text or both.

        The stored product itself is left out. Similarity is
        `weight_image * image cosine + (1 - weight_image) * text cosine`.
        Raises ProductNotFound, FilterError, EmptyShelf, ImageRejected or EncoderError.
        """
        from kinshelf.store import asking

        return asking.similar(
            self, product_id=product_id, image=image, text=text, k=k, where=where,
            weight_image=weight_image,
        )  # fmt: skip
