"""What bench/peers.py asks of each peer: the same small interface for every store and library."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from kinshelf.db.arrays import FloatArray, IntArray

Setting = dict[str, Any]
CORES = os.cpu_count() or 1


class Unsupported(Exception):
    """The peer has no such operation."""


@dataclass(frozen=True)
class Filter:
    """One comparison: `category` or `brand` equal to a name, or `price` below a number."""

    column: str
    value: str | float

    @property
    def sql(self) -> str:
        """As SQL."""
        if isinstance(self.value, str):
            return f"{self.column} = '{self.value}'"
        return f"{self.column} < {self.value!r}"


@dataclass(frozen=True)
class Rows:
    """Products numbered from `first`: embedding pairs (n, 1024) float32, two names and a price
    each."""

    first: int
    vectors: FloatArray
    categories: Sequence[str]
    brands: Sequence[str]
    prices: FloatArray

    def __len__(self) -> int:
        return len(self.vectors)

    @property
    def ids(self) -> IntArray:
        """The numbers, (n,)."""
        return np.arange(self.first, self.first + len(self))

    @property
    def titles(self) -> list[str]:
        """A title each."""
        return [f"product number {i}" for i in self.ids.tolist()]

    def parts(self, size: int) -> list[Rows]:
        """The rows in batches."""
        return [
            Rows(self.first + i, self.vectors[i : i + size], self.categories[i : i + size],
                 self.brands[i : i + size], self.prices[i : i + size])
            for i in range(0, len(self), size)
        ]  # fmt: skip

    def arrow(self) -> Any:
        """As an Arrow table; the vectors are shared, not copied."""
        import pyarrow as pa

        flat = pa.array(np.ascontiguousarray(self.vectors).reshape(-1))
        columns = {
            "id": pa.array(self.ids), "title": pa.array(self.titles),
            "category": pa.array(self.categories), "brand": pa.array(self.brands),
            "price": pa.array(self.prices.astype(np.float64)),
            "vector": pa.FixedSizeListArray.from_arrays(flat, self.vectors.shape[1]),
        }  # fmt: skip
        return pa.table(columns)


class Peer:
    """A store or library over one directory. Inner product or any order that agrees with it."""

    name: ClassVar[str]
    package: ClassVar[str]
    """What pip installs."""
    settings: ClassVar[tuple[Setting, ...]] = ({},)
    """From the cheapest on; the first that reaches the recall wanted is used."""
    curve: ClassVar[tuple[Setting, ...]] = ()
    """Settings of its curve of recall and time, where `settings` are not those."""
    limit: ClassVar[int] = 10**9
    """Rows that it is asked to take: beyond, building takes longer than anybody would wait."""
    note: ClassVar[str] = ""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def create(self, width: int) -> None:
        """Make it empty."""
        raise NotImplementedError

    def fill(self, rows: Rows) -> None:
        """Take the first rows; durable, as far as the peer promises, on return."""
        self.add(rows)

    def build(self) -> None:
        """Make the index, where it is not made by `fill`."""

    def open(self) -> None:
        """In a fresh process."""
        raise NotImplementedError

    def use(self, setting: Setting) -> None:
        """Search by this setting from now on."""

    def search(self, query: FloatArray, k: int, where: Filter | None = None) -> list[int]:
        """The numbers of the k nearest."""
        raise NotImplementedError

    def batch(self, queries: FloatArray, k: int) -> list[list[int]]:
        """The same for many queries, in the way that is fastest."""
        with ThreadPoolExecutor(CORES) as pool:
            return list(pool.map(lambda query: self.search(query, k), queries))

    def add(self, rows: Rows) -> None:
        """Take more; durable and searchable on return."""
        raise NotImplementedError

    def delete(self, ids: IntArray) -> None:
        """Give up products; durable on return."""
        raise Unsupported

    def close(self) -> None:
        """Let go of it."""

    def size(self) -> int:
        """Bytes on disk."""
        return sum(f.stat().st_size for f in self.directory.rglob("*") if f.is_file())


def written(path: Path) -> None:
    """Force a file that a library wrote to the disk."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
