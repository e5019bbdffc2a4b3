"""Training data of more rows than memory holds: read once, block by block, from anywhere.

`SpooledData` takes an iterator of blocks (of Parquet parts, of a shelf, of an engine), keeps the
labels in memory and the vectors in a scratch file, and is then what a probe trains from. However
often training, calibration and novelty go over the rows, the source is read once: an engine across
a network is not asked for the same vectors in every epoch.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from kinshelf.db.arrays import FloatArray, IntArray, ObjectArray
from kinshelf.db.errors import (
    EmptySource,
    EncoderMismatch,
    InvalidEmbeddings,
    InvalidSetting,
    UnreadableSource,
)
from kinshelf.db.sources.parts import PartsManifest, parts_of
from kinshelf.probe.fit.copies import GROUP_FIELDS, check_column, column_values
from kinshelf.probe.fit.split import RESERVED_SPLITS
from kinshelf.store.log import disk
from kinshelf.store.search import fusion

if TYPE_CHECKING:
    from kinshelf.store.base import AnyShelf
    from kinshelf.store.generation import AnySnapshot

BLOCK = 4096
"""Rows read from a source at a time, 16 MB at 1,024 columns."""


Values = Callable[[str], ObjectArray]
"""The values of a column of all categorised products, in their order."""


class Labelled(Protocol):
    """Some products: unit embedding pairs (n, 2 d) float32, zeros where missing, and (n,) labels.

    A `store.interface.VectorBlock` is one.
    """

    @property
    def pairs(self) -> FloatArray:
        """The vectors."""

    @property
    def categories(self) -> Sequence[str | None]:
        """None for a product that has none."""

    @property
    def splits(self) -> Sequence[str | None]:
        """None likewise."""


@dataclass(frozen=True, slots=True)
class LabelledBlock:
    """See `Labelled`."""

    pairs: FloatArray
    categories: Sequence[str | None]
    splits: Sequence[str | None]


def part_blocks(
    directory: Path, manifest: PartsManifest, share: tuple[int, int] = (0, 1)
) -> Iterator[LabelledBlock]:
    """The products of a folder that `encode` wrote; with (i, n) each n-th part from the i-th on.

    Raises UnreadableSource for a damaged part.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    names = [part.name for part in manifest.parts if part.products][share[0] :: share[1]]
    columns = ["category", "split", "image_embedding", "text_embedding"]
    for name in names:
        try:
            with pq.ParquetFile(directory / name) as file:
                there = [name for name in columns if name in file.schema_arrow.names]
                for batch in file.iter_batches(BLOCK, columns=there, use_threads=False):
                    yield _block_of(batch, manifest.dimension)
        except (OSError, pa.ArrowException) as problem:
            raise UnreadableSource(f"{directory / name} cannot be read: {problem}") from problem


def _part_values(directory: Path, manifest: PartsManifest, column: str) -> ObjectArray:
    """A field or attribute of the categorised products of a folder, in their order."""
    import pyarrow.parquet as pq

    found: list[object] = []
    attributes: set[str] = set()
    wanted = {"category", "attributes", column if column in GROUP_FIELDS else "category"}
    for part in manifest.parts:
        if not part.products:
            continue
        with pq.ParquetFile(directory / part.name) as file:
            there = sorted(wanted & set(file.schema_arrow.names))
            rows = file.read(columns=there, use_threads=False).to_pylist()
        for row in rows:
            if row.get("category") is not None:
                members = json.loads(row.get("attributes") or "{}")
                attributes |= members.keys()
                found.append(members.get(column, row.get(column)))
    check_column(column, sorted(attributes))
    return np.array([*found, None], dtype=object)[:-1]


def _block_of(batch: Any, dimension: int) -> LabelledBlock:
    pairs = np.zeros((batch.num_rows, 2 * dimension), dtype=np.float32)
    for half, name in zip(fusion.split(pairs), ("image", "text"), strict=True):
        if f"{name}_embedding" in batch.schema.names:
            _fill(half, batch.column(f"{name}_embedding"))
    return LabelledBlock(pairs, _texts(batch, "category"), _texts(batch, "split"))


def _texts(batch: Any, name: str) -> list[str | None]:
    """A column that its source may lack."""
    there = name in batch.schema.names
    return batch.column(name).to_pylist() if there else [None] * batch.num_rows


def _fill(half: FloatArray, column: Any) -> None:
    """Copy a column of lists where they are, without making a Python number of any."""
    given = column.is_valid().to_numpy(zero_copy_only=False)
    values = column.flatten().to_numpy()
    if len(values) != int(given.sum()) * half.shape[1]:
        raise InvalidEmbeddings(
            f"a part holds {len(values)} numbers for {int(given.sum())} embeddings of"
            f" {half.shape[1]}: encode it again"
        )
    half[given] = values.reshape(-1, half.shape[1])


def shelf_blocks(snapshot: AnySnapshot) -> Iterator[LabelledBlock]:
    """The categorised products of a shelf, in the order of its rows."""
    rows, categories = snapshot.labelled()
    splits = np.full(len(rows), None, dtype=object)
    for name in ("train", *RESERVED_SPLITS):
        splits[np.isin(rows, snapshot.labelled(name)[0])] = name
    for start in range(0, len(rows), BLOCK):
        part = slice(start, start + BLOCK)
        yield LabelledBlock(
            snapshot.pairs(rows[part]), categories[part].tolist(), splits[part].tolist()
        )


def spooled(shelf: AnyShelf, *, size: int = BLOCK, scratch: Path | None = None) -> SpooledData:
    """A shelf's newest generation as training data, its vectors read once, a block at a time.

    Of a shelf on an engine: training goes over all rows many times, which the engine need not send
    each time. Raises EmptySource where no product has a category.
    """
    now = shelf.snapshot()
    blocks = now.iter_vectors("category IS NOT NULL", size=size)
    return SpooledData(
        blocks, now.fingerprint, generation=now.generation, scratch=scratch,
        values=lambda column: column_values(now, now.labelled()[0], column),
    )  # fmt: skip


class SpooledData:
    """`probe.data.LabelledData` over blocks; products without a category are passed over.

    The vectors lie in a nameless scratch file (in `scratch`, else in TMPDIR), gone with
    this object whatever happens. A row is a product's place among the categorised. Raises
    EmptySource where no product has a category, and OSError where the disk is full.
    """

    def __init__(
        self,
        blocks: Iterable[Labelled],
        fingerprint: str,
        *,
        generation: int = 0,
        scratch: Path | None = None,
        values: Values | None = None,
    ) -> None:
        self.fingerprint, self.generation = fingerprint, generation
        self._values = values
        self._file = tempfile.TemporaryFile(dir=scratch, buffering=0)  # noqa: SIM115 (see close)
        self._width, self._rows = 0, 0
        try:
            self._take(blocks)
        except BaseException:
            self.close()
            raise

    def _take(self, blocks: Iterable[Labelled]) -> None:
        names: dict[str | None, int] = {}
        codes, splits = [], []
        for block in blocks:
            chosen = [i for i, name in enumerate(block.categories) if name is not None]
            if chosen:
                self._append(block.pairs[chosen])
                codes.append(_coded([block.categories[i] for i in chosen], names))
                splits.append(_coded([block.splits[i] for i in chosen], names))
        if not codes:
            raise EmptySource("no product has a category to train from: add some that have")
        self._names = np.array(list(names), dtype=object)
        self._codes, self._splits = np.concatenate(codes), np.concatenate(splits)

    def __len__(self) -> int:
        """Products that have a category."""
        return len(self._codes)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the disk back."""
        self._file.close()

    def _append(self, pairs: FloatArray) -> None:
        self._width = self._width or pairs.shape[1]
        data, offset = fusion.fused(pairs).data, 4 * self._width * self._rows
        disk.write(self._file.fileno(), data, offset)
        self._rows += len(pairs)

    def labelled(self, split: str | None = None) -> tuple[IntArray, ObjectArray]:
        """See `probe.data.LabelledData`."""
        rows = np.arange(len(self._codes), dtype=np.int64)
        if split is not None:
            rows = np.flatnonzero(self._names[self._splits] == split).astype(np.int64)
        return rows, self._names[self._codes[rows]]

    def values_of(self, column: str, rows: IntArray) -> ObjectArray:
        """See `probe.fit.data.Grouped`; they are read again from the source."""
        if self._values is None:
            raise InvalidSetting(f"group {column!r}: these rows come without columns")
        return self._values(column)[rows]

    def fused(self, rows: IntArray) -> FloatArray:
        """See `probe.data.LabelledData`; neighbouring rows are read in one piece."""
        rows = np.asarray(rows, dtype=np.int64)
        found = np.empty((len(rows), self._width), dtype=np.float32)
        breaks = np.flatnonzero(np.diff(rows) != 1) + 1
        starts = np.concatenate([[0], breaks, [len(rows)]])
        for first, last in zip(starts[:-1].tolist(), starts[1:].tolist(), strict=True):
            if last > first:
                self._read(found[first:last], int(rows[first]))
        return found

    def _read(self, target: FloatArray, row: int) -> None:
        view, offset = target.data.cast("B"), 4 * self._width * row
        while view:
            done = os.preadv(self._file.fileno(), [view], offset)
            if not done:
                raise InvalidEmbeddings(f"row {row} of the scratch file is not there")
            view, offset = view[done:], offset + done


def _coded(labels: Sequence[str | None], names: dict[str | None, int]) -> NDArray[np.int32]:
    return np.fromiter(
        (names.setdefault(label, len(names)) for label in labels), np.int32, len(labels)
    )


def open_parts(
    directory: Path,
    fingerprint: str | None = None,
    *,
    generation: int = 0,
    scratch: Path | None = None,
) -> SpooledData:
    """A finished folder of `kinshelf encode` as training data.

    `generation` is that of the shelf which the probe is for.
    Raises EncoderMismatch unless `fingerprint`, if given, made it; UnreadableSource where there
    is no such folder; and what `SpooledData` raises.
    """
    manifest = parts_of(directory)
    if manifest is None:
        raise UnreadableSource(f"{directory} is not a folder that `kinshelf encode` wrote")
    if fingerprint is not None and manifest.space != fingerprint:
        raise EncoderMismatch(
            f"{directory} was encoded by {manifest.encoder} ({manifest.space}), the shelf"
            f" holds embeddings of {fingerprint}: encode the products with the shelf's encoder"
        )
    return SpooledData(
        part_blocks(directory, manifest), manifest.space, generation=generation,
        scratch=scratch, values=lambda column: _part_values(directory, manifest, column),
    )  # fmt: skip
