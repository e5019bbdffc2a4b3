"""Counts of products by the values of several columns at once: what a shop's sidebar shows.

>>> from kinshelf.db.catalog.queries import View
>>> from kinshelf.db.catalog.tables import Catalog
>>> count_facets(View(Catalog(), 0), ["category", "price"]).total
0
"""

from __future__ import annotations

import bisect
import json
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kinshelf.db.catalog.queries import FILTER_COLUMNS
from kinshelf.db.filters.literals import BOOLEAN, NUMBER
from kinshelf.db.filters.names import EXTRACTED, Names, pointer

if TYPE_CHECKING:
    from kinshelf.db.catalog.queries import Tabled
    from kinshelf.db.filters.compiler import Filter
    from kinshelf.db.filters.names import Name
    from kinshelf.db.product import Scalar, StoredProduct

FacetList = list[dict[str, Any]]
"""A facet as JSON: `{"value": ..., "count": ...}` each, the most frequent first, bands by size,
those without a value last. The counts sum to the products."""
MOST = 1000
"""Values that a facet in JSON lists; the rest is one entry, `others` of them."""
EDGES = (0, *(step * 10**power for power in range(10) for step in (1, 2, 5)))
"""Where the bands of a number begin: they stay the same under every filter."""

_Row = tuple[int, str | None, int | None, int, int]
_SAMPLED = 20_000
"""Products that `facet_names` reads."""
_MOST_VALUES = 500


@dataclass(frozen=True, slots=True)
class Band:
    """Products whose number is at least `low` and less than `high`; None: without that bound."""

    low: float | None
    high: float | None
    count: int

    def __str__(self) -> str:
        if self.low is None:
            return f"under {self.high:g}"
        return f"{self.low:g} and more" if self.high is None else f"{self.low:g} to {self.high:g}"


@dataclass(frozen=True, slots=True)
class Facet:
    """The products that match by the values of one column or attribute.

    `kind` is "text", "number" or "boolean". `values` are the most frequent ones with their counts,
    `distinct` how many there are in all, `lacking` the products without one; `bands` are those of a
    number by its size.
    """

    name: str
    kind: str
    values: list[tuple[Scalar, int]]
    distinct: int
    lacking: int
    bands: list[Band]

    def as_list(self, total: int) -> FacetList:
        """As JSON; `total` products were counted.

        >>> Facet("price", "number", [(3.5, 2)], 1, 1, [Band(2, 5, 2)]).as_list(3)
        [{'value': '2 to 5', 'count': 2}, {'value': None, 'count': 1}]
        """
        found: FacetList = [{"value": value, "count": count} for value, count in self.values]
        if self.kind == NUMBER:
            found = [{"value": str(band), "count": band.count} for band in self.bands]
        elif rest := self.distinct - len(self.values):
            shown = sum(count for _, count in self.values)
            found.append({"others": rest, "count": total - self.lacking - shown})
        return found + ([{"value": None, "count": self.lacking}] if self.lacking else [])


@dataclass(frozen=True, slots=True)
class Facets:
    """How many products match, and the facets by name."""

    total: int
    facets: dict[str, Facet]

    def as_lists(self) -> dict[str, FacetList]:
        """As JSON."""
        return {name: facet.as_list(self.total) for name, facet in self.facets.items()}


def count_facets(
    view: Tabled,
    names: Sequence[str],
    where: Filter | None = None,
    *,
    own: Mapping[str, Filter | None] | None = None,
    limit: int = 20,
    whole: Collection[str] = (),
) -> Facets:
    """Count the products of a view by each of `names`, in one pass over the products.

    names: columns and attributes, as a filter spells them. where: the products to count. own: by
    name, a further filter that holds for the total and for all other facets, but not for the facet
    of that name: so whoever chose red sees how many are green. limit: the most values of a facet,
    but for those in `whole`; ties are in the order of the values.

    Raises FilterError for a name that there is not.
    """
    known = Names(FILTER_COLUMNS, view.attribute_types())
    wanted = {name: known.find(name) for name in dict.fromkeys(names)}
    filters = {name: each for name, each in (own or {}).items() if each is not None}
    limits = {name: None if name in whole else limit for name in wanted}
    asked = _Query(wanted, filters, limits)
    with view.tabled(where) as table:
        rows = table._run(*asked.of(*table._visible(where))).fetchall()
    facets = {
        name: _facet(name, each.kind, [row for row in rows if row[0] == i], limits[name])
        for i, (name, each) in enumerate(wanted.items())
    }
    return Facets(next(row[3] for row in rows if row[0] < 0), facets)


def _facet(name: str, kind: str, rows: list[_Row], limit: int | None) -> Facet:
    values = [(_typed(value, kind), count) for _, value, _, count, _ in rows if value is not None]
    bands = sorted((band, count) for _, _, band, count, _ in rows if band is not None)
    lacking = sum(count for _, value, band, count, _ in rows if value is None and band is None)
    return Facet(
        name, kind, sorted(values, key=lambda pair: (-pair[1], pair[0]))[:limit],
        max((row[4] for row in rows), default=0), lacking,
        [Band(*_bounds(band), count) for band, count in bands],
    )  # fmt: skip


def _bounds(band: int) -> tuple[float | None, float | None]:
    return EDGES[band - 1] if band else None, EDGES[band] if band < len(EDGES) else None


def _typed(value: str, kind: str) -> Any:
    if kind != NUMBER:
        return value == "true" if kind == BOOLEAN else value
    number = float(value)
    return int(number) if number.is_integer() else number


class _Query:
    """Reads each product once, its attributes together: to parse their JSON takes most of the time.

    Its rows are the facet's place, a value or a band, the products, and how many values there are;
    the place of the total is -1.
    """

    def __init__(
        self,
        names: Mapping[str, Name],
        own: Mapping[str, Filter],
        limits: Mapping[str, int | None],
    ) -> None:
        self._names = names
        self._own = own
        self._limits = limits

    def of(self, visible: str, parameters: Sequence[Any]) -> tuple[str, list[Any]]:
        """The SQL and its parameters, over the products that the condition `visible` lets in."""
        pointers = [each.parameters[0] for each in self._names.values() if each.parameters]
        read = ["json_extract_string(p.attributes, ?::VARCHAR[]) AS x"] if pointers else []
        read += [f"{f.sql} AS o{i}" for i, f in enumerate(self._own.values())]
        read += [f"{n.sql} AS f{i}" for i, n in self._numbered() if not n.parameters]
        values: list[Any] = [pointers] if pointers else []
        values += [one for f in self._own.values() for one in f.parameters]
        query = (
            f"WITH l AS (SELECT {', '.join(read) or '1'} FROM products p WHERE {visible}),"
            f" m AS MATERIALIZED (SELECT {', '.join(self._columns()) or '1'} FROM l)"
            f" SELECT -1, NULL, NULL, count(*), 0 FROM m{self._but(None)}"
        )
        return query + "".join(self._counts()), values + list(parameters)

    def _numbered(self) -> list[tuple[int, Name]]:
        return list(enumerate(self._names.values()))

    def _columns(self) -> list[str]:
        found = [f"o{i}" for i in range(len(self._own))]
        found += [f"f{i}" for i, each in self._numbered() if not each.parameters]
        attributes = [(i, each) for i, each in self._numbered() if each.parameters]
        for place, (i, each) in enumerate(attributes, 1):
            found.append(f"{each.sql.replace(EXTRACTED, f'x[{place}]')} AS f{i}")
        return found

    def _but(self, name: str | None) -> str:
        """All further filters but the facet's own."""
        others = [f"o{i}" for i, each in enumerate(self._own) if each != name]
        return f" WHERE {' AND '.join(others)}" if others else ""

    def _counts(self) -> list[str]:
        found = []
        for i, (name, each) in enumerate(self._names.items()):
            limit = self._limits[name]
            most = "" if limit is None else f" LIMIT {limit + 1}"  # and those that lack it
            found.append(
                f" UNION ALL (SELECT {i}, CAST(f{i} AS VARCHAR), NULL, count(*) AS c,"
                f" count(f{i}) OVER () FROM m{self._but(name)} GROUP BY f{i}"
                f" ORDER BY f{i} IS NULL DESC, c DESC, f{i}{most})"
            )
            if each.kind == NUMBER:
                found.append(
                    f" UNION ALL (SELECT {i}, NULL, {_band(f'f{i}')} AS b, count(*), 0"
                    f" FROM m{self._but(name)} GROUP BY b HAVING b IS NOT NULL)"
                )
        return found


def _band(column: str) -> str:
    cases = " ".join(f"WHEN {column} < {edge} THEN {i}" for i, edge in enumerate(EDGES))
    return f"CASE WHEN {column} IS NULL THEN NULL {cases} ELSE {len(EDGES)} END"


def facet_names(view: Tabled, most: int = 8) -> list[str]:
    """The attributes that make good facets, those that most products have first: of few values, and
    most of these in several products. They are chosen by the first products of the view."""
    names = list(view.attribute_types())
    if not names:
        return []
    places = range(1, len(names) + 1)
    columns = ", ".join(f"count(x[{i}]), count(DISTINCT x[{i}])" for i in places)
    pointers = [pointer(name) for name in names]
    with view.tabled(None, _SAMPLED) as table:
        visible, parameters = table._visible()
        query = (
            f"SELECT {columns} FROM (SELECT json_extract_string(attributes, ?::VARCHAR[]) AS x FROM"
            f" (SELECT attributes FROM products p WHERE {visible} ORDER BY row LIMIT {_SAMPLED}))"
        )
        found = table._run(query, [pointers, *parameters]).fetchone() or ()
    counts = dict(zip(names, zip(found[::2], found[1::2], strict=True), strict=True))
    good = [n for n, (count, of) in counts.items() if 1 < of <= _MOST_VALUES and count >= 2 * of]
    return sorted(good, key=lambda name: (-counts[name][0], name))[:most]


Value = Callable[["StoredProduct"], Any]


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
    if value is None or kind == BOOLEAN:
        return value
    if kind == NUMBER:
        return float(value)
    return value if isinstance(value, str) else json.dumps(value)


def facets_of(names: Sequence[Name], products: Sequence[StoredProduct], limit: int) -> Facets:
    """The facets of products that are at hand, as `count_facets` has them."""
    facets = {}
    for name in names:
        counts = Counter(map(value_of(name), products))
        rows = [
            _row(value, count, len(counts) - (None in counts)) for value, count in counts.items()
        ]
        if name.kind == NUMBER:
            bands = Counter[int]()
            for value, count in counts.items():
                if value is not None:
                    bands[bisect.bisect_right(EDGES, value)] += count
            rows += [(0, None, band, count, 0) for band, count in bands.items()]
        facets[name.name] = _facet(name.name, name.kind, rows, limit)
    return Facets(len(products), facets)


def _row(value: Any, count: int, distinct: int) -> _Row:
    text = value if value is None or isinstance(value, str) else json.dumps(value)
    return 0, text, None, count, distinct
