"""`export`: the shelf as a file that anything reads, and that `add` takes back unchanged."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kinshelf.db.errors import InputError
from kinshelf.db.files import check_writable
from kinshelf.db.layouts.names import ATTRIBUTES, attribute_name
from kinshelf.db.sources.values import typed
from kinshelf.store.log import disk
from kinshelf.store.search import fusion

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

    from kinshelf.db.product import Product, StoredProduct
    from kinshelf.store.generation import AnySnapshot

    FloatArray = NDArray[np.float32]

COLUMNS = ("id", "title", "description", "category", "price", "brand", "image", "split")
_BLOCK = 4096


def export(snapshot: AnySnapshot, path: Path, where: str | None = None) -> int:
    """Write the products that match to `path`; returns how many.

    `.parquet` holds metadata, attributes (JSON text) and both embeddings (lists of float32, null
    where missing), bit for bit; `.csv`, `.tsv` and `.jsonl` hold metadata and attributes alone.
    The file appears only when it is whole and on the disk: it is a backup. Raises InputError or
    FilterError.
    """
    writers = {".parquet": _parquet, ".csv": _csv, ".tsv": _csv, ".jsonl": _jsonl}
    if path.suffix.lower() not in writers:
        raise InputError(f"cannot export to {path.name!r}: use one of {', '.join(writers)}")
    if not path.parent.is_dir():
        raise InputError(f"there is no folder {path.parent}: make it first")
    check_writable(path)
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        count = writers[path.suffix.lower()](snapshot, temporary, where, path.suffix.lower())
        with temporary.open("rb") as file:
            disk.sync(file.fileno())
        disk.rename(temporary, path)
    finally:
        disk.unlink(temporary)
    return count


def _blocks(snapshot: AnySnapshot, where: str | None) -> Iterator[list[StoredProduct]]:
    rows = snapshot.view.rows(snapshot.filter(where))
    for start in range(0, len(rows), _BLOCK):
        block = rows[start : start + _BLOCK]
        found = snapshot.view.by_rows(block)
        yield [found[int(row)] for row in block]


def _parquet(snapshot: AnySnapshot, path: Path, where: str | None, _suffix: str) -> int:
    import pyarrow as pa
    import pyarrow.parquet as pq

    layout = schema()
    count = 0
    with pq.ParquetWriter(path, layout, compression="zstd") as writer:
        for block in _blocks(snapshot, where):
            writer.write_table(pa.table(_arrays(snapshot, block), schema=layout))
            count += len(block)
    return count


def schema() -> pa.Schema:
    """The columns of an exported Parquet file and their types."""
    import pyarrow as pa

    kinds = dict.fromkeys(COLUMNS, pa.string()) | {"price": pa.float64(), "attributes": pa.string()}
    kinds |= dict.fromkeys(("image_embedding", "text_embedding"), pa.list_(pa.float32()))
    return pa.schema(list(kinds.items()))


def _arrays(snapshot: AnySnapshot, block: list[StoredProduct]) -> dict[str, list[Any]]:
    image, text = fusion.split(snapshot.pairs([p.row for p in block]))
    return columns(
        [p.product for p in block],
        [half if p.has_image else None for half, p in zip(image, block, strict=True)],
        [half if p.has_text else None for half, p in zip(text, block, strict=True)],
    )


def columns(
    products: Sequence[Product],
    image: Sequence[FloatArray | None],
    text: Sequence[FloatArray | None],
) -> dict[str, list[Any]]:
    """Products and their embeddings, (d,) float32 or None, as `schema` has them."""
    table: dict[str, list[Any]] = {name: [getattr(p, name) for p in products] for name in COLUMNS}
    table["attributes"] = [
        json.dumps(p.attributes, ensure_ascii=False) if p.attributes else None for p in products
    ]
    return table | {"image_embedding": list(image), "text_embedding": list(text)}


def flat(stored: StoredProduct) -> dict[str, Any]:
    """A product as one flat object, attributes beside the columns."""
    product = stored.product
    fields = {name: getattr(product, name) for name in COLUMNS}
    return fields | {attribute_name(name): v for name, v in product.attributes.items()}


def _csv(snapshot: AnySnapshot, path: Path, where: str | None, suffix: str) -> int:
    names = [*COLUMNS, *sorted(map(attribute_name, snapshot.view.attribute_types()))]
    if any(_odd(flat(p)) for block in _blocks(snapshot, where) for p in block):
        names.append(ATTRIBUTES)
    count = 0
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, names, delimiter="\t" if suffix == ".tsv" else ",")
        writer.writeheader()
        for block in _blocks(snapshot, where):
            writer.writerows(_cells(flat(p)) for p in block)
            count += len(block)
    return count


def _odd(product: dict[str, Any]) -> dict[str, Any]:
    """The attributes that a text file's cell would give back as another value, such as "42"."""
    return {n: v for n, v in product.items() if n not in COLUMNS and typed(str(v)) != v}


def _cells(product: dict[str, Any]) -> dict[str, Any]:
    """A product as cells of a text file; attributes that are `_odd` stand together as JSON."""
    odd = _odd(product)
    cells = {n: v for n, v in product.items() if n not in odd}
    return cells | ({ATTRIBUTES: json.dumps(odd, ensure_ascii=False)} if odd else {})


def _jsonl(snapshot: AnySnapshot, path: Path, where: str | None, _suffix: str) -> int:
    count = 0
    with path.open("w", encoding="utf-8") as file:
        for block in _blocks(snapshot, where):
            file.writelines(json.dumps(flat(p), ensure_ascii=False) + "\n" for p in block)
            count += len(block)
    return count
