"""A product as Milvus keeps it: fields to filter by, and a record of what is in no field."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from kinshelf.db.errors import EngineRefused
from kinshelf.db.text import compatible
from kinshelf.store.engines.milvus.client import LONGEST, TEXTS

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from kinshelf.store.engines.milvus.client import Link

    FloatArray = NDArray[np.float32]

NEVER = 1 << 62
"""Of `removed`: a product that is there."""
_PLAIN = ("row", "price", "has_image", "has_text")
_RECORDED = ("description", "attributes", "image_hash", "content_hash", "decided")
ELSEWHERE = "long"
"""The kind of entry that holds a record longer than a field may be."""


def entities(
    products: dict[str, list[Any]], generation: int, vectors: FloatArray
) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Entities to write for the products of a change; records too long for a field, by row."""
    found, long = [], {}
    for i, row in enumerate(products["row"]):
        entity = {name: products[name][i] for name in _PLAIN}
        record = {name: products[name][i] for name in _RECORDED if name in products}
        for name in TEXTS:
            text = products[name][i]
            entity[name] = shortened(_compared(name, text))
            if entity[name] != text:
                record[name] = text
        entity |= {"added": generation, "removed": NEVER, "embedding": vectors[i].tolist()}
        entity["attributes"] = _attributes(products["id"][i], record["attributes"])
        text = json.dumps(record, ensure_ascii=False)
        if len(text.encode()) > LONGEST:
            long[str(row)], text = text, ""
        entity["record"] = text
        found.append(entity)
    return found, long


def _compared(name: str, text: str | None) -> str | None:
    """A text as filters compare it; the record has it as it is. Ids are compared as they are."""
    return text if text is None or name == "id" else compatible(text)


def shortened(text: str | None) -> str | None:
    """Cut a text to the length that a field takes."""
    if text is None or len(text) * 4 <= LONGEST:
        return text
    return text.encode()[:LONGEST].decode(errors="ignore")


def _attributes(product_id: str, text: str | None) -> dict[str, Any]:
    """The attributes that have a value; Milvus tells a missing key from none."""
    if text is None:
        return {}
    if len(text.encode()) > LONGEST:
        raise EngineRefused(
            f"the attributes of product {product_id!r} are longer than the {LONGEST} bytes that"
            " Milvus keeps: leave the longest of them out"
        )
    found = json.loads(text, parse_int=_whole)
    return {
        name: compatible(value) if isinstance(value, str) else value
        for name, value in found.items()
        if value is not None
    }


def _whole(digits: str) -> int | float | str:
    """A whole number as Milvus takes it; the record has it as it was."""
    try:
        return int(digits) if -(2**63) <= int(digits) < 2**63 else float(digits)
    except ValueError:  # Python reads no number of thousands of digits
        return digits


def read_fields(columns: Sequence[str]) -> list[str]:
    """The fields to ask for."""
    shown = [name for name in columns if name not in _RECORDED]
    recorded = len(shown) < len(columns) or bool(set(columns) & set(TEXTS))
    return list(dict.fromkeys(["row", *shown, *(["record"] if recorded else [])]))


def rows_of(
    found: Sequence[dict[str, Any]], columns: Sequence[str], link: Link
) -> list[tuple[Any, ...]]:
    """Entities as the columns asked for."""
    asked = [str(entity["row"]) for entity in found if entity.get("record") == ""]
    long = {row: link.get(ELSEWHERE, row) or "{}" for row in asked}
    rows = []
    for entity in found:
        whole = entity
        if "record" in entity:
            whole = entity | json.loads(entity["record"] or long[str(entity["row"])])
        rows.append(tuple(whole.get(name) for name in columns))
    return rows
