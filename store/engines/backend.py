"""The interface of an engine: the little that a shelf on it needs, and nothing of probes.

Every product row bears the generation that added it and the one that removed it, as in a directory:
what a generation sees is a condition over both. So a half-written change is invisible, and readers
never wait.
"""

from __future__ import annotations

import json
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from kinshelf.db.arrays import FloatArray, IntArray
from kinshelf.db.catalog.records import Body, Head
from kinshelf.db.errors import EngineRefused, ShelfNotFound

if TYPE_CHECKING:
    from kinshelf.db.catalog.tables import Change
    from kinshelf.db.filters.compiler import Filter
    from kinshelf.db.product import Scalar
    from kinshelf.store.log.manifest import Manifest

Fetch = Callable[[IntArray], FloatArray]
EXACT_ROWS = 20_000
"""Up to so many matches every one of them is scored, whatever index there is."""
INDEX_FROM = 50_000
"""Rows from which on an approximate index is built."""
SPARE = 16
"""Candidates beyond k: the engine's arithmetic may put near ties in another order than ours."""


@dataclass(frozen=True, slots=True)
class State:
    """The state of a shelf on an engine as of its newest generation.

    `base` is the oldest generation that can still be asked, `indexed` how many rows there were
    when the approximate index was built, 0 if there is none.
    """

    generation: int
    next_row: int
    base: int
    indexed: int
    manifest: Manifest


@dataclass(frozen=True, slots=True)
class Condition:
    """A checked filter in the engine's own language, its values bound or quoted by us.

    `exact` False: it lets through all that match and some more, since a part of the filter cannot
    be expressed there; `text` is empty if nothing of it can.
    """

    text: str
    parameters: tuple[Scalar, ...] = ()
    exact: bool = True


@dataclass(frozen=True, slots=True, eq=False)
class Where:
    """A choice of rows. `generation`: the rows in it; None: rows of all generations.

    `gone_by`: of these, those that a later generation no longer sees. `rows`, `ids`: of these, the
    ones named; `exclude`: the ones not named.
    """

    generation: int | None = None
    gone_by: int | None = None
    conditions: tuple[Condition, ...] = ()
    rows: IntArray | None = None
    ids: Sequence[str] | None = None
    exclude: IntArray | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """A change on its way in: as in a frame of the log (`log/ledger.py`), with the files of a
    probe if it names one. `token` tells a change that is sent again from another one."""

    generation: int
    next_row: int
    head: Head
    body: Body
    vectors: FloatArray | None = None
    files: dict[str, bytes] = field(default_factory=dict)
    token: str = field(default_factory=lambda: uuid.uuid4().hex)


@dataclass(frozen=True, slots=True, eq=False)
class Candidates:
    """Rows (n, width) int64 that hold the nearest, -1 for none; `exhaustive`: all that match were
    scored."""

    rows: IntArray
    exhaustive: bool


Scanned = tuple[list[tuple[Any, ...]], FloatArray | None]


class Backend(ABC):
    """An engine. Every method raises EngineUnavailable or EngineRefused, and states the reason."""

    kind: str

    @abstractmethod
    def close(self) -> None:
        """Close the connection."""

    @abstractmethod
    def create(self, manifest: Manifest) -> None:
        """Make an empty shelf. Raises ShelfExists."""

    @abstractmethod
    def state(self) -> State:
        """The state as of the newest generation. Raises ShelfNotFound."""

    @abstractmethod
    def log(self, after: int, upto: int) -> list[Change]:
        """The changes of generations in (after, upto], without their products."""

    @abstractmethod
    def lock(self, wait: float) -> None:
        """Become the only writer. Raises ShelfLocked, naming the holder."""

    @abstractmethod
    def unlock(self) -> None:
        """Release the writer's lock."""

    @abstractmethod
    def undo(self, state: State) -> None:
        """Take back what a writer left that was ended in the middle of a change."""

    @abstractmethod
    def commit(self, batch: Batch) -> None:
        """Make one change durable, wholly or not at all; repeated, it is made once."""

    @abstractmethod
    def set_manifest(self, manifest: Manifest) -> None:
        """Replace the manifest, durably."""

    @abstractmethod
    def files(self, version: int) -> dict[str, bytes]:
        """The files of a probe."""

    @abstractmethod
    def translate(self, where: Filter, attributes: dict[str, str], mixed: set[str]) -> Condition:
        """A checked filter in the engine's language, as far as that goes.

        `attributes` and their kinds; `mixed` are those whose values are of several kinds.
        """

    @abstractmethod
    def count(self, where: Where, upto: int | None = None) -> int:
        """Count the rows; counting may stop at `upto`."""

    @abstractmethod
    def categories(self, where: Where) -> dict[str | None, int]:
        """Rows per category."""

    @abstractmethod
    def scan(
        self,
        where: Where,
        columns: Sequence[str],
        *,
        vectors: bool = False,
        after: int = -1,
        limit: int | None = None,
        offset: int = 0,
        size: int = 4096,
    ) -> Iterator[Scanned]:
        """Blocks of at most `size` rows by ascending row: the columns, and the stored embedding
        pairs if `vectors`."""

    @abstractmethod
    def vectors(self, rows: IntArray) -> FloatArray:
        """The stored embedding pairs of rows, (n, width) float32, in their order."""

    @abstractmethod
    def nearest(
        self, queries: FloatArray, k: int, where: Where, indexed: bool, fetch: Fetch
    ) -> Candidates:
        """Candidates for the k rows of highest inner product with each query, (n, width).

        `indexed`: there is an approximate index, to be used where it can be trusted. `fetch` gives
        the embedding pairs of rows, some of them remembered.
        """

    @abstractmethod
    def build_index(self, rows: int) -> None:
        """Build the approximate index over the `rows` there are, and note that it is there."""

    @abstractmethod
    def index_bytes(self) -> int:
        """The size of the approximate index, 0 if the engine does not report it."""

    @abstractmethod
    def compact(self, base: int) -> int:
        """Drop the rows that no generation from `base` on sees; returns how many."""


def no_shelf(shown: str) -> ShelfNotFound:
    """The error of an address where no shelf is."""
    return ShelfNotFound(f"no shelf at {shown}: make one with `kinshelf init --shelf {shown}`")


def overtaken(shown: str, found: int, expected: int) -> EngineRefused:
    """The error of a change to a generation that is not the newest any more."""
    return EngineRefused(
        f"{shown} is at generation {found}, not at {expected}: another writer changed it; run this"
        " again"
    )


def lacking(count: int) -> EngineRefused:
    """The error of rows that a search found, and that are not there any more."""
    return EngineRefused(
        f"the shelf lacks {count} rows that were there: was it compacted meanwhile? Run this again"
    )


def entry_text(value: Any) -> str:
    """An entry of the change log as JSON; text that no database stores loses what it cannot."""
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "replace").decode()


def padded(found: Sequence[Sequence[int]], width: int) -> IntArray:
    """Lists of rows as one array, (n, width) int64, -1 where a list is shorter."""
    rows = np.full((len(found), width), -1, dtype=np.int64)
    for i, row in enumerate(found):
        rows[i, : len(row)] = row[:width]
    return rows
