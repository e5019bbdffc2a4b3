"""The work of an encoding: a source's rows, some thousands at a time, each piece named by content.

A piece, or task, is read by whoever opens the source and encoded by any worker that sees the
output folder. Equal rows, encoder and size give equal names, so that a run which was killed finds
again what it has done.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Self

import xxhash

from kinshelf.db.product import Product, Reject, pictures_of, with_pictures
from kinshelf.db.sources.columns import RowFields
from kinshelf.db.sources.readers import ReadBatch, ReadOptions, read_source

if TYPE_CHECKING:
    from pathlib import Path

Located = Callable[[str], str]


@dataclass(frozen=True, slots=True)
class Task:
    """Consecutive data rows of a source. `name` is that of the part that they become."""

    name: str
    data: bytes
    rows: int

    @classmethod
    def of(cls, number: int, batch: ReadBatch, fingerprint: str) -> Self:
        """The `number`-th piece of a source."""
        data = json.dumps(
            {
                "source": batch.source,
                "products": [asdict(product) for product in batch.products],
                "positions": batch.positions,
                "fields": sorted(
                    {n for each in batch.row_fields or () if each for n in each.fields}
                ),
                "rejects": [asdict(reject) for reject in batch.rejects],
            },
            ensure_ascii=False,
        ).encode("utf-8", "surrogatepass")
        digest = xxhash.xxh3_128_hexdigest(fingerprint.encode() + b"\0" + data)
        rows = len(batch.products) + sum(not reject.kept for reject in batch.rejects)
        return cls(f"part-{number:07d}-{digest}.parquet", data, rows)


def batch_of(data: bytes) -> ReadBatch:
    """The rows of a task's `data`."""
    values = json.loads(data)
    fields = RowFields(frozenset(values["fields"]), frozenset())
    return ReadBatch(
        values["source"],
        [Product(**product) for product in values["products"]],
        values["positions"],
        [Reject(**reject) for reject in values["rejects"]],
        row_fields=[fields] * len(values["products"]),
    )


def read_tasks(
    path: Path, options: ReadOptions, fingerprint: str, located: Located, source: str
) -> Iterator[Task]:
    """The tasks of a source, in its order; raises as `db.readers.read_source`, some of it at once.

    `source` is what it is called and `located` locates a picture, for a copy at `path`.
    Embeddings that it may hold are left out: these are made anew.
    """
    return _tasks(read_source(path, options), fingerprint, located, source)


def _tasks(
    batches: Iterable[ReadBatch], fingerprint: str, located: Located, source: str
) -> Iterator[Task]:
    for number, batch in enumerate(batches):
        batch.source = source
        batch.products = [_moved(product, located) for product in batch.products]
        batch.rejects = list(_renamed(batch.rejects, source))
        yield Task.of(number, batch, fingerprint)


def _moved(product: Product, located: Located) -> Product:
    if product.image is None:
        return product
    moved = [located(name) for name in pictures_of(product)]
    return product if moved == pictures_of(product) else with_pictures(product, moved)


def _renamed(rejects: Iterable[Reject], source: str) -> Iterator[Reject]:
    for reject in rejects:
        yield Reject(**asdict(reject) | {"source": source})
