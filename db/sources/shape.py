"""Rows of a shop's layout as rows of products: several rows gathered into one, columns combined."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, TypeAlias

from kinshelf.db.formats.source import BadRow
from kinshelf.db.layouts.cells import pictures_of
from kinshelf.db.layouts.choose import PICTURES, VARIANTS, variant_columns
from kinshelf.db.layouts.known import Layout, matching
from kinshelf.db.layouts.names import key_of
from kinshelf.db.layouts.templates import Template, template_of
from kinshelf.db.sources.values import first_member, text_of

if TYPE_CHECKING:
    from kinshelf.db.formats.source import RowSource

Row: TypeAlias = "dict[str, object]"
_SAMPLED = 500
_MOST_ROWS = 5_000
"""Rows of one product; a shop allows 2,000 variants at most."""


class ShapedSource:
    """A source whose rows are products: see `db.layouts.known.Layout`.

    Item n of `rows()` is the n-th product, which begins where its first row stands; `rows_read`
    counts the rows of the file. Memory holds one product's rows, and with `Layout.parent` those of
    all variants.
    """

    def __init__(
        self, source: RowSource, layout: Layout | None, templates: Mapping[str, Template],
        pictures: Sequence[str] = (),
    ) -> None:  # fmt: skip
        self.inner = source
        self.layout = layout
        self.from_text = source.from_text
        self.notes: list[str] = getattr(source, "notes", [])
        self.rows_read = 0
        self._templates = templates
        by_key = {key_of(column): column for column in reversed(source.columns)}
        self._pictures = list(pictures)
        self._variant = variant_columns(source.columns, layout) if layout else []
        self._group = by_key.get(layout.group or "") if layout else None
        self._parent = by_key.get(layout.parent or "") if layout else None
        children = layout.children if layout else None
        self._children = by_key.get(children[0]) if children else None
        self._child = re.compile(children[1]) if children else None
        titles = layout.fields.get("title", ()) if layout else ()
        self._titles = [by_key[name] for name in titles if name in by_key][:1]
        keys = layout.parent_keys if layout else ()
        found = [template_of(k if "{" in k else f"{{{k}}}", by_key) for k in keys]
        self._parent_keys = [one for one in found if one]
        self._starts = self._condition(layout.starts) if layout else None
        self._hidden = self._condition(layout.hidden) if layout else None
        self.gathers = bool(self._group or self._parent or self._children or self._starts)
        made = [*templates, *([PICTURES] if self._pictures else [])]
        self.columns: Sequence[str] = [
            *source.columns, *made, *([VARIANTS] if self.gathers and self._variant else []),
        ]  # fmt: skip

    def _condition(self, stated: tuple[str, str] | None) -> tuple[str, str] | None:
        found = matching(self.inner.columns, [stated[0]]) if stated else []
        return (found[0], stated[1].casefold()) if stated and found else None

    def count(self) -> int | None:
        """Of a source whose rows are products the number of rows, else None."""
        return None if self.gathers else self.inner.count()

    def rows(self, wanted: Collection[str] | None = None) -> Iterator[Row | BadRow]:
        """Each product's row, with the columns that are made here."""
        needed = None if wanted is None else {*wanted, *self._inputs()}
        self.rows_read = 0
        for row in self._gathered(needed):
            if not isinstance(row, BadRow):
                if self._pictures and PICTURES not in row and _among(PICTURES, wanted):
                    row[PICTURES] = self._pictures_in([row])
                for name, template in self._templates.items():
                    if _among(name, wanted):
                        row[name] = template.fill(row, _shown)
            yield row

    def _inputs(self) -> list[str]:
        made = [column for one in self._templates.values() for column in one.columns]
        keys = [column for one in self._parent_keys for column in one.columns]
        given = (one[0] for one in (self._starts, self._hidden) if one)
        plain = [self._group, self._parent, self._children, *self._titles, *given]
        return [*made, *keys, *self._pictures, *self._variant, *filter(None, plain)]

    def _read(self, wanted: Collection[str] | None) -> Iterator[Row | BadRow]:
        for row in self.inner.rows(wanted):
            self.rows_read += 1
            if isinstance(row, BadRow) or not self._hidden or not _meets(row, self._hidden):
                yield row if isinstance(row, BadRow | dict) else dict(row)
            else:
                place = f"{self._hidden[0]} is {row[self._hidden[0]]!r}"
                yield BadRow(f"{place}: the variant of another product", "hidden", expected=True)

    def _gathered(self, wanted: Collection[str] | None) -> Iterator[Row | BadRow]:
        if self._parent or self._children:
            yield from self._with_children(wanted)
            return
        held: list[Row] = []
        for row in self._read(wanted):
            if isinstance(row, BadRow):
                if held:
                    yield self._whole(held)
                    held = []
                yield row
            elif held and self._continues(held[0], row) and len(held) < _MOST_ROWS:
                held.append(row)
            else:
                if held:
                    yield self._whole(held)
                held = [row]
        if held:
            yield self._whole(held)

    def _continues(self, first: Row, row: Row) -> bool:
        if self._starts:
            return not _meets(row, self._starts)
        key = self._group and row.get(self._group)
        if not key or key != first.get(self._group or ""):
            return False
        # A look-alike of a layout may have products of their own where the layout has variants.
        titles = {_shown(each.get(name)) for name in self._titles for each in (first, row)}
        return len(titles - {""}) < 2

    def _whole(self, rows: list[Row]) -> Row:
        """The rows of one product as one: each cell is the first that is not empty."""
        first = rows[0]
        if not self.gathers:
            return first
        for row in rows[1:]:
            for column, cell in row.items():
                if cell not in (None, "") and first.get(column) in (None, ""):
                    first[column] = cell
        first[PICTURES] = self._pictures_in(rows)
        variants = self._variants_of(rows)
        if variants:
            first[VARIANTS] = json.dumps(variants, ensure_ascii=False)
        return first

    def _with_children(self, wanted: Collection[str] | None) -> Iterator[Row | BadRow]:
        """Parents with their variants, wherever these stand; a variant without one by itself."""
        children, parents = defaultdict(list), set[str]()
        listed = self._listed()
        for row in self.inner.rows(wanted):
            if not isinstance(row, BadRow):
                if key := self._parent_of(row, listed):
                    children[key].append(dict(row))
                else:
                    parents |= {one.fill(row, _shown) for one in self._parent_keys}
        for each in self._read(wanted):
            if isinstance(each, BadRow):
                yield each
                continue
            if self._parent_of(each, listed) in parents - {""}:
                message = "the variant of another product"
                yield BadRow(message, "variant", expected=True)
                continue
            names = [one.fill(each, _shown) for one in self._parent_keys]
            found = [row for name in names for row in children.get(name, ()) if name]
            yield self._family(each, found)

    def _listed(self) -> dict[str, str]:
        """The parent of each variant that a parent lists."""
        found: dict[str, str] = {}
        if not self._children or not self._child or not self._parent_keys:
            return found
        own = self._parent_keys[0]
        for row in self.inner.rows({self._children, *own.columns}):
            if not isinstance(row, BadRow) and (names := _shown(row.get(self._children))):
                key = own.fill(row, _shown)
                found |= {name.strip(): key for name in self._child.findall(names)}
        return found

    def _parent_of(self, row: Mapping[str, object], listed: Mapping[str, str]) -> str:
        if not self._children:
            return _shown(row.get(self._parent or ""))
        return listed.get(self._parent_keys[0].fill(row, _shown), "")

    def _family(self, parent: Row, children: list[Row]) -> Row:
        if not children:
            return parent
        for column in self._variant:  # such as the price; never what names the variant
            cells = (row.get(column) for row in children)
            if _shown(parent.get(column)) == "":
                parent[column] = next((cell for cell in cells if _shown(cell)), "")
        parent[PICTURES] = self._pictures_in([parent, *children])
        parent[VARIANTS] = json.dumps(self._variants_of(children), ensure_ascii=False)
        return parent

    def _pictures_in(self, rows: Sequence[Row]) -> list[str]:
        cells = [self._picture_cell(column, row) for column in self._pictures for row in rows]
        return pictures_of([_plain(cell) for cell in cells])

    def _picture_cell(self, column: str, row: Row) -> object:
        made = self._templates.get(column)
        return made.fill(row, _shown) if made else row.get(column)

    def _variants_of(self, rows: Sequence[Row]) -> list[dict[str, str]]:
        found = [{c: t for c in self._variant if (t := _shown(row.get(c)))} for row in rows]
        # The names of options stand in a product's first row alone.
        names = {c: t for c, t in found[0].items() if key_of(c).endswith(" name")}
        return [names | variant for variant in found if variant]


def _among(column: str, wanted: Collection[str] | None) -> bool:
    return wanted is None or column in wanted


def _meets(row: Mapping[str, object], condition: tuple[str, str]) -> bool:
    return _shown(row.get(condition[0])).casefold() == condition[1]


def _shown(cell: object) -> str:
    return first_member(text_of(cell)).strip()


def _plain(cell: object) -> object:
    return cell if isinstance(cell, list) else text_of(cell)


def filled_columns(source: RowSource) -> set[str]:
    """The columns in which something stands in the first 500 rows."""
    found: set[str] = set()
    for row in islice(source.rows(), _SAMPLED):
        if not isinstance(row, BadRow):
            found |= {column for column, cell in row.items() if _shown(cell)}
    return found
