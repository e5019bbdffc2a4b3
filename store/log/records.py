"""The content of a log frame: products as columns, rejects as objects, content hashes."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, fields
from types import NoneType
from typing import Any, Protocol

import numpy as np
import xxhash

from kinshelf.db.arrays import FloatArray
from kinshelf.db.catalog.records import Columns, RejectRecord
from kinshelf.db.product import Decisions, Product, Reject

_FIELDS = tuple(field.name for field in fields(Product))
_TYPES = {str: "text", bool: "boolean"}
_PLAIN = json.JSONEncoder(ensure_ascii=False)
_PRODUCT = ("id", "title", "description", "category", "price", "brand", "image", "split")


def content_hash(
    product: Product,
    image_hash: str | None,
    *embeddings: FloatArray | None,
    decided: Decisions | None = None,
) -> str:
    """xxh3-128 of all that decides a stored row; equal hashes mean an unchanged product."""
    record = {name: getattr(product, name) for name in _FIELDS}  # asdict copies: ten times slower
    more = [decided] if decided else []
    digest = xxhash.xxh3_128(_dump([record, image_hash, *more]))
    for embedding in embeddings:
        digest.update(b"-" if embedding is None else np.ascontiguousarray(embedding).data)
    return digest.hexdigest()


# json.dumps makes a new one for every call
_ENCODER = json.JSONEncoder(sort_keys=True, ensure_ascii=False)


def _dump(value: Any) -> bytes:
    return _ENCODER.encode(value).encode("utf-8", "surrogatepass")


class Row(Protocol):
    """A product as it is to be kept. `image` and `text` are unit embeddings, None where missing."""

    product: Product
    image: FloatArray | None
    text: FloatArray | None
    content_hash: str
    image_hash: str | None
    decided: Decisions

    @property
    def image_error(self) -> str | None:
        """Why its picture could not be used, as a short code."""


def columns(changed: Sequence[Row], first_row: int) -> Columns:
    """Products as the log keeps them, one list a column (see `db.catalog.COLUMNS`)."""
    products = [c.product for c in changed]
    table: Columns = {name: [getattr(p, name) for p in products] for name in _PRODUCT}
    table["row"] = list(range(first_row, first_row + len(changed)))
    table["attributes"] = [_PLAIN.encode(p.attributes) if p.attributes else None for p in products]
    table["has_image"] = [c.image is not None for c in changed]
    table["has_text"] = [c.text is not None for c in changed]
    for name in ("image_hash", "image_error", "content_hash"):
        table[name] = [getattr(c, name) for c in changed]
    if any(c.decided for c in changed):
        table["decided"] = [_PLAIN.encode(c.decided) if c.decided else None for c in changed]
    return table


def attribute_types(changed: Sequence[Row]) -> dict[str, list[str]]:
    """The attributes that a batch has and the types of their values, for the frame's head."""
    pairs = {(n, type(v)): None for c in changed for n, v in c.product.attributes.items()}
    types: dict[str, set[str]] = defaultdict(set)
    for name, kind in pairs:
        if kind is not NoneType:
            types[name].add(_TYPES.get(kind, "number"))
    return {name: sorted(found) for name, found in types.items()}


def reject_record(entry: Reject, product: Product | None) -> RejectRecord:
    """A reject as the log keeps it; `record` is the product to try again."""
    name = entry.id if entry.id is not None else entry.position
    named = f"{entry.source}\0{name}\0{entry.position}\0{entry.reason}"
    key = xxhash.xxh3_64_hexdigest(named.encode("utf-8", "surrogatepass"))
    record = None if product is None else json.dumps(asdict(product), ensure_ascii=False)
    return {
        "key": key, "source": entry.source, "position": entry.position, "id": entry.id,
        "reason": entry.reason, "message": entry.message, "kept": entry.kept, "record": record,
    }  # fmt: skip


def product_of(entry: RejectRecord) -> Product:
    """The product of a reject that has a `record`."""
    return Product(**json.loads(entry["record"] or ""))


_Settler = tuple[str, str | int | None]


class OpenRejects:
    """Unresolved rejects of a shelf: their keys, and those that a product or a row settles."""

    def __init__(self, rejects: Iterable[RejectRecord]) -> None:
        self._settler_of: dict[str, _Settler] = {}
        self._by_settler: dict[_Settler, set[str]] = defaultdict(set)
        for entry in rejects:
            self.add(entry)

    def __contains__(self, key: str) -> bool:
        return key in self._settler_of

    def add(self, entry: RejectRecord) -> None:
        """Take in one."""
        settler: _Settler = (entry["source"], entry["position"])
        if entry["record"] is not None or entry["kept"]:
            settler = ("tried" if entry["record"] is not None else "noted", entry["id"])
        self._settler_of[entry["key"]] = settler
        self._by_settler[settler].add(entry["key"])

    def of(self, product_id: str) -> list[str]:
        """The keys that are settled once this product is in the shelf, whole."""
        return sorted(self._by_settler.get(("tried", product_id), ()))

    def of_row(self, product_id: str, source: str, position: int) -> list[str]:
        """The keys that are settled once this row of a source is read and has no such fault."""
        settlers: tuple[_Settler, ...] = (("noted", product_id), (source, position))
        return sorted(key for settler in settlers for key in self._by_settler.get(settler, ()))

    def settle(self, keys: Iterable[str]) -> None:
        """Take out some."""
        for key in keys:
            if settler := self._settler_of.pop(key, None):
                self._by_settler[settler].discard(key)
