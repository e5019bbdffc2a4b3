"""Facets: how many products have each value of a column; numbers by bands."""

from __future__ import annotations

import bisect
import json
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kinshelf.db.filters.names import Name
    from kinshelf.db.product import StoredProduct

Value = Callable[["StoredProduct"], Any]
Facet = list[dict[str, Any]]
"""`{"value": ..., "count": ...}` each, the most frequent first, bands by size; None: no value."""
MOST = 1000
"""Values that a facet lists; the rest is one entry, `others` of them."""
_EDGES = [step * 10.0**power for power in range(-2, 13) for step in (1, 2, 5)]


def facet_of(name: Name, counts: Mapping[Any, int]) -> Facet:
    """The facet of a column from the counts of its values. The counts sum to those given.

    >>> from kinshelf.db.filters.names import Name
    >>> facet_of(Name("price", "number", ""), {3.5: 2, 4.0: 1, None: 1})
    [{'value': '2 to 5', 'count': 3}, {'value': None, 'count': 1}]
    """
    missing = [{"value": None, "count": counts[None]}] if counts.get(None) else []
    given = {value: count for value, count in counts.items() if value is not None}
    if name.kind == "number":
        return _banded(given) + missing
    order = sorted(given.items(), key=lambda pair: (-pair[1], str(pair[0])))
    shown: Facet = [{"value": value, "count": count} for value, count in order[:MOST]]
    if rest := order[MOST:]:
        shown.append({"others": len(rest), "count": sum(count for _, count in rest)})
    return shown + missing


def _banded(counts: Mapping[Any, int]) -> Facet:
    """Bands from 1, 2, 5, 10 and so on to the next; a number at an edge is in the upper one."""
    bands = Counter[int]()
    for value, count in counts.items():
        size = bisect.bisect_right(_EDGES, abs(float(value)))
        bands[-size - 1 if value < 0 else size] += count
    return [{"value": _band(band), "count": bands[band]} for band in sorted(bands)]


def _band(band: int) -> str:
    size = -band - 1 if band < 0 else band
    low = _EDGES[size - 1] if size else 0
    high = _EDGES[size] if size < len(_EDGES) else math.inf
    return f"-{high:g} to -{low:g}" if band < 0 else f"{low:g} to {high:g}"


def read(text: str | None, kind: str) -> Any:
    """A value that DuckDB gave as text."""
    if text is None or kind == "text":
        return text
    return float(text) if kind == "number" else text == "true"


def value_of(name: Name) -> Value:
    """How a column or attribute is read off a stored product; None where it has no value."""
    if name.parameters:
        return lambda stored: _converted(stored.product.attributes.get(name.name), name.kind)
    if name.name == "category_source":
        return lambda stored: stored.origin("category")
    if name.name in ("row", "added", "has_image", "has_text", "image_error"):
        return lambda stored: getattr(stored, name.name)
    return lambda stored: getattr(stored.product, name.name)


def _converted(value: Any, kind: str) -> Any:
    if value is None or kind == "boolean":
        return value
    if kind == "text":
        return value if isinstance(value, str) else json.dumps(value)
    return float(value)


def counted(names: Sequence[Name], products: Sequence[StoredProduct]) -> dict[str, Counter[Any]]:
    """The values of columns among products, where no database counts them."""
    readers = {name.name: value_of(name) for name in names}
    return {name: Counter(map(read, products)) for name, read in readers.items()}
