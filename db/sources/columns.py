"""From the columns of a source to a plan that turns its rows into products."""

from __future__ import annotations

import contextlib
import json
import os
import re
import unicodedata
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import unquote

from kinshelf.db.errors import InputError
from kinshelf.db.formats.source import MAX_COLUMNS
from kinshelf.db.layouts.cells import is_markup, pictures_of, plain_text, unescaped
from kinshelf.db.layouts.choose import PICTURES, Choice, choose
from kinshelf.db.layouts.names import ATTRIBUTES, FIELDS, TEXT, split_text
from kinshelf.db.product import Product, Scalar
from kinshelf.db.sources.binding import attribute_names, bind, check_enough, mapped, without
from kinshelf.db.sources.values import first_member, scalar, text_of, typed, unfold
from kinshelf.db.text import (
    clean,
    clean_category,
    clean_key,
    clean_split,
    currency_of,
    is_range,
    parse_price,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

_LINE_END = re.compile(r" *[\t\r\n]+[ \t]*")
_SEVERAL = re.compile(
    r"[|;,\[]|^[({<\"']|^http|^//|https?:\\?/\\?/|^(?:null|nan|n/?a|none|#n/a|undefined|\\n|-)$",
    re.I,
)
"""What a cell may hold that is no path of a picture."""
_LONGEST_PATH = 255
_PICTURES_IN_BASE64 = ("/9j/", "iVBORw0KGgo", "R0lGOD", "UklGR", "Qk0")
"""How JPEG, PNG, GIF, WebP and BMP begin."""
_DRIVE = re.compile(r"[A-Za-z]:/")
_ODD = frozenset("\\%?")
"""Marks of a path that may stand for another: Windows' slashes, escapes and queries of URLs."""
_REMOTE = re.compile(r"[a-z][a-z0-9+.-]*://|data:|file:", re.IGNORECASE)
"""What pathlib would change in an absolute path."""
_BESIDE = {"image": "images", "price": "currency", "description": "description_html"}
"""Attributes that are made of a field's cell: all pictures of several, a price's currency, the
description as it stands where that is HTML."""
_NO_COLUMN = "\0"
"""Stands for the column of a field that has none; no source yields such a name."""


class Note(NamedTuple):
    """A value of a row that was ignored: a stable code, and a message with the value."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class RowFields:
    """The fields that a row has, whether or not something stands in them, and its attributes;
    None: all that the product is to have."""

    fields: frozenset[str]
    attributes: frozenset[str] | None

    @classmethod
    def of(cls, product: Product) -> RowFields:
        """Those in which something stands; title, description and picture in any case."""
        fields = {name for name in FIELDS[1:] if getattr(product, name) not in (None, "")}
        return cls(
            frozenset(fields | {"title", "description", "image"}), frozenset(product.attributes)
        )

    def with_split(self) -> RowFields:
        """With a split, which something else than the row gives."""
        return RowFields(self.fields | {"split"}, self.attributes)


@dataclass(frozen=True)
class ColumnPlan:
    """The mapping of columns to fields and attributes.

    `fields` maps a field to its column, `attributes` a column to the attribute's name. `folder` is
    where relative image paths start; `from_text` marks values as text without a type; `choice` is
    what layout and templates make of the columns; `proposed` are columns that may be fields.
    `point_groups`: "1.299" is a price above 1,000.
    """

    columns: tuple[str, ...]
    fields: Mapping[str, str]
    attributes: Mapping[str, str]
    layout: str | None = None
    folder: Path = field(default_factory=Path)
    from_text: bool = True
    choice: Choice = field(default_factory=Choice)
    point_groups: bool = False
    price_note: str = ""
    proposed: Mapping[str, str] = field(default_factory=dict)

    def product(self, row: Mapping[str, object]) -> tuple[Product, list[Note]]:
        """The product in `row` (column → value; a column may be absent) and what was left aside.

        A price that is no number is left aside as `bad-price`; a split by an unusual name is kept
        and reported as `unknown-split`. An id may come out empty: the
        caller decides what an unusable product is.
        """
        notes: list[Note] = []
        cells = [
            value if type(value := row.get(column)) is str else text_of(value)
            for column in self._order
        ]
        for place, read in self._reads:
            cells[place] = read(cells[place])
        cells[1:4] = map(first_member, cells[1:4])
        cells[5] = first_member(cells[5])
        key, title, description, category, price, brand, image, split, text = cells
        if text:
            title, description = split_text(text)
        attributes = self._attributes(row)
        if is_markup(description):
            attributes["description_html"] = clean(description)
        product = Product(
            clean_key(key),
            clean(plain_text(title)),
            clean(plain_text(description)),
            clean_category(unescaped(category)),
            self._price(price, notes, attributes) if price else None,
            (clean(unescaped(brand)) or None) if brand else None,
            self._image(image, attributes) if image else None,
            self._split(split, notes) if split else None,
            attributes,
        )
        return product, notes

    def id_of(self, row: Mapping[str, object]) -> str:
        """The id alone, as `product` has it."""
        text = text_of(row.get(self.fields["id"]))
        read = self.choice.read.get("id")
        return clean_key(read(text) if read else text)

    def fields_in(self, row: Mapping[str, object]) -> RowFields:
        """The fields of a row; where rows differ in their columns, those that stand in it."""
        found = self._every_field if self._used <= row.keys() else self._fields_among(row.keys())
        if ATTRIBUTES not in self.attributes or ATTRIBUTES not in row:
            return found
        cell = row[ATTRIBUTES]
        members = unfold(cell)
        if not self.from_text and (cell is None or members is not None):
            return RowFields(found.fields, None)  # the object is all that the product has
        return RowFields(found.fields, (found.attributes or frozenset()) | (members or {}).keys())

    @cached_property
    def _used(self) -> frozenset[str]:
        return frozenset((*self.fields.values(), *self.attributes))

    @cached_property
    def _every_field(self) -> RowFields:
        return self._fields_among(self._used)

    def _fields_among(self, columns: Collection[str]) -> RowFields:
        fields = {name for name, column in self.fields.items() if column in columns}
        if TEXT in fields:
            fields |= {"title", "description"}
        attributes = [self.attributes[each] for each in columns if each in self.attributes]
        # What comes with a field goes with it.
        attributes += [name for of, name in _BESIDE.items() if of in fields]
        return RowFields(frozenset(fields & set(FIELDS[1:])), frozenset(attributes))

    def extended(self, columns: Iterable[str]) -> ColumnPlan:
        """The plan with further columns; what is bound to a column already stays bound to it."""
        new = [name for name in columns if name not in self.known]
        fields = bind(new, dict(self.fields))
        if len(self.known) + len(new) > MAX_COLUMNS:
            raise InputError(
                f"the rows have more than {MAX_COLUMNS:,} different names: leave out some, or put"
                " names and values into one column as JSON text"
            )
        names = {**self.attributes, **attribute_names(new, fields)}
        return replace(self, columns=(*self.columns, *new), fields=fields, attributes=names)

    @cached_property
    def known(self) -> frozenset[str]:
        """The columns, to be looked up."""
        return frozenset(self.columns)

    def notes(self) -> list[str]:
        """For a person: the columns whose names are ours, and what they are kept as."""
        renamed = {
            c: n for c, n in self.attributes.items()
            if n == f"source_{clean_key(c)}" and c != ATTRIBUTES
        }  # fmt: skip
        return [f"its column {c!r} is kept as the attribute {n!r}" for c, n in renamed.items()]

    def without_attributes(self) -> ColumnPlan:
        """The plan that reads the fields only."""
        return replace(self, attributes={})

    @cached_property
    def _order(self) -> tuple[str, ...]:
        """The column of each field in turn, and of the joined text."""
        return tuple(self.fields.get(name, _NO_COLUMN) for name in (*FIELDS, TEXT))

    @cached_property
    def _reads(self) -> list[tuple[int, Callable[[str], str]]]:
        return [((*FIELDS, TEXT).index(name), read) for name, read in self.choice.read.items()]

    @cached_property
    def _prefix(self) -> str:
        return f"{self.folder}{os.sep}"

    def _split(self, text: str, notes: list[Note]) -> str | None:
        name, usual = clean_split(text)
        if not usual:
            message = f"the split {name!r} is none of train, val and test: it trains the probe"
            notes.append(Note("unknown-split", f"{message}; the product is kept"))
        return name

    def _price(self, text: str, notes: list[Note], attributes: dict[str, Scalar]) -> float | None:
        try:
            amount = parse_price(text, point_groups=self.point_groups)
        except ValueError as problem:
            notes.append(Note("bad-price", f"{problem}; the product is kept without a price"))
            return None
        if amount is not None and is_range(text):
            message = f"the price {text!r} is a range: its lower bound is taken"
            notes.append(Note("price-range", f"{message}; the product is kept"))
        if not (text[:1] + text[-1:]).isdecimal() and (currency := currency_of(text)):
            attributes.setdefault("currency", currency)
        return amount

    def _image(self, text: str, attributes: dict[str, Scalar]) -> str | None:
        """The first picture of a cell; where it names several, all are an attribute too."""
        value = clean_key(_LINE_END.sub("|", text.strip()))
        if _SEVERAL.search(value) and not _is_file(self.folder / value):
            found = [self._place(picture) for picture in pictures_of(value)]
            if len(found) > 1:
                attributes["images"] = json.dumps(found, ensure_ascii=False)
            return found[0] if found else None
        return self._place(value) if value else None

    def _place(self, value: str) -> str:
        """A picture's URL as it stands, and a path below the folder."""
        if ":" in value and _REMOTE.match(value):
            return value
        if len(value) > _LONGEST_PATH and value.startswith(_PICTURES_IN_BASE64):
            return f"data:image/unknown;base64,{value}"
        if value.startswith("//"):  # a URL of the page's own scheme
            return f"https:{value}"
        if value[0] == "/" or not (value.isascii() and _ODD.isdisjoint(value)):
            return self._found(value)
        if value[0].isalnum() and ":" not in value:
            # The common case: pathlib takes longer than all the rest of the row.
            return self._prefix + value
        return str(self.folder / value)

    def _found(self, value: str) -> str:
        """The file that a path means: below the folder though it begins with a slash, with the
        other slashes, in another Unicode form, or written as in a URL (`a%20b.jpg`, `a.jpg?v=2`);
        the path as it stands where there is none."""
        plain = value.replace("\\", "/")
        below = re.sub(r"^([A-Za-z]:)?/+", "", plain)
        tried = [value, plain, below, *([below.rpartition("/")[2]] if _DRIVE.match(plain) else [])]
        for path in [*tried, *map(unquote, tried), *(unquote(p.partition("?")[0]) for p in tried)]:
            forms = (path, unicodedata.normalize("NFC", path), unicodedata.normalize("NFD", path))
            for form in dict.fromkeys(forms):
                if _is_file(whole := self.folder / form):
                    return str(whole)
        return str(self.folder / value)

    def _attributes(self, row: Mapping[str, object]) -> dict[str, Scalar]:
        found: dict[str, Scalar] = {}
        convert = typed if self.from_text else scalar
        names = self.attributes
        # Of names that come row by row, few rows have many.
        sparse = len(row) < len(names)
        for column in [c for c in row if c in names] if sparse else names:
            name, value = names[column], row.get(column)
            if value is None or value == "":
                continue
            if column == ATTRIBUTES and (members := unfold(value)) is not None:
                found |= members
            elif (cell := convert(value)) is not None:
                found[name] = cell
        return found


def _is_file(path: Path) -> bool:
    """Whether a file is there; a text that can be no path names none."""
    with contextlib.suppress(OSError, ValueError):
        return path.is_file()
    return False


def product_plan() -> ColumnPlan:
    """The plan that reads a product's own fields: products in memory are cleaned like a file's."""
    return resolve_columns((*FIELDS, ATTRIBUTES), {}, from_text=False)


def resolve_columns(
    columns: Sequence[str],
    mapping: Mapping[str, str],
    *,
    folder: Path | None = None,
    from_text: bool = True,
    require_content: bool = True,
    filled: Collection[str] | None = None,
    guess: Callable[[Mapping[str, str]], Mapping[str, str]] | None = None,
) -> ColumnPlan:
    """Decide what each of `columns` is: by `mapping` {field: column}, known layout, or its name.

    `mapping` goes first, and takes precedence over the columns' names. Besides the
    product's fields it may name `text`, a column with title and description joined by " || ".
    Columns that are no field become attributes under their own names; one whose name is ours
    becomes "source_" and that name. `folder` (default: the working directory)
    is where relative image paths start. A value of `mapping` may be a template
    (`db.layouts.templates`), of `image` several with commas between them. `guess` gives columns
    for the fields that have none, by which an error proposes a mapping.

    Raises:
        UnknownColumn: a mapped column does not exist, or no column can be the id; and, with
            `require_content`, none can be a title, description, image or embedding.
        InputError: the mapping names a field that there is not, or contradicts itself.
    """
    choice = choose(columns, mapping, filled, folder)
    bound = {
        name: column if column in choice.templates else mapped(name, column, columns)
        for name, column in mapping.items()
        if choice.fields.get(name) != PICTURES
    }
    if TEXT in bound and bound.keys() & {"title", "description"}:
        raise InputError(
            "text stands for title and description in one column: map either text, or the two"
        )
    bound = without(bound, choice.fields) | bound
    columns = [*columns, *choice.made]
    fields = bind([c for c in columns if c not in choice.hidden], bound)
    check_enough(columns, fields, require_content, guess)
    where = (folder or Path()).absolute()
    layout = choice.layout.name if choice.layout else None
    names = attribute_names([c for c in columns if c not in choice.hidden], fields)
    for made in choice.templates:
        names.pop(made, None)
    return ColumnPlan(tuple(columns), fields, names, layout, where, from_text, choice)
