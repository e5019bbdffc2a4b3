"""The interface of a shelf that commands and probes use, wherever its products lie.

`Shelf` keeps them in a directory, `cluster.engine.EngineShelf` in PostgreSQL or Milvus. Both differ
in how a change is made durable and how rows are found; what both share is
defined here, once.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from kinshelf.db.arrays import FloatArray
from kinshelf.store.generation import BLOCK
from kinshelf.store.search import fusion

if TYPE_CHECKING:
    from kinshelf.db.catalog.records import Body, Head
    from kinshelf.db.catalog.sql import Table
    from kinshelf.db.product import StoredProduct
    from kinshelf.store.encode.encoder import Encoder
    from kinshelf.store.generation import AnySnapshot, VectorBlock
    from kinshelf.store.log.manifest import Manifest
    from kinshelf.store.log.records import OpenRejects
    from kinshelf.store.results import ProbeEntry, Rows
    from kinshelf.store.search.neighbours import Neighbours


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
        """Release memory and connections."""

    @property
    def name(self) -> str:
        """The name in messages: its path, or its address without the password."""
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
        """Of encoder and pooling: see `Manifest.space`."""
        return self.manifest.space

    @property
    def dimension(self) -> int:
        """The dimension of one modality; 0 while nothing was added."""
        return self.manifest.dimension or 0

    @property
    def encoder(self) -> Encoder:
        """The shelf's encoder, loaded at first use.

        Raises EncoderUnavailable, or EncoderMismatch if its files changed since they were used.
        """
        if self._encoder is None:
            from kinshelf.store.encode.canary import load_encoder_of

            return self.use_encoder(load_encoder_of(self.name, self.manifest))
        return self._encoder

    def use_encoder(self, encoder: Encoder) -> Encoder:
        """Embed with this one from now on. Raises EncoderMismatch if it is not the shelf's own."""
        self.check_encoder(encoder)
        self._encoder = encoder
        return encoder

    def release_encoder(self) -> None:
        """Release the encoder and its memory; the next use loads it again."""
        from kinshelf.db.threads import return_memory

        if self._encoder is not None:
            self._encoder = None
            return_memory()

    def check_encoder(self, encoder: Encoder) -> None:
        """Raises EncoderMismatch, naming both, unless the encoder is the shelf's own."""
        from kinshelf.store.compatibility import check_encoder

        check_encoder(encoder, self.name, self.manifest, empty=self._empty)

    @property
    @abstractmethod
    def _empty(self) -> bool:
        """Whether no row was ever given."""

    def get(self, product_id: str) -> StoredProduct:
        """The product of an id. Raises ProductNotFound, naming ids that look like it."""
        return self.snapshot().get(product_id)

    def search(self, queries: FloatArray, k: int = 10, *, where: str | None = None) -> Neighbours:
        """The k products nearest to each query among those that match.

        `queries` are embedding pairs `[image ; text]`, (n, 2 * dimension) float32: unit embedding
        pairs, or zeros where a modality is missing. Raises FilterError, EmptyShelf, and
        InvalidEmbeddings for another width or other norms, such as those of fused embeddings.
        """
        fusion.check_pairs(queries)
        return self.snapshot().kneighbors(queries, k, where=where)

    def iter_vectors(self, where: str | None = None, *, size: int = BLOCK) -> Iterator[VectorBlock]:
        """The newest generation's; see `AnySnapshot.iter_vectors`."""
        return self.snapshot().iter_vectors(where, size=size)

    @abstractmethod
    def info(self, at: int | None = None, *, recall: bool = False) -> dict[str, Any]:
        """Counts, categories, encoder, index, probes, open rejects; `recall`: measure it now."""

    @abstractmethod
    def history(self, limit: int | None = None) -> Rows:
        """The changes, newest first; `kept` tells whether `at=` can ask for that generation."""

    @abstractmethod
    def sql(self, query: str) -> Table:
        """Answer a read-only SQL query over the tables of the newest generation."""

    def bring_probe(self, entry: ProbeEntry) -> None:  # noqa: B027
        """Put a probe's files at `entry.path`; a shelf in a directory has them there already."""

    # ---- writing

    @abstractmethod
    def writing(self) -> AbstractContextManager[Self]:
        """Hold the writer lock: what is changed inside comes from this handle alone."""

    @abstractmethod
    def commit(self, head: Head, body: Body, vectors: FloatArray | None = None) -> int:
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

    def writing_encoder(self) -> Encoder:
        """The encoder, and its fingerprint and dimension written down if it is the first use."""
        from kinshelf.store.encode.moved import is_gone

        encoder = self.encoder
        if self.manifest.fingerprint is None:
            from kinshelf.store.encode.canary import identity_of

            self.set_manifest(**identity_of(encoder))
        elif is_gone(self.manifest.encoder) and Path(encoder.name).is_dir():
            self.set_manifest(encoder=encoder.name)  # equal files at another place
        return encoder

    def fit_dimension(self, dimension: int, **identity: Any) -> None:
        """Set the dimension by the first supplied embeddings; raises InvalidEmbeddings later on."""
        if dimension == self.dimension and not identity:
            return
        from kinshelf.store.compatibility import check_dimension

        check_dimension(dimension, self.name, self.manifest, empty=self._empty)
        self.set_manifest(**{"dimension": dimension, **identity})
