"""What a frame of the log may state: types and bounds, before anything is computed from it.

A checksum shows that a frame is as it was written, not that kinshelf wrote it. Names that are not
known are let pass: a later version may have written them.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from kinshelf.db.catalog.records import Body, Head

Check = Callable[[Any], bool]

_MOST = 1 << 53
"""No count, row or generation is larger: JSON keeps integers exactly up to here."""
_YEAR_10000 = 253_402_300_800
_FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,199}")
_NESTED = 500
"""Brackets in a text from which on its depth is tried."""


def is_count(value: Any, most: int = _MOST) -> bool:
    """Whether it is an integer from 0 to `most`."""
    return type(value) is int and 0 <= value <= most


def is_text(value: Any) -> bool:
    """Whether it is a text, one that can be written as UTF-8."""
    return isinstance(value, str) and (value.isascii() or _is_unicode([value]))


def _is_unicode(texts: Iterable[str]) -> bool:
    """Whether no text has half of a surrogate pair, which JSON can state and DuckDB cannot keep."""
    try:
        "".join(texts).encode()
    except UnicodeEncodeError:
        return False
    return True


def or_none(check: Check) -> Check:
    """A check that lets None pass too."""
    return lambda value: value is None or check(value)


def _all(check: Check) -> Check:
    return lambda value: isinstance(value, list) and all(map(check, value))


def _all_of(*types: type) -> Check:
    # One pass in C: a column has thousands of values.
    return lambda value: isinstance(value, list) and set(map(type, value)) <= set(types)


def _is_list(value: Any) -> bool:
    return isinstance(value, list)


def _mapping(check: Check) -> Check:
    return lambda value: isinstance(value, dict) and all(map(check, value.values()))


def _is_time(value: Any) -> bool:
    number = isinstance(value, float) or type(value) is int
    return number and math.isfinite(value) and 0 <= value < _YEAR_10000


def _is_json(value: Any) -> bool:
    """Whether it is a text that may be JSON of an object; DuckDB checks the rest of it."""
    if not is_text(value) or not value.startswith("{"):
        return False
    if value.count("[") + value.count("{") > _NESTED:
        try:
            json.loads(value)
        except (ValueError, RecursionError):
            return False
    return True


def _is_files(value: Any) -> bool:
    return _mapping(is_text)(value) and all(map(_FILE_NAME.fullmatch, value))


def _is_attribute(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 3 and _fits_all(
        value, (is_text, is_text, is_count)
    )  # fmt: skip


def _fits_all(values: list[Any], checks: tuple[Check, ...]) -> bool:
    return all(check(value) for check, value in zip(checks, values, strict=True))


def _record(known: Mapping[str, Check], required: tuple[str, ...] = ()) -> Check:
    """A check of an object: the names that it must have, and the values of those that are known."""

    def check(value: Any) -> bool:
        return (
            isinstance(value, dict)
            and all(name in value for name in required)
            and all(test(value[name]) for name, test in known.items() if name in value)
        )

    return check


_PROBE = {
    "version": is_count, "trained_on": is_count, "classes": is_count, "files": _is_files,
    "metrics": lambda value: isinstance(value, dict), "generation": is_count,
}  # fmt: skip
_is_probe = _record(_PROBE, ("version", "trained_on", "classes", "files", "metrics"))
_REJECT = {
    "key": is_text, "source": or_none(is_text), "position": or_none(is_count),
    "id": or_none(is_text), "reason": or_none(is_text), "message": or_none(is_text),
    "kept": or_none(lambda value: isinstance(value, bool)), "record": or_none(_is_json),
    "generation": is_count,
}  # fmt: skip
_IDENTITY = {
    "encoder": is_text, "revision": or_none(is_text), "fingerprint": or_none(is_text),
    "dimension": or_none(lambda value: is_count(value, 1 << 16) and value > 0),
    "precision": or_none(is_text), "pictures": is_text,
}  # fmt: skip
is_identity = _record(_IDENTITY)
"""Whether it states an encoder and its dimension as a manifest does."""
_HEAD = {
    "kind": is_text, "command": is_text, "time": _is_time, "counts": _mapping(is_count),
    "removed": or_none(_all(is_count)), "attributes": _mapping(_all(is_text)),
    "probe": or_none(_is_probe), "shelf": is_identity, "first": is_count, "rows": is_count,
    "width": is_count, "vectors": is_text, "generation": is_count, "operation": is_count,
    "who": is_text,
}  # fmt: skip
_is_head = _record(_HEAD, ("kind", "time"))
_BODY = {
    "rejects": _all(_record(_REJECT, ("key", "reason", "record", "id"))),
    "resolved": _all(is_text), "attributes": _all(_is_attribute),
    "probes": _all(_record(_PROBE, (*_PROBE,))),
    "commits": _all(_record(_HEAD, ("kind", "time", "generation"))),
}  # fmt: skip
_is_body = _record(_BODY)


def _are_texts(values: Any) -> bool:
    return _all_of(str, type(None))(values) and _is_unicode(filter(None, values))


_FLAG = _all_of(bool)


def _are_prices(values: Any) -> bool:
    if not _all_of(float, int, type(None))(values):
        return False
    return all(type(value) is not int or abs(value) < _MOST for value in values)


_COLUMNS: dict[str, Check] = {
    **dict.fromkeys(("title", "description", "category", "brand", "image", "split"), _are_texts),
    **dict.fromkeys(("image_hash", "image_error", "content_hash"), _are_texts),
    "row": _all(is_count), "price": _are_prices,
    "id": lambda values: _all_of(str)(values) and _is_unicode(values),
    "attributes": _all(or_none(_is_json)), "decided": _all(or_none(_is_json)),
    "has_image": _FLAG, "has_text": _FLAG,
    "added": _all(is_count),
}  # fmt: skip


def is_head(value: Any, body_size: int) -> bool:
    """Whether it is the head of a frame whose body has so many bytes: each row takes some."""
    if not _is_head(value):
        return False
    head: Head = value
    complete = all(name in head for name in ("first", "width", "vectors"))
    return complete and head["rows"] <= body_size if head.get("rows") else True


def fault(body: Any, head: Head, columns: tuple[str, ...]) -> str | None:
    """What is wrong with a frame's body, None if nothing; `columns` are those of a product."""
    if not _is_body(body):
        return "its entries have other types"
    products = body.get("products")
    count = head.get("rows", 0)
    if not products:
        return "it has vectors without products" if count else None
    return _fault_of_products(products, head, count, columns)


def _fault_of_products(
    products: Any, head: Head, count: int, columns: tuple[str, ...]
) -> str | None:
    if not isinstance(products, dict) or not all(name in products for name in columns):
        return "a column of its products is missing"
    for name, values in products.items():
        if not _COLUMNS.get(name, _is_list)(values):
            return f"the column {name!r} has values of another type"
        if len(values) != count:
            return f"the column {name!r} has {len(values)} values for {count} rows"
    first = head.get("first", 0)
    if products["row"] != list(range(first, first + count)):
        return "it names other rows than it wrote"
    return None


def checked(body: Any, head: Head, columns: tuple[str, ...]) -> Body:
    """A frame's body. Raises ValueError, which states what is wrong with it."""
    if problem := fault(body, head, columns):
        raise ValueError(problem)
    found: Body = body
    return found
