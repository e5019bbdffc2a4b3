"""What an address of the shelf shows: words, chosen values, a condition, an order, a page of it.

A choice is `NAME:VALUE`, `NAME:LOW..HIGH` for numbers from LOW on and under HIGH, or `NAME` alone
for the products without a value. Choices of one name are joined by OR, the rest by AND; they become
text of the shelf's own filters, their names and values quoted.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import parse_qs, quote, unquote, urlencode

from fastapi import Query

from kinshelf.db.errors import FilterError
from kinshelf.db.filters.literals import spelled
from kinshelf.db.filters.names import quoted
from kinshelf.serve.base.prefix import under

if TYPE_CHECKING:
    from kinshelf.db.catalog.facets import Facet
    from kinshelf.store.generation import AnySnapshot

SIZES = (36, 72, 144)
VIEWS = ("grid", "large", "list")
WORDS = 12
"""Words that are looked for; further ones are passed over."""
SEARCHED = ("title", "brand", "category", "id")
COLUMNS = ("category", "price", "brand")
"""Of the list, beside the title, unless the address names others."""
FEW = 12
"""Whole numbers that are listed one by one; others are in bands."""
BETWEEN = " | "
"""What stands between the parts of a category's path."""

Text = Annotated[str, Query(max_length=20_000)]
Short = Annotated[str, Query(max_length=300)]
Many = Annotated[list[str] | None, Query(max_length=100)]
Number = Annotated[int, Query(alias="page", ge=1, le=10_000_000)]
_RANGE = re.compile(r"(-?[\d.]*)\.\.(-?[\d.]*)")


@dataclass(frozen=True, slots=True)
class Finding:
    """An address of the shelf; `choices` are its `f`, `facets` the further attributes shown."""

    q: str = ""
    choices: tuple[str, ...] = ()
    where: str = ""
    sort: str = ""
    view: str = "grid"
    size: int = SIZES[0]
    columns: tuple[str, ...] = COLUMNS
    facets: tuple[str, ...] = ()
    page: int = 1

    def query(self) -> list[tuple[str, str]]:
        """The address's query: what differs from the shelf as it first opens."""
        blank = Finding()
        names = {"q": "q", "where": "where", "sort": "sort", "view": "view", "size": "size"}
        found = [("f", one) for one in self.choices] + [("facet", one) for one in self.facets]
        found += [
            (name, str(getattr(self, field)))
            for name, field in names.items()
            if getattr(self, field) != getattr(blank, field)
        ]
        if self.columns != blank.columns:
            found += [("col", one) for one in self.columns or ("",)]
        return found + ([("page", str(self.page))] if self.page > 1 else [])

    def path(self, **changes: Any) -> str:
        """The address with some changed; on its first page unless `page` is named."""
        found = replace(self, **{"page": 1} | changes).query()
        return "/shelf" + (f"?{urlencode(found, quote_via=quote)}" if found else "")

    def link(self, **changes: Any) -> str:
        """As `path`, where a browser asks for it."""
        return under(self.path(**changes))

    def fields(self, *but: str) -> list[tuple[str, str]]:
        """The hidden fields of a form that changes those named in `but`, and begins at page 1."""
        return [pair for pair in self.query() if pair[0] not in (*but, "page")]

    def toggled(self, choice: str) -> str:
        """The address with a choice more, or with it taken away."""
        others = tuple(one for one in self.choices if one != choice)
        return self.link(choices=(*self.choices, choice) if others == self.choices else others)

    @property
    def chosen(self) -> dict[str, list[str | None]]:
        """The chosen values by name, None for the products without one."""
        found: dict[str, list[str | None]] = {}
        for one in self.choices:
            name, value = parted(one)
            found.setdefault(name, []).append(value)
        return found

    def own(self, kinds: Any) -> dict[str, str]:
        """The filter of each chosen name; `kinds` are "text", "number" or "boolean" by name."""
        return {
            name: "(" + " OR ".join(_condition(name, v, kinds.get(name)) for v in values) + ")"
            for name, values in self.chosen.items()
        }

    def base(self, now: AnySnapshot) -> str | None:
        """The filter of the words and the condition. Raises FilterError."""
        parts = [_has_word(word) for word in self.q.lower().split()[:WORDS]]
        if (typed := now.filter(self.where or None)) is not None:
            parts.append(typed.canonical)
        return " AND ".join(parts) or None

    def whole(self, now: AnySnapshot, kinds: Any) -> str | None:
        """The filter of all of it. Raises FilterError."""
        parts = [self.base(now), *self.own(kinds).values()]
        return " AND ".join(filter(None, parts)) or None


def asked(
    q: Text = "", f: Many = None, where: Text = "", sort: Short = "", view: Short = "",
    size: Annotated[int, Query(ge=1, le=10_000)] = SIZES[0], col: Many = None, facet: Many = None,
    number: Number = 1, low: Short = "", high: Short = "", of: Short = "",
) -> Finding:  # fmt: skip
    """A dependency: the address of a request. `low`, `high` and `of` come from the form of a number
    and become a choice."""
    choices = [one for one in f or [] if one]
    if of and (low.strip() or high.strip()):
        choices = [one for one in choices if parted(one)[0] != of]
        choices.append(choice_of(of, f"{low.strip()}..{high.strip()}"))
    columns = COLUMNS if col is None else tuple(dict.fromkeys(filter(None, col)))
    return Finding(
        q.strip(), tuple(dict.fromkeys(choices)), where.strip(), sort.strip(),
        view if view in VIEWS else VIEWS[0], size if size in SIZES else SIZES[0], columns,
        tuple(dict.fromkeys(filter(None, facet or []))), number,
    )  # fmt: skip


def of_address(address: str) -> Finding:
    """The finding of an address that `Finding.link` made, as a form sends it back."""
    given = parse_qs(address.partition("?")[2], keep_blank_values=True)
    first = {name: values[0] for name, values in given.items()}
    numbers = {name: int(first.get(name, "0")[:9] or 0) if first.get(name, "0").isdecimal() else 0
               for name in ("size", "page")}  # fmt: skip
    return asked(
        first.get("q", ""), given.get("f"), first.get("where", ""), first.get("sort", ""),
        first.get("view", ""), numbers["size"], given.get("col"), given.get("facet"),
        max(numbers["page"], 1),
    )  # fmt: skip


def choice_of(name: str, value: str | None) -> str:
    """A choice as an address states it."""
    head = quote(name, safe=" ")
    return head if value is None else f"{head}:{value}"


def parted(choice: str) -> tuple[str, str | None]:
    """The name and the value of a choice."""
    head, colon, value = choice.partition(":")
    return unquote(head), value if colon else None


def _has_word(word: str) -> str:
    return "(" + " OR ".join(f"contains(lower({n}), {spelled(word)})" for n in SEARCHED) + ")"


def _condition(name: str, value: str | None, kind: str | None) -> str:
    column = quoted(name)
    if value is None:
        return f"{column} IS NULL"
    if kind == "boolean":
        return column if value == "true" else f"NOT {column}"
    if kind == "number":
        return _numeric(column, value)
    if name == "category":
        below = f"starts_with({column}, {spelled(value + BETWEEN)})"
        return f"({column} = {spelled(value)} OR {below})"
    return f"{column} = {spelled(value)}"


def _numeric(column: str, value: str) -> str:
    if (found := _RANGE.fullmatch(value)) is None:
        return f"{column} = {_number(value)!r}"
    low, high = found.groups()
    sides = [f"{column} >= {_number(low)!r}"] if low else []
    sides += [f"{column} < {_number(high)!r}"] if high else []
    return "(" + (" AND ".join(sides) or f"{column} IS NOT NULL") + ")"


def _number(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise FilterError(f"{text[:60]!r} is no number: write one such as 20 or 9.99")
    return number


def kinds_of(now: AnySnapshot) -> dict[str, str]:
    """The kinds of all columns and attributes, by the name that a filter uses."""
    from kinshelf.db.catalog.queries import FILTER_COLUMNS

    attributes = now.view.attribute_types()
    shown = {f"source_{n}" if n in FILTER_COLUMNS else n: kind for n, kind in attributes.items()}
    return shown | FILTER_COLUMNS


def _is_counted(facet: Facet) -> bool:
    """Whether a number has few values, all of them whole, which are listed one by one."""
    return facet.distinct <= FEW and all(isinstance(value, int) for value, _ in facet.values)


def choices_of(facet: Facet) -> list[tuple[str | None, str, int]]:
    """The values of a facet as choices: value, words, count."""
    found: list[tuple[str | None, str, int]] = []
    if facet.kind == "number" and not _is_counted(facet):
        for band in facet.bands:
            low, high = (("" if x is None else f"{x:.0f}") for x in (band.low, band.high))
            words = f"{low} to {high}" if low and high else f"under {high}" if high else f"{low} on"
            found.append((f"{low}..{high}", words, band.count))
    else:
        for value, count in facet.values:
            text = str(value).lower() if isinstance(value, bool) else str(value)
            found.append((text, text, count))
    return found + ([(None, "", facet.lacking)] if facet.lacking else [])
