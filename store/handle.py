"""What commands and probes need of a shelf, wherever its products lie.

`Shelf` keeps them in a directory, `cluster.engine.EngineShelf` in PostgreSQL or Milvus. Both differ
in how a change is made durable and how rows are found; what can be said in terms of these two is
said here, once.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from kinshelf.store import changing
from kinshelf.store.interface import BLOCK

if TYPE_CHECKING:
    from kinshelf.db.product import Product
    from kinshelf.db.queries import StoredProduct
    from kinshelf.db.sql import Table
    from kinshelf.store.compact import CompactReport
    from kinshelf.store.encoder import Encoder
    from kinshelf.store.interface import AnySnapshot, VectorBlock
    from kinshelf.store.manifest import Manifest
    from kinshelf.store.probes import ProbeEntry
    from kinshelf.store.records import OpenRejects
    from kinshelf.store.report import AddOptions, AddReport, OnConflict, SearchResult
    from kinshelf.store.telling import Neighbours

FloatArray = NDArray[np.float32]


class AnyShelf(ABC):
    """A handle on a shelf, in a directory or on an engine; use it in a `with` statement.

    `path` is where its files on this machine lie: probes, downloaded pictures.
    """

    path: Path
    _encoder: Encoder | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.close()

    @abstractmethod
    def close(self) -> None:
        """Let go of memory and connections."""

    @property
    def name(self) -> str:
        """What messages call it: its path, or its address without the password."""
        return str(self.path)

    # ---- reading

    @abstractmethod
    def snapshot(self, at: int | None = None) -> AnySnapshot:
        """The newest committed generation, or generation `at`. Raises GenerationNotFound."""

    @property
    @abstractmethod
    def generation(self) -> int:
        """The newest committed generation that this handle has read."""

    @property
    @abstractmethod
    def manifest(self) -> Manifest:
        """Format, encoder and dimension."""

    @property
    def fingerprint(self) -> str:
        """What decides this shelf's embeddings; `declared:...` while they were only brought."""
        return self.manifest.fingerprint or f"declared:{self.manifest.encoder}"

    @property
    def dimension(self) -> int:
        """Of one modality; 0 while nothing was added."""
        return self.manifest.dimension or 0

    @property
    def encoder(self) -> Encoder:
        """The shelf's encoder, loaded at first use.

        Raises EncoderUnavailable, or EncoderMismatch if its files changed since they were used.
        """
        if self._encoder is None:
            from kinshelf.store.canary import load_encoder_of

            return self.use_encoder(load_encoder_of(self.name, self.manifest))
        return self._encoder

    def use_encoder(self, encoder: Encoder) -> Encoder:
        """Embed with this one from now on. Raises EncoderMismatch if it is not the shelf's own."""
        self.check_encoder(encoder)
        self._encoder = encoder
        return encoder

    def release_encoder(self) -> None:
        """Let go of the encoder and its memory; what needs it next loads it again."""
        from kinshelf.store.threads import return_memory

        if self._encoder is not None:
            self._encoder = None
            return_memory()

    def check_encoder(self, encoder: Encoder) -> None:
        """Raises EncoderMismatch, naming both, unless the encoder is the shelf's own."""
        from kinshelf.store.matching import check_encoder

        check_encoder(encoder, self.name, self.manifest, empty=self._empty)

    @property
    @abstractmethod
    def _empty(self) -> bool:
        """Whether no row was ever given."""

    def get(self, product_id: str) -> StoredProduct:
        """The product of an id. Raises ProductNotFound, naming ids that look like it."""
        return self.snapshot().get(product_id)

    def search(self, queries: FloatArray, k: int = 10, *, where: str | None = None) -> Neighbours:
        """The k products nearest to each query among those that match; `queries` are halves,
        (n, 2 * dimension) float32. Raises FilterError, EmptyShelf or InvalidEmbeddings."""
        return self.snapshot().kneighbors(queries, k, where=where)

    def iter_vectors(self, where: str | None = None, *, size: int = BLOCK) -> Iterator[VectorBlock]:
        """The newest generation's; see `AnySnapshot.iter_vectors`."""
        return self.snapshot().iter_vectors(where, size=size)

    def similar(
        self,
        *,
        product_id: str | None = None,
        image: str | bytes | None = None,
        text: str | None = None,
        k: int = 10,
        where: str | None = None,
        weight_image: float = 0.5,
        at: int | None = None,
    ) -> SearchResult:
        """The k products nearest to a stored product, or to a picture, a text or both.

        `image`: path, URL or bytes. The stored product itself is left out. Similarity is
        `weight_image * image cosine + (1 - weight_image) * text cosine`. `at`: as of then.
        Raises GenerationNotFound, ProductNotFound, FilterError, EmptyShelf, ImageRejected or
        EncoderError.
        """
        from kinshelf.store import asking

        return asking.similar(
            self, product_id=product_id, image=image, text=text, k=k, where=where,
            weight_image=weight_image, at=at,
        )  # fmt: skip

    def export(self, path: Path | str, *, where: str | None = None) -> int:
        """Write products to `.parquet` (with embeddings), `.csv`, `.tsv` or `.jsonl`."""
        from kinshelf.store.exporting import export

        return export(self.snapshot(), Path(path), where)

    @abstractmethod
    def info(self, at: int | None = None, *, recall: bool = False) -> dict[str, Any]:
        """Counts, categories, encoder, index, probes, open rejects; `recall`: measure it now."""

    @abstractmethod
    def history(self, limit: int | None = None) -> list[dict[str, Any]]:
        """The changes, newest first; `kept` tells whether `at=` can ask for that generation."""

    @abstractmethod
    def sql(self, query: str) -> Table:
        """Answer a read-only SQL query over the tables of the newest generation."""

    def bring_probe(self, entry: ProbeEntry) -> None:  # noqa: B027
        """Have the files of a probe where `entry.path` says; they are there in a directory."""

    # ---- writing

    @abstractmethod
    def writing(self) -> AbstractContextManager[Self]:
        """Hold the writer lock: what is changed inside comes from this handle alone."""

    @abstractmethod
    def commit(
        self, head: dict[str, Any], body: dict[str, Any], vectors: FloatArray | None = None
    ) -> int:
        """Make one change durable; the caller is inside `writing()`. Returns its generation."""

    @abstractmethod
    def known(self, ids: Sequence[str]) -> dict[str, StoredProduct]:
        """The products of those ids that are in the shelf; the caller is inside `writing()`."""

    @abstractmethod
    def open_rejects(self) -> OpenRejects:
        """Rejects that were not resolved; the caller is inside `writing()`."""

    def keep_up(self, since: int, rows: int) -> None:  # noqa: B027
        """Take in what a small change made due, so that the next query need not wait for it."""

    @property
    @abstractmethod
    def next_row(self) -> int:
        """The number that the next new row will get."""

    @abstractmethod
    def set_manifest(self, **changes: object) -> None:
        """Change fields of the manifest, durably; the caller is inside `writing()`."""

    @abstractmethod
    def build_index(
        self,
        *,
        stop: Callable[[], bool] = lambda: False,
        progress: Callable[[int, int], None] = lambda _done, _all: None,
    ) -> bool:
        """Build or grow the approximate index if the shelf wants one; True if it did."""

    @abstractmethod
    def compact(self, keep: int = 1) -> CompactReport:
        """Give back the space of all but the newest `keep` generations."""

    def writing_encoder(self) -> Encoder:
        """The encoder, and its fingerprint and dimension written down if it is the first use."""
        encoder = self.encoder
        if self.manifest.fingerprint is None:
            from kinshelf.store.canary import identity_of

            self.set_manifest(**identity_of(encoder))
        return encoder

    def fit_dimension(self, dimension: int, **identity: Any) -> None:
        """Take the dimension of the first embeddings brought; raises InvalidEmbeddings later on."""
        if dimension == self.dimension and not identity:
            return
        from kinshelf.store.matching import check_dimension

        check_dimension(dimension, self.name, self.manifest, empty=self._empty)
        self.set_manifest(**{"dimension": dimension, **identity})

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

    def upsert(
        self,
        products: Sequence[Product],
        image_embeddings: FloatArray | None = None,
        text_embeddings: FloatArray | None = None,
        *,
        on_conflict: OnConflict = "update",
    ) -> AddReport:
        """Insert or update products by id, as one change if embeddings come with them.

        Embeddings are (len(products), dimension) float, row i that of product i, a row of zeros
        for a missing modality; without any, the shelf's encoder makes them, a batch at a time.
        Raises InvalidEmbeddings for arrays that do not fit; a bad row is a reject in the report.
        """
        from kinshelf.store.adding import upsert

        return upsert(self, products, image_embeddings, text_embeddings, on_conflict)

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

    def remove(self, ids: Sequence[str]) -> int:
        """Remove products; all or, if an id is not there (ProductNotFound), none."""
        return changing.remove(self, ids)

    def relabel(self, changes: Mapping[str, str | None]) -> int:
        """Give products other categories, as one change; returns how many had another.

        All or, if an id is not there (ProductNotFound), none. Nothing is encoded.
        """
        return changing.relabel(self, changes)
